"""Given a command line in README, docs or help, then it can be typed as it stands: it parses, the cheap ones run."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import cli
from docs import commands
from eventmesh.lab.load_options import given
from tests.commands.small_run import write_run

ROOT = Path(__file__).parents[2]
#: What these say is about an application that they make: tests/commands/test_tutorial.py follows them.
FOLLOWED = {ROOT / "docs" / "tutorial.md", ROOT / "docs" / "how-to.md"}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted({*(ROOT / "docs").rglob("*.md")} - FOLLOWED)]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def command_lines(shell: str) -> list[str]:
    """The command lines of a block of shell, comments cut off, continued lines as one."""
    lines = [shlex.join(shlex.split(line, comments=True)) for line in re.sub(r"\\\n\s*", "", shell).splitlines()]
    return [line for line in lines if line]


def shown() -> Iterator[tuple[str, str]]:
    """Each command line that the project shows, with where."""
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            yield from ((page.relative_to(ROOT).as_posix(), line) for line in command_lines(block))
    for name, context in commands.commands():
        examples = command_lines("\n".join(commands.examples(context.command.help)))
        assert examples, f"{name} --help has no example"
        yield from ((f"{name} --help", line) for line in examples)


SHOWN = list(shown())
OURS = sorted({line for _, line in SHOWN if line.startswith("eventmesh ")})


def words_of(line: str) -> list[str]:
    """The words of a line. No mesh is up here, and options of a run are its mesh's: in place of the shop one ships."""
    return shlex.split(line.replace("run --name shop", "run views"))


def parsed(line: str) -> tuple[str, Any]:
    """The command's full name and its parameters; raises what a user would be told."""
    command, words = typer.main.get_command(cli.app), words_of(line)
    name, rest, context = words[0], words[1:], None
    while True:
        context = command.make_context(name.rpartition(" ")[2], rest, parent=context)
        if not hasattr(command, "list_commands"):
            return name, context.params | given(context)
        below, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        name = f"{name} {below}"


def missing(line: str) -> list[str]:
    """The files of the project that the line names and that do not exist."""
    return [word for word in shlex.split(line) if word.startswith("configs/") and not (ROOT / word).is_file()]


def test_something_is_shown_everywhere() -> None:
    places = {place for place, _ in SHOWN}
    assert {"README.md", "docs/commands.md", "eventmesh --help", "eventmesh log read --help"} <= places


@pytest.mark.parametrize(("place", "line"), SHOWN)
def test_a_line_that_is_shown_is_one_of_our_commands(place: str, line: str) -> None:
    program, *words = shlex.split(line)
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert [word for word in words if word not in targets] == []
    else:
        assert program == "eventmesh", f"{place}: {line}"


@pytest.mark.parametrize("line", OURS)
def test_a_command_line_parses_and_its_files_exist(line: str) -> None:
    parsed(line)
    assert missing(line) == []


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("shown") / "run")


def harmless(line: str, run: Path) -> list[str]:
    """The words of a command line, less what starts Ray or writes; looked at is ``run``."""
    name, parameters = parsed(line)
    starts = (
        "eventmesh run",
        "eventmesh bench run",
        "eventmesh chaos run",
        "eventmesh up",
        "eventmesh fuzz",
        "eventmesh new",
    )
    more = ["--dry-run"] if name in starts else []
    if "run_folder" in parameters:
        more = ["--run", str(run)]
    return [*words_of(line)[1:], *more]


def needs_more(line: str) -> bool:
    """An input that is not there, or a mesh that is up: those are told as a story in tests/on_ray/test_standing.py."""
    name, parameters = parsed(line)
    standing = "name" in parameters and name != "eventmesh bench run" and parameters.get("mesh") is None
    has_input = any(parameters.get(each) is not None for each in ("input", "input_file", "replay"))
    return has_input or (standing and bool(parameters["name"]))


@pytest.mark.parametrize("line", [line for line in OURS if not needs_more(line)])
def test_a_command_line_runs(
    line: str, small_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["eventmesh", *harmless(line, small_run)])
    code: object = 0
    try:
        cli.main()
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert out.strip()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("eventmesh lok topics", "No such command 'lok'"),
        ("eventmesh log topics --runs DIR", "No such option: --runs"),
        ("eventmesh describe", "Missing parameter: mesh"),
        ("eventmesh log read orders --limit many", "valid integer"),
        ("eventmesh demo more", "unexpected extra"),
    ],
)
def test_a_line_that_cannot_be_typed_is_found(line: str, said: str) -> None:
    with pytest.raises(Exception, match=said):
        parsed(line)


def test_a_file_that_does_not_exist_is_found() -> None:
    assert missing("eventmesh describe configs/meshes/view.yaml") == ["configs/meshes/view.yaml"]


def test_shell_is_read_as_the_shell_reads_it() -> None:
    assert command_lines("a b   # c\n\n# d\ne \\\n  --f 'g h'\n") == ["a b", "e --f 'g h'"]

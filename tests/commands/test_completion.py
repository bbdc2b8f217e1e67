"""Given a user who types half a word and presses Tab, then the names that fit are offered, at once."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eventmesh import __version__
from eventmesh.lab.known import STATE_VARIABLE
from tests.commands.conftest import Run
from tests.commands.small_run import CONFIGS

COMMAND = CONFIGS.parent / "cli.py"
HEAVY = {"duckdb", "numpy", "pyarrow", "ray", "yaml"}
Complete = Callable[..., list[str]]


def asked(shell: str, line: str) -> dict[str, str]:
    """What the shell's own script sets for a line whose last word is being typed."""
    words = line.split(" ")
    if shell == "bash":
        return {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    return {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}


@pytest.fixture
def complete(tmp_path: Path) -> Complete:
    """``complete(line, shell="bash")``: the lines that the shell is given, in an empty folder."""

    def run(line: str, shell: str = "bash") -> list[str]:
        own = {"_EVENTMESH_COMPLETE": f"complete_{shell}", STATE_VARIABLE: str(tmp_path / "state")}
        ended = subprocess.run(
            [sys.executable, COMMAND], cwd=tmp_path, env={**os.environ, **own, **asked(shell, line)},
            capture_output=True, text=True,
        )  # fmt: skip
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout.split()  # as bash takes it apart

    return run


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("eventmesh desc", ["describe"]),
        ("eventmesh bench ", ["list", "run"]),
        ("eventmesh describe ", ["hybrid", "request", "views"]),
        ("eventmesh run v", ["views"]),
        ("eventmesh up r", ["request"]),
        ("eventmesh run views --mapping o", ["online-retail"]),
        ("eventmesh bench run re", ["recovery", "replay"]),
        ("eventmesh status --name ", ["class", "shop"]),
        ("eventmesh log topics --name s", ["shop"]),
        ("eventmesh down --name nobody", []),
        ("eventmesh log read --name shop price-", ["price-updates"]),
        ("eventmesh log tail --run run o", ["order-requests", "orders"]),
        ("eventmesh log tail o", []),
        ("eventmesh log tail --run nowhere o", []),
        ("eventmesh describe ./v", []),
    ],
)
def test_names_are_offered(complete: Complete, tmp_path: Path, own_run: Path, line: str, offered: list[str]) -> None:
    own_run.rename(tmp_path / "run")
    (tmp_path / "state").mkdir()
    for name in ("shop", "class"):
        (tmp_path / "state" / f"{name}.json").write_text(json.dumps({"data": str(tmp_path / "run")}))
    assert complete(line) == offered


def test_topics_are_those_of_the_latest_run(complete: Complete, tmp_path: Path, own_run: Path) -> None:
    (tmp_path / "runs").mkdir()
    own_run.rename(tmp_path / "runs" / "views-1")
    (tmp_path / "runs" / "latest").symlink_to("views-1")
    assert complete("eventmesh log read ship") == ["shipments"]
    (tmp_path / "runs" / "latest" / "log" / "manifest.json").write_text("[]")
    assert complete("eventmesh log read ship") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_is_answered(complete: Complete, shell: str) -> None:
    assert "views" in " ".join(complete("eventmesh describe vi", shell))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("option", ["--show-completion", "--install-completion"])
def test_completion_is_shown_and_installed(tmp_path: Path, shell: str, option: str) -> None:
    own = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    ended = subprocess.run(
        [sys.executable, COMMAND, option, shell], env={**os.environ, **own}, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert (option == "--install-completion") == bool(written)
    assert any("_EVENTMESH_COMPLETE" in text for text in [ended.stdout, *written])


def test_bash_completes_with_what_is_shown(tmp_path: Path) -> None:
    program = tmp_path / "eventmesh"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{COMMAND}" "$@"\n')
    program.chmod(0o755)
    body = (
        "source <(eventmesh --show-completion bash); COMP_WORDS=(eventmesh run v); COMP_CWORD=2\n"
        '_eventmesh_completion eventmesh; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    ended = subprocess.run(
        [str(shutil.which("bash")), "-c", body], env={**os.environ, **own}, capture_output=True, text=True
    )
    assert (ended.stdout, ended.stderr) == ("views\n", "")


@pytest.mark.parametrize("line", ["eventmesh describe v", "eventmesh log read o", "eventmesh status --name s"])
def test_completion_and_versions_import_nothing_heavy(tmp_path: Path, line: str) -> None:
    completing = {"_EVENTMESH_COMPLETE": "complete_bash", **asked("bash", line)}
    for own, words in ((completing, []), ({}, ["--version"])):
        ended = subprocess.run(
            [sys.executable, "-X", "importtime", COMMAND, *words],
            cwd=tmp_path, env={**os.environ, **own}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        loaded = {each.rpartition("|")[2].strip().partition(".")[0] for each in ended.stderr.splitlines()}
        assert "typer" in loaded
        assert loaded & HEAVY == set()


def test_the_versions_are_those_that_are_installed(eventmesh: Run) -> None:
    ended = eventmesh("--version")
    libraries = [f"{name} {importlib.metadata.version(name)}" for name in ("ray", "pyarrow")]
    own = [f"eventmesh {__version__}", f"python {platform.python_version()}"]
    assert (ended.code, ended.out.splitlines(), ended.err) == (0, [*own, *libraries], "")

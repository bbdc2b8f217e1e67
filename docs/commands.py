"""Writes docs/commands.md from the commands themselves: ``python docs/commands.py > docs/commands.md``."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import cli
from eventmesh.errors import EXIT_CODES
from eventmesh.lab.examples import split
from eventmesh.lab.load_options import RunCommand, options_of
from eventmesh.lab.run import options_model

PROGRAM = "eventmesh"
COLUMNS = 100  # of prose, as in every page
#: ``eventmesh run`` has further options of the application whose mesh it runs: the page shows those of the shop.
MESH = "views"
OPENING = f"""\
# Commands

This page is written from the commands themselves: `python docs/commands.py > docs/commands.md`.
Each command says the same with `--help`. `{PROGRAM} --version` says what is installed;
`{PROGRAM} --install-completion` makes bash, zsh or fish complete commands, options, and the names
of what ships, of meshes that are up, and of topics. Results go to stdout, everything else to
stderr. Where a command knows `--json`, its stdout is one JSON document. `trace` and `{PROGRAM} log`
look at the latest run below `runs/`, or at the one named with `--run`.
"""


def reference() -> str:
    """The whole page."""
    chapters = [_chapter(name, context) for name, context in commands() if name != PROGRAM]
    return "\n".join([OPENING, *_options(next(commands())[1]), *chapters, _exit_codes()])


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its full name, groups before their members, each as the context it is called in."""
    yield from _below(typer.main.get_command(cli.app), PROGRAM, None)


def examples(help_text: str) -> list[str]:
    """The command lines that a help text gives as examples, as they are typed."""
    return split(help_text)[1]


def _below(command: Any, name: str, parent: Any) -> Iterator[tuple[str, Any]]:
    context = command.context_class(command, info_name=name.rpartition(" ")[2], parent=parent)
    yield name, context
    for each in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from _below(command.get_command(context, each), f"{name} {each}", context)


def _chapter(name: str, context: Any) -> str:
    command = context.command
    purpose, shown = split(command.help)
    purpose = _wrapped(purpose)
    shown = ["```sh", *shown, "```"]
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    lines = [f"## {name}", "", purpose, "", *shown, "", f"Usage: `{usage}`", ""]
    arguments = [each for each in command.get_params(context) if each.param_type_name == "argument"]
    return "\n".join([*lines, *_table("argument", arguments, context), *_options(context), *_of_application(context)])


def _of_application(context: Any) -> Iterator[str]:
    if isinstance(context.command, RunCommand):
        yield from (f"Of a mesh of the shop, as `{PROGRAM} run {MESH} --help` shows:", "")
        yield from _table("option", options_of(options_model(Path(MESH))), context)


def _options(context: Any) -> Iterator[str]:
    known = context.command.get_params(context)
    yield from _table(
        "option", [each for each in known if each.param_type_name == "option" and each.name != "help"], context
    )


def _wrapped(text: str) -> str:
    """Paragraphs that are too wide are filled anew; a list or a table that fits stays as it is."""
    parts = text.split("\n\n")
    wide = [max(map(len, part.splitlines()), default=0) > COLUMNS for part in parts]
    filled = (
        textwrap.fill(part, COLUMNS, break_long_words=False, break_on_hyphens=False) if too_wide else part
        for part, too_wide in zip(parts, wide, strict=True)
    )
    return "\n\n".join(filled)


def _table(kind: str, parameters: list[Any], context: Any) -> Iterator[str]:
    if not parameters:
        return
    yield from (f"| {kind} | what it says | default, bounds |", "| --- | --- | --- |")
    for parameter in parameters:
        name, said = parameter.get_help_record(context)
        found = re.fullmatch(r"(.*?)(?: +\[(.*)\])?", said)
        assert found is not None
        name = parameter.metavar if kind == "argument" else name
        yield f"| `{name}` | {found[1]} | {(found[2] or '').replace('; ', ', ')} |"
    yield ""


def _exit_codes() -> str:
    rows = [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    return "\n".join(["## Exit codes", "", "| code | meaning |", "| ---: | --- |", *rows, ""])


if __name__ == "__main__":
    typer.echo(reference(), nl=False)

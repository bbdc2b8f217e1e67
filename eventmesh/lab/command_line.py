"""What the commands share: options that several of them have, and how a result comes to the screen.

A module of commands parses, calls one function, and shows what it returns. Nothing heavy is imported before that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventmesh.errors import InputError
from eventmesh.lab import known

if TYPE_CHECKING:
    from rich.console import Console

    from eventmesh.lab.terminal import Screen
    from eventmesh.report.progress_bar import Report

RUNS = Path("runs")
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
RunFolder = Annotated[
    Path | None, typer.Option("--run", metavar="DIR", help="A run's folder; the latest one if not given.")
]


def by_name(told: str) -> Any:
    """The option that names a mesh; ``told`` is its help."""
    return typer.Option("--name", metavar="NAME", autocompletion=known.complete_mesh_up, help=told)


MeshName = Annotated[str | None, by_name("A mesh that is up, instead of a run.")]
Name = Annotated[str, by_name("What the mesh is called: a-z, 0-9 and -.")]
Data = Annotated[Path | None, typer.Option(metavar="DIR", help="Its data directory.", show_default="data/NAME")]
DryRun = Annotated[bool, typer.Option("-n", "--dry-run", help="Check everything, write nothing.")]


def where(run_folder: Path | None, name: str | None) -> Path:
    """The folder that holds the log that is meant."""
    from eventmesh.lab import inspect
    from eventmesh.lab.standing_record import find

    if run_folder is not None and name is not None:
        raise InputError("--run names a run's folder, --name a mesh that is up: give one of them")
    return inspect.find_run(RUNS, run_folder) if name is None else find(name).data


# --- printing ------------------------------------------------------------------------------------


def show(result: Any, as_json: bool, on_screen: Callable[[Screen], object]) -> None:
    """A result, as JSON or as people read it."""
    with suppress(BrokenPipeError):  # a reader who has seen enough changes no exit code
        if as_json:
            typer.echo(json.dumps(plain(result), indent=2, default=str))
        else:
            from eventmesh.lab.terminal import Screen

            on_screen(Screen())


def json_line(row: Mapping[str, Any]) -> None:
    """A row as a line of JSON."""
    typer.echo(json.dumps(row, default=str))


def show_again(look: Callable[[], dict[str, Any]], as_json: bool) -> None:
    """What is seen, every second, until Ctrl-C."""
    from eventmesh.lab.terminal import Screen, every_second

    looks = every_second(look)
    if as_json:
        for found in looks:
            json_line(found)
    else:
        Screen().watch(looks)


def plain(value: Any) -> Any:
    """What JSON can say of it."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


@contextmanager
def progress() -> Iterator[tuple[Console, Report]]:
    """Where a command says how far it is: its console on stderr, and its progress bar."""
    from eventmesh.lab.terminal import console_of
    from eventmesh.report.progress_bar import progress_bar

    console = console_of(sys.stderr)
    with progress_bar(console) as report:
        yield console, report


def sayer(console: Console) -> Callable[[str], None]:
    """Says lines on stderr, above the progress bar."""
    return lambda line: console.print(line, highlight=False, markup=False)

"""A progress bar on the terminal, and nothing where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Report(Protocol):
    """Where a long piece of work says how far it is."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """``done`` of ``total`` of ``stage``; a total of 0 means that nobody knows."""


def silent(stage: str, done: int, total: int) -> None:
    """Say nothing."""


@contextmanager
def progress_bar(console: Console) -> Iterator[Report]:
    """Stages with rate and remaining time; on anything but a terminal one line per stage."""
    columns = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    tasks: dict[str, int] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total or None, rate="")
                if not console.is_terminal:
                    console.print(f"{stage} ...", highlight=False)
            task = progress.tasks[tasks[stage]]
            rate = f"{done / task.elapsed:,.0f}/s" if task.elapsed and done else ""
            progress.update(tasks[stage], completed=done, total=total or None, rate=rate)  # type: ignore[arg-type]

        yield report

"""A progress bar on the terminal, and nothing where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

#: Columns of a terminal from which on the bar has room beside the figures.
WIDE = 110
#: Pieces per second below which the rate is said by the minute.
SLOW = 10


class Report(Protocol):
    """Where a long piece of work says how far it is."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """``done`` of ``total`` of ``stage``; a total of 0 means that nobody knows."""


def silent(stage: str, done: int, total: int) -> None:
    """Say nothing."""


class _InWords(ProgressColumn):
    """All figures of a task as words, which fold: a column of its own for each would be cut on a narrow terminal."""

    def __init__(self, columns: Iterable[ProgressColumn]) -> None:
        self._columns = list(columns)
        super().__init__(table_column=Column(no_wrap=False, overflow="fold"))

    def render(self, task: Task) -> Text:
        parts = [column.render(task) for column in self._columns]
        return Text(" ").join(part for part in parts if isinstance(part, Text) and part.plain)


class _Bar(Progress):
    """A bar where there is room for one."""

    def __init__(self, console: Console) -> None:
        figures = [
            MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn(),
        ]  # fmt: skip
        title = TextColumn("{task.description}", markup=False)
        self._wide = (title, BarColumn(bar_width=30), *figures)
        self._narrow = (_InWords([title, *figures]),)
        self._terminal = console
        super().__init__(*self._wide, console=console, disable=not console.is_terminal, transient=True)

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        # Asked again for each picture, since a terminal's width changes.
        self.columns = self._wide if self._terminal.width >= WIDE else self._narrow
        return super().make_tasks_table(tasks)


def _rate(per_second: float) -> str:
    """In words; what comes slowly by the minute, since it would be ``0/s``."""
    return f"{per_second:,.0f}/s" if per_second >= SLOW else f"{per_second * 60:,.0f}/min"


@contextmanager
def progress_bar(console: Console) -> Iterator[Report]:
    """Stages with rate and remaining time; on anything but a terminal one line per stage."""
    tasks: dict[str, int] = {}
    with _Bar(console) as progress:

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total or None, rate="")
                if not console.is_terminal:
                    console.print(f"{stage} ...", highlight=False, markup=False)
            task = progress.tasks[tasks[stage]]
            rate = _rate(done / task.elapsed) if task.elapsed and done else ""
            progress.update(tasks[stage], completed=done, total=total or None, rate=rate)  # type: ignore[arg-type]

        yield report

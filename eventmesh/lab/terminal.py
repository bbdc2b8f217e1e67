"""What people see of a command's result, on standard output.

A terminal's width is kept to, and no name is broken. What may hold brackets, a folder's name for instance, is never
taken for rich's markup.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import typer
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from eventmesh.lab.inspect import Step
    from eventmesh.lab.record import Run
    from eventmesh.lab.standing import Standing
    from eventmesh.log.store import Finding

Row = Mapping[str, Any]
#: Characters of a line where nobody looks at it.
WIDTH = 110
#: Seconds between two looks of a watch.
LOOK_AGAIN_S = 1.0
COLOURS = {"live": "green", "starting": "yellow", "silent": "red", "down": "red"}
KINDS = {"command": "yellow", "query": "cyan", "reply": "dim", "fact": "green"}


def piped(stream: TextIO) -> bool:
    """Nobody looks at ``stream`` in a terminal, so it has no width of its own."""
    return not stream.isatty()


def console_of(stream: TextIO) -> Console:
    """A console that writes to ``stream``."""
    return Console(file=stream, width=WIDTH if piped(stream) else None)


def every_second(look: Callable[[], Row]) -> Iterator[Row]:
    """What is seen, again and again, without an end."""
    while True:
        yield look()
        time.sleep(LOOK_AGAIN_S)


class Screen:
    """Standard output."""

    def __init__(self) -> None:
        self._console = console_of(sys.stdout)

    def line(self, words: str) -> None:
        """As it is, markup or not."""
        typer.echo(words)

    def pairs(self, pairs: Row) -> None:
        """A line for each name with its value."""
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        for key, value in pairs.items():
            words = _in_words(value) if isinstance(value, dict) else _number(value)
            table.add_row(Text(str(key)), Text(words))
        self._console.print(table)

    def table(self, rows: Sequence[Row], last_folds: bool = False) -> None:
        """Rows that have the same names; where it ``last_folds``, the last column takes as many lines as it needs."""
        self._console.print(_table(rows, last_folds))

    def stories(self, stories: Sequence[Any]) -> None:
        """How each wiring took one order (:class:`~eventmesh.shop.demo.Story`), side by side where there is room."""
        # A blank line below each, since on a narrow terminal they stand one above the other.
        self._console.print(Columns([Padding(_moments(story), (0, 0, 1, 0)) for story in stories], padding=(0, 4)))
        for story in stories:
            self._console.print(
                f"[bold]{story.title}[/]: accepted after {story.accepted_ms:.1f} ms, {story.outcome} after "
                f"{story.completed_ms:.1f} ms, {story.messages} messages sent. To be accepted, these had to be up: "
                f"{', '.join(story.asked)}.",
                highlight=False,
            )
        legend = "\nVirtual time, simulated; → command or query?, ← reply, ⇒ fact appended to a topic."
        self._console.print(legend, style="dim", highlight=False)

    def run(self, finished: Run, folder: Path | None) -> None:
        """What came of a run, and where everything about it is."""
        self.line(f"{finished.name}: audit {finished.verdict}")
        imported = finished.imported.model_dump() if finished.imported else {}
        for title, values in (("import", imported), ("outcomes", finished.outcomes)):
            if values:
                self.line(f"  {title}: {_in_words(values)}")
        for figure in finished.figures:
            self.line(f"  {figure.name}: {figure.value:,.2f} {figure.unit}")
        self.line(f"  everything is in {folder}; next: eventmesh trace ORDER, eventmesh log topics")

    def benchmark(self, folder: Path) -> None:
        """The summary that a benchmark left, and where its report is."""
        self.line((folder / "summary.md").read_text())
        self.line(f"Report: {folder / 'report.html'}")

    def runs(self, rows: Sequence[Row]) -> None:
        """A line for each run there is, which a narrow terminal folds, and why some are never deleted."""
        for row in rows:
            what = f"{row['started']}  {row['status']}, audit {row['audit']}, " if row["started"] else ""
            why = f"; left alone: {row['left alone']}" if row["left alone"] else ""
            self.line(f"{row['run']}  {what}{_size(row['bytes'])}{why}")
        if not rows:
            self.line("no runs yet")

    def pruned(self, pruned: Row) -> None:
        """What went, or would, and what was left alone."""
        would = "would delete" if pruned["dry_run"] else "deleted"
        for each in pruned["deleted"]:
            self.line(f"{would} {each['run']}, {_size(each['bytes'])}")
        for path, why in pruned["left_alone"].items():
            self.line(f"left alone: {path}, {why}")
        count = len(pruned["deleted"])
        self.line(f"{would} {_count(count, 'run')}, {_size(pruned['bytes'])}; {pruned['kept']} kept")

    def backup(self, said: Row) -> None:
        """What is in a backup."""
        self.pairs({**said, "under_way": ", ".join(said["under_way"]) or "none"})

    def findings(self, findings: Sequence[Finding]) -> None:
        """A line for each partition that was checked, then what is wrong."""
        rows = [asdict(each) | {"checksums": "wrong" if each.damage else "right"} for each in findings]
        self.table([{name: value for name, value in row.items() if name != "damage"} for row in rows])
        for each in findings:
            if each.damage:
                self.line(str(each.damage))

    def records(self, rows: Sequence[Row], partition: str, offset: int) -> None:
        """Records of a partition from ``offset`` on."""
        for row in rows:
            self.record(row)
        if not rows:
            typer.echo(f"{partition} ends at offset {offset}: nothing to show", err=True)

    def record(self, row: Row) -> None:
        """One record: where it is, what it is, and all that it says besides."""
        hidden = ("partition", "offset", "sequence", "type", "dataschema", "partitionkey", "subject")
        rest = " ".join(f"{key}={value}" for key, value in row.items() if key not in hidden)
        self.line(f"{row['partition']} @ {row['offset']}  {row['type']}  {rest}")

    def trace(self, order: str, steps: Sequence[Step]) -> None:
        """The story of an order."""
        width = len(f"{steps[-1].at_ms:.1f}")
        rows = [
            {"ms": f"{step.at_ms:{width}.1f}", "fact": step.type, "by": step.source,
             "where": f"{step.partition} @ {step.offset}", "details": _details(step.details)}
            for step in steps
        ]  # fmt: skip
        self.line(f"{order}, first fact at {steps[0].time}")
        self.table(rows, last_folds=True)

    def up(self, standing: Standing) -> None:
        """What stands now, and what can be done with it."""
        name = standing.name
        self.line(f"{name} is up: Ray at {standing.ray}, data in {standing.data}")
        self.line(f"  next: eventmesh run --name {name}, eventmesh status --name {name}, eventmesh down --name {name}")

    def status(self, found: Row) -> None:
        """How a mesh is (:func:`eventmesh.lab.standing.watching`)."""
        self._console.print(_status(found))

    def watch(self, looks: Iterable[Row]) -> None:
        """How it is, again and again in one place."""
        with Live(console=self._console, auto_refresh=False, screen=sys.stdout.isatty()) as live:
            for found in looks:
                live.update(_status(found), refresh=True)


def _moments(story: Any) -> Table:
    table = Table(title=story.title, box=None, padding=(0, 1), title_justify="left")
    columns: dict[str, Literal["left", "right"]] = {"ms": "right", "who": "left", "what": "left"}
    for name, justify in columns.items():
        table.add_column(name, justify=justify, no_wrap=True)
    for moment in story.moments:
        table.add_row(f"{moment.at_ms:.1f}", moment.who, Text(moment.what, KINDS[moment.kind]))
    return table


def _table(rows: Sequence[Row], last_folds: bool = False, colours: Mapping[str, str] | None = None) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    names = list(rows[0]) if rows else []
    for name in names:
        right = any(isinstance(row[name], int | float) for row in rows)
        folds = last_folds and name == names[-1]
        table.add_column(name, justify="right" if right else "left", no_wrap=not folds, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_number(value), (colours or {}).get(str(value), "")) for value in row.values()))
    return table


def _status(found: Row) -> Group:
    head = f"{found['name']}: mesh {found['mesh']}, wiring {found['wiring']}, durability {found['durability']}"
    places = f"Ray {found['ray']}, data {found['data']}, Arrow Flight {found.get('flight') or 'not now'}"
    parts: list[RenderableType] = [Text(head, style="bold"), Text(places), Text()]
    for title in ("processes", "partitions", "views"):
        if found[title]:
            rows = [{name: _state(name, value) for name, value in row.items()} for row in found[title]]
            parts += [_table(rows, colours=COLOURS), Text()]
    return Group(*parts[:-1])


def _state(name: str, value: Any) -> Any:
    """What is not there yet is a dash; the number of a process is a name."""
    return "-" if value is None else str(value) if name == "pid" else value


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _size(size: float) -> str:
    """Bytes, in the unit in which they are read."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1_000
    return f"{size:,.0f} GB" if size >= 99.5 else f"{size:.3g} GB"


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _in_words(values: Row) -> str:
    shown = {key: _in_words(value) or "none" if isinstance(value, dict) else value for key, value in values.items()}
    return ", ".join(f"{key} {_number(value)}" for key, value in shown.items())


def _details(details: Row) -> str:
    return ", ".join(f"{key} {value}" for key, value in details.items() if key not in ("lines", "joined_lines"))

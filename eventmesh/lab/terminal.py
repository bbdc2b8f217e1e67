"""What people see of a command's result, on standard output.

A terminal's width is kept to, and no name or number is cut (:class:`~eventmesh.report.tables.Fitted`). What comes from
data is shown by :func:`~eventmesh.report.legible.legible`; what may hold brackets, a folder's name for instance, is
never taken for rich's markup.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from eventmesh.report.legible import encoding_of, legible, legible_lines, plainly
from eventmesh.report.tables import Fitted, Row, number

if TYPE_CHECKING:
    from eventmesh.lab.check import Checked
    from eventmesh.lab.inspect import Step
    from eventmesh.lab.scaffold import Application
    from eventmesh.lab.standing_record import Standing
    from eventmesh.lab.standing_runs import Unfinished
    from eventmesh.log.store import Finding
    from eventmesh.report.record import Run

#: Characters of a line where nobody looks at it.
WIDTH = 110
#: Seconds between two looks of a watch.
LOOK_AGAIN_S = 1.0
COLOURS = {"live": "green", "starting": "yellow", "silent": "red", "down": "red"}
KINDS = {"command": "yellow", "query": "cyan", "reply": "dim", "fact": "green"}
#: Characters between two stories that stand side by side.
APART = 4


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
        self._encoding = encoding_of(sys.stdout)

    def line(self, words: str) -> None:
        """As it is, markup or not, in one line or more."""
        typer.echo(legible_lines(words, self._encoding))

    def pairs(self, pairs: Row) -> None:
        """A line for each name with its value."""
        rows = [
            {"name": name, "value": _in_words(value) if isinstance(value, dict) else number(value)}
            for name, value in pairs.items()
        ]
        self._console.print(self._fitted(rows, last_folds=True, head=False))

    def table(self, rows: Sequence[Row], last_folds: bool = False) -> None:
        """Rows that have the same names; where it ``last_folds``, the last column takes as many lines as it needs."""
        self._console.print(self._fitted(rows, last_folds=last_folds))

    def stories(self, stories: Sequence[Any]) -> None:
        """How each wiring took one request, side by side where there is room."""
        told = [self._moments(story) for story in stories]
        if sum(each.width for each in told) + APART * (len(told) - 1) <= self._console.width:
            self._console.print(_beside([story.title for story in stories], told))
        else:
            for story, moments in zip(stories, told, strict=True):
                self._console.print(Group(Text(story.title, "italic"), moments, ""))
        for story in stories:
            self._console.print(
                f"[bold]{story.title}[/]: accepted after {story.accepted_ms:.1f} ms, {story.outcome} after "
                f"{story.completed_ms:.1f} ms, {story.messages} messages sent. To be accepted, these had to be up: "
                f"{', '.join(story.asked)}.",
                highlight=False,
            )
        legend = "Virtual time, simulated; → command or query?, ← reply, ⇒ fact appended to a topic."
        self._console.print("\n" + plainly(legend, self._encoding), style="dim", highlight=False)

    def _moments(self, story: Any) -> Fitted:
        rows = [{"ms": round(moment.at_ms, 1), "who": moment.who, "what": moment.what} for moment in story.moments]
        colours = {moment.what: KINDS[moment.kind] for moment in story.moments}
        return self._fitted(rows, last_folds=True, colours=colours)

    def _fitted(self, rows: Sequence[Row], **options: Any) -> Fitted:
        return Fitted(rows, encoding=self._encoding, **options)

    def made(self, application: Application, *, dry_run: bool) -> None:
        """The files of a new application, and what to type next."""
        self.line(f"{'would make' if dry_run else 'made'} {', '.join(application.files)}")
        self.line("next:")
        for command in application.next:
            self.line(f"  {command}")

    def checked(self, checked: Checked) -> None:
        """What was looked at, what is wrong, and what nobody looked at."""
        self.line(f"{legible(checked.mesh)}: {checked.verdict}")
        looked_at = {
            "application": f"{checked.application}, wiring {checked.wiring}",
            "services": ", ".join(checked.services),
            "topics": ", ".join(f"{topic} of {owner}" for topic, owner in checked.topics.items()),
            "rules": _by_service(checked.rules),
            "queries": _by_service(checked.queries),
            "not answered here": _by_service(checked.unanswered),
            "timers": ", ".join(checked.timers) or "none",
        }
        if (tried := checked.tried) is not None:
            looked_at["folds"] = (
                f"{_count(tried.facts, 'fact')} of {_count(tried.requests, 'request')} simulated from seed "
                f"{tried.seed}, in {_count(tried.partitions, 'partition')}: folded again all at once, and the first "
                f"{tried.one_by_one_max} of each partition one by one"
            )
        self.pairs(looked_at)
        for title, said in (("wrong", tried.wrong if tried is not None else ()), ("not checked", checked.not_checked)):
            for each in said:
                self.line(f"{title}: {legible(each)}")

    def run(self, finished: Run, folder: Path | None) -> None:
        """What came of a run, and where everything about it is."""
        clock = f", simulated from seed {finished.seed} on a virtual clock" if finished.virtual else ""
        self.line(f"{legible(finished.name)}: audit {finished.verdict}{clock}")
        self._not_valid(finished)
        for title, values in (("import", finished.imported), ("outcomes", finished.outcomes)):
            if values:
                self.line(f"  {title}: {legible(_in_words(values))}")
        if finished.timers:
            self.line(f"  timers still open, not waited for: {legible(_in_words(finished.timers))}")
        for refused in finished.inputs_refused:
            self.line(f"  {refused.service} refused {refused.count:,} inputs on record, first {legible(refused.first)}")
        for refusal in finished.refusals:
            self.line(f"  refused: {legible(refusal)}")
        for told in asks_told([each.model_dump() for each in finished.asks]):
            if told["what came of them"] != "-":
                self.line(f"  asks of {told['asker']}, {told['message']}: {told['what came of them']}")
        for figure in finished.figures:
            self.line(f"  {legible(figure.name)}: {figure.value:,.2f} {figure.unit}")
        where, request = legible(str(folder)), legible(finished.words.request.upper())
        self.line(f"  everything is in {where}; next: eventmesh trace {request}, eventmesh log topics")

    def _not_valid(self, finished: Run) -> None:
        """Each check that is not valid, with what it found."""
        for name, check in finished.audit.checks.items() if finished.audit is not None else ():
            if check.verdict != "valid":
                found = f": {check.violations:,} of {check.examined:,}" if check.violations else ""
                self.line(f"  {legible(name)} {check.verdict}: {legible(check.title)}{found}")
                for example in check.examples:
                    self.line(f"      {legible(example)}")

    def benchmark(self, folder: Path) -> None:
        """The summary that a benchmark left, and where its report is."""
        self.line((folder / "summary.md").read_text())
        self.line(f"Report: {legible(str(folder / 'report.html'))}")

    def fuzzed(self, found: Row, folder: Path) -> None:
        """What came of many seeds, how often each kind of fault struck, and what was found."""
        before = f", {found['done_before']:,} of them before" if found["done_before"] else ""
        self.line(
            f"{_count(found['seeds'], 'seed')}{before} of {', '.join(found['meshes'])}, commit {found['commit']}: "
            f"{_in_words(found['ended'])}; {_count(found['deaths'], 'death')}; "
            f"{found['seeds_per_minute']:,.0f} seeds/min"
        )
        self.line(f"  struck: {_in_words({kind: count for kind, count in found['struck'].items() if count})}")
        if found["never_struck"]:
            self.line(f"  never struck: {', '.join(found['never_struck'])}")
        for each in found["findings"]:
            where = f"; next: eventmesh fuzz --replay {each['file']}" if each["file"] else ""
            self.line(f"  seed {each['seed']} ({each['mesh']}): {', '.join(each['found'])}{where}")
        self.line(f"  {_count(len(found['findings']), 'finding')}; every result is in {legible(str(folder))}")

    def fuzz_story(self, story: Row) -> None:
        """One seed: what it stands for, what struck, what came of it."""
        self.line(f"seed {story['seed']} of {legible(story['mesh'])}, commit {story['commit']}")
        self.pairs(story["configuration"])
        self.line(
            f"{len(story['faults'])} of {_count(story['faults planned'], 'fault')} struck (virtual ms from load on):"
        )
        rows = [
            {"ms": each["ms"], "until": "-" if each["until"] is None else each["until"], "fault": each["kind"],
             "details": f"{_in_words(each['how'])}: {_in_words(each['shows']) or 'nothing came of it'}"}
            for each in story["faults"]
        ]  # fmt: skip
        if rows:
            self.table(rows, last_folds=True)
        self.line(f"{_count(story['deaths'], 'death')}; lives: {_in_words(story['lives'])}")
        self.line(f"ended after {story['virtual_s']:g} virtual s: {story['ended']}; {_in_words(story['outcomes'])}")
        for name, said in story["found"].items():
            self.line(f"found {name}: {said}")
        for place in story["raised"] if story["found"] else ():
            self.line(f"  at {place}")
        if "same" in story:
            same = "replayed to the byte" if story["same"] else "what it left is not what it left then"
            self.line(f"{same}: the file is of commit {story['of_commit']}")

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
                self.line(legible(str(each.damage)))

    def records(self, rows: Sequence[Row], partition: str, offset: int) -> None:
        """Records of a partition from ``offset`` on."""
        for row in rows:
            self.record(row)
        if not rows:
            typer.echo(f"{legible(partition)} ends at offset {offset}: nothing to show", err=True)

    def record(self, row: Row) -> None:
        """One record: where it is, what it is, and all that it says besides."""
        hidden = ("partition", "offset", "sequence", "type", "dataschema", "partitionkey", "subject")
        rest = " ".join(f"{key}={value}" for key, value in row.items() if key not in hidden)
        self.line(legible(f"{row['partition']} @ {row['offset']}  {row['type']}  {rest}", self._encoding))

    def trace(self, story: str, steps: Sequence[Step]) -> None:
        """The facts of a story."""
        rows = [
            {"ms": round(step.at_ms, 1), "fact": step.type, "by": step.source,
             "where": f"{step.partition} @ {step.offset}", "details": _details(step.details)}
            for step in steps
        ]  # fmt: skip
        self.line(f"{legible(story)}, first fact at {steps[0].time}")
        self.table(rows, last_folds=True)

    def up(self, standing: Standing) -> None:
        """What stands now, and what can be done with it."""
        name = standing.name
        self.line(f"{name} is up: Ray at {legible(standing.ray)}, data in {legible(str(standing.data))}")
        self.line(f"  next: eventmesh run --name {name}, eventmesh status --name {name}, eventmesh down --name {name}")

    def down(self, standing: Standing, left: Unfinished | None) -> None:
        """What was ended, and the run that was under way."""
        self.line(
            f"{standing.name} is down; its data is in {legible(str(standing.data))}"
            + (f"; {left.text(standing.words)}" if left else "")
        )

    def status(self, found: Row) -> None:
        """How a mesh is (:func:`eventmesh.lab.standing_status.watching`)."""
        self._console.print(self._status(found))

    def watch(self, looks: Iterable[Row]) -> None:
        """How it is, again and again in one place."""
        with Live(console=self._console, auto_refresh=False, screen=self._console.is_terminal) as live:
            for found in looks:
                live.update(_Cropped(self._status(found), f"eventmesh status --name {found['name']}"), refresh=True)

    def _status(self, found: Row) -> Group:
        head = f"{found['name']}: mesh {found['mesh']}, wiring {found['wiring']}, durability {found['durability']}"
        where = f"Ray {found['ray']}, data {found['data']}, Arrow Flight {found.get('flight') or 'not now'}"
        parts: list[RenderableType] = [Text(legible(head, self._encoding), style="bold")]
        parts.append(Text(legible(where, self._encoding)))
        if found.get("log_stopped"):
            stopped = f"The log accepts nothing: {found['log_stopped']}. It is opened as soon as the disk lets it"
            parts.append(Text(legible(stopped, self._encoding), style="bold red"))
        parts.append(Text())
        for title in ("processes", "partitions", "views"):
            if found[title]:
                rows = [{name: _state(name, value) for name, value in row.items()} for row in found[title]]
                parts += [self._fitted(rows, colours=COLOURS), Text()]
        if found["asks"]:
            parts += [self._fitted(asks_told(found["asks"]), last_folds=True), Text()]
        return Group(*parts[:-1])


def asks_told(asks: Sequence[Row]) -> list[Row]:
    """What came of asks, a row for each asker and message, in words for what came at all."""
    names = ("asker", "message", "attempts")
    return [
        {
            **{name: each[name] for name in names},
            "what came of them": _in_words({n: v for n, v in each.items() if n not in names and v}) or "-",
        }
        for each in asks
    ]


class _Cropped:
    """As many lines as the terminal has; what is left out below is said in the last one."""

    def __init__(self, whole: RenderableType, command: str) -> None:
        self._whole, self._command = whole, command

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._whole, options.update(height=None), pad=False)
        left_out = len(lines) - console.height + 1
        crops = console.is_terminal and left_out > 1
        for line in lines[: console.height - 1] if crops else lines:
            yield from line
            yield Segment.line()
        if crops:
            whole, short = f"{left_out} more lines: {self._command}", f"{left_out} more lines"
            yield Text(whole if len(whole) <= options.max_width else short, "bold", no_wrap=True)


def _beside(titles: Sequence[str], told: Sequence[Fitted]) -> Table:
    table = Table.grid(padding=(0, APART, 0, 0))
    for title, each in zip(titles, told, strict=True):
        table.add_column(width=max(each.width, len(title)))
    table.add_row(*(Group(Text(title, "italic"), each, "") for title, each in zip(titles, told, strict=True)))
    return table


def _state(name: str, value: Any) -> Any:
    """What is not there yet is a dash; the number of a process is a name."""
    return "-" if value is None else str(value) if name == "pid" else value


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _by_service(names: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{service}: {', '.join(each)}" for service, each in names.items() if each) or "none"


def _size(size: float) -> str:
    """Bytes, in the unit in which they are read."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1_000
    return f"{size:,.0f} GB" if size >= 99.5 else f"{size:.3g} GB"


def _in_words(values: Row) -> str:
    shown = {key: _in_words(value) or "none" if isinstance(value, dict) else value for key, value in values.items()}
    return ", ".join(f"{key} {number(value)}" for key, value in shown.items())


def _details(details: Row) -> str:
    """What fits a cell: lists, of lines for instance, stand in JSON only."""
    return ", ".join(f"{key} {value}" for key, value in details.items() if not isinstance(value, list))

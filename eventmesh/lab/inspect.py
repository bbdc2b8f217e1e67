"""What a finished run's folder can tell: its topics, its facts, its checksums, the story of one request."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from eventmesh import configuration
from eventmesh import mesh as meshes
from eventmesh.application import optional
from eventmesh.errors import CorruptSegment, DataDirectoryError, EventmeshError, LogTruncated, NotFound
from eventmesh.lab.run import LATEST, MESH_FILE
from eventmesh.log.batch import CONTROL_PREFIX, LogBatch
from eventmesh.log.store import Finding, LogReader, open_read_only
from eventmesh.messages import ENVELOPE, Columns
from eventmesh.report.legible import legible

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: After so many years the Gregorian calendar begins again with the same days.
_CALENDAR_YEARS = 400
_CALENDAR_US = 146_097 * 86_400_000_000
#: A record as it is shown, behind its time in microseconds since 1970, which it is sorted by.
Timed = tuple[int, dict[str, Any]]
_ENVELOPE = {field.name for field in ENVELOPE}


def find_run(runs: Path, folder: Path | None) -> Path:
    """The folder named, or the latest under ``runs``; :class:`NotFound` with what there is."""
    chosen = folder if folder is not None else runs / LATEST
    if (chosen / "log").is_dir():
        return chosen
    known = [str(path.parent) for path in sorted(runs.glob("*/log")) if path.parent.name != LATEST]
    if folder is None and not known:
        raise NotFound(f"no run under {runs} yet. Make one with: eventmesh run views")
    problem = f"{chosen} " + ("holds no log (a benchmark keeps none)" if chosen.exists() else "does not exist")
    near = difflib.get_close_matches(str(chosen), known, 1)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise NotFound(f"{problem}. {hint}Runs: {', '.join(known) or 'none'}; name one with --run")


@contextmanager
def _opened(folder: Path) -> Iterator[LogReader]:
    """The run's log, whose errors name files by their whole path."""
    directory = folder / "log"
    try:
        with closing(open_read_only(directory)) as reader:
            _warn_of_compaction(reader, directory)
            yield reader
    except CorruptSegment as error:
        raise _in(directory, error) from error
    except DataDirectoryError as error:
        raise DataDirectoryError(f"{directory}: {error}") from error
    except OSError as error:
        problem = f"{error.filename or directory}: cannot be read ({error.strerror})"
        raise DataDirectoryError(f"{problem}. Restore it from a copy") from error


def _warn_of_compaction(reader: LogReader, directory: Path) -> None:
    for name, topic in reader.topics.items():
        if topic.settings.cleanup_policy != "delete":
            problem = f"does nothing: there is no compaction yet, found {topic.settings.cleanup_policy!r}"
            path = f"topics.{name}.cleanup_policy"
            configuration.passed_over(
                problem, file=f"{directory}/manifest.json", path=path, instead="All of it is kept"
            )


def _in(directory: Path, error: CorruptSegment) -> CorruptSegment:
    return CorruptSegment(str(directory / error.file), error.offset, error.position, error.detail)


@dataclass(frozen=True)
class TopicSummary:
    """One partition as ``eventmesh log topics`` lists it; ``version`` is that of the topic's columns."""

    topic: str
    partition: int
    owner: str
    key: str
    version: int
    start: int
    end: int


def topics(folder: Path) -> list[TopicSummary]:
    """Every partition of the run's log."""
    with _opened(folder) as reader:
        return [
            TopicSummary(
                name,
                partition,
                topic.owner,
                topic.key,
                topic.version,
                reader.start(name, partition),
                reader.watermark(name, partition),
            )
            for name, topic in reader.topics.items()
            for partition in range(topic.partitions)
        ]


def read(folder: Path, topic: str, partition: int, offset: int, limit: int) -> list[dict[str, Any]]:
    """Up to ``limit`` records from ``offset`` on, control records included.

    :class:`OffsetOutOfRange` below the start or above the end, :class:`CorruptSegment` at damage.
    """
    with _opened(folder) as reader:
        _check_partition(reader, topic, partition)
        return [row for _, row in _rows(reader, topic, partition, offset, limit)]


def _check_partition(reader: LogReader, topic: str, partition: int) -> None:
    if topic not in reader.topics:
        near = difflib.get_close_matches(topic, reader.topics, 1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise NotFound(f"no topic {topic!r} in this run. {hint}Topics: {', '.join(reader.topics)}")
    count = reader.topics[topic].partitions
    if not 0 <= partition < count:
        raise NotFound(f"{topic} has partitions 0 to {count - 1}, not {partition}")


def _rows(reader: LogReader, topic: str, partition: int, offset: int, limit: int) -> Iterator[Timed]:
    # One batch at a time: damage behind the last record asked for is no reason to show nothing.
    while limit > 0 and (found := reader.read(topic, partition, offset, max_bytes=1)):
        [batch] = found
        for time, row in _records(batch, f"{topic}/{partition}"):
            if row["offset"] >= offset and limit > 0:
                limit -= 1
                yield time, row
        offset = batch.header.end


def tail(folder: Path, topic: str, limit: int, show: Callable[[dict[str, Any]], object]) -> dict[int, int]:
    """Show the last ``limit`` records of a topic, in the order of their times; where each partition ends then."""
    with _opened(folder) as reader:
        _check_partition(reader, topic, 0)
        partitions = range(reader.topics[topic].partitions)
        ends = {number: reader.watermark(topic, number) for number in partitions}
        rows = [row for number in partitions for row in _last(reader, topic, number, ends[number], limit)]
    rows.sort(key=lambda timed: timed[0])
    for _, row in rows[len(rows) - limit :] if limit else []:
        show(row)
    return ends


def _last(reader: LogReader, topic: str, partition: int, end: int, limit: int) -> list[Timed]:
    first = max(reader.start(topic, partition), end - limit)
    try:
        return list(_rows(reader, topic, partition, first, limit))
    except LogTruncated as gap:
        return list(_rows(reader, topic, partition, gap.lost_to, limit))


def records(entry: LogBatch, name: str) -> Iterator[dict[str, Any]]:
    """The records of a batch of partition ``name``, as :func:`read` gives them."""
    return (row for _, row in _records(entry, name))


def _records(entry: LogBatch, name: str) -> Iterator[Timed]:
    header = entry.header
    for time, row in _dicts(entry.batch):
        place = {"partition": name, "offset": row["sequence"], "epoch": header.epoch, **header.control}
        yield time, place | {column: value for column, value in row.items() if value is not None}


def _dicts(batch: pa.RecordBatch) -> Iterator[Timed]:
    """The rows of a batch, with times as ISO 8601 in UTC."""
    names = batch.schema.names
    times = [field.name for field in batch.schema if pa.types.is_timestamp(field.type)]
    for values in Columns(batch).rows(*names):
        row = dict(zip(names, values, strict=True))
        yield row["time"], row | {name: iso(row[name]) for name in times if row[name] is not None}


def iso(microseconds: int) -> str:
    """Any count of microseconds since 1970 as ISO 8601 in UTC; years beyond four digits have a sign and six.

    A log holds every int64, which is more years than :class:`datetime` knows. The calendar repeats itself.
    """
    calendars, rest = divmod(microseconds, _CALENDAR_US)
    moment = _EPOCH + timedelta(microseconds=rest)
    year = moment.year + _CALENDAR_YEARS * calendars
    shown = f"{year:04}" if 0 <= year <= 9999 else f"{year:+07}"
    return shown + moment.isoformat(timespec="microseconds")[4:]


def verify(folder: Path) -> list[Finding]:
    """Check every checksum; damage is in the findings, with file and offset."""
    with _opened(folder) as reader:
        findings = reader.verify()
    log = folder / "log"
    return [replace(each, damage=_in(log, each.damage)) if each.damage else each for each in findings]


@dataclass(frozen=True)
class Step:
    """One fact of a story. ``at_ms`` counts from the story's first fact."""

    at_ms: float
    time: str
    partition: str
    offset: int
    type: str
    source: str
    caused_by: str
    details: dict[str, Any]


def trace(folder: Path, story: str) -> list[Step]:
    """Everything that the log says of one correlation id, in order of time, causes before effects."""
    found: list[Timed] = []
    with _opened(folder) as reader:
        for name, topic in reader.topics.items():
            for partition in range(topic.partitions):
                found += _facts_of(reader.table(name, partition), name, story)
        if not found:
            raise NotFound(_unknown_story(reader, story, _story_column(folder)))
    found.sort(key=lambda timed: (timed[0], timed[1]["offset"]))
    first = found[0][0]
    return [_step(row, time - first) for time, row in found]


def _facts_of(table: pa.Table, topic: str, story: str) -> list[Timed]:
    chosen = table.filter(pc.equal(table["correlationid"], story))
    timed = [each for batch in chosen.to_batches() for each in _dicts(batch)]
    return [(time, {**row, "topic": topic}) for time, row in timed if not row["type"].startswith(CONTROL_PREFIX)]


def _step(row: dict[str, Any], since_us: int) -> Step:
    hidden = _ENVELOPE | {"topic", "offset", "partition", "epoch", "base", "kind", "position"}
    known = (None, row["correlationid"])  # whose story it is, every fact of it says
    details = {name: value for name, value in row.items() if name not in hidden and value not in known}
    return Step(
        since_us / 1_000,
        row["time"],
        f"{row['topic']}/{row['partition']}",
        row["offset"],
        row["type"],
        row["source"],
        row["causationid"] or "",
        details,
    )


def _unknown_story(reader: LogReader, story: str, column: str | None) -> str:
    known = [legible(each) for each in sorted(_stories(reader, column))]
    near = difflib.get_close_matches(story, known, 3)
    hint = f"Did you mean {', '.join(near)}?" if near else f"Known are, for example, {', '.join(known[:3]) or 'none'}"
    return f"no fact of this run belongs to {story!r}. {hint}"


def _story_column(folder: Path) -> str | None:
    """The column that names the stories of the mesh's application; None where it has none, or cannot be read."""
    with suppress(EventmeshError):  # the log alone tells a story, whatever has become of the application
        column: str | None = optional(meshes.load_stored(folder / MESH_FILE).application, "STORY")
        return column
    return None


def _stories(reader: LogReader, column: str | None) -> set[str]:
    """The ids of stories in the topics that are kept by that column; of all stories without one.

    Where an application names the column, nothing else is suggested: in a shop, customers and products have ids that
    look much like those of orders.
    """
    return {
        story
        for name, topic in reader.topics.items()
        if column in (None, topic.key)
        for partition in range(topic.partitions)
        for story in pc.unique(reader.table(name, partition)[column or "correlationid"]).drop_null().to_pylist()
    }

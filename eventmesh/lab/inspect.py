"""What a finished run's folder can tell: its topics, its facts, its checksums, the story of one order."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from eventmesh.errors import NotFound
from eventmesh.lab.run import LATEST
from eventmesh.log.batch import CONTROL_PREFIX
from eventmesh.log.store import Finding, LogReader, open_read_only
from eventmesh.messages import ENVELOPE, Columns

_ENVELOPE = {field.name for field in ENVELOPE}


def find_run(runs: Path, folder: Path | None) -> Path:
    """The folder named, or the latest under ``runs``; :class:`NotFound` with what there is."""
    chosen = folder if folder is not None else runs / LATEST
    if (chosen / "log").is_dir():
        return chosen
    if folder is None:
        raise NotFound(f"no run under {runs} yet. Make one with: eventmesh run configs/meshes/views.yaml")
    near = [str(path) for path in sorted(runs.glob("*/")) if (path / "log").is_dir()]
    raise NotFound(f"{folder} holds no run (no log folder). Runs: {', '.join(near) or 'none'}")


@dataclass(frozen=True)
class TopicSummary:
    """One partition as ``eventmesh log topics`` lists it."""

    topic: str
    partition: int
    owner: str
    key: str
    start: int
    end: int


def topics(folder: Path) -> list[TopicSummary]:
    """Every partition of the run's log."""
    reader = open_read_only(folder / "log")
    try:
        return [
            TopicSummary(
                name,
                partition,
                topic.owner,
                topic.key,
                reader.start(name, partition),
                reader.watermark(name, partition),
            )
            for name, topic in reader.topics.items()
            for partition in range(topic.partitions)
        ]
    finally:
        reader.close()


def read(folder: Path, topic: str, partition: int, offset: int, limit: int) -> list[dict[str, Any]]:
    """Up to ``limit`` records from ``offset`` on, control records included."""
    reader = open_read_only(folder / "log")
    try:
        _check_partition(reader, topic, partition)
        return list(_rows(reader, topic, partition, offset, limit))
    finally:
        reader.close()


def _check_partition(reader: LogReader, topic: str, partition: int) -> None:
    if topic not in reader.topics:
        near = difflib.get_close_matches(topic, reader.topics, 1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise NotFound(f"no topic {topic!r} in this run. {hint}Topics: {', '.join(reader.topics)}")
    count = reader.topics[topic].partitions
    if not 0 <= partition < count:
        raise NotFound(f"{topic} has partitions 0 to {count - 1}, not {partition}")


def _rows(reader: LogReader, topic: str, partition: int, offset: int, limit: int) -> Iterator[dict[str, Any]]:
    end = reader.watermark(topic, partition)
    while offset < end and limit > 0:
        for batch in reader.read(topic, partition, offset):
            columns, names = Columns(batch.batch), batch.batch.schema.names
            for values in columns.rows(*names):
                row = {name: value for name, value in zip(names, values, strict=True) if value is not None}
                if row["sequence"] >= offset and limit > 0:
                    limit -= 1
                    yield {
                        "partition": f"{topic}/{partition}",
                        "offset": row["sequence"],
                        "epoch": batch.header.epoch,
                        **row,
                    }
            offset = batch.header.end


def verify(folder: Path) -> list[Finding]:
    """Check every checksum; damage is in the findings, with file and offset."""
    reader = open_read_only(folder / "log")
    try:
        return reader.verify()
    finally:
        reader.close()


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
    found: list[dict[str, Any]] = []
    reader = open_read_only(folder / "log")
    try:
        for name, topic in reader.topics.items():
            for partition in range(topic.partitions):
                found += _facts_of(reader.table(name, partition), name, story)
        if not found:
            raise NotFound(_unknown_story(reader, story))
    finally:
        reader.close()
    found.sort(key=lambda row: (row["time"], row["offset"]))
    return [_step(row, found[0]["time"]) for row in found]


def _facts_of(table: pa.Table, topic: str, story: str) -> list[dict[str, Any]]:
    chosen = table.filter(pc.equal(table["correlationid"], story))
    rows: list[dict[str, Any]] = []
    for batch in chosen.to_batches():
        columns = Columns(batch)
        rows += [dict(zip(batch.schema.names, values, strict=True)) for values in columns.rows(*batch.schema.names)]
    return [{**row, "topic": topic} for row in rows if not row["type"].startswith(CONTROL_PREFIX)]


def _step(row: dict[str, Any], first: int) -> Step:
    hidden = _ENVELOPE | {"topic", "offset", "partition", "epoch", "base", "kind", "order_id", "position"}
    details = {name: value for name, value in row.items() if name not in hidden and value is not None}
    moment = datetime.fromtimestamp(row["time"] / 1e6, UTC)
    return Step(
        (row["time"] - first) / 1e3,
        moment.isoformat(timespec="microseconds"),
        f"{row['topic']}/{row['partition']}",
        row["offset"],
        row["type"],
        row["source"],
        row["causationid"] or "",
        details,
    )


def _unknown_story(reader: LogReader, story: str) -> str:
    known: list[str] = []
    for name, topic in reader.topics.items():
        if topic.key == "order_id" or not known:
            for partition in range(topic.partitions):
                table = reader.table(name, partition)
                sql = "SELECT DISTINCT correlationid FROM held WHERE correlationid IS NOT NULL LIMIT 50000"
                with duckdb.connect() as connection:
                    connection.register("held", table.select(["correlationid"]))
                    known += [row[0] for row in connection.execute(sql).fetchall()]
        if known and topic.key == "order_id":
            break
    near = difflib.get_close_matches(story, known, 3)
    hint = (
        f"Did you mean {', '.join(near)}?"
        if near
        else f"Known are, for example, {', '.join(sorted(known)[:3]) or 'none'}"
    )
    return f"no fact of this run belongs to {story!r}. {hint}"

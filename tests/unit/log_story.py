"""Given a log, when a writer...: the words that the stories about the log are told in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from eventmesh.log.batch import Header, LogBatch
from eventmesh.log.partition import Durability, Grant
from eventmesh.log.storage import Storage
from eventmesh.log.store import Log, LogReader
from eventmesh.log.topic import Topic, TopicSettings
from eventmesh.messages import encode_rows, topic_schema

ORDERS = Topic("orders", "orders", "order_id", 1, topic_schema([pa.field("order_id", pa.string())]))
SMALL = replace(ORDERS, settings=TopicSettings(segment_bytes=6_000))  # rolls every few batches
NOON = 43_200_000_000
DAY = 86_400_000_000  # in microseconds
WEEK_MS = 604_800_000
END = 1 << 40  # a floor that holds nothing back
LATE = NOON + 30 * DAY
ALL = {"orders/0": END}


def open_log(
    storage: Storage,
    topic: Topic = ORDERS,
    *,
    level: str = "os",
    cluster: str = "test",
    node: str = "here",
    more: Mapping[str, Topic] | None = None,
) -> Log:
    return Log.open(
        storage,
        {topic.name: topic, **(more or {})},
        durability=Durability(level),
        cluster_id=cluster,
        node=node,
        clock=lambda: NOON,
    )


def rows_at(base: int, names: list[str]) -> list[dict[str, object]]:
    return [
        {
            "id": name,
            "source": "orders",
            "type": "OrderRequested",
            "time": NOON,
            "dataschema": "orders/1",
            "sequence": base + number,
            "order_id": name,
        }
        for number, name in enumerate(names)
    ]


def header_at(base: int, rows: int, *, epoch: int, append: int, incarnation: str, time: int = NOON) -> Header:
    return Header("facts", base, rows, epoch, append, "orders", incarnation, time, {"next": {"requests/0": base}})


def facts(
    base: int, names: list[str], *, epoch: int = 1, append: int = 0, incarnation: str = "first", time: int = NOON
) -> LogBatch:
    header = header_at(base, len(names), epoch=epoch, append=append, incarnation=incarnation, time=time)
    return LogBatch.encode(header, encode_rows(ORDERS.schema, rows_at(base, names)))


class Writer:
    """One incarnation of the orders service, which appends where it believes the end to be."""

    def __init__(self, log: Log, incarnation: str = "first") -> None:
        self.log, self.incarnation = log, incarnation
        self.grant: Grant = log.grant("orders", 0, "orders", incarnation)
        self.end, self.append_number, self.time = self.grant.end, 0, NOON

    def batch(self, *names: str) -> LogBatch:
        numbers = {"epoch": self.grant.epoch, "append": self.append_number, "time": self.time}
        return facts(self.end, list(names), incarnation=self.incarnation, **numbers)

    def append(self, *names: str) -> LogBatch:
        entry = self.batch(*names)
        self.end = self.log.append("orders", 0, entry)
        self.append_number += 1
        return entry


def ids(log: LogReader, offset: int = 0) -> list[str]:
    """The ids of all visible facts from ``offset`` or the start, read as a reader reads: from end to end."""
    found: list[str] = []
    offset = max(offset, log.start("orders", 0))
    while entries := log.read("orders", 0, offset):
        for entry in entries:
            if entry.header.kind == "facts":
                found += entry.batch.column("id").to_pylist()
        offset = entries[-1].header.end
    return found


def keeping(**settings: Any) -> Topic:
    """Orders in segments of a few batches."""
    return replace(
        ORDERS, settings=TopicSettings(**{"segment_bytes": 6_000, "segment_ms": 60 * 86_400_000, **settings})
    )


def filled(storage: Storage, count: int = 20, level: str = "os", **settings: Any) -> tuple[Log, Writer]:
    """A log of one order a day, the first at noon."""
    log = open_log(storage, keeping(**settings), level=level)
    writer = Writer(log)
    for number in range(count):
        writer.time = NOON + number * DAY
        writer.append(f"order-{number}")
    log.sync()
    return log, writer


def bases(storage: Storage) -> list[int]:
    """The base of every segment on the disk, each with both of its files or else twice."""
    stems = [path.rpartition("/")[2] for path in storage.list("orders/0")]
    files = sorted(stem for stem in stems if stem.endswith((".arrow", ".index")))
    whole = sorted({int(stem[:20]) for stem in files})
    assert len(files) == 2 * len(whole), f"a file without the other: {files}"
    return whole

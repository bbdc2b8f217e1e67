"""Scenarios that need more than processes that die: files that vanish, machines that forget, other topics, poison."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from eventmesh import mesh
from eventmesh.audit.audit import audit
from eventmesh.errors import DataDirectoryError, LogTruncated, OffsetOutOfRange, SchemaMismatch
from eventmesh.history import CALLERS, History
from eventmesh.lab.simulated_run import Crashes, SimulatedRun
from eventmesh.log.batch import Header, LogBatch
from eventmesh.log.storage import MemoryStorage
from eventmesh.log.store import Durability, Log
from eventmesh.log.topic import Topic, TopicSettings, partition_for
from eventmesh.messages import Columns, encode_rows
from eventmesh.runtime.instance import Instance
from eventmesh.runtime.simulated.world import START
from eventmesh.shop import DECLARED, VIEWS, WIRINGS
from eventmesh.shop.orders import Orders
from eventmesh.views import View
from tests.simulation.scenario import Scenario, Shop, facts, judged, shop

# --- 7: the files of a partition are gone when the broker comes back ---------------------------------


class FilesLost(Shop):
    """The broker dies once, and the files of one stock partition with it."""

    def start_broker(self) -> None:
        """Open what is left."""
        if self.broker.life == 1:
            for path in self.storage.list("stock/0"):
                self.storage.remove(path)
        super().start_broker()


def files_lost(seed: int) -> set[str]:
    """Right is to say that the partition is gone; nothing else is."""

    def run() -> SimulatedRun:
        return Scenario(build=FilesLost, crashes=Crashes(1, broker_share=1.0)).run(seed)

    return judged(run) - {DataDirectoryError.__name__}


# --- 8: what two readers, or one twice, see at an offset ---------------------------------------------


@contextmanager
def records_seen() -> Iterator[dict[tuple[str, int], set[str]]]:
    """The ids of all that any instance was given, by partition and offset."""
    seen: dict[tuple[str, int], set[str]] = {}
    deliver = Instance.deliver

    def watch(instance: Instance, topic: str, partition: int, entry: LogBatch) -> None:
        ids = entry.batch.column("id").to_pylist()
        for offset, identity in enumerate(ids, entry.header.base):
            seen.setdefault((f"{topic}/{partition}", offset), set()).add(f"{identity} of {entry.header.epoch}")
        deliver(instance, topic, partition, entry)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Instance, "deliver", watch)
        yield seen


def one_record_per_offset(seed: int) -> set[str]:
    """At level ``os`` the machine's death loses facts: readers must be told, not misled."""
    machine_dies = Scenario(crashes=Crashes(4, broker_share=1.0, machine_share=1.0), rate=2_000.0)
    found: set[str] = set()
    with records_seen() as seen:
        try:
            machine_dies.run(seed)
        except LogTruncated:
            found.clear()  # a reader stands in the gap and is told so
        except Exception as error:
            found.add(type(error).__name__)
    return found | ({"inconsistent-offsets"} if any(len(ids) > 1 for ids in seen.values()) else set())


# --- 11: a reader that is slow, and segments that are old ---------------------------------------------


def slow_reader(seed: int) -> set[str]:
    """A reader lags by a few batches while old segments are deleted: with its position as floor it misses nothing."""
    dice = random.Random(seed)
    small = TopicSettings(segment_bytes=6_000, retention_ms=1)
    topic = replace(SHIPMENTS, partitions=1, settings=small)
    log, read, written = _open(MemoryStorage(), topic), 0, 0
    for number in range(60):
        _append(log, topic, 0, f"order-{number}", topic.schema)
        written = log.end("shipments", 0)
        while read < written and dice.randrange(10) < 4:
            try:
                read = log.read("shipments", 0, read, max_bytes=1)[-1].header.end
            except OffsetOutOfRange as error:
                return {type(error).__name__}
        log.retain(START + 1_000_000, {"shipments/0": read})
    assert log.start("shipments", 0) > 0, "nothing was ever deleted"
    return set()


# --- 13: folds over interleavings --------------------------------------------------------------------


def shuffled_folds(seed: int) -> set[str]:
    """Two topics feed one view, three partitions in all: every interleaving must give the same rows (P5)."""
    dice = random.Random(seed)
    streams = {
        (topic, partition): [[(f"sku-{dice.randrange(5)}", dice.randrange(100))] for _ in range(12)]
        for topic, partition in (("prices", 0), ("prices", 1), ("price-updates", 0))
    }
    for (_, partition), batches in streams.items():
        batches[:] = [[(f"{sku}-{partition}", price) for sku, price in batch] for batch in batches]
    folded = [_fold(streams, random.Random(order)) for order in range(8)]
    return set() if all(rows == folded[0] for rows in folded) else {"P5"}


def _fold(streams: dict[tuple[str, int], list[list[tuple[str, int]]]], dice: random.Random) -> list[dict[str, Any]]:
    view = View("prices", VIEWS["prices"], ["prices", "price-updates"])
    order = [name for name, batches in streams.items() for _ in batches]
    dice.shuffle(order)
    done = dict.fromkeys(streams, 0)
    for topic, partition in order:
        base = done[topic, partition]
        rows = [
            {"type": "PriceListed", "sku": sku, "list_price": price, "sequence": base}
            for sku, price in streams[topic, partition][base]
        ]
        view.apply(topic, partition, base, Columns(rows=rows))
        done[topic, partition] += 1
    keys = sorted({row["key"] for row in view.rows()})
    return [{"key": key, "joined": view.lookup([key])} for key in keys]


# --- 14 and 15: a log by hand -------------------------------------------------------------------------

SHIPMENTS = Topic("shipments", "shipping", "order_id", 2, DECLARED.schemas["shipments"])


def _open(storage: MemoryStorage, topic: Topic) -> Log:
    return Log.open(
        storage, {topic.name: topic}, durability=Durability.memory, cluster_id="one", node="one", clock=lambda: START
    )


def _append(log: Log, topic: Topic, partition: int, order_id: str, schema: pa.Schema) -> None:
    grant = log.grant(topic.name, partition, topic.owner, f"{order_id}.{partition}")
    row = {
        "id": order_id, "source": topic.owner, "type": "ShipmentDispatched", "time": START, "sequence": grant.end,
        "dataschema": f"{topic.name}/1", "order_id": order_id, "partitionkey": order_id,
    }  # fmt: skip
    incarnation = f"{order_id}.{partition}"
    header = Header("facts", grant.end, 1, grant.epoch, 0, topic.owner, incarnation, START)
    log.append(topic.name, partition, LogBatch.encode(header, encode_rows(schema, [row])))


def more_partitions(seed: int) -> set[str]:
    """A topic of two partitions is opened with five: refused, or else keys change their place."""
    storage, orders = MemoryStorage(), [f"order-{seed}-{number}" for number in range(12)]
    log = _open(storage, SHIPMENTS)
    for order in orders:
        _append(log, SHIPMENTS, partition_for(order, 2), order, SHIPMENTS.schema)
    grown = replace(SHIPMENTS, partitions=5)
    try:
        reopened = _open(storage, grown)
    except DataDirectoryError:
        return set()
    reopened.close()
    document = shop("views", "memory", 0, False).resolved()
    document["topics"]["shipments"]["partitions"] = 5
    described = mesh.parse(document)
    whole = Log.open(
        storage, described.topics(), durability=Durability.memory, cluster_id="one", node="one", clock=lambda: START
    )
    found = audit(described, whole, History(CALLERS.empty_table(), [], True), only={"A6"})
    return {name for name, check in found.checks.items() if check.verdict == "invalid"}


def other_columns(seed: int) -> set[str]:
    """A writer of another version appends other columns: refused, or else the topic cannot be read any more."""
    log = _open(MemoryStorage(), SHIPMENTS)
    other = SHIPMENTS.schema.append(pa.field(f"carrier_{seed}", pa.string()))
    other = pa.schema([other.field(number) for number in reversed(range(len(other)))])
    try:
        _append(log, SHIPMENTS, 0, "order-1", other)
    except SchemaMismatch:
        return set()
    try:
        stored = LogBatch.decode(log.read("shipments", 0, 1)[0].message, SHIPMENTS.schema)
        stored.batch.validate(full=True)
        readable = stored.batch.column("order_id").to_pylist() == ["order-1"]
    except (pa.ArrowInvalid, OSError, ValueError):
        readable = False
    return set() if readable else {"unreadable"}


# --- 16: poison, and answers that come twice ---------------------------------------------------------


def poisoned(seed: int) -> set[str]:
    """Every third cancellation breaks orders' rule: it must be refused on record, and nothing else may suffer."""

    def cancel(orders: Orders, state: Any, asked: Any, out: Any) -> None:
        for order_id in asked["order_id"]:
            if int(order_id[1:]) % 3 == 0:
                raise ValueError(f"no rule for {order_id}")
        orders.cancel(state, asked, out)

    scenario = Scenario(cancel_permille=600, crashes=Crashes(4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WIRINGS["views"]["orders"].rules, "CancellationRequested", cancel)  # type: ignore[index]
        try:
            run = scenario.run(seed)
        except Exception as error:
            return {type(error).__name__}
    found = judged(lambda: run) - {"InputRefused"}
    asked = {fact["order_id"] for fact in facts(run, "order-requests", "CancellationRequested")}
    wanted = {order_id for order_id in asked if int(order_id[1:]) % 3 == 0}
    refused = {fact["correlationid"] for fact in facts(run, "orders", "InputRefused")}
    assert wanted, "no poison in this scenario"
    return found if refused == wanted else found | {"not refused"}


def answers_come_twice(seed: int) -> set[str]:
    """Orders hears each line's answer twice, as a channel that delivers at least once would have it."""
    rules = WIRINGS["views"]["orders"].rules

    def twice(orders: Orders, state: Any, lines: Any, out: Any) -> None:
        orders.lines_answered(state, lines, out)
        orders.lines_answered(state, lines, out)

    with pytest.MonkeyPatch.context() as patch:
        for kind in ("StockReserved", "StockShort"):
            patch.setitem(rules, kind, twice)  # type: ignore[arg-type]
        return Scenario(stock_fraction=0.5, products=6, rate=5_000.0).judge(seed)

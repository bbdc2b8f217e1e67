"""The log itself: a broker in a process of its own, its public producer, and subscriptions on its node."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.backbone_loads import SINGLE, TOPICS, Appended, Barrier, Delivered, due, make_single, read_clock
from benchmarks.peers.servers import Served, in_process, last_word, wait_for_end
from eventmesh.errors import EventmeshError
from eventmesh.log.topic import Topic
from eventmesh.runtime.process.backbone import BrokerBackbone, Callbacks
from eventmesh.runtime.process.broker_member import BrokerMember
from eventmesh.runtime.process.producer import Producer
from eventmesh.runtime.process.subscription import Entry

NAME = "eventmesh"
PATIENCE_S = 120.0


def _serve(folder: Path, topics: Mapping[str, Topic], told: Any) -> None:
    broker = BrokerMember(topics, folder / "log", "os", "backbone")
    told.send(broker.address())
    wait_for_end(told)
    last_word(told, broker.usage()["private_mb"])
    broker.close()


def serving(folder: Path, topics: Mapping[str, Topic] = TOPICS) -> AbstractContextManager[Served]:
    """A broker at level ``os``; its last word is its private memory in MB."""
    return in_process(_serve, folder, topics)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The same, by its address."""
    with serving(folder) as broker:
        yield broker.address


def appending(address: str, topic: str, batches: Sequence[pa.RecordBatch], rows: int, barrier: Barrier) -> Appended:
    """Append the batches again and again until there are ``rows``; the clock stops at the last acknowledgement."""
    producer = Producer.at(address, TOPICS[topic], f"appending-{read_clock()}")
    barrier.wait()
    started, done, number = read_clock(), 0, 0
    while done < rows:
        producer.append(batches[number % len(batches)])
        done, number = done + batches[number % len(batches)].num_rows, number + 1
    producer.flush(PATIENCE_S)
    ended = read_clock()
    producer.close()
    return Appended(done, started, ended)


def sending(address: str, count: int, rate: float, barrier: Barrier) -> list[int]:
    """Append single rows when they are due; when each was made, in nanoseconds."""
    producer = Producer.at(address, TOPICS[SINGLE], f"sending-{read_clock()}")
    barrier.wait()
    first, sent = read_clock(), []
    for number in range(count):
        sent.append(due(number, rate, first))
        producer.append(make_single(number))
    producer.flush(PATIENCE_S)
    producer.close()
    return sent


def receiving(address: str, count: int, barrier: Barrier) -> list[int]:
    """When each row arrived and its number was read, in nanoseconds, by number."""
    received, ended = [0] * count, threading.Event()

    def deliver(entries: Sequence[Entry], sent_at: int) -> None:
        for _, _, entry in entries:
            if entry.header.kind == "facts":
                number = entry.batch.column(0)[0].as_py()
                received[number] = read_clock()
                if number == count - 1:
                    ended.set()

    with _subscribed(address, SINGLE, deliver):
        barrier.wait()
        assert ended.wait(PATIENCE_S), f"{count - received.count(0)} of {count} arrived"
    return received


def delivering(address: str, topic: str, rows: int, barrier: Barrier) -> Delivered:
    """Read ``rows`` rows and sum their numbers; the clock starts with all others' and stops at the last row."""
    found, total, ended = 0, 0, threading.Event()

    def deliver(entries: Sequence[Entry], sent_at: int) -> None:
        nonlocal found, total
        for _, _, entry in entries:
            if entry.header.kind == "facts":
                total += pc.sum(entry.batch.column(0)).as_py()
                found += entry.header.rows
        if found >= rows:
            ended.set()

    with _subscribed(address, topic, deliver):
        barrier.wait()
        started = read_clock()
        assert ended.wait(PATIENCE_S), f"{found} of {rows} rows arrived"
        return Delivered(found, total, started, read_clock())


@contextmanager
def _subscribed(address: str, topic: str, deliver: Any) -> Iterator[None]:
    def failed(error: EventmeshError) -> None:
        raise error

    backbone = BrokerBackbone(
        lambda: address, Callbacks(delivered=deliver, cannot_read=failed), topics={topic: TOPICS[topic]},
        once=True,
    )  # fmt: skip
    backbone.start()
    backbone.subscribe(topic, 0, 0)
    try:
        yield
    finally:
        backbone.close()

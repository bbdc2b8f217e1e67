"""Given a slow subscriber elsewhere and a stopped one on the node, then tens of megabytes pass by them (P8)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from eventmesh.log.batch import LogBatch
from eventmesh.log.store import RECENT_BYTES_MAX
from eventmesh.runtime.broker import DELIVERY_BYTES
from eventmesh.runtime.process.broker_member import BrokerMember
from eventmesh.runtime.process.subscription import Entry, Subscription
from tests.process.test_subscription import ORDERS_0, Writer
from tests.unit.log_story import ORDERS

ROOT = Path(__file__).parents[2]
BATCHES, ROWS, NAME = 120, 100, 2_000  # a name stands in two columns: 400 KB a batch, 48 MB in all
#: What may lie between the broker and a subscriber that does not read: a delivery in hand, and what the stream holds.
ON_ITS_WAY = 8 * DELIVERY_BYTES
#: What the broker may keep of the log in memory: its recent batches, which it counts twice (rows and frame share their
#: bytes), and deliveries to its subscribers.
KEPT = RECENT_BYTES_MAX // 2 + 8 * DELIVERY_BYTES
SOON_S = 30.0


class CountingBroker(BrokerMember):
    """Counts the bytes that each thread reads: each subscriber elsewhere has one that pushes to it."""

    def __init__(self, folder: Path) -> None:
        self.pushed: Counter[int] = Counter()
        super().__init__({ORDERS.name: ORDERS}, folder, "os", "test", 0)
        take = self.rules.take

        def counted(reader: Any, max_bytes: int) -> tuple[str, list[LogBatch]] | None:
            found = take(reader, max_bytes)
            self.pushed[threading.get_ident()] += sum(entry.message.size for entry in found[1]) if found else 0
            return found

        vars(self.rules)["take"] = counted


class Count:
    """A subscriber that keeps up, and keeps nothing."""

    def __init__(self, broker: BrokerMember, local: bool) -> None:
        self.end, self._more = 0, threading.Condition()
        self.reading = Subscription(
            broker.address(), {"orders": ORDERS}, self.deliver, str, failed=str, local=local
        )  # fmt: skip
        self.reading.subscribe(ORDERS_0, 0)

    def deliver(self, entries: Sequence[Entry], sent_at: int) -> None:
        with self._more:
            self.end = entries[-1][2].header.end
            self._more.notify_all()

    def until(self, end: int) -> None:
        with self._more:
            assert self._more.wait_for(lambda: self.end >= end, SOON_S), f"at {self.end} of {end}"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[CountingBroker]:
    running = CountingBroker(tmp_path / "log")
    yield running
    running.close()


Begin = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def begin(broker: BrokerMember) -> Iterator[Begin]:
    """Starts a slow reader, which has its first batch in hand."""
    begun: list[subprocess.Popen[str]] = []

    def one(way: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.process.slow_reader", broker.address(), way]
        begun.append(
            subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )  # fmt: skip
        assert said(begun[-1]) == "reading"
        return begun[-1]

    yield one
    for process in begun:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def had(process: subprocess.Popen[str], end: int) -> str:
    """What it has had when it was let read to the end."""
    assert process.stdin is not None
    process.stdin.write(f"{end}\n")
    process.stdin.flush()
    while (line := said(process)) == "reading":
        continue
    return line


def test_tens_of_megabytes_pass_by_who_does_not_read(broker: CountingBroker, begin: Begin) -> None:
    producer, quick = Writer(broker.address()), [Count(broker, local) for local in (True, False)]
    producer.append("first")
    slow, stopped = begin("remote"), begin("local")
    os.kill(stopped.pid, signal.SIGSTOP)
    before = pa.total_allocated_bytes()
    names = [f"{number:0{NAME}}" for number in range(ROWS)]
    for _ in range(BATCHES):
        producer.append(*names)
    for reader in quick:
        reader.until(producer.end)
    written = BATCHES * ROWS * NAME * 2
    few, all_of_it = sorted(broker.pushed.values())
    assert all_of_it > written
    assert few < ON_ITS_WAY, "nothing is read for who does not take it"
    assert pa.total_allocated_bytes() - before < KEPT
    os.kill(stopped.pid, signal.SIGCONT)
    facts = BATCHES * ROWS + 1
    assert had(slow, producer.end) == f"had {facts} remote", "and nobody misses anything"
    assert had(stopped, producer.end) == f"had {facts} local"
    for reader in quick:
        reader.reading.close()
    producer.connection.close()

"""Given a disk that fails a sync, then nothing is granted or appended until it works again; then all goes on (R14)."""

from __future__ import annotations

import errno
import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eventmesh.errors import EventmeshError, LogStopped, MayHaveHappened
from eventmesh.log.storage import FileStorage
from eventmesh.log.store import read_table
from eventmesh.messages import encode_rows
from eventmesh.runtime import broker as rules
from eventmesh.runtime.process.broker_member import BrokerMember
from eventmesh.runtime.process.producer import Producer
from eventmesh.runtime.process.subscription import Entry, Subscription
from tests.unit.log_story import ORDERS, rows_at

SOON_S = 10.0


class Disk:
    """Fails every sync while it is ``broken``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broken = False
        for name in ("sync", "replace"):
            monkeypatch.setattr(FileStorage, name, self._failing(getattr(FileStorage, name)))

    def _failing(self, call: Callable[..., None]) -> Callable[..., None]:
        def failing(storage: FileStorage, path: str, *data: bytes) -> None:
            if self.broken:
                raise OSError(errno.EIO, f"no sync of {path}")
            call(storage, path, *data)

        return failing


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(rules, "REOPEN_US", 20_000)
    return Disk(monkeypatch)


@pytest.fixture
def broker(disk: Disk, tmp_path: Path) -> Iterator[BrokerMember]:
    running = BrokerMember({ORDERS.name: ORDERS}, tmp_path / "log", "fsync", "test")
    yield running
    disk.broken = False
    running.close()


class Reader:
    """Reads the orders from an offset on, and connects again when it has lost its stream, as a service does."""

    def __init__(self, broker: BrokerMember, *, local: bool) -> None:
        self.arrived: queue.Queue[str | EventmeshError | None] = queue.Queue()
        self._broker, self._local, self._at = broker, local, 0
        self.connect()

    def connect(self) -> None:
        self.subscription = Subscription(
            self._broker.address(), {"orders": ORDERS}, self._take, lambda why: self.arrived.put(None),
            failed=self.arrived.put, local=self._local,
        )  # fmt: skip
        self.subscription.subscribe("orders/0", self._at)

    def _take(self, entries: list[Entry], sent_at: int) -> None:
        for _, _, entry in entries:
            if entry.header.base < self._at:
                continue
            self._at = entry.header.end
            if entry.header.kind == "facts":
                for name in entry.batch.column("id").to_pylist():
                    self.arrived.put(name)

    def next(self) -> str:
        while (found := self.arrived.get(timeout=SOON_S)) is None:
            self.subscription.close()
            self.connect()
        assert isinstance(found, str), found
        return found


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def append(producer: Producer, name: str) -> int:
    return producer.append(encode_rows(ORDERS.schema, rows_at(0, [name]))).result(SOON_S)


@pytest.mark.parametrize("local", [True, False], ids=["reads the files", "is sent batches"])
def test_the_log_is_opened_again_once_the_disk_lets_it(
    broker: BrokerMember, disk: Disk, tmp_path: Path, local: bool
) -> None:
    reader, first = Reader(broker, local=local), Producer.at(broker.address(), ORDERS, "first")
    append(first, "before")
    assert reader.next() == "before"

    disk.broken = True
    with pytest.raises(MayHaveHappened, match="no sync of orders/0"):
        append(first, "unsure")
    first.close()
    until(lambda: broker.status()["stopped"] is not None)
    assert "the disk failed" in broker.status()["stopped"]
    assert broker.status()["ends"] == {}
    with pytest.raises(LogStopped, match="keeps what was acknowledged"):
        Producer.at(broker.address(), ORDERS, "second")
    with pytest.raises(LogStopped):
        broker.ends()

    disk.broken = False
    until(lambda: broker.status()["stopped"] is None)
    third = Producer.at(broker.address(), ORDERS, "third")
    append(third, "after")
    assert (found := reader.next()) in ("unsure", "after")
    assert found == "after" or reader.next() == "after"
    third.close()
    reader.subscription.close()
    kept = [name for name in read_table(tmp_path / "log", "orders", 0)["order_id"].to_pylist() if name]
    assert [name for name in kept if name != "unsure"] == ["before", "after"]


def test_a_disk_that_fails_at_the_start_is_waited_for(disk: Disk, tmp_path: Path) -> None:
    BrokerMember({ORDERS.name: ORDERS}, tmp_path / "log", "fsync", "test").close()
    disk.broken = True
    broker = BrokerMember({ORDERS.name: ORDERS}, tmp_path / "log", "fsync", "test")
    assert "the disk failed" in broker.status()["stopped"]
    disk.broken = False
    until(lambda: broker.status()["stopped"] is None)
    producer = Producer.at(broker.address(), ORDERS, "first")
    assert append(producer, "at last") > 0
    producer.close()
    broker.close()


def test_a_broker_whose_log_has_stopped_ends_all_the_same(disk: Disk, tmp_path: Path) -> None:
    broker = BrokerMember({ORDERS.name: ORDERS}, tmp_path / "log", "fsync", "test")
    producer = Producer.at(broker.address(), ORDERS, "first")
    disk.broken = True
    with pytest.raises(MayHaveHappened):
        append(producer, "unsure")
    producer.close()
    broker.close()
    disk.broken = False
    BrokerMember({ORDERS.name: ORDERS}, tmp_path / "log", "fsync", "test").close()  # the directory was let go

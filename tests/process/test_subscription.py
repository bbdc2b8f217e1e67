"""Given a broker, then a subscriber reads the same whether it maps the broker's files or is sent them over Flight."""

from __future__ import annotations

import gc
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from eventmesh.errors import EventmeshError, OffsetOutOfRange, PeerLost
from eventmesh.log.batch import LogBatch
from eventmesh.log.topic import Topic
from eventmesh.progress import position_name
from eventmesh.runtime.process import subscription
from eventmesh.runtime.process.broker_member import BrokerMember
from eventmesh.runtime.process.reactor import now
from eventmesh.runtime.process.subscription import Entry, Subscription
from eventmesh.runtime.wire import frames, protocol
from eventmesh.runtime.wire.connection import Connection
from tests.process.whole_mesh import until
from tests.unit.log_story import ORDERS, facts

ORDERS_0 = position_name("orders", 0)
SOON_S = 10.0


class Writer:
    """An incarnation of the orders service, one append after the other."""

    def __init__(self, address: str, incarnation: str = "first") -> None:
        self.answers: queue.Queue[Any] = queue.Queue()
        self.incarnation, self.number = incarnation, 0
        self.connection = Connection(address, "write", lambda header, bodies: self.answers.put(header), str)
        granted = self.ask(protocol.pack(protocol.Grant("orders", 0, "orders", incarnation, now())))
        self.epoch, self.end = granted.epoch, granted.end

    def ask(self, frame: Any) -> Any:
        assert self.connection.channel.send(frame)
        return self.answers.get(timeout=SOON_S)

    def append(self, *names: str) -> None:
        entry = facts(self.end, list(names), epoch=self.epoch, append=self.number, incarnation=self.incarnation)
        answer = self.ask(frames.pack_append("orders", 0, entry, now()))
        assert isinstance(answer, protocol.Appended), answer
        self.end, self.number = answer.end, self.number + 1


class Reader:
    """Collects what a subscription delivers; ``gate`` closed holds it back."""

    def __init__(self) -> None:
        self.batches: list[LogBatch] = []
        self.failures: queue.Queue[EventmeshError] = queue.Queue()
        self.over, self.gate, self._more = threading.Event(), threading.Event(), threading.Condition()
        self.gate.set()

    def deliver(self, entries: Sequence[Entry], sent_at: int) -> None:
        assert self.gate.wait(SOON_S)
        with self._more:
            self.batches += [entry for _, _, entry in entries]
            self._more.notify_all()

    def lost(self, why: PeerLost) -> None:
        self.over.set()

    def until(self, done: Callable[[], bool]) -> None:
        with self._more:
            assert self._more.wait_for(done, SOON_S), [entry.header for entry in self.batches]

    @property
    def end(self) -> int:
        return self.batches[-1].header.end if self.batches else -1

    @property
    def ids(self) -> list[str]:
        kept = [entry for entry in self.batches if entry.header.kind == "facts"]
        return [name for entry in kept for name in entry.columns["id"]]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerMember]:
    running = start(tmp_path)
    yield running
    running.close()


def start(folder: Path, topic: Topic = ORDERS) -> BrokerMember:
    return BrokerMember({topic.name: topic}, folder / "log", "os", "test", 0)


@pytest.fixture(params=["on the node", "over Flight"])
def local(request: pytest.FixtureRequest) -> bool:
    return str(request.param) == "on the node"


Subscribing = Callable[[Reader], Subscription]


@pytest.fixture
def subscribe(broker: BrokerMember, local: bool) -> Iterator[Subscribing]:
    opened: list[Subscription] = []

    def open_one(reader: Reader) -> Subscription:
        opened.append(
            Subscription(
                broker.address(), {"orders": ORDERS}, reader.deliver, reader.lost,
                failed=reader.failures.put, local=local,
            )
        )  # fmt: skip
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def test_a_reader_sees_every_batch_in_order_from_its_offset(
    broker: BrokerMember, subscribe: Subscribing, local: bool
) -> None:
    producer, reader = Writer(broker.address()), Reader()
    producer.append("a", "b")
    subscription = subscribe(reader)
    subscription.subscribe(ORDERS_0, 0)
    for number in range(200):
        producer.append(f"n{number}")
    reader.until(lambda: reader.end == producer.end)
    assert reader.ids == ["a", "b", *(f"n{number}" for number in range(200))]
    bases = [entry.header.base for entry in reader.batches]
    assert bases == sorted(set(bases)), "each batch once"
    assert subscription.is_local == local, "and it cannot tell from what it gets"
    late = Reader()
    subscribe(late).subscribe(ORDERS_0, producer.end - 3)
    late.until(lambda: late.end == producer.end)
    assert late.ids == ["n197", "n198", "n199"]


def test_a_reader_can_go_back_and_can_stop(broker: BrokerMember, subscribe: Subscribing) -> None:
    producer, reader = Writer(broker.address()), Reader()
    producer.append("a")
    subscription = subscribe(reader)
    subscription.subscribe(ORDERS_0, producer.end)
    producer.append("b")
    reader.until(lambda: reader.ids == ["b"])
    subscription.subscribe(ORDERS_0, 0)
    reader.until(lambda: reader.ids == ["b", "a", "b"])
    subscription.unsubscribe(ORDERS_0)
    until(lambda: not any(broker.rules._cursors.values()))  # what was on its way before may still come
    other = Reader()
    subscribe(other).subscribe(ORDERS_0, producer.end)
    producer.append("c")
    other.until(lambda: other.ids == ["c"])
    assert reader.ids == ["b", "a", "b"]


def test_a_slow_reader_holds_up_nobody_and_misses_nothing(broker: BrokerMember, subscribe: Subscribing) -> None:
    producer, slow, quick = Writer(broker.address()), Reader(), Reader()
    slow.gate.clear()
    for reader in (slow, quick):
        subscribe(reader).subscribe(ORDERS_0, 0)
    names = [f"n{number}" for number in range(300)]
    for name in names:  # far more rings than a doorbell holds
        producer.append(name)
    quick.until(lambda: quick.ids == names)
    assert slow.ids == []
    slow.gate.set()
    slow.until(lambda: slow.ids == names)


def test_a_reader_is_told_that_its_offset_is_not_there(broker: BrokerMember, subscribe: Subscribing) -> None:
    producer, reader = Writer(broker.address()), Reader()
    subscribe(reader).subscribe(ORDERS_0, producer.end + 5)
    error = reader.failures.get(timeout=SOON_S)
    assert isinstance(error, OffsetOutOfRange)
    assert f"offset {producer.end + 5} is outside [0, {producer.end}]" in str(error)


def test_a_reader_is_told_when_the_broker_goes_and_goes_on_with_the_next(
    broker: BrokerMember, subscribe: Subscribing, tmp_path: Path
) -> None:
    producer, reader = Writer(broker.address()), Reader()
    producer.append("a")
    subscribe(reader).subscribe(ORDERS_0, 0)
    reader.until(lambda: reader.ids == ["a"])
    broker.close()
    assert reader.over.wait(SOON_S)
    following = start(tmp_path)
    try:
        again = Subscription(following.address(), {"orders": ORDERS}, reader.deliver, str, failed=reader.failures.put)
        again.subscribe(ORDERS_0, reader.end)
        Writer(following.address(), "second").append("b")
        reader.until(lambda: reader.ids == ["a", "b"])
        again.close()
    finally:
        following.close()


def test_nobody_at_the_address_is_an_error_that_says_so(local: bool) -> None:
    reader = Reader()
    with pytest.raises(PeerLost, match=r"127\.0\.0\.1:9"):
        Subscription(
            "grpc://127.0.0.1:9", {"orders": ORDERS}, reader.deliver, str, failed=str, local=local
        )  # fmt: skip


def test_a_reader_that_does_not_see_the_brokers_files_is_sent_them(
    broker: BrokerMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "_same_files", lambda directory, manifest: None)  # as in another container
    producer, reader = Writer(broker.address()), Reader()
    reading = Subscription(broker.address(), {"orders": ORDERS}, reader.deliver, str, failed=str)
    reading.subscribe(ORDERS_0, 0)
    producer.append("a")
    reader.until(lambda: reader.ids == ["a"])
    assert not reading.is_local
    reading.close()


def test_nothing_is_left_of_subscriptions_that_ended(broker: BrokerMember, local: bool) -> None:
    producer = Writer(broker.address())
    process = psutil.Process()

    def one() -> None:
        reader = Reader()  # what it keeps of the mapped files goes with it
        reading = Subscription(broker.address(), {"orders": ORDERS}, reader.deliver, str, failed=str, local=local)
        reading.subscribe(ORDERS_0, producer.end)
        producer.append("more")
        reader.until(lambda: reader.end == producer.end)
        reading.close()

    one()
    threads, files = process.num_threads(), process.num_fds()
    for _ in range(20):
        one()
    gc.collect()  # what a stream holds of gRPC goes with its last reference, and is closed on a thread of gRPC's
    deadline = time.monotonic() + SOON_S
    while process.num_fds() >= files + 10 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.num_fds() < files + 10
    assert process.num_threads() < threads + 10
    assert not broker.subscribers

"""Given a log and its clients, then a client is told the same by every backbone: a broker's, and one in memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, Protocol

import pytest

from eventmesh.errors import (
    EventmeshError,
    Fenced,
    NotOwner,
    OffsetMismatch,
    OffsetOutOfRange,
    PeerLost,
    RecordTooLarge,
)
from eventmesh.log.batch import LogBatch
from eventmesh.log.topic import Topic, TopicSettings
from eventmesh.messages import encode_rows
from eventmesh.runtime.effects import Appended, AppendFailed, BrokerAnswer, Granted, GrantFailed
from eventmesh.runtime.process.backbone import Backbone, BrokerBackbone, Callbacks, Writer, follow
from eventmesh.runtime.process.broker_member import BrokerMember
from eventmesh.runtime.process.producer import Producer
from eventmesh.runtime.process.subscription import Entry
from tests.process.memory_backbone import MemoryBroker
from tests.unit.log_story import ORDERS, facts, rows_at

SOON_S = 10.0
PAYMENTS = Topic("payments", "payments", "order_id", 2, ORDERS.schema, TopicSettings(max_message_bytes=8_192))
TOPICS = {"orders": ORDERS, "payments": PAYMENTS}
ORDERS_FIRST, ORDERS_SECOND = (Writer("orders", "orders", name) for name in ("first", "second"))


class Place(Protocol):
    """Where a log is, and how it is reached, goes away and comes again."""

    def connect(self, callbacks: Callbacks, *, writer: Writer | None = None, once: bool = False) -> Backbone:
        """A client, not started."""

    def held(self) -> AbstractContextManager[Any]:
        """What is asked meanwhile is not done."""

    def stop(self) -> None:
        """Every connection is lost, and nobody answers."""

    def start(self) -> None:
        """It is there again."""


class AtBroker:
    """A real broker on a data directory."""

    def __init__(self, folder: Path, *, local: bool) -> None:
        self._folder, self._local = folder, local
        self._broker: BrokerMember | None = None
        self._address = ""
        self.start()

    def start(self) -> None:
        if self._broker is not None:
            self._broker.close()
        self._broker = BrokerMember(TOPICS, self._folder, "os", "test")
        self._address = self._broker.address()

    def stop(self) -> None:
        assert self._broker is not None
        self._address = ""
        self._broker.listener.end()

    def held(self) -> AbstractContextManager[Any]:
        assert self._broker is not None
        return self._broker.lock

    def _locate(self) -> str:
        if not self._address:
            raise PeerLost("the broker is away")
        return self._address

    def connect(self, callbacks: Callbacks, *, writer: Writer | None = None, once: bool = False) -> Backbone:
        return BrokerBackbone(
            self._locate, callbacks, topics=TOPICS, writer=writer, local=self._local, once=once
        )  # fmt: skip

    def close(self) -> None:
        assert self._broker is not None
        self._broker.close()


@pytest.fixture(params=["broker on the node", "broker over Flight", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "memory":
        yield MemoryBroker(TOPICS)
        return
    with closing(AtBroker(tmp_path / "log", local=request.param == "broker on the node")) as broker:
        yield broker


class Client:
    """A client, and what it was told."""

    def __init__(self, place: Place, writer: Writer | None = None, *, once: bool = False) -> None:
        self.answers: queue.Queue[BrokerAnswer] = queue.Queue()
        self.failures: queue.Queue[EventmeshError] = queue.Queue()
        self.ups: queue.Queue[None] = queue.Queue()
        self.lost: queue.Queue[EventmeshError] = queue.Queue()
        self.batches: list[tuple[str, int, LogBatch]] = []
        self._more = threading.Condition()
        self.backbone = place.connect(
            Callbacks(
                up=lambda: self.ups.put(None), lost=self.lost.put, cannot_read=self.failures.put,
                answered=lambda answer, sent_at: self.answers.put(answer), delivered=self._delivered,
            ),
            writer=writer, once=once,
        )  # fmt: skip
        self.backbone.start()
        self.ups.get(timeout=SOON_S)

    def _delivered(self, entries: Sequence[Entry], sent_at: int) -> None:
        with self._more:
            self.batches += entries
            self._more.notify_all()

    def until(self, done: Callable[[], bool]) -> None:
        with self._more:
            assert self._more.wait_for(done, SOON_S), [entry.header for _, _, entry in self.batches]

    def ids(self, topic: str = "orders") -> list[str]:
        return [
            name
            for of, _, entry in self.batches
            if of == topic and entry.header.kind == "facts"
            for name in entry.columns["id"]
        ]

    def granted(self, partition: int = 0) -> Granted:
        self.backbone.grant(partition)
        answer = self.answers.get(timeout=SOON_S)
        assert isinstance(answer, Granted)
        return answer

    def append(self, base: int, *names: str, epoch: int = 1, number: int = 0, incarnation: str = "first") -> None:
        self.backbone.append(0, facts(base, list(names), epoch=epoch, append=number, incarnation=incarnation))

    def answer(self) -> BrokerAnswer:
        return self.answers.get(timeout=SOON_S)


@pytest.fixture
def client(place: Place) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def one(writer: Writer | None = None, *, once: bool = False) -> Client:
        made.append(Client(place, writer, once=once))
        return made[-1]

    yield one
    for each in made:
        each.backbone.close()


Clients = Callable[..., Client]


def test_what_is_appended_is_acknowledged_in_order_and_read_by_all_who_want_it(client: Clients) -> None:
    writer, reader, late = client(ORDERS_FIRST), client(), client(once=True)
    reader.backbone.subscribe("orders", 0, 0)
    grant = writer.granted()
    assert (grant.partition, grant.epoch, grant.end) == (0, 1, 1)
    for number in range(50):
        writer.append(1 + number, f"n{number}", number=number)
    assert [writer.answer() for _ in range(50)] == [Appended(0, 1, 2 + number) for number in range(50)]
    reader.until(lambda: len(reader.ids()) == 50)
    assert reader.ids() == [f"n{number}" for number in range(50)]
    late.backbone.subscribe("orders", 0, 49)
    late.until(lambda: late.ids() == ["n48", "n49"])
    assert late.backbone.ends() == {"orders/0": 51, "payments/0": 0, "payments/1": 0}


def test_a_writer_reads_its_own_topic_as_others_do(client: Clients) -> None:
    writer = client(ORDERS_FIRST)
    writer.backbone.subscribe("orders", 0, 0)
    writer.granted()
    writer.append(1, "a")
    assert writer.answer() == Appended(0, 1, 2)
    writer.until(lambda: writer.ids() == ["a"])


def test_what_is_refused_says_why_with_its_facts(client: Clients) -> None:
    writer = client(ORDERS_FIRST)
    writer.granted()
    writer.append(1, "a")
    assert writer.answer() == Appended(0, 1, 2)
    writer.append(7, "b", number=1)
    refused = writer.answer()
    assert isinstance(refused, AppendFailed)
    assert isinstance(refused.error, OffsetMismatch)
    assert (refused.partition, refused.epoch, refused.error.expected, refused.error.end) == (0, 1, 7, 2)


def test_a_later_incarnation_fences_the_one_before(client: Clients) -> None:
    first, second = client(ORDERS_FIRST), client(ORDERS_SECOND)
    first.granted()
    assert second.granted().epoch == 2
    first.append(2, "a")
    refused = first.answer()
    assert isinstance(refused, AppendFailed)
    assert isinstance(refused.error, Fenced)
    second.append(2, "b", epoch=2, incarnation="second")
    assert second.answer() == Appended(0, 2, 3)


def test_nobody_is_granted_the_topic_of_another(client: Clients) -> None:
    stranger = client(Writer("orders", "payments", "first"))
    stranger.backbone.grant(0)
    refused = stranger.answer()
    assert isinstance(refused, GrantFailed)
    assert isinstance(refused.error, NotOwner)


def test_a_reader_can_go_back_and_can_stop(client: Clients) -> None:
    writer, reader, other = client(ORDERS_FIRST), client(), client()
    end = writer.granted().end
    writer.append(end, "a")
    writer.answer()
    reader.backbone.subscribe("orders", 0, end)
    reader.until(lambda: reader.ids() == ["a"])
    reader.backbone.subscribe("orders", 0, end)
    reader.until(lambda: reader.ids() == ["a", "a"])
    reader.backbone.unsubscribe("orders", 0)
    reader.backbone.subscribe("payments", 1, 5)  # what it asked before is done when this is answered
    reader.failures.get(timeout=SOON_S)
    other.backbone.subscribe("orders", 0, end + 1)
    writer.append(end + 1, "b", number=1)
    writer.answer()
    other.until(lambda: other.ids() == ["b"])
    assert reader.ids() == ["a", "a"]


def test_a_reader_is_told_that_its_offset_is_not_there(client: Clients) -> None:
    reader = client()
    reader.backbone.subscribe("payments", 1, 5)
    error = reader.failures.get(timeout=SOON_S)
    assert isinstance(error, OffsetOutOfRange)
    assert (error.partition, error.offset, error.start, error.end) == ("payments/1", 5, 0, 0)


def test_there_is_no_snapshot_where_none_was_taken(client: Clients) -> None:
    assert client().backbone.snapshot("state/orders/0") is None


def test_when_the_log_goes_away_what_is_in_flight_may_have_happened(place: Place, client: Clients) -> None:
    writer = client(ORDERS_FIRST)
    writer.granted()
    with place.held():
        writer.append(1, "a")
        assert list(writer.backbone.asked_now()) == [0]
        place.stop()
        why = writer.lost.get(timeout=SOON_S)
        assert isinstance(why, PeerLost)
        assert not why.definite
        assert list(writer.backbone.asked_now()) == []
    for away in (writer.backbone.ends, lambda: writer.backbone.snapshot("state/orders/0")):
        with pytest.raises(PeerLost):
            away()
    writer.backbone.grant(0)  # nothing can be sent: that is told, too
    assert isinstance(writer.lost.get(timeout=SOON_S), PeerLost)
    place.start()
    writer.ups.get(timeout=SOON_S)
    assert writer.granted().epoch == 2
    assert list(writer.backbone.asked_now()) == [0], "the loss before does not concern it"


def test_a_reader_goes_on_where_it_broke_off(place: Place, client: Clients) -> None:
    writer, reader = client(ORDERS_FIRST), client()
    reader.backbone.subscribe("orders", 0, 0)
    writer.granted()
    writer.append(1, "a")
    assert writer.answer() == Appended(0, 1, 2)
    reader.until(lambda: reader.ids() == ["a"])
    place.stop()
    assert isinstance(reader.lost.get(timeout=SOON_S), PeerLost)
    place.start()
    for each in (reader, writer):
        each.ups.get(timeout=SOON_S)
    epoch = writer.granted().epoch
    writer.append(3, "b", epoch=epoch)
    reader.backbone.subscribe("orders", 0, 2)
    reader.until(lambda: reader.ids() == ["a", "b"])


def test_a_connection_that_is_given_up_is_followed_by_another(client: Clients) -> None:
    writer = client(ORDERS_FIRST)
    writer.backbone.renew(PeerLost("it did not give its snapshots"))
    assert isinstance(writer.lost.get(timeout=SOON_S), PeerLost)
    writer.ups.get(timeout=SOON_S)
    assert writer.granted().epoch == 1


def test_who_connects_once_is_told_at_once_that_nobody_is_there(place: Place, client: Clients) -> None:
    once = client(ORDERS_FIRST, once=True)
    place.stop()
    assert isinstance(once.lost.get(timeout=SOON_S), PeerLost)
    with pytest.raises(PeerLost):
        client(once=True)
    place.start()
    once.append(1, "a")
    assert isinstance(once.lost.get(timeout=SOON_S), PeerLost), "it does not connect again"
    assert once.ups.empty()


# --- who uses it ------------------------------------------------------------------------------------


def produce(place: Place, topic: Topic, incarnation: str) -> Producer:
    return Producer(
        lambda writer, callbacks: place.connect(callbacks, writer=writer, once=True), topic, incarnation
    )  # fmt: skip


def rows(*names: str) -> Any:
    return encode_rows(ORDERS.schema, rows_at(0, list(names)))


def test_a_producer_appends_and_learns_what_was_refused(place: Place) -> None:
    producer = produce(place, PAYMENTS, "first")
    assert [producer.append(rows("a", "b")).result(SOON_S), producer.append(rows("c")).result(SOON_S)] == [3, 4]
    with pytest.raises(RecordTooLarge):
        producer.append(rows("x" * 10_000)).result(SOON_S)
    again = produce(place, PAYMENTS, "second")
    assert (again.epoch, again.end) == (2, 5)
    producer.close()
    again.close()


def test_a_producer_whose_log_goes_away_says_what_may_have_happened(place: Place) -> None:
    producer = produce(place, ORDERS, "first")
    with place.held():
        answer = producer.append(rows("a"))
        place.stop()
        with pytest.raises(PeerLost, match="appends to orders/0 may be kept"):
            answer.result(SOON_S)
    with pytest.raises(PeerLost):
        produce(place, ORDERS, "second")
    producer.close()


def test_who_follows_a_log_has_each_batch_once_whatever_becomes_of_the_connection(
    place: Place, client: Clients
) -> None:
    writer = client(ORDERS_FIRST)
    writer.granted()
    for number in range(3):
        writer.append(1 + number, f"n{number}", number=number)
        assert writer.answer() == Appended(0, 1, 2 + number)
    followed = follow(lambda callbacks: place.connect(callbacks, once=True), {("orders", 0): 2})
    assert [next(followed)[2].header.base for _ in range(2)] == [2, 3]
    place.stop()
    writer.lost.get(timeout=SOON_S)
    place.start()
    writer.ups.get(timeout=SOON_S)
    epoch = writer.granted().epoch
    writer.append(5, "after", epoch=epoch)
    topic, partition, granted = next(followed)
    assert (topic, partition, granted.header.kind, granted.header.base) == ("orders", 0, "granted", 4)
    assert next(followed)[2].columns["id"] == ["after"]
    followed.close()  # type: ignore[attr-defined]


def test_who_follows_what_is_not_there_is_told(place: Place) -> None:
    with pytest.raises(OffsetOutOfRange):
        next(follow(lambda callbacks: place.connect(callbacks, once=True), {("orders", 0): 9}))
    place.stop()
    with pytest.raises(PeerLost):
        next(follow(lambda callbacks: place.connect(callbacks, once=True), {("orders", 0): 0}))

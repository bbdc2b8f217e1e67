"""Given a stream, when one side sends what the other cannot take, then both say why, and the next stream works.

Each story is told on both transports and in both directions. No reader's thread ends without a word.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.peers import eventmesh_query
from benchmarks.peers.eventmesh_members import catalog
from eventmesh.errors import EventmeshError, PeerLost, ProtocolError
from eventmesh.log.batch import LogBatch
from eventmesh.log.store import LogReader
from eventmesh.messages import encode_rows
from eventmesh.runtime.process.broker_member import BrokerMember
from eventmesh.runtime.process.producer import Producer
from eventmesh.runtime.process.reactor import now
from eventmesh.runtime.process.service_member import ServiceMember
from eventmesh.runtime.process.subscription import Subscription
from eventmesh.runtime.wire import channel, frames, link, protocol
from eventmesh.runtime.wire.channel import Channel, Received
from eventmesh.runtime.wire.connection import Connection, Listener
from eventmesh.runtime.wire.discovery import Offer
from eventmesh.runtime.wire.link import Link
from eventmesh.runtime.wire.protocol import FrameHeader
from eventmesh.shop.facts import DECLARED
from tests.process.test_subscription import Reader
from tests.unit.frame_story import ANSWERED, APPEND, ASKED, HEAD, UNREADABLE, raw
from tests.unit.log_story import ORDERS, rows_at

SOON_S = 10.0
SEND_BAD, ECHO = "send/0", "echo/0"
NO_ARROW = b"\xff" * 64
#: Beside what nobody can read: what is a frame, and is not what its kind says.
BAD = {
    **UNREADABLE,
    "a question that is no Arrow": (
        raw(ASKED, NO_ARROW),
        "asks and 64 bytes of bodies cannot be taken: OSError: Invalid IPC",
    ),
    "an answer that is no Arrow": (
        raw(ANSWERED, NO_ARROW),
        "replies and 64 bytes of bodies cannot be taken: OSError: Invalid IPC",
    ),
    "a question without its body": (raw(ASKED), "asks and 0 bytes of bodies cannot be taken: ValueError"),
    "an append, which has no business here": (raw(APPEND, HEAD, NO_ARROW), "a frame of the kind append: expected"),
}


def understand(header: FrameHeader, bodies: Sequence[pa.Buffer]) -> None:
    """As services and callers do it."""
    if isinstance(header, protocol.Asks):
        frames.unpack_asks(header, bodies, DECLARED.messages)
    elif isinstance(header, protocol.Replies):
        frames.unpack_replies(header, bodies, DECLARED.messages)
    elif not isinstance(header, protocol.Entries):
        raise protocol.unexpected(header, protocol.Asks, protocol.Entries, protocol.Replies)


class Server:
    """Sends back batches, and sends :attr:`bad` to who subscribes to that."""

    def __init__(self) -> None:
        self.bad = b""
        self.problems: queue.Queue[ProtocolError | None] = queue.Queue()
        self.readers: queue.Queue[threading.Thread] = queue.Queue()
        self.listener = Listener(self)

    def opened(self, purpose: str, channel: Channel) -> Received:
        self.readers.put(threading.current_thread())

        def received(header: FrameHeader, bodies: Sequence[pa.Buffer]) -> None:
            if isinstance(header, protocol.Subscribe):
                channel.send([self.bad])
                return
            understand(header, bodies)
            channel.send(protocol.pack(header, bodies))

        return received

    def closed(self, purpose: str, channel: Channel, problem: ProtocolError | None) -> None:
        self.problems.put(problem)

    def fetch(self, ticket: bytes) -> pa.RecordBatchReader:
        raise KeyError(ticket)

    def offers(self) -> list[Offer]:
        return []


class Client:
    """A link to a server, and what came of it."""

    def __init__(self, address: str, *, local: bool) -> None:
        self.up: queue.Queue[Connection] = queue.Queue()
        self.down: queue.Queue[EventmeshError] = queue.Queue()
        self.refused: queue.Queue[ProtocolError] = queue.Queue()
        self.came: queue.Queue[bytes] = queue.Queue()
        self.stream: Connection

        def received(header: FrameHeader, bodies: Sequence[pa.Buffer]) -> None:
            understand(header, bodies)
            self.came.put(bodies[0].to_pybytes())

        self.link: Link[Connection] = Link(
            "server",
            lambda lost: Connection(address, "talk", received, lost, local=local),
            up=self.up.put, down=self.down.put, refused=self.refused.put,
        )  # fmt: skip
        self.link.start()

    def works(self, word: bytes) -> None:
        """The next stream is up, and carries frames to and fro."""
        self.stream = self.up.get(timeout=SOON_S)
        assert self.link.send(protocol.pack(protocol.Entries([ECHO], 0), [word]))
        assert self.came.get(timeout=SOON_S) == word


@pytest.fixture
def server() -> Iterator[Server]:
    serving = Server()
    yield serving
    serving.listener.end()


@pytest.fixture(params=[True, False], ids=["unix", "flight"])
def local(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def client(server: Server, local: bool) -> Iterator[Client]:
    made = Client(server.listener.address, local=local)
    made.works(b"before")
    yield made
    made.link.close()


@pytest.mark.parametrize(("frame", "said"), BAD.values(), ids=BAD.keys())
def test_a_client_that_sends_it(server: Server, client: Client, frame: bytes, said: str) -> None:
    first, reader = client.stream, server.readers.get(timeout=SOON_S)
    assert client.link.send([frame])
    problem, why = server.problems.get(timeout=SOON_S), client.refused.get(timeout=SOON_S)
    assert said in str(problem)
    assert "a client of the stream 'talk' sent what cannot be taken" in str(problem)
    assert said in str(why)
    assert f"{server.listener.address} could not take what it was sent" in str(why)
    assert isinstance(client.down.get(timeout=SOON_S), ProtocolError)
    client.works(b"after")
    assert not first.channel.open
    first._thread.join(SOON_S)
    assert not first._thread.is_alive()
    if first.is_local:  # over Flight it is one of gRPC's, which serves the next stream
        reader.join(SOON_S)
        assert not reader.is_alive()


@pytest.mark.parametrize(("frame", "said"), BAD.values(), ids=BAD.keys())
def test_a_server_that_sends_it(server: Server, client: Client, frame: bytes, said: str) -> None:
    first, server.bad = client.stream, frame
    assert client.link.send(protocol.pack(protocol.Subscribe(SEND_BAD, 0)))
    why, problem = client.refused.get(timeout=SOON_S), server.problems.get(timeout=SOON_S)
    assert said in str(why)
    assert f"{server.listener.address} sent what cannot be taken" in str(why)
    assert said in str(problem)
    assert "a client of the stream 'talk' could not take what it was sent" in str(problem)
    assert isinstance(client.down.get(timeout=SOON_S), ProtocolError)
    client.works(b"after")
    assert not first.channel.open
    first._thread.join(SOON_S)
    assert not first._thread.is_alive()


@pytest.mark.parametrize("blocked", [True, False], ids=["reading nothing", "reading"])
def test_a_server_that_does_not_read_why_is_given_up_all_the_same(
    server: Server, client: Client, blocked: bool
) -> None:
    """Its last words may not come through; the client's thread goes on for all that."""
    gate, entered = threading.Event(), threading.Event()
    usual = server.opened

    def opened(purpose: str, channel: Channel) -> Received:
        received = usual(purpose, channel)

        def slow(header: FrameHeader, bodies: Sequence[pa.Buffer]) -> None:
            if isinstance(header, protocol.Subscribe):
                channel.send([b"nonsense"])
                entered.set()
                if blocked:
                    gate.wait(SOON_S)
                return
            received(header, bodies)

        return slow

    server.opened = opened  # type: ignore[method-assign]
    client.link.send([b"nonsense"])
    client.works(b"slow from here on")
    client.refused.get(timeout=SOON_S)
    assert client.link.send(protocol.pack(protocol.Subscribe(SEND_BAD, 0)))
    assert entered.wait(SOON_S)
    assert "it ends after 8 bytes" in str(client.refused.get(timeout=SOON_S))
    client.works(b"after")
    gate.set()


def test_a_server_of_another_version_is_told_from_one_that_is_away(
    local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = Server()
    monkeypatch.setattr(channel, "WELCOME", [raw({"kind": "welcome"}, version=2)])
    with pytest.raises(ProtocolError, match="version 2: expected version 1"):
        Connection(serving.listener.address, "talk", understand, str, local=local)
    serving.listener.end()
    with pytest.raises(PeerLost, match="cannot be reached") as told:
        Connection(serving.listener.address, "talk", understand, str, local=local)
    assert not isinstance(told.value, ProtocolError)


def test_sides_that_never_understand_each_other_are_tried_ever_more_slowly() -> None:
    told: list[ProtocolError] = []
    waiting = Link("server", Connection, up=print, down=print, refused=told.append)  # type: ignore[arg-type]
    problem = ProtocolError("version 3: expected version 2")
    waits = [waiting._refused_wait_s(problem, 0.01) for _ in range(8)]
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert told == [problem] * 8, "and each time it is said"
    assert waiting._refused_wait_s(problem, link.REFUSED_RETRY_S + 1) == 0.2, "after a stream that lasted"
    assert waiting._refused_wait_s(problem, 0.01) == 0.4
    assert waiting._refused_wait_s(PeerLost("it broke"), 0.01) == 0.0
    assert waiting._refused_wait_s(problem, 0.01) == 0.2


# --- the processes of a mesh ----------------------------------------------------------------------


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerMember]:
    topics = {**eventmesh_query.mesh().topics(), "orders": ORDERS}
    running = BrokerMember(topics, tmp_path / "log", "os", "test")
    yield running
    running.close()


def test_a_producer_that_hears_nonsense_fails_what_is_in_flight(
    broker: BrokerMember, local: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    producer = Producer.at(broker.address(), ORDERS, "first", local=local)

    def nonsense(channel: Channel, *rest: object) -> None:
        channel.send([raw({"kind": "gossip"})])

    monkeypatch.setattr(broker.rules, "append", nonsense)
    answer = producer.append(encode_rows(ORDERS.schema, rows_at(0, ["a"])))
    with pytest.raises(PeerLost, match="Invalid value 'gossip'") as told:
        answer.result(SOON_S)
    assert not told.value.definite
    producer.close()
    _until(lambda: "stream refused" in capfd.readouterr().out)


def test_a_reader_that_hears_nonsense_is_told_and_can_read_on(
    broker: BrokerMember, local: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    reader = Reader()
    reading = Subscription(
        broker.address(), {"orders": ORDERS}, reader.deliver, reader.lost, failed=str, local=local
    )  # fmt: skip
    reading.subscribe("orders/0", 0)
    _until(lambda: len(broker.subscribers) == 1)
    [subscriber] = broker.subscribers.values()
    subscriber.channel.leave([raw({"names": ["orders/0"]})])
    assert reader.over.wait(SOON_S)
    _until(lambda: "missing required field `kind`" in capfd.readouterr().out)
    _until(lambda: not broker.subscribers)
    reading.close()


def test_a_broker_that_cannot_push_for_a_reason_that_nobody_foresaw_says_so(
    broker: BrokerMember, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(reader: object, max_bytes: int) -> None:
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr(broker.rules, "take", broken)
    reader, over = Reader(), queue.Queue[PeerLost]()
    reading = Subscription(
        broker.address(), {"orders": ORDERS}, reader.deliver, over.put, failed=str, local=False
    )  # fmt: skip
    reading.subscribe("orders/0", 0)
    assert "ZeroDivisionError: nobody foresaw this" in str(over.get(timeout=SOON_S))
    _until(lambda: "nothing is pushed any more" in capfd.readouterr().out)
    reading.close()


def test_a_reader_of_files_that_cannot_go_on_for_a_reason_that_nobody_foresaw_says_so(
    broker: BrokerMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(reader: LogReader, *rest: object) -> list[LogBatch]:
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr(LogReader, "read", broken)
    reader = Reader()
    reading = Subscription(
        broker.address(), {"orders": ORDERS}, reader.deliver, reader.lost, failed=reader.failures.put
    )
    reading.subscribe("orders/0", 0)
    assert "ZeroDivisionError: nobody foresaw this" in str(reader.failures.get(timeout=SOON_S))
    reading.close()


@pytest.fixture
def service(broker: BrokerMember) -> Iterator[ServiceMember]:
    member = catalog(eventmesh_query.mesh(), broker.address())
    _until(lambda: bool(member.status()["live"]))
    yield member
    member.close()


def test_a_service_whose_broker_sends_nonsense_goes_on_with_the_next_stream(
    broker: BrokerMember, service: ServiceMember, capfd: pytest.CaptureFixture[str]
) -> None:
    before = list(broker.subscribers)
    assert len(before) == 1
    broker.subscribers[before[0]].channel.leave([raw({"kind": "entries", "names": 7, "sent_at": 0})])
    _until(lambda: len(broker.subscribers) == 1 and list(broker.subscribers) != before)
    said = capfd.readouterr().out
    assert "process=catalog/0" in said
    assert "peer=broker" in said
    assert "Expected `array`, got `int`" in said
    eventmesh_query._list_prices(service.address(), 3)
    assert service.status()["failure"] is None


@pytest.mark.parametrize(("frame", "said"), BAD.values(), ids=BAD.keys())
def test_who_asks_a_service_nonsense_is_told_and_the_others_are_answered(
    service: ServiceMember, local: bool, frame: bytes, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if "replies" in said:
        said = "a frame of the kind replies: expected asks"
    over: queue.Queue[PeerLost] = queue.Queue()
    asking = Connection(service.address(), "a stranger", understand, over.put, local=local)
    asking.channel.send([frame])
    why = over.get(timeout=SOON_S)
    assert isinstance(why, ProtocolError)
    assert said in str(why)
    _until(lambda: "peer='a stranger'" in capfd.readouterr().out)
    eventmesh_query._list_prices(service.address(), 3)
    assert service.status()["failure"] is None


def _until(done: Callable[[], bool]) -> None:
    deadline = now() + SOON_S * 1e6
    while not done():
        assert now() < deadline
        threading.Event().wait(0.01)

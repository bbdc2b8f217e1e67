"""Given a listener, then streams to it are the same through a Unix socket and over Flight; only the first are quick."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from eventmesh.errors import PeerLost, ProtocolError, Unauthenticated
from eventmesh.runtime.process.broker_member import BrokerMember
from eventmesh.runtime.wire import protocol, unix
from eventmesh.runtime.wire.channel import FRAME_BYTES_MAX, LEFT_BYTES_MAX, OPEN, Access, Channel, Received
from eventmesh.runtime.wire.connection import Connection, Listener, flight_location
from eventmesh.runtime.wire.discovery import Offer
from eventmesh.runtime.wire.protocol import Frame, FrameHeader
from eventmesh.runtime.wire.unix import Messages
from tests.process.test_flight import HOSTILE
from tests.process.test_subscription import Writer
from tests.unit.frame_story import APPEND, raw
from tests.unit.log_story import ORDERS

SOON_S = 10.0
MINE = Access(token="a secret of this mesh")
BAD = b"this breaks whoever takes it"


class Echo:
    """Sends back what it is sent, tells who came and went, and chokes on :data:`BAD`."""

    def __init__(self, access: Access = OPEN) -> None:
        self.channels: queue.Queue[Channel] = queue.Queue()
        self.gone: queue.Queue[str] = queue.Queue()
        self.problems: queue.Queue[ProtocolError | None] = queue.Queue()
        self.gate = threading.Event()
        self.gate.set()
        self.listener = Listener(self, access)

    def opened(self, purpose: str, channel: Channel) -> Received:
        self.channels.put(channel)

        def received(header: FrameHeader, bodies: Sequence[pa.Buffer]) -> None:
            self.gate.wait()
            if bodies[0].to_pybytes() == BAD:
                raise ValueError("that one")
            channel.send(protocol.pack(header, bodies))

        return received

    def closed(self, purpose: str, channel: Channel, problem: ProtocolError | None) -> None:
        self.problems.put(problem)
        self.gone.put(purpose)

    def fetch(self, ticket: bytes) -> pa.RecordBatchReader:
        raise KeyError(ticket)

    def offers(self) -> list[Offer]:
        return []


class Client:
    """A connection, and what came of it."""

    def __init__(
        self, address: str, *, local: bool, access: Access = OPEN, before: Callable[[], object] = lambda: None
    ) -> None:
        self.frames: queue.Queue[bytes] = queue.Queue()
        self.lost, self.why = threading.Event(), PeerLost("not yet")

        def take(header: FrameHeader, bodies: Sequence[pa.Buffer]) -> None:
            before()
            self.frames.put(bodies[0].to_pybytes())

        def lost(why: PeerLost) -> None:
            self.why = why
            self.lost.set()

        self.connection = Connection(address, "talk", take, lost, access, local=local)
        self.send = self.connection.channel.send

    def next(self) -> bytes:
        return self.frames.get(timeout=SOON_S)


@pytest.fixture
def echo() -> Iterator[Echo]:
    serving = Echo()
    yield serving
    serving.gate.set()
    serving.listener.end()


both_ways = pytest.mark.parametrize("local", [True, False], ids=["unix", "flight"])


def frame(size: int, filler: int = 7) -> Frame:
    return said(bytes([filler]) * size)


def said(body: bytes) -> Frame:
    return protocol.pack(protocol.Entries(["talk/0"], 0), [pa.py_buffer(body)])


#: Bytes of a frame beside its body.
BESIDE = sum(map(len, frame(0)))


@both_ways
def test_frames_of_any_size_come_back_whole_and_in_order(echo: Echo, local: bool) -> None:
    client = Client(echo.listener.address, local=local)
    assert client.connection.is_local is local
    around = [64 << 10, (64 << 10) - BESIDE, (64 << 10) - BESIDE - 8]  # what is read at a time: the frame, its prefix
    sizes = [
        4,
        7,
        8,
        9,
        100,
        *(size + more for size in around for more in (-9, -8, -1, 0, 1)),
        1_000_003,
        4,
        200_000,
        5,
    ]

    def send_all() -> None:
        for number, size in enumerate(sizes):
            assert client.send(frame(size, number))

    sending = threading.Thread(target=send_all)
    sending.start()  # its replies fill the socket before it has sent them all
    for number, size in enumerate(sizes):
        assert client.next() == bytes([number]) * size
    sending.join(SOON_S)  # the last reply may be here before it knows that it has sent the last frame
    client.connection.close()
    assert echo.gone.get(timeout=SOON_S) == "talk"
    assert not client.lost.is_set(), "who closes is not told that it lost the stream"


@both_ways
def test_who_leaves_frames_does_not_wait_for_a_client_that_does_not_read(echo: Echo, local: bool) -> None:
    reading = threading.Event()
    client = Client(echo.listener.address, local=local, before=reading.wait)
    channel = echo.channels.get(timeout=SOON_S)
    sizes = [4, 1_000_000, 3_000_000, 9, 2_000_000, 4, 4]
    for number, size in enumerate(sizes):
        assert channel.leave(frame(size, number))
    sent = threading.Thread(target=lambda: channel.send(frame(5, len(sizes))))
    sent.start()  # it has to wait, for its turn and for the client
    reading.set()
    for number, size in enumerate([*sizes, 5]):
        assert client.next() == bytes([number]) * size
    sent.join(SOON_S)
    assert channel.leave(frame(6))
    assert client.next() == bytes([7]) * 6
    client.connection.close()


@both_ways
def test_frames_that_many_threads_leave_and_send_come_whole_each_thread_in_order(echo: Echo, local: bool) -> None:
    client = Client(echo.listener.address, local=local)
    channel = echo.channels.get(timeout=SOON_S)
    threads, frames = 6, 400

    def talk(thread: int) -> None:
        say = channel.send if thread % 3 == 0 else channel.leave
        for number in range(frames):
            say(said(f"{thread} {number} ".encode() + bytes(number * 40)))

    talking = [threading.Thread(target=talk, args=(thread,)) for thread in range(threads)]
    for each in talking:
        each.start()
    heard: dict[int, list[int]] = {thread: [] for thread in range(threads)}
    for _ in range(threads * frames):
        thread, number, filler = client.next().split(b" ", 2)
        assert len(filler) == int(number) * 40
        heard[int(thread)].append(int(number))
    assert heard == {thread: list(range(frames)) for thread in range(threads)}
    client.connection.close()


def test_a_client_that_never_reads_what_is_left_for_it_is_given_up_and_no_other(echo: Echo) -> None:
    client, messages = _raw(echo, protocol.Hello("talk"))
    assert answer(messages) == protocol.Welcome()
    channel = echo.channels.get(timeout=SOON_S)
    honest = Client(echo.listener.address, local=True)
    left = 0
    while channel.leave(frame(4 << 20)):
        left += 4 << 20
        assert left <= LEFT_BYTES_MAX + (8 << 20), "it grows without end"
    assert left > LEFT_BYTES_MAX // 2
    assert echo.gone.get(timeout=SOON_S) == "talk"
    assert honest.send(frame(8))
    assert honest.next() == bytes([7]) * 8
    honest.connection.close()
    client.close()


@both_ways
def test_many_small_frames_at_once_are_told_apart(echo: Echo, local: bool) -> None:
    client = Client(echo.listener.address, local=local)
    wanted = [str(number).encode() for number in range(5_000)]
    threading.Thread(target=lambda: [client.send(said(each)) for each in wanted]).start()
    assert [client.next() for _ in wanted] == wanted
    client.connection.close()


@both_ways
def test_a_frame_that_cannot_be_taken_ends_its_own_stream_and_no_other(echo: Echo, local: bool) -> None:
    honest, hostile = (Client(echo.listener.address, local=local) for _ in range(2))
    assert hostile.send(said(BAD))
    assert hostile.lost.wait(SOON_S)
    assert isinstance(hostile.why, ProtocolError)
    assert "ValueError: that one" in str(hostile.why)
    assert "ValueError: that one" in str(echo.problems.get(timeout=SOON_S))
    assert honest.send(frame(8))
    assert honest.next() == bytes([7]) * 8
    honest.connection.close()
    hostile.connection.close()


@both_ways
def test_when_the_listener_ends_its_clients_hear_of_it(local: bool) -> None:
    serving = Echo()
    client = Client(serving.listener.address, local=local)
    serving.listener.end()
    assert client.lost.wait(SOON_S)
    assert not isinstance(client.why, ProtocolError)
    assert "its process is ending" in str(client.why)
    assert serving.problems.get(timeout=SOON_S) is None, "an orderly end is no problem"
    assert not client.send(frame(8))
    client.connection.close()
    with pytest.raises(PeerLost, match="cannot be reached"):
        Client(serving.listener.address, local=local)


@both_ways
def test_without_the_right_token_nobody_is_let_in(local: bool) -> None:
    serving = Echo(MINE)
    for access, problem in ((OPEN, "no token came"), (Access(token="guessed"), "not this mesh's")):
        with pytest.raises(Unauthenticated, match=problem):
            Client(serving.listener.address, local=local, access=access)
    assert serving.channels.empty(), "nothing was opened for them"
    Client(serving.listener.address, local=local, access=MINE).connection.close()
    serving.listener.end()


def test_who_waits_to_send_to_a_client_that_does_not_read_is_let_go_when_it_leaves(echo: Echo) -> None:
    client, messages = _raw(echo, protocol.Hello("talk"))
    assert answer(messages) == protocol.Welcome()
    channel = echo.channels.get(timeout=SOON_S)
    sending = threading.Thread(target=lambda: channel.send(frame(FRAME_BYTES_MAX - BESIDE)))
    sending.start()
    client.close()
    sending.join(SOON_S)
    assert not sending.is_alive()
    assert not channel.send(frame(4))


def test_a_socket_that_is_not_on_this_node_is_passed_over(echo: Echo) -> None:
    """The address of a listener elsewhere names a socket that nobody has here."""
    elsewhere = f"{echo.listener.address}0"
    client = Client(elsewhere, local=True)
    assert not client.connection.is_local
    client.connection.close()


# --- what is sent without our own client ----------------------------------------------------------


def _raw(echo: Echo, hello: FrameHeader | bytes) -> tuple[socket.socket, Messages]:
    client = unix.connect(_name(echo.listener.address))
    assert client is not None
    client.settimeout(SOON_S)
    unix.write(client, [hello] if isinstance(hello, bytes) else protocol.pack(hello))
    return client, Messages(client, FRAME_BYTES_MAX)


def answer(messages: Messages) -> FrameHeader:
    return protocol.unpack(next(messages))[0]


def refusal(messages: Messages) -> str:
    """Why the server does not go on, as its last frame says."""
    header = answer(messages)
    assert isinstance(header, protocol.Refused)
    with pytest.raises(StopIteration):
        next(messages)
    return str(header.failure.error())


def _name(address: str) -> str:
    return address.partition("?socket=")[2]


@pytest.mark.parametrize(
    "hello",
    [
        b"",
        b"{",
        b'{"purpose": "talk"}',
        b"\xff" * 64,
        b"x" * (16 << 10),
        raw({"kind": "hello"}),
        raw(APPEND),
        raw({"kind": "hello", "purpose": "talk"}, version=7),
    ],
)
def test_who_does_not_say_who_it_is_gets_an_answer_and_no_stream(echo: Echo, hello: bytes) -> None:
    client, messages = _raw(echo, hello)
    assert "expected" in refusal(messages)
    assert echo.channels.empty()
    client.close()


def test_a_client_is_told_why_it_is_refused() -> None:
    serving = Echo(MINE)
    client, messages = _raw(serving, protocol.Hello("talk", "Bearer guessed"))
    assert refusal(messages) == "the token is not this mesh's; name the file that holds it with --token-file"
    client.close()
    serving.listener.end()


@pytest.mark.parametrize("size", [16 << 10 | 1, FRAME_BYTES_MAX + 1, 0xFFFFFFFF])
def test_a_first_message_that_says_it_is_large_is_not_waited_for(echo: Echo, size: int) -> None:
    client = unix.connect(_name(echo.listener.address))
    assert client is not None
    client.settimeout(SOON_S)
    client.sendall(unix._PREFIX.pack(size))
    assert f"a frame of {size} bytes" in refusal(Messages(client, FRAME_BYTES_MAX))
    client.close()


def test_a_frame_that_says_it_is_larger_than_any_is_refused_before_it_is_read(echo: Echo) -> None:
    client, messages = _raw(echo, protocol.Hello("talk"))
    assert answer(messages) == protocol.Welcome()
    client.sendall(unix._PREFIX.pack(FRAME_BYTES_MAX + 1))
    assert f"at most {FRAME_BYTES_MAX}" in refusal(messages)
    client.close()


@pytest.mark.parametrize("frame", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("purpose", ["write", "subscribe"])
def test_a_broker_tells_who_sends_what_is_no_frame_and_the_others_go_on(
    tmp_path: Path, purpose: str, frame: bytes
) -> None:
    broker = BrokerMember({"orders": ORDERS}, tmp_path / "log", "os", "test")
    honest = Writer(broker.address())
    honest.append("before")
    client = unix.connect(_name(broker.address()))
    assert client is not None
    client.settimeout(SOON_S)
    unix.write(client, protocol.pack(protocol.Hello(purpose)))
    unix.write(client, [frame])
    client.shutdown(socket.SHUT_WR)
    list(Messages(client, FRAME_BYTES_MAX))
    honest.append("after")
    assert broker.rules.failure is None
    assert broker.ends() == {"orders/0": 3}, "a grant and two facts, nothing else"
    client.close()
    broker.close()


def test_a_flight_client_is_told_the_address_without_the_socket() -> None:
    assert flight_location("grpc://127.0.0.1:43021?socket=abc") == "grpc://127.0.0.1:43021"
    assert flight_location("grpc://127.0.0.1:43021") == "grpc://127.0.0.1:43021"

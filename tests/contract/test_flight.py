"""Given a broker that anybody on the machine can reach, then a hostile or broken client harms nobody but itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from eventmesh.errors import ConfigurationError, Unauthenticated
from eventmesh.runtime.on_ray import frames
from eventmesh.runtime.on_ray.broker import Broker
from eventmesh.runtime.on_ray.flight import call_options
from eventmesh.runtime.on_ray.stream import ANYWHERE, FRAME_BYTES_MAX, Access
from eventmesh.runtime.on_ray.streams import Connection
from tests.contract.test_subscription import Producer
from tests.unit.log_story import ORDERS, facts

MINE = Access(token="a secret of this mesh")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    running = Broker({"orders": ORDERS}, tmp_path / "log", "os", "test")
    yield running
    running.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Broker]:
    running = Broker({"orders": ORDERS}, tmp_path / "log", "os", "test", access=MINE)
    yield running
    running.close()


def send(address: str, purpose: bytes, frame: bytes) -> str:
    """What a client that sends this is told."""
    with flight.connect(address) as client:
        writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(purpose))
        reader.read_chunk()
        writer.write_metadata(frame)
        with pytest.raises((flight.FlightServerError, flight.FlightInternalError)) as told:
            reader.read_chunk()
        return str(told.value)


def framed(header: dict[str, object], *bodies: bytes) -> bytes:
    return b"".join(frames.pack(header, bodies))


APPEND = {"kind": "append", "topic": "orders", "partition": 0, "sent_at": 0}
HEAD = facts(1, ["a"]).head
HOSTILE = {
    "no frame at all": b"GET / HTTP/1.1\r\n\r\n",
    "a header longer than the frame": b"\xff\xff\xff\x7f{}",
    "a header that is no JSON": b"\x04\x00\x00\x00oops",
    "no kind": framed({"topic": "orders"}),
    "bodies that are not there": framed(APPEND)[:40],
    "an unknown topic": framed({**APPEND, "topic": "secrets"}, HEAD, b"x"),
    "a partition that is not there": framed({**APPEND, "partition": 99}, HEAD, b"x" * 64),
    "an append without a batch": framed(APPEND, HEAD),
    "a batch that is no Arrow": framed(APPEND, HEAD, b"\xff" * 64),
    "a head that is no header": framed(APPEND, b"{}", b"x" * 64),
    "an offset that is no number": framed({"kind": "subscribe", "name": "orders/0", "offset": "all"}),
}


@pytest.mark.parametrize("frame", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("purpose", [b"write", b"subscribe"])
def test_what_is_no_frame_is_refused_and_the_others_go_on(broker: Broker, purpose: bytes, frame: bytes) -> None:
    honest = Producer(broker.address())
    honest.append("before")
    _send_anyhow(broker.address(), purpose, frame)
    honest.append("after")
    assert broker.failure is None
    assert broker.ends() == {"orders/0": 3}, "a grant and two facts, nothing else"


def _send_anyhow(address: str, purpose: bytes, frame: bytes) -> None:
    with flight.connect(address) as client:
        writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(purpose))
        reader.read_chunk()
        writer.write_metadata(frame)
        writer.done_writing()
        try:
            while True:
                reader.read_chunk()
        except (StopIteration, pa.ArrowException):
            return


def test_a_client_is_told_what_was_wrong_with_its_frame(broker: Broker) -> None:
    assert "not a frame of this protocol" in send(broker.address(), b"write", HOSTILE["a header longer than the frame"])
    assert "no topic 'secrets': expected one of ['orders']" in send(
        broker.address(), b"write", HOSTILE["an unknown topic"]
    )
    large = bytes(FRAME_BYTES_MAX + 1)
    assert f"expected metadata of at most {FRAME_BYTES_MAX}" in send(broker.address(), b"write", large)


@pytest.mark.parametrize("ticket", [b"", b"orders", b"orders/0", b"orders/0/x", b"orders/7/0", b"secrets/0/0", b"\xff"])
def test_a_ticket_for_what_is_not_there_is_an_error_that_says_so(broker: Broker, ticket: bytes) -> None:
    with flight.connect(broker.address()) as client, pytest.raises(flight.FlightServerError, match="topic/partition"):
        client.do_get(flight.Ticket(ticket)).read_all()


def test_an_append_with_offsets_that_lie_is_refused_before_it_is_read(broker: Broker) -> None:
    """A string column whose offsets point outside its data must not be trusted by anybody who decodes it."""
    producer = Producer(broker.address())
    good = facts(producer.end, ["abcdefgh"], epoch=producer.epoch)
    message = good.message.to_pybytes()
    places = [at for at in range(0, len(message) - 8, 4) if message[at : at + 8] == b"\0\0\0\0\x08\0\0\0"]
    assert places
    for at in places:
        lying = message[:at] + b"\0\0\0\0\xff\xff\xff\x7f" + message[at + 8 :]
        answer = producer.ask(frames.pack(APPEND, [good.head, lying]))
        assert "error" in answer
    producer.append("fine")


def test_without_the_token_nobody_is_let_in(guarded: Broker) -> None:
    for access, problem in ((Access(), "no token came"), (Access(token="guessed"), "not this mesh's")):
        with pytest.raises(Unauthenticated, match=problem):
            Connection(guarded.address(), "write", print, str, access, local=False)
        with flight.connect(guarded.address()) as client, pytest.raises(flight.FlightUnauthenticatedError):
            client.do_get(flight.Ticket(b"orders/0/0"), call_options(access)).read_all()
    Connection(guarded.address(), "write", print, str, MINE, local=False).close()


def test_who_listens_anywhere_is_reached_where_ray_finds_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostbyname", lambda name: "127.0.1.1")  # as a fresh Debian has it
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "192.0.2.7")
    assert Access(token="a secret", host=ANYWHERE).reached_at == "192.0.2.7"
    assert Access().reached_at == "127.0.0.1"


def test_beyond_loopback_a_token_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="without a token"):
        Access(host=ANYWHERE)
    assert "secret" not in repr(MINE), "a token does not get into logs"

"""Given a broker that anybody on the machine can reach, then a hostile or broken client harms nobody but itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from eventmesh.errors import ConfigurationError, EnvironmentUnavailable, Unauthenticated
from eventmesh.runtime.process.broker_member import BrokerMember
from eventmesh.runtime.wire import discovery, protocol
from eventmesh.runtime.wire.channel import ANYWHERE, FRAME_BYTES_MAX, Access
from eventmesh.runtime.wire.connection import Connection
from eventmesh.runtime.wire.flight import call_options
from tests.process.test_subscription import Writer
from tests.unit.frame_story import APPEND, HEAD, UNREADABLE, raw
from tests.unit.log_story import ORDERS, facts

MINE = Access(token="a secret of this mesh")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerMember]:
    running = BrokerMember({"orders": ORDERS}, tmp_path / "log", "os", "test")
    yield running
    running.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[BrokerMember]:
    running = BrokerMember({"orders": ORDERS}, tmp_path / "log", "os", "test", access=MINE)
    yield running
    running.close()


def send(address: str, purpose: str, frame: bytes) -> str:
    """What a client that sends this is told before its stream is ended."""
    with flight.connect(address) as client:
        writer, reader = client.do_exchange(hello(purpose))
        reader.read_chunk()
        writer.write_metadata(frame)
        header, _ = protocol.unpack(reader.read_chunk().app_metadata)
        assert isinstance(header, protocol.Refused)
        with pytest.raises(StopIteration):
            reader.read_chunk()
        return str(header.failure.error())


def hello(purpose: str) -> Any:
    return flight.FlightDescriptor.for_command(b"".join(protocol.pack(protocol.Hello(purpose))))


HOSTILE = {
    **{name: frame for name, (frame, _) in UNREADABLE.items()},
    "an unknown topic": raw({**APPEND, "topic": "secrets"}, HEAD, b"x"),
    "a partition that is not there": raw({**APPEND, "partition": 99}, HEAD, b"x" * 64),
    "an append without a batch": raw(APPEND, HEAD),
    "a batch that is no Arrow": raw(APPEND, HEAD, b"\xff" * 64),
    "a head that is no header": raw(APPEND, b"{}", b"x" * 64),
    "an offset that is no number": raw({"kind": "subscribe", "name": "orders/0", "offset": "all"}),
}


@pytest.mark.parametrize("frame", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("purpose", ["write", "subscribe"])
def test_what_is_no_frame_is_refused_and_the_others_go_on(broker: BrokerMember, purpose: str, frame: bytes) -> None:
    honest = Writer(broker.address())
    honest.append("before")
    _send_anyhow(broker.address(), purpose, frame)
    honest.append("after")
    assert broker.rules.failure is None
    assert broker.ends() == {"orders/0": 3}, "a grant and two facts, nothing else"


def _send_anyhow(address: str, purpose: str, frame: bytes) -> None:
    with flight.connect(address) as client:
        writer, reader = client.do_exchange(hello(purpose))
        reader.read_chunk()
        writer.write_metadata(frame)
        writer.done_writing()
        try:
            while True:
                reader.read_chunk()
        except (StopIteration, pa.ArrowException):
            return


def test_a_client_is_told_what_was_wrong_with_its_frame(broker: BrokerMember) -> None:
    assert "a header of 2147483648" in send(broker.address(), "write", HOSTILE["a header longer than the frame"])
    assert "no topic 'secrets': expected one of ['orders']" in send(
        broker.address(), "write", HOSTILE["an unknown topic"]
    )
    large = bytes(FRAME_BYTES_MAX + 1)
    assert f"expected metadata of at most {FRAME_BYTES_MAX}" in send(broker.address(), "write", large)


@pytest.mark.parametrize("first", [b"", b"write", raw(APPEND), raw({"kind": "hello", "purpose": "write"}, version=7)])
def test_who_does_not_say_who_it_is_is_told_so_and_gets_no_stream(broker: BrokerMember, first: bytes) -> None:
    with flight.connect(broker.address()) as client:
        _, reader = client.do_exchange(flight.FlightDescriptor.for_command(first))
        header, _ = protocol.unpack(reader.read_chunk().app_metadata)
        assert isinstance(header, protocol.Refused)
        assert "expected" in header.failure.message
        with pytest.raises(StopIteration):
            reader.read_chunk()
    assert not broker.subscribers


@pytest.mark.parametrize("ticket", [b"", b"orders", b"orders/0", b"orders/0/x", b"orders/7/0", b"secrets/0/0", b"\xff"])
def test_a_ticket_for_what_is_not_there_is_an_error_that_says_so(broker: BrokerMember, ticket: bytes) -> None:
    with flight.connect(broker.address()) as client, pytest.raises(flight.FlightServerError, match="topic/partition"):
        client.do_get(flight.Ticket(ticket)).read_all()


def test_an_append_with_offsets_that_lie_is_refused_before_it_is_read(broker: BrokerMember) -> None:
    """A string column whose offsets point outside its data must not be trusted by anybody who decodes it."""
    producer = Writer(broker.address())
    good = facts(producer.end, ["abcdefgh"], epoch=producer.epoch)
    message = good.message.to_pybytes()
    places = [at for at in range(0, len(message) - 8, 4) if message[at : at + 8] == b"\0\0\0\0\x08\0\0\0"]
    assert places
    for at in places:
        lying = message[:at] + b"\0\0\0\0\xff\xff\xff\x7f" + message[at + 8 :]
        answer = producer.ask(protocol.pack(protocol.Append("orders", 0, 0), [good.head, lying]))
        assert isinstance(answer, protocol.AppendFailed)
    producer.append("fine")


def test_without_the_token_nobody_is_let_in(guarded: BrokerMember) -> None:
    for access, problem in ((Access(), "no token came"), (Access(token="guessed"), "not this mesh's")):
        with pytest.raises(Unauthenticated, match=problem):
            Connection(guarded.address(), "write", print, str, access, local=False)
        with flight.connect(guarded.address()) as client, pytest.raises(flight.FlightUnauthenticatedError):
            client.do_get(flight.Ticket(b"orders/0/0"), call_options(access)).read_all()
    Connection(guarded.address(), "write", print, str, MINE, local=False).close()


def test_beyond_loopback_a_token_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="without a token"):
        Access(host=ANYWHERE, node_address=lambda: "192.0.2.7")
    assert "secret" not in repr(MINE), "a token does not get into logs"


# --- what any Flight client finds -----------------------------------------------------------------

path = flight.FlightDescriptor.for_path
PAYMENTS = replace(ORDERS, name="payments", owner="payments", partitions=2)


@pytest.fixture
def two_topics(tmp_path: Path) -> Iterator[BrokerMember]:
    """A broker with three facts in orders/0, behind a grant, and payments of two empty partitions."""
    running = BrokerMember({"orders": ORDERS, "payments": PAYMENTS}, tmp_path / "log", "os", "test")
    producer = Writer(running.address())
    producer.append("a", "b")
    producer.append("c")
    yield running
    running.close()


@pytest.fixture
def client(two_topics: BrokerMember) -> Iterator[Any]:
    with flight.connect(two_topics.address()) as connected:
        yield connected


def paths(flights: Any) -> list[list[str]]:
    return [[word.decode() for word in each.descriptor.path] for each in flights]


def test_a_client_that_knows_nothing_finds_and_reads_every_partition(client: Any) -> None:
    flights = list(client.list_flights())
    assert paths(flights) == [["orders", "0"], ["payments", "0"], ["payments", "1"]]
    for each in flights:
        [endpoint] = each.endpoints
        with flight.connect(endpoint.locations[0]) as there:
            table = there.do_get(endpoint.ticket).read_all()
        assert table.num_rows == each.total_records == client.get_flight_info(each.descriptor).total_records
        assert table.schema == each.schema == client.get_schema(each.descriptor).schema == ORDERS.schema
    assert [each.total_records for each in flights] == [4, 0, 0]


def test_a_topic_is_a_flight_with_an_endpoint_for_each_partition(client: Any) -> None:
    info = client.get_flight_info(path("payments"))
    assert [endpoint.ticket.ticket for endpoint in info.endpoints] == [b"payments/0/0", b"payments/1/0"]
    assert info.descriptor == path("payments")
    assert client.get_flight_info(path("orders")).total_records == 4
    assert client.get_schema(path("payments")).schema == PAYMENTS.schema


@pytest.mark.parametrize(
    ("criteria", "found"),
    [
        (b"payments", [["payments", "0"], ["payments", "1"]]),
        (b"payments/1", [["payments", "1"]]),
        (b"orders", [["orders", "0"]]),
    ],
)
def test_a_client_lists_what_it_names(client: Any, criteria: bytes, found: list[list[str]]) -> None:
    assert paths(client.list_flights(criteria)) == found


def test_the_offsets_are_told_and_grow(two_topics: BrokerMember, client: Any) -> None:
    def offsets() -> Any:
        said = json.loads(client.get_flight_info(path("orders", "0")).app_metadata)
        assert said["cluster"] == "test"
        return said["offsets"]

    assert offsets() == {"orders/0": [0, 4]}
    Writer(two_topics.address(), "second").append("d")
    assert offsets() == {"orders/0": [0, 6]}


def test_below_the_start_there_is_no_ticket(
    two_topics: BrokerMember, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_topics.rules.log, "start", lambda topic, partition: 3 if topic == "orders" else 0)
    info = client.get_flight_info(path("orders", "0"))
    assert (info.endpoints[0].ticket.ticket, info.total_records) == (b"orders/0/3", 1)


ASKED: dict[str, Callable[[Any], Any]] = {
    "list_flights": lambda client: list(client.list_flights(b"secrets")),
    "get_flight_info": lambda client: client.get_flight_info(path("secrets", "0")),
    "get_schema": lambda client: client.get_schema(path("secrets")),
    "do_get": lambda client: client.do_get(flight.Ticket(b"secrets/0/0")).read_all(),
    "do_action": lambda client: list(client.do_action(flight.Action("compact", b""))),
    "do_put": lambda client: client.do_put(path("orders", "0"), ORDERS.schema)[0].close(),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
def test_errors_are_flights_own_and_say_what_there_is(client: Any, asked: Callable[[Any], Any]) -> None:
    with pytest.raises((flight.FlightServerError, pa.lib.ArrowKeyError)) as told:
        asked(client)
    assert re.search("orders|no action 'compact'|service that owns it", str(told.value))
    assert "Traceback" not in str(told.value)
    assert ".py" not in str(told.value)
    assert len(list(client.list_flights())) == 3, "and the server goes on"


@pytest.mark.parametrize(
    ("descriptor", "said"),
    [
        (path("orders", "1"), "orders has partitions 0 to 0, not '1'"),
        (path("orders", "x"), "orders has partitions 0 to 0, not 'x'"),
        (path("payments", "-1"), "payments has partitions 0 to 1"),
        (path("orders", "0", "0"), "a path of 3 words: expected a topic"),
        (path("o" * 9_000), "there is no topic"),
        (path("Orders"), "the topics are orders, payments"),
        (flight.FlightDescriptor.for_command(b"SELECT 1"), "descriptors are paths here"),
    ],
)
def test_a_descriptor_of_what_is_not_there(client: Any, descriptor: Any, said: str) -> None:
    with pytest.raises(flight.FlightServerError, match=re.escape(said)):
        client.get_flight_info(descriptor)
    with pytest.raises(pa.lib.ArrowKeyError, match=re.escape(said)):
        client.get_schema(descriptor)


@pytest.mark.parametrize(
    "ticket", [b"orders/0/" + b"9" * 5_000, b"orders/0/5", b"orders/0/-1", "orders/\u0663/0".encode()]
)
def test_a_ticket_beyond_the_end_has_no_traceback(client: Any, ticket: bytes) -> None:
    with pytest.raises(flight.FlightServerError) as told:
        client.do_get(flight.Ticket(ticket)).read_all()
    assert "Traceback" not in str(told.value)


def test_there_are_no_actions(client: Any) -> None:
    assert list(client.list_actions()) == []


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
def test_the_token_is_asked_for_everywhere(guarded: BrokerMember, asked: Callable[[Any], Any]) -> None:
    kinds = (flight.FlightUnauthenticatedError, OSError)  # of get_schema alone pyarrow's client makes the latter
    with flight.connect(guarded.address()) as stranger, pytest.raises(kinds) as told:
        asked(stranger)
    assert "no token came" in str(told.value)
    assert "Unauthenticated" in repr(told.value)
    assert "Traceback" not in str(told.value)
    with flight.connect(guarded.address()) as friend:
        assert paths(friend.list_flights(options=call_options(MINE))) == [["orders", "0"]]


def test_damage_in_the_middle_of_a_stream_has_no_traceback(
    two_topics: BrokerMember, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = two_topics.read

    def broken(topic: str, partition: int, offset: int) -> Any:
        if offset:
            raise ZeroDivisionError("nobody foresaw this")
        return read(topic, partition, offset)[:1]

    monkeypatch.setattr(two_topics, "read", broken)
    with pytest.raises(flight.FlightInternalError, match="internal error: ZeroDivisionError: nobody") as told:
        client.do_get(flight.Ticket(b"orders/0/0")).read_all()
    assert "Traceback" not in str(told.value)


def test_a_broker_that_closes_does_not_pass_what_it_sent_for_the_whole(two_topics: BrokerMember, client: Any) -> None:
    two_topics.closing = True  # as it is from the moment it is told, while its listener still answers
    with pytest.raises(flight.FlightUnavailableError, match="the broker is closing: read on from orders/0/0"):
        client.do_get(flight.Ticket(b"orders/0/0")).read_all()
    with pytest.raises(flight.FlightUnavailableError, match="closing"):
        list(client.list_flights())
    two_topics.closing = False


def test_who_serves_no_partitions_says_where_they_are() -> None:
    with pytest.raises(flight.FlightServerError, match="ask the broker"), discovery.told():
        discovery.named([], [b"orders"])
    with pytest.raises(flight.FlightUnavailableError), discovery.told():
        raise EnvironmentUnavailable("away")


def test_the_page_about_flight_shows_what_works(two_topics: BrokerMember, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "flight.md").read_text()
    [program] = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert 'connect("grpc://127.0.0.1:43021")' in program
    exec(program.replace("grpc://127.0.0.1:43021", two_topics.address()), {})
    assert capsys.readouterr().out == "orders/0: 4 records\npayments/0: 0 records\npayments/1: 0 records\n"

"""Given two processes that talk, when a fault strikes their link, then it does what it says, in both processes and over
both wires, and is over by itself or when healed.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest

from eventmesh.errors import EventmeshError, PeerLost, ProtocolError
from eventmesh.runtime.faults import Bandwidth, Cut, Fault, Latency, Reset, Split, Stall, Struck
from eventmesh.runtime.process.strikes import Strikes
from eventmesh.runtime.wire import faulty, protocol
from eventmesh.runtime.wire.channel import Channel, Received
from eventmesh.runtime.wire.connection import Connection, Listener
from eventmesh.runtime.wire.discovery import Offer
from eventmesh.runtime.wire.faulty import LinkFaults
from eventmesh.runtime.wire.link import Link
from eventmesh.runtime.wire.protocol import Frame, FrameHeader
from tests.process.whole_mesh import until

SOON_S = 10.0
LONG_S = 600.0
BOTH = {"source": "desk", "target": "shelves/0"}


class Side:
    """A process of the mesh, as far as links are concerned."""

    def __init__(self, name: str) -> None:
        self.link_faults = LinkFaults(name)
        self.strikes = Strikes(lambda: None, link_faults=self.link_faults)


class Server(Side):
    """Tells what it hears, and who is gone; sends back what is not marked as to be kept."""

    def __init__(self) -> None:
        super().__init__("shelves/0")
        self.heard: queue.Queue[str] = queue.Queue()
        self.channels: queue.Queue[Channel] = queue.Queue()
        self.gone: queue.Queue[str] = queue.Queue()
        self.listener = Listener(self, link_faults=self.link_faults)

    def opened(self, purpose: str, channel: Channel) -> Received:
        self.channels.put(channel)

        def received(header: FrameHeader, bodies: Sequence[pa.Buffer]) -> None:
            text = said(header)
            self.heard.put(text)
            if text.startswith("echo"):
                channel.leave(say(text))

        return received

    def closed(self, purpose: str, channel: Channel, problem: ProtocolError | None) -> None:
        self.gone.put(purpose)

    def fetch(self, ticket: bytes) -> pa.RecordBatchReader:
        raise KeyError(ticket)

    def offers(self) -> list[Offer]:
        return []


class Client(Side):
    """Keeps a link to the server up."""

    def __init__(self, server: Server, *, local: bool, name: str = "desk/0") -> None:
        super().__init__(name)
        self.heard: queue.Queue[str] = queue.Queue()
        self.up: queue.Queue[Connection] = queue.Queue()
        self.down: queue.Queue[EventmeshError] = queue.Queue()

        def connect(lost: Callable[[PeerLost], None]) -> Connection:
            return Connection(
                server.listener.address, name, lambda header, bodies: self.heard.put(said(header)), lost, local=local,
                link_faults=self.link_faults, peer="shelves/0",
            )  # fmt: skip

        self.link = Link("shelves/0", connect, up=self.up.put, down=self.down.put, refused=print)
        self.link.start()
        self.connection = self.up.get(timeout=SOON_S)
        self.channel = server.channels.get(timeout=SOON_S)


def say(text: str, size: int = 0) -> Frame:
    return protocol.pack(protocol.ReadFailed(text, protocol.Failure("InputError", "." * size)))


def said(header: FrameHeader) -> str:
    assert isinstance(header, protocol.ReadFailed)
    return header.name


class Pair:
    """A server, its client, and faults that are told to both, as a mesh does."""

    def __init__(self, local: bool) -> None:
        self.local, self.server = local, Server()
        self.client = Client(self.server, local=local)
        self._others: list[Client] = []
        self._count = 0

    def another(self, name: str) -> Client:
        self._others.append(Client(self.server, local=self.local, name=name))
        return self._others[-1]

    @property
    def sides(self) -> list[Side]:
        return [self.server, self.client, *self._others]

    def strike(self, fault: Fault) -> tuple[Struck, Struck]:
        """What came of it at the server and at the client."""
        self._count += 1
        struck = [side.strikes.strike(fault, f"fault {self._count}") for side in self.sides]
        return struck[0], struck[1]

    def heal(self) -> None:
        for side in self.sides:
            side.strikes.heal()

    def close(self) -> None:
        self.heal()
        for each in (self.client, *self._others):
            each.link.close()
        self.server.listener.end()


@pytest.fixture(params=[True, False], ids=["unix", "flight"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(request.param)
    yield made
    made.close()


def test_what_is_said_both_ways_is_late_by_the_latency_of_both(pair: Pair) -> None:
    at_server, at_client = pair.strike(Latency(**BOTH, latency_ms=150, lasts_s=LONG_S))
    begun = time.monotonic()
    pair.client.link.send(say("echo"))
    assert pair.client.heard.get(timeout=SOON_S) == "echo"
    assert time.monotonic() - begun >= 0.3
    assert (at_server.shows["messages delayed"], at_client.shows["messages delayed"]) == (1, 1)


@pytest.mark.parametrize(("direction", "late"), [("to", (0, 1)), ("from", (1, 0))])
def test_one_way_only_what_goes_that_way_is_late(pair: Pair, direction: Any, late: tuple[int, int]) -> None:
    struck = pair.strike(Latency(**BOTH, latency_ms=100, lasts_s=LONG_S, direction=direction))
    pair.client.link.send(say("echo"))
    assert pair.client.heard.get(timeout=SOON_S) == "echo"
    assert (struck[0].shows["messages delayed"], struck[1].shows["messages delayed"]) == late


def test_latency_is_no_lack_of_bandwidth_and_jitter_keeps_the_order(pair: Pair) -> None:
    pair.strike(Latency(**BOTH, latency_ms=200, jitter_ms=150, lasts_s=LONG_S))
    begun = time.monotonic()
    for number in range(200):
        pair.client.link.send(say(f"echo {number}"))
    assert [pair.client.heard.get(timeout=SOON_S) for _ in range(200)] == [f"echo {number}" for number in range(200)]
    assert time.monotonic() - begun < 200 * 0.05, "one after the other they would take 40 s and more"


def test_a_rate_is_kept(pair: Pair) -> None:
    pair.strike(Bandwidth(**BOTH, rate_kb_per_s=100, lasts_s=LONG_S))
    begun = time.monotonic()
    for number in range(6):
        pair.client.link.send(say(str(number), 10_000))
    assert [pair.server.heard.get(timeout=SOON_S) for _ in range(6)] == list("012345")
    assert time.monotonic() - begun >= 0.6


def test_nothing_comes_while_stalled_and_then_all_of_it_in_order(pair: Pair) -> None:
    at_server, at_client = pair.strike(Stall(**BOTH, lasts_s=LONG_S))
    wanted = [str(number) for number in range(50)]
    for text in wanted:
        assert pair.client.link.send(say(text))
        pair.client.channel.leave(say(text))
    assert at_client.shows["messages held"] == 50
    until(lambda: at_server.shows["messages held"] == 50)  # what is left is sent by a thread of the channel
    with pytest.raises(queue.Empty):
        pair.server.heard.get(timeout=0.2)
    assert pair.client.heard.empty()
    pair.heal()
    pair.heal()
    assert [pair.server.heard.get(timeout=SOON_S) for _ in wanted] == wanted
    assert [pair.client.heard.get(timeout=SOON_S) for _ in wanted] == wanted
    assert at_server.ended_us is not None


def test_a_stall_is_over_by_itself_and_then_frames_go_straight_again(pair: Pair) -> None:
    pair.strike(Stall(**BOTH, lasts_s=0.3))
    pair.client.link.send(say("echo"))
    assert pair.client.heard.get(timeout=SOON_S) == "echo"
    wire = pair.client.connection.channel._wire
    assert isinstance(wire, faulty.FaultyWire)
    wire._line.settle(SOON_S)
    assert wire._line.direct
    assert wire._line._thread is None


def test_who_sends_to_a_stalled_peer_waits_when_too_much_is_held(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faulty, "HELD_BYTES_MAX", 10_000)
    pair.strike(Stall(**BOTH, lasts_s=LONG_S))
    channel = pair.client.connection.channel
    channel.send(say("0", 20_000))
    sending = threading.Thread(target=lambda: channel.send(say("1")))
    sending.start()
    sending.join(0.1)
    assert sending.is_alive()
    assert channel.leave(say("2")), "who leaves frames does not wait"
    pair.heal()
    assert [pair.server.heard.get(timeout=SOON_S) for _ in range(3)] == ["0", "1", "2"]
    sending.join(SOON_S)


@pytest.mark.parametrize(
    "cut",
    [
        Cut(**BOTH, lasts_s=0.5), Cut(**BOTH, lasts_s=0.5, direction="from"),
        Split(groups=(("desk",), ("*",)), lasts_s=0.5),
    ],
    ids=["cut", "one way", "split"],
)  # fmt: skip
def test_a_cut_link_breaks_at_both_ends_and_is_made_again_when_it_is_over(pair: Pair, cut: Fault) -> None:
    _, at_client = pair.strike(cut)
    pair.client.link.send(say("lost on its way"))
    assert isinstance(pair.client.down.get(timeout=SOON_S), PeerLost)
    assert pair.server.gone.get(timeout=SOON_S) == "desk/0"
    assert pair.client.up.get(timeout=SOON_S)
    assert at_client.ended_us is not None, "it was not up again before"
    assert at_client.shows["connections broken"] == 1
    pair.client.link.send(say("echo"))
    assert pair.client.heard.get(timeout=SOON_S) == "echo"


def test_while_cut_nothing_arrives_and_no_connection_can_be_made(pair: Pair) -> None:
    _, at_client = pair.strike(Cut(**BOTH, lasts_s=LONG_S))
    pair.client.link.send(say("lost"))
    assert at_client.shows["messages lost"] == 1
    with pytest.raises(PeerLost, match="a fault has cut the link"):
        pair.client.link_faults.check_reach("shelves/0")
    assert at_client.shows["connections refused"] == 1
    pair.heal()
    pair.client.down.get(timeout=SOON_S)
    pair.client.up.get(timeout=SOON_S)
    pair.client.link.send(say("after"))
    assert pair.server.heard.get(timeout=SOON_S) == "after"


def test_a_reset_link_is_told_at_both_ends_and_made_again_at_once(pair: Pair) -> None:
    _, at_client = pair.strike(Reset(**BOTH))
    assert pair.server.gone.get(timeout=SOON_S) == "desk/0"
    assert isinstance(pair.client.down.get(timeout=SOON_S), PeerLost)
    assert pair.client.up.get(timeout=SOON_S)
    assert at_client.shows["connections broken"] == 1
    assert at_client.ended_us is not None


def test_what_is_held_is_lost_when_the_connection_is_reset(pair: Pair) -> None:
    pair.strike(Stall(**BOTH, lasts_s=LONG_S, direction="to"))
    pair.client.link.send(say("held"))
    pair.strike(Reset(**BOTH))
    pair.client.up.get(timeout=SOON_S)
    pair.heal()
    pair.client.link.send(say("after"))
    assert pair.server.heard.get(timeout=SOON_S) == "after"


def test_others_are_not_hit(pair: Pair) -> None:
    other = pair.another("gate/0")
    for fault in (Stall(**BOTH, lasts_s=LONG_S), Cut(**BOTH, lasts_s=LONG_S), Reset(**BOTH)):
        pair.strike(fault)
    other.link.send(say("echo"))
    assert other.heard.get(timeout=SOON_S) == "echo"
    assert other.down.empty()


def test_with_toxicity_a_share_of_the_connections_is_hit_and_both_ends_know_which(pair: Pair) -> None:
    clients = [pair.another(f"gate/{number}") for number in range(20)]
    pair.strike(Stall(source="gate", target="shelves/0", toxicity=0.5, lasts_s=LONG_S))
    stalled = [not client.connection.channel._wire._line.direct for client in clients]  # type: ignore[attr-defined]
    theirs = [not client.channel._wire._line.direct for client in clients]  # type: ignore[attr-defined]
    assert stalled == theirs
    assert 0 < sum(stalled) < 20


def test_two_faults_on_a_link_add_up(pair: Pair) -> None:
    for _ in range(2):
        pair.strike(Latency(**BOTH, latency_ms=100, lasts_s=LONG_S, direction="to"))
    begun = time.monotonic()
    pair.client.link.send(say("late"))
    assert pair.server.heard.get(timeout=SOON_S) == "late"
    assert time.monotonic() - begun >= 0.2


def test_a_client_that_no_mesh_knows_is_one_of_the_others(pair: Pair) -> None:
    stranger: queue.Queue[str] = queue.Queue()
    connection = Connection(
        pair.server.listener.address, "stranger", lambda header, bodies: stranger.put(said(header)), print,
        local=pair.local,
    )  # fmt: skip
    at_server, _ = pair.strike(Latency(source="shelves/0", target="*", latency_ms=100, lasts_s=LONG_S))
    connection.channel.send(say("echo"))
    assert stranger.get(timeout=SOON_S) == "echo"
    assert at_server.shows["messages delayed"] == 1
    connection.close()

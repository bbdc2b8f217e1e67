"""Faults on the links of a process: what it sends is late, held, or lost, and its connections break.

What is sent is held by who sends it, so that both ends know a fault, and each does its half. A connection is broken by
the end that made it. Connections have a name that both ends know, by which both draw alike whether one is hit. On a
connection everything keeps its order (rule 24); what is lost, doubled or overtaken are whole asks and replies.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
import weakref
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from eventmesh.errors import PeerLost
from eventmesh.runtime.faults import (
    Bandwidth,
    Cut,
    Duplication,
    Latency,
    LinkFault,
    Loss,
    Reordering,
    Split,
    Stall,
    Struck,
    between,
)
from eventmesh.runtime.wire import protocol
from eventmesh.runtime.wire.channel import GONE, Rest, Wire
from eventmesh.runtime.wire.protocol import Frame

#: Bytes that wait on one line at most, and one frame more; who sends then waits, as before a full socket.
HELD_BYTES_MAX = 4 << 20
Item = TypeVar("Item")
#: What acts on whole asks and replies, not on the bytes of a connection.
OfWhole = Loss | Duplication | Reordering


class Breakable(Protocol):
    """A connection that this process made to ``peer``; ``name`` is what both ends call it."""

    peer: str
    name: str

    def break_off(self) -> None:
        """End it as if the wire had broken: both sides are told, and may make another."""


class OnLink:
    """One fault in force. ``name`` is what its dice are called, the same in every process."""

    def __init__(self, struck: Struck, name: str) -> None:
        assert isinstance(struck.fault, LinkFault)
        self.fault: LinkFault = struck.fault
        self.struck, self.name = struck, name
        self._counting = threading.Lock()
        self._dice: dict[str, random.Random] = {}

    def count(self, what: str) -> None:
        """It happened."""
        with self._counting:
            self.struck.shows[what] += 1

    def dice(self, sender: str, to: str) -> random.Random:
        """Those of one way between two processes."""
        link = f"{self.name} {sender} {to}"
        return self._dice.setdefault(link, random.Random(link))

    def hits(self, sender: str, to: str, connection: str) -> bool:
        """Whether it is on this way, and hits this connection."""
        return between(self.fault, sender, to) and self._draws(sender, to, connection)

    def joins(self, one: str, other: str, connection: str) -> bool:
        """Whether it hits a connection of these two, in one direction at least."""
        return self.hits(one, other, connection) or self.hits(other, one, connection)

    def _draws(self, sender: str, to: str, connection: str) -> bool:
        toxicity = getattr(self.fault, "toxicity", 1.0)
        if toxicity == 1.0:
            return True
        # A cut is of two processes, lest they connect again; everything else is of one connection.
        drawn_by = " ".join(sorted((sender, to))) if isinstance(self.fault, Cut | Split) else connection
        return bool(random.Random(f"{self.name} {drawn_by}").random() < toxicity)


class LinkFaults:
    """The faults in force on the links of the process called ``name``, and what of it they act on."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._caller = name or uuid.uuid4().hex  # those that no mesh knows are no namesakes
        self._made: Counter[str] = Counter()  # how many connections, by peer
        self.on_asks = False  # whether some fault acts on whole asks and replies
        self.on_topics = False  # whether some fault has ever acted on single topics
        self._active: tuple[OnLink, ...] = ()
        self._lines: weakref.WeakSet[Line[Any]] = weakref.WeakSet()
        self._connections: weakref.WeakSet[Breakable] = weakref.WeakSet()
        self._lock = threading.Lock()

    # --- faults -----------------------------------------------------------------------------------

    def begin(self, on: OnLink) -> None:
        """From now on."""
        with self._lock:
            self._set((*self._active, on))

    def end(self, on: OnLink) -> None:
        """No more; what it held goes on, in its order."""
        with self._lock:
            self._set(tuple(each for each in self._active if each is not on))

    def _set(self, active: tuple[OnLink, ...]) -> None:
        self._active = active
        self.on_asks = any(isinstance(each.fault, OfWhole) for each in active)
        self.on_topics = self.on_topics or any(isinstance(each.fault, Latency) and each.fault.topics for each in active)
        for line in list(self._lines):
            line.changed(self._of(line))

    def _of(self, line: Line[Any]) -> tuple[OnLink, ...]:
        return tuple(each for each in self._active if line.is_hit_by(each))

    def add(self, line: Line[Any]) -> None:
        """Act on this line from now on."""
        with self._lock:
            self._lines.add(line)
            line.changed(self._of(line))

    def remove(self, line: Line[Any]) -> None:
        """Act on it no longer."""
        with self._lock:
            self._lines.discard(line)

    # --- connections ------------------------------------------------------------------------------

    def hello(self, purpose: str, peer: str) -> protocol.Hello:
        """A client's first frame, which says who it is and what the connection to ``peer`` is called.

        It is called by its ends and by how many there were before, so that a fault hits the same ones in every run.
        """
        with self._lock:
            self._made[peer] += 1
            connection = f"{self._caller} {peer} {self._made[peer]}"
        return protocol.Hello(purpose, sender=self.name, connection=connection)

    def served(self, wire: Wire, hello: protocol.Hello) -> Wire:
        """The sending side of a connection that a client made."""
        return FaultyWire(wire, self, hello.sender, hello.connection)

    def check_reach(self, peer: str) -> None:
        """:class:`~eventmesh.errors.PeerLost` where a cut keeps this process from connecting to ``peer``."""
        for each in self._active:
            if isinstance(each.fault, Cut | Split) and each.joins(self.name, peer, ""):
                each.count("connections refused")
                raise PeerLost(f"{peer} cannot be reached from {self.name}: a fault has cut the link")

    def opened(self, connection: Breakable) -> None:
        """This process has made a connection."""
        with self._lock:
            self._connections.add(connection)

    def closed(self, connection: Breakable) -> None:
        """It is over."""
        with self._lock:
            self._connections.discard(connection)

    def hit_by(self, on: OnLink) -> list[Breakable]:
        """The connections that this process has made, and that a fault hits."""
        with self._lock:
            return [each for each in self._connections if on.joins(self.name, each.peer, each.name)]

    def break_off(self, connection: Breakable, on: OnLink) -> None:
        """Break a connection, if it is not over yet."""
        with self._lock:
            if connection not in self._connections:
                return
            self._connections.discard(connection)
        on.count("connections broken")
        connection.break_off()

    # --- whole asks and replies -------------------------------------------------------------------

    def of_whole(self, sender: str, to: str) -> list[float]:
        """How many seconds to wait before each copy of an ask or a reply goes on: one that is lost has none."""
        waits = [0.0]
        for each in self._active:
            fault = each.fault
            if not isinstance(fault, OfWhole) or not between(fault, sender, to):
                continue
            dice = each.dice(sender, to)
            if dice.random() >= fault.share:
                continue
            if isinstance(fault, Loss):
                each.count("messages lost")
                return []
            wait_s = dice.uniform(*fault.delay_ms) / 1_000
            if isinstance(fault, Duplication):
                each.count("messages doubled")
                waits.append(waits[0] + wait_s)
            else:
                each.count("messages overtaken")
                waits = [before + wait_s for before in waits]
        return waits


class Line(Generic[Item]):
    """What goes from ``sender`` to ``to`` by one connection, in its order: at once, or as the faults in force say.

    Whoever finds it ``direct`` hands on for itself; else it is put here, and ``carry`` is called on a thread of the
    line's own, which is there as long as a fault is. One thread puts at a time. With ``topic`` it is a stream of its
    own, of what is read of that topic.
    """

    def __init__(
        self,
        link_faults: LinkFaults,
        sender: str,
        to: str,
        connection: str,
        carry: Callable[[Item], None],
        topic: str = "",
    ) -> None:
        self.direct = True
        self._link_faults, self._carry = link_faults, carry
        self._sender, self._to, self._connection, self._topic = sender, to, connection, topic
        self._faults: tuple[OnLink, ...] = ()
        self._held: deque[tuple[float, int, Item]] = deque()
        self._bytes = 0
        self._free_at: dict[OnLink, float] = {}
        self._over = False
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        link_faults.add(self)

    def is_hit_by(self, on: OnLink) -> bool:
        """Whether a fault acts on what goes this way."""
        topics = on.fault.topics if isinstance(on.fault, Latency) else ()
        acts = self._topic in topics if self._topic else not topics and not isinstance(on.fault, OfWhole)
        return acts and on.hits(self._sender, self._to, self._connection)

    def changed(self, faults: tuple[OnLink, ...]) -> None:
        """These are the faults from now on."""
        with self._changed:
            self._faults = faults
            if faults:
                self.direct = False
                self._lose_if_cut()
            elif self._thread is None:
                self.direct = True
            self._changed.notify_all()

    def _cut(self) -> OnLink | None:
        return next((each for each in self._faults if isinstance(each.fault, Cut | Split)), None)

    def _lose_if_cut(self) -> None:
        if (cut := self._cut()) is not None:
            for _ in self._held:
                cut.count("messages lost")
            self._held.clear()
            self._bytes = 0

    # --- putting ----------------------------------------------------------------------------------

    def put(self, item: Item, size: int, *, wait: bool = True) -> bool:
        """Hand on in its turn, or lose it; False where there is no room, and nobody wants to ``wait``.

        ``OSError`` when the line is closed.
        """
        with self._changed:
            if not wait and self._bytes > HELD_BYTES_MAX:
                return False
            self._changed.wait_for(lambda: self._over or self._bytes <= HELD_BYTES_MAX)
            if self._over:
                raise BrokenPipeError("the connection is over")
            if (cut := self._cut()) is not None:
                cut.count("messages lost")
                return True
            self._held.append((self._due(size), size, item))
            self._bytes += size
            self.direct = False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="late", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return True

    def _due(self, size: int) -> float:
        now = time.monotonic()
        due = now
        for each in self._faults:
            fault = each.fault
            if isinstance(fault, Latency):
                jitter = each.dice(self._sender, self._to).uniform(-1, 1) * fault.jitter_ms if fault.jitter_ms else 0.0
                due += max(0.0, fault.latency_ms + jitter) / 1_000
                each.count("messages delayed")
            elif isinstance(fault, Bandwidth):
                free_at = max(now, self._free_at.get(each, 0.0)) + size / (1_000 * fault.rate_kb_per_s)
                self._free_at[each] = free_at
                due += free_at - now
                each.count("messages delayed")
            elif isinstance(fault, Stall):
                each.count("messages held")
        return due

    # --- handing on -------------------------------------------------------------------------------

    def _run(self) -> None:
        while (found := self._next()) is not None:
            try:
                self._carry(found[0])
            except GONE:
                self.stop()

    def _next(self) -> tuple[Item] | None:
        """Wait for the next one whose time has come; None, and there is no thread any more, where none is to come."""
        with self._changed:
            while not self._over:
                if self._held and (wait_s := self._wait_s()) == 0:
                    _, size, item = self._held.popleft()
                    self._bytes -= size
                    self._changed.notify_all()
                    return (item,)
                if not self._held and not self._faults:
                    break
                self._changed.wait(wait_s if self._held else None)
            self._thread, self.direct = None, not self._over
            return None

    def _wait_s(self) -> float | None:
        """Seconds until the first may go; None while that is not known."""
        if not self._faults:
            return 0.0  # whatever held it is over
        if any(isinstance(each.fault, Stall) for each in self._faults):
            return None
        return max(0.0, self._held[0][0] - time.monotonic())

    def stop(self) -> None:
        """What is held is lost, and nothing is put any more."""
        self._link_faults.remove(self)
        with self._changed:
            self._over, self.direct = True, False
            self._held.clear()
            self._changed.notify_all()

    def settle(self, timeout_s: float | None = None) -> None:
        """Wait until nothing is being handed on."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)


class FaultyWire:
    """A wire on which the faults in force act, see :class:`~eventmesh.runtime.wire.channel.Wire`."""

    def __init__(self, wire: Wire, link_faults: LinkFaults, peer: str, connection: str) -> None:
        self._wire = wire
        self._line: Line[Frame] = Line(link_faults, link_faults.name, peer, connection, wire.write)

    def write(self, frame: Frame) -> None:
        """Send, in its turn; waits while the other side does not read."""
        if self._line.direct:
            self._wire.write(frame)
        else:
            self._line.put(frame, sum(map(len, frame)))

    def begin(self, frame: Frame) -> Rest | None:
        """Send what can be sent without waiting, and return the rest."""
        if self._line.direct:
            return self._wire.begin(frame)
        taken = self._line.put(frame, sum(map(len, frame)), wait=False)
        return None if taken else partial(self.write, frame)

    def end(self) -> None:
        """Send nothing more, and let the other side see that."""
        self._wire.end()
        self._line.stop()

    def settle(self) -> None:
        """Wait until nothing is being sent."""
        self._line.settle()
        self._wire.settle()

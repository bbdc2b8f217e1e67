"""Faults in force on the links of a simulated network: what they do to a message that is sent, or that arrives.

On a connection messages keep their order, whatever their latency. What is lost, doubled or overtaken are whole asks and
replies. Each fault draws from dice of its own, and for each link from its own: leaving one out changes nothing for
the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

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
from eventmesh.runtime.simulated.world import World

Life = tuple[str, int]  # a process's name and its life
Kind = TypeVar("Kind", bound=LinkFault)

#: Bytes that a row takes on a link, its envelope with it, and a message without rows.
ROW_BYTES, MESSAGE_BYTES = 235, 100
MS = 1_000


class OnLink:
    """One fault in force. ``named`` is what its dice are called; ``generator`` the process that this name means."""

    def __init__(self, struck: Struck, world: World, named: str, generator: str) -> None:
        fault = struck.fault
        assert isinstance(fault, LinkFault)
        self.fault: LinkFault = fault
        self.struck, self.world, self.named, self._generator = struck, world, named, generator
        self.held: list[Callable[[], None]] = []  # arrivals that wait for the end of a stall
        self.open: set[tuple[Life, Life]] = set()  # connections that a cut has not broken yet
        self._hits: dict[tuple[object, ...], bool] = {}
        self._free_at: dict[tuple[str, str], int] = {}

    def count(self, what: str) -> None:
        """It happened."""
        self.struck.shows[what] += 1

    def chance(self, link: str) -> float:
        """The next number of this link's dice."""
        return self.world.dice(f"{self.named} {link}").random()

    # --- who is hit -----------------------------------------------------------------------------

    def between(self, sender: str, to: str) -> bool:
        """Whether it is on the way from the one to the other."""
        return between(self.fault, sender, to, self._generator)

    def hits(self, *connection: object) -> bool:
        """Whether it hits a connection: drawn once for each, by its toxicity."""
        toxicity = getattr(self.fault, "toxicity", 1.0)
        if toxicity == 1.0:
            return True
        hit = self._hits.get(connection)
        if hit is None:
            hit = self._hits[connection] = self.world.draw(f"{self.named} hits {connection}") < toxicity
        return hit

    def hits_between(self, one: str, other: str) -> bool:
        """Whether it hits what connects two processes, in whichever life."""
        return self.hits(*sorted((one, other)))

    # --- what is done ---------------------------------------------------------------------------

    def cuts(self, one: Life, other: Life) -> bool:
        """Whether no connection between two lives stands any more, or can be made."""
        return self.hits_between(one[0], other[0]) and (one, other) not in self.open and (other, one) not in self.open

    def late(self, sender: str, to: str, rows: int) -> int:
        """Microseconds by which it delays a message."""
        fault = self.fault
        if isinstance(fault, Latency):
            jitter = fault.jitter_ms * (2 * self.chance(f"{sender} {to}") - 1) if fault.jitter_ms else 0.0
            return max(0, round((fault.latency_ms + jitter) * MS))
        assert isinstance(fault, Bandwidth)
        takes = round((MESSAGE_BYTES + rows * ROW_BYTES) * MS / fault.rate_kb_per_s)
        free_at = max(self.world.now, self._free_at.get((sender, to), 0)) + takes
        self._free_at[sender, to] = free_at
        return free_at - self.world.now


class Links:
    """The faults that are in force, in the order in which they began."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.active: list[OnLink] = []
        self.left_streams = False  # whether some topic has ever had a stream of its own
        self._on: dict[tuple[str, str], list[OnLink]] = {}

    def begin(self, fault: OnLink) -> None:
        """From now on."""
        self.active.append(fault)
        self._on = {}

    def end(self, fault: OnLink) -> None:
        """No more; what it held arrives now, in its order."""
        self.active.remove(fault)
        self._on = {}
        held, fault.held = fault.held, []
        for arrive in held:
            arrive()

    def _between(self, sender: str, to: str) -> list[OnLink]:
        found = self._on.get((sender, to))
        if found is None:
            found = self._on[sender, to] = [each for each in self.active if each.between(sender, to)]
        return found

    def of_whole(self, sender: str, to: str) -> Iterator[int]:
        """How many microseconds to wait before each copy of an ask or a reply is sent: one that is lost has none."""
        waits = [0]
        for each in self._between(sender, to):
            fault = each.fault
            if not isinstance(fault, Loss | Duplication | Reordering) or each.chance(f"{sender} {to}") >= fault.share:
                continue
            if isinstance(fault, Loss):
                each.count("messages lost")
                return iter(())
            low, high = (round(delay * MS) for delay in fault.delay_ms)
            wait = self.world.dice(f"{each.named} {sender} {to}").randint(low, high)
            if isinstance(fault, Duplication):
                each.count("messages doubled")
                waits.append(waits[0] + max(wait, 1))
            else:
                each.count("messages overtaken")
                waits = [before + wait for before in waits]
        return iter(waits)

    def delay(self, sender: tuple[str, int, int], to: Life, rows: int, stream: str) -> tuple[int, bool]:
        """By how many microseconds a message is late, and whether its topic has a stream of its own."""
        late, apart = 0, False
        for each in self._between(sender[0], to[0]):
            fault = each.fault
            if not isinstance(fault, Latency | Bandwidth) or not each.hits(*_connection(sender, to)):
                continue
            if isinstance(fault, Latency) and fault.topics:
                if stream not in fault.topics:
                    continue
                apart = self.left_streams = True
            late += each.late(sender[0], to[0], rows)
            each.count("messages delayed")
        return late, apart

    def stops(self, sender: tuple[str, int, int], to: Life, again: Callable[[], None]) -> bool:
        """Whether a message does not arrive now: it is lost, or arrives ``again`` when a stall is over."""
        for each in self._between(sender[0], to[0]):
            if isinstance(each.fault, Stall) and each.hits(*_connection(sender, to)):
                each.count("messages held")
                each.held.append(again)
                return True
            if isinstance(each.fault, Cut | Split) and each.hits_between(sender[0], to[0]):
                each.count("messages lost")
                return True
        return False

    def reaches(self, one: Life, other: Life) -> bool:
        """Whether no cut is between the two, or their connection has not broken yet."""
        there, back = self._between(one[0], other[0]), self._between(other[0], one[0])
        for each in dict.fromkeys([*there, *back]):
            if isinstance(each.fault, Cut | Split) and each.cuts(one, other):
                each.count("connections refused")
                return False
        return True


def _connection(sender: tuple[str, int, int], to: Life) -> tuple[object, ...]:
    """The two lives and the number of their connection, whichever of them sends."""
    return (*sorted((sender[:2], to)), sender[2])

"""Processes with inboxes, and the connections between them, on a virtual clock.

What is sent are messages, which can be looked at, held back and lost. Messages of one connection come in their order;
one to a process that has died is lost, and so is one of a connection that has broken. Work takes virtual time, so that
batches form under load.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from eventmesh.runtime.simulated.links import Links, OnLink
from eventmesh.runtime.simulated.world import World

#: Who sent a message: the process's name, its life, and the number of its connection to the receiver.
Origin = tuple[str, int, int]


@dataclass(frozen=True)
class Speeds:
    """Virtual microseconds. A message takes ``network`` (a range, drawn evenly), a step ``step`` plus ``row`` each."""

    network: tuple[int, int] = (100, 600)
    step: int = 150
    row: int = 4
    sync: int = 1_500
    restart: tuple[int, int] = (5_000, 300_000)
    notice: tuple[int, int] = (100, 20_000)


@dataclass(frozen=True, slots=True)
class Message:
    """What one life of a process sent to another; handling it costs as much as ``rows`` rows."""

    sender: Origin
    content: Any
    rows: int = 1


class Process(ABC):
    """What has an inbox and can be killed; its life number tells messages to an earlier life apart.

    A frozen process, as after SIGSTOP, does nothing and loses nothing. ``ahead`` is how many microseconds its clock is
    ahead of the world's.
    """

    def __init__(self, name: str, world: World, speeds: Speeds) -> None:
        self.name, self.world, self.speeds = name, world, speeds
        self.life = 0
        self.alive = self.frozen = False
        self.busy_until = self.ahead = 0
        #: Called once, when the next life begins.
        self.when_started: list[Callable[[], None]] = []
        self._inbox: deque[Message] = deque()
        self._deferred: list[Callable[[], None]] = []  # what fell due while it was frozen
        self._timer_at: int | None = None

    @property
    def identity(self) -> tuple[str, int]:
        """Its name and its life."""
        return self.name, self.life

    def begin_life(self) -> None:
        """It is started: nothing is left of the life before."""
        self.life, self.alive, self.frozen, self.busy_until = self.life + 1, True, False, self.world.now
        self._inbox.clear()
        self._deferred = []
        self._timer_at = None
        waiting, self.when_started = self.when_started, []
        for call in waiting:
            call()

    def end_life(self) -> None:
        """It is dead."""
        self.alive = False

    # --- messages -------------------------------------------------------------------------------

    @abstractmethod
    def take(self, message: Message) -> None:
        """Handle one message."""

    def receive(self, message: Message) -> None:
        """A message has come; it is handled when those before it are."""
        self._inbox.append(message)
        if len(self._inbox) == 1:
            self._work_later(max(self.world.now, self.busy_until))

    def _work_later(self, at: int) -> None:
        life = self.life
        self.world.at(at, lambda: self._work(life))

    def _work(self, life: int) -> None:
        """Handle the oldest message in the inbox; the process is then busy for a while."""
        if not self.alive or self.life != life or self.frozen:
            return
        message = self._inbox[0]
        self.busy_until = self.world.now + self.speeds.step + self.speeds.row * message.rows
        self.take(message)
        if self.life != life or not self.alive:
            return
        self._inbox.popleft()
        if self._inbox:
            self._work_later(self.busy_until)

    # --- time -----------------------------------------------------------------------------------

    def clock(self) -> int:
        """Microseconds since the Unix epoch, as this process sees them."""
        return self.world.now + self.ahead

    def jump(self, by: int) -> None:
        """Its clock jumps by so many microseconds; what it waits for comes sooner or later by that."""
        self.ahead += by
        self._timer_at = None
        if self.alive and not self.frozen:
            self.set_timer()

    def later(self, span: tuple[int, int] | int, action: Callable[[], None], dice: str = "") -> None:
        """Run ``action`` after a span, in this life only; one that is frozen then does it when it thaws."""
        life = self.life

        def act() -> None:
            if not self.alive or self.life != life:
                return
            if self.frozen:
                self._deferred.append(act)
            else:
                action()

        self.world.after(span, act, dice)

    @abstractmethod
    def next_deadline(self) -> int | None:
        """When :meth:`tick` wants to be called next, on its own clock."""

    @abstractmethod
    def tick(self) -> None:
        """Time has passed."""

    def set_timer(self) -> None:
        """See to it that :meth:`tick` is called when it is due."""
        deadline = self.next_deadline()
        if deadline is None:
            return
        at = deadline - self.ahead
        if self._timer_at is not None and self._timer_at <= at:
            return
        self._timer_at, life = at, self.life
        self.world.at(at, lambda: self._fire(life, at))

    def _fire(self, life: int, at: int) -> None:
        if not self.alive or self.frozen or self.life != life or self._timer_at != at:
            return
        self._timer_at = None
        self.tick()

    # --- freezing -------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Do nothing until :meth:`thaw`."""
        self.frozen = True

    @property
    def waiting(self) -> int:
        """Messages in its inbox."""
        return len(self._inbox)

    def thaw(self) -> None:
        """Go on with what has come meanwhile."""
        if not self.frozen:
            return
        self.frozen, self._timer_at = False, None
        deferred, self._deferred = self._deferred, []
        for act in deferred:
            self.world.at(self.world.now, act)
        if self.alive:
            if self._inbox:
                self._work_later(max(self.world.now, self.busy_until))
            self.set_timer()


class Network:
    """Carries messages between processes. ``links`` has the faults that are in force on it."""

    def __init__(self, world: World, speeds: Speeds) -> None:
        self.world, self.speeds = world, speeds
        self.links = Links(world)
        self._last_arrival: dict[tuple[str | int, ...], int] = {}
        self._breaks: dict[tuple[str, str], tuple[int, OnLink]] = {}  # how often a connection of the two has broken

    def connection(self, one: str, other: str) -> int:
        """The number of the connection between two processes: how many before it broke while both were alive."""
        if not self._breaks:
            return 0
        broken = self._breaks.get((one, other) if one < other else (other, one))
        return 0 if broken is None else broken[0]

    # --- sending and arriving -------------------------------------------------------------------

    def send(
        self, sender: Process, to: Process, content: Any, *,
        rows: int = 1, life: int | None = None, by: int | None = None, whole: bool = False, stream: str = "",
    ) -> None:  # fmt: skip
        """In order on the connection of these two lives (``life`` is the receiver's, as the sender knows it).

        ``by`` is the number of the connection that it goes by, where it cannot go by another. An ask or a reply is
        ``whole``: it can be lost, come twice, or late. ``stream`` is the topic that a delivery is of.
        """
        origin = (sender.name, sender.life, self.connection(sender.name, to.name) if by is None else by)
        message, life = Message(origin, content, rows), to.life if life is None else life
        if not self.links.active:
            self._carry(to, life, message, stream)
            return
        for wait in self.links.of_whole(sender.name, to.name) if whole else (0,):
            if wait:
                self.world.after(wait, partial(self._carry, to, life, message, stream))
            else:
                self._carry(to, life, message, stream)

    def _carry(self, to: Process, life: int, message: Message, stream: str) -> None:
        sender, sender_life, number = message.sender
        if self._breaks and self._is_broken(to, message):
            return
        arrival = self.world.now + self.world.dice(f"link {sender} {to.name}").randint(*self.speeds.network)
        connection: tuple[str | int, ...] = (sender, sender_life, to.name, life)
        if self.links.active or self.links.left_streams:
            late, apart = self.links.delay((sender, sender_life, number), (to.name, life), message.rows, stream)
            arrival = max(arrival + late, self._last_arrival.get((*connection, stream), 0))
            if apart:  # a stream of its own: later than what was sent before it, and in nobody's way
                self._last_arrival[(*connection, stream)] = arrival = max(
                    arrival, self._last_arrival.get(connection, 0)
                )
                self.world.at(arrival, lambda: self._arrive(to, life, message))
                return
        arrival = max(self._last_arrival.get(connection, 0), arrival)
        self._last_arrival[connection] = arrival
        self.world.at(arrival, lambda: self._arrive(to, life, message))

    def _arrive(self, to: Process, life: int, message: Message) -> None:
        if self._breaks and self._is_broken(to, message):
            return
        if self.links.active:
            again = partial(self._arrive, to, life, message)
            if self.links.stops(message.sender, (to.name, life), again):
                return
        if to.alive and to.life == life:
            to.receive(message)

    def tell(self, process: Process, content: Any, span: tuple[int, int], dice: str = "") -> None:
        """Let a process hear, within ``span``, what its own machine knows: that a connection broke, for instance."""
        life, message = process.life, Message(("", 0, 0), content, 0)

        def hear() -> None:
            if process.alive and process.life == life:
                process.receive(message)

        self.world.after(span, hear, dice or f"notice {process.name}")

    # --- connections that break -------------------------------------------------------------------

    def reaches(self, one: Process, other: Process) -> bool:
        """Whether there is a connection between the two, as far as they know, or one can be made."""
        return not self.links.active or self.links.reaches(one.identity, other.identity)

    def connected(self, one: Process, other: Process) -> bool:
        """Whether either has sent the other anything on a connection that stands."""
        there, back = (*one.identity, *other.identity), (*other.identity, *one.identity)
        return there in self._last_arrival or back in self._last_arrival

    def end_connection(self, one: Process, other: Process, because: OnLink) -> None:
        """It breaks, and what is under way on it is lost; the next one has the next number."""
        pair = (one.name, other.name) if one.name < other.name else (other.name, one.name)
        self._breaks[pair] = (self.connection(*pair) + 1, because)
        for way in ((*one.identity, *other.identity), (*other.identity, *one.identity)):
            self._last_arrival.pop(way, None)

    def _is_broken(self, to: Process, message: Message) -> bool:
        name, _, number = message.sender
        broken = self._breaks.get((name, to.name) if name < to.name else (to.name, name))
        if broken is None or broken[0] == number:
            return False
        broken[1].count("messages lost")
        return True

"""Processes with inboxes, and the connections between them, on a virtual clock.

What is sent are messages, which can be looked at, held back and lost. Messages of one connection come in their order;
one to a process that has died is lost. Work takes virtual time, so that batches form under load.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Any

from eventmesh.runtime.simulated.world import World


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

    sender: tuple[str, int]
    content: Any
    rows: int = 1


class Process(ABC):
    """What has an inbox and can be killed; its life number tells messages to an earlier life apart.

    A frozen process, as after SIGSTOP, does nothing and loses nothing.
    """

    def __init__(self, name: str, world: World, speeds: Speeds) -> None:
        self.name, self.world, self.speeds = name, world, speeds
        self.life = 0
        self.alive = self.frozen = False
        self.busy_until = 0
        self._inbox: deque[Message] = deque()
        self._timer_at: int | None = None

    @property
    def identity(self) -> tuple[str, int]:
        """Its name and its life."""
        return self.name, self.life

    def begin_life(self) -> None:
        """It is started: nothing is left of the life before."""
        self.life, self.alive, self.frozen, self.busy_until = self.life + 1, True, False, self.world.now
        self._inbox.clear()
        self._timer_at = None

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

    @abstractmethod
    def next_deadline(self) -> int | None:
        """When :meth:`tick` wants to be called next."""

    @abstractmethod
    def tick(self) -> None:
        """Time has passed."""

    def set_timer(self) -> None:
        """See to it that :meth:`tick` is called when it is due."""
        deadline = self.next_deadline()
        if deadline is None or (self._timer_at is not None and self._timer_at <= deadline):
            return
        self._timer_at, life = deadline, self.life
        self.world.at(deadline, lambda: self._fire(life, deadline))

    def _fire(self, life: int, deadline: int) -> None:
        if not self.alive or self.frozen or self.life != life or self._timer_at != deadline:
            return
        self._timer_at = None
        self.tick()

    # --- freezing -------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Do nothing until :meth:`thaw`."""
        self.frozen = True

    def thaw(self) -> None:
        """Go on with what has come meanwhile."""
        if not self.frozen:
            return
        self.frozen, self._timer_at = False, None
        if self.alive:
            if self._inbox:
                self._work_later(max(self.world.now, self.busy_until))
            self.set_timer()


class Network:
    """Carries messages between processes."""

    def __init__(self, world: World, speeds: Speeds) -> None:
        self.world, self.speeds = world, speeds
        self._last_arrival: dict[tuple[str, int, str, int], int] = {}

    def send(self, sender: Process, to: Process, content: Any, *, rows: int = 1, life: int | None = None) -> None:
        """In order on the connection of these two lives (``life`` is the receiver's, as the sender knows it)."""
        connection = (*sender.identity, to.name, to.life if life is None else life)
        takes = self.world.dice(f"link {sender.name} {to.name}").randint(*self.speeds.network)
        arrival = max(self._last_arrival.get(connection, 0), self.world.now + takes)
        self._last_arrival[connection] = arrival
        message = Message(sender.identity, content, rows)
        self.world.at(arrival, lambda: self._arrive(to, connection[3], message))

    def _arrive(self, to: Process, life: int, message: Message) -> None:
        if to.alive and to.life == life:
            to.receive(message)

    def tell(self, process: Process, content: Any, span: tuple[int, int]) -> None:
        """Let a process hear, within ``span``, what its own machine knows: that a connection broke, for instance."""
        life, message = process.life, Message(("", 0), content, 0)
        self.world.after(span, lambda: self._arrive(process, life, message), f"notice {process.name}")

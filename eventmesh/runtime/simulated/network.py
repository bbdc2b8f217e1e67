"""A virtual clock, processes, and the connections between them: the world that a simulation lives in.

Processes take messages in the order of each connection; a message to a process that died is lost. Work
takes virtual time, so that batches form under load. Every choice is drawn from the seed.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

START = 1_700_000_000_000_000  # the virtual clock's first microsecond


@dataclass(frozen=True)
class Speeds:
    """Virtual microseconds. A message takes ``network`` (a range, drawn evenly), a step ``step`` plus ``row`` each."""

    network: tuple[int, int] = (100, 600)
    step: int = 150
    row: int = 4
    sync: int = 1_500
    restart: tuple[int, int] = (5_000, 300_000)
    notice: tuple[int, int] = (100, 20_000)


class Deadlock(AssertionError):
    """The simulation ran out of time or of events before the run was done."""


@dataclass
class Process:
    """Anything that can be crashed: its life number tells messages of an earlier life apart."""

    name: str
    life: int = 0
    alive: bool = False
    busy_until: int = 0
    inbox: deque[tuple[Callable[[], None], int]] = field(default_factory=deque)
    timer_at: int | None = None


class Network:
    """Runs what is to happen, in order of virtual time."""

    def __init__(self, seed: int, speeds: Speeds) -> None:
        self.seed, self.speeds = seed, speeds
        self.random = random.Random(seed)
        self.now = START
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._last_delivery: dict[tuple[str, int, str, int], int] = {}

    def clock(self) -> int:
        """Virtual microseconds since the Unix epoch."""
        return self.now

    def at(self, time: int, action: Callable[[], None]) -> None:
        """Run ``action`` at ``time``; actions of one time run in the order they were asked for."""
        self._count += 1
        heapq.heappush(self._events, (max(time, self.now), self._count, action))

    def after(self, span: tuple[int, int] | int, action: Callable[[], None]) -> None:
        """Run ``action`` after a span, drawn evenly where it is a range."""
        self.at(self.now + (span if isinstance(span, int) else self.random.randint(*span)), action)

    def run_until(self, done: Callable[[], bool], *, seconds: float = 600.0) -> None:
        """Advance until ``done``; :class:`Deadlock` after ``seconds`` of virtual time."""
        deadline = self.now + int(seconds * 1e6)
        while not done():
            if not self._events or self._events[0][0] > deadline:
                raise Deadlock(f"seed {self.seed}: not done after {(self.now - START) / 1e6:.3f} s\n{self.describe()}")
            self.now, _, action = heapq.heappop(self._events)
            action()

    def describe(self) -> str:
        """Where everybody stands, for a run that did not end."""
        return f"{len(self._events)} events are still to come"

    def send(self, sender: Process, to: Process, action: Callable[[], None], *, rows: int = 1) -> None:
        """Deliver in order on the connection of these two lives; lost if the receiver died meanwhile."""
        lives = (sender.name, sender.life, to.name, to.life)
        arrival = max(self._last_delivery.get(lives, 0), self.now + self.random.randint(*self.speeds.network))
        self._last_delivery[lives] = arrival

        def deliver() -> None:
            if to.alive and to.life == lives[3]:
                to.inbox.append((action, rows))
                if len(to.inbox) == 1:
                    self.at(to.busy_until, lambda: self._work(to, to.life))

        self.at(arrival, deliver)

    def _work(self, process: Process, life: int) -> None:
        """Handle the oldest message in the inbox; the process is then busy for a while."""
        if not process.alive or process.life != life:
            return
        action, rows = process.inbox[0]
        process.busy_until = self.now + self.speeds.step + self.speeds.row * rows
        action()
        if process.life != life or not process.alive:
            return
        process.inbox.popleft()
        if process.inbox:
            self.at(process.busy_until, lambda: self._work(process, life))

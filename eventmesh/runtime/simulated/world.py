"""A virtual clock and dice: everything that happens in a simulation happens at a time of it, drawn from its seed."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

START = 1_700_000_000_000_000  # the virtual clock's first microsecond


class Deadlock(AssertionError):
    """The simulation ran out of time or of events before the run was done."""


class World:
    """Runs what is to happen, in order of virtual time.

    Each use of chance has dice of its own name: leaving one thing out leaves what the others draw as it was.
    """

    def __init__(self, seed: int, now: int = START) -> None:
        self.seed, self.began_at = seed, now
        self.now = now
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._dice: dict[str, random.Random] = {}

    def clock(self) -> int:
        """Virtual microseconds since the Unix epoch."""
        return self.now

    def dice(self, name: str) -> random.Random:
        """The dice of this name, the same ones each time."""
        found = self._dice.get(name)
        if found is None:
            found = self._dice[name] = random.Random(f"{self.seed} {name}")
        return found

    def draw(self, name: str) -> float:
        """A number from 0 to 1, the same one whenever it is asked for by this name."""
        return random.Random(f"{self.seed} {name}").random()

    def at(self, time: int, action: Callable[[], None]) -> None:
        """Run ``action`` at ``time``; actions of one time run in the order they were asked for."""
        self._count += 1
        heapq.heappush(self._events, (max(time, self.now), self._count, action))

    def after(self, span: tuple[int, int] | int, action: Callable[[], None], dice: str = "") -> None:
        """Run ``action`` after a span in microseconds, drawn evenly with the ``dice`` of that name if it is a range."""
        self.at(self.now + (span if isinstance(span, int) else self.dice(dice).randint(*span)), action)

    def run_until(self, done: Callable[[], bool], *, seconds: float = 600.0, describe: Callable[[], str] = str) -> None:
        """Advance until ``done``; :class:`Deadlock` after ``seconds`` of virtual time, with what ``describe`` says."""
        deadline = self.now + int(seconds * 1e6)
        while not done():
            if not self._events or self._events[0][0] > deadline:
                raise Deadlock(
                    f"seed {self.seed}: not done after {(self.now - self.began_at) / 1e6:.3f} s\n{describe()}"
                )
            self.now, _, action = heapq.heappop(self._events)
            action()

"""Whose turn it is: meshes that are compared are measured one after the other, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

#: Seconds from the start of a mesh to its audit, beside its loads, on two cores.
MESH_S = 10.0
Setting = TypeVar("Setting", bound=Hashable)


class Turns(Generic[Setting]):
    """Which mesh comes next: every scenario gets its turns undisturbed, as far as the time allows."""

    def __init__(
        self, grid: Sequence[Sequence[Setting]], repetitions: int, budget_s: float, clock: Callable[[], float]
    ) -> None:
        self.grid, self.wanted, self.clock = grid, repetitions, clock
        self.planned = sum(len(group) for group in grid) * repetitions
        self.deadline = clock() + budget_s
        self._seconds: dict[Setting, float] = {}
        self._quiet = [0] * len(grid)  # undisturbed turns of each scenario
        self._begun = clock()
        self._disturbed = False

    def __iter__(self) -> Iterator[tuple[int, Setting]]:
        turn = 0
        while lacking := [place for place, quiet in enumerate(self._quiet) if quiet < self.wanted]:
            for place in lacking:
                self._disturbed = False
                # Backwards every other time: what changes steadily with time then favours nobody.
                group = self.grid[place][:: -1 if turn % 2 else 1]
                for number, setting in enumerate(group):
                    if not self._fits(group[number:]):
                        return
                    self._begun = self.clock()
                    yield turn, setting
                self._quiet[place] += not self._disturbed
            turn += 1

    def took(self, setting: Setting, *, disturbed: bool) -> None:
        """The mesh that came last is done."""
        self._seconds[setting] = self.clock() - self._begun
        self._disturbed |= disturbed

    def _fits(self, group: Sequence[Setting]) -> bool:
        """Whether these would be done in time: a pair of which one is missing was measured for nothing."""
        slowest = max(self._seconds.values(), default=0.0)
        expected = sum(self._seconds.get(setting, slowest) for setting in group)
        return self.clock() + expected <= self.deadline

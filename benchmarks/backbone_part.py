"""What every part of the benchmark ``backbone`` is: settings that know how to measure, and beside which peers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from benchmarks.benchmark import Part


@dataclass(frozen=True)
class Sample:
    """One repetition's value of one figure, and the figure's target; ``told`` says it in words."""

    figure: str
    value: float
    unit: str
    target: str | None = None

    @property
    def told(self) -> str:
        """On one line of the terminal."""
        return f"{self.figure}: {self.value:,.3g} {self.unit}" if self.value < 100 else (
            f"{self.figure}: {self.value:,.0f} {self.unit}"
        )  # fmt: skip


Samples = Generator[Sample, None, None]


class BackbonePart(Part, ABC):
    """A part of the file. ``peers`` are the modules that do the same work, by name; ``once`` parts are not repeated."""

    peers: ClassVar[Mapping[str, ModuleType]] = {}
    once: ClassVar[bool] = False

    @abstractmethod
    def describe(self) -> list[str]:
        """What is measured in one repetition, a line each."""

    @abstractmethod
    def measured(self, folder: Path, number: int) -> Samples:
        """Repetition ``number``: us first, then each peer that is installed."""

    def installed(self) -> Iterator[ModuleType]:
        """The peers that can be measured here."""
        return (peer for peer in self.peers.values() if peer.missing() is None)


def missing(peers: Mapping[str, ModuleType]) -> list[str]:
    """A line for each peer that cannot be measured here."""
    problems = {name: peer.missing() for name, peer in peers.items()}
    return [f"{name} is not measured: {problem}" for name, problem in problems.items() if problem is not None]

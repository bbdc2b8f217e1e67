"""Joins by local view and by remote query under rising load: how much does each hold, and at what price?

Each way starts its own mesh and takes the steps of load upwards until one saturates; every mesh is audited
over all its steps.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from benchmarks import load_steps
from benchmarks.benchmark import Part, Say, Settings, begin, label, recorded
from benchmarks.load_steps import LoadSettings, Runtime, Subject
from eventmesh import mesh as meshes
from eventmesh.lab import record
from eventmesh.lab.progress_bar import Report
from eventmesh.mesh import Mesh

JOINED: dict[int, list[str]] = {1: ["customers"], 3: ["customers", "prices", "stock"]}


class Way(Part):
    """A mesh and how its orders joins."""

    mesh: Literal["views", "hybrid", "request"]
    join: Literal["view", "per_order", "pipelined", "batched"]

    def __str__(self) -> str:
        return f"{self.mesh}/{self.join}"


class JoinScalingSettings(LoadSettings):
    """A benchmark file of this question."""

    ways: list[Way] = Field(min_length=1)
    joined_services: list[Literal[1, 3]] = Field(min_length=1)
    rtt_ms: list[float] = Field(min_length=1)


@dataclass(frozen=True)
class Setting:
    """One mesh of the sweep."""

    way: Way
    joined_services: int
    rtt_ms: float

    def subject(self, folder: Path) -> Subject:
        """Its mesh, from the mesh files of ``folder``, and where it stands on the axes."""
        axis = {"joined_services": self.joined_services, "rtt_ms": self.rtt_ms}
        return Subject(self._mesh(folder), self.way.join, self.rtt_ms, axis)

    def _mesh(self, folder: Path) -> Mesh:
        document = meshes.load(folder / f"{self.way.mesh}.yaml").resolved()
        orders = document["services"]["orders"]
        orders["joins"] = JOINED[self.joined_services]
        orders["batched"] = self.way.join == "batched"
        orders["views"] = {name: topics for name, topics in orders["views"].items() if name in orders["joins"]}
        return meshes.parse(document)

    def __str__(self) -> str:
        return f"{self.way}, {self.joined_services} joined, rtt {self.rtt_ms:g} ms"


class JoinScaling:
    """The sweep."""

    settings_type: ClassVar[type[Settings]] = JoinScalingSettings

    def __init__(
        self, settings: JoinScalingSettings, *, quick: bool, meshes: Path, runtime: Runtime = load_steps.on_ray
    ) -> None:
        self.settings, self.meshes, self.runtime = settings, meshes, runtime
        self.name = label(settings, quick=quick)

    def grid(self) -> list[Setting]:
        """Every mesh of one repetition; all ways of one setting stand beside each other."""
        axes = product(self.settings.rtt_ms, self.settings.joined_services, self.settings.ways)
        return [Setting(way, joined, rtt) for rtt, joined, way in axes]

    def describe(self) -> list[str]:
        """One line per mesh."""
        loads = ", ".join(f"{load:g}" for load in self.settings.offered_per_s)
        return [f"{setting}: {loads} orders/s x {self.settings.repetitions}" for setting in self.grid()]

    def run(self, folder: Path, *, seed: int, report: Report, say: Say) -> record.Run:
        """Measure every mesh of the grid."""
        durability = self.grid()[0].subject(self.meshes).mesh.log.durability
        begun = begin(self.name, self.settings, seed=seed, durability=durability, warmup_s=self.settings.warmup_s)
        measuring = self._measured(folder, seed, report)
        return recorded(folder, begun, measuring, say=say, line=load_steps.line, conclude=_conclusion)

    def _measured(self, folder: Path, seed: int, report: Report) -> Generator[record.Repetition, None, None]:
        settings = self.settings
        grid = self.grid()
        with self.runtime() as put_under_load:
            for number in range(settings.repetitions):  # interleaved: a slow minute hits every way
                for place, setting in enumerate(grid):
                    report("meshes", number * len(grid) + place, settings.repetitions * len(grid))
                    yield from load_steps.climb(
                        put_under_load, setting.subject(self.meshes), settings.offered_per_s, settings, folder,
                        seed=seed + number, repetition=number,
                    )  # fmt: skip


def _conclusion(repetitions: list[record.Repetition]) -> dict[str, Any]:
    points = load_steps.points(repetitions)
    return {
        "points": points,
        "verdict": record.worst(point.audit.verdict for point in points),
        "figures": [load_steps.little(repetitions)],
    }

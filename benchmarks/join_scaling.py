"""Joins by local view and by remote query under rising load: how much does each hold, and at what price?

Each way starts its own mesh and takes the steps of load upwards until one saturates; every mesh is audited
over all its steps. The ways of a scenario take turns, forwards and backwards, and a turn in which anything was
disturbed is made up for by another, within the time there is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from benchmarks import load_steps
from benchmarks.benchmark import Part, Say, Settings, begin, label, recorded
from benchmarks.load_steps import LoadSettings, Runtime, Subject
from benchmarks.turns import MESH_S, Turns
from eventmesh import mesh as meshes
from eventmesh.mesh import Mesh
from eventmesh.report import record
from eventmesh.report.progress_bar import Report

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
    #: No mesh is started that would not be done by then, however few turns there were; Ray's own start counts.
    time_budget_s: float = Field(gt=0)
    #: Too short to search for capacities: conclusions are drawn at the loads that it offers, and nowhere else.
    first_look: record.FirstLook | None = None


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
        self,
        settings: JoinScalingSettings,
        *,
        quick: bool,
        meshes: Path,
        runtime: Runtime = load_steps.on_ray,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.meshes, self.runtime, self.clock = settings, meshes, runtime, clock
        self.name = label(settings, quick=quick)

    def grid(self) -> list[list[Setting]]:
        """Every mesh of one turn: the scenarios, and in each of them the ways that are compared."""
        settings = self.settings
        return [
            [Setting(way, joined, rtt) for way in settings.ways]
            for rtt, joined in product(settings.rtt_ms, settings.joined_services)
        ]

    def describe(self) -> list[str]:
        """One line per mesh, and how long it takes."""
        settings = self.settings
        loads = ", ".join(f"{load:g}" for load in settings.offered_per_s)
        lines = [f"{each}: {loads} orders/s x {settings.repetitions}" for group in self.grid() for each in group]
        return [*lines, f"about {self.minutes():.0f} minutes, at most {settings.time_budget_s / 60:.0f}"]

    def minutes(self) -> float:
        """About how long it takes, if every way holds every load and nothing is disturbed."""
        settings = self.settings
        mesh = MESH_S + len(settings.offered_per_s) * (settings.warmup_s + settings.window_s)
        return sum(len(group) for group in self.grid()) * settings.repetitions * mesh / 60

    def run(self, folder: Path, *, seed: int, report: Report, say: Say) -> record.Run:
        """Measure every mesh of the grid."""
        settings = self.settings
        durability = self.grid()[0][0].subject(self.meshes).mesh.log.durability
        begun = begin(
            self.name, settings, seed=seed, durability=durability, warmup_s=settings.warmup_s,
            first_look=settings.first_look,
        )  # fmt: skip
        measuring = self._measured(folder, seed, report)
        return recorded(folder, begun, measuring, say=say, line=load_steps.line, conclude=_conclusion)

    def _measured(self, folder: Path, seed: int, report: Report) -> Generator[record.Repetition, None, None]:
        turns = Turns(self.grid(), self.settings.repetitions, self.settings.time_budget_s, self.clock)
        with self.runtime() as put_under_load:
            for done, (turn, setting) in enumerate(turns):
                report("meshes", done, max(turns.planned, done + 1))
                measured = list(
                    load_steps.climb(
                        put_under_load, setting.subject(self.meshes), self.settings.offered_per_s, self.settings,
                        folder, seed=seed + turn, repetition=turn,
                    )
                )  # fmt: skip
                turns.took(setting, disturbed=any(each.disturbed for each in measured))
                yield from measured


def _conclusion(repetitions: list[record.Repetition]) -> dict[str, Any]:
    points = load_steps.points(repetitions)
    return {
        "points": points,
        "verdict": record.worst(point.audit.verdict for point in points),
        "figures": [load_steps.little(repetitions)],
    }

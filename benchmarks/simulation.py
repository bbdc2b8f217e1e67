"""How fast the simulated runtime is: whole histories per minute, processes dying in each, and every one audited.

No Ray: seeds are independent of each other, and each process takes the next one. A seed names one exact history, so a
seed that an audit finds invalid can be run again; its number stands before what was found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from benchmarks.benchmark import Say, Settings, begin, label, recorded
from eventmesh import mesh as meshes
from eventmesh.lab.run import count_outcomes
from eventmesh.lab.simulated_run import Crashes, run_simulated
from eventmesh.mesh import Mesh
from eventmesh.report import measure, record
from eventmesh.report.progress_bar import Report
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history

MINUTE_S = 60.0


class SimulationSettings(Settings):
    """A benchmark file of this question. ``target`` is a threshold on the seeds per minute, audit included."""

    mesh: str
    orders: int = Field(ge=1)
    rate: float = Field(gt=0)  # orders per second of virtual time
    products: int = Field(ge=1)
    crashes: int = Field(ge=0)
    seeds: int = Field(ge=1)
    processes: int = Field(ge=1)
    target: str


@dataclass(frozen=True)
class Seed:
    """One history: seconds that running and auditing it took, and what became of its orders."""

    number: int
    repetition: int
    begun_s: float  # on the machine's monotonic clock, which all processes share
    run_s: float
    audit_s: float
    crashes: int
    outcomes: dict[str, int]
    audit: record.AuditRecord


class SimulatedSeeds:
    """Seeds one after the other, in repetitions of as many as the settings say."""

    settings_type: ClassVar[type[Settings]] = SimulationSettings

    def __init__(self, settings: SimulationSettings, *, quick: bool, meshes: Path) -> None:
        self.settings, self.meshes, self.name = settings, meshes, label(settings, quick=quick)

    def describe(self) -> list[str]:
        """The one thing that is repeated."""
        each = self.settings
        return [
            f"{each.mesh}: {each.seeds} seeds of {each.orders} orders, {each.crashes} deaths each, "
            f"{each.processes} processes x {each.repetitions}"
        ]

    def run(self, folder: Path, *, seed: int, report: Report, say: Say) -> record.Run:
        """Simulate and audit every seed, counted from ``seed``."""
        mesh = meshes.load(self.meshes / f"{self.settings.mesh}.yaml")
        begun = begin(self.name, self.settings, seed=seed, durability=mesh.log.durability)
        faults = [{"kind": "kill", "of": "a process drawn from the seed", "per seed": self.settings.crashes}]
        begun = begun.model_copy(update={"faults": faults if self.settings.crashes else []})
        measuring = self._measured(mesh, seed, report)
        return recorded(folder, begun, measuring, say=say, line=_line, conclude=self._conclusion)

    def _measured(self, mesh: Mesh, seed: int, report: Report) -> Generator[Seed, None, None]:
        settings = self.settings
        total = settings.repetitions * settings.seeds
        with _mapping(settings.processes) as mapped:
            for number in range(settings.repetitions):
                first = seed + number * settings.seeds
                simulate = partial(simulated, settings, mesh, number)
                for place, each in enumerate(mapped(simulate, range(first, first + settings.seeds))):
                    yield each
                    report("seeds", number * settings.seeds + place + 1, total)

    def _conclusion(self, seeds: list[Seed]) -> dict[str, Any]:
        audit = record.AuditRecord.together([each.audit for each in seeds])
        outcomes = {name for each in seeds for name in each.outcomes}
        return {
            "audit": audit,
            "verdict": audit.verdict,
            "outcomes": {
                "seeds": len(seeds),
                "crashes": sum(each.crashes for each in seeds),
                **{name: sum(each.outcomes.get(name, 0) for each in seeds) for name in sorted(outcomes)},
            },
            "figures": [] if audit.verdict == "invalid" else self._figures(seeds),
        }

    def _figures(self, seeds: list[Seed]) -> list[record.Figure]:
        size, samples = f"seeds/min of {self.settings.orders} orders", self._samples(seeds)
        whole, alone = [_per_minute(each) for each in samples], [_unaudited(each) for each in samples]
        return [
            measure.figure(f"{size}, audit included", whole, "seeds/min", target=self.settings.target),
            measure.figure(f"{size}, one process, without the audit", alone, "seeds/min"),
        ]

    def _samples(self, seeds: list[Seed]) -> list[list[Seed]]:
        """The seeds of each repetition."""
        repetitions = [[each for each in seeds if each.repetition == n] for n in range(self.settings.repetitions)]
        return [members for members in repetitions if members]


def _per_minute(members: list[Seed]) -> float:
    """Seeds by the time from the first one's beginning to the last one's end."""
    ended = max(each.begun_s + each.run_s + each.audit_s for each in members)
    return len(members) * MINUTE_S / (ended - min(each.begun_s for each in members))


def _unaudited(members: list[Seed]) -> float:
    """What one process would simulate, if nobody audited."""
    return len(members) * MINUTE_S / sum(each.run_s for each in members)


@contextmanager
def _mapping(processes: int) -> Iterator[Callable[..., Iterator[Seed]]]:
    """``map``, over so many processes."""
    if processes == 1:
        yield map
        return
    # Spawned, not forked: the libraries' own threads do not survive a fork.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(_start, range(processes)))  # starting is not measured
        yield pool.map


def _start(process: int) -> int:
    """A process that has answered has imported everything."""
    return process


def simulated(settings: SimulationSettings, mesh: Mesh, repetition: int, number: int) -> Seed:
    """Run and audit one seed."""
    begun = time.monotonic()
    workload = of_history(generate(settings.orders, seed=number, products=settings.products), rate=settings.rate)
    done = run_simulated(mesh, workload, seed=number, faults=Crashes(settings.crashes).drawn(mesh, number))
    ran = time.monotonic()
    audit = record.AuditRecord.of(done.audit())
    ended = time.monotonic()
    return Seed(
        number, repetition, begun, ran - begun, ended - ran, done.simulation.deaths,
        count_outcomes(done.history.callers), _naming(number, audit),
    )  # fmt: skip


def _naming(seed: int, audit: record.AuditRecord) -> record.AuditRecord:
    """The audit with the seed before each thing that was found."""
    checks = {
        name: check.model_copy(update={"examples": [f"seed {seed}: {example}" for example in check.examples]})
        for name, check in audit.checks.items()
    }
    return audit.model_copy(update={"checks": checks})


def _line(each: Seed) -> str:
    ended = ", ".join(f"{count} {outcome}" for outcome, count in sorted(each.outcomes.items()))
    return (
        f"seed {each.number}: run {each.run_s:.2f} s, audit {each.audit_s:.2f} s, {each.crashes} crashes, {ended}, "
        f"audit {each.audit.verdict}"
    )

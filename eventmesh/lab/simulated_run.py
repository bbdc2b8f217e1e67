"""One run on the simulated runtime: seed, load, crashes drawn from the seed, drain, audit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from eventmesh.audit.audit import Audit, audit
from eventmesh.history import History
from eventmesh.log.store import LogReader
from eventmesh.mesh import Mesh
from eventmesh.report.measure import SECOND
from eventmesh.runtime.faults import (
    BROKER,
    GENERATOR,
    AtTime,
    Kill,
    LostUnsynced,
    Planned,
    Struck,
    process_names,
)
from eventmesh.runtime.limits import Limits
from eventmesh.runtime.simulated.network import Speeds
from eventmesh.runtime.simulated.simulation import Simulation
from eventmesh.workload import Workload

#: Microseconds between two crashes.
BETWEEN_CRASHES = (1_000, 60_000)


@dataclass(frozen=True)
class Crashes:
    """How many processes are killed, at times drawn from the seed, and whether machines die too."""

    count: int = 0
    broker_share: float = 0.25
    machine_share: float = 0.0  # of the broker's deaths, those that take the machine along
    caller_share: float = 0.0  # the newest caller's deaths; it goes on from its journal

    def drawn(self, mesh: Mesh, seed: int) -> list[Planned]:
        """The deaths of this seed. One that falls on who is down already does nothing."""
        dice, at = random.Random(f"crashes of {seed}"), 0
        hosts = [name for name in process_names(mesh) if name != BROKER]
        plan = []
        for _ in range(self.count):
            at += dice.randint(*BETWEEN_CRASHES)
            plan.append(Planned(moment=AtTime(seconds=at / SECOND), fault=self._drawn(dice, hosts)))
        return plan

    def _drawn(self, dice: random.Random, hosts: list[str]) -> Kill | LostUnsynced:
        if self.caller_share and dice.random() < self.caller_share:
            return Kill(process=GENERATOR)
        if dice.random() < self.broker_share:
            return LostUnsynced() if dice.random() < self.machine_share else Kill(process=BROKER)
        return Kill(process=dice.choice(hosts))


@dataclass(frozen=True)
class SimulatedRun:
    """A finished run and what it left; ``struck`` are the faults of its load, in the order in which they came."""

    simulation: Simulation
    history: History
    reader: LogReader
    struck: Sequence[Struck] = ()

    def audit(self) -> Audit:
        """Hold the run against every check of the framework and of its application."""
        return audit(self.simulation.mesh, self.reader, self.history)


def run_simulated(
    mesh: Mesh,
    workload: Workload,
    *,
    seed: int,
    faults: Iterable[Planned] = (),
    while_seeding: Iterable[Planned] = (),
    speeds: Speeds | None = None,
    limits: Limits | None = None,
    build: Callable[..., Simulation] = Simulation,
    seconds: float = 600.0,
) -> SimulatedRun:
    """Seed, load with faults, drain. Raises :class:`~eventmesh.runtime.simulated.world.Deadlock` with the seed."""
    simulation = build(mesh, seed=seed, speeds=speeds, limits=limits)
    simulation.arrange(while_seeding)
    for number, stage in enumerate(workload.seeding):
        simulation.call(f"seeding-{number}", stage)
    simulation.drain(seconds=seconds)
    struck = simulation.arrange(faults, callers=["load"])
    simulation.call("load", workload.load, window=workload.window)
    simulation.drain(seconds=seconds)
    # A scenario may have put in any rule and any input: whether there was poison, only it can say.
    history = replace(simulation.history(["load"]), poison=None)
    return SimulatedRun(simulation, history, LogReader.of(simulation.storage), struck)

"""One run on the simulated runtime: seed, load, crashes drawn from the seed, drain, audit."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from eventmesh.audit.audit import Audit, audit
from eventmesh.history import History
from eventmesh.log.store import LogReader
from eventmesh.mesh import Mesh
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

    def schedule(self, simulation: Simulation, seed: int) -> None:
        """Arrange the crashes from now on."""
        dice = random.Random(f"crashes of {seed}")
        left = self.count

        def crash() -> None:
            nonlocal left
            left -= 1
            if self.caller_share and dice.random() < self.caller_share:
                simulation.kill(list(simulation.clients.values())[-1])
            elif dice.random() < self.broker_share:
                simulation.kill_broker(machine=dice.random() < self.machine_share)
            else:
                simulation.kill(dice.choice(list(simulation.hosts.values())))
            again()

        def again() -> None:
            if left > 0:
                simulation.world.after(dice.randint(*BETWEEN_CRASHES), crash)

        again()


@dataclass(frozen=True)
class SimulatedRun:
    """A finished run and what it left."""

    simulation: Simulation
    history: History
    reader: LogReader

    def audit(self) -> Audit:
        """Hold the run against every check of the framework and of its application."""
        return audit(self.simulation.mesh, self.reader, self.history)


def run_simulated(
    mesh: Mesh,
    workload: Workload,
    *,
    seed: int,
    crashes: Crashes | None = None,
    speeds: Speeds | None = None,
    limits: Limits | None = None,
    build: Callable[..., Simulation] = Simulation,
    seconds: float = 600.0,
) -> SimulatedRun:
    """Seed, load with crashes, drain. Raises :class:`~eventmesh.runtime.simulated.world.Deadlock` with the seed."""
    simulation = build(mesh, seed=seed, speeds=speeds, limits=limits)
    for number, stage in enumerate(workload.seeding):
        simulation.call(f"seeding-{number}", stage)
    simulation.drain(seconds=seconds)
    (crashes or Crashes()).schedule(simulation, seed)
    simulation.call("load", workload.load, window=workload.window)
    simulation.drain(seconds=seconds)
    # A scenario may have put in any rule and any input: whether there was poison, only it can say.
    history = replace(simulation.history(["load"]), poison=None)
    return SimulatedRun(simulation, history, LogReader.of(simulation.storage))

"""A mesh of the shop, its orders, and what goes wrong: with a seed, a scenario is one exact history."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import pytest

from eventmesh import mesh
from eventmesh.lab.audit import Audit
from eventmesh.lab.simulated_run import Crashes, SimulatedRun, run_simulated
from eventmesh.log.simulated_storage import SimulatedStorage
from eventmesh.mesh import Mesh
from eventmesh.runtime.caller import Workload
from eventmesh.runtime.contract import Limits
from eventmesh.runtime.simulated import Simulation, Speeds
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workload import of_history

MESHES = Path(__file__).parents[2] / "configs" / "meshes"
WIRINGS = ("views", "hybrid", "request")
#: A network in which a message may overtake another connection's by far, and processes that are back sooner than that.
SLOW_NETWORK = Speeds(network=(100, 15_000), restart=(1_000, 40_000))
#: Askers that give up while the other side is still starting.
IMPATIENT = Limits(attempt_timeout=15_000, backoff=1_000, backoff_max=8_000, refold_delay=5_000)


@lru_cache
def shop(wiring: str, durability: str, decline_permille: int) -> Mesh:
    """The shop's mesh of that name, at another level and with declined payments."""
    document = mesh.load(MESHES / f"{wiring}.yaml").resolved()
    document["log"]["durability"] = durability
    document["services"]["payments"]["decline_permille"] = decline_permille
    return mesh.parse(document)


@dataclass(frozen=True)
class DiskFaults:
    """How often the disk fails, at times drawn from the seed: no room for a while, a failed sync, a torn write."""

    full: int = 0
    failed_syncs: int = 0
    torn_writes: int = 0

    def schedule(self, simulation: Simulation, seed: int) -> None:
        """Arrange them from now on; a disk is whole again when the log is opened again."""
        disk, dice = simulation.storage, random.Random(f"disk of {seed}")
        assert isinstance(disk, SimulatedStorage)

        def room(full: bool) -> None:
            disk.full = full and simulation.broker.alive

        def fail() -> None:
            disk.fail_sync = simulation.broker.alive

        def tear() -> None:
            disk.die_after = dice.randrange(1, 20_000) if simulation.broker.alive else None

        for _ in range(self.full):
            at = simulation.now + dice.randrange(1_000, 100_000)
            simulation.at(at, lambda: room(True))
            simulation.at(at + dice.randrange(1_000, 30_000), lambda: room(False))
        for _ in range(self.failed_syncs):
            simulation.at(simulation.now + dice.randrange(1_000, 200_000), fail)
        for _ in range(self.torn_writes):
            simulation.at(simulation.now + dice.randrange(1_000, 200_000), tear)


class Shop(Simulation):
    """The simulation, with a disk that somebody mends before the log is opened again."""

    def start_broker(self) -> None:
        """Open the log on a mended disk."""
        if isinstance(self.storage, SimulatedStorage):
            self.storage.full = self.storage.fail_sync = False
        super().start_broker()


@dataclass(frozen=True)
class Scenario:
    """What is run: ``orders`` arrive at ``rate`` per second, a seventh of them is cancelled, a fifth is of guests."""

    wiring: str = "views"
    durability: str = "os"
    orders: int = 30
    rate: float = 400.0
    stock_fraction: float = 1.0
    decline_permille: int = 50
    products: int = 30
    cancel_permille: int = 150
    crashes: Crashes = field(default_factory=Crashes)
    disk: DiskFaults = field(default_factory=DiskFaults)
    speeds: Speeds | None = None
    limits: Limits | None = None
    build: type[Simulation] = Shop
    seconds: float = 120.0

    @property
    def mesh(self) -> Mesh:
        """The mesh that is run."""
        return shop(self.wiring, self.durability, self.decline_permille)

    def workload(self, seed: int) -> Workload:
        """The same orders whatever the wiring and whatever goes wrong."""
        history = generate(
            self.orders, seed=seed, products=self.products, customers=20, cancel_permille=self.cancel_permille,
            guest_permille=200, return_permille=50, cancel_after_s_mean=0.02,
        )  # fmt: skip
        return of_history(history, rate=self.rate, stock_fraction=self.stock_fraction)

    def run(self, seed: int) -> SimulatedRun:
        """The run of this seed, drained."""

        def build(*arguments: object, **settings: object) -> Simulation:
            simulation = self.build(*arguments, **settings)  # type: ignore[arg-type]
            if self.disk != DiskFaults():
                self.disk.schedule(simulation, seed)
            return simulation

        return run_simulated(
            self.mesh, self.workload(seed), seed=seed, crashes=self.crashes, speeds=self.speeds, limits=self.limits,
            build=build, seconds=self.seconds,
        )  # fmt: skip

    def audit(self, seed: int) -> Audit:
        """The audit of the run of this seed."""
        return self.run(seed).audit()


def drawn(wiring: str, durability: str, seed: int) -> Scenario:
    """A scenario drawn from the seed: how many die, how scarce the stock is, how slow the network, how patient the askers."""
    dice = random.Random(f"scenario {seed}")
    machines = 0.5 if durability == "fsync" else 0.0
    return Scenario(
        wiring,
        durability,
        orders=dice.randint(15, 35),
        rate=dice.choice((200.0, 500.0, 2_000.0)),
        stock_fraction=dice.choice((1.0, 0.6)),
        crashes=Crashes(dice.randint(4, 14), broker_share=dice.choice((0.1, 0.4)), machine_share=machines),
        disk=DiskFaults(dice.randint(0, 1), dice.randint(0, 2), dice.randint(0, 2)),
        speeds=dice.choice((None, SLOW_NETWORK)),
        limits=dice.choice((None, IMPATIENT)),
    )


def assert_valid(scenario: Scenario, seed: int) -> None:
    """Run and audit; a failure says everything that is needed to see it again."""
    try:
        audit = scenario.audit(seed)
    except Exception as error:
        pytest.fail(f"seed {seed} of {scenario}: {type(error).__name__}: {error}")
    if audit.verdict != "valid":
        pytest.fail(f"seed {seed} of {scenario}:\n{audit.describe()}")


__all__ = ["IMPATIENT", "SLOW_NETWORK", "WIRINGS", "DiskFaults", "Scenario", "Shop", "assert_valid", "drawn", "replace"]

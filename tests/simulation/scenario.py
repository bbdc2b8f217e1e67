"""A mesh of the shop, its orders, and what goes wrong: with a seed, a scenario is one exact history."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from eventmesh import mesh
from eventmesh.audit.audit import Audit, audit
from eventmesh.lab.simulated_run import Crashes, SimulatedRun, run_simulated
from eventmesh.mesh import Mesh
from eventmesh.runtime.faults import (
    BROKER,
    OTHERS,
    AtTime,
    Cut,
    Duplication,
    FailingSyncs,
    Fault,
    Freeze,
    FullDisk,
    Latency,
    Loss,
    Planned,
    Reordering,
    Reset,
    Split,
    Stall,
    TornWrite,
    WithinTime,
    process_names,
)
from eventmesh.runtime.limits import Limits
from eventmesh.runtime.simulated.network import Speeds
from eventmesh.runtime.simulated.simulation import Simulation
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from eventmesh.workload import Workload

MESHES = Path(__file__).parents[2] / "configs" / "meshes"
WIRINGS = ("views", "hybrid", "request")
#: A network in which a message may overtake another connection's by far, and processes that are back sooner than that.
SLOW_NETWORK = Speeds(network=(100, 15_000), restart=(1_000, 40_000))
#: Askers that give up while the other side is still starting.
IMPATIENT = Limits(attempt_timeout=15_000, backoff=1_000, backoff_max=8_000, refold_delay=5_000)


@lru_cache
def shop(
    wiring: str, durability: str, decline_permille: int, restocks: bool, instances: int = 1,
    snapshot_rows: int | None = None, retention_ms: int | None = None,
) -> Mesh:  # fmt: skip
    """The shop's mesh of that name, at another level, with declined payments, and with stock that is bought again.

    ``instances`` is how many processes share the partitions of each service that has several. With ``retention_ms``
    segments are small, and facts are kept no longer than that (-1: for ever) once nobody needs them.
    """
    document = mesh.load(MESHES / f"{wiring}.yaml").resolved()
    document["log"] |= {"durability": durability, "snapshot_rows": snapshot_rows}
    for topic in document["topics"].values() if retention_ms is not None else ():
        topic |= {"segment.bytes": 2_000, "retention.ms": retention_ms}
    services = document["services"]
    services["payments"]["decline_permille"] = decline_permille
    for name, topic in ((topic["owner"], topic) for topic in document["topics"].values()):
        if name in services:
            services[name]["instances"] = min(instances, topic["partitions"])
    if restocks:
        services["inventory"]["restock"] = {"below": 8, "quantity": 5}
        services["orders"]["commands_restock"] = wiring == "request"
    return mesh.parse(document)


@dataclass(frozen=True)
class DiskFaults:
    """How often the disk fails: no room or no sync for a while, a torn write.

    It fails ``within`` so many seconds of the load, for as long as ``lasts`` says, in seconds as well.
    """

    full: int = 0
    failed_syncs: int = 0
    torn_writes: int = 0
    within: float = 0.2
    lasts: tuple[float, float] = (0.001, 0.03)

    def drawn(self, seed: int) -> list[Planned]:
        """Those of this seed."""
        dice = random.Random(f"disk of {seed}")
        moment = WithinTime(seconds=(0.001, self.within))
        faults: list[Fault] = [FullDisk(lasts_s=dice.uniform(*self.lasts)) for _ in range(self.full)]
        faults += [FailingSyncs(lasts_s=dice.uniform(*self.lasts)) for _ in range(self.failed_syncs)]
        faults += [TornWrite(after_bytes=dice.randrange(1, 20_000)) for _ in range(self.torn_writes)]
        return [Planned(moment=moment, fault=fault) for fault in faults]


Shop = Simulation
#: Faults of links by mesh and seed, from the beginning of the load to its end.
LinkFaults = Callable[[Mesh, int], list[Planned]]
AT_ONCE = AtTime(seconds=0)
TO_THE_END_S = 600.0


def sound(mesh: Mesh, seed: int) -> list[Planned]:
    """Links without faults."""
    return []


def slow_streams(mesh: Mesh, seed: int) -> list[Planned]:
    """What a service reads of others comes late, each topic by its own time; its own facts come at once."""
    dice = random.Random(f"streams of {seed}")
    return [
        Planned(
            moment=AT_ONCE,
            fault=Latency(
                source=BROKER,
                target=host,
                direction="to",
                topics=(topic.name,),
                latency_ms=dice.uniform(0, 80),
                lasts_s=TO_THE_END_S,
            ),
        )
        for host in process_names(mesh)[1:]
        for topic in mesh.topics().values()
        if topic.owner != host.rpartition("/")[0]
    ]


def jitter(mesh: Mesh, seed: int) -> list[Planned]:
    """What goes to the broker and comes from it takes up to 10 ms longer."""
    late = Latency(source=OTHERS, target=BROKER, latency_ms=5, jitter_ms=5, lasts_s=TO_THE_END_S)
    return [Planned(moment=AT_ONCE, fault=late)]


def overtaking(mesh: Mesh, seed: int) -> list[Planned]:
    """One message in ten between services takes a detour, and is overtaken by what was sent long after it."""
    return _detours(mesh, 0.1, (20, 200))


def upheaval(mesh: Mesh, seed: int) -> list[Planned]:
    """Half of the messages between services take a long detour."""
    return _detours(mesh, 0.5, (20, 2_000))


def broken_links(mesh: Mesh, seed: int) -> list[Planned]:
    """Links stall, break and lose asks, and processes freeze, while orders come in."""
    dice = random.Random(f"links of {seed}")
    processes = process_names(mesh)
    faults: list[Fault] = []
    for _ in range(dice.randint(2, 6)):
        kind = dice.choice((Stall, Cut, Reset, Split, Loss, Duplication, Freeze))
        one, lasts_s = dice.choice(processes), dice.uniform(0.005, 0.2)
        ends = {"source": one, "target": OTHERS, "direction": dice.choice(("to", "from", "both"))}
        own: dict[type, dict[str, Any]] = {
            Stall: {**ends, "lasts_s": lasts_s},
            Cut: {**ends, "toxicity": 0.7, "lasts_s": lasts_s},
            Reset: {**ends, "toxicity": 0.7},
            Split: {"groups": (one, OTHERS), "lasts_s": lasts_s},
            Loss: {**ends, "share": 0.3, "lasts_s": lasts_s},
            Duplication: {**ends, "share": 0.5, "lasts_s": lasts_s, "delay_ms": (0, 50)},
            Freeze: {"process": one, "lasts_s": lasts_s},
        }
        faults.append(kind(**own[kind]))
    return [Planned(moment=WithinTime(seconds=(0, 0.15)), fault=fault) for fault in faults]


def _detours(mesh: Mesh, share: float, delay_ms: tuple[float, float]) -> list[Planned]:
    services = tuple(mesh.services)
    reordering = Reordering(
        source=services, target=services, share=share, delay_ms=delay_ms, direction="to", lasts_s=TO_THE_END_S
    )
    return [Planned(moment=AT_ONCE, fault=reordering)]


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
    restocks: bool = False
    instances: int = 1
    snapshot_rows: int | None = None
    retention_ms: int | None = None
    crashes_while_seeding: int = 0
    crashes: Crashes = field(default_factory=Crashes)
    disk: DiskFaults = field(default_factory=DiskFaults)
    speeds: Speeds | None = None
    limits: Limits | None = None
    links: LinkFaults = sound
    build: type[Simulation] = Shop
    seconds: float = 120.0

    @property
    def mesh(self) -> Mesh:
        """The mesh that is run."""
        return shop(
            self.wiring,
            self.durability,
            self.decline_permille,
            self.restocks,
            self.instances,
            self.snapshot_rows,
            self.retention_ms,
        )

    def workload(self, seed: int) -> Workload:
        """The same orders whatever the wiring and whatever goes wrong."""
        history = generate(
            self.orders, seed=seed, products=self.products, customers=20, cancel_permille=self.cancel_permille,
            guest_permille=200, return_permille=50, cancel_after_s_mean=0.02,
        )  # fmt: skip
        return of_history(history, rate=self.rate, stock_fraction=self.stock_fraction)

    def run(self, seed: int) -> SimulatedRun:
        """The run of this seed, drained."""
        mesh = self.mesh
        return run_simulated(
            mesh, self.workload(seed), seed=seed, speeds=self.speeds, limits=self.limits, build=self.build,
            faults=[*self.crashes.drawn(mesh, seed), *self.disk.drawn(seed), *self.links(mesh, seed)],
            while_seeding=Crashes(self.crashes_while_seeding).drawn(mesh, -seed), seconds=self.seconds,
        )  # fmt: skip

    def audit(self, seed: int) -> Audit:
        """The audit of the run of this seed, in which nobody sent poison: whatever was refused shows a broken rule."""
        done = self.run(seed)
        return audit(self.mesh, done.reader, replace(done.history, poison=False))

    def judge(self, seed: int) -> set[str]:
        """What speaks against the run: checks that are not valid, or the error it ended with."""
        return judged(lambda: self.run(seed))

    def outlives(self, seed: int) -> set[str]:
        """The error that the run ends with: all there is to say where retention left the audit too little."""
        try:
            self.run(seed)
        except Exception as error:
            return {type(error).__name__}
        return set()


def judged(run: Callable[[], SimulatedRun]) -> set[str]:
    """The names of all that is wrong with a run."""
    try:
        done = run()
    except Exception as error:
        return {type(error).__name__}
    audit = done.audit()
    found = {name for name, check in audit.checks.items() if check.verdict != "valid"}
    found |= set() if deliveries(done) else {"deliveries"}
    found |= set() if restocks(done) else {"restocks"}
    refused = any(facts(done, topic, "InputRefused") for topic in done.simulation.topics)
    return found | ({"InputRefused"} if refused else set())


def deliveries(run: SimulatedRun) -> bool:
    """Whether inventory took in what was delivered while seeding, each delivery once."""
    asked = {
        row["sku"]: row["quantity"]
        for name, client in run.simulation.clients.items()
        if name.startswith("seeding") and client.caller is not None
        if "Restock" in client.caller.requests.commands
        for row in client.caller.requests.payload.to_pylist()
    }
    taken: dict[str, int] = {}
    for fact in facts(run, "stock", "StockRestocked"):
        if not fact["reason"].startswith("below "):
            taken[fact["sku"]] = taken.get(fact["sku"], 0) + fact["quantity"]
    return taken == asked


def restocks(run: SimulatedRun) -> bool:
    """Whether inventory bought at most once for each order whose sake it was told to look."""
    told: dict[tuple[str, str], set[str]] = {}
    for fact in facts(run, "stock", "StockRestocked"):
        if ":CheckRestock:" in fact["reason"]:
            told.setdefault((fact["correlationid"], fact["sku"]), set()).add(fact["id"].partition("#")[0])
    return all(len(causes) == 1 for causes in told.values())


def facts(run: SimulatedRun, topic: str, *kinds: str) -> list[dict[str, Any]]:
    """The facts of these kinds that a topic holds, partition by partition."""
    tables = [run.reader.table(topic, number) for number in range(run.simulation.topics[topic].partitions)]
    return [row for row in pa.concat_tables(tables).to_pylist() if row["type"] in kinds]


def drawn(wiring: str, durability: str, seed: int) -> Scenario:
    """A scenario drawn from the seed: deaths, scarcity, network, disk, links, patience.

    In a third of them each service has two instances, in another the generator is killed too; in three of four
    snapshots are taken, and restarts begin with them.
    """
    dice = random.Random(f"scenario {seed}")
    machines = 0.5 if durability == "fsync" else 0.0
    return Scenario(
        wiring,
        durability,
        orders=dice.randint(15, 35),
        rate=dice.choice((200.0, 500.0, 2_000.0)),
        stock_fraction=dice.choice((1.0, 0.6)),
        restocks=dice.random() < 0.3,
        instances=1 + (seed % 3 == 0),
        snapshot_rows=(None, 3, 12, 40)[seed % 4],
        crashes_while_seeding=dice.choice((0, 2)),
        crashes=Crashes(
            dice.randint(4, 14),
            broker_share=dice.choice((0.1, 0.4)),
            machine_share=machines,
            caller_share=0.3 * (seed % 3 == 1),
        ),
        disk=DiskFaults(dice.randint(0, 1), dice.randint(0, 2), dice.randint(0, 2)),
        speeds=dice.choice((None, SLOW_NETWORK)),
        limits=dice.choice((None, IMPATIENT)),
        links=dice.choice((sound, slow_streams, overtaking, broken_links)),
    )


def problem(scenario: Scenario, seed: int) -> str:
    """Run and audit: nothing where it is valid, else everything that is needed to see it again."""
    try:
        audit = scenario.audit(seed)
    except Exception as error:
        return f"seed {seed} of {scenario}: {type(error).__name__}: {error}"
    return "" if audit.verdict == "valid" else f"seed {seed} of {scenario}:\n{audit.describe()}"

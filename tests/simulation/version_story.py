"""A mesh that is down while its topics grow: fewer and narrower columns first, then more, on one log.

The first version has 32 bits where the second has 64; the second has a column ``note`` in front of the others, which
each of its facts fills in.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pytest

from eventmesh.lab.simulated_run import Crashes, SimulatedRun
from eventmesh.log.batch import Header, LogBatch
from eventmesh.log.simulated_storage import ProcessDied, SimulatedStorage
from eventmesh.log.store import Durability, Log, LogReader
from eventmesh.log.topic import Topic
from eventmesh.mesh import Mesh
from eventmesh.messages import ENVELOPE, REFUSAL, Columns, encode_rows, topic_schema
from eventmesh.runtime.facts import FactBatch
from eventmesh.runtime.simulated.simulation import Simulation
from eventmesh.runtime.simulated.world import START
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from eventmesh.workload import Workload
from tests.simulation.scenario import Shop, shop

COMMON = [*ENVELOPE, *REFUSAL]
NOTE = pa.field("note", pa.string())


def narrow(schema: pa.Schema) -> pa.Schema:
    """With whole numbers of 32 bits."""
    payload = list(schema)[len(COMMON) :]
    wide, small = pa.int64(), pa.int32()
    return pa.schema([*COMMON, *(each.with_type(small) if each.type == wide else each for each in payload)])


def before(mesh: Mesh) -> Mesh:
    """The mesh with the columns of its first version."""
    return replace(mesh, schemas={name: narrow(schema) for name, schema in mesh.schemas.items()})


def after(mesh: Mesh) -> Mesh:
    """The mesh with those of its second."""
    grown = {name: topic_schema([NOTE, *list(schema)[len(COMMON) :]]) for name, schema in mesh.schemas.items()}
    return replace(mesh, schemas=grown)


@contextmanager
def notes() -> Iterator[None]:
    """Whoever has the column fills it in."""
    add = FactBatch._add

    def noted(facts: FactBatch, kinds: list[str], payload: Mapping[str, list[Any]], *given: Any) -> Columns:
        if "note" in facts.topic.schema.names:
            payload = {**payload, "note": [f"in version {facts.topic.version}"] * len(kinds)}
        return add(facts, kinds, payload, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FactBatch, "_add", noted)
        yield


@dataclass(frozen=True)
class Growth:
    """A load that is cut off by the end of every process, and gone on with by the application's next version.

    ``die_after`` is how much the broker does of the first opening with new columns before it is killed.
    """

    mesh: Mesh
    workload: Workload
    crashes: Crashes = field(default_factory=lambda: Crashes(4))
    die_after: int | None = None

    def run(self, seed: int) -> SimulatedRun:
        """Both lives of the mesh, drained."""
        with notes():
            first = self._first(seed)
            second = self._second(first, seed)
            second.drain()
        history = replace(second.history(["load"]), poison=None)
        return SimulatedRun(second, history, LogReader.of(second.storage))

    def judge(self, seed: int) -> set[str]:
        """What speaks against it: checks that are not valid, or the error it ended with."""
        try:
            audit = self.run(seed).audit()
        except Exception as error:
            return {type(error).__name__}
        return {name for name, check in audit.checks.items() if check.verdict != "valid"}

    def _first(self, seed: int) -> Simulation:
        simulation, dice = Shop(before(self.mesh), seed=seed), random.Random(f"growth of {seed}")
        for number, stage in enumerate(self.workload.seeding):
            simulation.call(f"seeding-{number}", stage)
        simulation.drain()
        simulation.arrange(self.crashes.drawn(simulation.mesh, seed))
        simulation.call("load", self.workload.load, window=self.workload.window)
        cut_off: list[int] = []
        moment = simulation.world.now + dice.randint(10_000, 60_000)
        simulation.world.at(moment, lambda: cut_off.append(moment))
        simulation.run_until(lambda: bool(cut_off))
        return simulation

    def _second(self, first: Simulation, seed: int) -> Simulation:
        storage = first.storage
        assert isinstance(storage, SimulatedStorage)
        if first.durability is Durability.fsync:
            storage.crash_machine()
        else:
            storage.restart_process()
        storage.die_after = self.die_after
        simulation = Shop(
            after(self.mesh), seed=seed, storage=storage, now=first.world.now + 1_000_000, lives_before=1_000
        )  # fmt: skip
        simulation.arrange(self.crashes.drawn(simulation.mesh, -seed))
        simulation.resume(first.clients["load"].journal)
        return simulation


#: Orders of the shop that are under way while it grows.
SHOP_GROWS = Growth(
    shop("views", "os", 50, False, snapshot_rows=12), of_history(generate(30, seed=1), rate=500.0)
)  # fmt: skip


def versions_told(run: SimulatedRun) -> Mapping[tuple[str, str | None], int]:
    """How many facts there are of each version, and of each note that they have."""
    counted: dict[tuple[str, str | None], int] = {}
    for name, topic in run.simulation.topics.items():
        for number in range(topic.partitions):
            table = run.reader.table(name, number).to_pylist()
            for row in table:
                if row["kind"] == "facts":
                    said = row["dataschema"].removeprefix(name), row["note"]
                    counted[said] = counted.get(said, 0) + 1
    return counted


# --- a log by hand -----------------------------------------------------------------------------------

ORDERS = Topic("orders", "orders", "order_id", 1, topic_schema([pa.field("order_id", pa.string())]))
GROWN = replace(ORDERS, schema=ORDERS.schema.append(NOTE))


def _open(storage: SimulatedStorage, topic: Topic) -> Log:
    return Log.open(
        storage, {"orders": topic}, durability=Durability.os, cluster_id="one", node="one", clock=lambda: START
    )


def read_beside(seed: int) -> set[str]:
    """The machine died, and the broker dies at any step of an opening with new columns: a reader finds no damage."""
    disk, _ = opened_after(seed, UNTIL_THE_END)
    assert disk.die_after is not None
    last = UNTIL_THE_END - disk.die_after
    found: set[str] = set()
    for die_after in {*range(0, last, 37), *range(last - 40, last)}:  # each byte of a write is a step
        disk, died = opened_after(seed, die_after)
        assert died
        disk.restart_process()
        found |= {type(each.damage).__name__ for each in LogReader.of(disk).verify() if each.damage is not None}
    return found


UNTIL_THE_END = 1 << 20


def opened_after(seed: int, die_after: int) -> tuple[SimulatedStorage, bool]:
    """The disk after an opening with new columns by a process that does so much and dies; and whether it died."""
    disk = SimulatedStorage(random.Random(f"{seed} {die_after}"))
    log = _open(disk, ORDERS)
    grant = log.grant("orders", 0, "orders", "first")
    row = {
        "id": "a", "source": "orders", "type": "OrderRequested", "time": START, "dataschema": "orders/1",
        "sequence": grant.end, "order_id": "a",
    }  # fmt: skip
    header = Header("facts", grant.end, 1, grant.epoch, 0, "orders", "first", START)
    log.append("orders", 0, LogBatch.encode(header, encode_rows(ORDERS.schema, [row])))
    log.grant("orders", 0, "orders", "second")  # which syncs the fact
    disk.crash_machine()
    disk.die_after = die_after
    try:
        _open(disk, GROWN)
    except ProcessDied:
        return disk, True
    return disk, False

"""Joins by local view and by remote query under rising load: how much does each hold, and at what price?

Open loop: orders are due at fixed intervals and latency counts from then. Each way starts its own mesh
and takes the steps of load upwards until one saturates; every mesh is audited over all its steps.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from eventmesh import mesh as meshes
from eventmesh.lab import measure, record, report
from eventmesh.lab.progress_bar import Report
from eventmesh.lab.run import audit_folder
from eventmesh.mesh import Mesh
from eventmesh.runtime.caller import Requests, Workload
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.order_history import OrderHistory
from eventmesh.shop.workload import of_history

if TYPE_CHECKING:
    from eventmesh.runtime.on_ray.cluster import Measured

JOINED: dict[int, list[str]] = {1: ["customers"], 3: ["customers", "prices", "stock"]}
Say = Callable[[str], None]


class Way(BaseModel):
    """A mesh and how its orders joins."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mesh: Literal["views", "hybrid", "request"]
    join: Literal["view", "per_order", "pipelined", "batched"]

    def __str__(self) -> str:
        return f"{self.mesh}/{self.join}"


class Settings(BaseModel):
    """A benchmark file of this question."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    version: Literal["eventmesh.benchmark/1"] = Field(alias="schema")
    name: str
    question: str
    ways: list[Way] = Field(min_length=1)
    joined_services: list[Literal[1, 3]] = Field(min_length=1)
    rtt_ms: list[float] = Field(min_length=1)
    offered_per_s: list[float] = Field(min_length=1)
    lines_per_order: int = Field(ge=1)
    products: int = Field(ge=1)
    window_s: float = Field(gt=0)
    warmup_s: float = Field(ge=0)
    repetitions: int = Field(ge=1)


@dataclass(frozen=True)
class Setting:
    """One mesh of the sweep."""

    way: Way
    joined_services: int
    rtt_ms: float

    def axis(self, offered_per_s: float) -> dict[str, float]:
        """Where a point of this mesh stands."""
        return {"joined_services": self.joined_services, "rtt_ms": self.rtt_ms, "offered_per_s": offered_per_s}

    def __str__(self) -> str:
        return f"{self.way}, {self.joined_services} joined, rtt {self.rtt_ms:g} ms"


class JoinScaling:
    """The sweep. ``quick`` only labels it: the grid is in the settings."""

    def __init__(self, settings: Settings, *, quick: bool, meshes: Path) -> None:
        self.settings, self.quick, self.meshes = settings, quick, meshes
        self.name = settings.name + ("-quick" if quick else "")

    def grid(self) -> list[Setting]:
        """Every mesh of one repetition; all ways of one setting stand beside each other."""
        axes = product(self.settings.rtt_ms, self.settings.joined_services, self.settings.ways)
        return [Setting(way, joined, rtt) for rtt, joined, way in axes]

    def describe(self) -> list[str]:
        """One line per mesh."""
        loads = ", ".join(f"{load:g}" for load in self.settings.offered_per_s)
        return [f"{setting}: {loads} orders/s x {self.settings.repetitions}" for setting in self.grid()]

    def run(self, folder: Path, *, seed: int, report: Report, say: Say) -> record.Run:
        """Measure everything, and write the folder's record and reports. What was measured is kept on Ctrl-C."""
        from eventmesh.runtime.on_ray.cluster import embedded_ray

        begun = record.start(
            self.name, seed=seed, config=self.settings.model_dump(mode="json", by_alias=True),
            source=Path(__file__).parent, now=datetime.now(UTC), durability="os", warmup_s=self.settings.warmup_s,
        )  # fmt: skip
        repetitions: list[record.Repetition] = []
        try:
            with embedded_ray():
                for repetition in self._all(folder, seed, report):
                    repetitions.append(repetition)
                    say(_line(repetition))
        finally:
            finished = self._finish(folder, begun, repetitions)
        return finished

    def _all(self, folder: Path, seed: int, report: Report) -> Iterator[record.Repetition]:
        total = self.settings.repetitions * len(self.grid())
        for number in range(self.settings.repetitions):  # interleaved: a slow minute hits every way
            for place, setting in enumerate(self.grid()):
                report("meshes", number * len(self.grid()) + place, total)
                yield from self._mesh(folder, setting, seed + number, number)

    def _mesh(self, folder: Path, setting: Setting, seed: int, number: int) -> Iterator[record.Repetition]:
        from eventmesh.runtime.on_ray.cluster import MeshOnRay

        mesh = _configured(self.meshes, setting)
        steps = [self._orders(step, load, seed) for step, load in enumerate(self.settings.offered_per_s)]
        scratch = folder / "work"
        measured: list[tuple[float, Measured]] = []
        with MeshOnRay(mesh, scratch / "log", rtt_ms=setting.rtt_ms, seed=seed) as running:
            running.seed_with(_seeding(steps))
            for step, (offered, orders) in enumerate(zip(self.settings.offered_per_s, steps, strict=True)):
                requests = of_history(orders, rate=offered).load
                measured.append((offered, running.measure(f"load-{step}", requests)))
                if self._cut(measured[-1][1]).saturated:
                    break
            history = running.history(pa.concat_tables([each.callers for _, each in measured]))
        audited, _ = audit_folder(mesh, scratch, history)
        shutil.rmtree(scratch)
        for offered, each in measured:
            record.write_table(folder / "records" / f"{_slug(setting, offered, number)}.arrow", each.callers)
            yield self._point(setting, offered, each, audited)

    def _orders(self, step: int, offered: float, seed: int) -> OrderHistory:
        count = max(1, int(offered * (self.settings.warmup_s + self.settings.window_s)))
        lines, products = self.settings.lines_per_order, self.settings.products
        return generate(count, seed=seed + step, products=products, lines_per_order=lines, prefix=f"S{step}-")

    def _point(self, setting: Setting, offered: float, each: Measured, audited: Any) -> record.Repetition:
        way = setting.way
        return measure.point(
            each.callers, wiring=way.mesh, join=way.join, axis=setting.axis(offered), audit=audited,
            primary="PlaceOrder", warmup_s=self.settings.warmup_s,
            staleness_us=each.staleness_us if way.join == "view" else None,
            cpu_s=each.cpu_s, memory_mb=each.memory_mb, bytes_moved=each.bytes_moved,
        )  # fmt: skip

    def _cut(self, each: Measured) -> Any:
        empty = record.AuditRecord(verdict="unknown", checks={})
        return measure.point(
            each.callers,
            wiring="",
            join="none",
            axis={},
            audit=empty,
            primary="PlaceOrder",
            warmup_s=self.settings.warmup_s,
        )

    def _finish(self, folder: Path, begun: record.Run, repetitions: list[record.Repetition]) -> record.Run:
        places: dict[tuple[Any, ...], list[record.Repetition]] = {}
        for each in repetitions:
            places.setdefault((each.wiring, each.join, *each.axis.items()), []).append(each)
        points = [measure.summarise(members) for members in places.values()]
        expected = self.settings.repetitions * len(self.grid())
        complete = len(
            {(each.wiring, each.join, each.axis["joined_services"], each.axis["rtt_ms"]) for each in repetitions}
        )
        run = begun.model_copy(
            update={
                "points": points,
                "status": "complete" if complete * self.settings.repetitions == expected else "aborted",
                "verdict": record.worst(point.audit.verdict for point in points),
                # The law is of a steady state: a saturated mesh has none.
                "figures": [_little(each) for each in repetitions if not each.saturated],
            }
        )
        record.write(folder, run)
        report.write(folder, run)
        return run


def _configured(folder: Path, setting: Setting) -> Mesh:
    """The mesh of a setting: what it joins, and whether its queries are batched."""
    document = meshes.load(folder / f"{setting.way.mesh}.yaml").resolved()
    orders = document["services"]["orders"]
    orders["joins"] = JOINED[setting.joined_services]
    orders["batched"] = setting.way.join == "batched"
    orders["views"] = {name: topics for name, topics in orders["views"].items() if name in orders["joins"]}
    return meshes.parse(document)


def _seeding(steps: list[OrderHistory]) -> list[Requests]:
    """Stock for all steps together, so that no step is short of anything."""
    together = OrderHistory(pa.concat_tables([step.requests for step in steps]), steps[0].refused)
    workload: Workload = of_history(together)
    return list(workload.seeding)


def _slug(setting: Setting, offered: float, number: int) -> str:
    return record.slug(setting.way.mesh, setting.way.join, setting.axis(offered), number)


def _little(each: record.Repetition) -> record.Figure:
    """V9, tolerance fixed beforehand: concurrency from the records equals throughput times mean latency."""
    name = (
        f"Little's law, {each.wiring}/{each.join} at {each.axis['offered_per_s']:g}/s, rtt {each.axis['rtt_ms']:g} ms"
    )
    return measure.figure(name, [each.little.measured], "open orders", predicted=each.little.predicted, tolerance=0.1)


def _line(each: record.Repetition) -> str:
    latency = each.completed_latency_ms
    p99 = f"p99 {latency.p99:,.1f} ms" if latency else "nothing completed"
    note = " (saturated)" if each.saturated else ""
    where = f"{each.wiring}/{each.join}, {each.axis['joined_services']:g} joined, rtt {each.axis['rtt_ms']:g} ms"
    return f"{where}: {each.offered_per_s:,.0f} offered/s, {each.completed_per_s:,.0f} completed/s, {p99}{note}"

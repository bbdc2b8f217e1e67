"""The trials of ``recovery`` on Ray, each on a fresh mesh: a death behind a long history, and far too much load."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
from pydantic import Field

from benchmarks.benchmark import Part
from eventmesh import mesh as meshes
from eventmesh.lab import overload as overloads
from eventmesh.lab.overload import Overloaded, Schedule
from eventmesh.lab.recovery import Death, Survived, strike, survive
from eventmesh.lab.run import audit_folder
from eventmesh.log.store import open_read_only
from eventmesh.mesh import Mesh
from eventmesh.progress import position_name
from eventmesh.report import record
from eventmesh.runtime.faults import AtOffset, Kill, process_name
from eventmesh.runtime.limits import Limits
from eventmesh.runtime.running import measure_load, seed_with
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.order_history import OrderHistory
from eventmesh.shop.workloads import of_history
from eventmesh.workload import Workload

if TYPE_CHECKING:
    from eventmesh.runtime.on_ray.cluster import MeshOnRay

TOPIC = "orders"
#: Facts that orders writes of an order that is confirmed: validated, reserved, confirmed, dispatched.
FACTS_PER_ORDER = 4


class Resume(Part):
    """``facts`` in the topic of orders, written with ``window`` orders open, then ``orders`` at ``rate``, in which the
    victim is killed. ``target`` is a threshold on the seconds that Ray's own restart of a bare actor does not explain.
    """

    facts: int = Field(ge=1)
    window: int = Field(ge=1)
    victims: list[Literal["orders", "broker"]] = Field(min_length=1)
    rate: float = Field(gt=0)
    orders: int = Field(ge=2)
    products: int = Field(ge=1)
    repetitions: int = Field(ge=1)
    bare_restarts: int = Field(ge=1)
    patience_s: float = Field(gt=0)
    audited: bool
    target: str


class Overload(Part):
    """Orders at three times ``held_per_s``, the greatest load held, for ``surge_s``; then ``calm_share`` of that load.

    ``open_orders_max`` is the gateway's, ``limits`` those of every instance; what is not named is as ever. Normal
    service is an outcome within ``objective_s``, without having been told to come back.
    """

    held_per_s: float = Field(gt=0)
    times: float = Field(gt=1)
    surge_s: float = Field(gt=0)
    calm_share: float = Field(gt=0, lt=1)
    calm_s: float = Field(gt=0)
    objective_s: float = Field(gt=0)
    products: int = Field(ge=1)
    open_orders_max: int = Field(ge=1)
    asks_queued_rows_max: int = Field(ge=1)
    inputs_queued_rows_max: int = Field(ge=1)
    repetitions: int = Field(ge=1)

    @property
    def offered_per_s(self) -> float:
        """Orders per second of the surge."""
        return self.held_per_s * self.times

    @cached_property
    def schedule(self) -> Schedule:
        """The surge, and the calm after it."""
        calm_per_s = self.held_per_s * self.calm_share
        surge, calm = int(self.offered_per_s * self.surge_s), int(calm_per_s * self.calm_s)
        return Schedule(surge, self.offered_per_s, calm, calm_per_s)

    @property
    def limits(self) -> Limits:
        """Of every instance."""
        return Limits(
            asks_queued_rows_max=self.asks_queued_rows_max, inputs_queued_rows_max=self.inputs_queued_rows_max
        )


@dataclass(frozen=True)
class Resumed:
    """``resumed_s`` from the death of ``victim`` to the next fact of orders, with ``facts`` in its topic already.

    ``bare_s`` is Ray's own restart of a bare actor on the same mesh. ``audit`` is None where nobody audited.
    """

    victim: str
    facts: int
    resumed_s: float
    bare_s: float
    audit: record.AuditRecord | None


class OnRay:
    """Trials on the Ray that is up."""

    def survive(
        self, mesh: Mesh, workload: Workload, death: Death, folder: Path, *, seed: int, lease_s: float
    ) -> Survived:
        """See :func:`eventmesh.lab.recovery.survive`."""
        return survive(mesh, workload, death, folder, seed=seed, lease_s=lease_s)

    def resume(self, mesh: Mesh, part: Resume, folder: Path, *, seed: int) -> list[Resumed]:
        """Fill the topic of orders, then kill each victim under a load of its own, all on one mesh."""
        from eventmesh.runtime.on_ray.cluster import MeshOnRay

        filling, *loads = _stages(part, seed)
        tables, struck = [], []
        with MeshOnRay(mesh, folder / "log", seed=seed) as running:
            seed_with(running, filling.seeding)
            tables.append(measure_load(running, "filling", filling.load, window=part.window, timeout_s=3_600.0).callers)
            for victim, load in zip(part.victims, loads, strict=True):
                found, callers = _kill(running, part, victim, load)
                struck.append(found)
                tables.append(callers)
            history = running.history(pa.concat_tables(tables)) if part.audited else None
        if history is None:
            return struck
        audited, *_ = audit_folder(mesh, folder, history)
        return [replace(each, audit=record.AuditRecord.of(audited)) for each in struck]

    def overload(self, mesh: Mesh, part: Overload, folder: Path, *, seed: int) -> Overloaded:
        """The surge, the calm, and a load of its own afterwards, on one mesh."""
        surge, calm = part.schedule.surge, part.schedule.calm
        orders = generate(surge + 2 * calm, seed=seed, products=part.products, lines_per_order=1)
        surged, normal = (_part(orders, *bounds) for bounds in ((0, surge + calm), (surge + calm, calm)))
        return overloads.overload(
            _with_room(mesh, part.open_orders_max), of_history(orders).seeding,
            replace(of_history(surged).load, at=part.schedule.at()),
            of_history(normal, rate=part.schedule.calm_per_s).load, folder, limits=part.limits, seed=seed,
        )  # fmt: skip


def _kill(running: MeshOnRay, part: Resume, victim: str, load: Workload) -> tuple[Resumed, pa.Table]:
    # Its own median: a restart by Ray varies by half a second.
    from eventmesh.runtime.on_ray.bare_actor import restart_s

    bare_s = statistics.median(restart_s() for _ in range(part.bare_restarts))
    reader = open_read_only(running.log_directory)
    ends = [reader.watermark(TOPIC, number) for number in range(reader.topics[TOPIC].partitions)]
    reader.close()
    # The death comes early in the load, so that much of it is still to be asked for.
    moment = AtOffset(partition=position_name(TOPIC, 0), offset=ends[0] + max(1, len(load.load) // 8))
    death = Death(moment, Kill(process=process_name(victim)), watched=TOPIC)
    recovery, measured = strike(running, f"{victim} killed", load.load, death, patience_s=part.patience_s)
    return Resumed(victim, sum(ends), recovery.resumed_s, bare_s, None), measured.callers


def _stages(part: Resume, seed: int) -> Iterator[Workload]:
    """The filling, seeded with stock for everything, and a load for each victim."""
    filling = -(-part.facts // FACTS_PER_ORDER)
    total = filling + part.orders * len(part.victims)
    orders = generate(total, seed=seed, products=part.products, lines_per_order=1)
    yield replace(of_history(_part(orders, 0, filling)), seeding=of_history(orders).seeding)
    for start in range(filling, total, part.orders):
        yield of_history(_part(orders, start, part.orders), rate=part.rate)


def _part(orders: OrderHistory, start: int, count: int) -> OrderHistory:
    return OrderHistory(orders.requests.slice(start, count), orders.refused)


def _with_room(mesh: Mesh, open_orders_max: int) -> Mesh:
    document = mesh.resolved()
    document["services"]["gateway"]["open_orders_max"] = open_orders_max
    return meshes.parse(document)

"""Steps of open load on a mesh: orders are due at fixed intervals, and latency counts from then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pyarrow as pa
from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from benchmarks.benchmark import PROCESSES, Settings, scratch
from eventmesh.application import Words
from eventmesh.audit.verdict import Audit
from eventmesh.lab.run import audit_folder
from eventmesh.mesh import Mesh
from eventmesh.report import measure, record
from eventmesh.report.machine import Watch
from eventmesh.report.measure import Window
from eventmesh.report.repetitions import summarise
from eventmesh.runtime.running import measure_load, seed_with
from eventmesh.shop import WORDS
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.order_history import OrderHistory
from eventmesh.shop.workloads import of_history

if TYPE_CHECKING:
    from eventmesh.runtime.running import Measured

PRIMARY = "PlaceOrder"
#: Requests of one step, which are made before it begins: about a kilobyte each.
REQUESTS_MAX = 10_000_000


class StepSettings(Settings):
    """The loads, and how long each lasts. They rise; the warm-up comes before the window."""

    offered_per_s: list[float] = Field(min_length=1)
    window_s: float = Field(gt=0)
    warmup_s: float = Field(ge=0)

    @field_validator("offered_per_s")
    @classmethod
    def _rising(cls, loads: list[float]) -> list[float]:
        if loads[0] <= 0 or any(high <= low for low, high in pairwise(loads)):
            raise PydanticCustomError("rising", "must be positive and rise")
        return loads

    @model_validator(mode="after")
    def _fit_in_memory(self) -> Self:
        if self.offered_per_s[-1] * (self.warmup_s + self.window_s) > REQUESTS_MAX:
            raise PydanticCustomError(
                "too_many_requests", "offered_per_s times the seconds must be at most {most} requests",
                {"most": f"{REQUESTS_MAX:,}"},
            )  # fmt: skip
        return self


class LoadSettings(StepSettings):
    """The orders of a step as well."""

    lines_per_order: int = Field(ge=1)
    products: int = Field(ge=1)


@dataclass(frozen=True)
class Subject:
    """The mesh that is put under load, and how a report names it."""

    mesh: Mesh
    join: str
    rtt_ms: float = 0.0
    axis: Mapping[str, float] | None = None

    def axis_at(self, offered_per_s: float) -> dict[str, float]:
        """Where a point of this mesh stands."""
        return {**(self.axis or {}), "offered_per_s": offered_per_s}


@dataclass(frozen=True)
class Loaded:
    """What loads did to one mesh, one after the other, and its audit over all of them.

    ``machine`` says of each load what the machine did beside it; shorter where nobody watched.
    """

    loads: Sequence[Measured]
    audit: Audit | record.AuditRecord
    machine: Sequence[record.MachineUse | None] = ()


#: Puts a fresh mesh under the orders of each load, until one saturates it. The mesh's log is kept in the folder:
#: ``(subject, orders by load, settings, folder, seed)``.
PutUnderLoad = Callable[[Subject, Mapping[float, OrderHistory], LoadSettings, Path, int], Loaded]
#: Starts what meshes run on, for as long as it is entered.
Runtime = Callable[[], AbstractContextManager[PutUnderLoad]]


@contextmanager
def on_ray() -> Iterator[PutUnderLoad]:
    """A Ray of our own."""
    from eventmesh.runtime.on_ray.cluster import embedded_ray

    with embedded_ray(PROCESSES):
        yield _mesh_on_ray


def _mesh_on_ray(
    subject: Subject, steps: Mapping[float, OrderHistory], settings: LoadSettings, folder: Path, seed: int
) -> Loaded:
    """From seeding to audit."""
    from eventmesh.runtime.on_ray.cluster import MeshOnRay

    loads: list[Measured] = []
    uses: list[record.MachineUse | None] = []
    with MeshOnRay(subject.mesh, folder / "log", rtt_ms=subject.rtt_ms, seed=seed) as running:
        # Stock for all steps together, so that no step is short of anything.
        seed_with(running, of_history(_together(list(steps.values()))).seeding)
        for number, (offered, orders) in enumerate(steps.items()):
            work = of_history(orders, rate=offered).load
            with Watch() as watch:
                loads.append(measure_load(running, f"load-{number}", work))
            uses.append(watch.use)
            if measure.saturated(cut(loads[-1], settings)):
                break
        history = running.history(pa.concat_tables([load.callers for load in loads]))
    audited, *_ = audit_folder(subject.mesh, folder, history)
    return Loaded(loads, audited, uses)


def climb(
    put_under_load: PutUnderLoad,
    subject: Subject,
    offered_per_s: Sequence[float],
    settings: LoadSettings,
    folder: Path,
    *,
    seed: int,
    repetition: int,
) -> Iterator[record.Repetition]:
    """Each load in turn on one fresh mesh; the records and latencies of each are written to ``folder``."""
    steps = {offered: orders(settings, number, offered, seed) for number, offered in enumerate(offered_per_s)}
    with scratch(folder) as room:
        loaded = put_under_load(subject, steps, settings, room, seed)
    # It may have stopped before the last load, and nobody may have watched.
    for offered, each, use in zip(offered_per_s, loaded.loads, chain(loaded.machine, repeat(None)), strict=False):
        axis, window = subject.axis_at(offered), cut(each, settings)
        name = record.slug(subject.mesh.wiring, subject.join, axis, repetition)
        record.write_table(folder / "records" / f"{name}.arrow", each.callers)
        record.write_histograms(folder, measure.histograms(name, window))
        yield measure.point(
            window, wiring=subject.mesh.wiring, join=subject.join, joining=subject.mesh.words.joins[subject.join],
            asks=subject.mesh.asks, axis=axis, audit=loaded.audit, turn=repetition, machine_use=use,
            staleness_us=each.staleness_us if subject.join == "view" else None,
            cpu_s=each.cpu_s, memory_mb=each.memory_mb, bytes_moved=each.bytes_moved,
        )  # fmt: skip


def cut(each: Measured, settings: LoadSettings) -> Window:
    """The measured stretch of a load."""
    return measure.window(each.callers, primary=PRIMARY, warmup_s=settings.warmup_s)


def orders(settings: LoadSettings, step: int, offered_per_s: float, seed: int) -> OrderHistory:
    """The orders of a step, enough for its warm-up and its window."""
    count = max(1, int(offered_per_s * (settings.warmup_s + settings.window_s)))
    return generate(
        count, seed=seed + step, products=settings.products, lines_per_order=settings.lines_per_order,
        prefix=f"S{step}-",
    )  # fmt: skip


def _together(steps: Sequence[OrderHistory]) -> OrderHistory:
    return OrderHistory(pa.concat_tables([step.requests for step in steps]), steps[0].refused)


def points(repetitions: Sequence[record.Repetition]) -> list[record.Point]:
    """The repetitions of each point together, in the order in which the points were first measured."""
    places: dict[tuple[object, ...], list[record.Repetition]] = {}
    for each in repetitions:
        places.setdefault((each.wiring, each.join, each.mesh, *each.axis.items()), []).append(each)
    return [summarise(members) for members in places.values()]


def little(repetitions: Sequence[record.Repetition], words: Words = WORDS) -> record.Figure:
    """V9, tolerance fixed beforehand: concurrency from the records over throughput times mean latency.

    The law is of a steady state: a saturated mesh has none.
    """
    ratios = [
        each.little.measured / each.little.predicted
        for each in repetitions
        if not each.saturated and each.little.predicted
    ]
    name = f"Little's law: open {words.requests} over throughput × mean latency"
    return measure.figure(name, ratios, "ratio", predicted=1.0, tolerance=0.1)


def line(each: record.Repetition) -> str:
    """A repetition on one line of the terminal."""
    latency = each.completed_latency_ms
    p99 = f"p99 {latency.p99:,.1f} ms" if latency else "nothing completed"
    note = " (saturated)" if each.saturated else ""
    note += f" (disturbed: {each.disturbed})" if each.disturbed else ""
    axes = "".join(f"{name} {value:g}, " for name, value in each.axis.items() if name != "offered_per_s")
    return (
        f"{each.wiring}/{each.join}: {axes}{each.offered_per_s:,.0f} offered/s, "
        f"{each.completed_per_s:,.0f} completed/s, {p99}{note}, audit {each.audit.verdict}"
    )

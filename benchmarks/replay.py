"""An order history as fast as possible in each wiring: how long from the first request to the last outcome?

The history is a file of real orders, or generated with the traits of one. Every replay is audited, and all of
them must end alike, order by order, whatever the wiring: stock is never short here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from benchmarks.benchmark import PROCESSES, Part, Say, Settings, begin, label, recorded, scratch
from eventmesh import mesh as meshes
from eventmesh import shipped
from eventmesh.audit.audit import Audit, Evidence
from eventmesh.errors import InputError
from eventmesh.history import History
from eventmesh.lab.run import audit_folder, load_mesh
from eventmesh.log.store import open_read_only
from eventmesh.mesh import Mesh
from eventmesh.report import measure, record
from eventmesh.report.differences import GENERATOR
from eventmesh.report.progress_bar import Report
from eventmesh.shop.checks import outcomes, same_outcomes
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.order_file import read_orders
from eventmesh.shop.order_history import OrderHistory
from eventmesh.shop.order_mapping import OrderMapping
from eventmesh.shop.workloads import of_history
from eventmesh.workload import Workload

Wiring = Literal["views", "hybrid", "request"]
CONFIRMED = "confirmed"
VALUE = "confirmed_value_minor_units"


class Generated(Part):
    """The traits of the orders where there is no input: arguments of the shop's generator."""

    orders: int = Field(ge=1)
    lines_mean: float
    lines_max: int
    products: int
    zipf: float
    customers: int
    guest_permille: int
    return_permille: int


class ReplaySettings(Settings):
    """A benchmark file of this question. ``target`` is a threshold on the seconds of each wiring."""

    wirings: list[Wiring] = Field(min_length=1)
    input: Path | None = None
    mapping: Path | None = None
    generated: Generated
    target: str


@dataclass(frozen=True)
class Replayed:
    """One replay: seconds from the first request to the last outcome, CPU seconds of all processes but the load's.

    ``ends`` holds the state and the amount of every order, ``totals`` how many ended in each state and their value.
    """

    wiring: str
    seconds: float
    cpu_s: float
    callers: pa.Table
    audit: Audit
    totals: Mapping[str, int]
    ends: pa.Table


#: Replays a workload on a fresh mesh whose log is kept in the folder: ``(mesh, workload, folder, seed, report)``.
Play = Callable[[Mesh, Workload, Path, int, Report], Replayed]
#: Starts what meshes run on, for as long as it is entered.
Runtime = Callable[[], AbstractContextManager[Play]]


@contextmanager
def on_ray() -> Iterator[Play]:
    """A Ray of our own."""
    from eventmesh.runtime.on_ray.cluster import embedded_ray

    with embedded_ray(PROCESSES):
        yield _mesh_on_ray


def _mesh_on_ray(mesh: Mesh, work: Workload, folder: Path, seed: int, report: Report) -> Replayed:
    """From seeding to audit."""
    from eventmesh.runtime.on_ray.cluster import MeshOnRay

    with MeshOnRay(mesh, folder / "log", seed=seed) as running:
        measured = load_mesh(running, work, report)
        history = running.history(measured.callers)
    audited, totals, _ = audit_folder(mesh, folder, history)
    cpu_s = sum(seconds for role, seconds in measured.cpu_s.items() if role != GENERATOR)
    ends = _ends(mesh, folder, history)
    return Replayed(mesh.wiring, measured.seconds, cpu_s, measured.callers, audited, totals, ends)


def _ends(mesh: Mesh, folder: Path, history: History) -> pa.Table:
    reader = open_read_only(folder / "log")
    try:
        return outcomes(Evidence(mesh, reader, history))
    finally:
        reader.close()


class Replay:
    """The same history through every wiring in turn, as often as the repetitions say."""

    settings_type: ClassVar[type[Settings]] = ReplaySettings

    def __init__(self, settings: ReplaySettings, *, quick: bool, meshes: Path, runtime: Runtime = on_ray) -> None:
        if (settings.input is None) != (settings.mapping is None):
            raise InputError(
                "--input and --mapping go together: the mapping says how the input's columns become orders"
            )
        self.settings, self.meshes, self.runtime = settings, meshes, runtime
        self.name = label(settings, quick=quick)

    @cached_property
    def _history(self) -> OrderHistory | None:
        """What the input holds; None where the orders are generated, since that takes a seed."""
        settings = self.settings
        if settings.input is None or settings.mapping is None:
            return None
        return read_orders(settings.input, OrderMapping.load(shipped.find("mappings", settings.mapping)))

    def describe(self) -> list[str]:
        """One line per wiring. Reads the input, so that a mistake in it is told before anything starts."""
        settings, read = self.settings, self._history
        orders = f"{settings.generated.orders:,} generated orders"
        if read is not None:
            orders = f"{read.summary()['orders']:,} orders of {settings.input}"
        return [f"{wiring}: {orders} as fast as possible x {settings.repetitions}" for wiring in settings.wirings]

    def run(self, folder: Path, *, seed: int, report: Report, say: Say) -> record.Run:
        """Read or generate the orders, replay them, and compare how they ended."""
        loaded = [meshes.load(self.meshes / f"{wiring}.yaml") for wiring in self.settings.wirings]
        work = self._workload(seed)
        begun = begin(self.name, self.settings, seed=seed, durability=loaded[0].log.durability)
        if work.summary is not None:
            begun = begun.model_copy(update={"imported": work.summary, "import_told": work.told})
        if work.write_refused is not None:
            work.write_refused(folder / "refused.csv")
        measuring = self._measured(loaded, work, folder, seed, report)
        return recorded(folder, begun, measuring, say=say, line=_line, conclude=self._conclusion)

    def _workload(self, seed: int) -> Workload:
        traits = self.settings.generated.model_dump()
        return of_history(self._history or generate(traits.pop("orders"), seed=seed, **traits))

    def _measured(
        self, loaded: list[Mesh], work: Workload, folder: Path, seed: int, report: Report
    ) -> Generator[Replayed, None, None]:
        first: Replayed | None = None
        total = self.settings.repetitions * len(loaded)
        with self.runtime() as play:
            for number in range(self.settings.repetitions):  # interleaved: a slow minute hits every wiring
                for place, mesh in enumerate(loaded):
                    report("replays", number * len(loaded) + place, total)
                    with scratch(folder) as room:
                        found = play(mesh, work, room, seed + number, report)
                    _keep(folder, found, number)
                    first = first or found
                    yield _compared(found, first)

    def _conclusion(self, replays: list[Replayed]) -> dict[str, Any]:
        audits = [record.AuditRecord.of(each.audit) for each in replays]
        audit = record.AuditRecord.together(audits)
        return {
            "audit": audit,
            "verdict": audit.verdict,
            "outcomes": dict(replays[0].totals) if replays else {},
            "figures": self._figures(replays),
        }

    def _figures(self, replays: list[Replayed]) -> list[record.Figure]:
        by_wiring = {wiring: [each for each in replays if each.wiring == wiring] for wiring in self.settings.wirings}
        # A fast wrong replay has no speed.
        sound = {
            wiring: [] if any(each.audit.verdict == "invalid" for each in found) else found
            for wiring, found in by_wiring.items()
        }
        return [
            *_figures_of("first request to last outcome", sound, "s", lambda it: it.seconds, self.settings.target),
            *_figures_of("CPU of all services and the log", sound, "s", lambda it: it.cpu_s),
            *_figures_of("confirmed orders", by_wiring, "orders", lambda it: it.totals.get(CONFIRMED, 0)),
            *_figures_of("value of the confirmed orders", by_wiring, "minor units", lambda it: it.totals.get(VALUE, 0)),
        ]


def _figures_of(
    name: str,
    by_wiring: Mapping[Wiring, list[Replayed]],
    unit: str,
    value: Callable[[Replayed], float],
    target: str | None = None,
) -> list[record.Figure]:
    """One figure per wiring, side by side."""
    return [
        measure.figure(f"{name} in {wiring}", [value(each) for each in found], unit, target=target)
        for wiring, found in by_wiring.items()
    ]


def _keep(folder: Path, found: Replayed, number: int) -> None:
    """Write what the callers saw; a replay has no schedule, so latency counts from sending."""
    name = record.slug(found.wiring, "replay", {}, number)
    record.write_table(folder / "records" / f"{name}.arrow", found.callers)
    window = measure.window(found.callers, primary=None, closed=True)
    record.write_histograms(folder, measure.histograms(name, window))


def _compared(found: Replayed, first: Replayed) -> Replayed:
    """With the check that it ended as the first replay did, order by order."""
    same = same_outcomes(first.ends, found.ends)
    return replace(found, audit=Audit({**found.audit.checks, same.id: same}))


def _line(each: Replayed) -> str:
    return (
        f"{each.wiring}: {each.seconds:,.1f} s, {each.cpu_s:,.1f} s of CPU, "
        f"{each.totals.get(CONFIRMED, 0):,} confirmed, value {each.totals.get(VALUE, 0):,}, audit {each.audit.verdict}"
    )

"""Any two meshes of one application under the same load: which holds more of it, at what price, and told alike?

In each turn every mesh is asked the same, from the same seed, at each load; the meshes take turns, forwards and
backwards, and each load has a fresh mesh of its own, which is audited. What is asked, and the words of the report, are
the application's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from benchmarks import load_steps
from benchmarks.benchmark import Say, Settings, begin, label, recorded, scratch
from benchmarks.filled_load import fill
from benchmarks.load_steps import StepSettings
from benchmarks.turns import MESH_S, Turns
from eventmesh import configuration, shipped
from eventmesh import mesh as meshes
from eventmesh.application import optional
from eventmesh.errors import ConfigurationError, InputError
from eventmesh.lab import run as runs
from eventmesh.mesh import Mesh
from eventmesh.report import measure, record
from eventmesh.report.agreement import Told, agreement
from eventmesh.report.machine import Watch
from eventmesh.report.progress_bar import Report
from eventmesh.report.ways import Way, load_of, way_of
from eventmesh.runtime.running import Measured, RunningMesh, measure_load, seed_with
from eventmesh.workload import Workload, WorkloadOptions

#: Starts a mesh whose log will lie in the folder, for as long as it is entered: ``(mesh, folder, seed)``.
Start = Callable[[Mesh, Path, int], AbstractContextManager[RunningMesh]]
#: Starts what meshes of so many processes run on.
Runtime = Callable[[int], AbstractContextManager[Start]]
#: Seconds after which a load, or what it left to do, counts as hung: a mesh works off what was too much for it.
LOAD_S = 3_600.0


class CompareSettings(StepSettings):
    """A benchmark file of this question. ``options`` are the application's own, as ``eventmesh run`` takes them."""

    meshes: list[Path]
    options: dict[str, Any] = Field(default_factory=dict)
    runtime: Literal["ray", "simulated"] = "ray"
    #: No mesh is started that would not be done by then, however few turns there were; Ray's own start counts.
    time_budget_s: float = Field(gt=0)

    @classmethod
    def given(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """An input and its mapping are options of the applications that have them."""
        others = {name: value for name, value in options.items() if name not in ("input", "mapping", "options")}
        own = {name: options.get(name) for name in ("input", "mapping")}
        chosen = {**{name: value for name, value in own.items() if value is not None}, **(options.get("options") or {})}
        return {**others, "options": chosen}


@dataclass(frozen=True)
class Candidate:
    """A mesh that is compared; ``place`` among them: the others are held against the first."""

    place: int
    name: str
    file: Path
    mesh: Mesh = field(compare=False, repr=False)

    @property
    def way(self) -> Way:
        """As a report knows it."""
        return Way(self.mesh.wiring, "", "", self.mesh.asks, self.name, self.place)


@dataclass(frozen=True)
class Setting:
    """A mesh and the load that is offered to it."""

    candidate: Candidate
    offered_per_s: float

    @property
    def axis(self) -> dict[str, float]:
        """Where its points stand."""
        return {"offered_per_s": self.offered_per_s}


@contextmanager
def on_ray(processes: int) -> Iterator[Start]:
    """A Ray of our own."""
    from eventmesh.runtime.on_ray.cluster import MeshOnRay, embedded_ray

    with embedded_ray(processes):
        yield lambda mesh, log, seed: MeshOnRay(mesh, log, seed=seed)


@contextmanager
def simulated(processes: int) -> Iterator[Start]:
    """A virtual clock."""
    from eventmesh.runtime.simulated.running import SimulatedMesh

    yield lambda mesh, log, seed: nullcontext(SimulatedMesh(mesh, seed=seed))


RUNTIMES: Mapping[str, Runtime] = {"ray": on_ray, "simulated": simulated}


class Compare:
    """The loads, upwards; each mesh until one is too much for it."""

    settings_type: ClassVar[type[Settings]] = CompareSettings

    def __init__(
        self,
        settings: CompareSettings,
        *,
        quick: bool,
        meshes: Path,
        runtime: Runtime | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.clock = settings, clock
        self.runtime = runtime or RUNTIMES[settings.runtime]
        self.name = label(settings, quick=quick)
        self._told: dict[tuple[Candidate, float], dict[int, Told]] = {}
        self._too_much: dict[tuple[int, Candidate], float] = {}

    @cached_property
    def candidates(self) -> list[Candidate]:
        """The meshes, read. Raises :class:`EventmeshError` for what cannot be compared."""
        files = [shipped.find("meshes", given) for given in self.settings.meshes]
        if len(files) < 2:
            named = f"found {files[0]} alone" if files else "found none"
            raise InputError(f"two meshes of one application are compared, {named}: write --mesh A --mesh B")
        for number, file in enumerate(files):
            if any(file.samefile(other) for other in files[:number]):
                raise InputError(
                    f"{file} is named twice. Name two meshes, or copy the file and change what is compared"
                )
        loaded = [meshes.load(file) for file in files]
        for file, mesh in zip(files, loaded, strict=True):
            self._is_of(loaded[0].description.application, file, mesh)
        names = _names(files, loaded)
        return [Candidate(*each) for each in zip(range(len(files)), names, files, loaded, strict=True)]

    def _is_of(self, application: str, file: Path, mesh: Mesh) -> None:
        found = mesh.description.application
        if found != application:
            problem = f"is {found!r}, and the first mesh is of {application!r}: they cannot be asked the same"
            hint = "Compare meshes of one application"
            raise ConfigurationError(problem, file=str(file), path="application", hint=hint)

    @cached_property
    def _options(self) -> Mapping[str, Any]:
        """Those of the application, checked."""
        mesh, chosen = self.candidates[0].mesh, self.settings.options
        application = mesh.description.application
        model: type[WorkloadOptions] = optional(mesh.application, "WORKLOAD") or WorkloadOptions
        own = model.model_fields.keys() - WorkloadOptions.model_fields.keys()
        for name in chosen:
            if name not in own:
                known = [f"--{each.replace('_', '-')}" for each in sorted(own)]
                hint = f"It has {', '.join(known)}" if known else "It has none"
                raise InputError(f"the workload of {application!r} has no option --{name.replace('_', '-')}. {hint}")
        checked = configuration.validate(model, dict(chosen), path="options")
        return {name: getattr(checked, name) for name in chosen}

    def grid(self) -> list[list[Setting]]:
        """The loads of a turn, and at each the meshes."""
        return [[Setting(each, load) for each in self.candidates] for load in self.settings.offered_per_s]

    def loads(self, seed: int) -> dict[float, Workload]:
        """What is asked at each load. Raises :class:`EventmeshError` where some mesh could not be asked that."""
        settings, (first, *_) = self.settings, self.candidates
        found = {}
        for offered in settings.offered_per_s:
            make = partial(_workload, first.file, self._options, seed, offered)
            work = fill(make, offered, settings.warmup_s + settings.window_s, first.mesh.words)
            for each in self.candidates:
                runs.check_answered(each.mesh, each.file, work)
            found[offered] = work
        return found

    def describe(self) -> list[str]:
        """One line per mesh, and how long it takes. Makes the loads: a mistake is told before anything starts."""
        settings, loads = self.settings, self.loads(0)
        words = self.candidates[0].mesh.words
        told = ", ".join(f"{len(work.load):,} at {offered:g} {words.requests}/s" for offered, work in loads.items())
        lines = [f"{each.way.label}: {told}, x {settings.repetitions}, up to what it holds" for each in self.candidates]
        if settings.runtime == "simulated":
            return [*lines, "on a virtual clock: no CPU and no memory is measured"]
        minutes = sum(MESH_S + len(work.load) / offered for offered, work in loads.items()) / 60
        minutes *= len(self.candidates) * settings.repetitions
        return [*lines, f"about {minutes:.0f} minutes, at most {settings.time_budget_s / 60:.0f}"]

    def run(self, folder: Path, *, seed: int, report: Report, say: Say) -> record.Run:
        """Measure every mesh at every load, and see what callers were told."""
        settings, loads, words = self.settings, self.loads(seed), self.candidates[0].mesh.words
        durabilities = dict.fromkeys(each.mesh.log.durability for each in self.candidates)
        begun = begin(
            self.name, settings, seed=seed, durability=" and ".join(durabilities), warmup_s=settings.warmup_s,
            words=words, runtime=settings.runtime, **_imported(loads, folder),
        )  # fmt: skip
        for each in self.candidates:
            runs.write_mesh(folder, each.mesh, f"mesh-{each.place + 1}.yaml")
        measuring = self._measured(folder, loads, seed, report)
        return recorded(folder, begun, measuring, say=say, line=_line, conclude=self._conclusion)

    def _measured(
        self, folder: Path, loads: Mapping[float, Workload], seed: int, report: Report
    ) -> Generator[record.Repetition, None, None]:
        settings = self.settings
        turns = Turns(self.grid(), settings.repetitions, settings.time_budget_s, self.clock)
        with self.runtime(max(each.mesh.processes for each in self.candidates)) as start:
            for done, (turn, setting) in enumerate(turns):
                report("meshes", done, max(turns.planned, done + 1))
                if self._too_much.get((turn, setting.candidate), setting.offered_per_s) < setting.offered_per_s:
                    turns.took(setting, disturbed=False)
                    continue
                with scratch(folder) as room:
                    work = loads[setting.offered_per_s]
                    measured = self._put_under_load(start, setting, work, folder, room, seed + turn, turn)
                turns.took(setting, disturbed=measured.disturbed is not None)
                yield measured

    def _put_under_load(
        self, start: Start, setting: Setting, work: Workload, folder: Path, room: Path, seed: int, turn: int
    ) -> record.Repetition:
        """From seeding to audit. ``seed`` is of the mesh's own chances: what is asked is the same in every turn."""
        mesh, watch = setting.candidate.mesh, Watch()
        with start(mesh, room / runs.LOG, seed) as running:
            seed_with(running, work.seeding)
            with nullcontext() if running.virtual else watch:
                load = measure_load(running, "load", work.load, window=work.window, timeout_s=LOAD_S, drain_s=LOAD_S)
            history = running.history(load.callers)
            running.save_log(room / runs.LOG)
        audited, *_ = runs.audit_folder(mesh, room, history)
        found = _repetition(setting, load, record.AuditRecord.of(audited), turn, self.settings.warmup_s, watch.use)
        name = record.slug(setting.candidate.name, mesh.wiring, setting.axis, turn)
        record.write_table(folder / "records" / f"{name}.arrow", load.callers)
        record.write_histograms(folder, measure.histograms(name, _window(load, self.settings.warmup_s)))
        self._told.setdefault((setting.candidate, setting.offered_per_s), {})[turn] = Told.of(load.callers)
        if found.saturated:
            self._too_much[turn, setting.candidate] = setting.offered_per_s
        return found

    def _conclusion(self, repetitions: list[record.Repetition]) -> dict[str, Any]:
        points = load_steps.points(repetitions)
        return {
            "points": points,
            "agreements": self._agreements(),
            "verdict": record.worst(point.audit.verdict for point in points),
            "figures": [load_steps.little(repetitions, self.candidates[0].mesh.words)],
        }

    def _agreements(self) -> list[record.Agreement]:
        first, *others = self.candidates
        found = [
            agreement(
                first.name, other.name, {"offered_per_s": offered},
                self._told.get((first, offered), {}), self._told.get((other, offered), {}),
            )
            for other in others
            for offered in self.settings.offered_per_s
        ]  # fmt: skip
        return [each for each in found if each is not None]


def _names(files: Sequence[Path], loaded: Sequence[Mesh]) -> list[str]:
    """What the meshes call themselves; where two say the same, their files' names, or else their paths."""
    for names in ([mesh.name for mesh in loaded], [file.stem for file in files]):
        if len(set(names)) == len(names):
            return names
    return [str(file) for file in files]


def _workload(file: Path, options: Mapping[str, Any], seed: int, rate: float, number: int) -> Workload:
    return runs.prepare(file, options, seed=seed, rate=rate, number=number).workload


def _imported(loads: Mapping[float, Workload], folder: Path) -> dict[str, Any]:
    """Of an input that was read, what became of its rows. It is the same at every load."""
    work = next(iter(loads.values()))
    if work.write_refused is not None:
        work.write_refused(folder / "refused.csv")
    same = all(each.summary == work.summary for each in loads.values())
    return {"imported": work.summary, "import_told": work.told} if work.summary and same else {}


def _window(load: Measured, warmup_s: float) -> measure.Window:
    return measure.window(load.callers, primary=None, warmup_s=warmup_s)


def _repetition(
    setting: Setting, load: Measured, audit: record.AuditRecord, turn: int, warmup_s: float,
    use: record.MachineUse | None,
) -> record.Repetition:  # fmt: skip
    way = setting.candidate.way
    found = measure.point(
        _window(load, warmup_s), wiring=way.wiring, join=way.join, asks=way.asks, axis=setting.axis, audit=audit,
        turn=turn, machine_use=use, staleness_us=load.staleness_us, cpu_s=load.cpu_s, memory_mb=load.memory_mb,
        bytes_moved=load.bytes_moved,
    )  # fmt: skip
    known = {"mesh": way.mesh, "place": way.place, "outcomes": runs.count_outcomes(load.callers)}
    return found.model_copy(update=known)


def _line(each: record.Repetition) -> str:
    latency = each.completed_latency_ms
    p99 = f"p99 {latency.p99:,.1f} ms" if latency else "nothing completed"
    note = " (saturated)" if each.saturated else ""
    note += f" (disturbed: {each.disturbed})" if each.disturbed else ""
    return (
        f"{way_of(each).label}: {load_of(each):,.0f} offered/s, {each.completed_per_s:,.0f} completed/s, {p99}{note}, "
        f"audit {each.audit.verdict}"
    )

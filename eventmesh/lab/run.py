"""One run of a mesh on Ray, from an empty folder to an audited one."""

from __future__ import annotations

import fcntl
import json
import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from eventmesh import configuration, shipped
from eventmesh import mesh as meshes
from eventmesh.application import load_package, optional
from eventmesh.audit.audit import Evidence, judge
from eventmesh.audit.refusal_checks import refused_inputs
from eventmesh.audit.verdict import Audit
from eventmesh.errors import ConfigurationError, EnvironmentUnavailable, EventmeshError, InputError
from eventmesh.history import History
from eventmesh.log.store import open_read_only
from eventmesh.mesh import Mesh
from eventmesh.report import measure, record
from eventmesh.report.progress_bar import Report, silent
from eventmesh.runtime.running import check_public, measure_load, seed_with
from eventmesh.service import Trigger
from eventmesh.workload import Workload, WorkloadOptions

if TYPE_CHECKING:
    from eventmesh.runtime.running import Measured, RunningMesh

LATEST = "latest"
#: So many refusals are told one by one.
REFUSALS_SHOWN = 5
LOG = "log"
MESH_FILE = "mesh.yaml"
#: What the data directory of a mesh that stays has besides: what callers were told, and journals of loads under way.
CALLERS = "callers"


def new_folder(runs: Path, name: str) -> Path:
    """A fresh folder ``runs/NAME-TIME``, which ``runs/latest`` then points at."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = runs / f"{name}-{stamp}"
    number = 1
    while folder.exists():
        number += 1
        folder = runs / f"{name}-{stamp}-{number}"
    with _reachable(folder):
        folder.mkdir(parents=True)
        point_latest(folder)
    return folder


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """The folder is held: whoever prunes runs leaves it alone. A lock of the folder itself ends with its process."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # held already, or on a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def point_latest(folder: Path) -> None:
    """Make ``latest`` beside ``folder`` point at it."""
    link = folder.parent / LATEST
    fresh = folder.parent / f".{LATEST}.{os.getpid()}"
    fresh.symlink_to(folder.name)
    fresh.replace(link)


def empty_folder(folder: Path) -> Path:
    """``folder``, made if need be; :class:`InputError` where something lies in it already."""
    must_be_empty(folder)
    with _reachable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def must_be_empty(folder: Path) -> None:
    """Nothing lies in ``folder``, or it is not there yet; :class:`InputError` otherwise."""
    with _reachable(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} is not an empty folder. Name another with --output, or remove it")


@contextmanager
def _reachable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        problem = f"{folder}: the folder cannot be made or read ({error.strerror})"
        raise EnvironmentUnavailable(f"{problem}. Name another with --output") from error


def load_mesh(
    running: RunningMesh, workload: Workload, report: Report, *, prefix: str = "", timeout_s: float = 3_600.0
) -> Measured:
    """Seed, load, drain. ``prefix`` is what tells this run's workloads from those of other runs on the same mesh."""
    seed_with(
        running, workload.seeding, lambda command, state: _reporter(report, f"seeding {command}")(state),
        name=workload.seeding_name or f"{prefix}seeding",
    )  # fmt: skip
    return measure_load(
        running, f"{prefix}load", workload.load, window=workload.window,
        progress=_reporter(report, running.mesh.words.requests), timeout_s=timeout_s,
    )  # fmt: skip


def _reporter(report: Report, stage: str) -> Any:
    return lambda state: report(stage, state["sent"] - state["open"], state["total"])


def run(
    mesh: Mesh,
    workload: Workload,
    folder: Path,
    *,
    seed: int = 0,
    rtt_ms: float = 0.0,
    runtime: str = "ray",
    report: Report = silent,
) -> record.Run:
    """Run ``workload`` on ``mesh``, audit it, and leave ``folder`` with log, history and ``run.json``."""
    with writing(folder):
        begun = begin(mesh.name, mesh, workload, folder, seed=seed, runtime=runtime)
        with (
            own_mistakes(mesh),
            running_mesh(mesh, folder / LOG, runtime, seed=seed, rtt_ms=rtt_ms, report=report) as running,
        ):
            measured = load_mesh(running, workload, report)
            history = running.history(measured.callers)
            running.save_log(folder / LOG)
        return conclude(begun, mesh, workload, measured, history, folder, report=report)


@contextmanager
def running_mesh(
    mesh: Mesh, log: Path, runtime: str, *,
    seed: int, rtt_ms: float = 0.0, rows_per_s: Mapping[str, float] = MappingProxyType({}), report: Report = silent,
) -> Iterator[RunningMesh]:  # fmt: skip
    """A mesh of its own whose log will lie in ``log``. ``rows_per_s`` is how fast services of a simulation are."""
    if runtime == "simulated":
        from eventmesh.runtime.simulated.running import SimulatedMesh

        yield SimulatedMesh(mesh, seed=seed, rtt_ms=rtt_ms, rows_per_s=rows_per_s)
        return
    from eventmesh.runtime.on_ray.cluster import MeshOnRay, embedded_ray  # importing ray takes seconds

    with embedded_ray(mesh.processes):
        report("starting", 0, 0)
        with MeshOnRay(mesh, log, rtt_ms=rtt_ms, seed=seed) as running:
            yield running


def write_mesh(folder: Path, mesh: Mesh, name: str = MESH_FILE) -> None:
    """The resolved description, as ``mesh.yaml``."""
    (folder / name).write_text(yaml.safe_dump(mesh.resolved(), sort_keys=False))


def begin(name: str, mesh: Mesh, workload: Workload, folder: Path, *, seed: int, runtime: str = "ray") -> record.Run:
    """Leave in ``folder`` what the run is, before it loads anything: mesh, record, and refused rows of its input."""
    write_mesh(folder, mesh)
    begun = record.start(
        name, seed=seed, config=mesh.resolved(), source=Path(__file__).parent, now=datetime.now(UTC),
        durability=mesh.log.durability, runtime=runtime, words=mesh.words, imported=workload.summary,
        import_told=workload.told,
    )  # fmt: skip
    record.write(folder, begun)
    if workload.write_refused is not None:
        workload.write_refused(folder / "refused.csv")
    return begun


def conclude(
    begun: record.Run, mesh: Mesh, workload: Workload, measured: Measured, history: History, folder: Path, *,
    report: Report, shared_log: bool = False,
) -> record.Run:  # fmt: skip
    """Audit what was seen, and complete the record.

    The application's totals are the log's: with a ``shared_log``, of several runs, they are not this one's.
    """
    history.write(folder)
    report("audit", 0, 0)
    found = audit_folder(mesh, folder, history)
    if shared_log:
        found = found._replace(totals={})
    finished = finish(begun, measured, found, open_timers(history))
    histograms = {}
    if measure.work_done(measured.callers):
        latencies = measure.window(measured.callers, primary=None, closed=not workload.load.at.any())
        histograms = measure.histograms("load", latencies)
    record.write(folder, finished, {"load": measured.callers}, histograms)
    return finished


class Audited(NamedTuple):
    """An audit, the application's own totals, and by service how many inputs it has refused on record and why first."""

    audit: Audit
    totals: Mapping[str, int]
    refused: Mapping[str, tuple[int, str]]


def audit_folder(mesh: Mesh, folder: Path, history: History) -> Audited:
    """Audit the log under ``folder``, and count what it holds."""
    with closing(open_read_only(folder / LOG)) as reader, closing(Evidence(mesh, reader, history)) as evidence:
        audited = judge(evidence)
        (folder / "audit.json").write_text(json.dumps(audited.to_json(), indent=2))
        return Audited(audited, _totals(evidence), _refused(evidence))


def _refused(evidence: Evidence) -> dict[str, tuple[int, str]]:
    try:
        return refused_inputs(evidence)
    except EventmeshError:  # as for the totals
        return {}


def _totals(evidence: Evidence) -> dict[str, int]:
    totals = optional(evidence.mesh.application, "totals")
    if totals is None:
        return {}
    try:
        counted: dict[str, int] = totals(evidence)
    except EventmeshError:  # the log cannot be read: the audit has said so, check by check
        return {}
    return counted


def open_timers(history: History) -> dict[str, int]:
    """How many timers were open at the end, by what they are for."""
    return dict(sorted(Counter(kind for state in history.states for kind, _, _ in state.timers).items()))


def finish(begun: record.Run, measured: Measured, audited: Audited, timers: Mapping[str, int]) -> record.Run:
    """The record of a complete run. Of a virtual clock no throughput follows, and nobody used any CPU by it."""
    time = "virtual time" if begun.virtual else "time"
    figures = [measure.figure(f"{time} from the first request to the last outcome", [measured.seconds], "s")]
    if not begun.virtual and measured.seconds:
        done = measure.work_done(measured.callers)
        figures.append(measure.figure("requests with their outcome", [done / measured.seconds], "1/s"))
    figures += [measure.figure(f"CPU of {role}", [value], "s") for role, value in sorted(measured.cpu_s.items())]
    outcomes = {**count_outcomes(measured.callers), **audited.totals}
    refusals = first_refusals(measured.callers)
    asks = [record.AskRecord(asker=by, message=name, **counts) for (by, name), counts in measured.asks.items()]
    return begun.model_copy(
        update={
            "status": "complete", "verdict": audited.audit.verdict, "outcomes": outcomes, "refusals": refusals,
            "timers": timers, "asks": asks, "inputs_refused": [
                record.InputsRefused(service=service, count=count, first=first)
                for service, (count, first) in sorted(audited.refused.items())
            ],
            "figures": figures, "audit": record.AuditRecord.of(audited.audit),
        }
    )  # fmt: skip


def count_outcomes(callers: pa.Table) -> dict[str, int]:
    """How many requests ended in each outcome; ``unanswered`` where none came.

    ``repeated`` are those that were told what an earlier request had led to, whatever that was.
    """
    repeated = pc.fill_null(callers["repeated"], False)
    outcomes = pc.if_else(repeated, measure.REPEATED, pc.fill_null(callers["outcome"], "unanswered"))
    return dict(Counter(outcomes.to_pylist()))


def first_refusals(callers: pa.Table) -> list[str]:
    """What was refused, and why: the first so many, :data:`REFUSALS_SHOWN`."""
    refused = callers.filter(pc.equal(callers["outcome"], measure.REFUSED)).slice(0, REFUSALS_SHOWN)
    return [
        f"{row['command']} {row['key']}: {(row['reason'] or '').removeprefix('refused: ')}"
        for row in refused.select(["command", "key", "reason"]).to_pylist()
    ]


@dataclass(frozen=True)
class Prepared:
    """A mesh and a workload, checked and ready to run."""

    mesh: Mesh
    workload: Workload

    def summary(self) -> dict[str, Any]:
        """What a run would do."""
        return {
            "mesh": self.mesh.name,
            "wiring": self.mesh.wiring,
            "services": ", ".join(self.mesh.services),
            "seeding": sum(len(stage) for stage in self.workload.seeding),
            "requests": len(self.workload.load),
            **({"import": dict(self.workload.summary)} if self.workload.summary else {}),
        }


def options_model(mesh_file: Path) -> type[WorkloadOptions]:
    """What a user may choose of the workload of this mesh's application."""
    mesh_file = shipped.find("meshes", mesh_file)
    package = configuration.read(mesh_file).get("application")
    if not isinstance(package, str):
        return WorkloadOptions  # whoever reads the mesh says what is wrong
    model: type[WorkloadOptions] | None = optional(load_package(package, file=str(mesh_file)), "WORKLOAD")
    return model or WorkloadOptions


def prepare(
    mesh_file: Path,
    chosen: Mapping[str, Any] = MappingProxyType({}),
    *,
    seed: int = 0,
    rate: float | None = None,
    number: int = 1,
    asked: pa.Table | None = None,
    stored: bool = False,
) -> Prepared:
    """Read and check everything that a run needs, before anything starts.

    ``chosen`` are the application's own options (:func:`options_model`). ``number`` counts the runs on a mesh that
    stays, whose description is a ``stored`` one, and ``asked`` is what the callers of the earlier ones asked and were
    told.
    """
    mesh_file = shipped.find("meshes", mesh_file)
    mesh = meshes.load_stored(mesh_file) if stored else meshes.load(mesh_file)
    model: type[WorkloadOptions] = optional(mesh.application, "WORKLOAD") or WorkloadOptions
    options = model(seed=seed, rate=rate, number=number, asked=asked, **chosen)
    workload = _asked(mesh, mesh_file, options)
    check_answered(mesh, mesh_file, workload)
    if asked is not None:
        _check_asks_anew(mesh, mesh_file, workload, asked)
    return Prepared(mesh, workload)


def _check_asks_anew(mesh: Mesh, mesh_file: Path, workload: Workload, asked: pa.Table) -> None:
    """A load that asks nothing but what was asked before would be all repeats, unless its user brings it as a file."""
    load = workload.load
    if workload.summary is not None or not len(load):
        return
    before = set(zip(asked["command"].to_pylist(), asked["key"].to_pylist(), strict=True))
    if before.issuperset(zip(load.commands, load.keys, strict=True)):
        problem = f"every one of the {len(load):,} {mesh.words.requests} of this run was placed by an earlier one"
        problem += f", such as {load.commands[0]} {load.keys[0]}: nothing would happen"
        hint = "Let workload(options) name them by options.number, which counts the runs on a mesh"
        raise ConfigurationError(problem, file=str(mesh_file), path="application", hint=hint)


def check_answered(mesh: Mesh, mesh_file: Path, workload: Workload) -> None:
    """Whoever sends a command that nobody takes waits for ever: each that the run sends has its service and rule."""
    for stage in (*workload.seeding, workload.load):
        check_public(mesh, stage)
    messages, triggers = mesh.application.DECLARED.messages, mesh.application.WIRINGS[mesh.wiring]
    for command in sorted({each for stage in (*workload.seeding, workload.load) for each in stage.commands}):
        service = messages[command].service
        problem = f"the run sends {command} to {service!r}"
        if service not in mesh.services:
            hint = f"Write under services: {service}: {{}}"
            problem = f"{problem}, which is not described"
        elif command not in triggers.get(service, Trigger()).rules:
            hint = f"Choose another wiring: {', '.join(mesh.application.WIRINGS)}"
            problem = f"{problem}, which has no rule for it in wiring {mesh.wiring!r}"
        else:
            continue
        raise ConfigurationError(problem, file=str(mesh_file), path="services", hint=hint)


def _asked(mesh: Mesh, mesh_file: Path, options: WorkloadOptions) -> Workload:
    """What the application's workload asks; whatever its code does is said as its own, with the line that did it."""
    make = _workload_of(mesh, mesh_file)
    with own_mistakes(mesh, str(mesh_file)):
        return make(options)


@contextmanager
def own_mistakes(mesh: Mesh, file: str = "") -> Iterator[None]:
    """What the application's own code raises within is a :class:`ConfigurationError` that says where it did.

    The shop is ours: what it raises is a fault of the framework's, with its traceback.
    """
    try:
        yield
    except (EventmeshError, OSError, MemoryError):
        raise
    except Exception as error:
        package = mesh.description.application
        if package.startswith("eventmesh.") or not raised_at(error, package):
            raise
        problem = f"the package {package!r} fails: {said_by(error, package)}"
        raise ConfigurationError(problem, file=file, path="application") from error


def said_by(error: Exception, package: str) -> str:
    """An error in a sentence, with where the application raised it."""
    where = raised_at(error, package)
    return f"{type(error).__name__}: {error}{f' ({where})' if where else ''}"


def raised_at(error: Exception, package: str) -> str:
    """The innermost line of the application's own that an error went through; empty where it went through none."""
    folder = Path(load_package(package).__file__ or "").parent
    frames = [each for each in traceback.extract_tb(error.__traceback__) if Path(each.filename).is_relative_to(folder)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}, {frames[-1].name}" if frames else ""


def _workload_of(mesh: Mesh, mesh_file: Path) -> Callable[[WorkloadOptions], Workload]:
    found: Callable[[WorkloadOptions], Workload] | None = optional(mesh.application, "workload")
    if found is None:
        package = mesh.description.application
        problem = f"the package {package!r} has no workload, so there is nothing to run"
        hint = "Give it a function workload(options), or name a package that has one"
        raise ConfigurationError(problem, file=str(mesh_file), path="application", hint=hint)
    return found

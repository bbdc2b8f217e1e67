"""Runs a failure experiment: each wiring under the same load and the same faults, drained, audited, and reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eventmesh.errors import EnvironmentUnavailable, EventmeshError
from eventmesh.lab import known
from eventmesh.lab import run as runs
from eventmesh.lab.experiment import Experiment, MeshUp, Ready, Strike, load_s
from eventmesh.lab.nemesis import Attempt, Nemesis
from eventmesh.lab.run import LOG, Prepared, running_mesh
from eventmesh.lab.standing import OneRun, loading
from eventmesh.lab.standing_record import Standing, find, reached
from eventmesh.lab.standing_runs import all_callers, earlier, next_run
from eventmesh.report import experiment_measure, experiment_report, measure, record
from eventmesh.report.experiment_measure import Law, Question
from eventmesh.report.probes import STRETCHES, Seen
from eventmesh.report.progress_bar import Report, silent
from eventmesh.report.record import ExperimentRecord, FaultRecord, WiringRecord
from eventmesh.runtime.running import Measured, RunningMesh, measure_load, seed_with

SECOND = 1_000_000
#: Seconds that a load may take beyond its schedule, its faults and its drain.
PATIENCE_S = 120.0
#: Of a load as fast as possible, this part is open at a time.
OPEN_SHARE = 16
#: What is said where there is no mesh to heal: a run that starts its own heals it, and ends it.
NOTHING_UP = {"no mesh is up": "nothing to heal"}


def run(ready: Ready, folder: Path, *, report: Report = silent) -> record.Run:
    """Run every wiring on a mesh of its own, and leave in ``folder`` the journal, the reports, and each wiring's run.

    What was found is kept, and said to be aborted, when it ends early; the faults are healed in any case.
    """
    with runs.writing(folder):
        wirings = (_wiring(ready, name, _folder(ready, name, folder), report) for name in ready.prepared)
        return _reported(ready, folder, wirings)


def run_on(
    standing: Standing, load: Callable[[MeshUp], Ready], folder: Path, *,
    report: Report = silent, say: Callable[[str], object],
) -> record.Run:  # fmt: skip
    """Run one wiring on a mesh that is up, as the next of its runs; ``load`` reads the experiment for it.

    Its supervisor heals it should this process end before it has.
    """
    with loading(standing, folder, report=report, say=say) as one:
        ready = load(mesh_up(standing, one.number))
        return _reported(ready, folder, (_on(one, ready, name, folder, report) for name in ready.prepared))


def mesh_up(standing: Standing, number: int | None = None) -> MeshUp:
    """A mesh that is up, as an experiment needs it; ``number`` is that of the run, the next one if not given."""
    data = standing.data
    number = next_run(data) if number is None else number
    return MeshUp(standing.name, data / runs.MESH_FILE, number, all_callers(earlier(data)))


def _folder(ready: Ready, name: str, folder: Path) -> Path:
    return folder / ready.prepared[name].mesh.name


def _reported(ready: Ready, folder: Path, wirings: Iterable[WiringRecord]) -> record.Run:
    """Gather what is found of each wiring in turn, and write it down however it ends."""
    begun, found = _begin(ready), list[WiringRecord]()
    status: record.Status = "aborted"
    try:
        found.extend(wirings)
        status = "complete"
    finally:
        finished = _finish(begun, found, status)
        record.write(folder, finished)
        experiment_report.write(folder, finished, end=datetime.now(UTC))
    return finished


def heal(name: str | None = None) -> dict[str, str]:
    """End every fault of the mesh called ``name``, or of all that are up; what became of it, by name.

    A mesh that is named and cannot be reached is an error; of all, it is told beside the others.
    """
    if name is not None:
        return {name: _healed(find(name))}
    return {each: _told(each) for each in known.meshes_up()} or NOTHING_UP


def _healed(standing: Standing) -> str:
    with reached(standing) as running:
        running.heal()
    return "healed"


def _told(name: str) -> str:
    try:
        return _healed(find(name))
    except EventmeshError as error:
        return str(error)


def exit_code(finished: record.Run) -> int:
    """3: an audit said otherwise than expected; 5: nobody can say; 4: the hypothesis did not hold; 0: it held."""
    assert finished.experiment is not None
    wirings, expected = finished.experiment.wirings, finished.experiment.audit_expected
    if any(each.audit is not None and each.audit.verdict not in (expected, "unknown") for each in wirings):
        return 3
    if finished.verdict == "unknown" or any(each.deviated is None for each in wirings):
        return 5
    return 4 if any(each.deviated for each in wirings) else 0


def _begin(ready: Ready) -> record.Run:
    experiment, first = ready.experiment, next(iter(ready.prepared.values())).mesh
    levels = {each.mesh.log.durability for each in ready.prepared.values()}
    return record.start(
        ready.name, seed=ready.seed, config=experiment.model_dump(mode="json", by_alias=True),
        source=Path(__file__).parent, now=datetime.now(UTC), durability=", ".join(sorted(levels)),
        runtime=ready.runtime, words=first.words, warmup_s=experiment.load.warmup_s,
        experiment=ExperimentRecord(
            title=experiment.title, description=experiment.description, hypothesis=experiment.hypothesis.title,
            rate=experiment.load.rate, served=list(experiment.load.served), audit_expected=experiment.audit.expect,
            rollbacks=[each.name for each in experiment.rollbacks], mesh_up=ready.up,
        ),
    )  # fmt: skip


def _finish(begun: record.Run, found: Sequence[WiringRecord], status: record.Status) -> record.Run:
    assert begun.experiment is not None
    expected = begun.experiment.audit_expected
    wrong = any(each.audit is not None and each.audit.verdict not in (expected, "unknown") for each in found)
    verdict = "invalid" if wrong else record.worst(each.verdict for each in found)
    return begun.model_copy(
        update={
            "status": status, "verdict": verdict if status == "complete" or wrong else "unknown",
            "experiment": begun.experiment.model_copy(update={"wirings": list(found)}),
            "figures": [figure for each in found for figure in each.figures],
            "faults": [{"mesh": each.mesh, **fault.planned} for each in found for fault in each.faults],
        }
    )  # fmt: skip


# --- one wiring ---------------------------------------------------------------------------------------


def _wiring(ready: Ready, name: str, folder: Path, report: Report) -> WiringRecord:
    """One mesh from its start to its audit, in a folder that is like that of any run."""
    prepared, experiment = ready.prepared[name], ready.experiment
    mesh, rows = prepared.mesh, experiment.simulated.rows_per_s
    capacity = _capacity_per_s(ready, name, folder, report)
    folder.mkdir(parents=True)
    begun = runs.begin(mesh.name, mesh, prepared.workload, folder, seed=ready.seed, runtime=ready.runtime)
    with running_mesh(
        mesh, folder / LOG, ready.runtime, seed=ready.seed, rows_per_s=rows, report=report
    ) as running:  # fmt: skip
        nemesis = Nemesis(running, [each.planned for each in experiment.strikes], ready.seed)
        try:
            measured = _loaded(running, nemesis, prepared, experiment, report)
        except EnvironmentUnavailable as error:
            return _failed(ready, name, nemesis, str(error))
        history = running.history(measured.callers)
        running.save_log(folder / LOG)
    finished = runs.conclude(begun, mesh, prepared.workload, measured, history, folder, report=report)
    return _judged(ready, name, nemesis, measured, finished, capacity)


def _on(one: OneRun, ready: Ready, name: str, folder: Path, report: Report) -> WiringRecord:
    """A mesh that is up, under load and faults. Offsets of moments are counted from where the log ends before them."""
    prepared, experiment = ready.prepared[name], ready.experiment
    folder = _folder(ready, name, folder)
    folder.mkdir(parents=True)
    nemesis = Nemesis(one.running, [each.planned for each in experiment.strikes], ready.seed, counts_from_load=True)

    def load() -> Measured:
        return _loaded(one.running, nemesis, prepared, experiment, report, prefix=one.prefix)

    try:
        measured, finished = one.carry_out(prepared.workload, folder, load, seed=ready.seed)
    except EnvironmentUnavailable as error:
        return _failed(ready, name, nemesis, str(error))
    return _judged(ready, name, nemesis, measured, finished, None)


def _loaded(
    running: RunningMesh, nemesis: Nemesis, prepared: Prepared, experiment: Experiment, report: Report,
    *, prefix: str = "",
) -> Measured:  # fmt: skip
    """Seeding, then the load with the faults in it; they are healed before the mesh has to come to rest.

    ``prefix`` is what tells the workloads from those of other runs on the same mesh.
    """
    workload, words = prepared.workload, running.mesh.words
    seed_with(running, workload.seeding, name=workload.seeding_name or f"{prefix}seeding")
    longest = sum(each.fault.duration_s or 0.0 for each in experiment.strikes)
    patience = load_s(prepared) + longest + experiment.drain.timeout_s + PATIENCE_S

    def told(state: Mapping[str, Any]) -> None:
        report(f"{running.mesh.name}: {words.requests}", state["sent"] - state["open"], state["total"])

    with nemesis:
        return measure_load(
            running, f"{prefix}load", workload.load, window=workload.window, progress=told, timeout_s=patience,
            drain_s=experiment.drain.timeout_s, ended=nemesis.heal,
        )  # fmt: skip


def _capacity_per_s(ready: Ready, name: str, folder: Path, report: Report) -> float | None:
    """What a mesh of the same kind serves per second as fast as possible, without a fault; V8's mu."""
    prepared = ready.capacity.get(name)
    if prepared is None or not any(each.law == "drain" and each.mesh == name for each in ready.experiment.predictions):
        return None
    report(f"{name}: what it serves at most", 0, 0)
    folder = folder.with_name(f"{folder.name}-capacity")
    rows = ready.experiment.simulated.rows_per_s
    with running_mesh(prepared.mesh, folder / LOG, ready.runtime, seed=ready.seed, rows_per_s=rows) as running:
        seed_with(running, prepared.workload.seeding)
        load = prepared.workload.load
        # Few at a time, so that what is left to do after the last outcome is little beside what was done.
        measured = measure_load(running, "load", load, window=max(1, len(load) // OPEN_SHARE))
    return measure.work_done(measured.callers) / measured.seconds


def _judged(
    ready: Ready, name: str, nemesis: Nemesis, measured: Measured, finished: record.Run, capacity: float | None
) -> WiringRecord:
    experiment, mesh, attempts = ready.experiment, ready.prepared[name].mesh, nemesis.attempts
    callers, audited = measured.callers, finished.audit
    assert audited is not None
    begin = float(measure.times(callers, "intended_at").min())
    there = [each.struck for each in attempts if each.struck is not None]
    end = float(measure.times(callers, "intended_at").max())
    first = min((float(each.at_us) for each in there), default=end)
    over = max((float(each.ended_us or each.at_us) for each in there), default=end)
    seen = Seen.of(callers, experiment.load.served, first_us=first, over_us=over, audit=audited.verdict)
    faults = [
        _fault(strike, each, begin, seen.end) for strike, each in zip(experiment.strikes, attempts, strict=True)
    ]  # fmt: skip
    unknown = [_why_not(each) for each in faults if not each.happened]
    found = experiment_measure.stretches(
        seen, _questions(experiment), warmup_s=experiment.load.warmup_s, settle_s=experiment.settle_s
    )
    unknown += [
        f"no {mesh.words.request} was due in the stretch {each.stretch!r}" for each in found if each.to_s <= each.from_s
    ]
    unknown += _not_healed(nemesis)
    shows_performance = audited.verdict != "invalid"
    return WiringRecord(
        mesh=name, wiring=mesh.wiring, status="completed", unknown=unknown,
        sentence=experiment_measure.sentence(name, seen, mesh.words, audited.verdict),
        verdict="unknown" if unknown or audited.verdict == "unknown" else "valid",
        deviated=None if unknown else experiment_measure.deviated(found), **_expected(experiment, name),
        faults=faults, not_healed=nemesis.not_healed, stretches=found, audit=audited, outcomes=finished.outcomes,
        curves=experiment_measure.curves(seen) if shows_performance else None, capacity_per_s=capacity,
        figures=experiment_measure.predicted(
            seen, [Law(each.law, each.tolerance) for each in experiment.predictions if each.mesh == name],
            mesh=name, rate=experiment.load.rate, capacity_per_s=capacity,
        ) if shows_performance and not unknown else [],
        began_at=datetime.fromtimestamp(begin / SECOND, UTC), seconds=measured.seconds,
    )  # fmt: skip


def _failed(ready: Ready, name: str, nemesis: Nemesis, why: str) -> WiringRecord:
    """A mesh that did not finish its load, or did not come to rest."""
    strikes = zip(ready.experiment.strikes, nemesis.attempts, strict=False)
    return WiringRecord(
        mesh=name, wiring=ready.prepared[name].mesh.wiring, status="failed", verdict="unknown", deviated=None,
        sentence=f"{name}: it did not come to rest, so nothing can be said.", unknown=[why, *_not_healed(nemesis)],
        faults=[FaultRecord(name=each.name, planned=each.planned.model_dump(mode="json")) for each, _ in strikes],
        not_healed=nemesis.not_healed, **_expected(ready.experiment, name),
    )  # fmt: skip


def _not_healed(nemesis: Nemesis) -> list[str]:
    return [] if nemesis.not_healed is None else [f"its faults could not be healed: {nemesis.not_healed}"]


def _expected(experiment: Experiment, name: str) -> dict[str, Any]:
    stated = experiment.expected.get(name)
    return {} if stated is None else {"expected": stated.hypothesis, "why": stated.why}


def _questions(experiment: Experiment) -> list[Question]:
    held = [
        Question(each.name, each.probe, each.within_s, stretch, each.tolerance)
        for stretch in STRETCHES
        for each in experiment.hypothesis.probes
        if each.held_in(stretch)
    ]
    looks = [each for each in experiment.method if not isinstance(each, Strike)]
    return held + [Question(each.name, each.probe, each.within_s, each.over) for each in looks]


def _fault(strike: Strike, attempt: Attempt, begin: float, end: float) -> FaultRecord:
    planned, struck = strike.planned.model_dump(mode="json"), attempt.struck
    if struck is None:
        return FaultRecord(name=strike.name, planned=planned, refused=attempt.refused)
    return FaultRecord(
        name=strike.name, planned=planned, at_s=(struck.at_us - begin) / SECOND,
        ended_s=None if struck.ended_us is None else (struck.ended_us - begin) / SECOND,
        shows=dict(struck.shows), details=dict(struck.details), overlapped=struck.overlapped(int(begin), int(end)),
    )  # fmt: skip


def _why_not(fault: FaultRecord) -> str:
    """Why nothing can be said where this fault was not there."""
    if fault.refused is not None:
        return f"{fault.name}: it could not be made ({fault.refused})"
    if fault.at_s is None:
        return f"{fault.name}: its moment did not come while the load lasted"
    if not fault.overlapped:
        return f"{fault.name}: it came when the load was over"
    return f"{fault.name}: nothing shows that it happened"

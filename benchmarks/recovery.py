"""What dies or is offered too much comes back: how often is the run valid, and how long until all is as before?

Three parts, each of which a file may leave out: processes that are killed or stopped at an offset drawn from the seed,
effects after a death with a long history behind them, and three times the load that the mesh holds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from pydantic import Field

from benchmarks import recovery_trials as trials
from benchmarks.benchmark import PROCESSES, Part, Say, Settings, begin, label, recorded, scratch
from benchmarks.recovery_trials import Overload, Resume, Resumed
from eventmesh import mesh as meshes
from eventmesh.errors import EnvironmentUnavailable
from eventmesh.lab.overload import Overloaded, normal_after_s, throttled
from eventmesh.lab.recovery import Death, Survived
from eventmesh.mesh import Mesh
from eventmesh.progress import position_name
from eventmesh.report import measure, record
from eventmesh.report.progress_bar import Report
from eventmesh.runtime import faults
from eventmesh.runtime.faults import AtOffset, Freeze, Kill
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from eventmesh.workload import Workload

#: Seconds that a process stands still: longer than any lease, so that its supervisor kills it.
FROZEN_S = 600.0


class Victim(Part):
    """Who is killed (SIGKILL) or stopped (SIGSTOP), and the topic that shows its work; null for the generator."""

    service: str
    how: Literal["SIGKILL", "SIGSTOP"]
    watched: str | None

    def death(self, topic: str, offset: int) -> Death:
        """At this offset of the topic's partition 0."""
        process = faults.process_name(self.service)
        fault = Kill(process=process) if self.how == "SIGKILL" else Freeze(process=process, lasts_s=FROZEN_S)
        return Death(AtOffset(partition=position_name(topic, 0), offset=offset), fault, self.watched)

    def __str__(self) -> str:
        return f"{self.service} {'killed' if self.how == 'SIGKILL' else 'stopped'}"


class Kills(Part):
    """Each victim on meshes of its own, at an offset of ``topic``'s partition 0 between the two of ``offsets``."""

    victims: list[Victim] = Field(min_length=1)
    topic: str
    offsets: tuple[int, int]
    orders: int = Field(ge=1)
    rate: float = Field(gt=0)
    products: int = Field(ge=1)
    lease_s: float = Field(gt=0)


class RecoverySettings(Settings):
    """A benchmark file of this question. ``repetitions`` are the runs of each victim; the parts may be null."""

    mesh: str
    kills: Kills | None
    resume: Resume | None
    overload: Overload | None


@dataclass(frozen=True)
class Trial:
    """One victim's run; where it did not come to its end, ``problem`` says why."""

    victim: str
    number: int
    death: Death
    survived: Survived | None
    problem: str = ""

    @property
    def audit(self) -> record.AuditRecord:
        """Unknown, where the run did not end."""
        if self.survived is None:
            return record.AuditRecord(verdict="unknown", checks={})
        return record.AuditRecord.of(self.survived.audit)


class Ground(Protocol):
    """Where trials take place; each is on a fresh mesh whose log is kept in the folder."""

    def survive(
        self, mesh: Mesh, workload: Workload, death: Death, folder: Path, *, seed: int, lease_s: float
    ) -> Survived:
        """See :func:`eventmesh.lab.recovery.survive`."""

    def resume(self, mesh: Mesh, part: Resume, folder: Path, *, seed: int) -> list[Resumed]:
        """See :func:`benchmarks.recovery_trials.resume`."""

    def overload(self, mesh: Mesh, part: Overload, folder: Path, *, seed: int) -> Overloaded:
        """See :func:`benchmarks.recovery_trials.overload`."""


#: Starts what meshes run on, for as long as it is entered.
Runtime = Callable[[], AbstractContextManager[Ground]]
Sample = Trial | Resumed | Overloaded


@contextmanager
def on_ray() -> Iterator[Ground]:
    """A Ray of our own."""
    from eventmesh.runtime.on_ray.cluster import embedded_ray

    with embedded_ray(PROCESSES):
        yield trials.OnRay()


class Recovery:
    """The parts, one after the other."""

    settings_type: ClassVar[type[Settings]] = RecoverySettings

    def __init__(self, settings: RecoverySettings, *, quick: bool, meshes: Path, runtime: Runtime = on_ray) -> None:
        self.settings, self.meshes, self.runtime = settings, meshes, runtime
        self.name = label(settings, quick=quick)

    def describe(self) -> list[str]:
        """One line per victim, and per part."""
        kills, resume, overload = self.settings.kills, self.settings.resume, self.settings.overload
        lines = []
        if kills is not None:
            where = f"at an offset of {kills.topic} from {kills.offsets[0]} to {kills.offsets[1]}"
            load = f"{kills.orders} orders at {kills.rate:g}/s"
            lines = [f"{each} {where}, {load} x {self.settings.repetitions}" for each in kills.victims]
        if resume is not None:
            lines.append(f"{' and '.join(resume.victims)} killed behind {resume.facts:,} facts x {resume.repetitions}")
        if overload is not None:
            lines.append(f"{overload.offered_per_s:,.0f} orders/s for {overload.surge_s:g} s x {overload.repetitions}")
        return lines

    def run(self, folder: Path, *, seed: int, report: Report, say: Say) -> record.Run:
        """Every part that the file has."""
        mesh = meshes.load(self.meshes / f"{self.settings.mesh}.yaml")
        begun = begin(self.name, self.settings, seed=seed, durability=mesh.log.durability)
        begun = begun.model_copy(update={"faults": self._faults()})
        measuring = self._measured(mesh, folder, seed, report)
        return recorded(folder, begun, measuring, say=say, line=self._line, conclude=self._conclusion)

    def _faults(self) -> list[dict[str, Any]]:
        victims = self.settings.kills.victims if self.settings.kills is not None else []
        faults = [{"kind": each.how, "of": each.service, "runs": self.settings.repetitions} for each in victims]
        resume = self.settings.resume
        if resume is not None:
            faults += [{"kind": "SIGKILL", "of": each, "runs": resume.repetitions} for each in resume.victims]
        return faults

    def _measured(self, mesh: Mesh, folder: Path, seed: int, report: Report) -> Generator[Sample, None, None]:
        settings = self.settings
        with self.runtime() as ground:
            if settings.kills is not None:
                yield from self._kills(settings.kills, ground, mesh, folder, seed, report)
            if (resume := settings.resume) is not None:
                for number in range(resume.repetitions):
                    report("long histories", number, resume.repetitions)
                    with scratch(folder) as room:
                        yield from ground.resume(mesh, resume, room, seed=seed + number)
            if (overload := settings.overload) is not None:
                for number in range(overload.repetitions):
                    report("overloads", number, overload.repetitions)
                    with scratch(folder) as room:
                        found = ground.overload(mesh, overload, room, seed=seed + number)
                    record.write_table(folder / "records" / f"overload-r{number}.arrow", found.callers)
                    record.write_table(folder / "records" / f"overload-afterwards-r{number}.arrow", found.afterwards)
                    yield found

    def _kills(
        self, part: Kills, ground: Ground, mesh: Mesh, folder: Path, seed: int, report: Report
    ) -> Generator[Trial, None, None]:
        repetitions, victims = self.settings.repetitions, part.victims
        for number in range(repetitions):  # interleaved: a slow minute hits every victim
            orders = generate(part.orders, seed=seed + number, products=part.products)
            dice = random.Random(seed + number)
            for place, victim in enumerate(victims):
                report("faults", number * len(victims) + place, repetitions * len(victims))
                death = victim.death(part.topic, dice.randint(*part.offsets))
                with scratch(folder) as room:
                    yield _try(ground, mesh, of_history(orders, rate=part.rate), victim, death, number, room,
                               seed=seed + number, lease_s=part.lease_s)  # fmt: skip

    def _line(self, each: Sample) -> str:
        if isinstance(each, Trial):
            return _trial_line(each)
        if isinstance(each, Resumed):
            return (
                f"{each.victim} behind {each.facts:,} facts: effects after {each.resumed_s:.1f} s, a bare actor after "
                f"{each.bare_s:.1f} s, {_verdict(each.audit)}"
            )
        told, asked = throttled(each.callers), each.callers.num_rows
        return f"overload: {told:,} of {asked:,} throttled, {throttled(each.afterwards)} afterwards, " + _verdict(
            record.AuditRecord.of(each.audit)
        )

    def _conclusion(self, samples: list[Sample]) -> dict[str, Any]:
        kills = [each for each in samples if isinstance(each, Trial)]
        resumed = [each for each in samples if isinstance(each, Resumed)]
        overloads = [each for each in samples if isinstance(each, Overloaded)]
        audits = [each.audit for each in kills]
        audits += [each.audit for each in resumed if each.audit is not None]
        audits += [record.AuditRecord.of(each.audit) for each in overloads]
        audit = record.AuditRecord.together(audits)
        figures: list[record.Figure] = []
        if self.settings.kills is not None:
            figures += kill_figures(self.settings.kills.victims, kills, self.settings.repetitions)
        if self.settings.resume is not None:
            figures += resume_figures(self.settings.resume, resumed)
        if self.settings.overload is not None:
            figures += overload_figures(self.settings.overload, overloads)
        return {"audit": audit, "verdict": audit.verdict, "figures": figures, "outcomes": _outcomes(kills)}


def _try(
    ground: Ground, mesh: Mesh, workload: Workload, victim: Victim, death: Death, number: int, room: Path, *,
    seed: int, lease_s: float,
) -> Trial:  # fmt: skip
    """A run that never comes to its end is a finding, too: it is counted, and the others go on."""
    try:
        survived = ground.survive(mesh, workload, death, room, seed=seed, lease_s=lease_s)
    except EnvironmentUnavailable as error:
        return Trial(str(victim), number, death, None, str(error))
    return Trial(str(victim), number, death, survived)


def _verdict(found: record.AuditRecord | None) -> str:
    return "not audited" if found is None else f"audit {found.verdict}"


def _trial_line(each: Trial) -> str:
    begun = f"{each.victim} at {each.death.moment.partition}/{each.death.moment.offset}"
    if each.survived is None:
        return f"{begun}: {each.problem.partition(chr(10))[0]}"
    return f"{begun}: work went on after {each.survived.recovery.resumed_s:.2f} s, audit {each.audit.verdict}"


def _outcomes(kills: Sequence[Trial]) -> dict[str, int]:
    if not kills:
        return {}
    verdicts = [each.audit.verdict for each in kills]
    return {"runs with a fault": len(kills), **{f"{name} runs": verdicts.count(name) for name in sorted(set(verdicts))}}


def kill_figures(victims: Sequence[Victim], kills: Sequence[Trial], repetitions: int) -> list[record.Figure]:
    """How many runs of each victim were valid, and how long its work stood still; no time where one was not."""
    figures = []
    for victim in victims:
        mine = [each for each in kills if each.victim == str(victim)]
        valid = [each.survived.recovery for each in mine if each.survived and each.audit.verdict == "valid"]
        counted = [float(len(valid))] if mine else []
        figures.append(measure.figure(f"valid runs, {victim}", counted, "runs", target=f"=={repetitions}"))
        times = [each.resumed_s for each in valid] if len(valid) == len(mine) else []
        figures.append(measure.figure(f"until work goes on, {victim}", times, "s"))
    return figures


def resume_figures(part: Resume, resumed: Sequence[Resumed]) -> list[record.Figure]:
    """How long effects stay away behind a long history, with and without what Ray takes for any actor."""
    figures = []
    for victim in part.victims:
        mine = [each for each in resumed if each.victim == victim]
        sound = [each for each in mine if each.audit is None or each.audit.verdict == "valid"]
        used = sound if len(sound) == len(mine) else []
        facts = f"{part.facts:,} facts" + ("" if part.audited else ", not audited")
        behind = f"{victim} killed behind {facts}"
        figures += [
            measure.figure(f"until effects resume, {behind}", [each.resumed_s for each in used], "s"),
            measure.figure(
                f"the same beyond Ray's restart of a bare actor, {behind}",
                [each.resumed_s - each.bare_s for each in used], "s", target=part.target,
            ),
        ]  # fmt: skip
    return [*figures, measure.figure("restart of a bare actor by Ray", [each.bare_s for each in resumed], "s")]


def overload_figures(part: Overload, overloads: Sequence[Overloaded]) -> list[record.Figure]:
    """Who was told to come back later, what memory did, and when all was as before; nothing where a run is wrong."""
    sound = [each for each in overloads if each.audit.verdict == "valid"]
    used = sound if len(sound) == len(overloads) else []
    after = [normal_after_s(each.callers, part.schedule, part.objective_s) for each in used]
    later = [float(throttled(each.afterwards)) for each in used]
    at = f"at {part.offered_per_s:,.0f} orders/s"
    surge = [each.callers.slice(0, part.schedule.surge) for each in used]
    figures = [
        measure.figure(f"orders throttled {at}", [throttled(each) / each.num_rows for each in surge], "share"),
        measure.figure(f"until normal service after {at[3:]}", [each for each in after if each is not None], "s"),
        measure.figure("orders throttled afterwards", later, "orders", target="==0"),
    ]
    for role in sorted(used[0].memory_before_mb) if used else ():
        figures += [
            measure.figure(f"private memory of {role} before", [each.memory_before_mb[role] for each in used], "MB"),
            measure.figure(f"private memory of {role} after", [each.memory_after_mb[role] for each in used], "MB"),
        ]
    return figures + [
        measure.figure(f"{name}, in any service", [_most(each, queue) for each in used], "rows", target=target)
        for name, queue, target in (
            ("most commands waiting in a task", "commands_queued_rows_max", f"<={part.asks_queued_rows_max}"),
            ("most asks waiting in an inbox", "asked_rows_max", None),
            ("most inputs waiting in a task", "inputs_queued_rows_max", None),
            ("most inputs waiting, inbox included", "delivered_rows_max", None),
        )
    ]


def _most(each: Overloaded, queue: str) -> float:
    return float(max(found[queue] for found in each.queues.values()))

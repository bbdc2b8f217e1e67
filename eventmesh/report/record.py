"""``run.json``: the one source of every report of a run, as pydantic models, and the folder that holds it.

Whoever reads the file finds what was measured, the samples it was worked out from, and what the run was:
seed, commit, machine, versions, resolved configuration. Nothing is measured or judged here.
"""

from __future__ import annotations

import json
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import psutil
import pyarrow as pa
import yaml
from pydantic import AliasChoices, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from eventmesh.application import PLAIN_WORDS, Words
from eventmesh.audit.verdict import Audit, Verdict
from eventmesh.errors import InputError
from eventmesh.report.versions import versions

SCHEMA: Literal["eventmesh.run/1"] = "eventmesh.run/1"
FILE = "run.json"
#: How a service learns what it does not own without asking anybody; by any other name it asks.
LISTENING = ("view", "none")
Status = Literal["complete", "aborted"]
_COMMIT_SECONDS = 10  # a git that waits for a lock must not hold up the end of a run


class _Part(BaseModel):
    """Unknown keys are refused, and so is NaN, which JSON does not know."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_by_name=True, validate_by_alias=True,
        serialize_by_alias=True,
    )  # fmt: skip


class Spread(_Part):
    """A figure over repetitions: the middle one, the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of at least one value. Repetitions are few, so the spread is their range, not an interval of confidence."""
        known = sorted(values)
        return cls(median=statistics.median(known), low=known[0], high=known[-1])


class Percentiles(_Part):
    """Of the requests of one repetition, in milliseconds."""

    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Latency(_Part):
    """Each percentile over the repetitions, in milliseconds."""

    p50: Spread
    p90: Spread
    p99: Spread
    p999: Spread
    max: Spread

    @classmethod
    def of(cls, samples: Sequence[Percentiles]) -> Latency:
        """Statistics over runs, never over the requests of several runs thrown together."""
        return cls(**{name: Spread.of(getattr(each, name) for each in samples) for name in Percentiles.model_fields})


class CheckRecord(_Part):
    """One check of an audit; ``examples`` say in words what was found or what was missing."""

    verdict: Verdict
    examined: int
    violations: int
    title: str = ""
    examples: list[str] = []


class AuditRecord(_Part):
    """The audit of a point, over all its repetitions."""

    verdict: Verdict
    checks: dict[str, CheckRecord]

    @classmethod
    def of(cls, audit: Audit) -> AuditRecord:
        """An audit as it is written down."""
        checks = {
            name: CheckRecord(
                verdict=check.verdict, examined=check.examined, violations=check.violations,
                title=check.title, examples=check.examples,
            )
            for name, check in audit.checks.items()
        }  # fmt: skip
        return cls(verdict=audit.verdict, checks=checks)

    @classmethod
    def together(cls, audits: Sequence[AuditRecord]) -> AuditRecord:
        """The worst verdict of each check, with counts added up and examples kept."""
        names = sorted(
            {name for audit in audits for name in audit.checks}, key=lambda name: (name[:1], len(name), name)
        )
        checks = {name: _merge([audit.checks[name] for audit in audits if name in audit.checks]) for name in names}
        return cls(verdict=worst(audit.verdict for audit in audits), checks=checks)


def _merge(checks: Sequence[CheckRecord]) -> CheckRecord:
    return CheckRecord(
        verdict=worst(check.verdict for check in checks),
        examined=sum(check.examined for check in checks),
        violations=sum(check.violations for check in checks),
        title=checks[0].title,
        examples=[example for check in checks for example in check.examples][:5],
    )


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Invalid if any is, else unknown if any is or there is none at all."""
    found = set(verdicts)
    return "invalid" if "invalid" in found else "valid" if found == {"valid"} else "unknown"


class Counts(_Part):
    """Requests of the measured window, and what became of them."""

    offered: int
    accepted: int
    completed: int
    refused: int  # a definite error instead of an outcome
    unanswered: int  # no outcome when the record ends
    throttled: int  # answers "come back later", several per request where it had to


class Little(_Part):
    """V9: the mean number of open requests, integrated over the records and as throughput times mean latency."""

    measured: float
    predicted: float


class MachineUse(_Part):
    """What the machine did beside the mesh while a repetition was measured: shares of all its cores, and of the time.

    ``others``: programs that are not ours. ``stolen``: what the host of a virtual machine took away.
    ``memory_pressure``: the share of the time in which something waited for memory; None where no kernel tells it.
    """

    others: float = Field(ge=0)
    stolen: float = Field(ge=0)
    memory_pressure: float | None = Field(None, ge=0)


def _asks(known: dict[str, Any]) -> bool:
    """Of a record that does not say it, the way of joining does."""
    return known.get("join") not in LISTENING


#: CPU seconds of a thousand requests, by role; ``run.json`` once named it after the shop's requests.
CPU = AliasChoices("cpu_s_per_1000_requests", "cpu_s_per_1000_orders")


class _OfAWay(_Part):
    """A wiring, and by ``join`` how its services learn what they do not own: the way that a figure is of.

    ``joining`` is the same in the application's words. ``asks``: whether services ask each other on the way, instead of
    listening only. Where whole meshes are compared, ``mesh`` names the one and ``place`` is its place among them, from
    0: the others are held against the first. Where ``place`` is None, what asks is held against what listens.
    """

    wiring: str
    join: str
    joining: str = ""
    asks: bool = Field(default_factory=_asks)
    mesh: str = ""
    place: int | None = None


class Repetition(_OfAWay):
    """One repetition of one point: what the median and the spread of a :class:`Point` are taken from.

    ``turn`` numbers the rounds in which all ways are measured one after the other: repetitions of one turn make a pair.
    ``disturbed`` says what else kept the machine busy meanwhile, where that was too much for a figure to be believed.
    """

    axis: dict[str, float]
    turn: int | None = None
    machine: MachineUse | None = None  # None: not watched
    disturbed: str | None = None
    offered_per_s: float
    accepted_per_s: float
    completed_per_s: float
    accepted_latency_ms: Percentiles | None  # None: no request was accepted
    completed_latency_ms: Percentiles | None
    staleness_ms: Percentiles | None = None
    cpu_s_per_1000_requests: dict[str, float] = Field({}, validation_alias=CPU)
    memory_mb: dict[str, float] = {}
    bytes_moved: float | None = None
    generator_lag_ms_p99: float
    saturated: bool
    counts: Counts
    outcomes: dict[str, int] = {}  # what callers were told, the warm-up included; of comparisons of meshes only
    little: Little
    audit: AuditRecord


class Point(_OfAWay):
    """One point of a sweep, over its repetitions.

    Every figure of performance is None where the audit is invalid: a fast wrong run has no speed. ``void``
    says why a point with figures must not be believed, such as a generator that could not keep its schedule.
    Repetitions that were disturbed take part in no figure, unless all were: then ``disturbed`` says by what.
    """

    axis: dict[str, float]
    repetitions: int = Field(ge=1)
    offered_per_s: Spread
    accepted_per_s: Spread | None
    completed_per_s: Spread | None
    accepted_latency_ms: Latency | None
    completed_latency_ms: Latency | None
    staleness_ms: Latency | None
    cpu_s_per_1000_requests: dict[str, Spread] = Field(validation_alias=CPU)
    memory_mb: dict[str, Spread]
    bytes_moved: Spread | None
    generator_lag_ms_p99: Spread
    saturated: bool | None
    void: str | None = None
    disturbed: str | None = None
    disturbed_repetitions: int = 0
    counts: Counts
    outcomes: dict[str, Spread] = {}
    audit: AuditRecord
    samples: list[Repetition] = []


class Figure(_Part):
    """A value with a target or a prediction beside it, and the samples it can be worked out from again.

    ``target`` is a threshold as k6 writes it (``<1000``, ``>=2``). ``tolerance`` is relative to
    ``predicted`` and was fixed before the run. ``met`` is None where there is neither.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    target: str | None = None
    predicted: float | None = None
    tolerance: float | None = None
    met: bool | None = None
    samples: list[float] = []


class Agreement(_Part):
    """Whether two meshes that were asked the same at one load told their callers the same.

    ``differed`` has a number for each turn in which both were measured: how many of the ``requests`` were told another
    outcome by ``other`` than by ``mesh``. ``totals_differed``: in how many of those turns some outcome was told more
    often by one mesh than by the other. ``within``: how many were told another outcome than in the first repetition of
    the same mesh, a number for each further repetition of either. ``examples`` name some that differed.
    """

    mesh: str
    other: str
    axis: dict[str, float]
    requests: int
    differed: list[int]
    totals_differed: int
    within: list[int]
    examples: list[str] = []


class FirstLook(_Part):
    """A run that is too short to decide: which command would, and about how long that takes."""

    decides: str
    minutes: float = Field(gt=0, le=1_440, allow_inf_nan=False)


class InputsRefused(_Part):
    """How many inputs a service has refused on record, and what the ``first`` was and why."""

    service: str
    count: int
    first: str


class AskRecord(_Part):
    """What came of the asks of one message, by one asker, during the load: see AskCounts of the runtime."""

    asker: str
    message: str
    attempts: int = 0
    repeats: int = 0
    timeouts: int = 0
    given_up: int = 0
    hedges_sent: int = 0
    hedges_won: int = 0
    cache_hits: int = 0
    cache_stale: int = 0
    cache_misses: int = 0
    circuit_opened: int = 0
    circuit_not_permitted: int = 0
    bulkhead_queued: int = 0
    bulkhead_full: int = 0


class FaultRecord(_Part):
    """A fault of an experiment: what was planned, when it was there, in seconds after the load began, what shows it.

    ``ended_s`` is None where nobody saw its end, ``at_s`` where it was not made; ``refused`` says why, if known.
    """

    name: str
    planned: dict[str, Any]
    at_s: float | None = None
    ended_s: float | None = None
    shows: dict[str, int] = {}
    details: dict[str, str] = {}
    overlapped: bool = False  # whether it was there while requests were due
    refused: str | None = None

    @property
    def happened(self) -> bool:
        """Whether anything shows it, and callers could notice it."""
        return self.overlapped and any(self.shows.values())


class ProbeRecord(_Part):
    """What a probe said. ``met`` is None where it has no tolerance, or there is no data."""

    name: str
    probe: str
    within_s: float | None = None
    output: float | str | None
    tolerance: str | tuple[float, float] | None = None
    met: bool | None = None


class StretchRecord(_Part):
    """A stretch of the load, in seconds after it began; ``met`` is None where a probe had no data."""

    stretch: Literal["before", "during", "after"]
    from_s: float
    to_s: float
    met: bool | None
    probes: list[ProbeRecord] = []
    looks: list[ProbeRecord] = []  # probes of the method, which have no tolerance


class Curves(_Part):
    """What happened in each slice of ``slice_s`` seconds, the first of which begins with the load.

    Counts are per second; ``latency_ms_p99`` is of the requests due in the slice that were served, None without any.
    ``open`` are those that were due and had no outcome at the end of the slice.
    """

    slice_s: float = Field(gt=0)
    accepted_per_s: list[float]
    completed_per_s: list[float]
    failed_per_s: list[float]
    latency_ms_p99: list[float | None]
    open: list[int]


class WiringRecord(_Part):
    """What an experiment found of one mesh. ``verdict`` is about the method: whether it can say anything at all.

    ``deviated``: the hypothesis did not hold; None where nobody can say. Of an audit that found the run invalid no
    performance is shown.
    """

    mesh: str
    wiring: str
    sentence: str
    status: Literal["completed", "failed"]
    verdict: Verdict
    deviated: bool | None
    expected: Literal["holds", "deviates"] | None = None
    why: str = ""
    unknown: list[str] = []  # why the verdict is unknown
    faults: list[FaultRecord] = []
    not_healed: str | None = None  # why the rollbacks failed; None where they were carried out
    stretches: list[StretchRecord] = []
    curves: Curves | None = None
    capacity_per_s: float | None = None
    figures: list[Figure] = []
    outcomes: dict[str, int] = {}
    audit: AuditRecord | None = None
    began_at: AwareDatetime | None = None  # on the mesh's own clock
    seconds: float | None = None  # from the first request to the last outcome, on the mesh's own clock

    @property
    def as_expected(self) -> bool | None:
        """Whether the hypothesis did what was stated before the run; None where nothing was, or nobody knows."""
        if self.expected is None or self.deviated is None:
            return None
        return self.deviated is (self.expected == "deviates")


class ExperimentRecord(_Part):
    """A failure experiment: its question, and what was found of each mesh."""

    title: str
    description: str
    hypothesis: str
    rate: float
    served: list[str]
    audit_expected: Literal["valid", "invalid"] = "valid"
    rollbacks: list[str] = []
    mesh_up: str | None = None  # the mesh that was up, None where each wiring had a mesh of its own
    wirings: list[WiringRecord] = []


class Run(_Part):
    """A run, a benchmark or an experiment, as ``run.json`` holds it."""

    schema_: Literal["eventmesh.run/1"] = Field(SCHEMA, alias="schema")
    name: str
    seed: int
    commit: str
    machine: dict[str, str | int | float]
    versions: dict[str, str]
    config: dict[str, Any]
    durability: str
    runtime: Literal["ray", "simulated"] = "ray"
    started_at: AwareDatetime
    status: Status
    warmup_s: float
    first_look: FirstLook | None = None
    faults: list[dict[str, Any]] = []
    verdict: Verdict
    words: Words = PLAIN_WORDS  # the application's
    imported: dict[str, int | dict[str, int]] | None = Field(None, alias="import")  # what an input was read as, counted
    import_told: str = ""  # the same in a sentence of the application's
    outcomes: dict[str, int] = {}
    machine_use: MachineUse | None = None  # of a benchmark as a whole; None: not watched
    refusals: list[str] = []  # what was refused, and why: the first of them
    inputs_refused: list[InputsRefused] = []  # on record, by every run so far on a mesh that stays
    timers: dict[str, int] = {}  # open at the end, and not waited for: how many, by what they are for
    audit: AuditRecord | None = None  # of a run without points; each point has its own
    asks: list[AskRecord] = []  # of a run without points, whose services ask each other
    points: list[Point] = []
    agreements: list[Agreement] = []  # of a comparison of meshes, for each load
    figures: list[Figure] = []
    experiment: ExperimentRecord | None = None

    @property
    def virtual(self) -> bool:
        """Whether its times are of a virtual clock."""
        return self.runtime == "simulated"


def start(name: str, *, seed: int, config: Mapping[str, Any], source: Path, now: datetime, **known: Any) -> Run:
    """A run that has only begun: machine, versions and commit gathered, aborted until it is complete.

    ``source`` is a folder of the checkout the code runs from; ``known`` holds further fields of :class:`Run`.
    """
    fields: dict[str, Any] = {"status": "aborted", "verdict": "unknown", "durability": "unknown", "warmup_s": 0.0}
    return Run(
        name=name, seed=seed, config=dict(config), started_at=now,
        commit=commit(source), machine=machine(), versions=versions(), **(fields | known),
    )  # fmt: skip


def machine() -> dict[str, str | int | float]:
    """What the figures depend on: processor, cores, memory, system. Not the machine's name: reports are passed on."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", listed.read_text(errors="replace"), re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()


def commit(folder: Path) -> str:
    """The commit of the checkout at ``folder``, with ``-dirty`` where files differ; ``unknown`` outside of git.

    Installed inside somebody's own repository, in its ``.venv`` for instance, the folder has no file that git tracks.
    """
    try:
        if not _git(folder, "ls-files"):
            return "unknown"
        return _git(folder, "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(folder: Path, *words: str) -> str:
    answered = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=_COMMIT_SECONDS
    )
    return answered.stdout.strip()


def slug(wiring: str, join: str, axis: Mapping[str, float], repetition: int) -> str:
    """The file name of a repetition's records: ``views-view-rtt_ms=1-offered_per_s=400-r0``."""
    parts = [wiring, join, *(f"{name}={value:g}" for name, value in axis.items()), f"r{repetition}"]
    return re.sub(r"[^\w.=-]", "_", "-".join(parts))


def write(
    folder: Path, run: Run, callers: Mapping[str, pa.Table] | None = None, histograms: Mapping[str, str] | None = None
) -> None:
    """Write the run's folder: ``run.json``, ``configuration.yaml``, ``records/NAME.arrow``, ``latency/NAME.hgrm``.

    ``callers`` are the callers' tables by :func:`slug`; ``histograms`` the text of ``.hgrm`` files by name.
    ``run.json`` comes last and whole, so a folder that has one has all the rest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "configuration.yaml").write_text(yaml.safe_dump(run.model_dump(mode="json")["config"], sort_keys=False))
    for name, table in (callers or {}).items():
        write_table(folder / "records" / f"{name}.arrow", table)
    write_histograms(folder, histograms or {})
    unfinished = folder / f"{FILE}.unfinished"
    unfinished.write_text(run.model_dump_json(indent=1) + "\n")
    unfinished.replace(folder / FILE)


def write_table(target: Path, table: pa.Table) -> None:
    """Write raw records as an Arrow file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_file(target, table.schema) as writer:
        writer.write_table(table)


def write_histograms(folder: Path, histograms: Mapping[str, str]) -> None:
    """Write each text as ``latency/NAME.hgrm`` of a run's folder."""
    for name, text in histograms.items():
        target = folder / "latency" / f"{name}.hgrm"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


_OTHER = "It is of another version, or damaged: `eventmesh runs list` shows the runs that can be read"


def read(folder: Path) -> Run:
    """The run that :func:`write` wrote. Raises :class:`InputError` where there is none, or of another form."""
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"{folder}: no run is recorded here ({FILE} is missing)")
    try:
        document = json.loads(path.read_text())
        return Run.model_validate(document)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: found what is no JSON: expected a run of the form {SCHEMA}. {_OTHER}") from error
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "its form"
        raise InputError(f"{path}: {where} is not as a run of the form {SCHEMA} has it. {_OTHER}") from error

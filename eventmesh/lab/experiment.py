"""A failure experiment as a file describes it, in Chaos Toolkit's shape: what is believed, what is done to find out.

The *steady-state hypothesis* has probes with tolerances, which are held before, during and after the faults. The
*method* has actions, each a fault with its moment, and probes that only look. Reading checks everything that can be
known before a mesh is started.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from eventmesh import configuration, shipped
from eventmesh import mesh as meshes
from eventmesh.configuration import describe, mistake, suggestion
from eventmesh.errors import ConfigurationError
from eventmesh.lab import run as runs
from eventmesh.lab.run import Prepared
from eventmesh.report.probes import PROBES, Stretch, Tolerance, check_tolerance
from eventmesh.runtime import faults
from eventmesh.runtime.faults import AtTime, Fault, Moment, Planned, WithinTime
from eventmesh.workload import WorkloadOptions

Runtime = Literal["simulated", "ray"]
#: What each runtime is called where faults say that they have it.
RUNTIMES: Mapping[Runtime, faults.Runtime] = {"simulated": "simulated", "ray": "on_ray"}
Law = Literal["outage-share", "backlog", "drain"]
Text = Annotated[str, StringConstraints(min_length=1)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
SEED_MAX = 2**32 - 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=False, defer_build=True)


class AskedProbe(_Part):
    """A probe of the registry, with the seconds that some need."""

    probe: str = Field(json_schema_extra={"enum": [*sorted(PROBES)]}, description="What is looked at.")
    within_s: Seconds | None = Field(None, description="Seconds from the time due; for shares of what was in time.")

    @field_validator("probe")
    @classmethod
    def _is_known(cls, probe: str) -> str:
        if probe not in PROBES:
            raise mistake("unknown probe", suggestion(probe, PROBES))
        return probe

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> AskedProbe:
        needs = PROBES[self.probe].needs_within_s
        if needs and self.within_s is None:
            raise mistake(f"is missing: {self.probe} looks at what was in time", "Write within_s: 2", "within_s")
        if not needs and self.within_s is not None:
            raise mistake(f"does nothing: {self.probe} has no limit of time", "Leave it out", "within_s")
        return self


class HeldProbe(AskedProbe):
    """A probe with its tolerance, and the stretches in which it must be kept."""

    type: Literal["probe"] = "probe"
    name: Text = Field(description="What is believed, in words.")
    tolerance: Tolerance = Field(
        description="A threshold such as '<0.01', a range such as [45, 55], or for the audit a word such as valid."
    )
    when: tuple[Stretch, ...] = Field((), min_length=1, description="In which stretches; all that it can be asked in.")

    @field_validator("tolerance", mode="before")
    @classmethod
    def _may_be_one(cls, tolerance: Any) -> Any:
        numbers = isinstance(tolerance, list) and [type(each) in (int, float) for each in tolerance]
        if isinstance(tolerance, str) or numbers == [True, True]:
            return tolerance
        raise mistake("must be a threshold or a range", "Write it as '<0.01' or as [45, 55]")

    @model_validator(mode="after")
    def _fits(self) -> HeldProbe:
        probe = PROBES[self.probe]
        try:
            check_tolerance(self.tolerance, probe)
        except ValueError as error:
            raise mistake(f"{self.tolerance!r} is no tolerance of {self.probe}: {error}", key="tolerance") from error
        for stretch in self.when:
            if stretch not in probe.stretches:
                hint = suggestion(stretch, probe.stretches)
                raise mistake(f"{self.probe} cannot be asked {stretch} the faults", hint, "when")
        return self

    def held_in(self, stretch: Stretch) -> bool:
        """Whether it must be kept in this stretch."""
        return stretch in (self.when or PROBES[self.probe].stretches)


class Hypothesis(_Part):
    """What is believed of the mesh, whatever the method does to it."""

    title: Text
    probes: tuple[HeldProbe, ...] = Field(min_length=1)


class Strike(_Part):
    """A fault and its moment."""

    type: Literal["action"] = "action"
    name: Text = Field(description="What is done, in words.")
    moment: Moment
    fault: Fault

    @property
    def planned(self) -> Planned:
        """As the runtimes take it."""
        return Planned(moment=self.moment, fault=self.fault)


class Look(AskedProbe):
    """A probe without a tolerance: what it says stands in the journal."""

    type: Literal["probe"] = "probe"
    name: Text
    over: Stretch = Field("during", description="The stretch that it looks at.")

    @model_validator(mode="after")
    def _can_be_asked(self) -> Look:
        if self.over not in PROBES[self.probe].stretches:
            hint = suggestion(self.over, PROBES[self.probe].stretches)
            raise mistake(f"{self.probe} cannot be asked {self.over} the faults", hint, "over")
        return self


class Rollback(_Part):
    """What is done after the method, whatever became of it."""

    type: Literal["action"] = "action"
    name: Text
    action: Literal["heal"] = Field("heal", description="heal: every fault that lasts is ended.")


class Load(_Part):
    """What callers ask while it goes on."""

    rate: float = Field(gt=0, le=1_000_000, description="Requests per second, on a schedule.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the application's workload.")
    served: tuple[Text, ...] = Field(
        min_length=1, description="The outcomes that callers want; all others are failures."
    )
    warmup_s: float = Field(0, ge=0, le=3_600, description="Seconds of the load that no probe looks at.")


class SimulatedSection(_Part):
    """How fast the processes of the simulation are: its clock is virtual, so that is an assumption, and is told."""

    rows_per_s: dict[str, Annotated[float, Field(gt=0, le=1e6)]] = Field(
        default_factory=dict, description="Rows that a process of this service takes per second."
    )


class Drain(_Part):
    """The time that the mesh has to finish everything."""

    timeout_s: Seconds = 120


class AuditSection(_Part):
    """What the audit must say: an experiment that breaks a rule on purpose expects it to be found."""

    expect: Literal["valid", "invalid"] = "valid"


class Expected(_Part):
    """What is expected of one wiring, stated before anything is run."""

    hypothesis: Literal["holds", "deviates"]
    why: Text


class Prediction(_Part):
    """A law whose value stands beside the measured one; ``tolerance`` is relative to it."""

    law: Law
    mesh: Text
    tolerance: float = Field(gt=0, le=1)


class Capacity(_Part):
    """A load as fast as possible, on a mesh of its own without faults: what it serves per second is V8's mu."""

    options: dict[str, Any] = Field(default_factory=dict, description="Options of the application's workload.")


class Experiment(_Part):
    """A failure experiment. Its ``title`` is the question that it answers."""

    version: Literal["eventmesh.experiment/1"] = Field(alias="schema")
    title: Text
    description: Text
    mesh: Text | None = Field(None, description="A mesh that ships, or a mesh file beside this one.")
    meshes: tuple[Text, ...] = Field((), min_length=1, description="Several, run one after the other alike.")
    seed: int = Field(0, ge=0, le=SEED_MAX)
    load: Load
    simulated: SimulatedSection = SimulatedSection()
    hypothesis: Hypothesis = Field(alias="steady-state-hypothesis")
    method: tuple[Annotated[Strike | Look, Field(discriminator="type")], ...] = Field(min_length=1)
    rollbacks: tuple[Rollback, ...] = (Rollback(name="heal"),)
    settle_s: float = Field(0, ge=0, le=86_400, description="Seconds after the faults until 'after' begins.")
    drain: Drain = Drain()
    audit: AuditSection = AuditSection()
    expected: dict[str, Expected] = Field(default_factory=dict, description="By mesh, stated before the run.")
    capacity: Capacity | None = None
    predictions: tuple[Prediction, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        if bool(self.mesh) == bool(self.meshes):
            raise mistake("name either one mesh or several meshes", "Write meshes: [request, views]", "meshes")
        if not any(isinstance(each, Strike) for each in self.method):
            raise mistake("has no action: nothing would go wrong", "Add an action with a moment and a fault", "method")
        return self

    @property
    def wirings(self) -> tuple[str, ...]:
        """The meshes, as the file names them."""
        return self.meshes or (self.mesh or "",)

    @property
    def strikes(self) -> list[Strike]:
        """The actions of the method."""
        return [each for each in self.method if isinstance(each, Strike)]

    @staticmethod
    def json_schema() -> dict[str, Any]:
        """The JSON Schema of an experiment file, for editors. Options of the workload are the application's."""
        schema = Experiment.model_json_schema(by_alias=True)
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


@dataclass(frozen=True)
class MeshUp:
    """A mesh that is up: its stored description, the number of its next run, and what callers asked of it before."""

    name: str
    mesh_file: Path
    number: int
    asked: pa.Table


@dataclass(frozen=True)
class Ready:
    """An experiment whose every part is checked: meshes and loads by the names that the file has for them.

    ``up`` is what the mesh is called that it runs on, None where it starts its own.
    """

    name: str
    experiment: Experiment
    runtime: Runtime
    seed: int
    prepared: Mapping[str, Prepared]
    capacity: Mapping[str, Prepared]
    up: str | None = None

    def summary(self) -> dict[str, Any]:
        """What a run would do."""
        experiment = self.experiment
        actions = [f"{each.name} ({each.fault.kind})" for each in experiment.strikes]
        return {
            "experiment": self.name,
            "question": experiment.title,
            "meshes": ", ".join(self.prepared) + (f" (up as {self.up})" if self.up else ""),
            "runtime": self.runtime,
            "seed": self.seed,
            "requests": ", ".join(str(len(each.workload.load)) for each in self.prepared.values()),
            "seconds of load": ", ".join(f"{load_s(each):g}" for each in self.prepared.values()),
            "actions": ", ".join(actions),
            "probes": ", ".join(each.name for each in experiment.hypothesis.probes),
        }


def questions(folder: Path) -> dict[str, str]:
    """The name of each experiment and the question it answers."""
    return {path.stem: str(configuration.read(path).get("title", "")) for path in sorted(folder.glob("*.yaml"))}


def load(given: Path, *, runtime: Runtime, seed: int | None = None, up: MeshUp | None = None) -> Ready:
    """The experiment that ships under this name, or of this file, checked against its meshes and the runtime.

    ``seed`` wins over the file's. On a mesh that is ``up`` one wiring is run, the one that the mesh is of, and nothing
    is measured that needs a mesh without faults. Raises :class:`ConfigurationError` for the first mistake; starts
    nothing.
    """
    file = shipped.find("experiments", given)
    experiment = configuration.validate(Experiment, configuration.read(file), file=str(file))
    chosen = experiment.seed if seed is None else seed
    _check_names(experiment, file)
    names = experiment.wirings if up is None else (_name_of(up, experiment, file),)
    prepared_for = partial(_prepared, experiment, file=file, seed=chosen, up=up)
    asked = experiment.load
    prepared = {name: prepared_for(name, options=asked.options, path="load.options", rate=asked.rate) for name in names}
    if len({each.mesh.name for each in prepared.values()}) < len(prepared):
        problem = "two of these meshes have the same name, and a report could not tell them apart"
        raise ConfigurationError(problem, file=str(file), path="meshes")
    capacity = {}
    if experiment.capacity is not None and up is None:
        options = experiment.capacity.options
        capacity = {name: prepared_for(name, options=options, path="capacity.options", rate=None) for name in names}
    for name, each in prepared.items():
        _check_faults(experiment, name, each, file, runtime)
    return Ready(
        file.stem, experiment, runtime, chosen, MappingProxyType(prepared), MappingProxyType(capacity),
        up.name if up is not None else None,
    )  # fmt: skip


def _name_of(up: MeshUp, experiment: Experiment, file: Path) -> str:
    """What the experiment calls the mesh that is up: the one of the same application and wiring."""
    there = meshes.load_stored(up.mesh_file)
    for name in experiment.wirings:
        mesh = meshes.load(_mesh_file(name, file, experiment))
        if (mesh.description.application, mesh.wiring) == (there.description.application, there.wiring):
            return name
    problem = f"{up.name!r} is of {there.description.application}, wiring {there.wiring}, and no mesh here is"
    hint = f"Without --name it starts its own: {', '.join(experiment.wirings)}"
    raise ConfigurationError(problem, file=str(file), path="meshes" if experiment.meshes else "mesh", hint=hint)


def load_s(prepared: Prepared) -> float:
    """How long the schedule of a load is, in seconds."""
    at = prepared.workload.load.at
    return float(at[-1] - at[0]) / 1e6 if len(at) else 0.0


def _check_names(experiment: Experiment, file: Path) -> None:
    """What is said of a mesh is said of one that is run."""
    said = [(f"expected.{name}", name) for name in experiment.expected]
    said += [(f"predictions[{place}].mesh", each.mesh) for place, each in enumerate(experiment.predictions)]
    for path, name in said:
        if name not in experiment.wirings:
            hint = suggestion(name, experiment.wirings)
            raise ConfigurationError(f"no mesh {name!r} is run", file=str(file), path=path, hint=hint)
    if experiment.capacity is None and any(each.law == "drain" for each in experiment.predictions):
        problem = "is missing: the law 'drain' needs to know how much a mesh serves at most"
        raise ConfigurationError(problem, file=str(file), path="capacity", hint="Write capacity: {options: {}}")


def _prepared(
    experiment: Experiment, name: str, *,
    file: Path, options: Mapping[str, Any], path: str, seed: int, rate: float | None, up: MeshUp | None,
) -> Prepared:  # fmt: skip
    mesh_file = _mesh_file(name, file, experiment) if up is None else up.mesh_file
    model = runs.options_model(mesh_file)
    own = model.model_fields.keys() - WorkloadOptions.model_fields.keys()
    for key in options:
        if key in WorkloadOptions.model_fields:
            problem, hint = f"unknown key {key!r}: every load has it already", "Write it outside of options"
        elif key not in own:
            problem, hint = f"unknown key {key!r}", suggestion(key, own)
        else:
            continue
        raise ConfigurationError(problem, file=str(file), path=f"{path}.{key}", hint=hint)
    checked = configuration.validate(model, dict(options), file=str(file), path=path)
    chosen = {key: getattr(checked, key) for key in checked.model_fields_set}
    for service in experiment.simulated.rows_per_s:
        _known_service(service, mesh_file, file)
    if up is None:
        return runs.prepare(mesh_file, chosen, seed=seed, rate=rate)
    return runs.prepare(mesh_file, chosen, seed=seed, rate=rate, number=up.number, asked=up.asked, stored=True)


def _known_service(service: str, mesh_file: Path, file: Path) -> None:
    services = configuration.read(mesh_file).get("services", {})
    if isinstance(services, Mapping) and service not in services:
        path, hint = f"simulated.rows_per_s.{service}", suggestion(service, services)
        raise ConfigurationError(f"{mesh_file.stem} has no service {service!r}", file=str(file), path=path, hint=hint)


def _mesh_file(name: str, file: Path, experiment: Experiment) -> Path:
    """A mesh that ships, or a file whose path is taken from the experiment's folder."""
    path = f"meshes[{experiment.meshes.index(name)}]" if experiment.meshes else "mesh"
    beside = file.parent / name
    if beside.is_file():
        return beside
    try:
        return shipped.find("meshes", Path(name))
    except ConfigurationError as error:
        problem = f"no mesh {name!r}: {error.problem}"
        raise ConfigurationError(problem, file=str(file), path=path, hint=error.hint) from error


def _check_faults(experiment: Experiment, name: str, prepared: Prepared, file: Path, runtime: Runtime) -> None:
    lasts = load_s(prepared)
    for place, each in enumerate(experiment.method):
        if not isinstance(each, Strike):
            continue
        path = f"method[{place}]"
        found = faults.refusals([each.planned], prepared.mesh, RUNTIMES[runtime])
        found += faults.level_refusals([each.fault], prepared.mesh.log.durability, RUNTIMES[runtime])
        for sentence in found:
            raise ConfigurationError(f"{sentence} (mesh {name})", file=str(file), path=f"{path}.fault")
        for begins in _times(each.moment):
            if begins >= lasts:
                problem = f"comes after {begins:g} s, when the load of {lasts:g} s is over"
                raise ConfigurationError(problem, file=str(file), path=f"{path}.moment.seconds")
    if experiment.load.warmup_s >= lasts:
        problem = f"is as long as the load of {lasts:g} s, found {describe(experiment.load.warmup_s)}"
        raise ConfigurationError(problem, file=str(file), path="load.warmup_s")


def _times(moment: Moment) -> Iterator[float]:
    match moment:
        case AtTime(seconds=seconds):
            yield seconds
        case WithinTime(seconds=(_, latest)):
            yield latest

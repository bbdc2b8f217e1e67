"""One run of a simulated mesh with its faults, as data: whoever has it runs the same history again, byte for byte.

A :class:`Case` is what the fuzzer draws from a seed, shrinks and writes to a file. :func:`run` carries it out.
"""

from __future__ import annotations

import hashlib
import json
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from eventmesh import configuration
from eventmesh import mesh as meshes
from eventmesh.application import optional
from eventmesh.audit.audit import Audit, audit
from eventmesh.errors import ConfigurationError
from eventmesh.lab.run import count_outcomes
from eventmesh.log.store import LogReader
from eventmesh.mesh import Mesh
from eventmesh.runtime.faults import Planned, Struck
from eventmesh.runtime.limits import Limits
from eventmesh.runtime.simulated.network import Speeds
from eventmesh.runtime.simulated.simulation import Simulation
from eventmesh.workload import Variation, Workload

#: The caller that brings the load; the others bring in what it needs.
LOAD = "load"
#: Virtual seconds in which a run must be done. The longest wait of a service is two seconds.
SECONDS = 120.0


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Setup(_Data):
    """What is set in the mesh's description. None: as the mesh file has it. The defaults are the plainest."""

    durability: Literal["memory", "os", "fsync"] = "os"
    instances: int = Field(1, ge=1)  # processes of each service, at most one for each partition
    snapshot_rows: int | None = Field(None, ge=1)  # None: no snapshots
    segment_bytes: int | None = Field(None, ge=1)
    retention_ms: int | None = Field(None, ge=-1)

    def applied(self, document: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """A mesh's description with all this in it, and with these ``options`` of its services."""
        topics = {name: {**topic, **self._of_topic()} for name, topic in document["topics"].items()}
        services = {name: {**section, **options.get(name, {})} for name, section in document["services"].items()}
        for topic in topics.values():
            if topic["owner"] in services:
                services[topic["owner"]]["instances"] = min(self.instances, topic["partitions"])
        log = {**document["log"], "durability": self.durability, "snapshot_rows": self.snapshot_rows}
        return {**document, "log": log, "topics": topics, "services": services}

    def _of_topic(self) -> dict[str, int]:
        known = {"segment.bytes": self.segment_bytes, "retention.ms": self.retention_ms}
        return {name: value for name, value in known.items() if value is not None}


class Case(_Data):
    """Everything that a run follows from. ``kept`` are the places of the load's requests that are sent; None: all."""

    seed: int = Field(ge=0)
    mesh: dict[str, Any]  # a description, resolved: whatever defaults change later, it stays this one
    setup: Setup = Setup()
    variation: dict[str, Any] = {}
    speeds: Speeds = Speeds()
    limits: Limits = Limits()
    kept: tuple[int, ...] | None = None
    seeding_faults: tuple[Planned, ...] = ()  # while what the load needs is brought in
    faults: tuple[Planned, ...] = ()

    @property
    def varied(self) -> Variation:
        """What is varied of the application."""
        return configuration.validate(_variation_of(self._application), self.variation, path="variation")

    @property
    def _application(self) -> Any:
        return _parsed(_as_key(self.mesh)).application

    def described(self) -> Mesh:
        """The mesh that is run."""
        options = self.varied.options(self.mesh["wiring"], self.mesh["services"])
        return _parsed(_as_key(self.setup.applied(self.mesh, options)))

    def workload(self) -> Workload:
        """What is asked of it."""
        whole = self.varied.workload(self._application, self.seed)
        if self.kept is None:
            return whole
        places = [place for place in self.kept if place < len(whole.load)]
        return replace(whole, load=whole.load.take(np.array(places, np.int64)))


def _variation_of(application: Any) -> type[Variation]:
    model: type[Variation] = optional(application, "VARIATION") or Variation
    return model


def variation_of(document: Mapping[str, Any]) -> type[Variation]:
    """What can be varied of the application of a mesh."""
    return _variation_of(_parsed(_as_key(document)).application)


def _as_key(document: Mapping[str, Any]) -> str:
    return json.dumps(document)


@lru_cache(maxsize=64)
def _parsed(document: str) -> Mesh:
    return meshes.parse(json.loads(document))


@dataclass
class Ran:
    """What came of a case: an error that ended it, or else an audit; and what was done to it."""

    case: Case
    mesh: Mesh
    simulation: Simulation
    workload: Workload
    plans: list[list[Struck]] = field(default_factory=list)
    load_began_us: int = 0
    error: Exception | None = None
    audit: Audit | None = None

    @property
    def struck(self) -> list[Struck]:
        """Every fault that was carried out, in the order of time."""
        return sorted((each for plan in self.plans for each in plan), key=lambda each: each.at_us)

    @property
    def reader(self) -> LogReader:
        """Reads the log that it left."""
        return LogReader.of(self.simulation.storage)

    def struck_by_kind(self) -> Counter[str]:
        """How often each kind of fault happened."""
        return Counter(each.fault.kind for each in self.struck if each.happened)

    def outcomes(self) -> dict[str, int]:
        """How many of the load's requests had which outcome."""
        client = self.simulation.clients.get(LOAD)
        return count_outcomes(client.caller.table()) if client is not None and client.caller is not None else {}

    def facts(self, topic: str) -> pa.Table:
        """The rows of a topic, partition by partition."""
        partitions = range(self.simulation.topics[topic].partitions)
        return pa.concat_tables([self.reader.table(topic, number) for number in partitions])

    def ended(self) -> str:
        """The verdict of its audit, or the class of the error that ended it."""
        if self.error is not None:
            return type(self.error).__name__
        return self.audit.verdict if self.audit is not None else "unknown"

    def trace(self) -> list[str]:
        """Where the error was raised, outermost call first."""
        if self.error is None:
            return []
        frames = traceback.extract_tb(self.error.__traceback__)
        return [f"{frame.filename.rpartition('eventmesh/')[2]}:{frame.lineno} {frame.name}" for frame in frames]

    def digest(self) -> str:
        """A checksum of all that the run left: every file of its disk, what callers saw, its clock, its error."""
        seen = hashlib.sha256()
        for path, content in sorted(self.simulation.storage.files.items()):
            seen.update(path.encode() + b"\0" + bytes(content))
        for name, client in sorted(self.simulation.clients.items()):
            if client.caller is not None:
                seen.update(f"{name} {client.caller.table().to_pylist()}".encode())
        seen.update(f"{self.simulation.world.now} {type(self.error).__name__}".encode())
        for each in self.struck:
            shows = sorted(each.shows.items())
            seen.update(f"{each.fault.model_dump_json()} {each.at_us} {each.ended_us} {shows}".encode())
        return seen.hexdigest()


def run(case: Case) -> Ran:
    """Bring in what the load needs, then the load and the faults, drain, audit. Errors of the run are kept in it.

    Raises :class:`~eventmesh.errors.ConfigurationError` where the case itself makes no sense.
    """
    mesh, workload = case.described(), case.workload()
    simulation = Simulation(mesh, seed=case.seed, speeds=case.speeds, limits=case.limits)
    ran = Ran(case, mesh, simulation, workload)
    try:
        _carry_out(ran)
        # Nobody sends poison, so whatever a rule could not answer shows that something is broken.
        seen = replace(simulation.history([LOAD]), poison=False)
        ran.audit = audit(mesh, ran.reader, seen)
    except ConfigurationError:
        raise
    except Exception as error:
        ran.error = error
    return ran


def _carry_out(ran: Ran) -> None:
    case, simulation = ran.case, ran.simulation
    stages = {f"seeding-{number}": stage for number, stage in enumerate(ran.workload.seeding)}
    ran.plans.append(simulation.arrange(case.seeding_faults, [*stages, LOAD]))
    for name, stage in stages.items():
        simulation.call(name, stage)
    simulation.drain(seconds=SECONDS)
    ran.load_began_us = simulation.world.now
    ran.plans.append(simulation.arrange(case.faults, [*stages, LOAD]))
    simulation.call(LOAD, ran.workload.load, window=ran.workload.window)
    simulation.drain(seconds=SECONDS)

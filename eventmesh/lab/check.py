"""What can be said of a mesh before it is run: all that is refused when it is read, and whether its folds hold.

A fold is not read but tried: a short run is simulated, and check D10 of the audit folds the facts that it made again.
Check D7 says which rules broke meanwhile: what they would have decided is not there to be folded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eventmesh import mesh as meshes
from eventmesh import shipped
from eventmesh.application import optional
from eventmesh.audit.evidence import Evidence
from eventmesh.audit.refusal_checks import refusals_are_right
from eventmesh.audit.state_checks import ONE_BY_ONE_MAX, states_equal_folds
from eventmesh.audit.timer_checks import timers_are_kept
from eventmesh.lab import run as runs
from eventmesh.log.store import LogReader
from eventmesh.mesh import Mesh
from eventmesh.report.progress_bar import silent
from eventmesh.runtime.simulated.running import SimulatedMesh
from eventmesh.service import Trigger, by_name
from eventmesh.workload import Workload

SCHEMA = "eventmesh.check/1"
#: So many requests, the first of the workload, make the facts that are folded: a second or so.
REQUESTS_MAX = 200


@dataclass(frozen=True)
class Tried:
    """What a short run made, and what is wrong with it. ``unseen`` are the kinds of fact that it did not make."""

    seed: int
    requests: int = 0
    facts: int = 0
    partitions: int = 0
    one_by_one_max: int = ONE_BY_ONE_MAX  # of each partition
    unseen: Sequence[str] = ()
    wrong: Sequence[str] = ()


@dataclass(frozen=True)
class Checked:
    """What was looked at and what was found. ``unanswered`` are commands and queries that nobody takes here."""

    mesh: str
    application: str
    wiring: str
    services: Sequence[str]
    topics: Mapping[str, str]  # with who owns it
    rules: Mapping[str, Sequence[str]]  # by service, the inputs that trigger one
    queries: Mapping[str, Sequence[str]]  # by service, those that it answers
    unanswered: Mapping[str, Sequence[str]]  # by the service that they are for
    tried: Tried | None  # None: there was nothing to make facts with
    not_checked: Sequence[str]
    timers: Sequence[str]  # facts of their own that services have rules for: what timers write

    @property
    def verdict(self) -> str:
        """Whether anything is wrong; what a mesh file has wrong is an error before there is a verdict."""
        return "invalid" if self.tried is not None and self.tried.wrong else "valid"


def check(mesh_file: Path, *, seed: int = 0) -> Checked:
    """Read a mesh and try its folds. Raises :class:`~eventmesh.errors.ConfigurationError` for all that is refused."""
    mesh = meshes.load(shipped.find("meshes", mesh_file))
    tried = None
    if optional(mesh.application, "workload") is not None:
        tried = _tried(mesh, runs.prepare(mesh_file, seed=seed).workload, seed)
    triggers = mesh.application.WIRINGS[mesh.wiring]
    services = mesh.application.SERVICES
    return Checked(
        mesh=mesh.name,
        application=mesh.description.application,
        wiring=mesh.wiring,
        services=list(mesh.services),
        topics={name: topic.owner for name, topic in mesh.topics().items()},
        rules={name: list(triggers.get(name, Trigger()).rules) for name in mesh.services},
        queries={name: list(by_name(services[name].queries)) for name in mesh.services},
        unanswered=_unanswered(mesh),
        tried=tried,
        not_checked=list(_not_checked(mesh_file, tried)),
        timers=_timers(mesh),
    )


def document(checked: Checked) -> dict[str, Any]:
    """As ``--json`` prints it."""
    return {"schema": SCHEMA, **asdict(checked), "verdict": checked.verdict}


def _timers(mesh: Mesh) -> list[str]:
    """The facts of its own topic that each service has a rule for: a timer writes them."""
    triggers, kinds = mesh.application.WIRINGS[mesh.wiring], mesh.application.DECLARED.kinds()
    return [
        f"{service}: {kind}"
        for service in mesh.services
        for kind in triggers.get(service, Trigger()).rules
        if kind in kinds[mesh.topic_of(service)]
    ]


def _unanswered(mesh: Mesh) -> dict[str, list[str]]:
    """Commands and queries of the application that nobody takes in this mesh, by the service that they are for."""
    triggers, services = mesh.application.WIRINGS[mesh.wiring], mesh.application.SERVICES
    found: dict[str, list[str]] = {}
    for name, message in mesh.application.DECLARED.messages.items():
        asked = message.service
        taken = triggers.get(asked, Trigger()).rules if message.kind == "command" else by_name(services[asked].queries)
        if asked not in mesh.services or name not in taken:
            found.setdefault(asked, []).append(name)
    return found


def _not_checked(mesh_file: Path, tried: Tried | None) -> Iterator[str]:
    if tried is None:
        yield "any fold: the application has no workload, so there are no facts to fold"
    elif tried.unseen:
        yield f"how these are folded, since the run made none: {', '.join(tried.unseen)}"
    if tried is not None:
        yield "a fold that hangs on what stays the same within a process: the date, the order of texts in a set"
    yield (
        "what rules decide, and what holds when processes die. "
        f"Next: eventmesh run {mesh_file} --runtime simulated, then eventmesh fuzz {mesh_file}"
    )


# --- a short run ----------------------------------------------------------------------------------------


def _tried(mesh: Mesh, workload: Workload, seed: int) -> Tried:
    few = replace(workload, load=workload.load.take(np.arange(min(REQUESTS_MAX, len(workload.load)))))
    try:
        running = SimulatedMesh(mesh, seed=seed)
        measured = runs.load_mesh(running, few, silent)
    except Exception as defect:  # whatever evolve, or a rule, does to a process that runs it
        said = runs.said_by(defect, mesh.description.application)
        return Tried(seed, len(few.load), wrong=[f"the run came to no end: {said}"])
    history = running.history(measured.callers)
    with closing(Evidence(mesh, LogReader.of(running.simulation.storage), history)) as evidence:
        broken, folded = refusals_are_right(evidence), states_equal_folds(evidence)
        kept = timers_are_kept(evidence)
        seen = {str(kind) for topic in mesh.topics() for kind in evidence.facts(topic).kinds[1]}
    unseen = [kind for topic in mesh.topics() for kind in mesh.application.DECLARED.kinds()[topic] if kind not in seen]
    return Tried(
        seed, len(few.load), folded.examined, len(history.states), unseen=unseen,
        wrong=[example for found in (broken, folded, kept) if found.violations for example in found.examples],
    )  # fmt: skip

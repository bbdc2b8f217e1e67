"""``journal.json`` of a failure experiment, in the shape of Chaos Toolkit's journal.

Each activity names its ``mesh``, since an experiment may run several. Times of activities are those of the mesh's own
clock, which is virtual on the simulated runtime; ``start`` and ``end`` of the whole are the machine's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from eventmesh.report.probes import STRETCHES
from eventmesh.report.record import FaultRecord, ProbeRecord, Run, StretchRecord, WiringRecord

SCHEMA = "eventmesh.journal/1"
FILE = "journal.json"
#: Chaos Toolkit's words, of an activity and of a whole journal.
Status = Literal["completed", "failed", "aborted"]


def write(folder: Path, run: Run, *, end: datetime) -> None:
    """Write the journal beside ``run.json``."""
    (folder / FILE).write_text(json.dumps(journal(run, end=end), indent=1) + "\n", encoding="utf-8")


def journal(run: Run, *, end: datetime) -> dict[str, Any]:
    """The journal of an experiment that ended at ``end``."""
    assert run.experiment is not None
    wirings = run.experiment.wirings
    return {
        "schema": SCHEMA,
        "experiment": run.config,
        "name": run.name,
        "seed": run.seed,
        "commit": run.commit,
        "runtime": run.runtime,
        "start": run.started_at.isoformat(),
        "end": end.isoformat(),
        "duration": (end - run.started_at).total_seconds(),
        "status": status(run),
        "deviated": any(each.deviated for each in wirings),
        "verdict": run.verdict,
        "meshes": [
            {
                "mesh": each.mesh, "status": each.status, "verdict": each.verdict, "deviated": each.deviated,
                "unknown": each.unknown, "audit": each.audit.verdict if each.audit is not None else "unknown",
            }
            for each in wirings
        ],
        "steady_states": {stretch: _steady_state(wirings, stretch) for stretch in STRETCHES},
        "run": [activity for each in wirings for activity in _activities(each)],
        "rollbacks": [
            {
                "mesh": each.mesh, "activity": {"type": "action", "name": name},
                **({"status": "succeeded"} if each.not_healed is None else
                   {"status": "failed", "exception": [each.not_healed]}),
            }
            for each in wirings
            for name in run.experiment.rollbacks
        ],
    }  # fmt: skip


def status(run: Run) -> Status:
    """Failed where a mesh did not come to rest, aborted where somebody stopped it."""
    assert run.experiment is not None
    if run.status == "aborted":
        return "aborted"
    return "failed" if any(each.status == "failed" for each in run.experiment.wirings) else "completed"


def _steady_state(wirings: list[WiringRecord], stretch: str) -> dict[str, Any]:
    found = [(each.mesh, part) for each in wirings for part in each.stretches if part.stretch == stretch]
    met = [part.met for _, part in found]
    return {
        "steady_state_met": None if not met or (None in met and False not in met) else all(met),
        "probes": [_probe(mesh, part, probe) for mesh, part in found for probe in part.probes],
    }


def _probe(mesh: str, part: StretchRecord, probe: ProbeRecord) -> dict[str, Any]:
    arguments = {} if probe.within_s is None else {"within_s": probe.within_s}
    activity = {"type": "probe", "name": probe.name, "probe": probe.probe, **arguments}
    if probe.tolerance is not None:
        activity["tolerance"] = probe.tolerance
    return {
        "mesh": mesh, "activity": activity, "status": "failed" if probe.output is None else "succeeded",
        "output": probe.output, "tolerance_met": probe.met, "from_s": part.from_s, "to_s": part.to_s,
    }  # fmt: skip


def _activities(wiring: WiringRecord) -> Iterator[dict[str, Any]]:
    for fault in wiring.faults:
        yield {
            "mesh": wiring.mesh,
            "activity": {"type": "action", "name": fault.name, **fault.planned},
            "status": "succeeded" if fault.happened else "failed",
            "start": _time(wiring, fault.at_s),
            "end": _time(wiring, fault.ended_s),
            "duration": _duration(fault),
            "output": {"shows": fault.shows, **fault.details, **({"refused": fault.refused} if fault.refused else {})},
        }
    for part in wiring.stretches:
        yield from (_probe(wiring.mesh, part, look) for look in part.looks)


def _time(wiring: WiringRecord, at_s: float | None) -> str | None:
    if at_s is None or wiring.began_at is None:
        return None
    return (wiring.began_at + timedelta(seconds=at_s)).isoformat()


def _duration(fault: FaultRecord) -> float | None:
    return None if fault.at_s is None or fault.ended_s is None else fault.ended_s - fault.at_s

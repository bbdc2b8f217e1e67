"""A mesh on Ray is offered more than it holds: what it refuses, what it queues, and how long until all is as before.

Nothing may be lost, and nothing may grow: every queue has its limit, and who comes to a full one is told so (P8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from eventmesh.audit.verdict import Audit
from eventmesh.lab.run import audit_folder
from eventmesh.mesh import Mesh
from eventmesh.report.measure import SECOND, times
from eventmesh.runtime.limits import Limits
from eventmesh.runtime.running import measure_load, seed_with
from eventmesh.workload import Requests

if TYPE_CHECKING:
    from eventmesh.runtime.on_ray.cluster import MeshOnRay


@dataclass(frozen=True)
class Schedule:
    """``surge`` requests at ``surge_per_s``, then ``calm`` requests at ``calm_per_s``, in one open loop."""

    surge: int
    surge_per_s: float
    calm: int
    calm_per_s: float

    @property
    def surge_us(self) -> int:
        """How long the surge lasts, in microseconds."""
        return int(self.surge * SECOND / self.surge_per_s)

    def at(self) -> npt.NDArray[np.int64]:
        """The intended time of each request, microseconds after the start."""
        surge = np.arange(self.surge) * SECOND / self.surge_per_s
        calm = self.surge_us + np.arange(self.calm) * SECOND / self.calm_per_s
        return np.concatenate([surge, calm]).astype(np.int64)


@dataclass(frozen=True)
class Overloaded:
    """``callers`` of the surge and the calm after it, then ``afterwards`` of a load on the same mesh, when all is done.

    ``queues`` holds, by service instance, the most rows that waited in each queue; ``memory_mb`` of each role is what
    it shares with nobody, before and after.
    """

    callers: pa.Table
    afterwards: pa.Table
    queues: Mapping[str, Mapping[str, int]]
    memory_before_mb: Mapping[str, float]
    memory_after_mb: Mapping[str, float]
    audit: Audit


def overload(
    mesh: Mesh,
    seeding: Sequence[Requests],
    surge: Requests,
    normal: Requests,
    folder: Path,
    *,
    limits: Limits | None,
    seed: int,
) -> Overloaded:
    """Seed, ``surge``, drain, then ``normal`` on the same mesh, drain, audit. Ray must be up."""
    from eventmesh.runtime.on_ray.cluster import MeshOnRay

    with MeshOnRay(mesh, folder / "log", seed=seed, limits=limits) as running:
        seed_with(running, seeding)
        before = running.usage().memory_mb
        surged = measure_load(running, "surge", surge)
        calm = measure_load(running, "normal", normal)
        queues = _queues(running)
        history = running.history(pa.concat_tables([surged.callers, calm.callers]))
    audited, *_ = audit_folder(mesh, folder, history)
    return Overloaded(surged.callers, calm.callers, queues, before, surged.memory_mb, audited)


def _queues(running: MeshOnRay) -> dict[str, Mapping[str, int]]:
    return {f"{status['service']}/{status['instance']}": status["queues"] for status in running.statuses()}


def throttled(callers: pa.Table) -> int:
    """How many requests were told to come back later, at least once."""
    return int(pc.sum(pc.greater(callers["throttled"], 0)).as_py() or 0)


def normal_after_s(callers: pa.Table, schedule: Schedule, within_s: float) -> float | None:
    """Seconds from the end of the surge until requests are served as ever: at once, and completed ``within_s``.

    That is up to the last request of the calm that was throttled or took longer. None where the very last still did.
    """
    due = times(callers, "intended_at")
    calm = np.arange(len(due)) >= schedule.surge
    late = np.nan_to_num(times(callers, "completed_at") - due, nan=np.inf) > within_s * SECOND
    bad = np.flatnonzero(calm & (late | (np.asarray(callers["throttled"], np.int64) > 0)))
    if not len(bad):
        return 0.0
    if bad[-1] == len(due) - 1:
        return None
    return float(due[bad[-1] + 1] - due[0] - schedule.surge_us) / SECOND

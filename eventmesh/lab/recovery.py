"""A process of a mesh on Ray is killed, or stopped, at a given offset under load: how long until its work goes on.

The mesh heals itself; nothing here helps it. What the run left is audited like any other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from eventmesh.audit.verdict import Audit
from eventmesh.errors import EnvironmentUnavailable
from eventmesh.lab.run import audit_folder
from eventmesh.log.store import LogReader, open_read_only
from eventmesh.mesh import Mesh
from eventmesh.progress import split_position
from eventmesh.report.measure import SECOND
from eventmesh.runtime.faults import AtOffset, Freeze, Kill
from eventmesh.runtime.process.directory import peer_called
from eventmesh.runtime.running import measure_load, seed_with
from eventmesh.workload import Requests, Workload

if TYPE_CHECKING:
    from eventmesh.runtime.on_ray.cluster import MeshOnRay
    from eventmesh.runtime.running import Measured

LOOK_S = 0.001
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Death:
    """A process that is killed at an offset, or frozen there until its supervisor kills it.

    ``watched`` is the topic whose next fact under a new grant shows that work goes on: the process's own, or for the
    broker any. The generator writes to no topic (None): its work goes on with its next request that is accepted.
    """

    moment: AtOffset
    fault: Kill | Freeze
    watched: str | None


@dataclass(frozen=True)
class Recovery:
    """``resumed_s``: seconds from the fault until work went on. ``restarts`` of the process since the mesh started.

    ``at_us`` is when it struck, in microseconds since the Unix epoch, ``at_offset`` the watermark then.
    """

    death: Death
    at_us: int
    at_offset: int
    pid: int
    next_pid: int | None
    resumed_s: float
    restarts: int


@dataclass(frozen=True)
class Survived:
    """A run with a fault in it."""

    recovery: Recovery
    audit: Audit


def survive(mesh: Mesh, workload: Workload, death: Death, folder: Path, *, seed: int, lease_s: float) -> Survived:
    """Seed, load with the death in it, drain, audit. Ray must be up."""
    from eventmesh.runtime.on_ray.cluster import MeshOnRay

    with MeshOnRay(mesh, folder / "log", seed=seed, lease_s=lease_s) as running:
        seed_with(running, workload.seeding)
        recovery, measured = strike(running, "load", workload.load, death, window=workload.window)
        history = running.history(measured.callers)
    audited, *_ = audit_folder(mesh, folder, history)
    return Survived(recovery, audited)


def strike(
    running: MeshOnRay,
    name: str,
    requests: Requests,
    death: Death,
    *,
    window: int = 1_000_000,
    patience_s: float = PATIENCE_S,
) -> tuple[Recovery, Measured]:
    """Run a load with ``death`` in it to its end, and drain; what came of it, and what the load did.

    :class:`~eventmesh.errors.EnvironmentUnavailable` if the offset is not reached, or work does not go on, within
    ``patience_s``.
    """
    injector = Injector(running, death, patience_s)
    measured = measure_load(running, name, requests, window=window)
    recovery = injector.recovery()
    if death.watched is None:
        recovery = replace(recovery, resumed_s=next_accepted_s(measured.callers, recovery.at_us))
    return recovery, measured


def next_accepted_s(callers: pa.Table, since_us: int) -> float:
    """Seconds from ``since_us`` until the first request that was sent after it was accepted.

    :class:`~eventmesh.errors.EnvironmentUnavailable` if none was: every request had been sent before.
    """
    accepted = callers.filter(pc.field("sent_at") > since_us)["accepted_at"]
    first = pc.min(accepted).as_py()
    if first is None:
        raise EnvironmentUnavailable("no request was accepted after the fault: it came when all had been sent")
    return float(first - since_us) / SECOND


class Injector:
    """The thread that waits for the offset, strikes, and sees the work go on."""

    def __init__(self, running: MeshOnRay, death: Death, patience_s: float = PATIENCE_S) -> None:
        self._running, self._death, self._patience_s = running, death, patience_s
        self._found: Recovery | EnvironmentUnavailable | None = None
        self._thread = threading.Thread(target=self._inject, name="fault", daemon=True)
        self._thread.start()

    def recovery(self) -> Recovery:
        """What came of it; :class:`~eventmesh.errors.EnvironmentUnavailable` if the offset or the end never came."""
        self._thread.join(3 * self._patience_s)
        if isinstance(self._found, Recovery):
            return self._found
        raise self._found or EnvironmentUnavailable(f"{self._death} did not end")

    def _inject(self) -> None:
        with closing(open_read_only(self._running.log_directory)) as reader:
            try:
                self._found = self._do(reader)
            except EnvironmentUnavailable as error:
                self._found = error

    def _do(self, reader: LogReader) -> Recovery:
        death, moment, supervisor = self._death, self._death.moment, self._running.supervisor
        name, peer = death.fault.process, peer_called(death.fault.process)
        topic, partition = split_position(moment.partition)
        self._until(
            lambda: reader.watermark(topic, partition) >= moment.offset, f"{moment.partition} to reach {moment.offset}"
        )
        pid, at_offset = supervisor.pids()[peer], reader.watermark(topic, partition)
        following = Following(reader, death.watched) if death.watched is not None else None
        struck = self._running.strike(death.fault)
        if pid is None or not struck.happened:
            raise EnvironmentUnavailable(f"{name} is not up: there is nobody to kill")
        if following is not None:
            self._until(following.went_on, f"a fact in {death.watched} after the fault")
        resumed_s = (time.time_ns() // 1_000 - struck.at_us) / SECOND
        self._until(lambda: supervisor.pids()[peer] not in (None, pid), f"another process of {name}")
        next_pid, restarts = supervisor.pids()[peer], supervisor.restarts()[peer]
        return Recovery(death, struck.at_us, at_offset, pid, next_pid, resumed_s, restarts)

    def _until(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self._patience_s
        while not done():
            if time.monotonic() > deadline:
                raise EnvironmentUnavailable(f"waited {self._patience_s:g} s for {what}")
            time.sleep(LOOK_S)


class Following:
    """Reads a topic on from where it ends now, until facts stand behind a new grant.

    What the process had sent before the fault may still be appended after it, and shows nothing.
    """

    def __init__(self, reader: LogReader, topic: str) -> None:
        self._reader, self._topic = reader, topic
        partitions = range(reader.topics[topic].partitions)
        self._cursors = {number: reader.watermark(topic, number) for number in partitions}
        self._granted: set[int] = set()

    def went_on(self) -> bool:
        """Whether a partition has had facts since its new grant."""
        return any(self._read(number) for number in self._cursors)

    def _read(self, number: int) -> bool:
        while self._reader.watermark(self._topic, number) > self._cursors[number]:
            for entry in self._reader.read(self._topic, number, self._cursors[number]):
                self._cursors[number] = entry.header.end
                if entry.header.kind == "granted":
                    self._granted.add(number)
                elif entry.header.kind == "facts" and number in self._granted:
                    return True
        return False

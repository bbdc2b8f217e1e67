"""A process of a mesh on Ray is killed, or stopped, at a given offset under load: how long until its work goes on.

The mesh heals itself; nothing here helps it. What the run left is audited like any other.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from eventmesh.errors import EnvironmentUnavailable
from eventmesh.lab.run import audit_folder
from eventmesh.lab.verdict import Audit
from eventmesh.log.store import LogReader, open_read_only
from eventmesh.mesh import Mesh
from eventmesh.runtime.caller import Workload

if TYPE_CHECKING:
    from eventmesh.runtime.on_ray.cluster import MeshOnRay

LOOK_S = 0.001
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Fault:
    """``how`` is done to the process of ``service``/``instance`` once ``topic``'s partition 0 has reached ``offset``.

    ``watched`` is the topic whose next fact shows that the work of the process goes on.
    """

    service: str
    topic: str
    offset: int
    watched: str
    how: signal.Signals = signal.SIGKILL
    instance: int = 0


@dataclass(frozen=True)
class Recovery:
    """``resumed_s``: seconds from the signal to the next fact in the watched topic; ``restarts`` of the process."""

    fault: Fault
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


def survive(mesh: Mesh, workload: Workload, fault: Fault, folder: Path, *, seed: int, lease_s: float) -> Survived:
    """Seed, load with the fault in it, drain, audit. Ray must be up."""
    from eventmesh.runtime.on_ray.cluster import MeshOnRay

    with MeshOnRay(mesh, folder / "log", seed=seed, lease_s=lease_s) as running:
        running.seed_with(workload.seeding)
        injector = Injector(running, fault)
        measured = running.measure("load", workload.load, window=workload.window)
        recovery = injector.recovery()
        history = running.history(measured.callers)
    audited, _ = audit_folder(mesh, folder, history)
    return Survived(recovery, audited)


class Injector:
    """The thread that waits for the offset, does the fault, and sees the work go on."""

    def __init__(self, running: MeshOnRay, fault: Fault) -> None:
        self._running, self._fault = running, fault
        self._found: Recovery | EnvironmentUnavailable | None = None
        self._thread = threading.Thread(target=self._inject, name="fault", daemon=True)
        self._thread.start()

    def recovery(self) -> Recovery:
        """What came of it; :class:`~eventmesh.errors.EnvironmentUnavailable` if the offset or the end never came."""
        self._thread.join(2 * PATIENCE_S)
        if isinstance(self._found, Recovery):
            return self._found
        raise self._found or EnvironmentUnavailable(f"{self._fault} did not end")

    def _inject(self) -> None:
        with closing(open_read_only(self._running.log_directory)) as reader:
            try:
                self._found = self._do(reader)
            except EnvironmentUnavailable as error:
                self._found = error

    def _do(self, reader: LogReader) -> Recovery:
        fault, supervisor = self._fault, self._running.supervisor
        peer = (fault.service, fault.instance)
        _until(lambda: reader.watermark(fault.topic, 0) >= fault.offset, f"{fault.topic}/0 to reach {fault.offset}")
        pid = supervisor.pids()[peer]
        if pid is None:
            raise EnvironmentUnavailable(f"{fault.service}/{fault.instance} is not up: there is nobody to kill")
        process, begun = psutil.Process(pid), time.monotonic()
        os.kill(pid, fault.how)
        if fault.how is signal.SIGKILL:
            psutil.wait_procs([process], timeout=PATIENCE_S)
        at = _ends(reader, fault.watched)
        _until(lambda: _new_fact(reader, fault.watched, at), f"a fact in {fault.watched} after the fault")
        resumed_s = time.monotonic() - begun
        _until(lambda: supervisor.pids()[peer] not in (None, pid), f"another process of {fault.service}")
        return Recovery(
            fault, reader.watermark(fault.topic, 0), pid, supervisor.pids()[peer], resumed_s,
            supervisor.restarts()[peer],
        )  # fmt: skip


def _ends(reader: LogReader, topic: str) -> list[int]:
    return [reader.watermark(topic, number) for number in range(reader.topics[topic].partitions)]


def _new_fact(reader: LogReader, topic: str, since: list[int]) -> bool:
    """Whether facts stand at or above these offsets; a grant is no fact."""
    for number, offset in enumerate(since):
        if reader.watermark(topic, number) > offset:
            entries = reader.read(topic, number, offset)
            if any(entry.header.kind == "facts" for entry in entries):
                return True
    return False


def _until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > deadline:
            raise EnvironmentUnavailable(f"waited {PATIENCE_S:g} s for {what}")
        time.sleep(LOOK_S)

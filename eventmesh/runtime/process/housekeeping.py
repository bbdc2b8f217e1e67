"""What a broker does beside its work: has snapshots taken, by a process of lower priority, and applies retention."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from eventmesh.errors import EventmeshError
from eventmesh.log.storage import FileStorage
from eventmesh.log.store import Log
from eventmesh.mesh import Mesh
from eventmesh.runtime.process.actor_log import log
from eventmesh.runtime.process.broker_member import Guarded
from eventmesh.runtime.process.reactor import now
from eventmesh.runtime.process.snapshot_process import Assignment, SnapshotProcess
from eventmesh.runtime.snapshots import FOLDER, Floors, SnapshotStore

#: Seconds between two looks at how much was appended.
LOOK_S = 1.0
#: Seconds between two looks at what may be deleted: Kafka's ``log.retention.check.interval.ms``. Also how old a
#: snapshot must be before anything is deleted that only its predecessor needed.
RETENTION_S = 300.0


class Housekeeping:
    """A thread of the broker's process. ``guarded`` runs what it is given on the log, under the broker's lock."""

    def __init__(
        self, mesh: Mesh, directory: Path, cluster_id: str, guarded: Guarded,
        *, retention_s: float = RETENTION_S,
    ) -> None:  # fmt: skip
        self._mesh, self._directory, self._cluster_id, self._guarded = mesh, directory, cluster_id, guarded
        self._store = SnapshotStore(FileStorage(directory / FOLDER, read_only=True))
        self._floors = Floors(mesh, self._store.header, grace_us=int(retention_s * 1e6))
        self._retention_s, self._retained_at = retention_s, -retention_s
        self._rows_seen = -1  # rows that the log had when it was last looked whether snapshots are due; -1: not yet
        self._taking: SnapshotProcess | None = None
        self.cpu_s = 0.0  # of the processes that took snapshots
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing.wait(LOOK_S):
            try:
                self._look()
            except (EventmeshError, OSError) as error:
                log.warning("housekeeping", error=str(error))

    def _look(self) -> None:
        if self._taking is None:
            self._take_if_due()
        elif self._taking.done():
            taken, self._taking = self._taking.taken(), None
            if taken is None:
                log.warning("snapshots failed", directory=str(self._directory))
            else:
                self.cpu_s += taken.cpu_s
                log.info("snapshots taken", names=taken.names, cpu_s=round(taken.cpu_s, 3))
        if time.monotonic() - self._retained_at >= self._retention_s:
            self._retain()

    def _take_if_due(self) -> None:
        rows_max, rows = self._mesh.log.snapshot_rows, sum(self._guarded(_ends))
        if rows_max is None or rows - self._rows_seen < rows_max:
            return
        self._rows_seen = rows
        self._taking = SnapshotProcess(Assignment(self._mesh, self._directory, self._cluster_id, rows_max))

    def _retain(self) -> None:
        self._retained_at = time.monotonic()
        floors = self._floors.at(now())
        for deleted in self._guarded(lambda it: it.retain(now(), floors)) if floors else ():
            log.info("retention", partition=deleted.partition, start=deleted.start, segments=deleted.segments)

    def close(self) -> None:
        """No more of it; who is taking snapshots is ended, which leaves those before."""
        self._closing.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        if self._taking is not None:
            self._taking.end()


def _ends(it: Log) -> list[int]:
    return [it.end(name, number) for name, topic in it.topics.items() for number in range(topic.partitions)]

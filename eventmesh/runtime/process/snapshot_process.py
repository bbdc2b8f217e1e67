"""The process that takes the snapshots of a log, started by its broker: without Ray, and of the lowest priority.

It gives way before it imports anything. A process of Ray's needs a second of CPU until it is there, at the priority of
all others: on a machine without a core to spare every order waited for that long.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eventmesh.runtime.process.handed import Handed
from eventmesh.runtime.process.vitals import SAFE_PATH

if TYPE_CHECKING:
    from eventmesh.mesh import Mesh

#: The lowest priority that all systems have.
NICE = 19


@dataclass(frozen=True)
class Assignment:
    """Take what is due of the log in ``directory``; ``rows``: see the mesh's ``log``."""

    mesh: Mesh
    directory: Path
    cluster_id: str
    rows: int


@dataclass(frozen=True)
class Taken:
    """The names of the snapshots that were taken, and the seconds of CPU that they cost."""

    names: Sequence[str]
    cpu_s: float


class SnapshotProcess:
    """The process, seen by who started it. It ends with them: its standard input stays open as long as they live."""

    def __init__(self, assignment: Assignment) -> None:
        environment = {**os.environ, **SAFE_PATH, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        self._process.stdin.write(pickle.dumps(Handed(assignment, assignment.mesh.sources)))
        self._process.stdin.flush()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def done(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def taken(self) -> Taken | None:
        """What it did, once it has ended; None where it failed, and has said why on its standard error."""
        out, _ = self._process.communicate()
        return Taken(**json.loads(out)) if self._process.returncode == 0 else None

    def end(self) -> None:
        """At once; the snapshots before stay."""
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """In the process itself."""
    _give_way()
    assignment: Assignment = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_starter, name="end with starter", daemon=True).start()
    print(json.dumps(asdict(_take(assignment))))  # noqa: T201


def _give_way() -> None:
    """Linux has a class below all priorities, for what nobody else wants of the processors."""
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(NICE - os.nice(0))


def _end_with_starter() -> None:
    os.read(sys.stdin.fileno(), 1)  # of its end, since nothing more is said
    os._exit(1)


def _take(assignment: Assignment) -> Taken:
    from eventmesh.errors import DataDirectoryError
    from eventmesh.log.storage import FileStorage
    from eventmesh.log.store import open_read_only
    from eventmesh.runtime.process.reactor import now
    from eventmesh.runtime.snapshots import FOLDER, SnapshotStore
    from eventmesh.runtime.snapshotter import Snapshotter

    reader = open_read_only(assignment.directory)
    try:
        store = FileStorage(assignment.directory / FOLDER)
    except DataDirectoryError:
        return Taken([], 0.0)  # one that was started by a broker that has died is not done yet
    try:
        snapshotter = Snapshotter(
            assignment.mesh, reader, SnapshotStore(store), cluster_id=assignment.cluster_id, rows=assignment.rows,
            clock=now,
        )  # fmt: skip
        return Taken(snapshotter.take_due(), time.process_time())
    finally:
        store.close()
        reader.close()


if __name__ == "__main__":
    main()

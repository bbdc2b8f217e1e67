"""A Ray of our own on this machine, and a mesh on it from start to stop."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from eventmesh.log.store import read_stored
from eventmesh.mesh import Mesh
from eventmesh.runtime import journal
from eventmesh.runtime.limits import Limits
from eventmesh.runtime.on_ray import ray_folder
from eventmesh.runtime.on_ray.actors import Settings, place
from eventmesh.runtime.on_ray.directory import RayDirectory
from eventmesh.runtime.on_ray.driver import connected
from eventmesh.runtime.on_ray.head import OBJECT_STORE_BYTES, allow_files
from eventmesh.runtime.on_ray.remains import ended_with_us
from eventmesh.runtime.on_ray.running import RayMesh
from eventmesh.runtime.on_ray.supervisor import LEASE_S, Supervisor

#: Seconds that Ray has to end what it was told to kill.
ENDING_S = 3.0


@contextmanager
def embedded_ray(processes: int) -> Iterator[None]:
    """A Ray of our own on this machine, gone at the end; :class:`EnvironmentUnavailable` if it does not start.

    It starts so many worker ``processes`` at once, ahead of the actors that will live in them. Its folder, with its
    sockets and its processes' logs, goes with it, also where this process is killed.
    """
    allow_files()
    folder = ray_folder.make()
    try:
        with ended_with_us(folder), ray_folder.logs_kept_of(folder), connected(
            "local", "Ray did not start on this machine", num_cpus=processes, include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES, namespace="eventmesh", _temp_dir=str(folder),
        ):  # fmt: skip
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class MeshOnRay(RayMesh):
    """A mesh that lives as long as it is entered: leaving it ends every process of it.

    ``directory`` holds the log; a mesh goes on with what lies there. At level ``memory`` the log is written there when
    :meth:`history` is asked for.
    """

    def __init__(
        self,
        mesh: Mesh,
        directory: Path,
        *,
        rtt_ms: float = 0.0,
        seed: int = 0,
        limits: Limits | None = None,
        local: bool = True,
        lease_s: float = LEASE_S,
    ) -> None:
        self.directory = RayDirectory.of(uuid.uuid4().hex[:12])
        stored = read_stored(directory)
        if stored is not None:
            mesh = mesh.on_log(stored.topics)
        cluster_id = stored.cluster_id if stored is not None else uuid.uuid4().hex
        settings = Settings(cluster_id, rtt_ms=rtt_ms, seed=seed, limits=limits, local=local)
        super().__init__(mesh, place(mesh, self.directory, directory, settings), directory)
        self.supervisor = Supervisor(self.actors.all, lease_s=lease_s)

    def __enter__(self) -> MeshOnRay:
        try:
            self.wait_until_live()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process: asked to first, then killed, also those that are stopped."""
        self.strikes.close()
        self.supervisor.close()
        self.actors.end()
        self.supervisor.end(ENDING_S)
        # Its history was handed over, or is not wanted: no other mesh goes on with it.
        shutil.rmtree(self.log_directory.with_name(journal.GENERATOR), ignore_errors=True)

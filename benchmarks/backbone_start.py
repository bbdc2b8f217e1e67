"""The part of ``backbone`` about its start: a mesh on a Ray of its own, beside Ray with as many bare actors."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.backbone_part import BackbonePart, Sample, Samples
from benchmarks.benchmark import scratch
from eventmesh import mesh as meshes
from eventmesh import shipped
from eventmesh.mesh import Mesh


class Start(BackbonePart):
    """Until every service of ``mesh`` decides, from before Ray is started. Nothing is seeded."""

    mesh: str
    target: str

    def describe(self) -> list[str]:
        """One line."""
        return [f"the start of the mesh {self.mesh}, and of as many bare actors"]

    def measured(self, folder: Path, number: int) -> Samples:
        """Seconds of both, and how many times the one is the other."""
        mesh = meshes.load(shipped.folder("meshes") / f"{self.mesh}.yaml")
        with scratch(folder) as room:
            actors, ours = mesh_s(mesh, room)
        bare = bare_s(actors)
        yield Sample(f"start of a mesh of {actors} actors, Ray included", ours, "s")
        yield Sample(f"start of Ray with {actors} bare actors", bare, "s")
        yield Sample(f"start of a mesh over that of Ray with {actors} bare actors", ours / bare, "times", self.target)


def mesh_s(mesh: Mesh, folder: Path) -> tuple[int, float]:
    """The number of actors, and seconds until all services decide."""
    from eventmesh.runtime.on_ray.cluster import MeshOnRay, embedded_ray

    begun = time.monotonic()
    with embedded_ray(mesh.processes), MeshOnRay(mesh, folder / "log") as running:
        return len(running.actors.all), time.monotonic() - begun


def bare_s(actors: int) -> float:
    """Seconds until so many actors have answered."""
    from eventmesh.runtime.on_ray.bare_actor import start
    from eventmesh.runtime.on_ray.cluster import embedded_ray

    begun = time.monotonic()
    with embedded_ray(actors):
        start(actors)
        return time.monotonic() - begun

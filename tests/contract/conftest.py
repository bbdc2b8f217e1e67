"""The runtimes that the contract is held against; each story runs on every one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pytest

from eventmesh import mesh as meshes
from eventmesh.audit.audit import Audit, audit
from eventmesh.declared import Command, Query
from eventmesh.history import History
from eventmesh.log.store import LogReader, open_read_only
from eventmesh.mesh import Mesh
from eventmesh.runtime.limits import Limits
from eventmesh.runtime.running import AskedBy, RunningMesh, measure_load, seed_with
from eventmesh.runtime.simulated.running import SimulatedMesh
from eventmesh.workload import Requests, Workload

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Finished:
    """A run that was drained: what its callers saw, and what it wrote. ``virtual``: on a virtual clock.

    ``asks``: what came of the asks of its load.
    """

    mesh: Mesh
    history: History
    reader: LogReader
    virtual: bool
    asks: AskedBy

    def audit(self) -> Audit:
        """The audit of all checks."""
        return audit(self.mesh, self.reader, self.history)

    def facts(self, topic: str, *kinds: str) -> list[dict[str, Any]]:
        """The facts of these kinds (all, if none is named), partition by partition."""
        tables = [self.reader.table(topic, number) for number in range(self.mesh.topics()[topic].partitions)]
        rows = pa.concat_tables(tables).to_pylist()
        return [row for row in rows if row["kind"] == "facts" and (not kinds or row["type"] in kinds)]

    def callers(self, command: str) -> list[dict[str, Any]]:
        """What became of the requests of one kind, in the order they were meant to be sent."""
        return [row for row in self.history.callers.to_pylist() if row["command"] == command]


def after(seeding: list[Requests], *stages: Sequence[Command[Any] | Query[Any]]) -> Workload:
    """The stages one after the other, half a second apart."""
    asked = [(each, number * 500_000) for number, stage in enumerate(stages) for each in stage]
    return Workload(seeding, Requests.of([each for each, _ in asked], np.array([at for _, at in asked], np.int64)))


class Runtime(Protocol):
    """Brings a mesh to life: seeds it, lets callers ask, drains it."""

    def __call__(self, mesh: Mesh, workload: Workload, *, limits: Limits | None = None) -> Finished:
        """The finished run."""
        ...


def finished(running: RunningMesh, workload: Workload, log: Path) -> Finished:
    """Seed, load and drain a mesh, whatever runs it."""
    seed_with(running, workload.seeding)
    measured = measure_load(running, "load", workload.load, window=workload.window, timeout_s=120)
    # A story may send poison: whether it did, only it can say.
    history = replace(running.history(measured.callers), poison=None)
    running.save_log(log)
    return Finished(running.mesh, history, open_read_only(log), virtual=running.virtual, asks=measured.asks)


def simulated(request: pytest.FixtureRequest) -> Runtime:
    """On the virtual clock."""
    folders = request.getfixturevalue("tmp_path_factory")

    def run(mesh: Mesh, workload: Workload, *, limits: Limits | None = None) -> Finished:
        return finished(SimulatedMesh(mesh, seed=1, limits=limits), workload, folders.mktemp("mesh") / "log")

    return run


def on_ray(request: pytest.FixtureRequest) -> Runtime:
    """On Ray actors, all on this node."""
    request.getfixturevalue("ray_cluster")
    folders = request.getfixturevalue("tmp_path_factory")

    def run(mesh: Mesh, workload: Workload, *, limits: Limits | None = None) -> Finished:
        from eventmesh.runtime.on_ray.cluster import MeshOnRay

        log = folders.mktemp("mesh") / "log"
        with MeshOnRay(mesh, log, seed=1, limits=limits) as running:
            return finished(running, workload, log)

    return run


#: The library's meshes by wiring: who is asked does not listen.
MESHES = {"events": "mesh.yaml", "asking": "asking.yaml", "hearing": "hearing.yaml"}
RUNTIMES: dict[str, Callable[[pytest.FixtureRequest], Runtime]] = {"simulated": simulated, "on_ray": on_ray}
DescribeMesh = Callable[..., Mesh]


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.timeout(180)) for name in RUNTIMES])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Every runtime in turn."""
    return RUNTIMES[request.param](request)


def described(path: Path, wiring: str | None, options: dict[str, dict[str, Any]]) -> Mesh:
    """The mesh in a file, wired differently or with other options of some services."""
    document = meshes.load(path).resolved()
    document["wiring"] = wiring or document["wiring"]
    for service, own in options.items():
        document["services"][service] |= own
    return meshes.parse(document)


def described_shop(wiring: str, **options: dict[str, Any]) -> Mesh:
    """The shop's mesh of that name, with other options of some services."""
    return described(ROOT / "configs" / "meshes" / f"{wiring}.yaml", None, options)


@pytest.fixture
def shop() -> DescribeMesh:
    """``shop(wiring, service={option: value})``: a mesh of the shop."""
    return described_shop


@pytest.fixture
def library() -> DescribeMesh:
    """``library(wiring)``: the tiny second application."""
    return lambda wiring="events", **options: described(ROOT / "tests" / "tiny" / MESHES[wiring], None, options)

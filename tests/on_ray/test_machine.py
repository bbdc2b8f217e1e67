"""A load on Ray, where the mesh's processes are Ray's: they are told from what other programs use."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from eventmesh import mesh as meshes
from eventmesh.report.machine import Watch
from eventmesh.runtime.on_ray.cluster import MeshOnRay
from eventmesh.runtime.running import measure_load, seed_with
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history

MESHES = Path(__file__).resolve().parents[2] / "configs" / "meshes"
pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("ray_cluster")]


@pytest.mark.skipif(not psutil.LINUX, reason="there is no /proc to watch")
def test_what_a_mesh_uses_under_load_counts_as_ours(tmp_path: Path) -> None:
    work = of_history(generate(120, seed=2, products=20), rate=60.0)
    with MeshOnRay(meshes.load(MESHES / "views.yaml"), tmp_path / "log") as running:
        seed_with(running, work.seeding)
        with Watch() as watch:
            used = measure_load(running, "load", work.load)
    assert watch.use is not None
    roles = sum(used.cpu_s.values())
    assert roles > 0
    # Ray's own processes are ours as well; a role's time is in whole ticks of 10 ms.
    assert watch.account.used_s() >= roles - 0.01 * len(used.cpu_s)

"""Given snapshots on Ray, when a service dies, then the next one folds the tail alone, and goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import ray

from eventmesh import mesh as meshes
from eventmesh.audit.audit import audit
from eventmesh.log.storage import FileStorage
from eventmesh.log.store import open_read_only
from eventmesh.runtime.on_ray.calls import wait_until
from eventmesh.runtime.on_ray.cluster import MeshOnRay
from eventmesh.runtime.running import seed_with
from eventmesh.runtime.snapshots import FOLDER, SnapshotStore, state_name, view_name
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history

MESHES = Path(__file__).parents[2] / "configs" / "meshes"
pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("ray_cluster")]


def test_a_service_that_died_folds_the_tail_alone(tmp_path: Path) -> None:
    document = meshes.load(MESHES / "views.yaml").resolved()
    document["log"]["snapshot_rows"] = 400
    mesh, log = meshes.parse(document), tmp_path / "log"
    workload = of_history(generate(600, seed=1, products=50), rate=600.0)
    first, second = workload.load.take(range(500)), workload.load.take(range(500, 600))
    store = SnapshotStore(FileStorage(log / FOLDER, read_only=True))
    with MeshOnRay(mesh, log) as running:
        seed_with(running, workload.seeding)
        callers = [running.call("first", first)]
        running.drain()
        kept = [state_name("orders", 0), state_name("orders", 1), view_name("orders", "stock")]
        wait_until(lambda: all(store.header(name) for name in kept), "snapshots", 60.0, explain=lambda: "")
        orders = running.actors.services["orders", 0]
        before = ray.get(orders.status.remote())
        os.kill(before["pid"], signal.SIGKILL)

        def back() -> bool:
            try:
                status = ray.get(orders.status.remote())
            except ray.exceptions.RayError:
                return False
            return bool(status["live"] and status["pid"] != before["pid"])

        wait_until(back, "the next one", 60.0, explain=lambda: "")
        folded = ray.get(orders.status.remote())["counters"]["rows_folded"]
        ends = ray.get(running.actors.broker.ends.remote())
        assert folded < (ends["orders/0"] + ends["orders/1"]) / 2
        callers.append(running.call("second", second))
        history = running.history(callers[0])
        reader = open_read_only(log)
        assert {row["outcome"] for table in callers for row in table.to_pylist()} == {"confirmed"}
        assert audit(mesh, reader, history, only={"A1", "A3", "D1", "D6", "E3", "E8", "E11"}).verdict == "valid"

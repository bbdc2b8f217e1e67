"""The shop on Ray, where its other runtime has nothing to show: levels, round trips, and processes that end."""

from __future__ import annotations

from pathlib import Path

import psutil
import pyarrow.flight as flight
import pytest

from eventmesh import mesh as meshes
from eventmesh.audit.audit import audit
from eventmesh.log.store import open_read_only
from eventmesh.runtime.on_ray.cluster import MeshOnRay
from eventmesh.runtime.process.directory import BROKER
from eventmesh.runtime.running import measure_load, seed_with
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history

MESHES = Path(__file__).resolve().parents[2] / "configs" / "meshes"
pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("ray_cluster")]


@pytest.mark.parametrize(("durability", "rtt_ms"), [("memory", 0.0), ("fsync", 20.0)])
def test_given_any_level_and_round_trip_then_what_was_written_is_audited_and_no_process_is_left(
    durability: str, rtt_ms: float, tmp_path: Path
) -> None:
    document = meshes.load(MESHES / "views.yaml").resolved()
    document["log"]["durability"] = durability
    mesh = meshes.parse(document)
    workload = of_history(generate(60, seed=2, products=20), rate=60.0)
    with MeshOnRay(mesh, tmp_path / "log", rtt_ms=rtt_ms) as running:
        seed_with(running, workload.seeding)
        history = running.history(measure_load(running, "load", workload.load).callers)
        fetched = _fetch(running.directory.address(BROKER), "orders/0/0")
        processes = [psutil.Process(pid) for pid in running.pids()]
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    reader = open_read_only(tmp_path / "log")
    found = audit(mesh, reader, history)
    assert fetched == reader.watermark("orders", 0), "any Flight client reads the partition"
    reader.close()
    assert found.verdict == "valid", found.describe()
    assert found.checks["E1"].examined >= 60
    accepted, completed = (
        (history.callers[name].to_numpy() - history.callers["sent_at"].to_numpy()).min()
        for name in ("accepted_at", "completed_at")
    )
    # Caller to gateway and back, gateway to log and back: two round trips before an order is accepted.
    assert accepted >= 2 * rtt_ms * 1_000
    # To be told the outcome: an append and a delivery for each of five facts, and the way from and to the caller.
    assert completed >= 5 * rtt_ms * 1_000


def _fetch(address: str, ticket: str) -> int:
    with flight.connect(address) as client:
        return int(client.do_get(flight.Ticket(ticket.encode())).read_all().num_rows)

"""The shop on Ray: the same outcomes in every wiring, as on the simulated runtime, and a valid audit."""

from __future__ import annotations

from pathlib import Path

import psutil
import pyarrow.flight as flight
import pytest

from eventmesh import mesh as meshes
from eventmesh.history import History
from eventmesh.lab.audit import Evidence, audit
from eventmesh.lab.simulated_run import run_simulated
from eventmesh.log.store import open_read_only
from eventmesh.runtime.on_ray.cluster import MeshOnRay
from eventmesh.runtime.on_ray.directory import BROKER
from eventmesh.shop.checks import outcomes, same_outcomes
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workload import of_history

MESHES = Path(__file__).resolve().parents[2] / "configs" / "meshes"
pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("ray_cluster")]


@pytest.mark.parametrize("wiring", ["views", "hybrid", "request"])
def test_given_the_same_orders_then_ray_and_the_simulation_end_alike(wiring: str, tmp_path: Path) -> None:
    mesh = meshes.load(MESHES / f"{wiring}.yaml")
    workload = of_history(generate(120, seed=5, products=40, customers=20, guest_permille=100))
    with MeshOnRay(mesh, tmp_path / "log", seed=5) as running:
        running.seed_with(workload.seeding)
        measured = running.measure("load", workload.load)
        history: History = running.history(measured.callers)
        fetched = _fetch(running.directory.address(BROKER), "orders/0/0")
    reader = open_read_only(tmp_path / "log")
    found = audit(mesh, reader, history)
    assert found.verdict == "valid", found.describe()
    simulated = run_simulated(mesh, workload, seed=5)
    there = outcomes(Evidence(mesh, simulated.reader, simulated.history))
    same = same_outcomes(outcomes(Evidence(mesh, reader, history)), there)
    assert same.verdict == "valid", same.examples
    assert same.examined == 120
    assert fetched == reader.watermark("orders", 0), "any Flight client reads the partition"
    reader.close()


@pytest.mark.parametrize("durability", ["memory", "fsync"])
def test_given_any_level_then_what_was_written_is_there_to_be_audited(durability: str, tmp_path: Path) -> None:
    document = meshes.load(MESHES / "views.yaml").resolved()
    document["log"]["durability"] = durability
    mesh = meshes.parse(document)
    workload = of_history(generate(60, seed=2, products=20))
    with MeshOnRay(mesh, tmp_path / "log") as running:
        running.seed_with(workload.seeding)
        history = running.history(running.measure("load", workload.load).callers)
    reader = open_read_only(tmp_path / "log")
    found = audit(mesh, reader, history)
    reader.close()
    assert found.verdict == "valid", found.describe()
    assert found.checks["E1"].examined >= 60


def test_given_an_emulated_round_trip_then_no_order_is_faster_than_its_hops(tmp_path: Path) -> None:
    mesh = meshes.load(MESHES / "views.yaml")
    workload = of_history(generate(5, seed=1, lines_per_order=1), rate=5.0)
    with MeshOnRay(mesh, tmp_path / "log", rtt_ms=20.0) as running:
        running.seed_with(workload.seeding)
        callers = running.measure("load", workload.load).callers
    accepted = callers["accepted_at"].to_numpy() - callers["sent_at"].to_numpy()
    completed = callers["completed_at"].to_numpy() - callers["sent_at"].to_numpy()
    # Caller to gateway and back, gateway to log and back: two round trips before an order is accepted.
    assert accepted.min() >= 2 * 20_000
    # To be told the outcome: an append and a delivery for each of five facts, and the way from and to the caller.
    assert completed.min() >= 5 * 20_000


def test_given_a_mesh_has_ended_then_none_of_its_processes_is_left(tmp_path: Path) -> None:
    with MeshOnRay(meshes.load(MESHES / "request.yaml"), tmp_path / "log") as running:
        processes = [psutil.Process(pid) for pid in running.pids()]
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def _fetch(address: str, ticket: str) -> int:
    with flight.connect(address) as client:
        return int(client.do_get(flight.Ticket(ticket.encode())).read_all().num_rows)

"""Given a mesh under load, when a process of it is killed or stopped, then it heals and the audit is valid."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from eventmesh import mesh as meshes
from eventmesh.lab.recovery import Fault, survive
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history

MESHES = Path(__file__).resolve().parents[2] / "configs" / "meshes"
pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("ray_cluster")]

FAULTS = [
    ("views", Fault("orders", "orders", 500, watched="orders")),
    ("request", Fault("inventory", "stock", 300, watched="stock")),
    ("views", Fault("broker", "orders", 700, watched="orders")),
    ("views", Fault("generator", "orders", 600, watched=None)),
    ("views", Fault("orders", "orders", 600, watched="orders", how=signal.SIGSTOP)),
]


@pytest.mark.parametrize(("wiring", "fault"), FAULTS, ids=lambda value: getattr(value, "service", value))
def test_a_process_that_is_killed_or_stopped_is_replaced_and_the_run_is_valid(
    wiring: str, fault: Fault, tmp_path: Path
) -> None:
    workload = of_history(generate(600, seed=3, products=40, customers=20), rate=300.0)
    survived = survive(meshes.load(MESHES / f"{wiring}.yaml"), workload, fault, tmp_path, seed=3, lease_s=2.0)
    assert survived.audit.verdict == "valid", survived.audit.describe()
    assert survived.audit.checks["E1"].examined == 600
    recovery = survived.recovery
    assert recovery.at_offset >= fault.offset
    assert recovery.next_pid not in (None, recovery.pid)
    assert recovery.restarts == 1

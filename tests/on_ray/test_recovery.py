"""Given a mesh under load, when a process of it is killed or stopped, then it heals and the audit is valid."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from eventmesh import mesh as meshes
from eventmesh.lab.recovery import Fault, Recovery, strike, survive
from eventmesh.lab.run import audit_folder
from eventmesh.log.store import open_read_only
from eventmesh.runtime.on_ray.cluster import MeshOnRay
from eventmesh.runtime.running import seed_with
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from eventmesh.workload import Requests

MESHES = Path(__file__).resolve().parents[2] / "configs" / "meshes"
pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("ray_cluster")]

#: Orders of each load, per second, and the offset of the watched topic at which the fault comes, counted from its load.
ORDERS, RATE, INTO_IT = 400, 300.0, 200


def healed(recovery: Recovery) -> bool:
    return recovery.next_pid not in (None, recovery.pid) and recovery.at_offset >= recovery.fault.offset


def test_one_after_the_other_is_killed_or_stopped_and_each_is_replaced_and_all_orders_end_right(tmp_path: Path) -> None:
    """One mesh, and a load for each fault: what an earlier fault broke, a later load would find."""
    stop = signal.SIGSTOP
    faults = [
        Fault("orders", "orders", INTO_IT, watched="orders"),
        Fault("broker", "orders", INTO_IT, watched="orders"),
        Fault("generator", "orders", INTO_IT, watched=None),
        Fault("orders", "orders", INTO_IT, watched="orders", how=stop),
        Fault("broker", "orders", INTO_IT, watched="orders", how=stop),
    ]
    mesh, restarts, tables = meshes.load(MESHES / "views.yaml"), list[int](), list[pa.Table]()
    orders = of_history(generate(ORDERS * len(faults), seed=3, products=40, customers=20), rate=RATE)
    with MeshOnRay(mesh, tmp_path / "log", seed=3, lease_s=2.0) as running:
        seed_with(running, orders.seeding)
        for number, (fault, load) in enumerate(zip(faults, _loads(orders.load), strict=True)):
            with closing(open_read_only(running.log_directory)) as reader:
                begun = reader.watermark(fault.topic, 0)
            struck = replace(fault, offset=begun + fault.offset)
            recovery, measured = strike(running, f"load-{number}", load, struck)
            assert healed(recovery), recovery
            restarts.append(recovery.restarts)
            tables.append(measured.callers)
        history = running.history(pa.concat_tables(tables))
    assert restarts == [1, 1, 1, 2, 2], "of orders and the broker twice, and of nobody else"
    audit, _ = audit_folder(mesh, tmp_path, history)
    assert audit.verdict == "valid", audit.describe()
    assert audit.checks["E1"].examined == len(orders.load)


def _loads(requests: Requests) -> Iterator[Requests]:
    for first in range(0, len(requests), ORDERS):
        load = requests.take(range(first, first + ORDERS))
        yield replace(load, at=load.at - load.at[0])


@pytest.mark.parametrize(
    ("wiring", "fault"),
    [
        ("request", Fault("inventory", "stock", 300, watched="stock")),
        ("hybrid", Fault("gateway", "orders", 500, watched="order-requests")),
    ],
    ids=["request", "hybrid"],
)
def test_where_services_ask_each_other_who_was_asked_or_asks_may_die(wiring: str, fault: Fault, tmp_path: Path) -> None:
    workload = of_history(generate(600, seed=3, products=40, customers=20), rate=RATE)
    survived = survive(meshes.load(MESHES / f"{wiring}.yaml"), workload, fault, tmp_path, seed=3, lease_s=2.0)
    assert survived.audit.verdict == "valid", survived.audit.describe()
    assert survived.audit.checks["E1"].examined == 600
    assert healed(survived.recovery)
    assert survived.recovery.restarts == 1

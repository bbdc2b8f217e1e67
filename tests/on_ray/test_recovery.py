"""Given a mesh under load, when a process of it is killed or stopped, then it heals and the audit is valid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from eventmesh import mesh as meshes
from eventmesh.lab.recovery import Death, Recovery, strike, survive
from eventmesh.lab.run import audit_folder
from eventmesh.log.store import open_read_only
from eventmesh.runtime.faults import AtOffset, Freeze, Kill
from eventmesh.runtime.on_ray.cluster import MeshOnRay
from eventmesh.runtime.running import seed_with
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from eventmesh.workload import Requests

MESHES = Path(__file__).resolve().parents[2] / "configs" / "meshes"
pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("ray_cluster")]

#: Orders of each load, per second, and the offset of the watched topic at which the fault comes, counted from its load.
ORDERS, RATE, INTO_IT = 400, 300.0, 200
#: Longer than the lease of the supervisor, which kills who does not answer.
LONG_S = 600.0


def healed(recovery: Recovery) -> bool:
    return recovery.next_pid not in (None, recovery.pid) and recovery.at_offset >= recovery.death.moment.offset


def test_one_after_the_other_is_killed_or_stopped_and_each_is_replaced_and_all_orders_end_right(tmp_path: Path) -> None:
    """One mesh, and a load for each fault: what an earlier fault broke, a later load would find."""
    faults: list[tuple[Kill | Freeze, str | None]] = [
        (Kill(process="orders/0"), "orders"),
        (Kill(process="broker"), "orders"),
        (Kill(process="generator"), None),
        (Freeze(process="orders/0", lasts_s=LONG_S), "orders"),
        (Freeze(process="broker", lasts_s=LONG_S), "orders"),
    ]
    mesh, restarts, tables = meshes.load(MESHES / "views.yaml"), list[int](), list[pa.Table]()
    orders = of_history(generate(ORDERS * len(faults), seed=3, products=40, customers=20), rate=RATE)
    with MeshOnRay(mesh, tmp_path / "log", seed=3, lease_s=2.0) as running:
        seed_with(running, orders.seeding)
        for number, ((fault, watched), load) in enumerate(zip(faults, _loads(orders.load), strict=True)):
            with closing(open_read_only(running.log_directory)) as reader:
                begun = reader.watermark("orders", 0)
            death = Death(AtOffset(partition="orders/0", offset=begun + INTO_IT), fault, watched)
            recovery, measured = strike(running, f"load-{number}", load, death)
            assert healed(recovery), recovery
            restarts.append(recovery.restarts)
            tables.append(measured.callers)
        history = running.history(pa.concat_tables(tables))
    assert restarts == [1, 1, 1, 2, 2], "of orders and the broker twice, and of nobody else"
    audit, *_ = audit_folder(mesh, tmp_path, history)
    assert audit.verdict == "valid", audit.describe()
    assert audit.checks["E1"].examined == len(orders.load)


def _loads(requests: Requests) -> Iterator[Requests]:
    for first in range(0, len(requests), ORDERS):
        load = requests.take(range(first, first + ORDERS))
        yield replace(load, at=load.at - load.at[0])


@pytest.mark.parametrize(
    ("wiring", "death"),
    [
        (
            "request",
            Death(AtOffset(partition="stock/0", offset=300), Kill(process="inventory/0"), watched="stock"),
        ),
        (
            "hybrid",
            Death(AtOffset(partition="orders/0", offset=500), Kill(process="gateway/0"), watched="order-requests"),
        ),
    ],
    ids=["request", "hybrid"],
)
def test_where_services_ask_each_other_who_was_asked_or_asks_may_die(wiring: str, death: Death, tmp_path: Path) -> None:
    workload = of_history(generate(600, seed=3, products=40, customers=20), rate=RATE)
    survived = survive(meshes.load(MESHES / f"{wiring}.yaml"), workload, death, tmp_path, seed=3, lease_s=2.0)
    assert survived.audit.verdict == "valid", survived.audit.describe()
    assert survived.audit.checks["E1"].examined == 600
    assert healed(survived.recovery)
    assert survived.recovery.restarts == 1

"""Given a mesh with small limits, when it is offered far too much, then it says so, nothing grows or is lost (P8)."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pytest

from eventmesh import mesh as meshes
from eventmesh.lab.overload import overload, throttled
from eventmesh.runtime.limits import Limits
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.order_history import OrderHistory
from eventmesh.shop.workloads import of_history

MESHES = Path(__file__).resolve().parents[2] / "configs" / "meshes"
pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("ray_cluster")]

SURGE, CALM = 3_000, 200
MESSAGE_ROWS_MAX = 500  # of a caller; a message is let in whole while there is any room
LIMITS = Limits(asks_queued_rows_max=600, inputs_queued_rows_max=1_000)


def test_what_is_too_much_is_throttled_queues_keep_their_limits_and_nothing_is_lost(tmp_path: Path) -> None:
    document = meshes.load(MESHES / "views.yaml").resolved()
    document["services"]["gateway"]["open_orders_max"] = 100
    orders = generate(SURGE + CALM, seed=4, products=40, customers=20, lines_per_order=1)
    surge = OrderHistory(orders.requests.slice(0, SURGE), orders.refused)
    calm = OrderHistory(orders.requests.slice(SURGE), orders.refused)
    found = overload(
        meshes.parse(document), of_history(orders).seeding, of_history(surge, rate=10_000).load,
        of_history(calm, rate=50.0).load, tmp_path, limits=LIMITS, seed=4,
    )  # fmt: skip
    assert found.audit.verdict == "valid", found.audit.describe()
    assert throttled(found.callers) > 0, "never too much: nothing was tested"
    assert throttled(found.afterwards) == 0
    for callers in (found.callers, found.afterwards):
        assert pc.unique(callers["outcome"]).to_pylist() == ["confirmed"]
    for service, queues in found.queues.items():
        assert queues["commands_queued_rows_max"] <= LIMITS.asks_queued_rows_max, service
        assert queues["asked_rows_max"] <= LIMITS.asks_queued_rows_max + MESSAGE_ROWS_MAX, service

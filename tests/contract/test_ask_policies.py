"""Given a shop that asks by policies, then its orders end as without them, and what came of its asks is counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from tests.contract.conftest import DescribeMesh, Runtime

ORDERS, PRODUCTS = 40, 5
#: Longer than the story takes on any clock: nothing is asked for a second time, and nothing fails.
POLICIES: dict[str, Any] = {
    "default": {
        "timeout_ms": 60_000, "circuit_breaker": {"consecutive_failures": 50}, "bulkhead": {
            "in_flight_max": 1, "queued_max": 1_000
        },
    },
    "PriceBySku": {"cache": {"ttl_ms": 600_000}},
    "CustomerById": {"cache": {"ttl_ms": 600_000}},
}  # fmt: skip


def test_a_shop_that_asks_by_policies(runtime: Runtime, shop: DescribeMesh) -> None:
    workload = of_history(generate(ORDERS, seed=3, products=PRODUCTS, customers=4), rate=40.0)
    run = runtime(shop("request", orders={"policies": POLICIES}), workload)
    assert Counter(row["outcome"] for row in run.callers("PlaceOrder")) == {"confirmed": ORDERS}
    assert run.audit().describe() == "audit: valid"
    prices, stock = run.asks["orders", "PriceBySku"], run.asks["orders", "StockBySku"]
    lines = sum(len(fact["lines"]) for fact in run.facts("orders", "OrderValidated"))
    assert prices["cache_hits"] + prices["cache_misses"] == lines
    assert prices["cache_hits"] > 0, "what one order has asked, a later one knows"
    assert (stock["cache_hits"], stock["attempts"] >= ORDERS) == (0, True)
    assert run.asks["gateway", "TakeOrder"]["attempts"] >= ORDERS
    of_orders = [counts for (asker, _), counts in run.asks.items() if asker == "orders"]
    assert sum(counts["bulkhead_queued"] for counts in of_orders) > 0
    for never in ("repeats", "timeouts", "given_up", "circuit_opened", "circuit_not_permitted", "bulkhead_full"):
        assert sum(counts[never] for counts in of_orders) == 0, never

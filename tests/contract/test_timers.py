"""Given a courier who must be found in time, then on both runtimes who finds none has the money back."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.contract.conftest import ROOT, Runtime, after, described
from tests.delivery.facts import OrderMeal, SendCouriers
from tests.delivery.services import NO_COURIER

SEARCH_S = 1.5
MEALS = [OrderMeal(f"meal-{number}", "north", 1_000, 50) for number in range(5)]


@pytest.mark.parametrize("wiring", ["told", "asked"])
def test_a_search_ends_in_time(runtime: Runtime, wiring: str) -> None:
    """Two couriers are there, one comes half a second later; two meals find none."""
    options = {service: {"search_s": SEARCH_S} for service in ("app", "couriers")}
    mesh = described(ROOT / "tests" / "delivery" / f"{wiring}.yaml", None, options)
    run = runtime(mesh, after([], [SendCouriers("north", 2)], MEALS, [SendCouriers("north", 1)]))
    told = run.callers("OrderMeal")
    assert Counter(row["outcome"] for row in told) == {"delivered": 3, "failed": 2}
    failed = [row for row in told if row["outcome"] == "failed"]
    assert {row["reason"] for row in failed} == {NO_COURIER.format(SEARCH_S)}
    assert all(row["completed_at"] - row["sent_at"] >= SEARCH_S * 1e6 for row in failed), "not before its time"
    assert len(run.facts("charges", "Refunded")) == 2
    audit = run.audit()
    assert audit.verdict == "valid", audit.describe()
    assert audit.checks["D11"].examined > 0

"""Given views of every kind, then a rule sees in them what the log says, and both runtimes end with the same."""

from __future__ import annotations

from typing import Any

from tests.contract.conftest import ROOT, Finished, Runtime, after, described
from tests.market.stalls import Look, Sell, TakeBack, Void

MOST = 2**63 - 1


def day(runtime: Runtime) -> Finished:
    """Two customers buy, and give some of it back; then the board is asked what it sees of them."""
    sold = [
        Sell(sale=f"{customer}-{number}", customer=customer, product=product, amount=amount, floor=1, weight=1.5,
              organic=True)
        for customer, amounts in (("ann", (30, 20, 20, 50)), ("bob", (MOST, MOST, 5)))
        for number, (product, amount) in enumerate(zip(("fig", "kale", "fig", "plum"), amounts, strict=False))
    ]  # fmt: skip
    back = [TakeBack("ann-0", "ann", amount=-30), TakeBack("bob-2", "bob")]
    looks = [Look("ann", 6), Look("bob", 4), Look("cy", 0)]
    mesh = described(ROOT / "tests" / "market" / "mesh.yaml", None, {})
    return runtime(mesh, after([], sold, back, [Void("ann-3", "ann")], looks))


def test_rules_see_what_the_log_says(runtime: Runtime) -> None:
    """And a sum that no column holds is told where it is written down: it does not wrap around."""
    run = day(runtime)
    seen = {fact["customer"]: (fact["count"], fact["spent"]) for fact in run.facts("notes", "Looked")}
    assert seen == {"ann": (6, 90), "cy": (0, 0)}
    bob = next(row for row in run.callers("Look") if row["key"] == "bob")
    whole = f"expected a whole number from {-(2**63)} to {MOST}"
    assert bob["reason"] == f"refused: DoesNotFit: Looked: spent is {2 * MOST + 5}, {whole}"
    held: dict[str, list[Any]] = {}
    for dump in run.history.views:
        held[dump.view] = [(row["key"], *row.get("row", ()), *row["values"]) for row in dump.rows]
    assert held["open"] == [
        ("ann", "ann-1", "kale", 20), ("ann", "ann-2", "fig", 20), ("bob", "bob-0", "fig", MOST),
        ("bob", "bob-1", "kale", MOST),
    ]  # fmt: skip
    assert {product: best for product, best, _ in held["dearest"] if product} == {
        "fig": ((MOST, "bob-0", "bob"), (30, "ann-0", "ann"), (20, "ann-2", "ann")),
        "kale": ((MOST, "bob-1", "bob"), (20, "ann-1", "ann")),
        "plum": ((50, "ann-3", "ann"),),
    }
    assert len(held["last-price"]) == 5
    e8 = run.audit().checks["E8"]
    assert (e8.verdict, e8.examined) == ("valid", sum(map(len, held.values())))

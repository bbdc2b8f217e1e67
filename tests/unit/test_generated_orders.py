"""Given a seed and a shape, then always the same orders, with the traits that were asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from eventmesh.errors import ConfigurationError
from eventmesh.shop.generated_orders import START_US, generate
from eventmesh.shop.order_history import OrderHistory


def of_kind(history: OrderHistory, kind: str) -> pa.Table:
    return history.requests.filter(pc.field("kind") == kind)


def times(table: pa.Table) -> npt.NDArray[np.int64]:
    values: npt.NDArray[np.int64] = table["ordered_at"].cast(pa.int64()).to_numpy()
    return values


def sizes(history: OrderHistory) -> npt.NDArray[np.int32]:
    values: npt.NDArray[np.int32] = pc.list_value_length(of_kind(history, "order")["lines"]).to_numpy()
    return values


def shares(history: OrderHistory, products: int) -> npt.NDArray[np.float64]:
    """The share of lines of each product, the most bought first."""
    skus = pc.struct_field(pc.list_flatten(of_kind(history, "order")["lines"]), "sku")
    ranks = pc.utf8_slice_codeunits(skus, 4).cast(pa.int64()).to_numpy() - 1
    return np.bincount(ranks, minlength=products) / len(ranks)


def test_the_same_seed_gives_the_same_history_and_another_seed_another() -> None:
    shape: dict[str, Any] = {"cancel_permille": 100, "return_permille": 100, "guest_permille": 100}
    assert generate(500, seed=1, **shape).requests == generate(500, seed=1, **shape).requests
    assert generate(500, seed=1, **shape).requests != generate(500, seed=2, **shape).requests


def test_cancels_and_returns_leave_the_orders_as_they_were() -> None:
    plain = generate(300, seed=3)
    mixed = generate(300, seed=3, cancel_permille=200, return_permille=200)
    assert of_kind(mixed, "order") == plain.requests


def test_amounts_are_the_sums_of_their_lines() -> None:
    for request in generate(200, seed=4, return_permille=500, cancel_permille=100).requests.to_pylist():
        assert request["amount"] == sum(line["quantity"] * line["unit_price"] for line in request["lines"])
        assert all(line["quantity"] > 0 and line["unit_price"] > 0 for line in request["lines"])
        assert bool(request["lines"]) == (request["kind"] != "cancel")


def test_requests_are_in_order_of_time_and_named_in_that_order() -> None:
    history = generate(400, seed=5, cancel_permille=300, return_permille=300, prefix="bench-")
    ids = of_kind(history, "order")["order_id"].to_pylist()
    assert (np.diff(times(history.requests)) >= 0).all()
    assert times(history.requests)[0] >= START_US
    assert ids == [f"bench-{number:08d}" for number in range(1, 401)]


def test_cancels_name_an_earlier_order_and_follow_it_shortly() -> None:
    history = generate(1000, seed=6, cancel_permille=250, cancel_after_s_mean=0.05)
    orders, cancels = of_kind(history, "order"), of_kind(history, "cancel")
    ordered_at = dict(zip(orders["order_id"].to_pylist(), times(orders), strict=True))
    delays = times(cancels) - np.array([ordered_at[name] for name in cancels["order_id"].to_pylist()])
    assert cancels.num_rows == len(set(cancels["order_id"].to_pylist())) == 250
    assert delays.min() > 0
    assert 40_000 < delays.mean() < 60_000


def test_returns_give_back_at_most_what_was_bought_and_not_cancelled() -> None:
    history = generate(1000, seed=7, cancel_permille=500, return_permille=500)
    bought = {row["order_id"]: row for row in of_kind(history, "order").to_pylist()}
    cancelled = set(of_kind(history, "cancel")["order_id"].to_pylist())
    returns = of_kind(history, "return").to_pylist()
    assert len(returns) == 500
    for row in returns:
        order = bought[row["order_id"].removeprefix("C")]
        (line,) = row["lines"]
        assert order["order_id"] not in cancelled
        assert order["ordered_at"] < row["ordered_at"]
        assert order["customer_id"] == row["customer_id"]
        assert any(
            line["sku"] == had["sku"]
            and line["unit_price"] == had["unit_price"]
            and line["quantity"] <= had["quantity"]
            for had in order["lines"]
        )


@pytest.mark.parametrize("exponent", [0.0, 1.1])
def test_products_are_skewed_by_the_zipf_law(exponent: float) -> None:
    weights = np.arange(1, 51, dtype=np.float64) ** -exponent
    found = shares(generate(50_000, seed=8, products=50, zipf=exponent, lines_per_order=1), 50)
    # Five standard deviations of a share of 50,000 draws are below 0.011 for any share.
    assert np.abs(found - weights / weights.sum()).max() < 0.011


def test_sizes_have_the_mean_asked_for_and_a_long_tail() -> None:
    found = sizes(generate(20_000, seed=9, lines_mean=10.0))
    assert 9.5 < found.mean() < 10.5
    assert found.min() == 1
    assert np.median(found) < 8
    assert found.max() > 100


def test_sizes_can_be_fixed_or_cut() -> None:
    assert set(sizes(generate(100, seed=10, lines_per_order=1))) == {1}
    assert set(sizes(generate(100, seed=10, lines_per_order=4))) == {4}
    assert set(sizes(generate(100, seed=10, lines_mean=1.0))) == {1}
    assert sizes(generate(2000, seed=10, lines_mean=20.0, lines_max=25)).max() == 25


@pytest.mark.parametrize("burstiness", [0.0, 1.0, 8.0])
def test_gaps_have_the_rate_and_the_variation_asked_for(burstiness: float) -> None:
    gaps = np.diff(
        times(generate(100_000, seed=11, lines_per_order=1, orders_per_s=50.0, burstiness=burstiness).requests)
    )
    assert gaps.mean() == pytest.approx(20_000, rel=0.05)
    assert gaps.var() / gaps.mean() ** 2 == pytest.approx(burstiness, rel=0.15, abs=1e-6)


def test_customers_keep_their_country_and_guests_have_none() -> None:
    history = generate(5000, seed=12, customers=40, guest_permille=300)
    pairs = set(zip(*history.requests.select(["customer_id", "country"]).to_pydict().values(), strict=True))
    assert len(pairs) == 41
    assert (None, None) in pairs
    assert 0.25 < history.requests["customer_id"].null_count / 5000 < 0.35
    assert history.customers().num_rows == 40


def test_the_summary_counts_what_was_generated() -> None:
    history = generate(100, seed=13, lines_per_order=3, cancel_permille=100, return_permille=50)
    summary = history.summary()
    assert summary["value_minor_units"] == pc.sum(of_kind(history, "order")["amount"]).as_py()
    del summary["value_minor_units"]
    assert summary == {"rows": 305, "orders": 100, "lines": 300, "returns": 5, "refused": {}}


def test_every_product_has_one_price_and_its_demand_is_what_was_ordered() -> None:
    history = generate(500, seed=14, products=20)
    assert history.prices()["sku"].to_pylist() == history.demand()["sku"].to_pylist()
    quantities = pc.struct_field(pc.list_flatten(history.requests["lines"]), "quantity")
    assert pc.sum(history.demand()["quantity"]) == pc.sum(quantities)


def test_no_orders_is_an_empty_history() -> None:
    assert generate(0, seed=15, cancel_permille=500).requests.num_rows == 0


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("products", 0, "1 or more"),
        ("customers", 0, "1 or more"),
        ("lines_mean", 0.5, "1 or more"),
        ("lines_per_order", 0, "1 or more"),
        ("burstiness", -1.0, "0 or more"),
        ("orders_per_s", 0.0, "1e-06 or more"),
        ("zipf", float("nan"), "0 or more"),
        ("cancel_permille", 1001, "0 to 1000"),
    ],
)
def test_an_argument_out_of_range_is_refused(name: str, value: float, allowed: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name}: found {value}, allowed: {allowed}"):
        generate(10, seed=16, **{name: value})  # type: ignore[arg-type]


def test_more_cancels_and_returns_than_orders_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="return_permille: found 300, allowed: 0 to 200"):
        generate(10, seed=17, cancel_permille=800, return_permille=300)
    with pytest.raises(ConfigurationError, match="count: found -1"):
        generate(-1, seed=17)
    with pytest.raises(ConfigurationError, match="seed: found -1"):
        generate(1, seed=-1)

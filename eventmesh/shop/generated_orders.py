"""Made-up orders with the traits of real ones: skewed products, bursts, a few very long orders.

The same arguments give the same history, byte for byte. Each trait draws from a random stream of its
own, so that asking for cancellations or returns leaves the orders themselves as they were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from eventmesh.errors import ConfigurationError
from eventmesh.messages import TIMESTAMP
from eventmesh.shop.order_history import REFUSED, REQUESTS, Integers, OrderHistory, amounts, list_lines

START_US = 1_767_225_600_000_000  # 2026-01-01 00:00 UTC
COUNTRIES = ("United Kingdom", "Germany", "France", "Ireland", "Spain", "Netherlands", "Belgium", "Switzerland")
#: What the ids of generated orders begin with.
GENERATED = "G"
HOME_SHARE = 0.8  # of customers live in the first country; the others share the rest

# Spread of the logarithm of an order's size: with a mean of 26.6 lines it gives a median of about 17
# and, among 20,000 orders, one of about a thousand, close to what gift shops report.
_SIZE_SIGMA = 1.0
_QUANTITY_P = 0.25  # units of a line are geometric with mean 4
_STREAMS = ("times", "sizes", "products", "quantities", "prices", "customers", "cancels", "returns")


def generate(
    count: int,
    *,
    seed: int,
    products: int = 500,
    zipf: float = 1.1,
    customers: int = 1000,
    guest_permille: int = 0,
    lines_per_order: int | None = None,
    lines_mean: float = 3.0,
    lines_max: int = 1200,
    orders_per_s: float = 100.0,
    burstiness: float = 4.0,
    cancel_permille: int = 0,
    cancel_after_s_mean: float = 0.05,
    return_permille: int = 0,
    return_after_s_mean: float = 10.0,
    prefix: str = GENERATED,
    start_us: int = START_US,
) -> OrderHistory:
    """A history of ``count`` orders, with cancels and returns in addition.

    The product of rank k is bought in proportion to ``k ** -zipf``; its price is the same in all orders.
    ``lines_per_order`` fixes the number of lines; otherwise it is one plus a Poisson-lognormal number
    with mean ``lines_mean``, cut at ``lines_max``. Gaps between orders have the mean
    ``1 / orders_per_s`` and the squared coefficient of variation ``burstiness``: 0 is a metronome, 1 a
    Poisson process, more comes in bursts. ``cancel_permille`` of the orders are cancelled shortly after.
    Of ``return_permille`` others one line is returned, under the order's id with a ``C`` before it, as
    the returns of real files have ids of their own. Times start at ``start_us`` (microseconds, UTC).

    Raises ConfigurationError for an argument out of its range.
    """
    _check("count", count, 0)
    _check("products", products, 1)
    _check("customers", customers, 1)
    _check("lines_mean", lines_mean, 1)
    _check("lines_max", lines_max, 1)
    _check("zipf", zipf, 0)
    _check("burstiness", burstiness, 0)
    _check("orders_per_s", orders_per_s, 1e-6)
    _check("cancel_after_s_mean", cancel_after_s_mean, 0)
    _check("return_after_s_mean", return_after_s_mean, 0)
    _check("guest_permille", guest_permille, 0, 1000)
    _check("cancel_permille", cancel_permille, 0, 1000)
    _check("return_permille", return_permille, 0, 1000 - cancel_permille)
    streams = _streams(seed)
    if lines_per_order is None:
        sizes = _sizes(streams["sizes"], count, lines_mean, lines_max)
    else:
        _check("lines_per_order", lines_per_order, 1)
        sizes = np.full(count, lines_per_order, np.int64)
    orders = _Orders(
        ids=_numbered(prefix, count, width=8),
        times=start_us + _times(streams["times"], count, 1e6 / orders_per_s, burstiness),
        starts=np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]),
        products=_zipf(streams["products"], int(sizes.sum()), products, zipf),
        quantities=streams["quantities"].geometric(_QUANTITY_P, int(sizes.sum())).astype(np.int64),
        prices=_prices(streams["prices"], products),
        skus=_numbered("sku-", products, width=5),
        buyers=_buyers(streams["customers"], count, customers, guest_permille),
        countries=_countries(streams["customers"], customers),
    )
    cancelled = _some(streams["cancels"], np.arange(count), count * cancel_permille // 1000)
    others = np.setdiff1d(np.arange(count), cancelled)
    returned = _some(streams["returns"], others, count * return_permille // 1000)
    requests = pa.concat_tables(
        [
            _order_rows(orders),
            _cancel_rows(orders, cancelled, _delays(streams["cancels"], len(cancelled), cancel_after_s_mean)),
            _return_rows(orders, returned, streams["returns"], return_after_s_mean),
        ]
    )
    in_time = np.argsort(requests["ordered_at"].cast(pa.int64()).to_numpy(), kind="stable")
    return OrderHistory(requests.take(pa.array(in_time)), REFUSED.empty_table())


@dataclass(frozen=True)
class _Orders:
    """What was drawn: per order ids, times, buyers; per line products and quantities; per product prices."""

    ids: pa.Array
    times: Integers  # microseconds, rising
    starts: Integers  # order i has the lines starts[i] up to starts[i + 1]
    products: Integers  # rank of each line's product, 0 the most bought
    quantities: Integers
    prices: Integers
    skus: pa.Array
    buyers: Integers  # -1: a guest
    countries: Integers  # of each customer


def _check(name: str, value: float, low: float, high: float = float("inf")) -> None:
    if not low <= value <= high:
        allowed = f"{low:g} or more" if high == float("inf") else f"{low:g} to {high:g}"
        raise ConfigurationError(f"found {value}, allowed: {allowed}", path=name)


def _streams(seed: int) -> dict[str, np.random.Generator]:
    _check("seed", seed, 0)
    children = np.random.SeedSequence(seed).spawn(len(_STREAMS))
    return {name: np.random.Generator(np.random.PCG64(child)) for name, child in zip(_STREAMS, children, strict=True)}


def _numbered(prefix: str, count: int, width: int) -> pa.Array:
    """``prefix`` and a number from 1, filled with zeros so that text order is number order."""
    numbers = pc.utf8_lpad(pa.array(np.arange(1, count + 1)).cast(pa.string()), width, "0")
    return pc.binary_join_element_wise(prefix, numbers, "")


def _times(stream: np.random.Generator, count: int, gap_us_mean: float, burstiness: float) -> Integers:
    if burstiness == 0:
        gaps = np.full(count, gap_us_mean)
    else:
        # A gamma of this shape has the mean 1 / shape and the squared coefficient of variation 1 / shape.
        gaps = stream.gamma(1 / burstiness, size=count) * gap_us_mean * burstiness
    return np.cumsum(gaps).astype(np.int64)


def _sizes(stream: np.random.Generator, count: int, mean: float, largest: int) -> Integers:
    rates = stream.lognormal(-(_SIZE_SIGMA**2) / 2, _SIZE_SIGMA, count) * (mean - 1)
    sizes: Integers = np.minimum(1 + stream.poisson(rates), largest)
    return sizes


def _zipf(stream: np.random.Generator, count: int, products: int, exponent: float) -> Integers:
    weights = np.arange(1, products + 1, dtype=np.float64) ** -exponent
    shares = np.cumsum(weights) / weights.sum()
    # Rounding may leave the last share just below 1.
    return np.minimum(np.searchsorted(shares, stream.random(count), side="right"), products - 1).astype(np.int64)


def _prices(stream: np.random.Generator, products: int) -> Integers:
    """Minor units, mostly one to ten major ones, never 0."""
    return np.maximum(1, np.rint(stream.lognormal(np.log(295.0), 0.9, products))).astype(np.int64)


def _buyers(stream: np.random.Generator, count: int, customers: int, guest_permille: int) -> Integers:
    buyers = stream.integers(0, customers, count)
    guests = stream.integers(0, 1000, count) < guest_permille
    return np.where(guests, np.int64(-1), buyers)


def _countries(stream: np.random.Generator, customers: int) -> Integers:
    abroad = stream.integers(1, len(COUNTRIES), customers)
    return np.where(stream.random(customers) < HOME_SHARE, np.int64(0), abroad)


def _some(stream: np.random.Generator, among: Integers, count: int) -> Integers:
    return np.sort(stream.choice(among, count, replace=False)) if count else np.zeros(0, np.int64)


def _delays(stream: np.random.Generator, count: int, mean_s: float) -> Integers:
    """Microseconds, at least 1: nothing is cancelled or returned before it was ordered."""
    return 1 + (stream.exponential(mean_s, count) * 1e6).astype(np.int64)


def _order_rows(orders: _Orders) -> pa.Table:
    chosen = np.arange(len(orders.ids))
    prices = orders.prices[orders.products]
    lines = list_lines(orders.starts, _skus(orders, orders.products), orders.quantities, prices)
    return _rows(
        "order", orders, chosen, orders.ids, orders.times, lines, amounts(orders.starts, orders.quantities, prices)
    )


def _cancel_rows(orders: _Orders, chosen: Integers, delays: Integers) -> pa.Table:
    none = np.zeros(0, np.int64)
    lines = list_lines(np.zeros(len(chosen) + 1, np.int64), _skus(orders, none), none, none)
    ids, times = orders.ids.take(pa.array(chosen)), orders.times[chosen] + delays
    return _rows("cancel", orders, chosen, ids, times, lines, np.zeros(len(chosen), np.int64))


def _return_rows(orders: _Orders, chosen: Integers, stream: np.random.Generator, after_s_mean: float) -> pa.Table:
    """One line of each chosen order, and of it at least one unit."""
    line = stream.integers(orders.starts[chosen], orders.starts[chosen + 1])
    quantities = stream.integers(1, orders.quantities[line], endpoint=True)
    products, starts = orders.products[line], np.arange(len(chosen) + 1)
    prices = orders.prices[products]
    lines = list_lines(starts, _skus(orders, products), quantities, prices)
    ids = pc.binary_join_element_wise("C", orders.ids.take(pa.array(chosen)), "")
    times = orders.times[chosen] + _delays(stream, len(chosen), after_s_mean)
    return _rows("return", orders, chosen, ids, times, lines, amounts(starts, quantities, prices))


def _skus(orders: _Orders, products: Integers) -> pa.Array:
    return orders.skus.take(pa.array(products))


def _rows(
    kind: str, orders: _Orders, chosen: Integers, ids: pa.Array, times: Integers, lines: pa.ListArray, amount: Integers
) -> pa.Table:
    buyers = orders.buyers[chosen]
    guests: npt.NDArray[np.bool_] = buyers < 0
    customers = _numbered("customer-", len(orders.countries), width=6)
    return pa.table(
        [
            pa.array([kind]).take(pa.array(np.zeros(len(chosen), np.int64))),
            ids,
            customers.take(pa.array(buyers, mask=guests)),
            pa.array(COUNTRIES).take(pa.array(orders.countries[buyers], mask=guests)),
            pa.array(times).view(TIMESTAMP),
            lines,
            pa.array(amount),
        ],
        schema=REQUESTS,
    )

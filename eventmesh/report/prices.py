"""What each way of a scenario costs at the lowest load that all were measured at, where fixed costs show.

Only figures, with the range of their repetitions: what is less than what, beyond that range, is concluded in
:mod:`eventmesh.report.conclusions`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from eventmesh.application import Words
from eventmesh.report.differences import GENERATOR
from eventmesh.report.record import Latency, Point, Spread
from eventmesh.report.ways import Scenario, Way

STALENESS = "Staleness of what was read, p99"


@dataclass(frozen=True)
class Price:
    """One criterion across the ways of a scenario."""

    criterion: str
    unit: str
    values: dict[Way, Spread | None]
    note: str = ""


def total(roles: dict[str, Spread]) -> Spread | None:
    """The mesh's sum over its roles, without the generator; None of no role.

    Low and high are sums of lows and highs: at least as wide as the spread of the sums.
    """
    counted = [spread for role, spread in roles.items() if role != GENERATOR]
    if not counted:
        return None
    sums = ((sum(getattr(spread, name) for spread in counted)) for name in ("median", "low", "high"))
    return Spread(**dict(zip(("median", "low", "high"), sums, strict=True)))


def prices(scenario: Scenario, words: Words) -> list[Price]:
    """Every criterion of which any way has a figure. Less is better."""
    points, per_1000 = scenario.lowest, f"s per 1,000 {words.requests}"
    criteria: list[tuple[str, str, str, Callable[[Point], Spread | None]]] = [
        ("Accepted, p50", "ms", "the caller holds an acknowledgement", lambda p: _of(p.accepted_latency_ms, "p50")),
        ("Completed, p50", "ms", "the caller has the outcome", lambda p: _of(p.completed_latency_ms, "p50")),
        ("Completed, p99", "ms", "", lambda p: _of(p.completed_latency_ms, "p99")),
        (STALENESS, "ms", "a dash: nothing was read from a view", lambda p: _of(p.staleness_ms, "p99")),
        ("CPU of the mesh", per_1000, "without the generator", lambda p: total(p.cpu_s_per_1000_requests)),
        ("Memory of the mesh", "MB", "without the generator", lambda p: total(p.memory_mb)),
        ("Memory of the largest role", "MB", "views are kept in the service", lambda p: largest(p.memory_mb)),
        ("Bytes moved", "bytes", "", lambda p: p.bytes_moved),
    ]  # fmt: skip
    found = [
        Price(name, unit, {way: figure(point) for way, point in points.items()}, note)
        for name, unit, note, figure in criteria
    ]
    return [price for price in found if any(price.values.values())]


def largest(roles: dict[str, Spread]) -> Spread | None:
    """The role that takes most, the generator aside."""
    counted = [spread for role, spread in roles.items() if role != GENERATOR]
    return max(counted, key=lambda spread: spread.median, default=None)


def _of(latency: Latency | None, name: str) -> Spread | None:
    return getattr(latency, name) if latency is not None else None

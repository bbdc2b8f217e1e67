"""What a run says, worked out from its points: which way holds how much load, and where each way loses.

A *way* is a wiring with a way of joining; a *scenario* is everything else that was varied but the load. Every
sentence is computed. A difference within the spread of the repetitions is called none, a missing figure is
never called slower, and a point that is void or invalid takes part in no comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from eventmesh.lab import measure
from eventmesh.lab.record import Figure, Latency, Point, Run, Spread

LOAD = "offered_per_s"
#: The objective a load must meet to count as held: completed p99, milliseconds.
OBJECTIVE_MS = 1_000.0
#: The role of the load generator is no part of what a mesh costs.
GENERATOR = "generator"
JOINS = {
    "view": "local view", "per_row": "a query per row", "per_order": "queries per order",
    "pipelined": "pipelined queries", "batched": "batched queries", "cached": "cached queries",
    "hedged": "hedged queries", "none": "no join",
}  # fmt: skip
STALENESS = "Staleness of what was read, p99"
_LISTENING = ("view", "none")
_RELATIONS = {"<": "<", "<=": "≤", ">": ">", ">=": "≥", "==": "="}
#: A loss smaller than this ratio is not told in words, though the table still shows it.
TOLD_FROM = 1.05
#: Targets that a headline names, with what was measured; of more it says how many.
TARGETS_NAMED_MAX = 6
_AXES: dict[str, Callable[[float], str]] = {
    "joined_services": lambda value: f"{value:g} joined service{'' if value == 1 else 's'}",
    "rtt_ms": lambda value: f"{value:g} ms between services" if value else "no added network delay",
    "instances": lambda value: f"{value:g} instance{'' if value == 1 else 's'} per service",
    "table_rows": lambda value: f"{value:,.0f} rows per table",
    "updates_per_s": lambda value: f"{value:g} updates/s",
}


@dataclass(frozen=True, order=True)
class Way:
    """A wiring and how it joins."""

    wiring: str
    join: str

    @property
    def label(self) -> str:
        """``views (local view)``."""
        return f"{self.wiring} ({JOINS.get(self.join, self.join)})"

    def short(self, among: Iterable[Way]) -> str:
        """``views``; ``hybrid batched`` where ``among`` holds another way of the same wiring."""
        alone = all(other.wiring != self.wiring or other == self for other in among)
        return self.wiring if alone else f"{self.wiring} {self.join.replace('_', ' ')}"

    @property
    def asks(self) -> bool:
        """Whether services ask each other on the way, instead of listening only."""
        return self.join not in _LISTENING or self.wiring == "request"


@dataclass(frozen=True)
class Capacity:
    """The greatest load that a way held, per second; None where it did not hold even the smallest.

    ``at_least``: it held every load that was tried, so the true capacity lies above.
    """

    load: float | None
    at_least: bool
    smallest: float  # the smallest load tried

    @property
    def text(self) -> str:
        """``1,600``, ``at least 3,200``, ``less than 50``."""
        if self.load is None:
            return f"less than {number(self.smallest)}"
        return f"at least {number(self.load)}" if self.at_least else number(self.load)


@dataclass(frozen=True)
class Scenario:
    """Points that differ in nothing but way and load, each way's by rising load."""

    axis: tuple[tuple[str, float], ...]
    ways: dict[Way, list[Point]]

    @property
    def label(self) -> str:
        """``3 joined services and 1 ms between services``; empty where nothing but the load was varied."""
        return _listed([axis_label(name, value) for name, value in self.axis])

    def capacity(self, way: Way) -> Capacity | None:
        """What the way held; None where none of its points can be believed."""
        return capacity(self.ways[way])

    @cached_property
    def lowest(self) -> dict[Way, Point]:
        """Every way's point at the lowest load that all ways were believably measured at; empty if there is none."""
        measured = {
            way: {load(point): point for point in points if believable(point)} for way, points in self.ways.items()
        }
        common = set.intersection(*(set(points) for points in measured.values())) if measured else set()
        return {way: points[min(common)] for way, points in measured.items()} if common else {}


def number(value: float) -> str:
    """Three significant digits for small values, thousands separated for large ones."""
    if value != 0 and abs(value) < 100:
        return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"
    return f"{value:,.0f}"


def duration(milliseconds: float) -> str:
    """``0.42 ms``, ``12 ms``, ``3.4 s``."""
    return f"{number(milliseconds)} ms" if milliseconds < 1_000 else f"{number(milliseconds / 1_000)} s"


def axis_label(name: str, value: float) -> str:
    """One axis in words."""
    return _AXES[name](value) if name in _AXES else f"{name.replace('_', ' ')} {number(value)}"


def load(point: Point) -> float:
    """The load of a point per second: as the sweep names it, else as measured."""
    return point.axis.get(LOAD, point.offered_per_s.median)


def believable(point: Point) -> bool:
    """Whether a point's figures may be compared: audited not invalid, not void, and something was completed."""
    return point.audit.verdict != "invalid" and point.void is None and point.completed_latency_ms is not None


def held(point: Point) -> bool:
    """Whether the mesh held the load: audit valid, not saturated, and the completed p99 within the objective."""
    latency = point.completed_latency_ms
    sound = believable(point) and point.audit.verdict == "valid" and not point.saturated
    return sound and latency is not None and latency.p99.median < OBJECTIVE_MS


def capacity(points: Sequence[Point]) -> Capacity | None:
    """Theodolite's capacity: the greatest load that met every objective, with every smaller one meeting it too."""
    tried = [point for point in points if believable(point)]
    if not tried:
        return None
    best: float | None = None
    for point in tried:
        if not held(point):
            return Capacity(best, False, load(tried[0]))
        best = load(point)
    return Capacity(best, True, load(tried[0]))


def scenarios(run: Run) -> list[Scenario]:
    """The run's scenarios, the easiest first: fewer joined services, then a shorter network, then the rest by name."""
    found: dict[tuple[tuple[str, float], ...], dict[Way, list[Point]]] = {}
    for point in sorted(run.points, key=load):
        ways = found.setdefault(_axis_of(point), {})
        ways.setdefault(Way(point.wiring, point.join), []).append(point)
    return [Scenario(axis, dict(sorted(ways.items(), reverse=True))) for axis, ways in sorted(found.items())]


def _axis_of(point: Point) -> tuple[tuple[str, float], ...]:
    order = list(_AXES)
    names = sorted(
        point.axis.keys() - {LOAD}, key=lambda name: (order.index(name) if name in order else len(order), name)
    )
    return tuple((name, point.axis[name]) for name in names)


def headline(run: Run) -> str:
    """One sentence: who holds how much load, where asking wins, and which targets were met and missed."""
    if not run.points:
        return _without_points(run)
    bad = sum(point.audit.verdict == "invalid" for point in run.points)
    if bad == len(run.points):
        return f"The audit found this run invalid at every one of its {bad} points, so it has no performance to show."
    told = [scenario for scenario in scenarios(run) if any(scenario.capacity(way) for way in scenario.ways)]
    if not told:
        return "No point of this run can be believed: each is void or invalid, and the table says why."
    parts = [_who_holds(told[-1])]
    if any(way.asks for way in told[-1].ways) and not all(way.asks for way in told[-1].ways):
        parts.append(_where_asking_wins(told))
    if bad:
        parts.append(f"{bad} of {len(run.points)} points left out as invalid")
    return "; ".join([*parts, *_targets(run)]) + "."


def _without_points(run: Run) -> str:
    state = "ended early" if run.status == "aborted" else "is complete"
    found = f"The run {state}, its audit says {run.verdict}"
    if targets := _targets(run):
        ordinary = run.status == "complete" and run.verdict == "valid"
        sentence = "; ".join(targets if ordinary else [found, *targets])
        return f"{sentence[0].upper()}{sentence[1:]}."
    ended = ", ".join(f"{number(count)} {outcome}" for outcome, count in run.outcomes.items())
    return found + (f", and its orders ended so: {ended}." if ended else ".")


def _targets(run: Run) -> list[str]:
    """What was met, what was missed, and what has no data; nothing where the run has no target.

    Of many targets the sentence only counts: the table behind it has each.
    """
    words = {True: "met", False: "missed", None: "without data"}
    aims = [figure for figure in run.figures if figure.target is not None]
    told = []
    for met, word in words.items():
        figures = [figure for figure in aims if figure.met is met]
        if figures and len(aims) > TARGETS_NAMED_MAX:
            told.append(f"{len(figures)} of {len(aims)} targets {word}")
        elif figures:
            told.append(f"target{'s' if len(figures) > 1 else ''} {word}: {_listed([_aim(each) for each in figures])}")
    return told


def _aim(figure: Figure) -> str:
    measured = "" if figure.value is None else f": {measured_text(figure)}"
    return f"{figure.name}{measured} (wanted {target_text(figure)})"


def measured_text(figure: Figure) -> str:
    """``34 s``; without the unit where the figure's name says it."""
    if figure.value is None:
        return "no data"
    return number(figure.value) if figure.unit in figure.name.split() else f"{number(figure.value)} {figure.unit}"


def target_text(figure: Figure) -> str:
    """``≥ 8,000``, in the figure's unit."""
    relation, bound = measure.threshold(figure.target or "")
    return f"{_RELATIONS[relation]} {number(bound)}"


def _who_holds(scenario: Scenario) -> str:
    known = {way: found for way in scenario.ways if (found := scenario.capacity(way))}
    ranked = sorted(known.items(), key=lambda item: -(item[1].load or 0))
    best, most = ranked[0]
    where = f"With {scenario.label}, " if scenario.label else ""
    objective = f"the objective (completed p99 below {duration(OBJECTIVE_MS)})"
    if most.load is None:
        return f"{where}no way held even {number(most.smallest)} orders/s within {objective}"
    others = [_beside(most, way, other) for way, other in ranked[1:]]
    named = f"{where}{best.label}" if where else f"{best.label[0].upper()}{best.label[1:]}"
    return f"{named} held {most.text} orders/s within {objective}" + (f", {_listed(others)}" if others else "")


def _beside(most: Capacity, way: Way, other: Capacity) -> str:
    if most.load is None or other.load is None:
        return f"where {way.label} held {other.text}"
    if most.load == other.load:
        return f"as did {way.label}" + ("" if most.at_least == other.at_least else f" ({other.text})")
    return f"{'at least ' if most.at_least else ''}{most.load / other.load:.2g} times {way.label} at {other.text}"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def _where_asking_wins(told: Sequence[Scenario]) -> str:
    for scenario in reversed(told):
        asking, listening = _fastest(scenario, asks=True), _fastest(scenario, asks=False)
        if asking and listening and asking[1].high < listening[1].low:
            where = f"with {scenario.label}, " if scenario is not told[-1] and scenario.label else ""
            where += f"at {number(load(scenario.lowest[asking[0]]))} orders/s"
            return (
                f"asking wins at low load: {where} {asking[0].label} "
                f"completes an order in {duration(asking[1].median)} (median), "
                f"{listening[0].label} in {duration(listening[1].median)}"
            )
    return "asking was not faster beyond the spread even at the lowest load measured"


def _fastest(scenario: Scenario, *, asks: bool) -> tuple[Way, Spread] | None:
    found = [
        (way, point.completed_latency_ms.p50)
        for way, point in scenario.lowest.items()
        if way.asks == asks and point.completed_latency_ms is not None
    ]
    return min(found, key=lambda item: item[1].median, default=None)


@dataclass(frozen=True)
class Price:
    """One criterion across the ways of a scenario; ``best`` is the way that wins beyond the spread, if any does."""

    criterion: str
    unit: str
    values: dict[Way, Spread | None]
    best: Way | None
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


def prices(scenario: Scenario) -> list[Price]:
    """What each way costs at the lowest load that all were measured at, where fixed costs show. Less is better."""
    points = scenario.lowest
    criteria: list[tuple[str, str, str, Callable[[Point], Spread | None]]] = [
        ("Accepted, p50", "ms", "the caller holds an acknowledgement", lambda p: _of(p.accepted_latency_ms, "p50")),
        ("Completed, p50", "ms", "the caller has the outcome", lambda p: _of(p.completed_latency_ms, "p50")),
        ("Completed, p99", "ms", "", lambda p: _of(p.completed_latency_ms, "p99")),
        (STALENESS, "ms", "a dash: nothing was read from a view", lambda p: _of(p.staleness_ms, "p99")),
        ("CPU of the mesh", "s per 1,000 orders", "without the generator", lambda p: total(p.cpu_s_per_1000_orders)),
        ("Memory of the mesh", "MB", "without the generator", lambda p: total(p.memory_mb)),
        ("Memory of the largest role", "MB", "views are kept in the service", lambda p: largest(p.memory_mb)),
        ("Bytes moved", "bytes", "", lambda p: p.bytes_moved),
    ]  # fmt: skip
    found = [
        _price(name, unit, note, {way: figure(point) for way, point in points.items()})
        for name, unit, note, figure in criteria
    ]
    return [price for price in found if any(price.values.values())]


def largest(roles: dict[str, Spread]) -> Spread | None:
    """The role that takes most, the generator aside."""
    counted = [spread for role, spread in roles.items() if role != GENERATOR]
    return max(counted, key=lambda spread: spread.median, default=None)


def _of(latency: Latency | None, name: str) -> Spread | None:
    return getattr(latency, name) if latency is not None else None


def _price(criterion: str, unit: str, note: str, values: dict[Way, Spread | None]) -> Price:
    known = sorted(((spread.median, way, spread) for way, spread in values.items() if spread is not None))
    won = len(known) > 1 and known[0][2].high < min(spread.low for _, _, spread in known[1:])
    return Price(criterion, unit, values, known[0][1] if won else None, note)


def losses(scenario: Scenario) -> list[str]:
    """Where listening loses to asking in this scenario, each beyond the spread, in words."""
    listening = [way for way in scenario.lowest if not way.asks]
    asking = [way for way in scenario.lowest if way.asks]
    found: list[str] = []
    if not listening or not asking:
        return found
    for price in prices(scenario):
        mine, theirs = _least(price, listening), _least(price, asking)
        if mine and theirs and mine[1].low > max(theirs[1].high, theirs[1].median * TOLD_FROM):
            found.append(_loss(price, mine, theirs))
        if mine and not theirs and price.criterion == STALENESS:
            found.append(
                f"{mine[0].label} decides on values {duration(mine[1].median)} old (p99); asking reads the owner's own."
            )
    return found


def _least(price: Price, ways: Iterable[Way]) -> tuple[Way, Spread] | None:
    known = [(way, spread) for way in ways if (spread := price.values.get(way)) is not None]
    return min(known, key=lambda item: item[1].median, default=None)


def _loss(price: Price, mine: tuple[Way, Spread], theirs: tuple[Way, Spread]) -> str:
    ratio = f", {mine[1].median / theirs[1].median:.2g} times" if theirs[1].median > 0 else ""
    return (
        f"{price.criterion}: {mine[0].label} {number(mine[1].median)} {price.unit}; "
        f"{theirs[0].label} {number(theirs[1].median)}{ratio}."
    )

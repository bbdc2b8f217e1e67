"""What a report compares: ways, which are a wiring with a way of joining, in scenarios, which are all that is varied.

A *scenario* is everything on a point's axis but the load. Nothing is judged here: what may be concluded from the
points is worked out in :mod:`eventmesh.report.conclusions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from eventmesh.report.record import Point, Repetition, Run
from eventmesh.report.wording import listed, number

LOAD = "offered_per_s"
#: Of a point but its load, in the order in which :data:`AXES` names them.
Axis = tuple[tuple[str, float], ...]
AXES: dict[str, Callable[[float], str]] = {
    "joined_services": lambda value: f"{value:g} joined service{'' if value == 1 else 's'}",
    "rtt_ms": lambda value: f"{value:g} ms between services" if value else "no added network delay",
    "instances": lambda value: f"{value:g} instance{'' if value == 1 else 's'} per service",
    "table_rows": lambda value: f"{value:,.0f} rows per table",
    "updates_per_s": lambda value: f"{value:g} updates/s",
}


@dataclass(frozen=True, order=True)
class Way:
    """A wiring and how it joins. ``joining`` is that in words; ``asks``: services ask each other, instead of listening.

    Where whole meshes are compared, it is the ``mesh`` of that name, at its ``place`` among them. A way is what it is
    by its names; the rest is only known of it.
    """

    wiring: str
    join: str
    joining: str = field(compare=False)
    asks: bool = field(compare=False)
    mesh: str = ""
    place: int | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """``views (local view)``; of a whole mesh its name and what its services do: ``library (listening)``."""
        return f"{self.mesh} ({self.kind})" if self.mesh else f"{self.wiring} ({self.joining})"

    @property
    def kind(self) -> str:
        """What its services do."""
        return "asking" if self.asks else "listening"

    @property
    def rank(self) -> int:
        """Its place in every list: meshes as they were named, else what listens before what asks."""
        return self.place if self.place is not None else int(self.asks)

    @property
    def is_rival(self) -> bool:
        """Whether it is held against others: what asks against what listens, a further mesh against the first."""
        return self.rank > 0

    def short(self, among: Iterable[Way]) -> str:
        """``views``; ``hybrid batched`` where ``among`` holds another way of the same wiring."""
        if self.mesh:
            return self.mesh
        alone = all(other.wiring != self.wiring or other == self for other in among)
        return self.wiring if alone else f"{self.wiring} {self.join.replace('_', ' ')}"


@dataclass(frozen=True)
class Scenario:
    """Points that differ in nothing but way and load, each way's by rising load."""

    axis: Axis
    ways: dict[Way, list[Point]]

    @property
    def label(self) -> str:
        """``3 joined services and 1 ms between services``; empty where nothing but the load was varied."""
        return axes_label(self.axis)

    @cached_property
    def lowest(self) -> dict[Way, Point]:
        """Every way's point at the lowest load that all ways were believably measured at; empty if there is none."""
        measured = {
            way: {load(point): point for point in points if believable(point)} for way, points in self.ways.items()
        }
        common = set.intersection(*(set(points) for points in measured.values())) if measured else set()
        return {way: points[min(common)] for way, points in measured.items()} if common else {}


def way_of(each: Point | Repetition) -> Way:
    """The way that a point or a repetition is of."""
    return Way(each.wiring, each.join, each.joining or each.join.replace("_", " "), each.asks, each.mesh, each.place)


def axis_label(name: str, value: float) -> str:
    """One axis in words."""
    return AXES[name](value) if name in AXES else f"{name.replace('_', ' ')} {number(value)}"


def axes_label(axis: Axis) -> str:
    """All of them: ``3 joined services and 1 ms between services``."""
    return listed([axis_label(name, value) for name, value in axis])


def load(point: Point) -> float:
    """The load of a point per second: as the sweep names it, else as measured."""
    return point.axis.get(LOAD, point.offered_per_s.median)


def load_of(each: Repetition) -> float:
    """The same of a single repetition."""
    return each.axis.get(LOAD, each.offered_per_s)


def believable(point: Point) -> bool:
    """Whether a point's figures may be looked at: not invalid, void or disturbed, and something was completed."""
    sound = point.audit.verdict != "invalid" and point.void is None and point.disturbed is None
    return sound and point.completed_latency_ms is not None


def scenarios(run: Run) -> list[Scenario]:
    """The run's scenarios, the easiest first: fewer joined services, then a shorter network, then the rest by name."""
    found: dict[Axis, dict[Way, list[Point]]] = {}
    for point in sorted(run.points, key=load):
        ways = found.setdefault(axis_of(point.axis), {})
        ways.setdefault(way_of(point), []).append(point)
    return [Scenario(axis, _in_order(ways)) for axis, ways in sorted(found.items())]


def _in_order(ways: Mapping[Way, list[Point]]) -> dict[Way, list[Point]]:
    return dict(sorted(sorted(ways.items(), reverse=True), key=lambda item: item[0].place or 0))


def axis_of(axis: Mapping[str, float]) -> Axis:
    """All but the load, in a fixed order."""
    order = list(AXES)
    names = sorted(axis.keys() - {LOAD}, key=lambda name: (order.index(name) if name in order else len(order), name))
    return tuple((name, axis[name]) for name in names)

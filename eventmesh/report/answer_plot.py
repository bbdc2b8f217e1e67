"""The one plot that a report begins with: bars that need no explanation, in the units of the drawing.

Where capacities were searched for, how much each way holds, from what it held for certain to what it did not. Else the
time from the request to its outcome at each load, the median of the repetitions with their range.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eventmesh.report import sentences
from eventmesh.report.conclusions import Conclusions, Holds
from eventmesh.report.differences import COMPLETED
from eventmesh.report.record import Repetition
from eventmesh.report.repetitions import counts
from eventmesh.report.ways import Axis, Way, axis_of, load_of, way_of
from eventmesh.report.wording import capital, duration, number

WIDTH = 430.0  # narrow, so that its letters can be read on a telephone
LENGTH = 290.0  # of the longest bar; its name stands above it, its text to its right
STEP, HEADING = 42.0, 30.0


@dataclass(frozen=True)
class Bar:
    """``width`` is certain, up to ``high`` it may reach, from ``low`` its range begins; ``open``: beyond that too."""

    way: Way
    label: str
    style: int
    y: float
    width: float
    low: float
    high: float
    open: bool
    text: str


@dataclass(frozen=True)
class Group:
    """Bars under one heading."""

    heading: str
    y: float
    bars: Sequence[Bar]


@dataclass(frozen=True)
class AnswerPlot:
    """Everything; ``whiskers``: ranges are drawn as a line over the bar, else as its paler end."""

    title: str
    note: str
    groups: Sequence[Group]
    height: float
    whiskers: bool


def plot(
    repetitions: Sequence[Repetition], found: Conclusions, axis: Axis, styles: Mapping[Way, int]
) -> AnswerPlot | None:
    """Of one scenario; None where nothing is known to draw."""
    ways = sorted({way for at, way in found.places if at == axis}, key=lambda way: (way.rank, way))
    held = [each for way in ways if isinstance(each := found.capacities.get((axis, way)), Holds)]
    # Ways that all held everything that was tried would be bars of one length.
    if held and (len(ways) == 1 or any(each.not_held is not None for each in held) or len(held) < len(ways)):
        return _capacities(found, axis, ways, styles)
    return _times(repetitions, found, axis, ways, styles)


def _name(way: Way) -> str:
    return way.label if way.mesh else f"{way.kind}: {way.joining}"


def _capacities(found: Conclusions, axis: Axis, ways: Sequence[Way], styles: Mapping[Way, int]) -> AnswerPlot:
    known = {way: found.capacities.get((axis, way)) for way in ways}
    most = max(each.not_held or each.held for each in known.values() if isinstance(each, Holds))
    bars = []
    for index, (way, each) in enumerate(known.items()):
        held, high = (each.held, each.not_held or each.held) if isinstance(each, Holds) else (0.0, 0.0)
        width, end = LENGTH * held / most, LENGTH * high / most
        text = sentences.capacity(each) if each else "no data"
        is_open = isinstance(each, Holds) and each.not_held is None
        bars.append(Bar(way, _name(way), styles.get(way, 0), HEADING + index * STEP, width, width, end, is_open, text))
    title = f"{capital(found.words.requests)} per second that were held: longer is better"
    note = "Solid: held in every try; pale: up to the smallest load that was held in none; an arrow: none was too much."
    return AnswerPlot(title, note, [Group("", 0.0, bars)], HEADING + len(bars) * STEP, whiskers=False)


def _times(
    repetitions: Sequence[Repetition], found: Conclusions, axis: Axis, ways: Sequence[Way], styles: Mapping[Way, int]
) -> AnswerPlot | None:
    kept = {(each.way, each.load): each.kept for each in found.kept_up if each.axis == axis}
    values: dict[tuple[Way, float], list[float]] = {}
    for each in repetitions:
        way, value = way_of(each), COMPLETED.value(each)
        if axis_of(each.axis) == axis and counts(each) and kept.get((way, load_of(each))) and value is not None:
            values.setdefault((way, load_of(each)), []).append(value)
    if not values:
        return None
    scale = LENGTH / max(max(some) for some in values.values())
    groups, y = [], HEADING
    for load in sorted({load for _, load in kept}):
        bars = []
        for index, way in enumerate(ways):
            bars.append(
                _time(way, values.get((way, load), []), kept.get((way, load)), styles, y + 22 + index * STEP, scale)
            )
        groups.append(Group(f"at {number(load)} {found.words.requests} per second", y + 10, bars))
        y += 22 + len(ways) * STEP + 10
    note = "Medians of the repetitions; the line goes from the lowest to the highest."
    title = f"Time from the {found.words.request} to its outcome: shorter is better"
    return AnswerPlot(title, note, groups, y, whiskers=True)


def _time(
    way: Way, values: Sequence[float], kept: bool | None, styles: Mapping[Way, int], y: float, scale: float
) -> Bar:
    if not values:
        text = "did not keep up" if kept is False else "not resolved"
        return Bar(way, _name(way), styles.get(way, 0), y, 0.0, 0.0, 0.0, False, text)
    middle = statistics.median(values)
    return Bar(
        way, _name(way), styles.get(way, 0), y, middle * scale, min(values) * scale, max(values) * scale, False,
        duration(middle),
    )  # fmt: skip

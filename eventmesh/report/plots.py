"""The geometry of the report's plots: where each line, mark, bar and label goes, in the units of the drawing.

One row of two panels per scenario: completed p99 against offered load, and the capacity of each way. All rows share
their scales, so they can be compared by eye. Figures with the same target become bars beside it. What is drawn, and
in which colour, is the template's business. Panels leave room for letters half again as large: on a narrow screen a
panel shrinks, and its letters must not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from eventmesh.application import PLAIN_WORDS, Words
from eventmesh.report import measure, sentences
from eventmesh.report.conclusions import Capacity, Holds
from eventmesh.report.record import Figure, Latency, Point
from eventmesh.report.repetitions import OBJECTIVE_MS
from eventmesh.report.targets import measured_text, target_text
from eventmesh.report.ways import Axis, Scenario, Way, believable, load
from eventmesh.report.wording import duration, number

WIDTH = 600.0  # of the latency panel
TOP, BOTTOM = 24.0, 214.0  # of the drawing area in a row
HEIGHT = 256.0
LEFT, RIGHT = 70.0, 410.0  # of the latency panel's drawing area; direct labels stand to its right
BARS_WIDTH, BARS_RIGHT = 430.0, 270.0  # of a panel of bars; their text stands to their right
BAR_STEP = 48.0
LABEL_APART = 19.0
TICKS_APART = 62.0
#: Loads that span this factor are drawn on a logarithmic scale.
LOGARITHMIC_FROM = 8.0
SHAPES = ("circle", "square", "diamond", "up", "down", "circle", "square")

Scale = Callable[[float], float]
Capacities = Mapping[tuple[Axis, Way], Capacity]


@dataclass(frozen=True)
class Tick:
    """A place on an axis and what is written there."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """One measured point: the median at ``y``, its spread from ``low`` to ``high``; ``title`` shows on hovering."""

    x: float
    y: float
    low: float
    high: float
    kind: str  # held | saturated | void
    title: str


@dataclass(frozen=True)
class Line:
    """A way's line: ``path`` completed, ``accepted`` beside it, a label joined to the last mark by ``leader``."""

    way: Way
    label: str
    style: int
    shape: str
    path: str
    accepted: str
    marks: list[Mark]
    label_y: float
    leader: str


@dataclass(frozen=True)
class CapacityBar:
    """A way's capacity, up to the greatest load held; ``open`` bars end in an arrow, since it lies beyond that."""

    way: Way
    style: int
    y: float
    width: float
    open: bool
    text: str


@dataclass(frozen=True)
class Panels:
    """Both panels of one scenario."""

    scenario: Scenario
    lines: list[Line]
    bars: list[CapacityBar]
    bars_height: float
    not_drawn: int  # points whose audit is invalid


@dataclass(frozen=True)
class Plot:
    """All rows with the axes they share."""

    rows: list[Panels]
    loads: list[Tick]
    latencies: list[Tick]
    objective_y: float
    styles: dict[Way, int]
    words: Words


def plot(
    scenarios: Sequence[Scenario], capacities: Capacities | None = None, words: Words = PLAIN_WORDS
) -> Plot | None:
    """The plot of a run; None where fewer than two loads were measured, since one point makes no line.

    Without ``capacities`` nobody looked for them, so there are no bars.
    """
    points = [point for scenario in scenarios for points in scenario.ways.values() for point in points]
    loads = sorted({load(point) for point in points})
    drawn = [point for point in points if _drawable(point)]
    if len(loads) < 2 or not drawn:
        return None
    x, y = _load_scale(loads), _latency_scale(drawn)
    styles = _styles(scenarios)
    rows = [_row(scenario, styles, x, y[0], capacities or {}, words) for scenario in scenarios]
    ticks = _spaced(Tick(x(value), number(value)) for value in loads)
    return Plot(rows, ticks, y[1], y[0](OBJECTIVE_MS), styles, words)


@dataclass(frozen=True)
class AimBar:
    """A figure beside its target: the median's bar, its range from ``low`` to ``high``."""

    figure: Figure
    y: float
    width: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Aim:
    """All figures of one target and unit, on one scale; ``target_x`` is where the target lies."""

    bars: list[AimBar]
    height: float
    target_x: float
    text: str


def aims(figures: Iterable[Figure]) -> list[Aim]:
    """A panel of bars per target, of the figures that have both a target and a value."""
    groups: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        if figure.target is not None and figure.value is not None:
            groups.setdefault((figure.target, figure.unit), []).append(figure)
    return [_aim(members) for members in groups.values()]


def _aim(figures: Sequence[Figure]) -> Aim:
    _, bound = measure.threshold(figures[0].target or "")
    most = max(bound, *(figure.high or 0.0 for figure in figures)) or 1.0

    def x(value: float | None) -> float:
        return BARS_RIGHT * max(value or 0.0, 0.0) / most

    bars = [
        AimBar(figure, TOP + index * BAR_STEP, x(figure.value), x(figure.low), x(figure.high), measured_text(figure))
        for index, figure in enumerate(figures)
    ]
    return Aim(bars, TOP + len(bars) * BAR_STEP, x(bound), f"target {target_text(figures[0])} {figures[0].unit}")


def _drawable(point: Point) -> bool:
    return point.completed_latency_ms is not None


def _styles(scenarios: Sequence[Scenario]) -> dict[Way, int]:
    # Listening first, so that it has the same colour in every report; of meshes the first.
    ways = sorted({way for scenario in scenarios for way in scenario.ways}, key=lambda way: (way.rank, way))
    return {way: index % len(SHAPES) for index, way in enumerate(ways)}


def _load_scale(loads: Sequence[float]) -> Scale:
    low, high = loads[0], loads[-1]
    if low > 0 and high / low >= LOGARITHMIC_FROM:
        return lambda value: LEFT + 14 + (RIGHT - LEFT - 28) * math.log(value / low) / math.log(high / low)
    return lambda value: LEFT + (RIGHT - LEFT - 14) * value / high


def _latency_scale(points: Sequence[Point]) -> tuple[Scale, list[Tick]]:
    shown = [
        value
        for point in points
        for latency in (point.accepted_latency_ms, point.completed_latency_ms)
        if latency is not None
        for value in (latency.p99.low, latency.p99.high)
    ]
    shown = [max(value, 0.001) for value in shown]
    low = math.floor(math.log10(min(shown)))
    high = math.ceil(math.log10(max(*shown, OBJECTIVE_MS * 2)))

    def scale(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (math.log10(max(value, 10.0**low)) - low) / (high - low)

    return scale, [Tick(scale(10.0**power), duration(10.0**power)) for power in range(low, high + 1)]


def _spaced(ticks: Iterable[Tick]) -> list[Tick]:
    kept: list[Tick] = []
    for tick in ticks:
        if not kept or tick.at - kept[-1].at >= TICKS_APART:
            kept.append(tick)
    return kept


def _row(
    scenario: Scenario, styles: dict[Way, int], x: Scale, y: Scale, capacities: Capacities, words: Words
) -> Panels:
    points = {way: [p for p in points if _drawable(p)] for way, points in scenario.ways.items()}
    lines = place_labels([_line(way, styles, points[way], x, y, words) for way in points if points[way]])
    hidden = sum(point.audit.verdict == "invalid" for each in scenario.ways.values() for point in each)
    bars = _bars(scenario, styles, capacities) if capacities else []
    return Panels(scenario, lines, bars, TOP + len(bars) * BAR_STEP, hidden)


def _line(way: Way, styles: dict[Way, int], points: Sequence[Point], x: Scale, y: Scale, words: Words) -> Line:
    style = styles[way]
    marks = [_mark(way, point, x, y, words) for point in points]
    # A void point is shown, but the line does not lead through what must not be believed.
    path = _path([(mark.x, mark.y) for mark in marks if mark.kind != "void"])
    accepted = _path([
        (x(load(point)), y(point.accepted_latency_ms.p99.median))
        for point in points
        if point.accepted_latency_ms is not None and believable(point)
    ])  # fmt: skip
    return Line(way, way.short(styles), style, SHAPES[style], path, accepted, marks, marks[-1].y, "")


def _mark(way: Way, point: Point, x: Scale, y: Scale, words: Words) -> Mark:
    assert point.completed_latency_ms is not None
    p99 = point.completed_latency_ms.p99
    kind = "void" if point.void or point.disturbed else "saturated" if point.saturated else "held"
    title = _title(way, point, point.completed_latency_ms, words)
    return Mark(x(load(point)), y(p99.median), y(p99.low), y(p99.high), kind, title)


def _title(way: Way, point: Point, latency: Latency, words: Words) -> str:
    completed = number(point.completed_per_s.median) if point.completed_per_s else "0"
    remark = f"; void: {point.void}" if point.void else f"; disturbed: {point.disturbed}" if point.disturbed else ""
    remark += "; saturated" if point.saturated else ""
    spread = f"{duration(latency.p99.low)} to {duration(latency.p99.high)}"
    return (
        f"{way.label}: {number(load(point))} {words.requests}/s offered, {completed} completed; "
        f"completed p99 {duration(latency.p99.median)} ({spread}){remark}"
    )


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in places) if places else ""


def place_labels(lines: Sequence[Line]) -> list[Line]:
    """Labels at the height of each line's end, moved apart where they would touch, within the panel."""
    ordered = sorted(lines, key=lambda line: line.marks[-1].y)
    heights: list[float] = []
    for line in ordered:
        wanted = max(line.marks[-1].y, TOP)
        heights.append(max(wanted, heights[-1] + LABEL_APART) if heights else wanted)
    over = max(0.0, heights[-1] - BOTTOM) if heights else 0.0
    # Only those that the last one pushes against move up with it.
    for index in reversed(range(len(heights))):
        limit = heights[index + 1] - LABEL_APART if index + 1 < len(heights) else heights[index] - over
        heights[index] = min(heights[index], limit)
    return [_labelled(line, height) for line, height in zip(ordered, heights, strict=True)]


def _labelled(line: Line, height: float) -> Line:
    last = line.marks[-1]
    leader = _path([(last.x + 7, last.y), (RIGHT + 2, height), (RIGHT + 8, height)])
    return replace(line, label_y=height, leader=leader)


def _bars(scenario: Scenario, styles: dict[Way, int], capacities: Capacities) -> list[CapacityBar]:
    greatest = max((found.held for found in capacities.values() if isinstance(found, Holds)), default=1.0)
    ways = sorted(scenario.ways, key=lambda way: styles[way])
    bars = []
    for index, way in enumerate(ways):
        found = capacities.get((scenario.axis, way))
        holds = isinstance(found, Holds)
        width = BARS_RIGHT * found.held / greatest if isinstance(found, Holds) else 0.0
        text = sentences.capacity(found) if found else "no data"
        bars.append(CapacityBar(way, styles[way], TOP + index * BAR_STEP, width, holds, text))
    return bars

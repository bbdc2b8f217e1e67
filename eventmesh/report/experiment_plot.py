"""The geometry of an experiment's plots: panels one over the other on the same axis of time, with the faults as bands.

First what was accepted, completed and failed per second, a panel for each wiring and the same scale for all; below,
latency and open requests with a line for each wiring. What is drawn in which colour is the template's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eventmesh.application import Words
from eventmesh.report.record import Curves, WiringRecord
from eventmesh.report.wording import duration, number

WIDTH, HEIGHT = 700.0, 200.0
LEFT, RIGHT = 84.0, 686.0
TOP, BOTTOM = 30.0, 168.0
TICKS_MAX = 6
#: What is worked off at once after a fault would flatten all the rest: it is cut off, and written beside.
CUT_OFF = 4.0
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Tick:
    """A place on an axis and what is written there."""

    at: float
    text: str


@dataclass(frozen=True)
class Band:
    """A fault, from ``x`` over ``width``; ``label`` is its name."""

    x: float
    width: float
    label: str


@dataclass(frozen=True)
class Line:
    """``style`` is the place of the wiring, ``kind`` what it shows: accepted, completed, failed, latency or open."""

    label: str
    style: int
    kind: str
    path: str


@dataclass(frozen=True)
class Panel:
    """One drawing. ``ticks`` are those of the upright axis."""

    title: str
    note: str
    ticks: list[Tick]
    bands: list[Band]
    lines: list[Line]
    peaks: list[Tick]  # where a line leaves the panel, and how far it goes


@dataclass(frozen=True)
class Plot:
    """All panels; ``rates`` has one for each wiring, and ``seconds`` the axis that all share."""

    rates: list[Panel]
    latency: Panel | None
    open: Panel | None
    seconds: list[Tick]


def plot(wirings: Sequence[WiringRecord], rate: float, words: Words) -> Plot | None:
    """None where no wiring may show its performance. ``rate`` is what was offered per second."""
    drawn = [(place, each, each.curves) for place, each in enumerate(wirings) if each.curves is not None]
    if not drawn:
        return None
    last = max(len(curves.open) * curves.slice_s for _, _, curves in drawn)
    x = _linear(last, LEFT, RIGHT)
    most = max(max([*curves.accepted_per_s, *curves.completed_per_s, *curves.failed_per_s]) for _, _, curves in drawn)
    most = min(most, CUT_OFF * rate)
    y = _cut(_linear(most, BOTTOM, TOP))
    ticks = [Tick(y(value), number(value)) for value in _round(most)]
    rates = [
        Panel(
            each.mesh,
            f"{words.requests} per second",
            ticks,
            _bands(each, x, last),
            _rates(place, curves, x, y),
            _peaks(curves, most, x),
        )
        for place, each, curves in drawn
    ]
    bands = _bands(drawn[0][1], x, last)
    return Plot(
        rates, _latency(drawn, bands, x, words), _open(drawn, bands, x, words),
        [Tick(x(value), f"{value:g}") for value in _round(last)],
    )  # fmt: skip


def _rates(place: int, curves: Curves, x: Scale, y: Scale) -> list[Line]:
    named = {"failed": curves.failed_per_s, "completed": curves.completed_per_s, "accepted": curves.accepted_per_s}
    drawn = {kind: _stairs(values, curves.slice_s, x, y) for kind, values in named.items()}
    if drawn["failed"]:  # an area
        drawn["failed"] += f" L{x(len(curves.failed_per_s) * curves.slice_s):.1f} {BOTTOM} L{x(0):.1f} {BOTTOM} Z"
    return [Line(kind, place, kind, path) for kind, path in drawn.items()]


def _cut(scale: Scale) -> Scale:
    return lambda value: max(scale(value), TOP)


def _peaks(curves: Curves, most: float, x: Scale) -> list[Tick]:
    """Of each stretch in which more was completed than is drawn, the most."""
    found: list[tuple[int, float]] = []
    for place, value in enumerate(curves.completed_per_s):
        if value <= most:
            continue
        if found and place - found[-1][0] <= len(curves.completed_per_s) // 10:
            found[-1] = max(found[-1], (place, value), key=lambda each: each[1])
        else:
            found.append((place, value))
    return [Tick(x((place + 0.5) * curves.slice_s), number(value)) for place, value in found]


def _latency(
    drawn: Sequence[tuple[int, WiringRecord, Curves]], bands: list[Band], x: Scale, words: Words
) -> Panel | None:
    known = [value for _, _, curves in drawn for value in curves.latency_ms_p99 if value]
    if not known:
        return None
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    high = max(high, low + 1)

    def y(value: float) -> float:
        return BOTTOM - (math.log10(max(value, 10.0**low)) - low) / (high - low) * (BOTTOM - TOP)

    lines = [
        Line(each.mesh, place, "latency", _path(curves.latency_ms_p99, curves.slice_s, x, y))
        for place, each, curves in drawn
    ]
    ticks = [Tick(y(10.0**power), duration(10.0**power)) for power in range(low, high + 1)]
    note = f"p99, by when the {words.request} was due; logarithmic; what failed has none"
    return Panel("Time to the outcome", note, ticks, bands, lines, [])


def _open(drawn: Sequence[tuple[int, WiringRecord, Curves]], bands: list[Band], x: Scale, words: Words) -> Panel:
    most = max(1.0, *(float(max(curves.open)) for _, _, curves in drawn))
    y = _linear(most, BOTTOM, TOP)
    lines = [
        Line(each.mesh, place, "open", _path([float(value) for value in curves.open], curves.slice_s, x, y))
        for place, each, curves in drawn
    ]
    ticks = [Tick(y(value), number(value)) for value in _round(most)]
    return Panel("Backlog", f"{words.requests} that were due and have no outcome", ticks, bands, lines, [])


def _bands(wiring: WiringRecord, x: Scale, last: float) -> list[Band]:
    found = []
    for fault in wiring.faults:
        if fault.at_s is not None:
            ended = last if fault.ended_s is None else min(fault.ended_s, last)
            found.append(Band(x(fault.at_s), max(1.5, x(ended) - x(fault.at_s)), fault.name))
    return found


def _linear(most: float, low: float, high: float) -> Scale:
    return lambda value: low + (high - low) * value / (most or 1.0)


def _round(most: float) -> list[float]:
    """Round numbers from 0 up to ``most``, at most :data:`TICKS_MAX` and one."""
    step = 10.0 ** math.floor(math.log10(most / TICKS_MAX)) if most > 0 else 1.0
    step *= next(factor for factor in (1, 2, 5, 10, 20) if most / (step * factor) <= TICKS_MAX)
    return [step * count for count in range(int(most / step + 1e-9) + 1)]


def _stairs(values: Sequence[float], slice_s: float, x: Scale, y: Scale) -> str:
    """Each value over the whole of its slice."""
    parts: list[str] = []
    for place, value in enumerate(values):
        start, end, at = x(place * slice_s), x((place + 1) * slice_s), y(value)
        parts.append(f"{'L' if parts else 'M'}{start:.1f} {at:.1f} L{end:.1f} {at:.1f}")
    return " ".join(parts)


def _path(values: Sequence[float | None], slice_s: float, x: Scale, y: Scale) -> str:
    """Through the middle of each slice, with gaps where there is no value."""
    parts: list[str] = []
    drawing = False
    for place, value in enumerate(values):
        if value is None:
            drawing = False
            continue
        parts.append(f"{'L' if drawing else 'M'}{x((place + 0.5) * slice_s):.1f} {y(value):.1f}")
        drawing = True
    return " ".join(parts)

"""What the callers' records say: throughput, latency from the intended time, saturation, Little's law.

Statistics are taken over repetitions, never over the requests of several runs thrown together. The first
``warmup_s`` seconds of the schedule are cut. A request is *accepted* when the caller holds a durable
acknowledgement, *completed* when it has seen the outcome; both are always measured, from the time the schedule
meant the request to be sent, so a stall that also stops the generator is not left out (coordinated omission).
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from hdrh.histogram import HdrHistogram

from eventmesh.audit.verdict import Audit
from eventmesh.report import machine, predictions
from eventmesh.report.record import (
    AuditRecord,
    Counts,
    Figure,
    Little,
    MachineUse,
    Percentiles,
    Repetition,
    Spread,
)

SECOND = 1_000_000  # the records are in microseconds
REFUSED = "refused"  # the outcome the callers write for a definite error: nothing was decided
REPEATED = "repeated"  # what is counted of requests whose outcome is an earlier request's: nothing was done for them
#: A point that completes less than this share of what is offered is saturated.
COMPLETED_SHARE_MIN = 0.95
#: Latency grows where the p99 of the window's last third is this many times that of the first ...
GROWTH_MIN = 2.0
#: ... and rose by at least this share of the time between them: a backlog that grows by one second per hundred.
BACKLOG_GROWTH_MIN = 0.01
#: The percentile of a third that must rise as well. Of four partitions one may be too slow, a fourth of all requests.
BACKLOG_RANK = 80.0
_DAY = 86_400 * SECOND
_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9, "max": 100.0}
_TARGET = re.compile(r"\s*(<=|>=|<|>|==)\s*([-+.\deE]+)\s*")


@dataclass(frozen=True)
class Window:
    """The primary command's rows of the callers' table and the measured stretch of time, microseconds.

    ``due`` is when each was to be sent; NaN where a thing did not happen, so that no comparison is ever true.
    """

    due: npt.NDArray[np.float64]
    sent: npt.NDArray[np.float64]
    accepted: npt.NDArray[np.float64]
    completed: npt.NDArray[np.float64]
    refused: npt.NDArray[np.bool_]
    throttled: npt.NDArray[np.int64]
    start: float
    end: float
    record_end: float  # the last thing any caller saw

    @property
    def seconds(self) -> float:
        """The length of the measured stretch."""
        return (self.end - self.start) / SECOND

    @property
    def measured(self) -> npt.NDArray[np.bool_]:
        """The rows that were due within the stretch."""
        return (self.due >= self.start) & (self.due < self.end)

    def per_s(self, times: npt.NDArray[np.float64]) -> float:
        """How many of ``times`` fell into the stretch, per second."""
        return float(np.count_nonzero((times >= self.start) & (times < self.end))) / self.seconds

    def latencies(self, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Microseconds from due to ``times`` of the measured rows that were not refused.

        What had not happened when the record ends counts with the time that it was seen open: a lower bound, but
        it stays in the distribution instead of making it look better.
        """
        chosen = self.measured & ~self.refused
        ended = np.where(np.isnan(times[chosen]), max(self.record_end, self.end), times[chosen])
        return np.maximum(ended - self.due[chosen], 0.0)


def window(
    callers: pa.Table,
    *,
    primary: str | None,
    warmup_s: float = 0.0,
    window_s: float | None = None,
    closed: bool = False,
) -> Window:
    """Cut the measured stretch out of a callers' table (:data:`eventmesh.history.CALLERS`).

    ``primary`` is the command whose requests are counted, None for all; repeats of earlier requests are left
    out, since nothing was done for them. The stretch begins ``warmup_s`` after the first of them was due; it lasts
    ``window_s``, or up to the last one that was due. ``closed`` says that the input was replayed as fast as possible:
    there is no schedule, so a request is due when it is sent, and the stretch ends with the last outcome. Raises
    ``ValueError`` where nothing is left to measure.
    """
    rows = callers if primary is None else callers.filter(pc.field("command") == primary)
    rows = rows.filter(pc.invert(pc.fill_null(rows["repeated"], False)))
    if not rows.num_rows:
        raise ValueError(f"the callers' records hold no {primary or 'request'}")
    sent, accepted, completed = (times(rows, name) for name in ("sent_at", "accepted_at", "completed_at"))
    due = sent if closed else times(rows, "intended_at")
    refused = np.asarray(pc.fill_null(pc.equal(rows["outcome"], REFUSED), False))
    completed = np.where(refused, np.nan, completed)
    start = float(np.nanmin(due)) + warmup_s * SECOND
    record_end = float(np.nanmax(np.concatenate([due, sent, accepted, completed])))
    # The last request's own place on the schedule belongs to the stretch.
    end = start + window_s * SECOND if window_s is not None else record_end if closed else _schedule_end(due)
    if end <= start:
        raise ValueError(f"nothing of {primary or 'any request'} is left to measure after a warm-up of {warmup_s} s")
    throttled = np.asarray(rows["throttled"], np.int64)
    return Window(due, sent, accepted, completed, refused, throttled, start, end, record_end)


def work_done(callers: pa.Table) -> int:
    """How many requests have an outcome that is their own: neither refused nor repeats of earlier ones."""
    decided = pc.and_not(callers["outcome"].is_valid(), pc.fill_null(pc.equal(callers["outcome"], REFUSED), False))
    return int(pc.sum(pc.and_not(decided, pc.fill_null(callers["repeated"], False))).as_py() or 0)


def times(rows: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """A column of a callers' table in microseconds, shape (n,); NaN where a thing did not happen."""
    # Microseconds since 1970 are below 2^53: exact as float64.
    return np.asarray(rows[name].cast(pa.float64()).to_numpy(), np.float64)


def _schedule_end(due: npt.NDArray[np.float64]) -> float:
    first, last = float(np.nanmin(due)), float(np.nanmax(due))
    return last + (last - first) / max(len(due) - 1, 1)


class Histogram(HdrHistogram):  # type: ignore[misc]
    """Of microseconds, three significant digits, up to a day.

    Its mean and deviation are those of the values: the library walks through every bucket for each, in Python.
    """

    def __init__(self, values: npt.ArrayLike) -> None:
        super().__init__(1, _DAY, 3)
        self._values = np.clip(np.rint(np.asarray(values, np.float64)), 0, _DAY).astype(np.int64)
        for value, count in zip(*np.unique(self._values, return_counts=True), strict=True):
            self.record_value(int(value), int(count))

    def get_mean_value(self) -> float:
        """Microseconds."""
        return float(self._values.mean())

    def get_stddev(self) -> float:
        """Microseconds."""
        return float(self._values.std())


def percentiles(values_us: npt.ArrayLike) -> Percentiles | None:
    """Percentiles in milliseconds of values in microseconds; None of no values."""
    recorded = Histogram(values_us)
    if not recorded.get_total_count():
        return None
    # One walk over the buckets for all of them.
    found = recorded.get_percentile_to_value_dict(list(_PERCENTILES.values()))
    return Percentiles(**{name: found[rank] / 1_000 for name, rank in _PERCENTILES.items()})


def hgrm(values_us: npt.ArrayLike) -> str:
    """The percentile distribution as HdrHistogram's plotter reads it (``.hgrm``), in milliseconds."""
    recorded, out = Histogram(values_us), io.BytesIO()
    if not recorded.get_total_count():
        return ""
    recorded.output_percentile_distribution(out, 1_000)
    # The library scales the mean by the ratio, but not the deviation.
    deviation = f"StdDeviation   = {recorded.get_stddev() / 1_000:12.3f}"
    return re.sub(r"StdDeviation\s*=\s*[\d.]+", deviation, out.getvalue().decode())


def histograms(name: str, view: Window) -> dict[str, str]:
    """Both distributions of a repetition by file name, for :func:`eventmesh.report.record.write`."""
    texts = {"accepted": hgrm(view.latencies(view.accepted)), "completed": hgrm(view.latencies(view.completed))}
    return {f"{name}-{kind}": text for kind, text in texts.items() if text}


def grows(view: Window) -> bool:
    """Whether the completed p99 climbs through the window, third by third, and most requests with it.

    It must rise from third to third, at least double, and rise by a hundredth of the time between the middles of
    the first and the last third: at an overload of one in a hundred the backlog makes latency grow that fast. So must
    :data:`BACKLOG_RANK`: a machine that stops for a moment in the last third makes a few requests late, a backlog most.
    """
    due, latencies = view.due[view.measured & ~view.refused], view.latencies(view.completed)
    bounds = np.linspace(view.start, view.end, 4)
    thirds = [latencies[(due >= low) & (due < high)] for low, high in pairwise(bounds)]
    if not all(third.size for third in thirds):
        return False
    backlog = BACKLOG_GROWTH_MIN * (view.end - view.start) * 2 / 3
    first, middle, last = (float(np.percentile(third, 99)) for third in thirds)
    most = [float(np.percentile(third, BACKLOG_RANK)) for third in thirds]
    rises = first < middle < last and most[0] < most[1] < most[2]
    return rises and last >= GROWTH_MIN * first and min(last - first, most[2] - most[0]) >= backlog


def saturated(view: Window, *, closed: bool = False) -> bool:
    """Whether the mesh was offered more than it holds; a closed loop drives it as hard as it goes: by its nature."""
    return closed or view.per_s(view.completed) < COMPLETED_SHARE_MIN * view.per_s(view.due) or grows(view)


def little(view: Window) -> Little:
    """V9: open requests integrated over the stretch, beside completed per second times their mean latency.

    They differ by what is open at the two edges: little in a steady state, and more the more a backlog grows.
    """
    known = ~np.isnan(view.due) & ~view.refused
    due, ended = view.due[known], view.completed[known]
    until = np.where(np.isnan(ended), view.end, ended)
    overlap = np.clip(np.minimum(until, view.end) - np.maximum(due, view.start), 0.0, None)
    inside = (ended >= view.start) & (ended < view.end)
    mean_s = float(np.mean(ended[inside] - due[inside])) / SECOND if inside.any() else 0.0
    predicted = predictions.little(view.per_s(ended), mean_s)
    return Little(measured=float(overlap.sum()) / (view.end - view.start), predicted=predicted)


def counts(view: Window) -> Counts:
    """What became of the requests that were due within the stretch."""
    chosen = view.measured
    return Counts(
        offered=int(np.count_nonzero(chosen)),
        accepted=int(np.count_nonzero(~np.isnan(view.accepted[chosen]))),
        completed=int(np.count_nonzero(~np.isnan(view.completed[chosen]))),
        refused=int(np.count_nonzero(view.refused[chosen])),
        unanswered=int(np.count_nonzero(np.isnan(view.completed[chosen]) & ~view.refused[chosen])),
        throttled=int(view.throttled[chosen].sum()),
    )


def point(
    callers: pa.Table | Window,
    *,
    wiring: str,
    join: str,
    axis: Mapping[str, float],
    audit: Audit | AuditRecord,
    joining: str = "",
    asks: bool | None = None,
    turn: int | None = None,
    machine_use: MachineUse | None = None,
    primary: str = "",
    warmup_s: float = 0.0,
    window_s: float | None = None,
    closed: bool = False,
    staleness_us: npt.ArrayLike | None = None,
    cpu_s: Mapping[str, float] | None = None,
    memory_mb: Mapping[str, float] | None = None,
    bytes_moved: float | None = None,
) -> Repetition:
    """Measure one repetition of one point, from a callers' table or from the :func:`window` already cut from it.

    ``staleness_us`` are the ages of what was read, one per read, microseconds; None where nothing was read from a
    view. ``cpu_s`` is what each role spent within the measured stretch, ``memory_mb`` its peak resident memory.
    """
    view = callers if isinstance(callers, Window) else window(
        callers, primary=primary, warmup_s=warmup_s, window_s=window_s, closed=closed
    )  # fmt: skip
    return Repetition(
        wiring=wiring,
        join=join,
        joining=joining,
        **({} if asks is None else {"asks": asks}),
        axis=dict(axis),
        turn=turn,
        machine=machine_use,
        disturbed=machine.disturbed(machine_use),
        **_figures(view, closed),
        staleness_ms=None if staleness_us is None else percentiles(staleness_us),
        cpu_s_per_1000_requests=cpu_per_1000(cpu_s or {}, view),
        memory_mb=dict(memory_mb or {}),
        bytes_moved=bytes_moved,
        audit=AuditRecord.of(audit) if isinstance(audit, Audit) else audit,
    )


def _figures(view: Window, closed: bool) -> dict[str, Any]:
    return {
        "offered_per_s": view.per_s(view.due),
        "accepted_per_s": view.per_s(view.accepted),
        "completed_per_s": view.per_s(view.completed),
        "accepted_latency_ms": _latency(view, view.accepted),
        "completed_latency_ms": _latency(view, view.completed),
        "generator_lag_ms_p99": _lag_ms_p99(view),
        "saturated": saturated(view, closed=closed),
        "counts": counts(view),
        "little": little(view),
    }


def _latency(view: Window, times: npt.NDArray[np.float64]) -> Percentiles | None:
    return None if np.isnan(times[view.measured]).all() else percentiles(view.latencies(times))


def _lag_ms_p99(view: Window) -> float:
    # What was never sent by the end of the record is as late as the record lets us see.
    sent = np.where(np.isnan(view.sent), view.record_end, view.sent)
    late = np.maximum((sent - view.due)[view.measured], 0.0)
    return float(np.percentile(late, 99)) / 1_000 if late.size else 0.0


def cpu_per_1000(cpu_s: Mapping[str, float], view: Window) -> dict[str, float]:
    """CPU seconds per thousand requests completed in the stretch, by role; empty where none was completed."""
    completed = view.per_s(view.completed) * view.seconds
    return {role: seconds * 1_000 / completed for role, seconds in cpu_s.items()} if completed else {}


def figure(
    name: str,
    samples: Sequence[float],
    unit: str,
    *,
    target: str | None = None,
    predicted: float | None = None,
    tolerance: float | None = None,
) -> Figure:
    """A figure over its samples, judged by its target (``<1000``) or else by its prediction.

    A prediction is met within ``tolerance``, relative to it. Without samples nothing is met or missed.
    """
    if not samples:
        return Figure(name=name, value=None, low=None, high=None, unit=unit, target=target, predicted=predicted,
                      tolerance=tolerance)  # fmt: skip
    spread = Spread.of(samples)
    met = None
    if target is not None:
        met = meets(spread.median, target)
    elif predicted is not None and tolerance is not None:
        met = abs(spread.median - predicted) <= tolerance * abs(predicted)
    return Figure(
        name=name, value=spread.median, low=spread.low, high=spread.high, unit=unit, target=target,
        predicted=predicted, tolerance=tolerance, met=met, samples=list(samples),
    )  # fmt: skip


def meets(value: float, target: str) -> bool:
    """Whether a value keeps a threshold such as ``<1000`` or ``>=2``. Raises ``ValueError`` on any other form."""
    relation, bound = threshold(target)
    return {
        "<": value < bound, "<=": value <= bound, ">": value > bound, ">=": value >= bound, "==": value == bound
    }[relation]  # fmt: skip


def threshold(target: str) -> tuple[str, float]:
    """A threshold's relation and bound. Raises ``ValueError`` where it is none."""
    found = _TARGET.fullmatch(target)
    if found is None:
        raise ValueError(f"{target!r} is no threshold: write one of < <= > >= == and a number, such as '<1000'")
    return found[1], float(found[2])

"""What one wiring's run says about an experiment: probes in each stretch, curves, predictions, and a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from eventmesh.application import Words
from eventmesh.audit.verdict import Verdict
from eventmesh.report import measure, predictions
from eventmesh.report.measure import SECOND
from eventmesh.report.probes import (
    PROBES,
    STRETCHES,
    Output,
    Seen,
    Stretch,
    Tolerance,
    failed_share,
    latency_ms_p99,
    recovery_s,
    served_again_us,
    tolerated,
)
from eventmesh.report.record import Curves, Figure, ProbeRecord, StretchRecord
from eventmesh.report.wording import number

#: About so many slices are drawn of a load.
SLICES = 120
#: Seconds that a slice may have.
SLICE_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(frozen=True)
class Question:
    """A probe that is asked in one stretch; without a tolerance it only looks."""

    name: str
    probe: str
    within_s: float | None
    stretch: Stretch
    tolerance: Tolerance | None = None


def stretches(seen: Seen, questions: Sequence[Question], *, warmup_s: float, settle_s: float) -> list[StretchRecord]:
    """What each probe said before, during and after the faults."""
    begin = seen.start
    bounds: dict[Stretch, tuple[float, float]] = {
        "before": (begin + warmup_s * SECOND, seen.first_us),
        "during": (seen.first_us, seen.over_us),
        "after": (seen.over_us + settle_s * SECOND, seen.end),
    }
    found = []
    for stretch in STRETCHES:
        start, end = bounds[stretch]
        end = max(start, end)
        asked = [each for each in questions if each.stretch == stretch]
        said = [(each, _asked(each, seen.within(start, end))) for each in asked]
        held = [said for each, said in said if each.tolerance is not None]
        found.append(
            StretchRecord(
                stretch=stretch, from_s=(start - begin) / SECOND, to_s=(end - begin) / SECOND,
                met=_all(each.met for each in held), probes=held,
                looks=[said for each, said in said if each.tolerance is None],
            )
        )  # fmt: skip
    return found


def _asked(question: Question, seen: Seen) -> ProbeRecord:
    output = PROBES[question.probe].measure(seen, question.within_s or 0.0) if seen.seconds > 0 else None
    met = None if output is None or question.tolerance is None else tolerated(output, question.tolerance)
    return ProbeRecord(
        name=question.name, probe=question.probe, within_s=question.within_s, output=_finite(output),
        tolerance=question.tolerance, met=met,
    )  # fmt: skip


def _finite(output: Output | None) -> Output | None:
    return output if output is None or isinstance(output, str) or math.isfinite(output) else None


def _all(met: Iterable[bool | None]) -> bool | None:
    """False if any is, else None if any is."""
    known = list(met)
    return False if False in known else None if None in known else True


def deviated(found: Sequence[StretchRecord]) -> bool | None:
    """Whether a tolerance was not kept; None where that is not known of all, and known of none."""
    held = _all(each.met for each in found)
    return None if held is None else not held


# --- curves -------------------------------------------------------------------------------------------


def curves(seen: Seen) -> Curves:
    """The load in slices, up to the last outcome."""
    begin = seen.start
    last = max(seen.end, float(np.nanmax(seen.ended, initial=seen.end)))
    seconds = (last - begin) / SECOND
    width = next((each for each in SLICE_S if seconds / each <= SLICES), SLICE_S[-1])
    count = max(1, math.ceil(seconds / width))
    bounds = begin + np.arange(count + 1) * width * SECOND

    def per_s(times: npt.NDArray[np.float64]) -> list[float]:
        counted, _ = np.histogram(times[~np.isnan(times)], bounds)
        return [float(each) / width for each in counted]

    ended = np.sort(seen.ended[~np.isnan(seen.ended)])
    due = np.sort(seen.due)
    left = np.searchsorted(due, bounds[1:], side="right") - np.searchsorted(ended, bounds[1:], side="right")
    return Curves(
        slice_s=width,
        accepted_per_s=per_s(seen.accepted[seen.served]),
        completed_per_s=per_s(seen.ended[seen.served]),
        failed_per_s=per_s(seen.ended[seen.failed]),
        latency_ms_p99=[latency_ms_p99(seen.within(low, high), 0.0) for low, high in pairwise(bounds.tolist())],
        open=left.tolist(),
    )


# --- predictions --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Law:
    """A prediction that a file asks for; ``tolerance`` is relative to it."""

    name: str
    tolerance: float


def predicted(seen: Seen, laws: Sequence[Law], *, mesh: str, rate: float, capacity_per_s: float | None) -> list[Figure]:
    """Measured beside predicted, by name with the ``mesh``. Rates are per second.

    V7's outage lasts until the process is there again: who asks it from then on waits. V8's lasts until it serves.
    """
    away_s = (seen.over_us - seen.first_us) / SECOND
    again = served_again_us(seen)
    unserved_s = None if again is None else (again - seen.first_us) / SECOND
    found = []
    for law in laws:
        value: float | None = None
        foreseen = math.inf
        match law.name:
            case "outage-share":
                name, unit = f"V7: share that failed, T/W = {number(away_s)} s / {number(seen.seconds)} s", ""
                value, foreseen = failed_share(seen, 0.0), predictions.outage_share(away_s, seen.seconds)
            case "backlog":
                name, unit = f"V8: open when it serves again, lambda T with lambda = {number(rate)}/s", ""
                if again is not None and unserved_s is not None:
                    name += f" and T = {number(unserved_s)} s"
                    # The one that was served was open until then.
                    value, foreseen = seen.open_at(again - 1), predictions.fluid_backlog(rate, unserved_s)
            case _:
                assert capacity_per_s is not None
                name, unit = f"V8: from then until all is as before, mu = {number(capacity_per_s)}/s", "s"
                back = recovery_s(seen, 0.0)
                if again is not None and unserved_s is not None and back is not None:
                    value = max(0.0, back - (again - seen.over_us) / SECOND)
                    foreseen = predictions.fluid_drain_s(rate, unserved_s, capacity_per_s)
        samples = [] if value is None else [value]
        known = foreseen if math.isfinite(foreseen) else None
        found.append(measure.figure(f"{mesh}: {name}", samples, unit, predicted=known, tolerance=law.tolerance))
    return found


# --- in words -----------------------------------------------------------------------------------------


def sentence(mesh: str, seen: Seen, words: Words, audit: Verdict) -> str:
    """What the wiring did, for the top of a report; of a run that the audit found invalid no performance is told."""
    if audit == "invalid":
        return f"{mesh}: the audit found the run invalid, so nothing is said of how fast it was."
    total, failed = len(seen.due), int(np.count_nonzero(seen.failed))
    during = failed_share(seen.within(seen.first_us, max(seen.over_us, seen.first_us + 1)), 0.0) or 0.0
    waiting, back = seen.open_at(seen.over_us), recovery_s(seen, 0.0)
    if failed:
        said = f"{failed:,} of {total:,} {words.requests} failed, {number(during * 100)} % of those that came meanwhile"
    else:
        said = f"none of {total:,} {words.requests} failed"
    if waiting:
        said += f"; {waiting:,} {'was' if waiting == 1 else 'were'} waiting when it was over"
    said += f", and {number(back)} s later all was as before" if back is not None else ", and it did not come back"
    return f"{mesh}: {said}."

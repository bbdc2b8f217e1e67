"""Probes of a failure experiment: what is seen of a mesh in one stretch of time, as a number or a word.

They read the callers' records after the run, so that a probe never disturbs what it looks at. A request belongs to the
stretch in which it was to be sent. It is *served* if its outcome is one of those that the experiment names, and it
*failed* if it ended in another one or in none: a caller that is told "unavailable" has an answer, but not the one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from eventmesh.audit.verdict import Verdict
from eventmesh.report.measure import SECOND, meets, threshold, times

Times = npt.NDArray[np.float64]
Stretch = Literal["before", "during", "after"]
STRETCHES: tuple[Stretch, ...] = ("before", "during", "after")
#: What a tolerance may be: a threshold such as ``<0.01``, a lowest and a highest value, or a word.
Tolerance = str | tuple[float, float]
Output = float | str


@dataclass(frozen=True)
class Seen:
    """The requests of one load, a place each, and the stretch from ``start`` to ``end`` that is looked at.

    Times are microseconds on the mesh's clock, NaN where the thing did not happen. ``served`` says whose outcome is one
    of those that were wanted. ``first_us`` and ``over_us`` are the first fault's beginning and the last one's end.
    """

    due: Times
    accepted: Times
    ended: Times  # the outcome, whatever it is
    served: npt.NDArray[np.bool_]
    start: float
    end: float
    first_us: float
    over_us: float
    audit: Verdict = "unknown"

    @classmethod
    def of(
        cls, callers: pa.Table, served: Collection[str], *,
        first_us: float, over_us: float, audit: Verdict = "unknown",
    ) -> Seen:  # fmt: skip
        """Of a callers' table (:data:`eventmesh.history.CALLERS`), from the first time that was due to the last."""
        due, accepted, ended = (times(callers, name) for name in ("intended_at", "accepted_at", "completed_at"))
        wanted = np.asarray(pc.fill_null(pc.is_in(callers["outcome"], pa.array(sorted(served), pa.string())), False))
        gap = (due.max() - due.min()) / max(len(due) - 1, 1)
        return cls(due, accepted, ended, wanted, float(due.min()), float(due.max() + gap), first_us, over_us, audit)

    def within(self, start: float, end: float) -> Seen:
        """The same requests, another stretch."""
        return replace(self, start=start, end=end)

    @property
    def seconds(self) -> float:
        """The length of the stretch."""
        return (self.end - self.start) / SECOND

    @property
    def chosen(self) -> npt.NDArray[np.bool_]:
        """The requests that were due within the stretch."""
        return (self.due >= self.start) & (self.due < self.end)

    @property
    def failed(self) -> npt.NDArray[np.bool_]:
        """The requests that were not served when the record ends."""
        return ~self.served

    def open_at(self, moment: float) -> int:
        """Requests that were due and had no outcome at that moment."""
        return int(np.count_nonzero(self.due <= moment) - np.count_nonzero(self.ended <= moment))

    def per_s(self, happened: Times) -> float:
        """How many fell into the stretch, per second."""
        return float(np.count_nonzero((happened >= self.start) & (happened < self.end))) / self.seconds


# --- the probes ---------------------------------------------------------------------------------------


def failed_share(seen: Seen, within_s: float) -> float | None:
    """The share of requests that ended otherwise than wanted, or never."""
    return _share(seen.failed, seen)


def accepted_share(seen: Seen, within_s: float) -> float | None:
    """The share of requests that were accepted in time and did not fail."""
    return _share((seen.accepted - seen.due <= within_s * SECOND) & seen.served, seen)


def completed_share(seen: Seen, within_s: float) -> float | None:
    """The share of requests that had the outcome wanted in time."""
    return _share((seen.ended - seen.due <= within_s * SECOND) & seen.served, seen)


def _share(which: npt.NDArray[np.bool_], seen: Seen) -> float | None:
    chosen = seen.chosen
    return float(np.count_nonzero(which & chosen) / np.count_nonzero(chosen)) if chosen.any() else None


def accepted_per_s(seen: Seen, within_s: float) -> float | None:
    """Requests accepted per second that did not fail."""
    return seen.per_s(seen.accepted[seen.served])


def completed_per_s(seen: Seen, within_s: float) -> float | None:
    """Requests per second that had the outcome wanted."""
    return seen.per_s(seen.ended[seen.served])


def latency_ms_p99(seen: Seen, within_s: float) -> float | None:
    """The p99 of milliseconds from the time due to the outcome wanted; what failed has none."""
    chosen = seen.chosen & seen.served
    return float(np.percentile((seen.ended - seen.due)[chosen], 99)) / 1_000 if chosen.any() else None


def backlog(seen: Seen, within_s: float) -> float | None:
    """Requests accepted and without an outcome at the end of the stretch."""
    return float(np.count_nonzero(seen.accepted <= seen.end) - np.count_nonzero(seen.ended <= seen.end))


def recovery_s(seen: Seen, within_s: float) -> float | None:
    """Seconds from the end of the faults until all is as before, or None where that was not seen.

    As before is: requests are served, no more are open than at most before the faults, and none fails any more.
    """
    again = served_again_us(seen)
    if again is None or np.isnan(seen.ended).any():
        return None
    most, moments = most_open_before(seen), np.sort(seen.ended[seen.ended >= again]).tolist()
    back = next((moment for moment in moments if seen.open_at(moment) <= most), None)
    if back is None:
        return None
    failures: list[float] = seen.ended[seen.failed & (seen.ended > seen.over_us)].tolist()
    return float(max([back, *failures]) - seen.over_us) / SECOND


def served_again_us(seen: Seen) -> float | None:
    """When, after the faults, the first request was served that had come since they began; None if none was.

    A service that was away reads its own log first, so it serves later than its process is there.
    """
    ended = seen.ended[seen.served & (seen.due >= seen.first_us) & (seen.ended > seen.over_us)]
    return float(ended.min()) if ended.size else None


def most_open_before(seen: Seen) -> int:
    """The most requests that were open at a time before the first fault."""
    moments = seen.due[seen.due < seen.first_us]
    return max((seen.open_at(moment) for moment in moments.tolist()), default=0)


def audit(seen: Seen, within_s: float) -> str:
    """What the audit of the whole run says."""
    return seen.audit


@dataclass(frozen=True)
class Probe:
    """``measure`` takes what was seen and the seconds that the file gives where it ``needs_within_s``, else 0."""

    measure: Callable[[Seen, float], Output | None]
    says: str
    unit: str = ""
    needs_within_s: bool = False
    #: Stretches that it can be asked in.
    stretches: tuple[Stretch, ...] = STRETCHES
    words: tuple[str, ...] = ()  # what it can say, where that is no number


PROBES: dict[str, Probe] = {
    "failed-share": Probe(failed_share, "failed, of all requests"),
    "accepted-share": Probe(accepted_share, "accepted in time, of all requests", needs_within_s=True),
    "completed-share": Probe(completed_share, "completed in time, of all requests", needs_within_s=True),
    "accepted-per-s": Probe(accepted_per_s, "accepted per second", "1/s"),
    "completed-per-s": Probe(completed_per_s, "completed per second", "1/s"),
    "latency-p99": Probe(latency_ms_p99, "time to the outcome, p99", "ms"),
    "backlog": Probe(backlog, "accepted and not completed, at the end of the stretch"),
    "recovery": Probe(recovery_s, "from the end of the faults until all is as before", "s", stretches=("after",)),
    "audit": Probe(audit, "the audit's verdict", stretches=("after",), words=("valid", "invalid", "unknown")),
}


def tolerated(output: Output, tolerance: Tolerance) -> bool:
    """Whether what a probe said keeps its tolerance. Raises ``ValueError`` where the two cannot be compared."""
    if isinstance(output, str):
        return output == tolerance
    if isinstance(tolerance, str):
        return meets(output, tolerance)
    low, high = tolerance
    return low <= output <= high


def check_tolerance(tolerance: Tolerance, probe: Probe) -> None:
    """``ValueError`` with what is allowed, where the tolerance is none for this probe."""
    if probe.words:
        if tolerance not in probe.words:
            raise ValueError(f"must be one of {', '.join(probe.words)}")
    elif isinstance(tolerance, str):
        threshold(tolerance)
    elif tolerance[0] > tolerance[1]:
        raise ValueError("must have the lower value first")

"""Whether two ways differ at one load: from pairs of repetitions that were measured one after the other.

Of each pair the logarithm of the ratio is taken, so that a slow minute, which hits both, cancels out. The ratio lies
in the two-sided t interval of those at a confidence that is corrected (Bonferroni) for the number of comparisons in
the report: at most one report in a hundred then holds any interval that misses its truth.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from scipy.special import stdtrit

from eventmesh.application import Words
from eventmesh.report.record import Repetition
from eventmesh.report.ways import Axis, Way

#: The share of reports that may say anything false.
FALSE_REPORTS_MAX = 0.01
#: A smaller difference is of no interest, and may come from the order of measuring.
RELEVANT_FROM = 1.05
#: Fewer pairs have no spread worth the name.
PAIRS_MIN = 3
#: No ratio is known better than this: percentiles are kept in three digits and CPU in ticks of 10 ms, so a few
#: repetitions may agree to the last digit by chance, and their interval would have no width.
PRECISION = 0.02
#: An interval that is wider than this, either way, says nothing; it is cut here so that it stays a number.
UNBOUNDED = 1e6
#: The role of the load generator is no part of what a mesh costs.
GENERATOR = "generator"


@dataclass(frozen=True)
class Criterion:
    """Something of which less is better. ``value`` is None where a repetition has no such figure."""

    name: str
    unit: str
    value: Callable[[Repetition], float | None]
    per_request: bool = False

    def named(self, words: Words) -> str:
        """As a report names it: ``CPU of the mesh per request``."""
        return f"{self.name} per {words.request}" if self.per_request else self.name


@dataclass(frozen=True)
class PairedRatio:
    """How ``other`` compares with ``way``: the logarithms of their ratios, one per pair of repetitions."""

    criterion: Criterion
    way: Way
    other: Way
    axis: Axis
    load: float
    logarithms: Sequence[float]

    @property
    def pairs(self) -> int:
        """How many."""
        return len(self.logarithms)

    @property
    def ratio(self) -> float:
        """The middle of the interval."""
        return math.exp(statistics.fmean(self.logarithms))

    def interval(self, comparisons: int) -> tuple[float, float]:
        """Where the ratio lies, with all ``comparisons`` of the report being right at once."""
        spread = statistics.stdev(self.logarithms) / math.sqrt(self.pairs)
        half = max(spread * _quantile(self.pairs - 1, comparisons), math.log1p(PRECISION))
        half = min(half, math.log(UNBOUNDED))
        return self.ratio * math.exp(-half), self.ratio * math.exp(half)

    def separates(self, low: float, high: float) -> bool:
        """Whether the interval lies on one side of 1, and the difference is worth telling."""
        return (low > 1 or high < 1) and max(self.ratio, 1 / self.ratio) >= RELEVANT_FROM


@cache
def _quantile(freedom: int, comparisons: int) -> float:
    return float(stdtrit(freedom, 1 - FALSE_REPORTS_MAX / comparisons / 2))


def compare(
    axis: Axis, pair: tuple[Way, Way], load: float, one: Sequence[Repetition], two: Sequence[Repetition]
) -> list[PairedRatio]:
    """Every criterion of two ways at one load, of which there are enough pairs."""
    turns = {each.turn: each for each in two if each.turn is not None}
    met = [(each, turns[each.turn]) for each in one if each.turn in turns]
    found = []
    for criterion in CRITERIA:
        values = [(criterion.value(mine), criterion.value(theirs)) for mine, theirs in met]
        logarithms = [math.log(b / a) for a, b in values if a and b and a > 0 and b > 0]
        if len(logarithms) >= PAIRS_MIN:
            found.append(PairedRatio(criterion, *pair, axis, load, logarithms))
    return found


def _accepted(each: Repetition) -> float | None:
    return each.accepted_latency_ms.p50 if each.accepted_latency_ms else None


def _completed(each: Repetition) -> float | None:
    return each.completed_latency_ms.p50 if each.completed_latency_ms else None


def _slowest(each: Repetition) -> float | None:
    return each.completed_latency_ms.p99 if each.completed_latency_ms else None


def _cpu(each: Repetition) -> float | None:
    # Seconds per thousand requests are milliseconds per request.
    return _of_the_mesh(each.cpu_s_per_1000_requests)


def _memory(each: Repetition) -> float | None:
    return _of_the_mesh(each.memory_mb)


def _of_the_mesh(roles: dict[str, float]) -> float | None:
    return sum(value for role, value in roles.items() if role != GENERATOR) or None


COMPLETED = Criterion("time to the outcome, p50", "ms", _completed)
SLOWEST = Criterion("time to the outcome, p99", "ms", _slowest)
ACCEPTED = Criterion("time to the acknowledgement, p50", "ms", _accepted)
#: In the order in which a report tells them.
CRITERIA = (
    COMPLETED,
    SLOWEST,
    ACCEPTED,
    Criterion("CPU of the mesh", "ms", _cpu, per_request=True),
    Criterion("memory of the mesh", "MB", _memory),
)

"""Made-up tables of repetitions of which the truth is known: capacities and costs of each way, then noise upon them.

A table has 1 to 5 repetitions of two or three ways at several loads, delays and joined services. Its noise is
lognormal with heavy tails; single repetitions saturate or hold by a fluke, lie far out, are late, invalid or missing;
and in disturbed ones, which carry their record of the machine, anything may stand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from eventmesh.report.conclusions import (
    Conclusion,
    Disturbed,
    Holds,
    HoldsMore,
    KeptUp,
    Less,
    NotMeasured,
    Range,
    Stale,
)
from eventmesh.report.record import Counts, Little, MachineUse, Percentiles, Repetition
from eventmesh.report.ways import Axis, Way, axis_of
from eventmesh.shop import WORDS
from tests.unit.run_story import INVALID, VALID, shop_way

WAYS: tuple[tuple[str, str], ...] = (
    ("views", "view"), ("hybrid", "batched"), ("request", "per_order"), ("hybrid", "pipelined"),
)  # fmt: skip
#: Within this share a load is neither more nor less than a capacity: machines are not quieter than that.
EDGE = 0.1
NOTHING = Counts(offered=0, accepted=0, completed=0, refused=0, unanswered=0, throttled=0)
LITTLE = Little(measured=1, predicted=1)


@dataclass(frozen=True)
class Costs:
    """What one way takes in one scenario: orders/s at most, milliseconds at no load, CPU, memory."""

    capacity: float
    completed_ms: float
    accepted_ms: float
    cpu_ms: float
    memory_mb: float

    def at(self, criterion: str, load: float) -> float:
        """The true value at a load below the capacity."""
        busy = 1 / max(1 - load / self.capacity, 0.05)
        return {
            "time to the outcome, p50": self.completed_ms * busy**0.5,
            "time to the outcome, p99": min(self.completed_ms * 3 * busy, 300.0),  # well below the objective
            "time to the acknowledgement, p50": self.accepted_ms * busy**0.25,
            "CPU of the mesh": self.cpu_ms,
            "memory of the mesh": self.memory_mb,
        }[criterion]


@dataclass(frozen=True)
class Noise:
    """How far a table is from its truth."""

    sigma: float  # of the logarithm, of each repetition by itself
    drift: float  # of the logarithm, of a turn as a whole
    fluke: float = 0.0  # share of repetitions that saturate, or hold, without a reason
    outlier: float = 0.0
    disturbed: float = 0.0
    missing: float = 0.0


QUIET = Noise(0.01, 0.05)


@dataclass(frozen=True)
class Table:
    """Repetitions, and the truth behind them."""

    repetitions: list[Repetition]
    truth: dict[tuple[Axis, Way], Costs]
    loads: list[float]
    noise: Noise


def table(seed: int, noise: Noise | None = None, turns: int | None = None) -> Table:
    """The table of a seed; its noise and its number of turns are drawn where they are not given."""
    dice = np.random.default_rng([20_26, seed])
    chosen = noise or Noise(
        float(dice.choice([0.005, 0.02, 0.06, 0.2])), float(dice.choice([0.0, 0.1, 0.5])), fluke=0.01, outlier=0.03,
        disturbed=float(dice.choice([0, 0.1, 0.5, 1])), missing=0.03,
    )  # fmt: skip
    turns = turns or int(dice.integers(1, 6))
    ways = [WAYS[0], *(WAYS[1 + place] for place in dice.permutation(3)[: dice.integers(1, 3)])]
    steps = dice.choice([1.5, 2.0, 4.0])
    loads = [float(round(20 * dice.uniform(1, 5) * steps**n)) for n in range(dice.integers(2, 6))]
    loads = sorted(set(loads))
    joined = (1.0, 3.0) if dice.random() < 0.3 else (3.0,)
    rtts = (0.0, 1.0) if dice.random() < 0.5 else (1.0,)
    axes = [{"joined_services": services, "rtt_ms": rtt} for services, rtt in product(joined, rtts)]
    truth = _truth(dice, ways, axes, loads)
    sweep = Sweep(dice, chosen, loads, climbs=bool(dice.random() < 0.6))
    made: list[Repetition] = []
    for turn, axis in product(range(turns), axes):
        shift = float(dice.normal(0, chosen.drift))  # a slow minute hits every way of a turn
        for way in ways:
            made += sweep.climb(truth[axis_of(axis), shop_way(*way)], way, axis, turn, shift)
    return Table(made, truth, loads, chosen)


def _truth(
    dice: np.random.Generator, ways: list[tuple[str, str]], axes: list[dict[str, float]], loads: list[float]
) -> dict[tuple[Axis, Way], Costs]:
    found: dict[tuple[Axis, Way], Costs] = {}
    alike = dice.random() < 0.3  # all that is true of them is that they are equal
    base, weight = _costs(dice, loads), dice.uniform(0, 0.4)
    for way in ways:
        if not alike:
            base, weight = _costs(dice, loads), dice.uniform(0, 0.4)
        for axis in axes:
            hard = 1 + weight * (axis["rtt_ms"] + (axis["joined_services"] - 1) / 2)
            found[axis_of(axis), shop_way(*way)] = Costs(
                base.capacity / hard, base.completed_ms * hard, base.accepted_ms, base.cpu_ms * hard, base.memory_mb
            )
    return found


def _costs(dice: np.random.Generator, loads: list[float]) -> Costs:
    most = math.exp(dice.uniform(math.log(loads[0] * 0.7), math.log(loads[-1] * 2)))
    return Costs(most, *(float(value) for value in np.exp(dice.normal([2, 1, 2, 6], [0.4, 0.4, 0.3, 0.1]))))


@dataclass(frozen=True)
class Sweep:
    """How the repetitions of a table are made."""

    dice: np.random.Generator
    noise: Noise
    loads: list[float]
    climbs: bool  # a way stops at the first load that saturates it

    def climb(
        self, costs: Costs, way: tuple[str, str], axis: dict[str, float], turn: int, shift: float
    ) -> Iterator[Repetition]:
        for load in self.loads:
            if self.dice.random() < self.noise.missing:
                continue
            made = self._repetition(costs, way, {**axis, "offered_per_s": load}, turn, shift)
            yield made
            if self.climbs and made.saturated:
                return

    def _repetition(
        self, costs: Costs, way: tuple[str, str], axis: dict[str, float], turn: int, shift: float
    ) -> Repetition:
        dice, noise, load = self.dice, self.noise, axis["offered_per_s"]

        def near(value: float) -> float:
            far = dice.normal(0, 1) * 0.7 if dice.random() < noise.outlier else 0.0
            return float(value * math.exp(noise.sigma * heavy(dice) * 0.7 + shift + far))

        holds = load < costs.capacity * math.exp(noise.sigma * 0.3 * heavy(dice))
        if dice.random() < noise.fluke:
            holds = not holds
        disturbed = dice.random() < noise.disturbed
        worse = 1.0
        if disturbed:  # each way in its own wrong way, much alike every time; the record of the machine tells why
            wrong = np.random.default_rng([int(costs.capacity * 1e6) % 2**32, len(way[1])])
            worse = float(math.exp(wrong.normal(0.5, 1.0) + dice.normal(0, 0.05)))
            holds = bool(wrong.random() < 0.3)
        p50 = near(costs.at("time to the outcome, p50", load)) * worse
        p99 = min(max(near(costs.at("time to the outcome, p99", load)) * worse, p50 * 1.01), 900.0 if holds else 1e6)
        ack = near(costs.at("time to the acknowledgement, p50", load)) * worse
        taken = float(dice.uniform(0.15, 0.9)) if disturbed else float(dice.uniform(0, 0.09))
        late, invalid = dice.random() < noise.missing / 2, dice.random() < noise.missing / 5
        return Repetition(
            wiring=way[0], join=way[1], joining=WORDS.joins[way[1]], axis=axis, turn=turn,
            machine=MachineUse(others=taken, stolen=0, memory_pressure=0),
            disturbed=f"other programs used {taken:.0%} of the machine" if disturbed else None,
            offered_per_s=load, accepted_per_s=load, completed_per_s=load if holds else costs.capacity,
            accepted_latency_ms=flat(ack), completed_latency_ms=flat(p50, p99),
            staleness_ms=flat(3.0) if way[1] == "view" else None,
            cpu_s_per_1000_requests={"orders": near(costs.cpu_ms) * worse, "generator": 1.0},
            memory_mb={"orders": near(costs.memory_mb)},
            generator_lag_ms_p99=p99 if late else 0.0, saturated=not holds, counts=NOTHING, little=LITTLE,
            audit=INVALID if invalid else VALID,
        )  # fmt: skip


def heavy(dice: np.random.Generator) -> float:
    """Around zero, with tails that are far heavier than a normal distribution's."""
    return min(max(dice.standard_t(3), -20.0), 20.0)


def flat(p50: float, p99: float | None = None) -> Percentiles:
    high = p50 if p99 is None else p99
    return Percentiles(p50=p50, p90=p50, p99=high, p999=high, max=high)


def is_false(said: Conclusion, known: Table) -> bool:
    """Whether a conclusion contradicts the truth of its table."""
    truth = known.truth
    match said:
        case Holds(way, axis, held, not_held):
            most = truth[axis, way].capacity
            return most * (1 + EDGE) < held or (not_held is not None and most > not_held * (1 + EDGE))
        case NotMeasured(way, axis, smallest):
            return truth[axis, way].capacity > smallest * (1 + EDGE)
        case KeptUp(way, axis, load, kept):
            most = truth[axis, way].capacity
            return most * (1 + EDGE) < load if kept else most > load * (1 + EDGE)
        case HoldsMore(way, other, axis, times):
            true = truth[axis, way].capacity / truth[axis, other].capacity
            return true <= 1 or outside(true, times, 1 + EDGE)
        case Less(criterion, way, other, axis, load, times):
            true = truth[axis, other].at(criterion.name, load) / truth[axis, way].at(criterion.name, load)
            return true <= 1 or outside(true, times, 1 + 1e-9)
        case Stale(way):
            return way.asks
        case Disturbed(taken, repetitions):
            least = min(each.machine.others for each in known.repetitions if each.machine)
            alone = all(each.disturbed for each in known.repetitions) and repetitions == len(known.repetitions)
            return not alone or (taken is not None and taken > least)
        case _:
            return False  # says that nothing is known


def outside(true: float, times: Range, edge: float) -> bool:
    return true * edge < times.low or (times.high is not None and true > times.high * edge)

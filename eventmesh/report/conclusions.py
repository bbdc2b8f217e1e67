"""What may be concluded from the repetitions of a run, as data: sentences are rendered from it elsewhere.

Nothing is concluded from a repetition that was disturbed, whose audit is not valid, or whose generator was late, nor
from one that stands alone. Each conclusion is an object with the figures that it rests on, so that a test can hold it
against a known truth: of a thousand made-up tables at most ten may yield anything false.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from eventmesh.application import PLAIN_WORDS, Words
from eventmesh.report import held_loads, machine, ways
from eventmesh.report.differences import COMPLETED, Criterion, PairedRatio, compare
from eventmesh.report.held_loads import Ladder, Unresolved
from eventmesh.report.record import Repetition, Run
from eventmesh.report.repetitions import counts, held_the_load
from eventmesh.report.ways import Axis, Way, axis_of, load_of, way_of

#: Tries at one load that must agree before it counts as held or as not held: saturation counts when another says so.
TRIES_MIN = 2
#: Tries of one way at one load, by rising load.
Tries = Mapping[float, Sequence[Repetition]]


@dataclass(frozen=True)
class Range:
    """From ``low`` to ``high``; nothing is known above ``low`` where ``high`` is None."""

    low: float
    high: float | None


@dataclass(frozen=True)
class Holds:
    """The way held ``held`` requests/s and every smaller load, not ``not_held``; None: no load was found too much."""

    way: Way
    axis: Axis
    held: float
    not_held: float | None


@dataclass(frozen=True)
class NotMeasured:
    """No capacity: not even the smallest load tried was held."""

    way: Way
    axis: Axis
    smallest: float


@dataclass(frozen=True)
class NotResolved:
    """No capacity: the tries are too few, or they contradict each other; ``why`` says it in words."""

    way: Way
    axis: Axis
    why: str


@dataclass(frozen=True)
class KeptUp:
    """The way held the load in every one of ``tries``, or (``kept`` false) in none."""

    way: Way
    axis: Axis
    load: float
    kept: bool
    tries: int


@dataclass(frozen=True)
class HoldsMore:
    """``way`` holds ``times`` the load that ``other`` holds."""

    way: Way
    other: Way
    axis: Axis
    times: Range


@dataclass(frozen=True)
class Less:
    """``way`` needs less of the criterion than ``other``: ``other`` needs ``times`` as much at this load."""

    criterion: Criterion
    way: Way
    other: Way
    axis: Axis
    load: float
    times: Range
    pairs: int


@dataclass(frozen=True)
class NoDifference:
    """The spread does not separate the two. ``criterion`` and ``load`` are None where capacities were compared.

    ``ratio`` is ``other`` over ``way``, as far as it is known, from so many ``pairs``.
    """

    criterion: Criterion | None
    way: Way
    other: Way
    axis: Axis
    load: float | None
    ratio: Range
    pairs: int = 0


@dataclass(frozen=True)
class NotCompared:
    """Both ways held the load, but fewer than three pairs of repetitions can be believed."""

    way: Way
    other: Way
    axis: Axis
    load: float
    pairs: int


@dataclass(frozen=True)
class Disturbed:
    """Every repetition was disturbed, so nothing is concluded at all.

    ``taken`` is the least share of the machine that others took during any of them; None where it was not that.
    """

    taken: float | None
    repetitions: int


@dataclass(frozen=True)
class Stale:
    """What the way read from a view at this load was ``ms`` old: p99, the median of the repetitions."""

    way: Way
    axis: Axis
    load: float
    ms: float


Capacity = Holds | NotMeasured | NotResolved
Conclusion = (
    Holds | NotMeasured | NotResolved | KeptUp | HoldsMore | Less | NoDifference | NotCompared | Disturbed | Stale
)


@dataclass(frozen=True)
class Conclusions:
    """All of a run. ``capacities`` and ``ratios`` are empty of a first look, which does not search for capacities."""

    kept_up: list[KeptUp] = field(default_factory=list)
    capacities: dict[tuple[Axis, Way], Capacity] = field(default_factory=dict)
    ratios: list[HoldsMore | NoDifference] = field(default_factory=list)
    differences: list[Less | NoDifference | NotCompared] = field(default_factory=list)
    stale: list[Stale] = field(default_factory=list)
    #: Of rivals (:attr:`Way.is_rival`) the best is looked at: of each scenario the way that held most, of each load the
    #: fastest of those that held it. The intervals are corrected for every pair, so that choosing among them makes none
    #: false.
    best_rival: dict[Axis, Way] = field(default_factory=dict)
    fastest_rival: dict[tuple[Axis, float], Way] = field(default_factory=dict)
    disturbed: Disturbed | None = None
    places: list[tuple[Axis, Way]] = field(default_factory=list)  # what was tried at all
    comparisons: int = 0  # how many differences were tested, for which the intervals are corrected
    words: Words = PLAIN_WORDS  # in which sentences are made of them

    def all(self) -> list[Conclusion]:
        """Every one."""
        alone: list[Conclusion] = [self.disturbed] if self.disturbed else []
        return [*alone, *self.kept_up, *self.capacities.values(), *self.ratios, *self.differences, *self.stale]


def conclude(
    repetitions: Sequence[Repetition], *, first_look: bool = False, invalid: Iterable[tuple[Axis, Way, float]] = (),
    words: Words = PLAIN_WORDS,
) -> Conclusions:  # fmt: skip
    """What the repetitions of a run say. A ``first_look`` concludes about the loads that it tried, and no capacity.

    ``invalid`` are further loads that were tried, but whose repetitions were not kept: nothing is known of them.
    """
    if repetitions and all(each.disturbed for each in repetitions):
        return Conclusions(disturbed=Disturbed(_taken(repetitions), len(repetitions)), words=words)
    tried = _tried(repetitions, invalid)
    ladders = held_loads.resolve({
        place: Ladder({load: _verdict(tries) for load, tries in loads.items()}) for place, loads in tried.items()
    }, words)  # fmt: skip
    capacities = {} if first_look else {place: _capacity(place, ladder) for place, ladder in ladders.items()}
    compared = _comparisons(tried, ladders)
    fastest = _fastest_rival(tried, ladders)
    differences: list[Less | NoDifference | NotCompared] = [_difference(each, len(compared)) for each in compared]
    differences += _not_compared(tried, ladders, compared)
    return Conclusions(
        kept_up=_kept_up(tried, ladders), capacities=capacities, ratios=_ratios(capacities),
        differences=differences, stale=_stale(tried, ladders), best_rival=_best_rival(ladders, fastest),
        fastest_rival=fastest, places=list(tried), comparisons=len(compared), words=words,
    )  # fmt: skip


def of_run(run: Run) -> Conclusions:
    """What the points of a run say."""
    samples = [each for point in run.points for each in point.samples]
    invalid = [
        (axis_of(each.axis), way_of(each), ways.load(each)) for each in run.points if each.audit.verdict == "invalid"
    ]
    return conclude(samples, first_look=run.first_look is not None, invalid=invalid, words=run.words)


def _taken(repetitions: Sequence[Repetition]) -> float | None:
    shares = [each.machine.others + each.machine.stolen for each in repetitions if each.machine]
    least = min(shares, default=0.0)
    return least if len(shares) == len(repetitions) and least > machine.DISTURBED_FROM else None


def _tried(
    repetitions: Sequence[Repetition], invalid: Iterable[tuple[Axis, Way, float]]
) -> dict[tuple[Axis, Way], dict[float, list[Repetition]]]:
    """The repetitions that count, by place and load; where any was found invalid the load has none."""
    found: dict[tuple[Axis, Way], dict[float, list[Repetition]]] = {}
    for axis, way, load in invalid:
        found.setdefault((axis, way), {})[load] = []
    for each in repetitions:
        loads = found.setdefault((axis_of(each.axis), way_of(each)), {})
        loads.setdefault(load_of(each), []).append(each)
    return {
        place: {
            load: []
            if any(each.audit.verdict == "invalid" for each in tries)
            else [each for each in tries if counts(each)]
            for load, tries in sorted(loads.items())
        }
        for place, loads in sorted(found.items(), key=lambda item: (item[0][0], item[0][1]))
    }


def _verdict(tries: Sequence[Repetition]) -> bool | None:
    held = {held_the_load(each) for each in tries}
    return held.pop() if len(tries) >= TRIES_MIN and len(held) == 1 else None


def _kept_up(
    tried: Mapping[tuple[Axis, Way], Tries], ladders: Mapping[tuple[Axis, Way], Ladder | Unresolved]
) -> list[KeptUp]:
    return [
        KeptUp(way, axis, load, held, len(tried[axis, way][load]))
        for (axis, way), ladder in ladders.items()
        if isinstance(ladder, Ladder)
        for load, held in ladder.verdicts.items()
        if held is not None
    ]


def _capacity(place: tuple[Axis, Way], ladder: Ladder | Unresolved) -> Capacity:
    axis, way = place
    if isinstance(ladder, Unresolved):
        return NotResolved(way, axis, ladder.why)
    smallest = min(ladder.verdicts)
    if ladder.held is not None:
        return Holds(way, axis, ladder.held, ladder.not_held)
    if ladder.not_held == smallest:
        return NotMeasured(way, axis, smallest)
    return NotResolved(way, axis, "its tries at the smallest load are too few or disagree")


def opponents(ways: Sequence[Way]) -> list[tuple[Way, Way]]:
    """Every way that listens beside every way that asks; of meshes, the first beside every other."""
    bases, rivals = [way for way in ways if not way.is_rival], [way for way in ways if way.is_rival]
    return list(product(bases, rivals))


def _ratios(capacities: Mapping[tuple[Axis, Way], Capacity]) -> list[HoldsMore | NoDifference]:
    found: list[HoldsMore | NoDifference] = []
    for axis in dict.fromkeys(axis for axis, _ in capacities):
        for pair in opponents([way for at, way in capacities if at == axis]):
            base, rival = (capacities[axis, way] for way in pair)
            if isinstance(base, Holds) and isinstance(rival, Holds):
                found.append(_ratio(base, rival))
    return found


def _ratio(one: Holds, two: Holds) -> HoldsMore | NoDifference:
    """Each capacity lies between two steps, so their ratio lies between the ratios of those: a range, never a point."""
    for more, less in ((one, two), (two, one)):
        if less.not_held is not None and more.held > less.not_held:
            high = more.not_held / less.held if more.not_held is not None else None
            return HoldsMore(more.way, less.way, one.axis, Range(more.held / less.not_held, high))
    low = two.held / one.not_held if one.not_held is not None else 0.0
    return NoDifference(
        None, one.way, two.way, one.axis, None, Range(low, two.not_held / one.held if two.not_held else None)
    )


def _comparisons(
    tried: Mapping[tuple[Axis, Way], Tries], ladders: Mapping[tuple[Axis, Way], Ladder | Unresolved]
) -> list[PairedRatio]:
    return [
        comparison
        for axis, pair, load in _meetings(tried, ladders)
        for comparison in compare(axis, pair, load, *(tried[axis, way][load] for way in pair))
    ]


def _not_compared(
    tried: Mapping[tuple[Axis, Way], Tries],
    ladders: Mapping[tuple[Axis, Way], Ladder | Unresolved],
    compared: Sequence[PairedRatio],
) -> list[NotCompared]:
    known = {(each.axis, (each.way, each.other), each.load) for each in compared}
    return [
        NotCompared(*pair, axis, load, _turns_together([tried[axis, way][load] for way in pair]))
        for axis, pair, load in _meetings(tried, ladders)
        if (axis, pair, load) not in known
    ]


def _turns_together(tries: Sequence[Sequence[Repetition]]) -> int:
    return len(set.intersection(*({each.turn for each in some} for some in tries)) - {None})


def _meetings(
    tried: Mapping[tuple[Axis, Way], Tries], ladders: Mapping[tuple[Axis, Way], Ladder | Unresolved]
) -> list[tuple[Axis, tuple[Way, Way], float]]:
    """Where a way and its rival both held the load: a latency above the capacity has no meaning."""
    found = []
    for axis in dict.fromkeys(axis for axis, _ in tried):
        for pair in opponents([way for at, way in tried if at == axis]):
            base, rival = (held_loads.held(ladders[axis, way]) for way in pair)
            found += [(axis, pair, load) for load in sorted(base & rival)]
    return found


def _stale(
    tried: Mapping[tuple[Axis, Way], Tries], ladders: Mapping[tuple[Axis, Way], Ladder | Unresolved]
) -> list[Stale]:
    found = []
    for (axis, way), loads in tried.items():
        for load in sorted(held_loads.held(ladders[axis, way])):
            ages = [each.staleness_ms.p99 for each in loads[load] if each.staleness_ms]
            if len(ages) >= TRIES_MIN:
                found.append(Stale(way, axis, load, statistics.median(ages)))
    return found


def _fastest_rival(
    tried: Mapping[tuple[Axis, Way], Tries], ladders: Mapping[tuple[Axis, Way], Ladder | Unresolved]
) -> dict[tuple[Axis, float], Way]:
    best: dict[tuple[Axis, float], tuple[float, Way]] = {}
    for (axis, way), loads in tried.items():
        for load in held_loads.held(ladders[axis, way]) if way.is_rival else ():
            times = [time for each in loads[load] if (time := COMPLETED.value(each)) is not None]
            rank = (statistics.median(times), way)
            best[axis, load] = min(rank, best.get((axis, load), rank))
    return {place: way for place, (_, way) in best.items()}


def _best_rival(
    ladders: Mapping[tuple[Axis, Way], Ladder | Unresolved], fastest: Mapping[tuple[Axis, float], Way]
) -> dict[Axis, Way]:
    best: dict[Axis, tuple[float, bool, Way]] = {}
    for (axis, way), ladder in ladders.items():
        if way.is_rival:
            most = max(held_loads.held(ladder), default=0.0)
            rank = (-most, fastest.get((axis, most)) != way, way)
            best[axis] = min(rank, best.get(axis, rank))
    return {axis: way for axis, (_, _, way) in best.items()}


def _difference(each: PairedRatio, comparisons: int) -> Less | NoDifference:
    low, high = each.interval(comparisons)
    if each.separates(low, high):
        if each.ratio > 1:
            return Less(each.criterion, each.way, each.other, each.axis, each.load, Range(low, high), each.pairs)
        turned = Range(1 / high, 1 / low)
        return Less(each.criterion, each.other, each.way, each.axis, each.load, turned, each.pairs)
    return NoDifference(each.criterion, each.way, each.other, each.axis, each.load, Range(low, high), each.pairs)

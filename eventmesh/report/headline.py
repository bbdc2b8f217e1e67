"""The first sentence of a report, which a manager can repeat, and where its winner loses.

The sentence has at most :data:`WORDS_MAX` words. Both are chosen from the conclusions, and say nothing beyond them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eventmesh.application import PLAIN_WORDS, Words
from eventmesh.report import sentences, targets
from eventmesh.report.conclusions import (
    Conclusion,
    Conclusions,
    Disturbed,
    Holds,
    HoldsMore,
    KeptUp,
    Less,
    NoDifference,
    NotCompared,
    Stale,
)
from eventmesh.report.differences import ACCEPTED, COMPLETED, SLOWEST
from eventmesh.report.record import Run
from eventmesh.report.ways import Axis, Way, axes_label
from eventmesh.report.wording import capital, number

WORDS_MAX = 25
#: Of what the winner loses, this much stands in a sentence; the table has all.
LOSSES_TOLD = 3

Loss = HoldsMore | KeptUp | Less | Stale


@dataclass(frozen=True)
class Headline:
    """The sentence, the conclusions that it rests on, who wins by it, and what the winner loses."""

    sentence: str
    rests_on: Sequence[Conclusion]
    winner: Way | None = None
    losses: Sequence[Loss] = ()
    scenarios: int = 1  # that the run measured: of several, each loss says where
    words: Words = PLAIN_WORDS

    @property
    def other_side(self) -> str:
        """Where the winner loses, in a sentence; empty where nobody wins."""
        if self.winner is None:
            return ""
        name = capital(sentences.side(self.winner))
        if not self.losses:
            return f"{name} was not seen to lose in anything else that was compared."
        axes = {each.axis for each in self.losses}
        together = f", with {axes_label(axes.pop())}" if self.scenarios > 1 and len(axes) == 1 else ""
        told = [sentences.loss(each, self.words, apart=self.scenarios > 1 and not together) for each in self.losses]
        return f"{name} loses elsewhere{together}: {'; '.join(told)}."


def of_run(run: Run, found: Conclusions) -> Headline:
    """Of any run: its targets where it has no points, else what was concluded."""
    if not run.points:
        return Headline(_without_points(run), [])
    if all(point.audit.verdict == "invalid" for point in run.points):
        return Headline(
            "The audit found this run invalid at every one of its points, so it has no performance to show.", []
        )
    return headline(found)


def _without_points(run: Run) -> str:
    state = "ended early" if run.status == "aborted" else "is complete"
    found = f"The run {state}, its audit says {run.verdict}"
    ordinary = run.status == "complete" and run.verdict == "valid"
    counted = targets.counted(run)
    if counted and ordinary:
        named = targets.named(run)
        return named if words(named) <= WORDS_MAX else f"{capital(counted)}."
    ended = ", ".join(f"{number(count)} {outcome.replace('_', ' ')}" for outcome, count in run.outcomes.items())
    for sentence in (
        f"{found}; {counted}." if counted else "",
        f"{found}, and its {run.words.requests} ended so: {ended}." if ended else "",
    ):
        if sentence and words(sentence) <= WORDS_MAX:
            return sentence
    return f"{found}."


def headline(found: Conclusions) -> Headline:
    """Of what was concluded from a run with points."""
    if found.disturbed:
        return Headline(sentences.disturbed(found.disturbed), [found.disturbed])
    for axis in sorted({axis for axis, _ in found.places}, reverse=True):  # the hardest first
        for claims, winner in _decided(found, axis):
            said, lost = _short(claims, found), _losses(found, winner)
            return Headline(said, claims, winner, lost, _scenarios(found), found.words)
    return _undecided(found)


def words(sentence: str) -> int:
    """How many words a sentence has."""
    return len(sentence.split())


def _decided(found: Conclusions, axis: Axis) -> Iterator[tuple[list[Conclusion], Way]]:
    """What decides a scenario: capacity, then who keeps up with a load, then time and cost at the greatest load."""
    rival = found.best_rival.get(axis)
    for ratio in found.ratios:
        if isinstance(ratio, HoldsMore) and ratio.axis == axis and rival in (ratio.way, ratio.other):
            yield [ratio], ratio.way
    kept = [each for each in found.kept_up if each.axis == axis and (each.way == rival or not each.way.is_rival)]
    for one, two in _apart(kept):
        yield [one, two], one.way
    differences = [each for each in found.differences if isinstance(each, Less) and each.axis == axis]
    for each in sorted(differences, key=lambda each: -each.load):
        if found.fastest_rival.get((axis, each.load)) in (each.way, each.other):
            yield [each, *_to_the_outcome(found, each)], each.way


def _to_the_outcome(found: Conclusions, each: Less) -> list[NoDifference]:
    """Who acknowledges early has not completed early: where that makes no difference, the sentence says so, too."""
    if each.criterion is not ACCEPTED:
        return []
    return [
        other
        for other in found.differences
        if isinstance(other, NoDifference) and other.criterion is COMPLETED and other.axis == each.axis
        and other.load == each.load and {other.way, other.other} == {each.way, each.other}
    ]  # fmt: skip


def _apart(kept: Sequence[KeptUp]) -> Iterator[tuple[KeptUp, KeptUp]]:
    """At one load, who kept up beside who did not, one of them a rival."""
    for one in kept:
        for two in kept:
            met = (one.axis, one.load) == (two.axis, two.load) and one.way.is_rival != two.way.is_rival
            if met and one.kept and not two.kept:
                yield one, two


def _losses(found: Conclusions, winner: Way) -> list[Loss]:
    """Where the winner loses: load in another scenario, and of each criterion the greatest difference."""
    lost: dict[str, Less] = {}
    for each in found.differences:
        if isinstance(each, Less) and each.other == winner:
            known = lost.get(each.criterion.name)
            if known is None or each.times.low > known.times.low:
                lost[each.criterion.name] = each
    held = [each for each in found.ratios if isinstance(each, HoldsMore) and each.other == winner]
    behind = [two for one, two in _apart(found.kept_up) if two.way == winner]
    if COMPLETED.name in lost:  # of the same time, the p99 adds little to a sentence
        lost.pop(SLOWEST.name, None)
    stale = [each for each in found.stale if each.way == winner and not _others_too(found, each)]
    return [*held[:1], *behind[:1], *list(lost.values())[:LOSSES_TOLD], *stale[-1:]]


def _others_too(found: Conclusions, stale: Stale) -> bool:
    """Whether all that it was compared with at this load have views that lag, too."""
    place = (stale.axis, stale.load)
    met = {each.way for each in found.kept_up if (each.axis, each.load) == place and each.kept} - {stale.way}
    return bool(met) and met <= {each.way for each in found.stale if (each.axis, each.load) == place}


def _undecided(found: Conclusions) -> Headline:
    for kind in (NoDifference, NotCompared):
        for each in reversed(found.differences):
            if isinstance(each, kind) and each.load and found.fastest_rival[each.axis, each.load] == each.other:
                return Headline(_short([each], found), [each])
    equal = [each for each in found.ratios if isinstance(each, NoDifference)]
    if equal:
        return Headline(_short(equal[-1:], found), equal[-1:])
    held = [each for each in found.capacities.values() if isinstance(each, Holds)]
    if held and len({way.is_rival for _, way in found.places}) == 1:
        return Headline(_short(held[-1:], found), held[-1:])
    return Headline(sentences.nothing(found), [])


def _short(claims: Sequence[Conclusion], found: Conclusions) -> str:
    """With the scenario as far as there is room for it."""
    axis = claims[0].axis if not isinstance(claims[0], Disturbed) else ()
    where = [f" with {axes_label(axis)}"] if axis else []
    several = [" in one of the settings"] if _scenarios(found) > 1 else []
    for text in (*where, *several, ""):
        sentence = sentences.claim(claims, text, found.words)
        if words(sentence) <= WORDS_MAX:
            break
    return sentence


def _scenarios(found: Conclusions) -> int:
    return len({axis for axis, _ in found.places})

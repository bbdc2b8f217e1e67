"""Conclusions in words. Every sentence is rendered from the objects it is given; none looks at a measurement."""

from __future__ import annotations

from collections.abc import Sequence

from eventmesh.application import Words
from eventmesh.report.conclusions import (
    Capacity,
    Conclusion,
    Conclusions,
    Disturbed,
    Holds,
    HoldsMore,
    KeptUp,
    Less,
    NoDifference,
    NotCompared,
    NotMeasured,
    NotResolved,
    Range,
    Stale,
)
from eventmesh.report.differences import PAIRS_MIN
from eventmesh.report.record import FirstLook
from eventmesh.report.repetitions import OBJECTIVE_MS
from eventmesh.report.ways import Way, axes_label
from eventmesh.report.wording import capital, duration, listed, number, percent, times

#: How a criterion is told with the better way as the subject, or (False) with the worse one.
_PHRASES = {
    "time to the outcome, p50": (True, "completed {words.requests} {times} times as fast as"),
    "time to the outcome, p99": (True, "completed its slowest {words.requests} (p99) {times} times as fast as"),
    "time to the acknowledgement, p50": (True, "acknowledged {words.requests} {times} times as fast as"),
    "CPU of the mesh": (False, "used {times} times as much CPU per {words.request} as"),
    "memory of the mesh": (False, "used {times} times as much memory as"),
}


def side(way: Way) -> str:
    """``listening`` or ``asking (batched queries)``: one can listen in one way and ask in many. Of meshes the label."""
    if way.mesh:
        return way.label
    return f"asking ({way.joining})" if way.asks else "listening"


def name(way: Way) -> str:
    """In a word: ``listening``, ``asking``, or the name of a mesh."""
    return way.mesh or way.kind


def ratio(found: Range) -> str:
    """``4 to 16``, ``at least 4``, ``up to 1.3`` where the least is hardly more than one."""
    if found.high is None:
        return f"at least {times(found.low)}"
    low, high = times(found.low), times(found.high)
    return f"up to {high}" if low == "1" else low if low == high else f"{low} to {high}"


def claim(claims: Sequence[Conclusion], where: str, words: Words) -> str:
    """What a headline rests on, as one sentence; ``where`` is the scenario, with a space before it, or empty."""

    def at(load: float) -> str:
        return f"at {number(load)} {words.requests}/s"

    match list(claims):
        case [HoldsMore() as each]:
            said = f"{side(each.way)} held {ratio(each.times)} times the load of {side(each.other)}{where}"
        case [KeptUp() as one, KeptUp() as two]:
            kept, others = f"{side(one.way)} kept up in {_every(one)}", f"{side(two.way)} in none"
            said = f"{at(one.load)} {kept}, {others}{where}"
        case [Less() as each]:
            said = f"{less(each, words)} {at(each.load)}{where}"
        case [Less() as each, NoDifference()]:
            said = f"{less(each, words)} {at(each.load)}{where}; to the outcome no difference was seen"
        case [NoDifference(load=None) as each]:
            said = f"No difference was seen between the loads that {side(each.way)} and {side(each.other)} held{where}"
        case [NoDifference(load=float() as load) as each]:
            pair = f"{side(each.way)} and {side(each.other)}"
            said = f"No difference was seen between {pair} {at(load)}, in {each.pairs} pairs{where}"
        case [NotCompared() as each]:
            return too_few(each, words)
        case [Holds() as each]:
            objective = f"with a completed p99 below {duration(OBJECTIVE_MS)}"
            held = capacity(each) if each.not_held is None else f"{number(each.held)} but not {number(each.not_held)}"
            said = f"{each.way.label} held {held} {words.requests}/s{where}, {objective}"
        case others:
            raise AssertionError(f"no sentence is made of {others}")
    return capital(said) + "."


def less(each: Less, words: Words) -> str:
    """Who needs less of what, and how many times."""
    better, phrase = _PHRASES[each.criterion.name]
    one, two = (each.way, each.other) if better else (each.other, each.way)
    return f"{side(one)} {phrase.format(times=ratio(each.times), words=words)} {side(two)}"


def loss(each: HoldsMore | KeptUp | Less | Stale, words: Words, *, apart: bool) -> str:
    """Something that the winner of the headline loses; ``apart``: in which scenario, too."""
    where = f" with {axes_label(each.axis)}" if each.axis and apart else ""
    if isinstance(each, HoldsMore):
        return f"{side(each.way)} held {ratio(each.times)} times its load{where}"
    load = f"{number(each.load)} {words.requests}/s"
    match each:
        case Stale() if each.way.mesh:
            return f"its views were {duration(each.ms)} behind (p99) at {load}{where}"
        case Stale():
            return f"it decided on values {duration(each.ms)} old (p99) at {load}{where}"
        case KeptUp():
            return f"it did not keep up with {load}{where}"
        case Less():
            return f"{_lost(each, words)} at {load}{where}"


def _lost(each: Less, words: Words) -> str:
    better, phrase = _PHRASES[each.criterion.name]
    said = phrase.format(times=ratio(each.times), words=words)
    return f"{side(each.way)} {said.removesuffix(' as')}" if better else f"it {said} {side(each.way)}"


def capacity(found: Capacity) -> str:
    """``800 to 1,600``, ``at least 3,200``, ``not measured``, ``not resolved``."""
    if isinstance(found, Holds):
        if found.not_held is None:
            return f"at least {number(found.held)}"
        return f"{number(found.held)} to {number(found.not_held)}"
    return "not measured" if isinstance(found, NotMeasured) else "not resolved"


def why(found: Capacity, words: Words) -> str:
    """Why a capacity is not known; empty where it is."""
    if isinstance(found, NotMeasured):
        return f"it did not hold {number(found.smallest)} {words.requests}/s, the smallest load tried"
    return found.why if isinstance(found, NotResolved) else ""


def _every(kept: KeptUp) -> str:
    return "both tries" if kept.tries == 2 else f"all {kept.tries} tries"


def disturbed(found: Disturbed) -> str:
    """Nothing can be said, and what to do about it."""
    if found.taken is None:
        return (
            "No conclusion: every repetition was disturbed by other programs or by short memory. "
            "Close them and run again."
        )
    return (
        f"No conclusion: other programs used {percent(found.taken)} of this machine or more during every repetition. "
        "Close them and run again."
    )


def too_few(found: NotCompared, words: Words) -> str:
    """Both were measured, but not together often enough."""
    return (
        f"No conclusion: fewer than {PAIRS_MIN} undisturbed pairs of repetitions at {number(found.load)} "
        f"{words.requests}/s. "
        "Run it again on a quieter machine."
    )


def nothing(found: Conclusions) -> str:
    """No load was resolved."""
    if any(isinstance(each, NotMeasured) for each in found.capacities.values()) or any(
        not k.kept for k in found.kept_up
    ):
        return "No conclusion: the ways did not hold a common load. Offer smaller loads and run it again."
    return "No conclusion: too few repetitions agree. Run it again on a quieter machine."


def first_look(look: FirstLook, found: Conclusions) -> str:
    """What such a run cannot say, and what would."""
    loads = listed([number(load) for load in sorted({each.load for each in found.kept_up})])
    at = f" at {loads} {found.words.requests}/s" if loads else ""
    return (
        f"This is a first look: it compares{at} and does not search for the load that each way holds. "
        f"`{look.decides}` would decide, in about {number(look.minutes)} minutes."
    )

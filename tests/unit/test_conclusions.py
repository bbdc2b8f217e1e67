"""Given a thousand tables whose truth is known, then what is concluded from them is true, and most of it is found.

The canaries take one rule away each and see the same tables yield more falsehoods than are allowed.
"""

from __future__ import annotations

import re
from functools import cache

import pytest

from eventmesh.report import conclusions, differences, headline, repetitions
from eventmesh.report.conclusions import (
    Conclusion,
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
    conclude,
    opponents,
)
from eventmesh.report.differences import ACCEPTED, FALSE_REPORTS_MAX
from eventmesh.report.record import MachineUse, Repetition
from eventmesh.report.ways import Axis, Way, axis_of
from eventmesh.shop import WORDS
from tests.unit.known_truth import LITTLE, NOTHING, QUIET, Table, flat, is_false, table
from tests.unit.run_story import INVALID, VALID, shop_way

TABLES = 1_000
VIEWS, BATCHED, REQUEST = shop_way("views", "view"), shop_way("hybrid", "batched"), shop_way("request", "per_order")
AXIS: Axis = (("joined_services", 3.0), ("rtt_ms", 1.0))


@cache
def tables() -> list[Table]:
    return [table(seed) for seed in range(TABLES)]


@cache
def quiet_tables() -> list[Table]:
    """Of little noise, five repetitions each."""
    return [table(seed, QUIET, 5) for seed in range(200)]


def falsehoods(first_look: bool = False) -> int:
    """How many of the tables yield anything false."""
    return sum(
        any(is_false(said, known) for said in conclude(known.repetitions, first_look=first_look).all())
        for known in tables()
    )


# A thousand tables


@pytest.mark.parametrize("first_look", [False, True])
def test_at_most_one_table_in_a_hundred_yields_anything_false(first_look: bool) -> None:
    assert falsehoods(first_look) <= FALSE_REPORTS_MAX * TABLES


def test_the_tables_are_of_every_kind_and_yield_every_conclusion() -> None:
    said = [each for known in tables() for each in conclude(known.repetitions).all()]
    kinds = {kind: sum(isinstance(each, kind) for each in said) for kind in (
        Holds, NotMeasured, NotResolved, KeptUp, HoldsMore, Less, NoDifference, NotCompared, Disturbed,
    )}  # fmt: skip
    assert min(kinds.values()) > TABLES / 20, kinds


@pytest.mark.parametrize("taken_away", ["the correction", "disturbed repetitions are left out", "a second try"])
def test_without_any_one_rule_too_many_are_false(taken_away: str, monkeypatch: pytest.MonkeyPatch) -> None:
    match taken_away:
        case "the correction":
            monkeypatch.setattr(differences, "_quantile", lambda freedom, _: differences.stdtrit(freedom, 0.995))
        case "disturbed repetitions are left out":
            monkeypatch.setattr(conclusions, "counts", lambda each: not repetitions.late(each))
        case _:
            monkeypatch.setattr(conclusions, "TRIES_MIN", 1)
    assert falsehoods() > FALSE_REPORTS_MAX * TABLES


def test_with_little_noise_nine_in_ten_of_what_is_true_is_said() -> None:
    wanted = said = 0
    for known in quiet_tables():
        found = conclude(known.repetitions)
        true, told = worth_telling(known), {key(each) for each in [*found.ratios, *found.differences]}
        wanted, said = wanted + len(true), said + len(true & told)
    assert wanted > 1_000
    assert said >= 0.9 * wanted


def test_with_little_noise_nine_in_ten_capacities_are_found_within_their_steps() -> None:
    wanted = said = 0
    for known in quiet_tables():
        found = conclude(known.repetitions).capacities
        for place, costs in known.truth.items():
            edges = [load for load in known.loads if abs(load / costs.capacity - 1) < 0.1]
            if not edges and costs.capacity > known.loads[0]:
                wanted += 1
                below = max(load for load in known.loads if load < costs.capacity)
                above = min((load for load in known.loads if load > costs.capacity), default=None)
                said += found[place] == Holds(place[1], place[0], below, above)
    assert wanted > 200
    assert said >= 0.9 * wanted


def key(each: Conclusion) -> tuple[object, ...]:
    """Who is better than whom, where, and by what."""
    match each:
        case Less(criterion, way, other, axis, load):
            return way, other, axis, load, criterion.name
        case HoldsMore(way, other, axis):
            return way, other, axis
    return ()


def worth_telling(known: Table) -> set[tuple[object, ...]]:
    """What a table of little noise should say: differences of a fifth and more, capacities two steps apart."""
    wanted: set[tuple[object, ...]] = set()
    for axis in {axis for axis, _ in known.truth}:
        for pair in opponents([way for at, way in known.truth if at == axis]):
            for way, other in (pair, pair[::-1]):
                mine, theirs = known.truth[axis, way], known.truth[axis, other]
                held = [load for load in known.loads if load * 1.1 < min(mine.capacity, theirs.capacity)]
                wanted |= {
                    (way, other, axis, load, criterion.name)
                    for load in held
                    for criterion in differences.CRITERIA
                    if theirs.at(criterion.name, load) > 1.2 * mine.at(criterion.name, load)
                }
                between = [load for load in known.loads if theirs.capacity * 1.1 < load < mine.capacity / 1.1]
                if held and len(between) > 1:
                    wanted.add((way, other, axis))
    return wanted


# The headline over the same tables


def test_every_headline_is_short_rests_on_what_was_concluded_and_tells_what_its_winner_loses() -> None:
    false = 0
    for known in tables():
        found = conclude(known.repetitions)
        said = headline.headline(found)
        assert headline.words(said.sentence) <= headline.WORDS_MAX, said.sentence
        assert all(each in found.all() for each in [*said.rests_on, *said.losses])
        assert not re.search(r"\d{4}|\de[+-]\d|\d\.\d{3}", said.sentence + said.other_side)
        assert bool(said.other_side) is (said.winner is not None)
        lost = {each.other for each in [*found.differences, *found.ratios] if isinstance(each, Less | HoldsMore)}
        assert bool(said.losses) or said.winner not in lost
        false += any(is_false(each, known) for each in [*said.rests_on, *said.losses])
    assert false <= FALSE_REPORTS_MAX * TABLES


def test_who_acknowledges_early_is_not_told_without_the_time_to_the_outcome() -> None:
    told = 0
    for known in tables():
        said = headline.headline(conclude(known.repetitions))
        first = said.rests_on[0] if said.rests_on else None
        if isinstance(first, Less) and first.criterion is ACCEPTED:
            told += 1
            assert "; to the outcome no difference was seen." in said.sentence
    assert told, "a table in which it happens"


def test_with_little_noise_nine_in_ten_headlines_name_a_winner_where_there_is_one() -> None:
    clear = [known for known in quiet_tables() if worth_telling(known)]
    named = sum(headline.headline(conclude(known.repetitions)).winner is not None for known in clear)
    assert len(clear) > 50
    assert named >= 0.9 * len(clear)


# One rule at a time


def tried(
    way: Way,
    loads: dict[float, str],
    *,
    rtt: float = 1,
    p50: tuple[float, ...] = (10, 10, 10),
    disturbed: bool = False,
    others: float = 0.4,
) -> list[Repetition]:
    """A repetition per letter at each load: ``h`` held, ``s`` saturated."""
    return [
        Repetition(
            wiring=way.wiring, join=way.join, joining=way.joining, turn=turn,
            axis={"joined_services": 3, "rtt_ms": rtt, "offered_per_s": load},
            machine=MachineUse(others=others, stolen=0.0) if disturbed else None,
            disturbed="others" if disturbed else None,
            offered_per_s=load, accepted_per_s=load, completed_per_s=load, accepted_latency_ms=flat(1),
            completed_latency_ms=flat(p50[turn % len(p50)] * (1 + turn / 1_000)), generator_lag_ms_p99=0,
            saturated=letter == "s", counts=NOTHING, little=LITTLE, audit=INVALID if letter == "i" else VALID,
        )
        for load, letters in loads.items()
        for turn, letter in enumerate(letters)
    ]  # fmt: skip


def capacity(way: Way, *repetitions: list[Repetition]) -> object:
    return conclude([each for some in repetitions for each in some], words=WORDS).capacities[AXIS, way]


@pytest.mark.parametrize(
    ("loads", "found"),
    [
        ({50: "hh", 100: "hh", 200: "ss"}, Holds(VIEWS, AXIS, 100, 200)),
        ({50: "hh", 100: "hs", 200: "ss"}, Holds(VIEWS, AXIS, 50, 200)),
        ({50: "hh", 100: "hh", 200: "s"}, Holds(VIEWS, AXIS, 100, None)),
        ({50: "hh", 100: "hh"}, Holds(VIEWS, AXIS, 100, None)),
        ({50: "hh", 100: "hhi", 200: "ss"}, Holds(VIEWS, AXIS, 50, 200)),
        ({50: "ss"}, NotMeasured(VIEWS, AXIS, 50)),
        ({50: "h", 100: "hh"}, NotResolved(VIEWS, AXIS, "its tries at the smallest load are too few or disagree")),
        ({50: "hh", 100: "ss", 200: "hh"},
         NotResolved(VIEWS, AXIS, "it held 200 orders/s, and less it did not hold")),
    ],
)  # fmt: skip
def test_a_capacity_is_a_range_between_loads_that_all_tries_agree_on(loads: dict[float, str], found: object) -> None:
    assert capacity(VIEWS, tried(VIEWS, loads)) == found


def test_a_disturbed_try_agrees_with_nothing() -> None:
    again = tried(VIEWS, {100: "h"}, disturbed=True)
    assert capacity(VIEWS, tried(VIEWS, {50: "hh", 100: "h"}), again) == Holds(VIEWS, AXIS, 50, None)


def test_more_delay_that_helps_leaves_both_unresolved_and_no_sentence_rests_on_them() -> None:
    near = tried(BATCHED, {50: "sss"}, rtt=0)
    far = tried(BATCHED, {50: "hhh", 500: "hhh"}, rtt=1)
    views = [*tried(VIEWS, {50: "hhh", 500: "hhh"}, rtt=0), *tried(VIEWS, {50: "hhh", 500: "hhh"}, rtt=1)]
    found = conclude([*near, *far, *views])
    why = (
        "it held more with 3 joined services and 1 ms between services than "
        "with 3 joined services and no added network delay"
    )
    assert {found.capacities[axis, BATCHED] for axis in (AXIS, (AXIS[0], ("rtt_ms", 0.0)))} == {
        NotResolved(BATCHED, AXIS, why), NotResolved(BATCHED, (AXIS[0], ("rtt_ms", 0.0)), why),
    }  # fmt: skip
    assert not [each for each in found.kept_up if each.way == BATCHED]
    assert found.ratios == found.differences == []
    assert headline.headline(found).winner is None


@pytest.mark.parametrize(
    ("views", "batched", "found"),
    [
        ({50: "hh", 100: "hh", 200: "hh", 400: "ss"}, {50: "hh", 100: "ss"},
         HoldsMore(VIEWS, BATCHED, AXIS, Range(2.0, 8.0))),
        ({50: "hh", 100: "hh", 200: "hh"}, {50: "hh", 100: "ss"}, HoldsMore(VIEWS, BATCHED, AXIS, Range(2.0, None))),
        ({50: "hh", 100: "ss"}, {50: "hh", 100: "hh", 200: "hh"}, HoldsMore(BATCHED, VIEWS, AXIS, Range(2.0, None))),
        ({50: "hh", 100: "hh", 200: "ss"}, {50: "hh", 100: "ss"},
         NoDifference(None, VIEWS, BATCHED, AXIS, None, Range(0.25, 1.0))),
        ({50: "hh", 100: "hh"}, {50: "hh", 100: "hh"}, NoDifference(None, VIEWS, BATCHED, AXIS, None, Range(0, None))),
    ],
)  # fmt: skip
def test_a_ratio_of_capacities_is_a_range_and_none_where_it_holds_1(
    views: dict[float, str], batched: dict[float, str], found: object
) -> None:
    assert conclude([*tried(VIEWS, views), *tried(BATCHED, batched)]).ratios == [found]


def test_what_did_not_hold_the_smallest_load_is_not_measured_and_has_no_ratio() -> None:
    found = conclude([*tried(VIEWS, {50: "hh", 100: "hh"}), *tried(BATCHED, {50: "ss"})], words=WORDS)
    assert found.capacities[AXIS, BATCHED] == NotMeasured(BATCHED, AXIS, 50)
    assert found.ratios == []
    assert headline.headline(found).sentence == (
        "At 50 orders/s listening kept up in both tries, asking (batched queries) in none "
        "with 3 joined services and 1 ms between services."
    )


def slower(factor: float, pairs: int, *, loads: str = "h") -> list[Repetition]:
    noise = (10.0, 11.0, 12.0, 10.5, 11.5)
    return [
        *tried(VIEWS, {50: "h" * pairs}, p50=noise),
        *tried(BATCHED, {50: loads * pairs}, p50=tuple(value * factor for value in noise)),
    ]


def times_of(repetitions: list[Repetition]) -> list[object]:
    return [type(each) for each in conclude(repetitions).differences if getattr(each, "load", None) == 50][:1]


@pytest.mark.parametrize(
    ("factor", "pairs", "found"),
    [(2, 3, Less), (1.04, 5, NoDifference), (2, 2, NotCompared), (0.5, 5, Less)],
)
def test_a_difference_needs_three_pairs_and_a_twentieth(factor: float, pairs: int, found: type) -> None:
    assert times_of(slower(factor, pairs)) == [found]


def test_a_slow_minute_that_hits_both_of_a_pair_hides_nothing() -> None:
    minutes = (10.0, 100.0, 30.0)
    pair = [
        *tried(VIEWS, {50: "hhh"}, p50=minutes),
        *tried(BATCHED, {50: "hhh"}, p50=tuple(value * 1.5 for value in minutes)),
    ]
    found = next(each for each in conclude(pair).differences if isinstance(each, Less))
    assert (found.way, found.other, found.pairs) == (VIEWS, BATCHED, 3)
    assert found.times.low < 1.5 < (found.times.high or 0)


def test_nothing_is_compared_at_a_load_that_one_did_not_hold() -> None:
    assert conclude(slower(3, 3, loads="s")).differences == []


def test_a_first_look_concludes_of_the_loads_it_tried_and_no_capacity() -> None:
    found = conclude(
        [*tried(VIEWS, {50: "hhh", 300: "hhh"}), *tried(BATCHED, {50: "hhh", 300: "sss"})], first_look=True
    )
    assert found.capacities == {}
    assert found.ratios == []
    assert [each.kept for each in found.kept_up if each.load == 300] == [False, True]


def test_where_all_was_disturbed_the_headline_says_exactly_that() -> None:
    busy = [
        *tried(VIEWS, {50: "hhh"}, disturbed=True, others=0.48),
        *tried(BATCHED, {50: "hhh"}, disturbed=True, others=0.6),
    ]
    assert headline.headline(conclude(busy)).sentence == (
        "No conclusion: other programs used 48 % of this machine or more during every repetition. "
        "Close them and run again."
    )
    assert conclude(busy).all() == [Disturbed(0.48, 6)]


def test_the_asking_way_that_listening_is_held_against_is_the_one_that_held_most() -> None:
    loads = {50.0: "hhh", 100.0: "hhh"}
    found = conclude([
        *tried(VIEWS, loads), *tried(BATCHED, loads), *tried(REQUEST, {50: "hhh", 100: "sss"}, p50=(5, 5, 5))
    ])  # fmt: skip
    assert found.best_rival == {AXIS: BATCHED}
    assert axis_of({"rtt_ms": 1, "offered_per_s": 9, "joined_services": 3}) == AXIS

"""Given what a mesh file says of asks, then the asker sends, waits, repeats and gives up by that; time is virtual."""

from __future__ import annotations

from typing import Any

import pytest

from eventmesh.errors import (
    AskTimeout,
    BulkheadFull,
    CircuitOpen,
    DidNotHappen,
    EventmeshError,
    MayHaveHappened,
    PeerLost,
    Throttled,
)
from eventmesh.runtime.pending import Pending
from tests.unit.ask_story import Asking, versions

SECOND = 1_000


def error_of(pending: Pending) -> EventmeshError:
    assert pending.resolved
    assert isinstance(pending.error, EventmeshError)
    return pending.error


# --- where nothing is said ----------------------------------------------------------------------------


def test_questions_that_find_nobody_do_not_put_off_those_before_them() -> None:
    here = Asking()
    first = here.look("first")
    while not first.resolved and here.now < 60 * SECOND:
        here.now += 10
        here.look(f"at {here.now}")  # nobody is there, as it learns at once
        here.asks.lost("there")
        here.asks.tick(here.now * 1_000)
    assert isinstance(error_of(first), AskTimeout)
    assert 500 < here.now < 1_500, "4 attempts, with 50, 100, 200 and 400 ms after them"
    assert sum(each.message.rows["name"][0] == "first" for _, each in here.sent) == 4


def test_where_a_mesh_file_says_nothing_it_is_as_the_rule_and_the_process_say() -> None:
    here = Asking()
    asked = here.take("o1", attempts=3)
    here.pass_ms(60 * SECOND)
    assert here.times == [0, 5_000, 10_100]
    assert str(error_of(asked)) == "there/0 did not answer Take in 3 attempts of 5 s"
    assert len({tuple(each.message.ids) for _, each in here.sent}) == 1, "under the same id"


# --- attempts, timeout, pauses, deadline ---------------------------------------------------------------


def test_the_attempts_of_the_mesh_file_stand_in_place_of_the_rule_s() -> None:
    here = Asking({"default": {"attempts": 2, "timeout_ms": 10}})
    for asked in (here.take("o1", attempts=50), here.look("a", attempts=1)):
        here.pass_ms(SECOND)
        assert isinstance(error_of(asked), AskTimeout)
    assert (here.counts("Take").attempts, here.counts("Look").attempts) == (2, 2)
    assert (here.counts("Take").repeats, here.counts("Take").timeouts, here.counts("Take").given_up) == (1, 2, 1)


def test_pauses_are_waited_after_each_attempt_and_a_late_answer_is_taken_in_them() -> None:
    here = Asking({"Look": {"timeout_ms": 10, "backoff": {"first_ms": 5, "factor": 2, "max_ms": 15}}})
    asked = here.look("a", attempts=4)
    here.pass_ms(80)
    assert here.times == [0, 15, 35, 60]
    assert not asked.resolved
    here.pass_ms(4)
    here.answer(0, version=7)
    assert versions(asked) == [7]


def test_nobody_waits_beyond_the_deadline() -> None:
    here = Asking({"Take": {"timeout_ms": 10, "deadline_ms": 25}})
    asked = here.take("o1", attempts=100)
    here.pass_ms(24)
    assert not asked.resolved
    here.pass_ms(1)
    assert "within 0.025 s" in str(error_of(asked))
    assert not error_of(asked).definite
    here.pass_ms(SECOND)
    assert here.times == [0, 10], "100 ms of pause end after the deadline"


def test_what_is_asked_until_it_is_answered_no_policy_of_the_default_ends() -> None:
    here = Asking({"default": {"attempts": 1, "timeout_ms": 10, "deadline_ms": 10}})
    asked = here.take("o1", insists=True)
    here.pass_ms(60 * SECOND)
    assert not asked.resolved
    here.answer(version=3)
    assert asked.value == {"name": "a", "version": 3}


def test_a_policy_that_would_end_what_is_asked_until_it_is_answered_is_a_mistake_that_is_told() -> None:
    here = Asking({"Look": {"attempts": 3, "deadline_ms": 9_000}})
    with pytest.raises(TypeError, match="asks Look until it is answered, and the mesh file says attempts: 3, deadline"):
        here.look("a", attempts=None)
    assert here.sent == []


def test_jitter_is_drawn_from_the_seed() -> None:
    def times(seed: int) -> list[int]:
        here = Asking({"Look": {"timeout_ms": 10, "backoff": {"first_ms": 100, "jitter": 1}}}, seed=seed)
        here.look("a", attempts=6)
        here.pass_ms(60 * SECOND)
        return here.times

    assert times(1) == times(1) != times(2)


# --- cache --------------------------------------------------------------------------------------------

CACHED: dict[str, Any] = {"cache": {"ttl_ms": 100, "stale_while_revalidate_ms": 50}}


def test_an_answer_is_used_again_while_it_is_fresh_counted_from_the_question() -> None:
    here = Asking({"Look": CACHED})
    first = here.look("a")
    here.pass_ms(40)
    here.answer(version=1)
    assert versions(first) == [1]
    here.pass_ms(60)
    assert versions(here.look("a")) == [1]
    assert (here.times, here.counts("Look").cache_hits, here.counts("Look").cache_misses) == ([0], 1, 1)
    here.pass_ms(51)
    assert not here.look("a").resolved, "150 ms after the question it is gone, whenever the answer came"


def test_only_what_is_not_known_is_asked() -> None:
    here = Asking({"Look": CACHED})
    here.look("b")
    here.answer(version=2)
    asked = here.look("a", "b", "c")
    assert here.sent[-1][1].message.rows["name"] == ["a", "c"]
    here.answer(version=9)
    assert versions(asked) == [9, 2, 9]


def test_a_stale_answer_is_used_while_one_question_is_under_way_for_a_fresh_one() -> None:
    here = Asking({"Look": CACHED})
    here.look("a")
    here.answer(version=1)
    here.pass_ms(101)
    assert [versions(here.look("a")) for _ in range(3)] == [[1]] * 3
    assert here.times == [0, 101], "one question, however many find it stale"
    here.answer(version=2)
    assert versions(here.look("a")) == [2]
    assert (here.counts("Look").cache_stale, here.counts("Look").cache_hits) == (3, 1)


def test_a_question_for_a_fresh_answer_that_gets_none_is_asked_by_the_next_who_finds_it_stale() -> None:
    here = Asking({"Look": {**CACHED, "timeout_ms": 10}})
    here.look("a")
    here.answer(version=1)
    here.pass_ms(101)
    here.look("a")
    here.pass_ms(20)
    assert versions(here.look("a")) == [1]
    assert here.times == [0, 101, 121], "an attempt each"


def test_an_error_is_kept_by_no_cache() -> None:
    here = Asking({"Look": CACHED})
    asked = here.look("a")
    here.answer(error=DidNotHappen("no"))
    assert isinstance(error_of(asked), DidNotHappen)
    here.look("a")
    assert here.times == [0, 0]


# --- hedge --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answered", "won"), [(0, 0), (1, 1)])
def test_the_first_of_two_answers_wins_and_the_other_is_dropped(answered: int, won: int) -> None:
    here = Asking({"Look": {"hedge": {"after_ms": 20}}})
    asked = here.look("a")
    here.pass_ms(30)
    assert here.times == [0, 20]
    here.answer(answered, version=1)
    here.answer(1 - answered, version=2)
    assert versions(asked) == [1]
    assert (here.counts("Look").hedges_sent, here.counts("Look").hedges_won) == (1, won)
    here.pass_ms(60 * SECOND)
    assert here.times == [0, 20]
    assert len(here.asks) == 0


def test_an_answer_in_time_needs_no_hedge() -> None:
    here = Asking({"Look": {"hedge": {"after_ms": 20}}})
    here.look("a")
    here.pass_ms(19)
    here.answer(version=1)
    here.pass_ms(SECOND)
    assert (here.times, here.counts("Look").hedges_sent) == ([0], 0)


def test_each_attempt_has_its_hedge_and_one_that_was_lost_has_none() -> None:
    here = Asking({"Look": {"timeout_ms": 50, "hedge": {"after_ms": 20}}})
    here.look("a", attempts=2)
    here.pass_ms(75)
    assert here.times == [0, 20, 50, 70]
    gone = Asking({"Look": {"hedge": {"after_ms": 20}}})
    gone.look("a")
    gone.asks.lost("there")
    gone.pass_ms(40)
    assert gone.times == [0], "it is repeated after its pause of 50 ms"


# --- circuit breaker ----------------------------------------------------------------------------------

BREAKER: dict[str, Any] = {
    "timeout_ms": 10,
    "circuit_breaker": {
        "consecutive_failures": 2, "wait_duration_in_open_state_ms": 100,
        "permitted_number_of_calls_in_half_open_state": 1,
    },
}  # fmt: skip


def opened(**more: Any) -> Asking:
    """Nobody has answered two questions: the circuit is open at 20 ms."""
    here = Asking({"default": {**BREAKER, **more}})
    here.look("a", attempts=2)
    here.pass_ms(20)
    assert here.counts("Look").circuit_opened == 1
    return here


def test_an_open_circuit_is_a_definite_no_to_what_was_never_sent() -> None:
    here = opened()
    asked = here.take("o1"), here.look("b")
    assert not any(each.resolved for each in asked), "it is told in a step of its own"
    here.pass_ms(0)
    for each in asked:
        assert isinstance(error_of(each), CircuitOpen)
        assert error_of(each).definite
    assert here.times == [0, 10]
    assert (here.counts("Take").circuit_not_permitted, here.counts("Look").circuit_not_permitted) == (1, 1)


def test_what_may_have_gone_out_before_is_never_a_definite_no() -> None:
    here = opened()
    asked = here.take("o1", unsent=False, attempts=2)
    here.pass_ms(0)
    assert not asked.resolved
    here.pass_ms(70)
    assert here.times == [0, 10], "nothing was sent"
    here.pass_ms(SECOND)
    assert not error_of(asked).definite


def test_a_repeat_that_the_circuit_stops_is_an_attempt_and_the_ask_stays_unknown() -> None:
    here = Asking({"default": BREAKER})
    here.look("a", attempts=1)
    here.look("b", attempts=1)
    asked = here.take("o1", attempts=2)
    here.pass_ms(12)
    assert (here.counts("Take").circuit_not_permitted, here.counts("Take").attempts) == (1, 1)
    assert not asked.resolved
    here.pass_ms(5 * SECOND)
    assert isinstance(error_of(asked), MayHaveHappened)
    assert here.counts("Take").attempts == 1


def test_a_late_answer_to_what_went_out_before_the_circuit_opened_is_taken() -> None:
    here = Asking({"default": BREAKER})
    asked = here.take("o1", attempts=3)
    here.look("a", attempts=1)
    here.pass_ms(15)
    here.answer(0, version=4)
    assert asked.value == {"name": "a", "version": 4}


def test_what_is_asked_until_it_is_answered_is_held_back_and_goes_out_in_the_end() -> None:
    here = opened()
    asked = [here.take(f"o{number}", insists=True) for number in range(3)]
    here.pass_ms(99)
    assert here.times == [0, 10]
    here.pass_ms(1)
    assert here.times == [0, 10, 120], "one trial"
    here.answer(version=1)
    assert sum(each.resolved for each in asked) == 1
    here.pass_ms(2 * SECOND)
    for number in range(3, len(here.sent)):
        here.answer(number, version=1)
    assert all(each.resolved and each.error is None for each in asked)


def test_an_answer_that_refuses_is_an_answer_and_one_that_says_later_is_not() -> None:
    here = Asking({"default": BREAKER})
    said = (DidNotHappen("refused"), 0), (DidNotHappen("refused"), 0), (Throttled("later"), 0), (PeerLost("?"), 1)
    for error, opens in said:
        here.take("o1")
        here.answer(error=error)
        assert here.counts("Take").circuit_opened == opens


def test_a_connection_that_breaks_fails_what_was_on_its_way_to_that_process_only() -> None:
    here = Asking({"default": BREAKER}, partitions=2)
    here.look(*"abcdef")
    assert {each.to.partition for _, each in here.sent} == {0, 1}
    here.asks.lost("there", [1])
    assert here.counts("Look").circuit_opened == 0, "one failure"
    here.asks.lost("there", [1])
    assert here.counts("Look").circuit_opened == 0, "nothing was on its way any more"
    here.look(*"abcdef")
    here.asks.lost("there", [1])
    assert here.counts("Look").circuit_opened == 1


def test_a_trial_that_nobody_waits_for_any_more_gives_its_place_back() -> None:
    here = opened()
    here.pass_ms(100)
    here.take("o1")
    assert here.times[-1] == 120
    here.asks.clear()
    here.take("o2")
    assert here.times[-2:] == [120, 120]


def test_an_open_circuit_sends_no_hedge() -> None:
    here = Asking({"Look": {**BREAKER, "timeout_ms": 50, "hedge": {"after_ms": 20}}})
    here.look("a")
    for name in "bc":
        here.look(name)
        here.answer(error=Throttled("later"))
    assert here.counts("Look").circuit_opened == 1
    here.pass_ms(40)
    assert here.counts("Look").hedges_sent == 0


# --- bulkhead -----------------------------------------------------------------------------------------

BULKHEAD: dict[str, Any] = {"bulkhead": {"in_flight_max": 2, "queued_max": 1}}


def test_so_many_are_on_their_way_one_waits_and_the_rest_is_throttled() -> None:
    here = Asking({"Take": BULKHEAD})
    asked = [here.take(f"o{number}") for number in range(4)]
    assert len(here.sent) == 2
    here.pass_ms(0)
    assert [each.resolved for each in asked] == [False, False, False, True]
    assert isinstance(error_of(asked[3]), BulkheadFull)
    assert isinstance(error_of(asked[3]), Throttled)
    assert (here.counts("Take").bulkhead_queued, here.counts("Take").bulkhead_full) == (1, 1)
    here.answer(0)
    here.pass_ms(0)
    assert len(here.sent) == 3, "the one that waited has its place"


def test_who_waits_for_a_place_waits_as_long_as_an_attempt_lasts() -> None:
    here = Asking({"Take": {**BULKHEAD, "timeout_ms": 30}})
    for story in ("o1", "o2"):
        here.take(story, insists=True)
    asked = here.take("o3")
    here.pass_ms(29)
    assert not asked.resolved
    here.pass_ms(1)
    assert isinstance(error_of(asked), BulkheadFull)
    assert {each.message.ids[0] for _, each in here.sent} == {"here/0:Take:o1:0", "here/0:Take:o2:0"}
    unknown = here.take("o4", unsent=False, attempts=2)
    here.pass_ms(5 * SECOND)
    assert isinstance(error_of(unknown), MayHaveHappened)


def test_an_ask_keeps_its_place_through_its_repeats_and_what_is_asked_next_finds_it_free() -> None:
    here = Asking({"Take": {"bulkhead": {"in_flight_max": 1}, "timeout_ms": 10}})
    first = here.take("o1", insists=True)
    here.pass_ms(200)
    assert len(here.sent) > 2
    second = list[Pending]()
    first.then = lambda: second.append(here.take("o2"))
    here.answer()
    assert here.sent[-1][1].message.ids == ["here/0:Take:o2:0"]
    here.answer()
    assert second[0].value is not None


def test_tasks_of_one_process_share_places_and_none_decides_in_the_step_of_another() -> None:
    here = Asking({"Take": {"bulkhead": {"in_flight_max": 1, "queued_max": 5}}})
    there = here.beside()
    here.take("o1")
    waits = there.take("o2")
    here.answer()
    assert there.sent == [], "only noted"
    there.pass_ms(0)
    assert len(there.sent) == 1
    there.asks.clear()
    here.take("o3")
    assert len(here.sent) == 2, "what is forgotten gives its place back"
    assert not waits.resolved


def test_what_is_asked_until_it_is_answered_waits_for_its_place_however_long_the_queue_is() -> None:
    here = Asking({"default": {"bulkhead": {"in_flight_max": 1, "queued_max": 1}, "timeout_ms": 10}})
    asked = [here.take(f"o{number}", insists=True) for number in range(4)]
    refused = here.take("o5")
    here.pass_ms(5 * SECOND)
    assert isinstance(error_of(refused), BulkheadFull)
    for number in range(4):
        here.pass_ms(5 * SECOND)
        assert here.sent[-1][1].message.ids == [f"here/0:Take:o{number}:0"], "in their order"
        here.answer()
    assert all(each.resolved and each.error is None for each in asked)
    assert (here.counts("Take").bulkhead_queued, here.counts("Take").bulkhead_full) == (3, 1)


def test_one_that_waits_for_longer_than_an_attempt_is_counted_once() -> None:
    here = Asking({"default": {**BULKHEAD, "timeout_ms": 10, "attempts": 3}})
    for story in ("o1", "o2"):
        here.take(story, insists=True)
    unknown = here.take("o3", unsent=False)
    here.pass_ms(5 * SECOND)
    assert isinstance(error_of(unknown), MayHaveHappened)
    assert (here.counts("Take").bulkhead_queued, here.counts("Take").bulkhead_full) == (1, 0)

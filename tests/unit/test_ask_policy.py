"""Given each ask policy alone, then it decides by its own numbers, on the clock and the dice that are passed in."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmesh.policies import AskPolicy, CircuitBreaker, Policy, policy_of
from eventmesh.runtime.ask_policy import Bulkhead, Cache, Guards, Retry, question_of
from eventmesh.runtime.ask_policy import CircuitBreaker as Breaker
from eventmesh.runtime.limits import Counters, Limits
from tests.unit.ask_story import MESSAGES

DICE = Random("test")


def retry(**policy: Any) -> Retry:
    return Retry.of(policy_of({"default": AskPolicy.model_validate(policy)}, MESSAGES["Look"]), Limits())


# --- retry ------------------------------------------------------------------------------------------


def test_where_nothing_is_said_the_limits_of_the_process_hold() -> None:
    plain = Retry.of(Policy(), Limits(attempt_timeout=9, backoff=100, backoff_max=700))
    assert (plain.attempts, plain.timeout, plain.deadline) == (None, 9, None)
    assert [plain.pause(repeats, DICE) for repeats in range(5)] == [100, 200, 400, 700, 700]
    assert [plain.pause_after_timeout(repeats, DICE) for repeats in range(3)] == [0, 200, 400]


def test_pauses_grow_by_their_factor_up_to_the_longest() -> None:
    slow = retry(backoff={"first_ms": 10, "factor": 3, "max_ms": 100})
    assert [slow.pause(repeats, DICE) for repeats in (0, 1, 2, 3, 10**6)] == [10_000, 30_000, 90_000, 100_000, 100_000]
    assert slow.pause_after_timeout(0, DICE) == 10_000, "whoever names a first pause means it"


@pytest.mark.parametrize("jitter", [0.25, 1.0])
def test_jitter_spreads_a_pause_around_its_length(jitter: float) -> None:
    spread = retry(backoff={"first_ms": 100, "max_ms": 100, "jitter": jitter})
    drawn = [spread.pause(0, Random(seed)) for seed in range(500)]
    low, high = 100_000 * (1 - jitter), 100_000 * (1 + jitter)
    assert low <= min(drawn) < low + 0.05 * (high - low)
    assert high - 0.05 * (high - low) < max(drawn) <= high
    assert sum(drawn) / len(drawn) == pytest.approx(100_000, rel=0.05)
    assert drawn == [spread.pause(0, Random(seed)) for seed in range(500)], "by the dice that are passed in"


# --- cache ------------------------------------------------------------------------------------------

ANSWER = {"version": 1}


def test_an_answer_is_fresh_then_stale_then_gone() -> None:
    cache = Cache(ttl=100, stale=50, entries_max=9)
    cache.keep("a", ANSWER, asked_at=1_000)
    for now, state in ((1_000, "fresh"), (1_100, "fresh"), (1_101, "stale"), (1_150, "stale")):
        assert cache.find("a", now) == (ANSWER, state)
    assert cache.find("a", 1_151) is None
    assert len(cache) == 0, "what cannot be used any more is not kept"


def test_an_answer_counts_from_when_it_was_asked_for_and_an_older_question_replaces_no_newer_one() -> None:
    cache = Cache(ttl=100, stale=0, entries_max=9)
    cache.keep("a", {"version": 2}, asked_at=50)
    cache.keep("a", {"version": 1}, asked_at=10)
    assert cache.find("a", 150) == ({"version": 2}, "fresh")
    assert cache.find("a", 151) is None


def test_the_answer_that_was_used_longest_ago_goes_first() -> None:
    cache = Cache(ttl=100, stale=0, entries_max=2)
    cache.keep("a", ANSWER, 0)
    cache.keep("b", ANSWER, 0)
    assert cache.find("a", 1) is not None
    cache.keep("c", ANSWER, 0)
    assert [cache.find(key, 2) is not None for key in "abc"] == [True, False, True]


def test_one_at_a_time_asks_again() -> None:
    cache = Cache(ttl=1, stale=9, entries_max=9)
    assert (cache.asks_again("a"), cache.asks_again("a"), cache.asks_again("b")) == (True, False, True)
    cache.asked_again("a")
    assert cache.asks_again("a")


def test_whoever_changes_an_answer_changes_only_its_own() -> None:
    cache, answer = Cache(ttl=9, stale=0, entries_max=9), {"version": 1}
    cache.keep("a", answer, 0)
    answer["version"] = 2
    found = cache.find("a", 1)
    assert found is not None
    found[0]["version"] = 3
    assert cache.find("a", 1) == ({"version": 1}, "fresh")


def test_questions_are_alike_by_their_columns_lists_among_them() -> None:
    kind = MESSAGES["Look"]
    assert question_of(kind, {"name": [("s1", 2), {"b": [1], "a": None}]}) == question_of(
        kind, {"name": [("s1", 2), {"a": None, "b": [1]}]}
    )
    assert question_of(kind, {"name": "a"}) != question_of(kind, {"name": None})


# --- circuit breaker --------------------------------------------------------------------------------


def breaker(**said: Any) -> Breaker:
    return Breaker.of(CircuitBreaker.model_validate(said))


def calls(one: Breaker, outcomes: str, now: int = 0) -> str:
    """Calls one after the other: ``x`` failed, ``.`` answered. The state after each, by its first letter."""
    states = ""
    for outcome in outcomes:
        turn = one.let_out(now)
        assert turn is not None, f"after {states}"
        one.failed(turn, now) if outcome == "x" else one.succeeded(turn, now)
        states += one.state[0]
    return states


def test_it_opens_when_enough_of_the_last_calls_have_failed() -> None:
    one = breaker(failure_rate_threshold=50, sliding_window_size=4, minimum_number_of_calls=3)
    assert calls(one, "x.") == "cc", "of two calls there is no rate"
    assert calls(one, ".") == "c", "one of three"
    assert calls(one, "x") == "o", "two of the last four"
    again = breaker(failure_rate_threshold=50, sliding_window_size=4, minimum_number_of_calls=3)
    assert calls(again, "x...x...x") == "ccccccccc", "the window forgets"


def test_it_opens_after_failures_in_a_row() -> None:
    assert calls(breaker(consecutive_failures=3), "xx.xxx") == "ccccco"


def test_it_is_open_for_its_time_and_then_lets_a_few_out() -> None:
    one = breaker(
        consecutive_failures=1, wait_duration_in_open_state_ms=10, permitted_number_of_calls_in_half_open_state=2
    )
    calls(one, "x", now=5_000)
    assert one.let_out(14_999) is None
    trials = [one.let_out(15_000), one.let_out(15_000)]
    assert None not in trials
    assert one.let_out(15_000) is None, "the two are on their way"
    assert one.state == "half-open"


@pytest.mark.parametrize(
    ("said", "outcomes", "states"),
    [
        ({"consecutive_failures": 1}, "..", "hc"),
        ({"consecutive_failures": 1}, ".x", "ho"),
        ({"failure_rate_threshold": 60, "sliding_window_size": 1}, "x.", "hc"),
        ({"failure_rate_threshold": 50, "sliding_window_size": 1}, "x.", "ho"),
    ],
)
def test_the_trials_decide_whether_it_closes(said: dict[str, Any], outcomes: str, states: str) -> None:
    one = breaker(**said, wait_duration_in_open_state_ms=1, permitted_number_of_calls_in_half_open_state=2)
    calls(one, "x")
    assert calls(one, outcomes, now=1_000) == states
    if one.state == "closed":
        assert calls(one, ".", now=1_000) == "c"
    else:
        assert one.let_out(1_999) is None, "it waits all its time again"


def test_a_call_of_an_earlier_turn_says_nothing_of_this_one() -> None:
    one = breaker(
        consecutive_failures=1, wait_duration_in_open_state_ms=1, permitted_number_of_calls_in_half_open_state=1
    )
    late = one.let_out(0)
    assert late is not None
    calls(one, "x")
    trial = one.let_out(1_000)
    assert trial is not None
    one.succeeded(late, 1_000)
    assert (one.state, one.failed(late, 1_000)) == ("half-open", False)
    one.given_back(late)
    assert one.let_out(1_000) is None, "only the trial gives its place back"
    one.given_back(trial)
    assert one.let_out(1_000) is not None


@given(st.lists(st.sampled_from("x.tg"), max_size=200), st.booleans())
def test_whatever_comes_of_calls_a_breaker_lets_out_again_in_the_end(events: list[str], in_a_row: bool) -> None:
    """``t`` lets time pass, ``g`` gives a call back. No sequence leaves it without a place for a trial for ever."""
    said: dict[str, Any] = {"consecutive_failures": 2} if in_a_row else {"sliding_window_size": 5}
    one, now = breaker(**said, wait_duration_in_open_state_ms=10, permitted_number_of_calls_in_half_open_state=2), 0
    for event in events:
        now += 7_000 if event == "t" else 0
        turn = one.let_out(now)
        if turn is None:
            assert one.state == "open"
            continue
        {"x": one.failed, ".": one.succeeded, "t": one.succeeded}.get(event, lambda t, n: one.given_back(t))(turn, now)
    assert one.let_out(now + 10_000) is not None


# --- bulkhead ---------------------------------------------------------------------------------------


def test_a_bulkhead_has_places_and_a_queue_and_refuses_the_rest() -> None:
    one, entered = Bulkhead(in_flight_max=2, queued_max=2), list[str]()
    assert [one.enter(each) for each in "abc"] == [True, True, False]
    assert [one.wait(each, lambda each=each: entered.append(each)) for each in "cde"] == [True, True, False]  # type: ignore[misc]
    assert one.enter("a"), "it has its place already"
    one.leave("a")
    assert entered == ["c"], "in the order in which they came"
    one.leave("d")
    one.leave("b")
    one.leave("c")
    assert (entered, one.queued, one.full) == (["c"], 0, False)


# --- who shares what --------------------------------------------------------------------------------


def test_what_the_default_section_says_is_shared_by_those_that_ask_one_service() -> None:
    said: dict[str, dict[str, Any]] = {
        "default": {"bulkhead": {"in_flight_max": 1}, "circuit_breaker": {}, "cache": {"ttl_ms": 1}},
        "Find": {"bulkhead": {"in_flight_max": 1}},
    }
    sections = {name: AskPolicy.model_validate(each) for name, each in said.items()}
    guards = Guards(lambda kind: policy_of(sections, kind), Limits(), Counters())
    look, find, take = (guards.of(MESSAGES[name]) for name in ("Look", "Find", "Take"))
    assert look.bulkhead is take.bulkhead is not find.bulkhead
    assert look.breaker is find.breaker is take.breaker
    assert (look.cache is None, take.cache) == (False, None), "a command is answered from no cache"
    assert look.cache is not find.cache

"""Given what callers of two meshes were told, then it is said how far that is the same, and against what to hold it."""

from __future__ import annotations

from html import unescape

import numpy as np
import pyarrow as pa
import pytest

from eventmesh.application import Words
from eventmesh.report import agreement, conclusions, headline, measure, record, report
from eventmesh.report.agreement import Told
from eventmesh.report.repetitions import summarise
from tests.unit.run_story import VALID, callers, run

WORDS = Words("loan", "loans", "a loan")
AXIS = {"offered_per_s": 100.0}


def told(outcomes: str) -> Told:
    """A letter for each request: g is granted, d declined, a dot nobody's answer."""
    names = {"g": "granted", "d": "declined", ".": None}
    rows = pa.table(
        {
            "request": list(range(len(outcomes)))[::-1],
            "command": ["Borrow"] * len(outcomes),
            "key": [f"loan-{number}" for number in range(len(outcomes))][::-1],
            "outcome": pa.array([names[each] for each in reversed(outcomes)], pa.string()),
        }
    )
    return Told.of(rows)


def agreed(ones: list[str], twos: list[str]) -> record.Agreement:
    each = [{turn: told(outcomes) for turn, outcomes in enumerate(side)} for side in (ones, twos)]
    found = agreement.agreement("library", "library-asking", AXIS, *each)
    assert found is not None
    return found


def sentence(ones: list[str], twos: list[str]) -> str:
    made = run([], words=WORDS, agreements=[agreed(ones, twos)])
    [said] = agreement.sentences(made)
    return said


def test_each_request_told_the_same_is_agreement() -> None:
    assert sentence(["ggd", "gdg"], ["ggd", "gdg"]) == (
        "Outcomes agree: each of 6 loans, over all turns, ended in library as it did in library-asking."
    )


def test_as_many_of_each_outcome_is_agreement_in_number_only() -> None:
    assert sentence(["ggdd", "ggdd"], ["ggdd", "gddg"]) == (
        "Outcomes agree in number only: at 100 loans/s up to 2 of 4 loans ended otherwise in library-asking than in "
        "library, such as Borrow loan-1: granted and declined. Between repetitions of one and the same mesh as many "
        "did."
    )


def test_another_number_of_an_outcome_is_a_difference() -> None:
    found = agreed(["gggd", "gggd"], ["gggd", "gdd."])
    assert (found.requests, found.differed, found.totals_differed) == (4, [0, 3], 1)
    assert found.within == [0, 3]
    assert found.examples[-1] == "Borrow loan-3: declined and unanswered"
    assert sentence(["gggd"] * 2, ["gdd."] * 2).endswith(
        "such as Borrow loan-1: granted and declined. Repetitions of one mesh all ended alike, so that comes from the "
        "meshes."
    )


def test_what_differs_less_within_a_mesh_is_told_beside_it() -> None:
    assert sentence(["gggg", "gggg"], ["dddd", "dddg"]).endswith(
        "Between repetitions of one and the same mesh up to 1 did."
    )
    assert sentence(["gggg"], ["dddd"]).endswith("so nobody knows how much one differs from itself.")


def test_what_is_told_under_a_load_that_was_too_much_is_told_apart() -> None:
    points = [point("library", 0, 100, 10), point("library-asking", 1, 100, 10, holds=False)]
    high = agreed(["gg"], ["g."])
    low = agreed(["gg"], ["gg"]).model_copy(update={"axis": {"offered_per_s": 50.0}})
    said = agreement.sentences(run(points, words=WORDS, agreements=[low, high]))
    assert said == [
        "Outcomes agree: each of 2 loans, over all turns, ended in library as it did in library-asking. "
        "Where a load was too much for one of them, up to 1 of its loans ended otherwise."
    ]
    [alone] = agreement.sentences(run(points, words=WORDS, agreements=[high]))
    assert alone.startswith("Outcomes differ: at 100 loans/s up to 1 of 2 loans ended otherwise")


def test_turns_that_measured_one_mesh_only_compare_nothing() -> None:
    assert agreement.agreement("one", "two", AXIS, {0: told("g")}, {1: told("g")}) is None
    assert agreement.agreement("one", "two", AXIS, {}, {}) is None


# --- a whole report ----------------------------------------------------------------------------------


def point(
    mesh: str,
    place: int,
    load: float,
    latency_ms: float,
    *,
    asks: bool = False,
    holds: bool = True,
    views: bool = False,
) -> record.Point:
    """Five repetitions of a mesh that answers so fast, or cannot hold the load."""

    def repetition(turn: int) -> record.Repetition:
        due = np.arange(int(load * 2)) * 1e6 / load
        latency = np.full(len(due), latency_ms * (1 + turn / 100)) + (0 if holds else 0.5 * due / 1_000)
        made = measure.point(
            callers(due, latency), wiring="events", join="", asks=asks, axis={"offered_per_s": load}, audit=VALID,
            turn=turn, primary="PlaceOrder", cpu_s={"desk": 0.1, "generator": 3.0},
            staleness_us=[1_000] * 9 if views else None,
        )  # fmt: skip
        told = {"mesh": mesh, "place": place, "outcomes": {"granted": 60 + turn, "declined": 40 - turn}}
        return made.model_copy(update=told)

    return summarise([repetition(turn) for turn in range(5)])


def texts(points: list[record.Point]) -> tuple[str, str]:
    made = run(points, name="compare", words=WORDS, config={})
    return unescape(report.render(made)), report.summary(made)


def test_two_meshes_that_both_listen_are_held_against_each_other_by_their_names() -> None:
    points = [point("four", 1, 100, 20), point("two", 0, 100, 10), point("four", 1, 400, 20),
              point("two", 0, 400, 10, holds=False)]  # fmt: skip
    page, summary = texts(points)
    said = headline.of_run(run(points, words=WORDS), conclusions.of_run(run(points, words=WORDS)))
    assert said.sentence == "At 400 loans/s four (listening) kept up in all 5 tries, two (listening) in none."
    assert said.winner is not None
    assert said.winner.mesh == "four"
    assert said.other_side.startswith(
        "Four (listening) loses elsewhere: two (listening) completed loans 1.96 to 2 times as fast"
    )
    assert "Two (listening) beside four (listening)" in page
    assert "| criterion | two | four | ratio |" in summary, "the first that was named comes first"
    assert "| Load held, loans/s | 100 to 400 | at least 400 |" in summary
    assert "two better, 1.96 to 2 times **◀ four loses**" in summary
    assert "asking" not in summary
    assert "| Granted | 62 (60–64) | 62 (60–64) |" in summary


def test_of_three_meshes_the_others_are_held_against_the_first() -> None:
    points = [point("one", 0, 100, 10), point("slow", 1, 100, 40, asks=True), point("fast", 2, 100, 5)]
    found = conclusions.of_run(run(points, words=WORDS))
    pairs = {(each.way.mesh, each.other.mesh) for each in found.differences if isinstance(each, conclusions.Less)}
    assert pairs == {("one", "slow"), ("fast", "one")}, "and not with each other"
    _, summary = texts(points)
    assert "at 100 loans/s, fast" in summary, "the best of the others"
    assert "| outcome | one | slow | fast |" in summary


@pytest.mark.parametrize("both", [True, False])
def test_a_view_that_lags_is_a_loss_only_beside_a_mesh_without_one(both: bool) -> None:
    points = [point("one", 0, 100, 10, views=True), point("two", 1, 100, 20, views=both)]
    _, summary = texts(points)
    assert ("its views were 1 ms behind (p99)" in summary) is not both
    assert (f"| Age of what reached a view, p99, ms | 1 | {'1 | – |' if both else 'no view | two better'}") in summary


def test_what_was_measured_on_a_virtual_clock_is_labelled_and_says_nothing_of_a_machine() -> None:
    points = [point("one", 0, 100, 10), point("two", 1, 100, 20)]
    made = run(points, name="compare", words=WORDS, runtime="simulated", config={})
    page, summary = unescape(report.render(made)), report.summary(made)
    for text in (page, summary):
        assert "simulated, on a virtual clock" in text
        assert "other programs" not in text
        assert "speed, CPU and memory of any machine" in text
    assert "simulated" not in texts(points)[1]

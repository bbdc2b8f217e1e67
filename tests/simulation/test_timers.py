"""Given timers, when their owner is idle, away or its clock is set, then each happens once, and never too early."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from eventmesh.runtime.faults import ClockJump
from tests.simulation.timer_story import PATIENCE_S, SECOND, Library, away_longer_than_the_delay, patient


@pytest.fixture(autouse=True)
def _patient() -> Iterator[None]:
    with patient():
        yield


def test_a_timer_happens_without_any_traffic() -> None:
    it = Library()
    it.simulation.end_process(it.shelf)
    it.ask()
    it.wait(PATIENCE_S - 1)
    assert it.written()["LoanDeclined"] == 0
    it.wait(2)
    assert it.written()["LoanDeclined"] == 6
    assert min(it.times("LoanDeclined")) - max(it.times("LoanRequested")) >= PATIENCE_S * SECOND - 1_000
    it.simulation.start_process(it.shelf)
    assert it.audit().checks["D11"].verdict == "valid"


def test_what_came_in_time_cancels_it() -> None:
    it = Library()
    it.ask()
    it.simulation.drain()
    it.wait(2 * PATIENCE_S)
    assert (it.written()["LoanGranted"], it.written()["LoanDeclined"]) == (6, 0)
    found = it.audit()
    assert (found.verdict, found.checks["D11"].examined) == ("valid", 12)


def test_an_answer_that_lies_unread_wins_over_an_expiry() -> None:
    it = Library()
    away_longer_than_the_delay(it)
    it.simulation.drain()
    assert (it.written()["LoanGranted"], it.written()["LoanDeclined"]) == (6, 0)
    assert it.audit().verdict == "valid"


def test_a_timer_that_was_due_while_its_owner_was_away_happens_when_it_is_back() -> None:
    it = Library()
    it.simulation.end_process(it.shelf)
    away_longer_than_the_delay(it)
    it.wait(1)
    assert it.written()["LoanDeclined"] == 6
    it.wait(PATIENCE_S)
    assert it.written()["LoanDeclined"] == 6, "once"


@pytest.mark.parametrize("by_s", [-300, -2, 300])
def test_a_clock_that_is_set_makes_no_timer_happen_before_its_time_by_that_clock(by_s: int) -> None:
    it = Library()
    it.simulation.end_process(it.shelf)
    it.ask()
    it.wait(1)
    it.simulation.strike(ClockJump(process="desk/0", by_ms=by_s * 1_000, lasts_s=1_000.0))
    it.wait(PATIENCE_S + 1)
    it.wait(max(0.0, -by_s))
    assert it.written()["LoanDeclined"] == 6
    it.simulation.start_process(it.shelf)
    assert it.audit().checks["D11"].verdict == "valid"


def test_a_run_ends_with_its_open_timers_named() -> None:
    it = Library()
    it.simulation.end_process(it.shelf)
    it.ask()
    it.simulation.run_until(lambda: it.written()["LoanRequested"] == 6, seconds=5)
    it.simulation.start_process(it.shelf)
    it.simulation.end_process(it.desk)
    it.simulation.start_process(it.desk)
    assert it.desk.instance is not None
    it.simulation.run_until(lambda: bool(it.desk.instance and it.desk.instance.status()["timers"]), seconds=5)
    assert it.desk.instance.status()["timers"].keys() == {"LoanDeclined"}

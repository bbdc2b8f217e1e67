"""Given rows on their way to a reactor, then more than its limit wait outside, or are refused."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from eventmesh.runtime.process.intake import Intake

SOON_S = 10.0


def brings(intake: Intake, *arrivals: int) -> tuple[threading.Thread, list[int]]:
    """A thread that brings arrivals one after the other, and those that were let in."""
    entered: list[int] = []

    def bring() -> None:
        for rows in arrivals:
            intake.wait_and_enter(rows)
            entered.append(rows)

    thread = threading.Thread(target=bring, daemon=True)
    thread.start()
    return thread, entered


def held_up(thread: threading.Thread) -> bool:
    thread.join(0.2)
    return thread.is_alive()


def test_who_brings_too_much_waits_until_it_was_taken_out() -> None:
    intake = Intake(100)
    thread, entered = brings(intake, 60, 60, 60)
    assert held_up(thread), "a wall that stands open would be passed at once"
    assert entered == [60, 60]
    assert intake.waiting == intake.most == 120, "the limit, and one arrival"
    intake.leave(60)
    thread.join(SOON_S)
    assert entered == [60, 60, 60]


@pytest.mark.parametrize("make_room", [lambda intake: intake.queued(0), lambda intake: intake.close()])
def test_what_was_taken_out_and_not_decided_waits_still(make_room: Callable[[Intake], None]) -> None:
    intake = Intake(100)
    intake.wait_and_enter(150)
    intake.leave(150, queued=150)
    thread, entered = brings(intake, 1)
    assert held_up(thread)
    make_room(intake)
    thread.join(SOON_S)
    assert entered == [1]


def test_who_asks_is_refused_instead() -> None:
    intake = Intake(100)
    assert [intake.enter(60) for _ in range(3)] == [True, True, False]
    intake.leave(60)
    assert intake.enter(60)
    assert intake.most == 120

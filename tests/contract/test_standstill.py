"""Given inputs that an outcome hangs on, when they were refused, then the run ends and says which; later runs go on."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from eventmesh.runtime import running
from eventmesh.runtime.caller import GIVEN_UP
from eventmesh.runtime.faults import Stall
from eventmesh.runtime.running import STANDSTILL_S, Standstill, measure_load, seed_with
from eventmesh.runtime.simulated.running import SimulatedMesh
from eventmesh.workload import Requests
from tests.contract.conftest import DescribeMesh, Runtime, after
from tests.tiny.lending import Borrow, Buy

BOOKS = [Requests.of([Buy(f"book-{n}", 9) for n in range(4)])]
#: Nobody borrows a book for no days: the shelf has no rule for that, and the desk waits for its word.
REFUSED = (3, 7, 8)
LOANS = [Borrow(f"loan-{n}", f"book-{n % 4}", 0 if n in REFUSED else 7) for n in range(12)]
LATER = [Borrow(f"later-{n}", "book-1", 7) for n in range(4)]


def test_what_waits_in_vain_ends_without_an_outcome(
    runtime: Runtime, library: DescribeMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "STANDSTILL_S", 2.0)
    run = runtime(library("events"), after(BOOKS, LOANS))
    told = run.callers("Borrow")
    assert [row["request"] for row in told if row["outcome"] is None] == list(REFUSED)
    assert {(row["reason"], row["completed_at"]) for row in told if row["outcome"] is None} == {(GIVEN_UP, None)}
    assert {row["outcome"] for row in told} == {"granted", None}
    assert len(run.facts("copies", "InputRefused")) == len(REFUSED)


def test_who_hears_a_refusal_answers_for_it(runtime: Runtime, library: DescribeMesh) -> None:
    run = runtime(library("hearing"), after(BOOKS, LOANS))
    declined = {row["request"]: row["reason"] for row in run.callers("Borrow") if row["outcome"] == "declined"}
    assert list(declined) == list(REFUSED)
    refused = run.facts("copies", "InputRefused")
    assert sorted(declined.values()) == sorted(f"{fact['position']}: {fact['reason']}" for fact in refused)
    assert all("nobody borrows book-3 for 0 days" in reason for reason in (declined[3], declined[7]))
    assert {fact["correlationid"] for fact in run.facts("loans", "LoanDeclined")} == {"loan-3", "loan-7", "loan-8"}


def test_the_next_load_has_its_outcomes_and_the_audit_says_what_was_refused(library: DescribeMesh) -> None:
    mesh = SimulatedMesh(library("events"), seed=2)
    seed_with(mesh, BOOKS)
    first = measure_load(mesh, "first", after([], LOANS).load)
    then = mesh.simulation.world.now
    second = measure_load(mesh, "second", after([], LATER).load)
    assert first.callers["outcome"].to_pylist().count(None) == len(REFUSED)
    assert set(second.callers["outcome"].to_pylist()) == {"granted"}
    assert mesh.simulation.world.now - then < STANDSTILL_S * 1e6, "nobody waited for the first ones again"


def test_a_load_that_a_fault_holds_up_is_waited_for(library: DescribeMesh) -> None:
    """Its end is far beyond a standstill; the mesh has nothing to do meanwhile."""
    mesh = SimulatedMesh(library("events"), seed=2)
    seed_with(mesh, BOOKS)
    mesh.strike(Stall(source="*", target="desk", lasts_s=6 * STANDSTILL_S))
    measured = measure_load(mesh, "load", after([], LATER).load)
    assert set(measured.callers["outcome"].to_pylist()) == {"granted"}
    assert measured.seconds > 5 * STANDSTILL_S


class Watched:
    """What a standstill looks at, moment by moment."""

    def __init__(self) -> None:
        self.now_s, self.at_rest, self.end = 0.0, True, 7
        self.standstill = Standstill(lambda: self.now_s, lambda: self.at_rest, self.ends)

    def ends(self) -> Mapping[str, int]:
        return {"loans/0": self.end}

    def seconds(self, count: float, waiting: int = 1) -> bool:
        """So many seconds later, in steps of one."""
        until, reached = self.now_s + count, False
        while self.now_s < until:
            self.now_s += 1
            reached = self.standstill.is_reached(5, waiting) or reached
        return reached


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_nothing_moves_for_two_spans(watched: Watched) -> None:
    assert not watched.seconds(2 * STANDSTILL_S)
    assert watched.seconds(2)


def test_whatever_moves_or_is_to_be_done_begins_it_anew(watched: Watched) -> None:
    for _ in range(5):
        assert not watched.seconds(2 * STANDSTILL_S - 2, waiting=1)
        assert not watched.seconds(2, waiting=2), "another has come"
    watched = Watched()
    for _ in range(5):
        watched.end += 1
        assert not watched.seconds(STANDSTILL_S), "something is written"
    watched = Watched()
    watched.at_rest = False
    assert not watched.seconds(20 * STANDSTILL_S), "somebody has something to do"
    watched = Watched()
    assert not watched.seconds(20 * STANDSTILL_S, waiting=0), "nobody waits"

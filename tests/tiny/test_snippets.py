"""Given the code that docs/application.md shows, then it runs as it stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eventmesh.lab.simulated_run import run_simulated
from eventmesh.runtime.simulated.simulation import Simulation
from eventmesh.service import Inputs, Outcome, Talk, Trigger
from eventmesh.workload import Requests, Workload
from tests.contract.conftest import ROOT
from tests.tidy.test_formats import snippets
from tests.tiny import WIRINGS, lending
from tests.tiny.test_library import library

#: Those of the section on views stand between; tests/tidy/test_view_examples.py tries them.
DECLARATIONS, RULES, *_, TIME = snippets((ROOT / "docs" / "application.md").read_text())


def run(snippet: str, known: dict[str, Any]) -> dict[str, Any]:
    """What the snippet defines, given what the page has shown before."""
    names = {"__name__": "a_page", **known}
    exec(compile(snippet, "docs/application.md", "exec"), names)
    return names


def test_the_declarations_declare() -> None:
    declared = run(DECLARATIONS, {})["DECLARED"]
    assert (declared.kinds(), list(declared.messages)) == ({"loans": ["LoanGranted"]}, ["Borrow", "CopiesOf"])


def outcomes(rule: Callable[..., Any], wiring: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What readers are told by a rule of the page that takes the place of the desk's."""
    desk = WIRINGS[wiring]["desk"]
    rules = Trigger({**desk.rules, lending.Borrow: rule}, sends=desk.sends)
    monkeypatch.setitem(WIRINGS, wiring, {**WIRINGS[wiring], "desk": rules})
    loans = [lending.Borrow(f"loan-{number}", "Faust", 3) for number in range(4)]
    asked = Workload([Requests.of([lending.Buy("Faust", 9)])], Requests.of(loans))
    callers = run_simulated(library(wiring), asked, seed=1).history.callers
    return set(callers["outcome"].to_pylist())


def lent(*, shelf_is_away: bool) -> list[str | None]:
    """What a reader is told, in at most a thousand seconds."""
    simulation = Simulation(library("events"), seed=1)
    simulation.call("seeding", Requests.of([lending.Buy("Faust", 1)]))
    simulation.drain()
    if shelf_is_away:
        simulation.end_process(simulation.hosts["shelf", 0])
    reader = simulation.call("load", Requests.of([lending.Borrow("loan-1", "Faust", 3)]))
    simulation.run_until(lambda: reader.caller is not None and reader.caller.done, seconds=1_000)
    assert reader.caller is not None
    return reader.caller.outcomes


def test_who_hears_nothing_in_time_is_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = run(TIME, {**vars(lending), "Inputs": Inputs, "Outcome": Outcome})["RULES"]
    monkeypatch.setitem(WIRINGS, "events", {**WIRINGS["events"], "desk": Trigger(rules)})
    assert [lent(shelf_is_away=away) for away in (False, True)] == [["granted"], ["declined"]]


def test_the_rules_decide_and_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = run(RULES, {**vars(lending), "Inputs": Inputs, "Outcome": Outcome, "Talk": Talk})
    assert outcomes(rules["write_down"], "events", monkeypatch) == {"accepted"}
    assert outcomes(rules["see_through"], "asking", monkeypatch) == {"granted"}

"""Given a rule that waits, when it does what no conversation may, then it is told on record, and all else goes on."""

from __future__ import annotations

import pytest

from tests.contract.conftest import ROOT, Finished, Runtime, after, described, simulated
from tests.mistakes.kitchen import Serve

MESH = ROOT / "tests" / "mistakes" / "mesh.yaml"


def served(runtime: Runtime, wiring: str, *dishes: tuple[str, str], **services: dict[str, list[str]]) -> Finished:
    """These dishes, each with its mistake."""
    return runtime(described(MESH, wiring, services), after([], [Serve(*dish) for dish in dishes]))


def told(run: Finished) -> list[str]:
    """The outcome of each dish, or why it was refused."""
    return [row["reason"] if row["outcome"] == "refused" else row["outcome"] for row in run.callers("Serve")]


def test_who_is_not_asked_by_the_mesh_hears_nothing(runtime: Runtime) -> None:
    run = served(runtime, "silent", ("tea", ""), waiter={"asks": []})
    partition = run.facts("dishes")[0]["partition"]
    assert told(run) == [
        f"refused: BoundaryCrossed: dishes/{partition} may not send LookAt to cook: by the mesh file it may ask "
        "waiter. Add cook to the asks of its service, within one context"
    ]
    assert [fact["type"] for fact in run.facts("dishes")] == ["InputRefused"]
    assert run.facts("meals") == []


def test_who_is_asked_by_the_mesh_hears(request: pytest.FixtureRequest) -> None:
    run = served(simulated(request), "silent", ("tea", ""), waiter={"asks": ["cook"]})
    assert told(run) == ["served"]
    assert run.audit().checks["D8"].verdict == "valid"


def test_commands_of_one_name_are_told_apart(runtime: Runtime) -> None:
    run = served(runtime, "in two", ("tea", "named"), ("soup", ""), ("roast", "waits for itself"))
    assert told(run) == [
        "served",
        "refused: TypeError: one conversation sends Cook twice: name each of them, command(..., part='tip')",
        "refused: RuntimeError: Serve roast would wait for its own end: it joins Serve roast",
    ]
    assert sorted(fact["dish"] for fact in run.facts("meals", "MealCooked")) == [
        "roast, food", "soup, food", "tea, dessert", "tea, food",
    ]  # fmt: skip
    assert len(run.facts("dishes", "InputRefused")) == 2


def test_what_a_fact_began_and_nobody_answers_is_on_record(runtime: Runtime) -> None:
    """Nobody would ask again: it would be gone without a word."""
    run = served(runtime, "listening", ("odd soup", ""), ("tea", ""), cook={"listens": ["dishes"], "asks": ["waiter"]})
    assert told(run) == ["served", "served"]
    (refused,) = run.facts("meals", "InputRefused")
    assert "DidNotHappen: dishes/" in refused["reason"]
    assert "cannot answer Recall: DoesNotFit: the answer to Recall: hot is 'yes'" in refused["reason"]
    (odd,) = [fact for fact in run.facts("dishes", "DishServed") if fact["dish"] == "odd soup"]
    assert refused["position"] == f"dishes/{odd['partition']}/{odd['offset']}"
    assert [fact["dish"] for fact in run.facts("meals", "MealCooked")] == ["tea"]

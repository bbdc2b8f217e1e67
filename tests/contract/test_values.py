"""Given a rule that makes a value which its column does not take, then that input is refused on record, and no other.

By the same words on both runtimes; no process ends, and what is decided is what is written.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.conftest import ROOT, Finished, Runtime, after, described, simulated
from tests.mistakes.kitchen import COLOUR, MISANSWERS, MISFITS, NO_COLOUR, NO_FACTS, WRITES, Serve

REFUSED = "refused: DoesNotFit: "


def served(runtime: Runtime, wiring: str, mistakes: list[str], last: str = "") -> Finished:
    """One dish with each mistake, and one without beside it; then one more."""
    dishes = [Serve(f"{mistake or 'right'} {number}", mistake) for number, mistake in enumerate(mistakes)]
    right = [Serve(f"right {number} and {len(mistakes)}", "") for number in range(len(mistakes))]
    both = [dish for pair in zip(dishes, right, strict=True) for dish in pair]
    mesh = described(ROOT / "tests" / "mistakes" / "mesh.yaml", wiring, {})
    return runtime(mesh, after([], both, [Serve("the last", last)]))


def told(run: Finished) -> tuple[list[str], list[str]]:
    """What was said of the dishes with a mistake, and the outcomes of all others."""
    callers = run.callers("Serve")
    return [row["reason"] for row in callers[:-1:2]], [row["outcome"] for row in (*callers[1:-1:2], callers[-1])]


def test_what_does_not_fit_is_refused_where_it_is_made(runtime: Runtime) -> None:
    expected = {mistake: f"{REFUSED}DishServed: {what}" for mistake, (_, what) in MISFITS.items()}
    expected |= {mistake: f"{REFUSED}the answer to Serve: {what}" for mistake, (_, what) in MISANSWERS.items()}
    expected |= dict.fromkeys((COLOUR, f"answer: {COLOUR}"), f"refused: {NO_COLOUR}")
    expected |= {mistake: what for mistake, (_, what) in NO_FACTS.items()}
    run = served(runtime, "events", list(expected), WRITES)
    said, others = told(run)
    for mistake, reason in zip(expected, said, strict=True):
        assert expected[mistake] in reason, mistake
    assert set(others) == {"served"}
    refused = run.facts("dishes", "InputRefused")
    assert sorted(fact["reason"] for fact in refused) == sorted(reason.removeprefix("refused: ") for reason in said)
    assert len(run.facts("dishes", "DishServed")) == len(others), "nothing of what was refused"
    assert {fact["note"] for fact in run.facts("dishes", "DishServed")} == {"grüner Tee"}
    told_of = {name: check for name, check in run.audit().checks.items() if check.verdict == "invalid"}
    assert list(told_of) == ["D7", "D10"], "of what was refused, and of the rule that writes into the state"
    assert len(told_of["D10"].examples) == 1
    assert "it is not what its facts below offset" in told_of["D10"].examples[0]


#: Where a conversation makes a mistake, and what its caller is told.
IN_CONVERSATIONS = {
    "question/": f"{REFUSED}str is no command or query of the application.",
    "command/too much": f"{REFUSED}Cook: {MISFITS['too much'][1]}",
    "fact/too much": f"{REFUSED}DishServed: {MISFITS['too much'][1]}",
    "reply/answer: a word": f"{REFUSED}the answer to Serve: {MISANSWERS['answer: a word'][1]}",
    "answer/answer: another column": f"refused: {NO_COLOUR}",
    "another answer/": f"{REFUSED}the answer to Serve is a Serve, expected a Told",
    # The cook made it: the waiter has a definite no.
    "look/answer: a word": "meals/0 cannot answer LookAt: DoesNotFit: the answer to LookAt: "
    + MISANSWERS["answer: a word"][1],
    "cook/answer: a word": f"{REFUSED}the answer to Cook: {MISANSWERS['answer: a word'][1]}",
}


def test_so_is_what_a_conversation_makes(runtime: Runtime) -> None:
    run = served(runtime, "asking", list(IN_CONVERSATIONS))
    said, others = told(run)
    assert [reason[: len(expected)] for reason, expected in zip(said, IN_CONVERSATIONS.values(), strict=True)] == list(
        IN_CONVERSATIONS.values()
    )
    assert set(others) == {"served"}
    on_record: list[Any] = [fact["reason"] for fact in run.facts("dishes", "InputRefused")]
    assert len(on_record) == sum(not where.startswith(("look/", "cook/")) for where in IN_CONVERSATIONS)
    assert len(run.facts("meals", "InputRefused")) == 1


@pytest.mark.parametrize("wiring", ["events", "asking"])
def test_what_fits_is_served(request: pytest.FixtureRequest, wiring: str) -> None:
    run = served(simulated(request), wiring, [""])
    assert {row["outcome"] for row in run.callers("Serve")} == {"served"}
    assert run.audit().verdict == "valid"

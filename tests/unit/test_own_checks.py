"""Given a check of one's own, then one that examined nothing says nothing, unless it says why there is nothing."""

from __future__ import annotations

import pytest

from eventmesh.audit.audit import judge
from eventmesh.audit.evidence import Check, Evidence
from eventmesh.audit.verdict import CheckResult, Findings
from tests.unit.audit_story import LINES, a_day


def looking_at(*, facts: int, has_none: str = "", wrong: bool = False) -> Check:
    """A check of so many facts."""

    def check(evidence: Evidence) -> CheckResult:
        findings = Findings("X1", "every pizza is round", examined=facts)
        if has_none:
            findings.has_none(has_none)
        if wrong:
            findings.flag("a pizza with corners")
        return findings.result()

    return check


@pytest.mark.parametrize(
    ("check", "verdict", "examples"),
    [
        (looking_at(facts=0), "unknown", ["missing: it has examined nothing, so it says nothing"]),
        (looking_at(facts=1), "valid", []),
        (looking_at(facts=0, has_none="nobody ordered"), "valid", ["nothing to examine: nobody ordered"]),
        (looking_at(facts=0, wrong=True), "invalid", ["a pizza with corners"]),
        (looking_at(facts=0, wrong=True, has_none="nobody ordered one"), "invalid", ["a pizza with corners"]),
    ],
)
def test_what_has_examined_nothing_is_unknown(check: Check, verdict: str, examples: list[str]) -> None:
    evidence = a_day().evidence()
    audit = judge(evidence, {"X1": check}, only={"X1", "A1"})
    assert (audit.checks["X1"].verdict, audit.checks["X1"].examples) == (verdict, examples)
    assert audit.verdict == verdict


def test_of_refusals_the_reason_is_told_first_and_in_full() -> None:
    """D7 has room for five examples: what the rule said comes before what follows from it."""
    story = a_day()
    for number in range(6):
        request = story.request(f"late{number}", LINES)
        assert request is not None
        story.refuse(request, f"ZeroDivisionError: order {number} has no lines to divide by")
        story.say("orders", "OrderRejected", request, order_id=f"late{number}")
    found = story.check("D7")
    assert found.violations == 12
    assert [example.partition("a rule broke: ")[2] for example in found.examples] == [
        f"ZeroDivisionError: order {number} has no lines to divide by" for number in range(5)
    ]

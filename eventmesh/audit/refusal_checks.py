"""D7: poison is a recorded fact, and nothing but poison becomes one (rule 16).

A rule that has no answer to an input says so by a ``ValueError``. Any other exception, a failed assertion
above all, is a mistake of our own, whatever was sent; and where nothing unanswerable was sent, so is the
``ValueError``. What is larger than its topic allows is refused by size, and broke no rule; nor did what came under the
name of another request.
"""

from __future__ import annotations

import numpy as np

from eventmesh.audit.evidence import ABSENT, Check, Evidence, Facts, Integers
from eventmesh.audit.progress_checks import NOWHERE, causes
from eventmesh.audit.verdict import CheckResult, Findings
from eventmesh.errors import KEY_REUSED
from eventmesh.messages import REFUSED

_ON_PURPOSE = "ValueError: "
_TOO_LARGE = "max.message.bytes is "


def refusals_are_right(evidence: Evidence) -> CheckResult:
    """D7: what was refused is there and had no other effect; and it was poison, not a rule that broke."""
    findings = Findings("D7", "a refused input is there, had no effect, and broke no rule of our own")
    for topic in evidence.topics:
        facts = evidence.facts(topic)
        findings.examined += len(facts)
        rows = np.flatnonzero(facts.of(REFUSED))
        if rows.size:
            _rules_broke(evidence, facts, rows, findings)
            _names_its_input(evidence, facts, rows, findings)
            _decided_as_well(facts, rows, findings)
    return findings.result()


def refused_inputs(evidence: Evidence) -> dict[str, tuple[int, str]]:
    """How many inputs each service has refused on record, and the reason of the first; those that refused any."""
    found = {}
    for topic in evidence.topics.values():
        facts = evidence.facts(topic.name)
        rows = np.flatnonzero(facts.of(REFUSED))
        if rows.size:
            first = int(rows[np.argmin(facts.time[rows])])
            found[topic.owner] = (int(rows.size), f"{facts.say(first)}: {facts.column('reason')[first].as_py()}")
    return found


def _names_its_input(evidence: Evidence, facts: Facts, rows: Integers, findings: Findings) -> None:
    """The position refused is that of the cause, and a fact stands there; a command has none."""
    cause, positions = causes(evidence, facts.topic.name), facts.column("position")
    for row in map(int, rows):
        code, named, wanted = int(cause.codes[row]), positions[row].as_py(), ""
        if cause.topic[code] != NOWHERE:
            wanted = cause.texts[code].as_py()
            inputs = evidence.facts(cause.names[cause.topic[code]])
            if inputs.at(cause.partition[[code]], cause.offset[[code]])[0] == ABSENT:
                findings.flag(f"{facts.say(row)}: there is no fact at {wanted}")
        if named != wanted:
            findings.flag(f"{facts.say(row)}: refuses {named!r}, its cause is {wanted!r}")


def _decided_as_well(facts: Facts, rows: Integers, findings: Findings) -> None:
    """Each partition decides for itself: what another one made of the same cause is no contradiction."""
    codes, partition = facts.causes[0], facts.partition
    refused = set(zip(partition[rows].tolist(), codes[rows].tolist(), strict=True))
    others = np.flatnonzero(np.isin(codes, codes[rows]) & ~facts.of(REFUSED))
    for row in map(int, others):
        if (int(partition[row]), int(codes[row])) in refused:
            findings.flag(f"{facts.say(row)}: its cause was refused as well")


def _rules_broke(evidence: Evidence, facts: Facts, rows: Integers, findings: Findings) -> None:
    clean = evidence.history.poison is False
    reasons = facts.column("reason")
    for row in map(int, rows):
        reason = reasons[row].as_py() or "no reason"
        by_a_rule = _TOO_LARGE in reason or reason.startswith(KEY_REUSED)
        if not by_a_rule and (clean or not reason.startswith(_ON_PURPOSE)):
            findings.flag(f"{facts.say(row)}: {'no poison was sent, and ' if clean else ''}a rule broke: {reason}")


CHECKS: dict[str, Check] = {"D7": refusals_are_right}

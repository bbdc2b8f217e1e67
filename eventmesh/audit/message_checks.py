"""D8 and D9: who sent what to whom, and in which story what it led to was written down."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from eventmesh.audit.evidence import ABSENT, Check, Evidence, Facts, Integers
from eventmesh.audit.progress_checks import NOWHERE, Causes, causes
from eventmesh.audit.verdict import CheckResult, Findings

#: The id of a command that a service has sent: its topic and partition, then the command's name.
_SENT_BY_A_SERVICE = r"^(?P<topic>[A-Za-z0-9._-]+)/(?P<partition>[0-9]+):(?P<command>[^:]+):"


def boundaries_hold(evidence: Evidence) -> CheckResult:
    """D8: no command that a fact follows from was sent by a service that does not ask its receiver.

    Queries leave no trace in the log: they are refused when they are sent.
    """
    findings = Findings("D8", "nobody sent what asks and contexts forbid")
    owners = {topic.name: topic.owner for topic in evidence.topics.values()}
    for topic in evidence.topics.values():
        facts = evidence.facts(topic.name)
        codes, ids = facts.coded("causationid")
        parts = pc.extract_regex(ids, _SENT_BY_A_SERVICE)
        senders = [owners.get(name) for name in pc.struct_field(parts, "topic").to_pylist()]
        commands = pc.struct_field(parts, "command").to_pylist()
        asked_by = evidence.mesh.asked_by
        may = [sender is None or topic.owner in asked_by(sender) for sender in senders]
        findings.examined += len(senders)
        _, first = np.unique(codes, return_index=True)  # of what follows from one command, the first fact is told
        for row in sorted(map(int, first)):
            code = codes[row]
            if code >= 0 and not may[code]:
                sent = f"{senders[code]} sent {commands[code]} to {topic.owner}, and does not ask it by the mesh file"
                findings.flag(f"{facts.say(row)}: {sent}")
    return findings.result()


def stories_go_on(evidence: Evidence) -> CheckResult:
    """D9: a fact has the correlation id of the fact that caused it."""
    findings = Findings("D9", "a fact belongs to the story of what caused it")
    stories, names = evidence.encoded("correlationid", list(evidence.topics))
    for topic in evidence.topics:
        facts, cause = evidence.facts(topic), causes(evidence, topic)
        of_cause = _stories_of(evidence, cause, stories)[cause.codes]
        known = of_cause != NOWHERE
        findings.examined += int(np.count_nonzero(known))
        wrong = known & (of_cause != stories[topic])
        words = [*names.to_pylist(), None]
        findings.flag_where(wrong, lambda i: _said(facts, i, words, stories[topic], of_cause))  # noqa: B023
    return findings.result()


def _said(facts: Facts, row: int, names: list[str | None], own: Integers, cause: Integers) -> str:
    return f"{facts.say(row)}: is told in the story {names[own[row]]!r}, its cause in {names[cause[row]]!r}"


def _stories_of(evidence: Evidence, cause: Causes, stories: dict[str, Integers]) -> Integers:
    """The code of each cause's correlation id; :data:`NOWHERE` where no fact stands."""
    found = np.full(len(cause.texts), NOWHERE, np.int64)
    for number, name in enumerate(cause.names):
        inputs, wanted = evidence.facts(name), np.flatnonzero(cause.topic == number)
        place = inputs.at(cause.partition[wanted], cause.offset[wanted])
        hit = place != ABSENT
        found[wanted[hit]] = stories[name][place[hit]]
    return found


CHECKS: dict[str, Check] = {"D8": boundaries_hold, "D9": stories_go_on}

"""What holds in any mesh whatever its business: one writer per topic (E5)."""

from __future__ import annotations

import numpy as np

from eventmesh.audit.evidence import Check, Evidence
from eventmesh.audit.verdict import CheckResult, Findings


def single_writer(evidence: Evidence) -> CheckResult:
    """E5: every fact is by its topic's owner, at one incarnation per epoch."""
    findings = Findings("E5", "every fact by its topic's owner, at one epoch at a time")
    for log in evidence.all_partitions():
        owner, incarnations = log.topic.owner, dict[int, str]()
        for header in log.headers:
            if header.writer != owner:
                findings.flag(f"{log.name}@{header.base}: {header.writer} wrote what belongs to {owner}")
            known = incarnations.setdefault(header.epoch, header.incarnation)
            if known != header.incarnation:
                findings.flag(f"{log.name}@{header.base}: {known} and {header.incarnation} in one epoch {header.epoch}")
    for name, topic in evidence.topics.items():
        facts = evidence.facts(name)
        findings.examined += len(facts)
        codes, sources = facts.coded("source")
        foreign = np.array([source != topic.owner for source in sources.to_pylist()], bool)
        findings.flag_where(foreign[codes], lambda i, f=facts, o=topic.owner: f"{f.say(i)}: the source is not {o}")  # type: ignore[misc]
    return findings.result()


CHECKS: dict[str, Check] = {"E5": single_writer}

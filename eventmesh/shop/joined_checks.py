"""E10 and E11."""
from __future__ import annotations
from eventmesh.lab.evidence import Evidence
from eventmesh.lab.verdict import CheckResult, Findings


def joined_values(evidence: Evidence) -> CheckResult:
    return Findings("E11", "x").result()

def wrong_decisions(evidence: Evidence) -> CheckResult:
    return Findings("E10", "x").result()

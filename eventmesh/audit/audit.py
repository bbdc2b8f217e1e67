"""The audit: reads the log and the history of a run, off-line, and says whether the run kept its promises.

The checks of any mesh (groups A and D, E5 and E8) stand here; those of the business are the application's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import closing

from eventmesh.application import optional
from eventmesh.audit import (
    log_checks,
    mesh_checks,
    message_checks,
    progress_checks,
    refusal_checks,
    state_checks,
    timer_checks,
    view_checks,
)
from eventmesh.audit.evidence import Check, Evidence
from eventmesh.audit.verdict import Audit, CheckResult, unknown
from eventmesh.errors import EventmeshError
from eventmesh.history import History
from eventmesh.log.store import LogReader
from eventmesh.mesh import Mesh
from eventmesh.progress import position_name

__all__ = ["FRAMEWORK_CHECKS", "Audit", "Check", "CheckResult", "Evidence", "audit", "judge"]

FRAMEWORK_CHECKS: dict[str, Check] = {
    **log_checks.CHECKS,
    **progress_checks.CHECKS,
    **refusal_checks.CHECKS,
    **message_checks.CHECKS,
    **state_checks.CHECKS,
    **timer_checks.CHECKS,
    **mesh_checks.CHECKS,
    **view_checks.CHECKS,
}


def audit(
    mesh: Mesh,
    reader: LogReader,
    history: History,
    checks: Mapping[str, Check] | None = None,
    *,
    only: Collection[str] | None = None,
) -> Audit:
    """:func:`judge` what a run left behind, read for this audit alone."""
    with closing(Evidence(mesh, reader, history)) as evidence:
        return judge(evidence, checks, only=only)


def judge(
    evidence: Evidence, checks: Mapping[str, Check] | None = None, *, only: Collection[str] | None = None
) -> Audit:
    """Carry out the framework's checks and the application's own, in the order of their ids.

    ``checks`` replaces the application's ``CHECKS``; ``only`` names the checks to carry out (all, if
    None). A check that cannot read what it needs is unknown, and says why; it never raises for that. So are
    all checks but those of group A where retention has deleted the beginning of a partition, and a check of the
    application that has examined nothing, unless it says that there is rightly nothing. A mesh may well have nothing
    for one of the framework's: no view, for E8.
    """
    if checks is None:
        checks = optional(evidence.mesh.application, "CHECKS")
    chosen = {**FRAMEWORK_CHECKS, **checks}
    names = sorted(chosen, key=lambda name: (name[:1], len(name), name))
    return Audit({name: _carry_out(name, chosen[name], evidence) for name in names if only is None or name in only})


def _carry_out(name: str, check: Check, evidence: Evidence) -> CheckResult:
    title = (check.__doc__ or name).strip().partition("\n")[0]
    try:
        if name not in log_checks.CHECKS and (deleted := evidence.made("deleted", _deleted)):
            return unknown(name, title, deleted)
        result = check(evidence)
        if result.verdict == "valid" and not result.examined and not result.examples and name not in FRAMEWORK_CHECKS:
            return unknown(name, result.title, ["it has examined nothing, so it says nothing"])
        return result
    except EventmeshError as error:
        return unknown(name, title, [f"the log cannot be read: {error}"])


def _deleted(evidence: Evidence) -> list[str]:
    """What retention took: only group A looks at nothing but what is left."""
    partitions = [(topic, number) for topic, each in evidence.topics.items() for number in range(each.partitions)]
    starts = [(position_name(*partition), evidence.reader.start(*partition)) for partition in partitions]
    return [f"offsets [0, {start}) of {name}, which retention deleted" for name, start in starts if start > 0]

"""D11: a timer happens once, not before its time, unless something came before; and it does happen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from eventmesh.audit.evidence import Check, Evidence, Facts, PartitionLog
from eventmesh.audit.verdict import CheckResult, Findings, Mask
from eventmesh.messages import OWN_FACTS

#: How the ids of what timers write begin.
_OF_A_TIMER = "timer:"
Key = tuple[str, ...]
Timer = Mapping[str, Any]  # as it stands in a batch's vector


def written_by_timers(facts: Facts) -> Mask:
    """Which facts timers wrote: their ids name what set the timer, and D11 holds them against it."""
    written: Mask = pc.starts_with(facts.column("id"), _OF_A_TIMER).to_numpy(zero_copy_only=False)
    return written


def timers_are_kept(evidence: Evidence) -> CheckResult:
    """D11: what a timer writes follows from one that was open and due, in its story; none that is due stays open.

    The latter is held where the owner was at rest.
    """
    findings = Findings("D11", "a timer happens once, when it is due, unless it is cancelled before")
    rests = {(dump.service, dump.partition): dump for dump in evidence.history.states}
    for log in evidence.all_partitions():
        left, rest = _happened(log, findings), rests.get((log.topic.owner, log.number))
        if rest is None or rest.end != log.end:
            continue
        for key, timer in left.items():
            if timer["due_at"] < rest.at:
                findings.flag(f"{log.name}: the timer {' '.join(key)} was due and has not happened")
    return findings.result()


def _happened(log: PartitionLog, findings: Findings) -> dict[Key, Timer]:
    """Hold what timers wrote against those that were open; the timers that are open at the end."""
    open_now: dict[Key, Timer] = {}
    written = _written(log)
    for header in log.headers:
        for change in header.progress.get("timers", ()):
            findings.examined += 1
            if "set" in change:
                open_now[change["set"]["kind"], change["set"]["name"]] = change["set"]
            elif "end" in change:
                open_now.pop(tuple(change["end"]), None)
            else:
                key = tuple(change["due"])
                problem = _wrong(open_now.pop(key, None), header.time, written)
                if problem:
                    findings.flag(f"{log.name}@{header.base}: the timer {' '.join(key)} {problem}")
    for identity in written:
        findings.flag(f"{log.name}: {identity} is what a timer wrote that was not open")
    return open_now


def _written(log: PartitionLog) -> dict[str, tuple[str, str | None]]:
    """What timers wrote, by id: type and story. What followed from it has other ids."""
    found = {}
    for piece in log.facts:
        rows = piece.filter(pc.starts_with(piece.column("id"), _OF_A_TIMER))
        for identity, kind, story in zip(*(rows.column(name).to_pylist() for name in _COLUMNS), strict=True):
            found[identity] = (kind, story)
    return found


_COLUMNS = ("id", "type", "correlationid")


def _wrong(timer: Timer | None, time: int, written: dict[str, tuple[str, str | None]]) -> str:
    """What is wrong with a timer that happens in an append of this time."""
    if timer is None:
        return "happens and is not open"
    if time < timer["due_at"]:
        return f"happens {timer['due_at'] - time} us before it is due"
    if timer["id"] not in written:
        return "happens and writes nothing"
    kind, story = written.pop(timer["id"])
    if kind != timer["kind"] and kind not in OWN_FACTS:
        return f"writes {kind}"
    if story != timer.get("story"):
        return f"happens in the story {story!r}, and was set in {timer.get('story')!r}"
    return ""


CHECKS: dict[str, Check] = {"D11": timers_are_kept}

"""What is right after faults, and what is a finding: an audit that is not valid, an error, a deadlock.

Most faults change nothing of what is right: every promise holds, whatever dies and whatever is late. These do:

- a **bit** that rots must be *found*: the run ends with :class:`~eventmesh.errors.CorruptSegment`, which names the
  file, or the audit says that it cannot read it, or the broker of a log that had stopped says that it cannot open it
  again, and all wait. Only where the log has cut or rewritten those bytes all is valid.
- a **machine** that dies at level ``os`` may take facts along that were acknowledged. Then a reader that had seen
  them ends with :class:`~eventmesh.errors.LogTruncated`, a caller may wait for ever for what came of them, and the
  audit may miss them. What is in the log must still be in order (group A of the checks), and services must go on.
  The same holds at level ``fsync`` where a bit rots in the segment that is written to: after the machine's death nobody
  can tell it from a write that was torn, and it is cut with what follows. A reader that had seen more is told that its
  offset is not there (:class:`~eventmesh.errors.OffsetOutOfRange`).
- a **clock** that jumps makes facts older than what they follow from: checks that hold facts against times, which an
  application names in its ``TIMED_CHECKS``, say nothing then.
- **retention** deletes what the audit needs for all checks but those of group A: they are unknown then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from eventmesh.application import optional
from eventmesh.audit import log_checks
from eventmesh.audit.verdict import CheckResult
from eventmesh.errors import CorruptSegment, LogTruncated, OffsetOutOfRange
from eventmesh.lab.fuzz_case import Ran
from eventmesh.runtime.faults import MACHINE, ClockJump, FlippedBit, Kill, LostUnsynced
from eventmesh.runtime.simulated.world import Deadlock

#: The name of the finding that nobody has noticed a bit that rots.
ROT_UNNOTICED = "rot-unnoticed"


@dataclass(frozen=True)
class Finding:
    """What speaks against a run: names of checks, errors or problems, each with a sentence."""

    said: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Its names, sorted."""
        return sorted(self.said)

    def like(self, other: Finding) -> bool:
        """Whether both are, at least in part, of the same thing."""
        return bool(self.said.keys() & other.said.keys())

    def __bool__(self) -> bool:
        return bool(self.said)


def judge(ran: Ran) -> Finding:
    """What speaks against it; nothing where all is right."""
    if ran.error is not None:
        return Finding({} if _right(ran, ran.error) else {type(ran.error).__name__: str(ran.error)})
    return Finding(dict(_in_audit(ran)) | dict(_of_rot(ran)) | dict(_of_who_asked(ran)))


def _right(ran: Ran, error: Exception) -> bool:
    match error:
        case CorruptSegment():
            return error.file in rotten(ran)
        case LogTruncated():
            return may_be_lost(ran)
        case OffsetOutOfRange():
            return may_be_lost(ran) and any(file.startswith(f"{error.partition}/") for file in rotten(ran))
        case Deadlock():
            return (may_be_lost(ran) and ran.simulation.services_quiet()) or _cannot_open(ran)
    return False


def _cannot_open(ran: Ran) -> bool:
    """Whether the log is closed for a bit that rots."""
    broker = ran.simulation.broker.rules
    damage = None if broker is None or broker.failure is None else broker.failure.__cause__
    return isinstance(damage, CorruptSegment) and damage.file in rotten(ran)


def _in_audit(ran: Ran) -> Iterator[tuple[str, str]]:
    assert ran.audit is not None
    for name, check in ran.audit.checks.items():
        if check.verdict != "valid" and not _excused(ran, name, check):
            yield name, f"{check.verdict}: {check.title}: {'; '.join(check.examples)}"


def _excused(ran: Ran, name: str, check: CheckResult) -> bool:
    """Whether a check need not be valid after what was done."""
    of_what_is_left = name in log_checks.CHECKS
    return (
        bool(_files_in(ran, check))
        or (not of_what_is_left and may_be_lost(ran))
        or (not of_what_is_left and check.verdict == "unknown" and deleted(ran))
        or (name in optional(ran.mesh.application, "TIMED_CHECKS") and _clocks_were_off(ran))
    )


def _clocks_were_off(ran: Ran) -> bool:
    return any(isinstance(each.fault, ClockJump) and each.happened for each in ran.struck)


def _files_in(ran: Ran, check: CheckResult) -> set[str]:
    """The files with a bit that rots which the check names."""
    said = " ".join(check.examples)
    return {file for file in rotten(ran) if file in said}


def deleted(ran: Ran) -> bool:
    """Whether retention has deleted the beginning of any partition."""
    reader = ran.reader
    return any(
        reader.start(name, number) > 0
        for name, topic in ran.simulation.topics.items()
        for number in range(topic.partitions)
    )


def may_be_lost(ran: Ran) -> bool:
    """Whether a machine died at a level that does not survive that, or after a bit had rotted."""
    died = any(
        isinstance(each.fault, LostUnsynced) or (isinstance(each.fault, Kill) and each.fault.process == MACHINE)
        for each in ran.struck
        if each.happened
    )
    return died and (ran.case.setup.durability != "fsync" or bool(rotten(ran)))


def rotten(ran: Ran) -> dict[str, int]:
    """The files in which a bit was flipped, and at which byte."""
    return {
        each.details["file"]: int(each.details["byte"])
        for each in ran.struck
        if isinstance(each.fault, FlippedBit) and each.happened
    }


def _of_rot(ran: Ran) -> Iterator[tuple[str, str]]:
    """Where the audit says nothing of a bit that rots, every checksum of the log must hold, or name that file."""
    assert ran.audit is not None
    files = rotten(ran)
    if not files or any(_files_in(ran, check) for check in ran.audit.checks.values() if check.verdict != "valid"):
        return
    for found in ran.reader.verify():
        if found.damage is not None:
            yield ROT_UNNOTICED, f"the audit has read past the damage: {found.damage}"


def _of_who_asked(ran: Ran) -> Iterator[tuple[str, str]]:
    """What the application says of it, where all facts are there to be read."""
    if not (rotten(ran) or deleted(ran) or may_be_lost(ran)):
        yield from ran.case.varied.problems(ran.workload, ran.facts).items()

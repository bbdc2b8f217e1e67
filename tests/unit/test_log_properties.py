"""Promises P1, P2 and P3 under any sequence of appends, grants, zombies, deaths, full disks and failed syncs.

The model keeps what the outside world was told: positions, acknowledged facts, epochs. Whatever the disk
does, the log must never contradict it beyond what its level allows.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from eventmesh.errors import AppendRefused, CorruptSegment, Fenced, LogStopped, OffsetMismatch, StorageFull
from eventmesh.log.batch import LogBatch
from eventmesh.log.evolution import fitted
from eventmesh.log.partition import Partition, gap_of
from eventmesh.log.partition_files import PartitionFiles
from eventmesh.log.segment import Segment
from eventmesh.log.simulated_storage import ProcessDied, SimulatedStorage
from eventmesh.log.store import Log
from eventmesh.log.topic import Topic
from eventmesh.messages import ENVELOPE
from tests.unit.log_story import NOON, SMALL, Writer, open_log

BYTES = st.integers(0, 5_000)
LONG_AFTER = NOON * 1_000
RETAINED = replace(SMALL, settings=replace(SMALL.settings, segment_ms=1 << 40))  # the active segment stays active


class LogUnderFailures(RuleBasedStateMachine):
    """One partition, its writers and its disk."""

    level = "os"
    topic: Topic = RETAINED
    log: Log
    writer_of: type[Writer] = Writer

    def opened(self) -> Log:
        return open_log(self.disk, self.topic, level=self.level)

    @initialize(seed=st.integers(0, 2**32 - 1))
    def begin(self, seed: int) -> None:
        self.disk = SimulatedStorage(random.Random(seed))
        self.log = self.opened()
        self.writer: Writer | None = None
        self.zombies: list[Writer] = []
        self.last: LogBatch | None = None
        self.names = 0
        self.epoch = 0  # the newest that anyone was told
        self.owed: dict[int, str] = {}  # acknowledged, and promised to be there
        self.told: dict[int, str] = {}  # acknowledged or shown, ever: no other fact may come to lie there
        self.waiting: dict[int, str] = {}  # level fsync: appended, sync outstanding
        self.closed = False  # cleanly, and nothing was appended since
        self.start = self.deletable = 0  # of the log, and how far it may have risen
        self.position_told = 0  # the highest end that was ever acknowledged or shown

    # -- what the world does ---------------------------------------------------------------------

    def attempt(self, action: Callable[[], None]) -> None:
        """Run it; if the process dies or the log stops, open the log again as a new process would."""
        try:
            action()
        except (ProcessDied, LogStopped):
            self.restart()
        self.disk.die_after = None

    def restart(self) -> None:
        self.closed = False
        self.disk.restart_process()
        self.disk.fail_sync = self.disk.full = False
        self.waiting.clear()
        self.retire()
        self.log = self.opened()

    def retire(self) -> None:
        if self.writer is not None:
            self.zombies = [*self.zombies[-2:], self.writer]
        self.writer, self.last = None, None

    @rule()
    def grant(self) -> None:
        self.attempt(self._grant)

    def _grant(self) -> None:
        self.names += 1
        self.closed = False
        self.retire()
        try:
            self.writer = self.writer_of(self.log, f"incarnation-{self.names}")
        except StorageFull:
            return
        grant = self.writer.grant
        assert grant.epoch > self.epoch, "an epoch was granted twice"
        assert grant.end > self.position_told, "a grant took an offset that was known already"
        self.epoch = grant.epoch
        self.acknowledge()
        self.position_told = grant.end

    def acknowledge(self) -> None:
        self.owed.update(self.waiting)
        self.told.update(self.waiting)
        self.position_told = max([self.position_told, *(offset + 1 for offset in self.waiting)])
        self.waiting.clear()

    @precondition(lambda self: self.writer is not None)
    @rule(rows=st.integers(1, 4), die_after=st.none() | BYTES)
    def append(self, rows: int, die_after: int | None) -> None:
        self.disk.die_after = die_after
        self.attempt(lambda: self._append(rows))

    def _append(self, rows: int) -> None:
        assert self.writer is not None
        self.closed = False
        names = [f"fact-{self.names + number}" for number in range(1, rows + 1)]
        self.names += rows
        base = self.writer.end
        try:
            self.last = self.writer.append(*names)
        except StorageFull:
            return
        self.waiting.update({base + number: name for number, name in enumerate(names)})
        if self.level != "fsync":
            self.acknowledge()

    @rule(die_after=st.none() | BYTES)
    def sync(self, die_after: int | None) -> None:
        self.disk.die_after = die_after
        self.attempt(self._sync)

    def _sync(self) -> None:
        self.log.sync()
        self.acknowledge()

    @precondition(lambda self: self.last is not None)
    @rule()
    def repeat(self) -> None:
        assert self.last is not None
        before = self.log.end("orders", 0)
        assert self.log.append("orders", 0, self.last) == self.last.header.end
        assert self.log.end("orders", 0) == before

    @precondition(lambda self: self.zombies)
    @rule()
    def zombie(self) -> None:
        for zombie in self.zombies:
            # The holder of the newest epoch is only dead, not deposed: it keeps silent until it has an heir.
            if zombie.grant.epoch < self.epoch:
                zombie.log, zombie.end = self.log, self.log.end("orders", 0)
                self.must_be_fenced(zombie)

    def must_be_fenced(self, zombie: Writer) -> None:
        try:
            zombie.append("zombie")
        except Fenced:
            return
        except AppendRefused as error:
            raise AssertionError(f"an older incarnation is to be fenced (P3), and was told: {error}") from error
        raise AssertionError("an older incarnation appended (P3)")

    @precondition(lambda self: self.writer is not None)
    @rule(distance=st.sampled_from([-2, -1, 1, 2]))
    def elsewhere(self, distance: int) -> None:
        assert self.writer is not None
        self.writer.end += distance
        with pytest.raises(OffsetMismatch):
            self.writer.append("elsewhere")
        self.writer.end -= distance

    @rule()
    def kill_process(self) -> None:
        self.restart()

    @rule()
    def close_and_open(self) -> None:
        self.disk.full = False
        self.attempt(self._close)

    def _close(self) -> None:
        self.log.close()
        self.acknowledge()
        for entry in self.log.batches("orders", 0):  # a clean close owes all of it, at every level
            names = entry.batch.column("id").to_pylist()
            self.owed.update(zip(range(entry.header.base, entry.header.end), names, strict=True))
        self.restart()
        self.closed = True

    @rule(die_after=st.none() | BYTES)
    def kill_machine(self, die_after: int | None) -> None:
        self.disk.crash_machine()
        if self.level != "fsync" and not self.closed:
            self.owed.clear()
        self.disk.die_after = die_after  # and, it may be, once more while the log is being opened
        try:
            self.restart_after_crash()
        except ProcessDied:
            self.disk.crash_machine()
            self.restart_after_crash()

    def restart_after_crash(self) -> None:
        self.waiting.clear()
        self.retire()
        self.log = self.opened()
        self.disk.die_after = None

    @rule(full=st.booleans())
    def fill(self, full: bool) -> None:
        self.disk.full = full

    @rule()
    def break_sync(self) -> None:
        self.disk.fail_sync = True

    # -- what must hold --------------------------------------------------------------------------

    @invariant()
    def promises_hold(self) -> None:
        if not hasattr(self, "log"):
            return
        offset, epoch = self.log.start("orders", 0), 0
        assert self.start <= offset <= self.deletable, "the start rises, and no higher than it may"
        self.start = offset
        self.owed = {at: name for at, name in self.owed.items() if at >= offset}
        visible: dict[int, str] = {}
        for entry in self.log.batches("orders", 0):
            header = entry.header
            if header.kind == "truncated":
                assert self.level == "os", "level fsync leaves no gaps"
                assert gap_of(entry) == (offset, header.base)
                offset = header.base
            assert header.base == offset, "offsets are dense (P2)"
            assert entry.batch.schema == self.topic.schema, "old rows are read with the newest columns"
            assert header.epoch >= epoch, "epochs rise (P3)"
            offset, epoch = header.end, header.epoch
            visible.update(zip(range(header.base, header.end), entry.batch.column("id").to_pylist(), strict=True))
        assert offset == self.log.watermark("orders", 0)
        for at, name in self.owed.items():
            assert visible.get(at) == name, f"the acknowledged fact at {at} is kept (P1)"
        for at, name in visible.items():
            assert self.told.setdefault(at, name) == name, f"offset {at} was used twice (P2)"
        assert offset >= self.position_told, "the log never ends below what anyone was told"
        self.position_told = offset


class LogUnderFailuresSynced(LogUnderFailures):
    """The same at level fsync: the death of the machine takes nothing either."""

    level = "fsync"


class RetainedLogUnderFailures(LogUnderFailures):
    """The same with old segments deleted, as far as floors let them go."""

    @rule(share=st.floats(0, 1), override=st.booleans(), die_after=st.none() | BYTES)
    def retain(self, share: float, override: bool, die_after: int | None) -> None:
        self.disk.die_after = die_after
        self.attempt(lambda: self._retain(int(share * self.position_told), override))

    def _retain(self, floor: int, override: bool) -> None:
        self.deletable = self.position_told if override else max(self.deletable, floor)
        if override:
            self.closed = False
            self.retire()
        overrides = {"orders/0": "for the test"} if override else None
        try:
            found = self.log.retain(LONG_AFTER, {"orders/0": floor}, overrides=overrides)
        except StorageFull:
            return
        assert all(deleted.start == self.log.start("orders", 0) > deleted.start_before for deleted in found)
        if found:
            self.acknowledge()  # what stays is synced first


class RetainedLogUnderFailuresSynced(RetainedLogUnderFailures):
    """The same at level fsync."""

    level = "fsync"


class NewestWriter(Writer):
    """One that was started with the columns that the log was opened with."""

    def batch(self, *names: str) -> LogBatch:
        entry, topic = super().batch(*names), self.log.topics["orders"]
        return LogBatch.encode(replace(entry.header, version=topic.version), fitted(entry.batch, topic.schema))


class GrowingLogUnderFailures(RetainedLogUnderFailures):
    """The same, and now and then the process that comes next has one column more."""

    writer_of = NewestWriter

    @rule(die_after=st.none() | BYTES)
    def grow(self, die_after: int | None) -> None:
        column = pa.field(f"column-{len(self.topic.schema)}", pa.int64())
        self.topic = replace(self.topic, schema=self.topic.schema.insert(len(ENVELOPE), column))
        self.closed = False
        self.disk.restart_process()
        self.disk.fail_sync = self.disk.full = False
        self.waiting.clear()
        self.retire()
        self.disk.die_after = die_after
        self.attempt(self._open)

    def _open(self) -> None:
        self.log = self.opened()


class GrowingLogUnderFailuresSynced(GrowingLogUnderFailures):
    """The same at level fsync."""

    level = "fsync"


MACHINES = [
    LogUnderFailures, LogUnderFailuresSynced, RetainedLogUnderFailures, RetainedLogUnderFailuresSynced,
    GrowingLogUnderFailures, GrowingLogUnderFailuresSynced,
]  # fmt: skip
QUICK = settings(max_examples=100, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("machine", MACHINES)
def test_given_any_failures_then_the_promises_hold(machine: type[LogUnderFailures]) -> None:
    run_state_machine_as_test(machine, settings=QUICK)


def _mutant(monkeypatch: pytest.MonkeyPatch, name: str) -> type[LogUnderFailures]:
    if name == "no fencing":
        monkeypatch.setattr(Partition, "check_writer", lambda self, header: None)
        monkeypatch.setattr(Partition, "check_place", lambda self, header: None)
        return LogUnderFailures
    if name == "a segment goes on with the next version":
        monkeypatch.setattr(PartitionFiles, "_begin_newest_version", lambda files: None)
        return GrowingLogUnderFailures
    if name == "failed syncs are believed":
        monkeypatch.setattr(Segment, "copy_anew", Segment.sync)
        return LogUnderFailures
    monkeypatch.setattr(SimulatedStorage, "sync", lambda self, path: None)
    return LogUnderFailuresSynced


@pytest.mark.parametrize(
    "name", ["no fencing", "failed syncs are believed", "syncs lie", "a segment goes on with the next version"]
)
def test_given_a_mutant_then_the_search_finds_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    machine = _mutant(monkeypatch, name)
    found = settings(QUICK, max_examples=1_000, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises((AssertionError, CorruptSegment, OSError, pa.ArrowInvalid, pytest.fail.Exception)):
        run_state_machine_as_test(machine, settings=found)

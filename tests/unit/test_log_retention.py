"""What retention deletes, what it never touches, and what a death in the middle of it leaves."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from eventmesh.errors import DataDirectoryError, NotFound, OffsetMismatch, OffsetOutOfRange, StorageFull
from eventmesh.log import partition_files
from eventmesh.log.partition import progressed
from eventmesh.log.retention import ClosedSegment, Deleted, new_start
from eventmesh.log.simulated_storage import ProcessDied, SimulatedStorage
from eventmesh.log.storage import MemoryStorage
from eventmesh.log.store import Log
from eventmesh.log.topic import TopicSettings
from tests.unit.log_story import (
    ALL,
    DAY,
    END,
    LATE,
    NOON,
    ORDERS,
    WEEK_MS,
    Writer,
    bases,
    filled,
    ids,
    keeping,
    open_log,
)

# --- which segments may go ----------------------------------------------------------------------------

SEGMENTS = [ClosedSegment(end, 100, NOON + day * DAY) for end, day in ((10, 0), (20, 1), (30, 2))]


def decided(now: int = NOON, floor: int = END, size: int = 350, **settings: Any) -> int:
    return new_start(SEGMENTS, TopicSettings(**settings), start=0, size=size, now=now, floor=floor)


def test_given_ages_then_whole_segments_go_whose_last_append_is_older_than_retention_ms() -> None:
    week = NOON + 7 * DAY
    assert decided(week) == 0
    assert decided(week + 1) == 10
    assert decided(week + 1 * DAY) == 10
    assert decided(week + 2 * DAY + 1) == 30
    assert decided(week + 9 * DAY, retention_ms=-1) == 0


def test_given_sizes_then_segments_go_while_there_is_more_than_retention_bytes() -> None:
    assert decided(retention_bytes=350) == 0
    assert decided(retention_bytes=349) == 10
    assert decided(retention_bytes=250) == 10
    assert decided(retention_bytes=0) == 30
    assert decided() == 0


def test_given_a_floor_then_no_segment_goes_that_reaches_past_it() -> None:
    assert [decided(LATE, floor) for floor in (0, 9, 10, 19, 29, 30)] == [0, 0, 10, 10, 20, 30]


def test_given_a_younger_segment_before_an_older_then_both_stay() -> None:
    """Clocks of writers differ; what goes is always a beginning of the partition."""
    mixed = [replace(SEGMENTS[0], appended_at=LATE), *SEGMENTS[1:]]
    assert new_start(mixed, TopicSettings(), start=0, size=350, now=LATE, floor=END) == 0


def test_given_a_compacted_topic_then_retention_leaves_it_alone() -> None:
    assert decided(LATE, cleanup_policy="compact", retention_bytes=0) == 0


# --- a log that is retained ---------------------------------------------------------------------------


def test_given_old_segments_then_they_are_gone_and_the_rest_is_as_it_was() -> None:
    storage = MemoryStorage()
    log, writer = filled(storage)
    before = bases(storage)
    [deleted] = log.retain(NOON + 17 * DAY, ALL)
    start = log.start("orders", 0)
    assert bases(storage) == [base for base in before if base >= start]
    assert deleted == Deleted("orders/0", 0, start, before.index(start), deleted.bytes)
    assert deleted.bytes > 5_000 * deleted.segments
    assert 5 < start <= 10  # order-9 was appended eight days before, and lies in a segment with younger ones
    assert ids(log) == [f"order-{number}" for number in range(start - 1, 20)]
    assert log.retain(NOON + 17 * DAY, ALL) == []
    writer.append("later")
    assert ids(log)[-1] == "later"


def test_given_only_old_segments_then_the_active_one_stays() -> None:
    storage = MemoryStorage()
    log, writer = filled(storage)
    log.retain(LATE, ALL)
    assert bases(storage) == [log.start("orders", 0)]
    assert writer.end > log.start("orders", 0) > 15
    writer.append("later")


def test_given_more_than_retention_bytes_then_the_oldest_go() -> None:
    storage = MemoryStorage()
    log, _ = filled(storage, retention_ms=-1, retention_bytes=15_000)
    log.retain(LATE, ALL)
    assert 6_000 < sum(storage.size(path) for path in storage.list("orders/0")) <= 15_100
    assert log.start("orders", 0) > 0


def test_given_no_floor_then_a_partition_is_not_touched() -> None:
    log, _ = filled(MemoryStorage())
    assert log.retain(LATE, {}) == []
    assert log.start("orders", 0) == 0
    with pytest.raises(NotFound, match="orders/9"):
        log.retain(LATE, {"orders/9": END})


def test_given_a_reader_that_lags_then_all_from_its_position_on_stays() -> None:
    storage = MemoryStorage()
    log, _ = filled(storage)
    inside = bases(storage)[2] + 1
    log.retain(LATE, {"orders/0": inside})
    assert log.start("orders", 0) == bases(storage)[0] == inside - 1
    assert ids(log, inside)[0] == f"order-{inside - 1}"


def floors_are_kept() -> None:
    """What the mutant below must break."""
    log, writer = filled(MemoryStorage())
    for floor in range(0, writer.end):
        log.retain(LATE, {"orders/0": floor})
        assert log.read("orders", 0, floor)[0].header.base <= floor


def test_given_any_floor_then_a_reader_there_goes_on() -> None:
    floors_are_kept()


def test_given_retention_that_ignores_floors_then_that_reader_loses_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant of rule 11."""
    monkeypatch.setattr(partition_files, "new_start", lambda closed, settings, **at: new_start(
        closed, settings, **{**at, "floor": END}
    ))  # fmt: skip
    with pytest.raises(OffsetOutOfRange):
        floors_are_kept()


# --- what the partition itself needs ------------------------------------------------------------------


def test_given_all_else_is_deleted_then_epoch_and_last_append_survive_a_reopening() -> None:
    storage = MemoryStorage()
    log, writer = filled(storage, count=0)
    last = writer.append("a")
    log._partitions["orders", 0].roll()
    assert log.retain(LATE, ALL) == []
    log = open_log(storage, keeping())
    assert log.append("orders", 0, last) == writer.end
    assert Writer(log, "second").grant.epoch == 2


def test_given_grants_alone_then_the_newest_stays() -> None:
    storage = MemoryStorage()
    log = open_log(storage, keeping())
    for name in ("first", "second"):
        Writer(log, name)
        log._partitions["orders", 0].roll()
    [deleted] = log.retain(LATE, ALL)
    assert (deleted.start_before, deleted.start) == (0, 1)
    assert Writer(open_log(storage, keeping()), "third").grant.epoch == 3


def test_given_many_grants_after_the_newest_vector_then_it_stays_and_is_found_again() -> None:
    storage = MemoryStorage()
    log, writer = filled(storage)
    vector = {"next": {"requests/0": writer.end - 1}}
    assert log.vectors() == {"orders/0": vector}
    for number in range(20):
        Writer(log, f"incarnation-{number}" + "x" * 500)
    log.retain(LATE, ALL)
    assert len(bases(storage)) > 2
    assert log.vectors() == open_log(storage, keeping()).vectors() == {"orders/0": vector}


def test_given_no_append_yet_then_the_vector_is_empty() -> None:
    log = open_log(MemoryStorage(), replace(ORDERS, partitions=2))
    Writer(log)
    assert log.vectors() == {"orders/0": {}, "orders/1": {}}


def test_given_level_fsync_then_a_vector_counts_once_it_is_synced() -> None:
    log, writer = filled(MemoryStorage(), count=2, level="fsync")
    writer.append("c")
    assert log.vectors()["orders/0"] == {"next": {"requests/0": 2}}
    log.sync()
    assert log.vectors()["orders/0"] == {"next": {"requests/0": 3}}


def test_given_progress_without_a_fact_then_its_vector_is_the_newest() -> None:
    storage = MemoryStorage()
    log, writer = filled(storage, count=2)
    vector = {"next": {"requests/0": 77}, "ahead": {"requests/0": [[80, 81]]}}
    entry = progressed(ORDERS, 0, base=writer.end, epoch=1, append=2, incarnation="first", time=NOON, progress=vector)
    log.append("orders", 0, entry)
    Writer(log, "second")
    assert log.vectors() == open_log(storage, keeping()).vectors() == {"orders/0": vector}


# --- segments that are closed by their age ------------------------------------------------------------


def test_given_segment_ms_then_an_append_that_comes_later_begins_the_next_segment() -> None:
    storage = MemoryStorage()
    filled(storage, count=10, segment_bytes=1 << 30, segment_ms=3 * 86_400_000)
    assert bases(storage) == [0, 4, 7, 10]  # the grant lies before order-0


def test_given_a_reopening_then_a_segments_age_is_that_of_its_first_batch() -> None:
    storage = MemoryStorage()
    topic = {"segment_bytes": 1 << 30, "segment_ms": 3 * 86_400_000}
    filled(storage, count=3, **topic)
    writer = Writer(open_log(storage, keeping(**topic)), "second")
    writer.time = NOON + 3 * DAY
    writer.append("a")
    assert bases(storage) == [0, 5]


def test_given_an_idle_partition_then_retention_closes_its_segment_and_deletes_it_in_time() -> None:
    storage = MemoryStorage()
    log, writer = filled(storage, count=3, segment_bytes=1 << 30, segment_ms=WEEK_MS)
    assert log.retain(NOON + 6 * DAY, ALL) == []
    assert bases(storage) == [0]
    assert log.retain(NOON + 8 * DAY, ALL) == []
    assert bases(storage) == [0, writer.end]
    writer.append("wakes up")
    [deleted] = log.retain(NOON + 10 * DAY, ALL)
    assert (deleted.start, ids(log)) == (4, ["wakes up"])


# --- overriding a floor -------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["os", "fsync"])
def test_given_an_override_then_it_is_on_record_before_anything_goes(level: str) -> None:
    storage = SimulatedStorage(random.Random(1))
    log, writer = filled(storage, level=level)
    floors, end = {"orders/0": 2}, writer.end
    assert log.retain(LATE, floors) == []
    [deleted] = log.retain(LATE, floors, overrides={"orders/0": "the report was given up"})
    assert (deleted.overrode, deleted.start) == (2, log.start("orders", 0))
    [record] = log.read("orders", 0, end)
    assert (record.header.kind, record.header.time) == ("overridden", LATE)
    assert record.header.control == {
        "reason": "the report was given up", "deleted_from": 0, "deleted_to": deleted.start, "floor": 2,
    }  # fmt: skip
    [row] = record.batch.to_pylist()
    assert (row["type"], row["reason"]) == ("eventmesh.Overridden", "the report was given up")
    storage.crash_machine()
    log = open_log(storage, keeping(), level=level)
    assert log.read("orders", 0, end)[0].header == record.header
    assert log.start("orders", 0) == deleted.start


def test_given_an_override_that_a_floor_did_not_hinder_then_there_is_no_record() -> None:
    log, writer = filled(MemoryStorage())
    [deleted] = log.retain(LATE, ALL, overrides={"orders/0": "to be sure"})
    assert (deleted.overrode, log.end("orders", 0)) == (None, writer.end)


def test_given_a_partition_without_a_floor_then_an_override_says_that_it_began_at_the_start() -> None:
    log, _ = filled(MemoryStorage())
    [deleted] = log.retain(LATE, {}, overrides={"orders/0": "nobody registered"})
    assert deleted.overrode == 0


def test_given_an_override_then_appends_in_flight_are_refused_and_the_owner_folds_again() -> None:
    log, writer = filled(MemoryStorage())
    log.retain(LATE, {"orders/0": 0}, overrides={"orders/0": "full"})
    with pytest.raises(OffsetMismatch):
        writer.append("in flight")
    heir = Writer(log, "second")
    heir.append("again")
    assert (heir.grant.epoch, ids(log)[-1]) == (2, "again")


# --- deaths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["os", "fsync"])
@pytest.mark.parametrize("machine", [False, True])
@pytest.mark.parametrize("overrides", [None, {"orders/0": "room"}])
def test_given_a_death_at_any_step_then_the_start_is_old_or_new_and_never_falls(
    level: str, machine: bool, overrides: dict[str, str] | None
) -> None:
    starts, spent = set(), bytes_spent(level, overrides)
    for die_after in sorted({*range(0, spent, 97), *range(max(0, spent - 60), spent)}):
        disk = SimulatedStorage(random.Random(die_after))
        log, writer = filled(disk, level=level)
        with pytest.raises(ProcessDied):
            retain_above(log, disk, overrides, die_after)
        disk.crash_machine() if machine else disk.restart_process()
        log = open_log(disk, keeping(), level=level)
        starts.add(log.start("orders", 0))
        assert bases(disk)[0] == log.start("orders", 0)
        facts_left(log, disk, writer.end if level == "fsync" or not machine else bases(disk)[-1])
    assert len(starts) == 2
    assert min(starts) == 0


def bytes_spent(level: str, overrides: dict[str, str] | None) -> int:
    """What retention writes, every other operation counted as one byte."""
    disk, plenty = SimulatedStorage(random.Random(0)), 1 << 40
    log, _ = filled(disk, level=level)
    floor = retain_above(log, disk, overrides, plenty)
    assert (log.start("orders", 0) > floor) == bool(overrides)
    assert disk.die_after is not None
    return plenty - disk.die_after


def retain_above(log: Log, disk: SimulatedStorage, overrides: dict[str, str] | None, die_after: int) -> int:
    floor = bases(disk)[2]
    disk.die_after = die_after
    log.retain(LATE, {"orders/0": floor}, overrides=overrides)
    return floor


def facts_left(log: Log, disk: SimulatedStorage, end: int) -> None:
    """From the start on nothing of what was owed is missing, and the start does not fall again."""
    start = log.start("orders", 0)
    assert ids(log)[: end - max(start, 1)] == [f"order-{number - 1}" for number in range(max(start, 1), end)]
    Writer(log, "second").append("later")
    assert open_log(disk, keeping()).start("orders", 0) == start


def test_given_a_dead_machine_then_what_stayed_was_on_the_disk_before_the_rest_went() -> None:
    """At level os appends may be lost, epochs never: those in the page cache were not all that was left of them."""
    for seed in range(30):
        disk = SimulatedStorage(random.Random(seed))
        log, _ = filled(disk)
        vectors = log.vectors()
        log.retain(LATE, ALL)
        disk.crash_machine()
        log = open_log(disk, keeping())
        assert log.vectors() == vectors
        assert Writer(log, "second").grant.epoch == 2


def test_given_a_full_disk_then_nothing_is_deleted_and_the_next_attempt_succeeds() -> None:
    disk = SimulatedStorage(random.Random(1))
    log, writer = filled(disk)
    before = dict(disk.files)
    disk.full = True
    with pytest.raises(StorageFull):
        log.retain(LATE, ALL)
    assert disk.files == before
    disk.full = False
    assert log.retain(LATE, ALL)
    writer.append("later")


def test_given_a_first_segment_that_is_lost_then_the_log_does_not_open() -> None:
    storage = MemoryStorage()
    log, _ = filled(storage)
    log.retain(NOON + 17 * DAY, ALL)
    start = log.start("orders", 0)
    for kind in ("arrow", "index"):
        storage.remove(f"orders/0/{start:020d}.{kind}")
    with pytest.raises(DataDirectoryError, match=f"exists from offset {start} on, its files are gone"):
        open_log(storage, keeping())

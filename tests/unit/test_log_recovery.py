"""What an opening makes of what a death left: torn tails, gaps, rot, failed syncs, full disks."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from eventmesh.errors import CorruptSegment, LogStopped, LogTruncated, StorageFull
from eventmesh.log.partition import gap_of
from eventmesh.log.partition_files import RESERVATION_BLOCK, PartitionFiles
from eventmesh.log.segment import Segment
from eventmesh.log.simulated_storage import ProcessDied, SimulatedStorage
from tests.unit.log_story import ORDERS, SMALL, Writer, facts, ids, open_log

DATA, INDEX = "orders/0/00000000000000000000.arrow", "orders/0/00000000000000000000.index"


@pytest.fixture
def disk() -> SimulatedStorage:
    return SimulatedStorage(random.Random(1))


def lose_page_cache(disk: SimulatedStorage) -> None:
    """The machine dies at once after nothing but syncs reached the platter; the watermark page did."""
    disk.restart_process()
    disk.boots += 1
    disk.boot_id = f"boot-{disk.boots}"
    disk.files = {path: bytearray(content) for path, content in disk._platter.items()}
    disk._unsynced.clear()
    disk._resized.clear()


def test_given_a_death_at_any_byte_of_an_append_then_the_tail_is_cut_and_the_rest_stays() -> None:
    length = 0
    lengths = set()
    while True:
        disk = SimulatedStorage(random.Random(1))
        writer = Writer(open_log(disk))
        writer.append("a")
        disk.die_after = length
        try:
            writer.append("b")
        except ProcessDied:
            disk.restart_process()
            log = open_log(disk)
            assert ids(log) == ["a"]
            Writer(log, "second").append("c")
            assert ids(log) == ["a", "c"]
            lengths.add(length)
            length += 97
            continue
        break
    assert len(lengths) > 10


def test_given_a_batch_that_was_written_but_not_yet_published_then_it_is_kept(disk: SimulatedStorage) -> None:
    log = open_log(disk)
    writer = Writer(log)
    log._partitions["orders", 0].publish = lambda: None  # type: ignore[method-assign]
    entry = writer.append("a")
    log = open_log(disk)
    assert ids(log) == ["a"]
    assert log.append("orders", 0, entry) == 2


@pytest.mark.parametrize("level", ["os", "fsync"])
@pytest.mark.parametrize("path", [DATA, INDEX])
def test_given_damage_below_the_watermark_on_the_same_boot_then_it_is_rot(
    disk: SimulatedStorage, level: str, path: str
) -> None:
    log = open_log(disk, level=level)
    writer = Writer(log)
    for name in "abc":
        writer.append(name)
    log.sync()
    disk.files[path][len(disk.files[path]) // 2] ^= 1
    with pytest.raises(CorruptSegment, match=DATA) as damage:
        open_log(disk, level=level)
    assert 0 < damage.value.offset < 4
    assert f"batch at offset {damage.value.offset} " in str(damage.value)


def test_given_level_os_and_a_dead_machine_then_the_log_goes_on_above_the_reservation(disk: SimulatedStorage) -> None:
    log = open_log(disk)
    writer = Writer(log)
    for name in "abc":
        writer.append(name)
    lose_page_cache(disk)
    log = open_log(disk)
    [gap] = [entry for entry in log.batches("orders", 0) if entry.header.kind == "truncated"]
    lost_to = 1 + RESERVATION_BLOCK
    assert gap_of(gap) == (1, lost_to)  # the grant was synced, the facts were not
    assert (gap.header.base, gap.header.epoch, log.end("orders", 0)) == (lost_to, 1, lost_to + 1)
    heir = Writer(log, "second")
    assert heir.grant.epoch == 2
    heir.append("d")
    assert ids(log) == ["d"]


def test_given_a_reader_in_the_gap_then_it_stops_and_at_the_gaps_start_it_goes_on(disk: SimulatedStorage) -> None:
    Writer(open_log(disk)).append("a", "b", "c")
    lose_page_cache(disk)
    log = open_log(disk)
    for offset in (2, 4, RESERVATION_BLOCK):
        with pytest.raises(LogTruncated) as gap:
            log.read("orders", 0, offset)
        assert (gap.value.lost_from, gap.value.lost_to) == (1, 1 + RESERVATION_BLOCK)
    assert [entry.header.kind for entry in log.read("orders", 0, 1)] == ["truncated"]
    assert [entry.header.kind for entry in log.read("orders", 0, 0)] == ["granted", "truncated"]


def test_given_a_gap_as_a_closed_segments_neighbour_then_it_is_found_too(disk: SimulatedStorage) -> None:
    writer = Writer(open_log(disk, SMALL))
    while len(disk.list("orders/0")) < 6:  # the reservation and two segments, then the third's first batch
        writer.append("a" * 200)
    lose_page_cache(disk)
    log = open_log(disk, SMALL)
    [gap] = [entry for entry in log.batches("orders", 0) if entry.header.kind == "truncated"]
    lost_from, lost_to = gap_of(gap)
    assert 1 < lost_from < writer.end < lost_to
    with pytest.raises(LogTruncated):
        log.read("orders", 0, writer.end)
    assert len(ids(log)) == lost_from - 1


def test_given_a_reader_that_had_read_every_reserved_offset_then_it_lies_in_the_gap(
    disk: SimulatedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventmesh.log.partition_files.RESERVATION_BLOCK", 4)
    log = open_log(disk)
    writer = Writer(log)
    for _ in range(9):
        writer.append("a")
        if writer.end + 1 == log._partitions["orders", 0].reserved:
            break
    seen = writer.end
    lose_page_cache(disk)
    with pytest.raises(LogTruncated):
        open_log(disk).read("orders", 0, seen)


def test_given_a_clean_close_then_a_new_boot_leaves_no_gap(disk: SimulatedStorage) -> None:
    log = open_log(disk)
    writer = Writer(log)
    writer.append("a")
    log.close()
    lose_page_cache(disk)
    log = open_log(disk)
    assert log.end("orders", 0) == writer.end
    assert ids(log) == ["a"]


@pytest.mark.parametrize("seed", range(20))
def test_given_level_fsync_and_a_dead_machine_then_all_that_was_synced_stays_without_a_gap(seed: int) -> None:
    disk = SimulatedStorage(random.Random(seed))
    log = open_log(disk, SMALL, level="fsync")
    writer = Writer(log)
    for number in range(8):
        writer.append(f"order-{number}")
    log.sync()
    assert log.watermark("orders", 0) == 9
    writer.append("unsynced")
    assert log.watermark("orders", 0) == 9
    disk.crash_machine()
    log = open_log(disk, SMALL, level="fsync")
    assert ids(log)[:8] == [f"order-{number}" for number in range(8)]
    assert all(entry.header.kind != "truncated" for entry in log.batches("orders", 0))
    assert Writer(log, "second").grant.epoch == 2


def test_given_level_fsync_then_nothing_is_shown_before_the_sync(disk: SimulatedStorage) -> None:
    log = open_log(disk, level="fsync")
    writer = Writer(log)
    writer.append("a")
    assert (log.end("orders", 0), log.watermark("orders", 0)) == (2, 1)
    assert ids(log) == []
    log.sync()
    assert ids(log) == ["a"]


def test_given_a_disk_that_lies_about_syncs_then_the_loss_is_rot_not_silence(disk: SimulatedStorage) -> None:
    log = open_log(disk, level="fsync")
    writer = Writer(log)
    disk.skip_sync = True
    writer.append("a")
    log.sync()
    lose_page_cache(disk)
    with pytest.raises(CorruptSegment, match="acknowledged"):
        open_log(disk, level="fsync")


def test_given_a_failed_sync_then_the_log_stops_and_the_next_opening_cuts_to_the_last_good_one(
    disk: SimulatedStorage,
) -> None:
    log = open_log(disk, level="fsync")
    writer = Writer(log)
    writer.append("a")
    log.sync()
    writer.append("b")
    disk.fail_sync = True
    with pytest.raises(LogStopped):
        log.sync()
    disk.fail_sync = False
    with pytest.raises(LogStopped):  # no retry: it would succeed, and the data would not be there
        log.sync()
    with pytest.raises(LogStopped):
        writer.append("c")
    with pytest.raises(LogStopped):
        Writer(log, "second")
    assert ids(log) == ["a"]
    log = open_log(disk, level="fsync")
    assert ids(log) == ["a"]
    Writer(log, "second").append("d")
    log.sync()
    lose_page_cache(disk)
    assert ids(open_log(disk, level="fsync")) == ["a", "d"]


def test_given_level_os_then_a_grant_survives_the_machine_all_the_same(disk: SimulatedStorage) -> None:
    log = open_log(disk)
    for name in ("first", "second", "third"):
        Writer(log, name)
    lose_page_cache(disk)
    assert Writer(open_log(disk), "fourth").grant.epoch == 4


def test_given_level_os_and_a_failed_sync_then_later_syncs_are_not_built_on_sand(disk: SimulatedStorage) -> None:
    log = open_log(disk)
    Writer(log).append("a")
    disk.fail_sync = True
    with pytest.raises(LogStopped):
        log.grant("orders", 0, "orders", "second")
    with pytest.raises(LogStopped):
        open_log(disk)
    disk.fail_sync = False
    log = open_log(disk)
    assert ids(log) == ["a"]  # the process died, not the machine: nothing is lost
    grant = log.grant("orders", 0, "orders", "third")
    lose_page_cache(disk)
    log = open_log(disk)
    assert ids(log) == ["a"]
    assert log.grant("orders", 0, "orders", "fourth").epoch == grant.epoch + 1


@pytest.mark.parametrize("level", ["os", "fsync"])
def test_given_a_full_disk_then_the_append_did_not_happen_and_the_next_one_succeeds(
    disk: SimulatedStorage, level: str
) -> None:
    log = open_log(disk, SMALL, level=level)
    writer = Writer(log)
    for number in range(20):
        before = {path: bytes(content) for path, content in disk.files.items()}
        disk.full = True
        with pytest.raises(StorageFull):
            writer.append(f"order-{number}")
        assert disk.files == before
        disk.full = False
        writer.append(f"order-{number}")
    log.sync()
    assert ids(log) == [f"order-{number}" for number in range(20)]
    assert ids(open_log(disk, SMALL, level=level)) == [f"order-{number}" for number in range(20)]


class LittleRoom(SimulatedStorage):
    """Full for one kind of file only."""

    refused = ""

    def append(self, path: str, position: int, data: pa.Buffer | bytes) -> None:
        if self.refused and path.endswith(self.refused):
            raise StorageFull(path)
        super().append(path, position, data)


def test_given_no_room_for_the_index_entry_then_the_batch_is_taken_back() -> None:
    disk = LittleRoom(random.Random(1))
    log = open_log(disk, SMALL)
    writer = Writer(log)
    for number in range(20):
        before = {path: bytes(content) for path, content in disk.files.items()}
        disk.refused = "index"
        with pytest.raises(StorageFull):
            writer.append(f"order-{number}")
        assert disk.files == before
        disk.refused = ""
        writer.append(f"order-{number}")
    assert ids(open_log(disk, SMALL)) == [f"order-{number}" for number in range(20)]


def opens_alive(disk: SimulatedStorage, die_after: int) -> bool:
    """Whether an opening gets by with so many bytes before its process is killed."""
    disk.die_after = die_after
    try:
        open_log(disk)
    except ProcessDied:
        return False
    return True


def test_given_a_death_while_topics_are_created_then_the_next_opening_creates_them() -> None:
    for die_after in range(0, 10_000, 7):
        disk = SimulatedStorage(random.Random(die_after))
        if opens_alive(disk, die_after):
            assert die_after > 500
            return
        disk.crash_machine()
        log = open_log(disk)
        Writer(log).append("a")
        assert ids(log) == ["a"]
    pytest.fail("no opening ever succeeded")


def test_given_a_death_while_the_gap_is_recorded_then_no_offset_is_used_twice() -> None:
    for die_after in range(0, 10_000, 53):
        disk = SimulatedStorage(random.Random(die_after))
        writer = Writer(open_log(disk))
        writer.append("a", "b", "c")
        lose_page_cache(disk)
        if opens_alive(disk, die_after):
            assert die_after > 500
            return
        disk.crash_machine()
        heir = Writer(open_log(disk), "second")
        assert heir.grant.epoch == 2
        assert heir.grant.end > writer.end
    pytest.fail("no opening ever succeeded")


def test_given_no_reservation_then_an_offset_would_be_used_twice(
    disk: SimulatedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant of rule 8: the story above would fail without it."""
    monkeypatch.setattr(PartitionFiles, "_reserve", lambda self, end: None)
    writer = Writer(open_log(disk))
    writer.append("a", "b", "c")
    lose_page_cache(disk)
    assert Writer(open_log(disk), "second").grant.end <= writer.end


def read_after_power_loss(seed: int) -> list[str]:
    disk = SimulatedStorage(random.Random(seed))
    writer = Writer(open_log(disk))
    for name in "abcd":
        writer.append(name * 300)
    disk.crash_machine()
    return ids(open_log(disk))


def test_given_sectors_lost_at_random_then_what_is_left_is_a_beginning() -> None:
    left = {len(read_after_power_loss(seed)) for seed in range(60)}
    assert left >= {0, 1}
    for seed in range(60):
        assert read_after_power_loss(seed) == [name * 300 for name in "abcd"][: len(read_after_power_loss(seed))]


def test_given_recovery_without_checksums_then_torn_batches_would_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant of rule 9's torn tail."""
    monkeypatch.setattr(Segment, "first_damaged", Segment.__len__)
    with pytest.raises(CorruptSegment):
        _ = [read_after_power_loss(seed) for seed in range(60)]


def test_given_a_change_of_level_then_what_was_synced_is_the_floor(disk: SimulatedStorage) -> None:
    Writer(open_log(disk, level="os")).append("a")
    log = open_log(disk, level="fsync")
    assert ids(log) == ["a"]
    log.append("orders", 0, facts(2, ["b"], append=1))
    lose_page_cache(disk)
    log = open_log(disk, level="fsync")
    assert (ids(log), log.end("orders", 0)) == (["a"], 2)
    assert log.topics == {"orders": ORDERS}

"""Readers beside the writer: what they are told when segments are deleted, and what they keep in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventmesh.errors import OffsetOutOfRange
from eventmesh.log import partition_files, store
from eventmesh.log.storage import FileStorage
from eventmesh.log.store import Log, LogReader, open_read_only
from tests.unit.log_story import ALL, LATE, Writer, filled, ids, keeping, open_log


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    storage = FileStorage(tmp_path)
    filled(storage)
    storage.close()
    return tmp_path


@pytest.fixture
def log(directory: Path) -> Iterator[Log]:
    log = open_log(FileStorage(directory), keeping())
    yield log
    log.close()


@pytest.fixture
def reader(directory: Path, log: Log) -> Iterator[LogReader]:
    reader = open_read_only(directory)
    yield reader
    reader.close()


def test_given_a_follower_below_the_start_then_it_is_told_start_and_end(log: Log, reader: LogReader) -> None:
    assert reader.read("orders", 0, 3)
    log.retain(LATE, ALL)
    start, end = log.start("orders", 0), log.end("orders", 0)
    for offset in (0, 3, start - 1):
        with pytest.raises(OffsetOutOfRange) as told:
            reader.read("orders", 0, offset)
        assert (told.value.start, told.value.end) == (start, end)
    assert reader.start("orders", 0) == start
    assert ids(reader) == ids(log) != []


def test_given_a_follower_above_the_start_then_it_goes_on(log: Log, reader: LogReader) -> None:
    writer = Writer(log, "second")
    at = writer.end
    assert reader.read("orders", 0, at) == []
    log.retain(LATE, ALL)
    for number in range(20):
        writer.append(f"later-{number}")
        [entry] = reader.read("orders", 0, at)
        at = entry.header.end
        log.retain(LATE, {"orders/0": at})
    assert at == writer.end
    assert reader.start("orders", 0) == log.start("orders", 0) > 21


def test_given_a_follower_whose_every_segment_went_then_it_finds_the_others(log: Log, reader: LogReader) -> None:
    assert reader.read("orders", 0, 0)
    writer = Writer(log, "second")
    for number in range(20):
        writer.append(f"later-{number}")
    log.retain(LATE, ALL)
    assert reader.start("orders", 0) == log.start("orders", 0) > 21
    assert ids(reader) == ids(log)
    fresh = open_read_only(log._storage.directory)  # type: ignore[attr-defined]
    assert ids(fresh) == ids(log)
    fresh.close()


def test_given_files_that_go_while_they_are_read_then_that_is_no_damage(log: Log, reader: LogReader) -> None:
    entries = reader.batches("orders", 0)
    next(entries)
    log.retain(LATE, ALL)
    with pytest.raises(OffsetOutOfRange) as told:
        list(entries)
    assert told.value.start == log.start("orders", 0)


def test_given_a_deletion_between_two_looks_at_the_directory_then_a_follower_looks_again(
    log: Log, reader: LogReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = partition_files.PartitionFiles.bases_on_storage

    def overtaken(files: partition_files.PartitionFiles) -> list[int]:
        monkeypatch.undo()
        log.retain(LATE, ALL)
        return find(files)

    monkeypatch.setattr(partition_files.PartitionFiles, "bases_on_storage", overtaken)
    assert reader.start("orders", 0) == log.start("orders", 0) > 15


class Late:
    """A counter that says the old value once more."""

    def __init__(self, counter: Any) -> None:
        self.counter, self.old = counter, [counter.get()]

    def get(self) -> int:
        value: int = self.old.pop() if self.old else self.counter.get()
        return value


def test_given_a_deletion_that_a_follower_is_late_to_hear_of_then_no_fact_is_passed_over(
    log: Log, reader: LogReader
) -> None:
    writer = Writer(log, "second")
    files = reader._partitions["orders", 0]
    at = writer.end
    assert reader.read("orders", 0, at) == []
    for number in range(20):
        writer.append(f"later-{number}")
    late = Late(files._published_start)
    files._published_start = late  # type: ignore[assignment]
    log.retain(LATE, ALL)
    with pytest.raises(OffsetOutOfRange) as told:
        reader.read("orders", 0, at)
    assert not late.old
    assert told.value.start == log.start("orders", 0) > at
    assert ids(reader) == ids(log)


def test_given_many_closed_segments_then_few_of_their_indexes_stay_in_memory(
    directory: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOADED_BYTES_MAX", 200)  # seven batches of 28 bytes
    reader = open_read_only(directory)
    both = zip(reader.batches("orders", 0), reader.batches("orders", 0), strict=True)
    for number, (one, other) in enumerate(both):
        assert one.header == other.header
        if number == 2:  # another reader crowds out what these two have loaded
            assert len(list(reader.batches("orders", 0))) == 21
    closed = reader._partitions["orders", 0].segments[:-1]
    assert len(closed) > 3
    assert [segment.size > 0 for segment in closed] == [False] * (len(closed) - 1) + [True]
    reader.close()


def test_given_segments_that_are_gone_then_their_indexes_count_no_more(log: Log, reader: LogReader) -> None:
    list(reader.batches("orders", 0))
    loaded = reader._partitions["orders", 0]._loaded
    assert loaded._bytes == 28 * sum(len(segment) for segment, _ in loaded._segments) > 200
    log.retain(LATE, ALL)
    assert reader.start("orders", 0) > 0
    assert (loaded._segments, loaded._bytes) == ([], 0)

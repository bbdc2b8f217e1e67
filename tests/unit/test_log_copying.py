"""Given a log that is being written, when it is copied, then the copy is the log as it stood at one moment."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eventmesh.errors import CorruptSegment, DataDirectoryError, EnvironmentUnavailable
from eventmesh.log import copying
from eventmesh.log.batch import Header, LogBatch
from eventmesh.log.copying import Moment, settle
from eventmesh.log.partition_files import PartitionFiles
from eventmesh.log.storage import FileStorage
from eventmesh.log.store import Durability, Log, LogReader, open_read_only
from eventmesh.log.topic import TopicSettings
from eventmesh.messages import encode_rows
from eventmesh.progress import split_position
from tests.unit.log_story import END, LATE, NOON, ORDERS, WEEK_MS, Writer, filled, open_log, rows_at

SMALL = replace(ORDERS, partitions=2, settings=TopicSettings(segment_bytes=6_000, retention_bytes=15_000))
TOPICS = {"orders": SMALL, "payments": replace(SMALL, name="payments", owner="payments")}
NAMES = [f"{topic}/{number}" for topic in TOPICS for number in range(2)]


class Story:
    """A log of four partitions, and its writers, each of whose facts names the ends of all partitions."""

    def __init__(self, directory: Path, level: str = "os", topics: Mapping[str, Any] = TOPICS) -> None:
        self.log = Log.open(
            FileStorage(directory), topics, durability=Durability(level), cluster_id="first", node="here",
            clock=lambda: NOON,
        )  # fmt: skip
        self.time, self.appends = NOON, dict.fromkeys(NAMES, 0)
        for name in NAMES:
            topic, number = split_position(name)
            self.log.grant(topic, number, topic, "first")

    def ends(self) -> dict[str, int]:
        return {name: self.log.end(*split_position(name)) for name in NAMES}

    def append(self, name: str, rows: int = 1) -> None:
        topic, number = split_position(name)
        ends = self.ends()
        base = ends[name]
        header = Header(
            "facts", base, rows, 1, self.appends[name], topic, "first", self.time,
            {"next": {other: end for other, end in ends.items() if other != name}},
        )  # fmt: skip
        names = [f"{name}-{base + row}" for row in range(rows)]
        self.log.append(topic, number, LogBatch.encode(header, encode_rows(SMALL.schema, rows_at(base, names))))
        self.appends[name] += 1


def copy(moment: Moment, target: Path) -> Path:
    """Write the copy out, and make a log of it."""
    for file in moment.files():
        (target / file.path).parent.mkdir(parents=True, exist_ok=True)
        data = b"".join(file.chunks)
        assert len(data) == file.size
        (target / file.path).write_bytes(data)
    settle(target, moment.ends, cluster_id="second", node="there")
    return target


def copied(source: Path, target: Path) -> Path:
    moment = Moment(source)
    try:
        return copy(moment, target)
    finally:
        moment.close()


def must_be_consistent(directory: Path, ends: Mapping[str, int]) -> None:
    """Every checksum holds, offsets are dense, and no fact has read beyond what is there."""
    reader = open_read_only(directory)
    assert [finding.damage for finding in reader.verify()] == [None] * len(NAMES)
    for name in NAMES:
        topic, number = split_position(name)
        assert reader.watermark(topic, number) == ends[name]
        at = reader.start(topic, number)
        for entry in reader.batches(topic, number):
            assert entry.header.base == at
            at = entry.header.end
            read = entry.header.progress.get("next", {})
            assert {other: end for other, end in read.items() if end > ends[other]} == {}
        assert at == ends[name]
    reader.close()


@pytest.mark.parametrize("level", ["os", "fsync"])
@pytest.mark.parametrize("seed", range(2))
def test_while_a_writer_goes_on(tmp_path: Path, seed: int, level: str) -> None:
    dice, story, stop = random.Random(seed), Story(tmp_path / "log", level), threading.Event()
    deleted: list[Any] = []  # retention goes on meanwhile, too

    def write() -> None:
        while not (stop.is_set() and deleted):
            story.append(dice.choice(NAMES), dice.randint(1, 9))
            story.log.sync()
            if dice.random() < 0.05:
                deleted.extend(story.log.retain(NOON, dict.fromkeys(NAMES, END)))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(4):
            moment = Moment(tmp_path / "log")
            must_be_consistent(copy(moment, tmp_path / f"copy-{number}"), moment.ends)
            moment.close()
    finally:
        stop.set()
        writer.join()
    story.log.close()


def test_an_append_between_two_looks_is_no_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story, published = Story(tmp_path / "log"), PartitionFiles.published
    left = ["payments/1", "payments/1", "payments/1"]

    def disturbed(files: PartitionFiles) -> int:
        found = published(files)
        if left and files.storage.read_only and files.name == "orders/0":  # type: ignore[attr-defined]
            story.append("orders/0")
            story.append(left.pop())  # has read what this look of orders/0 does not show
        return found

    monkeypatch.setattr(PartitionFiles, "published", disturbed)
    moment = Moment(tmp_path / "log")
    assert not left
    must_be_consistent(copy(moment, tmp_path / "copy"), moment.ends)


def test_a_log_that_is_never_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story, published = Story(tmp_path / "log"), PartitionFiles.published

    def restless(files: PartitionFiles) -> int:
        story.append("orders/0")
        return published(files)

    monkeypatch.setattr(PartitionFiles, "published", restless)
    monkeypatch.setattr(copying, "LOOKS_MAX", 20)
    with pytest.raises(EnvironmentUnavailable, match="never still for the moment that a copy needs"):
        Moment(tmp_path / "log")


def test_what_comes_later_is_not_in_it(tmp_path: Path) -> None:
    story = Story(tmp_path / "log")
    story.append("orders/0", 3)
    moment, ends = Moment(tmp_path / "log"), story.ends()
    for _ in range(40):  # the segment that was active is closed meanwhile
        story.append("orders/0", 5)
    must_be_consistent(copy(moment, tmp_path / "copy"), ends)


def test_at_level_fsync_nothing_unsynced_is_in_it(tmp_path: Path) -> None:
    story = Story(tmp_path / "log", "fsync")
    story.append("orders/0")
    story.log.sync()
    ends = story.ends()
    story.append("orders/0")
    must_be_consistent(copied(tmp_path / "log", tmp_path / "copy"), ends)


def test_what_retention_deletes_meanwhile_is_in_it(tmp_path: Path) -> None:
    log, _ = filled(FileStorage(tmp_path / "log"), retention_ms=WEEK_MS)
    moment = Moment(tmp_path / "log")
    before = list(log.batches("orders", 0))
    [deleted] = log.retain(LATE, {"orders/0": 1 << 40})
    assert deleted.segments > 1
    reader = LogReader.of(FileStorage(copy(moment, tmp_path / "copy"), read_only=True))
    assert [entry.header for entry in reader.batches("orders", 0)] == [entry.header for entry in before]
    assert reader.start("orders", 0) == 0
    late = LogReader.of(FileStorage(copied(tmp_path / "log", tmp_path / "late"), read_only=True))
    assert (late.start("orders", 0), late.watermark("orders", 0)) == (deleted.start, moment.ends["orders/0"])


def test_what_retention_deletes_before_that_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, _ = filled(FileStorage(tmp_path / "log"), retention_ms=WEEK_MS)
    hold, left = PartitionFiles.hold, [LATE]

    def late(files: PartitionFiles) -> bool:
        for now in left:
            log.retain(now, {"orders/0": 1 << 40})
        left.clear()
        return hold(files)

    monkeypatch.setattr(PartitionFiles, "hold", late)
    moment = Moment(tmp_path / "log")
    assert moment.starts["orders/0"] == log.start("orders", 0) > 0
    reader = LogReader.of(FileStorage(copy(moment, tmp_path / "copy"), read_only=True))
    assert reader.verify()[0].damage is None


def test_the_copy_goes_on_as_a_log_of_its_own(tmp_path: Path) -> None:
    log = open_log(FileStorage(tmp_path / "log"))
    writer = Writer(log)
    for number in range(50):
        writer.append(f"order-{number}")
    copied(tmp_path / "log", tmp_path / "copy")
    storage = FileStorage(tmp_path / "copy")
    with pytest.raises(DataDirectoryError, match="belongs to cluster second, not test"):
        open_log(storage)
    storage.close()
    again = open_log(FileStorage(tmp_path / "copy"), cluster="second", node="there")
    assert again.end("orders", 0) == writer.end, "no gap: the copy lost nothing"
    second = Writer(again, "second")
    assert (second.grant.epoch, second.grant.end) == (2, writer.end + 1)
    second.append("another")
    log.close()
    again.close()


def test_the_copy_of_an_empty_log(tmp_path: Path) -> None:
    open_log(FileStorage(tmp_path / "log")).close()
    copied(tmp_path / "log", tmp_path / "copy")
    log = open_log(FileStorage(tmp_path / "copy"), cluster="second", node="there")
    assert log.end("orders", 0) == 0
    Writer(log).append("a")


def test_where_no_log_lies(tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryError, match="it has no manifest"):
        Moment(tmp_path)


@pytest.mark.parametrize("spoil", ["data", "index", "watermark"])
def test_damage_is_not_copied(tmp_path: Path, spoil: str) -> None:
    log = open_log(FileStorage(tmp_path / "log"))
    Writer(log).append("a", "b", "c")
    log.close()
    damage: dict[str, Callable[[], object]] = {
        "data": lambda: flip(tmp_path / "log" / "orders" / "0" / f"{0:020d}.arrow", -100),
        "index": lambda: flip(tmp_path / "log" / "orders" / "0" / f"{0:020d}.index", -10),
        "watermark": lambda: (tmp_path / "log" / "orders" / "0" / "watermark").write_bytes(b"\xff\0\0\0\0\0\0\0"),
    }
    damage[spoil]()
    with pytest.raises(CorruptSegment):
        copied(tmp_path / "log", tmp_path / "copy")


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)

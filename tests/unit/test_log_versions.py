"""Given a log whose topic's columns grow, then old and new facts are one table, whoever dies and whenever."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from eventmesh.errors import CorruptSegment, DataDirectoryError, LogStopped, SchemaMismatch, StorageFull
from eventmesh.log import copying
from eventmesh.log.batch import Header, LogBatch, schema_message
from eventmesh.log.copying import Moment
from eventmesh.log.manifest import read_manifest
from eventmesh.log.segment import batches_on_disk
from eventmesh.log.simulated_storage import ProcessDied, SimulatedStorage
from eventmesh.log.storage import FileStorage, MemoryStorage, Storage
from eventmesh.log.store import Log, LogReader, open_read_only
from eventmesh.log.topic import Topic, TopicSettings
from eventmesh.messages import encode_rows
from tests.unit.log_story import END, LATE, NOON, ORDERS, Writer, ids, open_log, rows_at

COPIES = pa.field("copies", pa.int32())
FIRST = replace(ORDERS, schema=ORDERS.schema.append(COPIES))
#: A new column in front of one that is wider now.
SECOND = replace(FIRST, schema=pa.schema([*ORDERS.schema, pa.field("note", pa.string()), COPIES.with_type(pa.int64())]))
THIRD = replace(SECOND, schema=SECOND.schema.append(pa.field("lines", pa.list_(pa.int8()))))
OTHER = replace(FIRST, schema=FIRST.schema.append(pa.field("colour", pa.string())))
LONG = 1 << 40  # of a number that 32 bits do not hold


class Owner(Writer):
    """An incarnation of the orders service that was started with this version of the columns."""

    def __init__(self, log: Log, topic: Topic, incarnation: str) -> None:
        super().__init__(log, incarnation)
        self.topic = topic

    def say(self, name: str, **columns: Any) -> LogBatch:
        base = self.end
        header = Header(
            "facts", base, 1, self.grant.epoch, self.append_number, "orders", self.incarnation, self.time,
            version=self.topic.version,
        )  # fmt: skip
        row = {**rows_at(base, [name])[0], "dataschema": self.topic.dataschema, **columns}
        entry = LogBatch.encode(header, encode_rows(self.topic.schema, [row]))
        self.end = self.log.append("orders", 0, entry)
        self.append_number += 1
        return entry


def owner(log: Log, incarnation: str = "first") -> Owner:
    return Owner(log, log.topics["orders"], incarnation)


def grown(storage: Storage, *versions: Topic, level: str = "os") -> Log:
    """A log that was opened with one version after the other, and got a fact in each: open with the last."""
    for number, topic in enumerate(versions, 1):
        log = open_log(storage, topic, level=level)
        columns = {"copies": LONG if number > 1 else number} | ({"note": f"of {number}"} if number > 1 else {})
        owner(log, f"life {number}").say(f"order-{number}", **columns)
        log.sync()
    return log


def told(reader: LogReader, *columns: str) -> list[tuple[Any, ...]]:
    """These columns of every fact."""
    table = reader.table("orders", 0)
    facts = table.filter(pa.array([kind == "facts" for kind in table["kind"].to_pylist()], pa.bool_()))
    return list(zip(*(facts[column].to_pylist() for column in columns), strict=True))


def schemas_on_disk(storage: Storage) -> list[pa.Schema]:
    """What each segment begins with, as any Arrow reader sees it."""
    paths = [path for path in storage.list("orders/0") if path.endswith(".arrow")]
    return [pa.ipc.open_stream(storage.read(path, 0, storage.size(path))).schema for path in paths]


# --- one table ---------------------------------------------------------------------------------------


def test_old_and_new_facts_are_one_table_with_nulls_and_wider_values() -> None:
    storage = MemoryStorage()
    log = grown(storage, FIRST, SECOND, THIRD)
    assert (log.topics["orders"].version, log.topics["orders"].earlier) == (3, (FIRST.schema, SECOND.schema))
    expected = [
        ("order-1", "orders/1", 1, None, None),
        ("order-2", "orders/2", LONG, "of 2", None),
        ("order-3", "orders/3", LONG, "of 3", None),
    ]
    for reader in (log, LogReader.of(storage), open_log(storage, THIRD)):
        assert told(reader, "id", "dataschema", "copies", "note", "lines") == expected
        assert reader.table("orders", 0).schema.field("copies").type == pa.int64()
        assert [entry.batch.schema for entry in reader.batches("orders", 0)] == [THIRD.schema] * 6
    assert ids(log) == ["order-1", "order-2", "order-3"]


def test_each_segment_is_still_an_arrow_stream_of_its_own_columns() -> None:
    storage = MemoryStorage()
    log = grown(storage, FIRST, SECOND)
    assert schemas_on_disk(storage) == [FIRST.schema, SECOND.schema]
    versions = [(entry.header.kind, entry.header.version) for entry in log.batches("orders", 0)]
    assert versions == [("granted", 1), ("facts", 1), ("granted", 2), ("facts", 2)]
    heads = [entry.head for entry in log.batches("orders", 0)]
    assert [b'"version":' in head for head in heads] == [False, False, True, True], "as before, where it is the first"


def test_an_opening_with_the_same_columns_changes_nothing() -> None:
    storage = MemoryStorage()
    grown(storage, FIRST, SECOND)
    before = {path: bytes(content) for path, content in storage.files.items()}
    for _ in range(2):
        assert open_log(storage, SECOND).topics["orders"].version == 2
    assert storage.files == before


def test_an_empty_partition_takes_the_new_columns_where_it_is() -> None:
    storage = MemoryStorage()
    open_log(storage, FIRST)
    log = open_log(storage, SECOND)
    assert schemas_on_disk(storage) == [SECOND.schema]
    owner(log).say("a", note="new")
    assert told(log, "id", "note") == [("a", "new")]
    small = replace(FIRST, settings=TopicSettings(segment_bytes=1))
    storage = MemoryStorage()
    grown(storage, small)._partitions["orders", 0].roll()
    log = open_log(storage, SECOND)
    assert schemas_on_disk(storage) == [FIRST.schema, FIRST.schema, SECOND.schema]
    owner(log, "next").say("b", note="new")
    assert told(open_log(storage, SECOND), "id", "note") == [("order-1", None), ("b", "new")]


def test_a_topic_of_plain_rows_grows_as_well() -> None:
    plain = Topic("orders", "orders", "sku", 1, pa.schema([("sku", pa.string()), ("price", pa.float32())]))
    wide = replace(plain, schema=pa.schema([("price", pa.float64()), ("sku", pa.string()), ("note", pa.string())]))
    storage = MemoryStorage()
    for topic, row in ((plain, {"sku": "a", "price": 0.1}), (wide, {"sku": "b", "price": 0.1, "note": "n"})):
        log = open_log(storage, topic)
        grant = log.grant("orders", 0, "orders", str(row["sku"]))
        known = log.topics["orders"]
        header = Header("facts", grant.end, 1, grant.epoch, 0, "orders", str(row["sku"]), NOON, version=known.version)
        log.append("orders", 0, LogBatch.encode(header, encode_rows(topic.schema, [row])))
    narrow = struct.unpack("<f", struct.pack("<f", 0.1))[0]
    assert told(log, "price", "sku", "note") == [(narrow, "a", None), (0.1, "b", "n")]


def test_settings_may_change_together_with_columns() -> None:
    storage = MemoryStorage()
    grown(storage, FIRST)
    log = open_log(storage, replace(SECOND, settings=TopicSettings(segment_bytes=77)))
    assert log.topics["orders"].settings.segment_bytes == 77
    manifest = read_manifest(storage)
    assert manifest is not None
    assert manifest.topics == log.topics


def test_retention_takes_the_segments_of_earlier_versions_like_any_other() -> None:
    storage = MemoryStorage()
    log = grown(storage, FIRST, SECOND)
    keeping = replace(SECOND, settings=TopicSettings(retention_ms=1))
    log = open_log(storage, keeping)
    [deleted] = log.retain(LATE, {"orders/0": END})
    assert (deleted.start, log.start("orders", 0)) == (2, 2)
    assert told(open_log(storage, keeping), "id") == [("order-2",)]


def test_a_copy_has_both_versions(tmp_path: Path) -> None:
    grown(FileStorage(tmp_path / "log"), FIRST, SECOND).close()
    with closing(Moment(tmp_path / "log")) as moment:
        ends = moment.ends
        for file in moment.files():
            target = tmp_path / "copy" / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"".join(file.chunks))
    copying.settle(tmp_path / "copy", ends, cluster_id="test", node="here")
    log = open_log(FileStorage(tmp_path / "copy"), SECOND)
    assert told(log, "id", "copies", "note") == [("order-1", 1, None), ("order-2", LONG, "of 2")]
    log.close()


def test_what_rots_in_a_segment_of_an_earlier_version_is_found_there() -> None:
    storage = MemoryStorage()
    grown(storage, FIRST, SECOND)
    found = batches_on_disk(storage, "orders/0", closed=True)
    assert found is not None
    path, batches = found
    assert batches.start == len(schema_message(FIRST.schema))
    storage.files[path][batches[-9]] ^= 1
    [finding] = LogReader.of(storage).verify()
    assert (finding.damage and finding.damage.file, finding.damage and finding.damage.offset) == (path, 1)


# --- who may go on, and who may not ------------------------------------------------------------------


@pytest.mark.parametrize("asked", [FIRST, ORDERS, OTHER])
def test_nothing_goes_back(asked: Topic) -> None:
    storage = MemoryStorage()
    grown(storage, FIRST, SECOND)
    before = {path: bytes(content) for path, content in storage.files.items()}
    with pytest.raises(DataDirectoryError) as refused:
        open_log(storage, asked)
    assert storage.files == before
    assert ("version 1 of its columns is asked for, and version 2 is stored" in str(refused.value)) == (asked is FIRST)
    assert ("start the application that has version 2, or restore a backup" in str(refused.value)) == (asked is FIRST)
    assert ("column note: stored string, found none" in str(refused.value)) == (asked is not FIRST)


def test_everything_that_is_wrong_is_said_at_once_topic_by_topic() -> None:
    storage, stock = MemoryStorage(), replace(ORDERS, name="stock", owner="inventory")
    open_log(storage, FIRST, more={"stock": stock})
    wrong = replace(FIRST, partitions=3, schema=pa.schema([*ORDERS.schema, COPIES.with_type(pa.int8())]))
    with pytest.raises(DataDirectoryError) as refused:
        open_log(storage, wrong, more={"stock": replace(stock, owner="shop", key="id")})
    assert [line.partition(". ")[0] for line in str(refused.value).splitlines()] == [
        "the topics that are asked for do not go on with those that are stored:",
        "  orders: partitions: stored 1, found 3",
        "  orders: column copies: stored int32, found int8",
        "  stock: owner: stored 'inventory', found 'shop'",
        "  stock: key: stored 'order_id', found 'id'",
    ]


@pytest.mark.parametrize("mode", ["FORWARD", "FULL", "NONE", "FULL_TRANSITIVE"])
def test_by_a_mode_that_is_not_carried_out_nothing_changes(mode: Any) -> None:
    storage = MemoryStorage()
    grown(storage, replace(FIRST, compatibility=mode))
    with pytest.raises(DataDirectoryError, match=f"By {mode} nothing changes yet: write BACKWARD"):
        open_log(storage, replace(SECOND, compatibility=mode))
    assert open_log(storage, replace(FIRST, compatibility=mode)).topics["orders"].version == 1
    assert open_log(storage, replace(SECOND, compatibility="BACKWARD_TRANSITIVE")).topics["orders"].version == 2


@pytest.mark.parametrize("stale", [FIRST, replace(SECOND, earlier=(FIRST.schema, OTHER.schema))])
def test_a_writer_of_another_version_is_refused(stale: Topic) -> None:
    log = grown(MemoryStorage(), FIRST, SECOND)
    writer = Owner(log, stale, "a zombie")
    with pytest.raises(SchemaMismatch, match=rf"the rows have version {stale.version} of the columns, .* 2\."):
        writer.say("late")
    assert ids(log) == ["order-1", "order-2"]


def test_a_reader_that_began_before_says_what_has_happened() -> None:
    storage = MemoryStorage()
    grown(storage, FIRST)
    reader = LogReader.of(storage)
    assert ids(reader) == ["order-1"]
    log = open_log(storage, SECOND)
    assert ids(reader) == ["order-1"], "nothing has come since"
    owner(log, "next").say("order-2")
    with pytest.raises(DataDirectoryError, match="orders has version 2 of its columns by now, and version 1 when this"):
        ids(reader)
    storage.files["orders/0/00000000000000000002.index"][:] = b""
    with pytest.raises(CorruptSegment):
        ids(LogReader.of(storage))


# --- deaths and full disks ---------------------------------------------------------------------------

Facts = list[tuple[Any, ...]]
Begin = Callable[[SimulatedStorage, str], Facts]


def with_facts(disk: SimulatedStorage, level: str) -> Facts:
    return told(grown(disk, FIRST, level=level), "id", "copies")


def empty(disk: SimulatedStorage, level: str) -> Facts:
    open_log(disk, FIRST, level=level)
    return []


def ended_a_segment(disk: SimulatedStorage, level: str) -> Facts:
    log = grown(disk, FIRST, level=level)
    log._partitions["orders", 0].roll()
    return told(log, "id", "copies")


def before_the_machine_died(disk: SimulatedStorage, level: str) -> Facts:
    """At level ``os`` nobody synced the facts: the next opening has a gap to record."""
    log = open_log(disk, FIRST, level=level)
    writer = owner(log, "life 1")
    for number in range(3):
        writer.say(f"order-{number}", copies=number)
    if level == "fsync":
        log.sync()
    facts = told(log, "id", "copies")
    disk.crash_machine()
    return facts


UNTIL_THE_END = 1 << 20
BEGINNINGS: list[Begin] = [with_facts, empty, ended_a_segment, before_the_machine_died]


def opened_after(begin: Begin, level: str, die_after: int) -> tuple[SimulatedStorage, Facts, bool]:
    """The disk after an opening with new columns by a process that does so much and dies; and whether it died."""
    disk = SimulatedStorage(random.Random(die_after))
    before = begin(disk, level)
    disk.die_after = die_after
    try:
        open_log(disk, SECOND, level=level)
    except ProcessDied:
        return disk, before, True
    return disk, before, False


def deaths(begin: Begin, level: str) -> Iterator[tuple[SimulatedStorage, Facts]]:
    """The disk after a death in the middle of such an opening, at each step of it; and the facts before."""
    disk, _, _ = opened_after(begin, level, UNTIL_THE_END)
    assert disk.die_after is not None
    last = UNTIL_THE_END - disk.die_after
    # Each byte of a write is a step of its own, and in the middle of a long one many end alike.
    for die_after in sorted({*range(0, last, 61), *range(min(last, 50)), *range(max(0, last - 50), last)}):
        disk, before, died = opened_after(begin, level, die_after)
        assert died
        yield disk, before


@pytest.mark.parametrize("machine", [False, True], ids=["process", "machine"])
@pytest.mark.parametrize("level", ["os", "fsync"])
@pytest.mark.parametrize("begin", BEGINNINGS)
def test_whoever_dies_at_any_point_of_it_leaves_a_directory_that_opens_again(
    begin: Begin, level: str, machine: bool
) -> None:
    versions = set()
    for disk, before in deaths(begin, level):
        disk.crash_machine() if machine else disk.restart_process()
        manifest = read_manifest(disk)
        assert manifest is not None
        registered = manifest.topics["orders"]
        versions.add(registered.version)
        assert [each for each in schemas_in(disk) if each not in (*registered.earlier, registered.schema)] == [], (
            "a version is registered before anything has it"
        )
        if registered.version == 2:
            for back in (FIRST, OTHER):
                with pytest.raises(DataDirectoryError):
                    open_log(disk, back, level=level)
        log = open_log(disk, SECOND, level=level)
        kept = told(log, "id", "copies")
        assert kept == before[: len(kept)]
        assert len(kept) == len(before) or (level == "os" and (machine or begin is before_the_machine_died))
        owner(log, "next").say("new", note="n", copies=LONG)
        log.sync()
        for reader in (LogReader.of(disk), open_log(disk, SECOND, level=level)):
            assert told(reader, "id", "copies", "note") == [*((*each, None) for each in kept), ("new", LONG, "n")]
        assert [each.damage for each in LogReader.of(disk).verify()] == [None]
    assert versions == {1, 2}, "some died before it was registered, and some after"


def schemas_in(disk: SimulatedStorage) -> list[pa.Schema]:
    """Those of segments whose beginning is whole."""
    found = []
    for path in disk.list("orders/0"):
        if path.endswith(".arrow"):
            try:
                found.append(pa.ipc.open_stream(disk.read(path, 0, disk.size(path))).schema)
            except (pa.ArrowInvalid, OSError):
                continue  # torn
    return found


def test_before_it_is_registered_the_old_application_goes_on() -> None:
    gone_on = 0
    for disk, before in deaths(with_facts, "os"):
        disk.restart_process()
        manifest = read_manifest(disk)
        assert manifest is not None
        if manifest.topics["orders"].version == 1:
            assert told(open_log(disk, FIRST), "id", "copies") == before
            gone_on += 1
    assert gone_on


def test_without_room_it_is_begun_again_when_there_is_some() -> None:
    disk = SimulatedStorage(random.Random(1))
    with_facts(disk, "os")
    disk.full = True
    with pytest.raises(StorageFull):
        open_log(disk, SECOND)
    disk.full = False
    disk.fail_sync = True
    with pytest.raises(LogStopped):
        open_log(disk, SECOND)
    disk.fail_sync = False
    log = open_log(disk, SECOND)
    owner(log, "next").say("order-2", note="n")
    assert told(log, "id", "note") == [("order-1", None), ("order-2", "n")]


def test_files_grow_as_memory_does(tmp_path: Path) -> None:
    grown(FileStorage(tmp_path), FIRST, SECOND, level="fsync").close()
    with closing(open_read_only(tmp_path)) as reader:
        assert told(reader, "id", "copies", "note") == [("order-1", 1, None), ("order-2", LONG, "of 2")]
    for path, schema in zip(sorted(tmp_path.glob("orders/0/*.arrow")), (FIRST.schema, SECOND.schema), strict=True):
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as stream:
            assert stream.schema == schema
            stream.read_all().validate(full=True)

"""What lies in the data directory: plain Arrow segments, an index beside them, a manifest, a lock."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from eventmesh.errors import CorruptSegment, DataDirectoryError, LogStopped, StorageFull
from eventmesh.log.batch import LogBatch
from eventmesh.log.partition_files import RecentBatches
from eventmesh.log.storage import FileStorage, MemoryStorage, machine_id
from eventmesh.log.store import Durability, Log, open_read_only, read_stored, read_table, read_topics, verify
from tests.unit.log_story import ORDERS, SMALL, Writer, ids, open_log

SEGMENT = "orders/0/00000000000000000000.arrow"


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[FileStorage]:
    storage = FileStorage(tmp_path)
    yield storage
    storage.close()


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_given_a_segment_then_any_arrow_reader_opens_it(storage: FileStorage, tmp_path: Path) -> None:
    writer = Writer(open_log(storage))
    writer.append("a", "b")
    with pa.memory_map(str(tmp_path / SEGMENT)) as file, pa.ipc.open_stream(file) as stream:
        table = stream.read_all()
    assert table.column("sequence").to_pylist() == [0, 1, 2]
    assert table.schema == ORDERS.schema


def test_given_many_appends_then_segments_roll_and_closed_ones_end_their_stream(
    storage: FileStorage, tmp_path: Path
) -> None:
    log = open_log(storage, SMALL)
    writer = Writer(log)
    for number in range(20):
        writer.append(f"order-{number}")
    segments = sorted((tmp_path / "orders/0").glob("*.arrow"))
    assert len(segments) > 3
    assert all(segment.read_bytes().endswith(b"\xff\xff\xff\xff\0\0\0\0") for segment in segments[:-1])
    rows = 0
    for segment in segments:
        assert int(segment.stem) == rows
        assert segment.stat().st_size <= SMALL.settings.segment_bytes + 8
        with pa.memory_map(str(segment)) as file, pa.ipc.open_stream(file) as stream:
            rows += stream.read_all().num_rows
    assert rows == writer.end
    assert ids(log) == [f"order-{number}" for number in range(20)]
    assert ids(log, 10) == [f"order-{number}" for number in range(9, 20)]


def test_given_a_closed_log_then_it_opens_with_everything_in_place(tmp_path: Path) -> None:
    log = open_log(FileStorage(tmp_path), SMALL)
    first = Writer(log)
    last = [first.append(f"order-{number}") for number in range(20)][-1]
    log.close()
    log = open_log(FileStorage(tmp_path), SMALL)
    assert log.append("orders", 0, last) == first.end  # still the last append, hence acknowledged again
    heir = Writer(log, "second")
    assert (heir.grant.epoch, heir.grant.end) == (2, first.end + 1)
    heir.append("later")
    assert ids(log) == [*(f"order-{number}" for number in range(20)), "later"]
    log.close()


def test_given_a_directory_in_use_then_the_process_that_holds_it_is_named(storage: FileStorage, tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryError, match=f"in use by process {os.getpid()}"):
        FileStorage(tmp_path)
    storage.close()
    FileStorage(tmp_path).close()


def test_given_another_cluster_then_the_directory_is_refused() -> None:
    storage = MemoryStorage()
    open_log(storage, cluster="one")
    with pytest.raises(DataDirectoryError, match="belongs to cluster one, not two"):
        open_log(storage, cluster="two")


def test_given_another_node_then_the_directory_stays_where_it_is(tmp_path: Path) -> None:
    log = open_log(FileStorage(tmp_path), node="attic")
    Writer(log).append("a")
    log.close()
    copied = FileStorage(tmp_path)
    with pytest.raises(DataDirectoryError, match=r"belongs to node attic, this is node cellar.*Start its broker on"):
        open_log(copied, node="cellar")
    copied.close()
    log = open_log(FileStorage(tmp_path), node="attic")
    assert ids(log) == ["a"]
    log.close()


def test_given_a_directory_then_the_cluster_it_belongs_to_can_be_read(tmp_path: Path) -> None:
    assert read_stored(tmp_path / "nowhere") is None
    assert read_stored(tmp_path) is None
    log = open_log(FileStorage(tmp_path), cluster="one")
    beside = read_stored(tmp_path)
    log.close()
    for found in (beside, read_stored(tmp_path)):
        assert found is not None
        assert (found.cluster_id, found.topics) == ("one", {"orders": ORDERS})


def test_given_a_machine_without_an_id_then_its_host_name_stands_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventmesh.log.storage._MACHINE_ID", tmp_path / "machine-id")
    assert machine_id() == os.uname().nodename
    (tmp_path / "machine-id").write_text("0123456789abcdef\n")
    assert machine_id() == "0123456789abcdef"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"owner": "payments"}, "orders: owner: stored 'orders', found 'payments'. A topic keeps its writer"),
        ({"partitions": 2}, "orders: partitions: stored 1, found 2. They are fixed at creation"),
        ({"key": "id"}, "orders: key: stored 'order_id', found 'id'. Its partitions were chosen by that"),
        ({"schema": ORDERS.schema.remove(12)}, "orders: column order_id: stored string, found none. Keep it"),
    ],
)
def test_given_another_description_of_a_known_topic_then_the_difference_is_named(
    change: dict[str, object], message: str
) -> None:
    storage = MemoryStorage()
    open_log(storage)
    with pytest.raises(DataDirectoryError, match=message):
        open_log(storage, replace(ORDERS, **change))  # type: ignore[arg-type]


def test_given_a_further_topic_then_it_is_added_and_the_known_ones_stay() -> None:
    storage = MemoryStorage()
    Writer(open_log(storage)).append("a")
    payments = replace(ORDERS, name="payments", owner="payments", partitions=3)
    log = Log.open(
        storage, {"payments": payments}, durability=Durability.os, cluster_id="test", node="here", clock=lambda: 0
    )
    assert sorted(log.topics) == ["orders", "payments"]
    assert log.grant("payments", 2, "payments", "first").end == 1
    assert ids(log) == ["a"]


def test_given_another_format_version_then_the_directory_is_refused() -> None:
    storage = MemoryStorage()
    open_log(storage)
    manifest = json.loads(storage.files["manifest.json"])
    storage.replace("manifest.json", json.dumps({**manifest, "format_version": 99}).encode())
    with pytest.raises(DataDirectoryError, match="format version 99"):
        open_log(storage)
    storage.replace("manifest.json", b"{")
    with pytest.raises(DataDirectoryError, match="damaged"):
        open_log(storage)


def test_given_a_topic_in_the_manifest_whose_files_are_gone_then_it_is_not_created_anew() -> None:
    storage = MemoryStorage()
    Writer(open_log(storage)).append("a")
    for path in storage.list("orders/0"):
        storage.remove(path)
    with pytest.raises(DataDirectoryError, match="files are gone"):
        open_log(storage)


def test_given_files_without_a_manifest_then_they_are_not_taken_over() -> None:
    storage = MemoryStorage()
    Writer(open_log(storage)).append("a")
    storage.remove("manifest.json")
    with pytest.raises(DataDirectoryError, match="manifest does not know"):
        open_log(storage)


def test_given_rot_in_a_closed_segment_then_reading_and_verifying_name_file_and_offset(tmp_path: Path) -> None:
    log = open_log(FileStorage(tmp_path), SMALL)
    writer = Writer(log)
    for number in range(20):
        writer.append(f"order-{number}")
    log.close()
    segment = sorted((tmp_path / "orders/0").glob("*.arrow"))[1]
    flip(segment, segment.stat().st_size - 100)
    log = open_log(FileStorage(tmp_path), SMALL)
    with pytest.raises(CorruptSegment) as damage:
        ids(log)
    assert damage.value.file == f"orders/0/{segment.name}"
    [finding] = log.verify()
    assert finding.damage is not None
    assert finding.damage.offset == damage.value.offset > int(segment.stem)
    assert f"byte {damage.value.position}" in str(damage.value)
    log.close()


def test_given_a_closed_segment_without_its_last_index_entry_then_it_is_rot(tmp_path: Path) -> None:
    log = open_log(FileStorage(tmp_path), SMALL)
    writer = Writer(log)
    for number in range(20):
        writer.append(f"order-{number}")
    log.close()
    index = sorted((tmp_path / "orders/0").glob("*.index"))[1]
    os.truncate(index, index.stat().st_size - 32)
    log = open_log(FileStorage(tmp_path), SMALL)
    with pytest.raises(CorruptSegment, match="should reach offset"):
        ids(log)
    log.close()


def test_given_healthy_files_then_verify_counts_them(storage: FileStorage, tmp_path: Path) -> None:
    log = open_log(storage)
    sizes = [Writer(log).append("a", "b").message.size]
    [finding] = verify(tmp_path)
    assert (finding.damage, finding.watermark, finding.batches) == (None, 3, 2)
    assert finding.bytes > sizes[0]


def test_given_a_reader_beside_the_writer_then_it_follows_across_segments(storage: FileStorage, tmp_path: Path) -> None:
    log = open_log(storage, SMALL)
    reader = open_read_only(tmp_path)
    assert reader.read("orders", 0, 0) == []
    writer = Writer(log)
    for number in range(20):
        writer.append(f"order-{number}")
        [entry] = reader.read("orders", 0, writer.end - 1)
        assert entry.batch.column("id").to_pylist() == [f"order-{number}"]
    assert reader.watermark("orders", 0) == writer.end
    assert reader.read("orders", 0, writer.end) == []
    reader.close()


def test_given_the_files_then_all_rows_come_as_one_table_with_their_place(storage: FileStorage, tmp_path: Path) -> None:
    writer = Writer(open_log(storage))
    writer.append("a", "b")
    assert read_topics(tmp_path) == {"orders": ORDERS}
    table = read_table(tmp_path, "orders", 0)
    extra = table.select(["id", "offset", "partition", "epoch", "base", "kind"]).to_pylist()
    assert [tuple(row.values()) for row in extra] == [
        ("orders/0/epoch/1", 0, 0, 1, 0, "granted"),
        ("a", 1, 0, 1, 1, "facts"),
        ("b", 2, 0, 1, 1, "facts"),
    ]


def test_given_an_empty_directory_then_there_is_nothing_to_audit(tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryError, match="no manifest"):
        read_topics(tmp_path)


def test_given_a_mapped_counter_then_other_processes_see_what_was_stored(storage: FileStorage, tmp_path: Path) -> None:
    storage.counter("orders/0/watermark").set(-(1 << 62))
    reader = FileStorage(tmp_path, read_only=True)
    assert reader.counter("orders/0/watermark").get() == -(1 << 62)
    assert (tmp_path / "orders/0/watermark").stat().st_size == 8
    reader.close()


def test_given_a_disk_that_fills_in_the_middle_of_a_write_then_the_part_is_cut_back(
    storage: FileStorage, tmp_path: Path
) -> None:
    storage.append("file", 0, b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, before[1]))
    try:
        with pytest.raises(StorageFull, match="Nothing was appended"):
            storage.append("file", 6, b"x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (tmp_path / "file").read_bytes() == b"before"
    storage.append("file", 6, b", after")
    assert storage.read("file", 0, 100).to_pybytes() == b"before, after"


@pytest.mark.parametrize("call", ["open", "pwrite", "fsync"])
def test_given_a_full_disk_then_what_was_to_be_replaced_stays(
    storage: FileStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    storage.replace("number", b"1")

    def no_room(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, no_room)
        with pytest.raises(StorageFull, match=r"number: No space left on device\. Nothing was appended"):
            storage.replace("number", b"2")
    assert [(each.name, each.read_bytes()) for each in tmp_path.glob("number*")] == [("number", b"1")]
    storage.replace("number", b"3")
    assert (tmp_path / "number").read_bytes() == b"3"


KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
from tests.unit.log_story import SMALL, Writer, open_log
from eventmesh.log.storage import FileStorage
writer = Writer(open_log(FileStorage({directory!r}), SMALL))
for number in range(30):
    writer.append(f"order-{{number}}")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_given_a_real_disk_that_failed_a_sync_then_the_next_opening_copies_its_files(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path)
    log = open_log(storage)
    Writer(log).append("a")

    def fail(path: str) -> None:
        raise OSError(5, "Input/output error")

    storage.sync = fail  # type: ignore[method-assign]
    with pytest.raises(LogStopped):
        log.grant("orders", 0, "orders", "second")
    storage.close()
    before = (tmp_path / SEGMENT).stat().st_ino
    log = open_log(FileStorage(tmp_path))
    assert (tmp_path / SEGMENT).stat().st_ino != before
    Writer(log, "third").append("b")
    assert ids(log) == ["a", "b"]
    log.close()
    log = open_log(FileStorage(tmp_path))
    assert ids(log) == ["a", "b"]
    log.close()


def test_given_kill_9_then_what_was_acknowledged_at_level_os_is_there(tmp_path: Path) -> None:
    program = KILLED.format(path=[path for path in sys.path if path], directory=str(tmp_path))
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    log = open_log(FileStorage(tmp_path), SMALL)
    assert ids(log) == [f"order-{number}" for number in range(30)]
    assert [entry.header.kind for entry in log.batches("orders", 0)].count("truncated") == 0
    log.close()


def held(entry: LogBatch) -> int:
    recent = RecentBatches(1 << 30)
    recent.add("orders/0", entry)
    return recent._bytes


def test_given_a_batch_that_came_in_a_larger_frame_then_the_frame_counts() -> None:
    entry = Writer(open_log(MemoryStorage())).batch("a")
    frame = pa.py_buffer(b"x" * 100_000 + entry.message.to_pybytes())
    sliced = LogBatch(entry.header, frame.slice(100_000), entry.schema, entry.head)
    alone = LogBatch(entry.header, pa.py_buffer(entry.message.to_pybytes()), entry.schema, entry.head)
    assert held(sliced) == held(alone) + 100_000
    assert held(alone) > 2 * entry.message.size + 600 * len(entry.schema)


def test_given_recent_batches_beyond_their_limit_then_the_oldest_go() -> None:
    writer = Writer(open_log(MemoryStorage()))
    entries = [writer.append(name) for name in "abc"]
    recent = RecentBatches(2 * held(entries[1]))
    for entry in entries:
        recent.add("orders/0", entry)
    assert [recent.get("orders/0", entry.header.base) for entry in entries] == [None, *entries[1:]]
    recent = RecentBatches(0)
    recent.add("orders/0", entries[0])
    assert recent.get("orders/0", 1) is None

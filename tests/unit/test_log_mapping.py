"""Readers map what the writer writes: ahead of its end, never beyond what is there, and without decoding rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmesh.errors import CorruptSegment
from eventmesh.log import mapped_files, storage
from eventmesh.log.batch import METADATA_KEY, Header, LogBatch, embedded_head, schema_message
from eventmesh.log.mapped_files import MappedFile
from eventmesh.log.storage import FileStorage
from eventmesh.log.store import open_read_only
from tests.unit.log_story import ORDERS, Writer, facts, open_log

SEGMENT = "orders/0/00000000000000000000.arrow"
KINDS = [pa.int64(), pa.string(), pa.list_(pa.struct([("sku", pa.string()), ("quantity", pa.int32())])), pa.bool_()]


@pytest.fixture
def files(tmp_path: Path) -> Iterator[FileStorage]:
    files = FileStorage(tmp_path)
    yield files
    files.close()


def message_of(batch: pa.RecordBatch, metadata: dict[bytes, bytes]) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        start = len(schema_message(batch.schema))
        writer.write_batch(batch, custom_metadata=metadata)
        end = sink.tell()
    return sink.getvalue().slice(start, end - start)


@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=30),
    rows=st.integers(0, 5),
    head=st.binary(max_size=300),
    others=st.dictionaries(st.binary(max_size=20).filter(lambda key: key != METADATA_KEY), st.binary(max_size=20)),
)
def test_given_any_message_then_the_header_is_what_arrow_finds(
    kinds: list[pa.DataType], rows: int, head: bytes, others: dict[bytes, bytes]
) -> None:
    schema = pa.schema([pa.field(f"column-{number}", kind) for number, kind in enumerate(kinds)])
    batch = pa.RecordBatch.from_pylist([{} for _ in range(rows)], schema)
    message = message_of(batch, {**others, METADATA_KEY: head})
    stream = pa.ipc.open_stream(pa.py_buffer(schema_message(schema) + message.to_pybytes()))
    assert embedded_head(message) == head == stream.read_next_batch_with_custom_metadata()[1][METADATA_KEY]


def test_given_a_message_without_a_header_then_the_reader_says_so() -> None:
    batch = facts(0, ["a"]).batch
    with pytest.raises(ValueError, match="no custom metadata"):
        embedded_head(batch.serialize())
    with pytest.raises(ValueError, match="no key eventmesh"):
        embedded_head(message_of(batch, {b"other": b"x"}))
    for length in (0, 3, 8, 20):
        with pytest.raises(ValueError, match="no Arrow IPC message"):
            embedded_head(facts(0, ["a"]).message.slice(0, length))


def test_given_a_stored_batch_then_its_rows_are_decoded_when_they_are_asked_for() -> None:
    entry = facts(7, ["a", "b"])
    decoded = LogBatch.decode(entry.message, ORDERS.schema)
    assert (decoded.header, decoded.head) == (entry.header, entry.head)
    assert "batch" not in vars(decoded)
    assert decoded.batch.equals(entry.batch)


def test_given_a_control_record_then_its_header_comes_back_with_what_it_says() -> None:
    header = Header("truncated", 5, 1, 1, 0, "orders", "first", 1, control={"lost_from": 2})
    assert Header.from_bytes(header.to_bytes()) == header
    assert b"control" not in facts(0, ["a"]).head


def test_given_a_file_that_grows_then_one_mapping_shows_it_all(files: FileStorage, tmp_path: Path) -> None:
    files.append("file", 0, b"one")
    mapped = MappedFile(tmp_path / "file")
    files.append("file", 3, b"two")
    assert mapped.view(0, 100).to_pybytes() == b"one"
    assert mapped.look_again()
    assert mapped.view(3, 100).to_pybytes() == b"two"
    assert mapped.view(6, 1).size == 0


def test_given_a_file_that_outgrows_its_mapping_then_it_is_mapped_anew_and_old_views_stay(
    files: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped_files, "REACH_MIN", 4_096)
    files.append("file", 0, b"a" * 4_000)
    first = files.read("file", 0, 4_000)
    files.append("file", 4_000, b"b" * 4_000)
    assert files.read("file", 4_000, 4_000).to_pybytes() == b"b" * 4_000
    files.remove("file")
    assert first.to_pybytes() == b"a" * 4_000


def test_given_a_file_that_was_replaced_then_readers_find_the_other_one(files: FileStorage, tmp_path: Path) -> None:
    files.append("file", 0, b"old")
    reader = FileStorage(tmp_path, read_only=True)
    assert reader.read("file", 0, 10).to_pybytes() == b"old"
    files.replace("file", b"old, then new")
    assert reader.read("file", 0, 100).to_pybytes() == b"old, then new"
    files.remove("file")
    assert reader.read("file", 0, 100).to_pybytes() == b"old, then new"
    assert reader.read("missing", 0, 100).size == 0


def test_given_more_files_than_stay_mapped_then_the_oldest_mapping_goes(
    files: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "MAPS_MAX", 2)
    for name in "abc":
        files.append(name, 0, name.encode())
    views = [files.read(name, 0, 1) for name in "abc"]
    assert sorted(files._maps) == ["b", "c"]
    assert [view.to_pybytes() for view in views] == [b"a", b"b", b"c"]
    assert files.read("a", 0, 1).to_pybytes() == b"a"


def test_given_much_that_was_looked_at_then_its_pages_are_let_go_and_views_stay(
    files: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "LOOKED_AT_MAX", 1 << 20)
    piece = os.urandom(1 << 18)
    for number in range(40):
        files.append("file", number * len(piece), piece)
    views = []
    for number in range(40):
        views.append(files.read("file", number * len(piece), len(piece)))
        assert views[-1].to_pybytes() == piece
        assert resident(files.directory / "file") <= (2 << 20)
    assert all(view.to_pybytes() == piece for view in views)


def resident(file: Path) -> int:
    """Bytes of the file that this process has paged in."""
    return sum(each.rss for each in psutil.Process().memory_maps() if each.path == str(file))


def test_given_a_data_file_that_ends_too_soon_then_that_is_damage_and_no_sigbus(
    files: FileStorage, tmp_path: Path
) -> None:
    writer = Writer(open_log(files))
    for number in range(20):
        writer.append(f"order-{number}")
    os.truncate(tmp_path / SEGMENT, 4_096)
    with pytest.raises(CorruptSegment, match="bytes are there"):
        list(open_read_only(tmp_path).batches("orders", 0))


def test_given_a_file_that_cannot_be_mapped_then_the_error_says_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setattr(mapped_files, "REACH_MIN", 1 << 60)
    with pytest.raises(OSError, match=f"{1 << 60} bytes cannot be mapped"):
        MappedFile(tmp_path / "file")

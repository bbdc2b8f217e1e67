"""A topic of plain rows, without an envelope: what the log promises of headers and offsets holds all the same."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from eventmesh.errors import AppendRefused, ConfigurationError, Fenced, LogTruncated, OffsetMismatch, SchemaMismatch
from eventmesh.log.batch import Header, LogBatch
from eventmesh.log.partition import gap_of, progressed
from eventmesh.log.partition_files import RESERVATION_BLOCK
from eventmesh.log.simulated_storage import SimulatedStorage
from eventmesh.log.storage import FileStorage, MemoryStorage
from eventmesh.log.store import Log, open_read_only, read_table
from eventmesh.log.topic import Topic
from eventmesh.messages import ENVELOPE
from tests.unit.log_story import NOON, ORDERS, open_log

SCHEMA = pa.schema([("order_number", pa.int64()), ("price", pa.float64()), ("sku", pa.string())])
PLAIN = Topic("lines", "sales", "sku", 1, SCHEMA)
SKU = "sku-0000000001"


def rows_of(*numbers: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array(numbers, pa.int64()), pa.array([1.5] * len(numbers)), pa.array([SKU] * len(numbers))], schema=SCHEMA
    )


def plain(base: int, *numbers: int, append: int = 0, epoch: int = 1) -> LogBatch:
    header = Header("facts", base, len(numbers), epoch, append, "sales", "first", NOON, {"next": {"orders/0": base}})
    return LogBatch.encode(header, rows_of(*numbers))


@pytest.fixture
def log() -> Log:
    log = open_log(MemoryStorage(), PLAIN)
    log.grant("lines", 0, "sales", "first")
    return log


def test_given_plain_rows_then_they_are_appended_read_and_tabled(tmp_path: Path) -> None:
    log = open_log(FileStorage(tmp_path), PLAIN)
    log.grant("lines", 0, "sales", "first")
    assert log.append("lines", 0, plain(1, 10, 11)) == 3
    assert log.append("lines", 0, plain(3, 12, append=1)) == 4
    reader = open_read_only(tmp_path)
    assert reader.topics == {"lines": PLAIN}
    granted, first, second = reader.read("lines", 0, 0)
    assert (first.header.base, first.header.progress) == (1, {"next": {"orders/0": 1}})
    assert second.batch.to_pylist() == [{"order_number": 12, "price": 1.5, "sku": SKU}]
    assert granted.header.kind == "granted"
    assert granted.batch.to_pylist() == [{"order_number": None, "price": None, "sku": None}]
    table = read_table(tmp_path, "lines", 0).select(["order_number", "offset", "base", "epoch", "kind"])
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        (None, 0, 0, 1, "granted"),
        (10, 1, 1, 1, "facts"),
        (11, 2, 1, 1, "facts"),
        (12, 3, 3, 1, "facts"),
    ]
    log.close()


def test_given_a_repeat_a_zombie_or_another_end_then_plain_rows_are_judged_as_all_others(log: Log) -> None:
    entry = plain(1, 10)
    assert log.append("lines", 0, entry) == log.append("lines", 0, entry) == 2
    with pytest.raises(OffsetMismatch):
        log.append("lines", 0, plain(1, 11))
    log.grant("lines", 0, "sales", "second")
    with pytest.raises(Fenced):
        log.append("lines", 0, plain(3, 11, append=1))


def test_given_rows_that_are_no_valid_rows_of_the_topic_then_they_are_refused(log: Log) -> None:
    entry = plain(1, 10)
    with pytest.raises(AppendRefused, match="says 2 rows"):
        log.append("lines", 0, LogBatch.encode(replace(entry.header, rows=2), entry.batch))
    with pytest.raises(SchemaMismatch, match="sku is missing"):
        log.append("lines", 0, LogBatch.encode(entry.header, entry.batch.select(["order_number", "price"])))
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff"))
    with pytest.raises(AppendRefused, match="not valid Arrow"):
        log.append("lines", 0, LogBatch.encode(entry.header, entry.batch.set_column(2, SCHEMA.field(2), broken)))
    assert log.append("lines", 0, entry) == 2


def test_given_bytes_that_are_no_message_or_hold_another_header_then_they_are_refused(log: Log) -> None:
    entry = plain(1, 10)
    for message in (pa.py_buffer(b""), entry.message.slice(0, 100), rows_of(10).serialize()):
        with pytest.raises(AppendRefused, match="not valid Arrow"):
            log.append("lines", 0, LogBatch(entry.header, message, SCHEMA, entry.head))
    later = replace(entry.header, time=NOON + 1)
    with pytest.raises(AppendRefused, match="another header"):
        log.append("lines", 0, LogBatch(later, entry.message, SCHEMA, later.to_bytes()))
    assert log.end("lines", 0) == 1


def test_given_progress_without_rows_then_it_is_a_row_of_nulls(log: Log) -> None:
    vector = {"next": {"orders/0": 7}}
    entry = progressed(PLAIN, 0, base=1, epoch=1, append=0, incarnation="first", time=NOON, progress=vector)
    assert log.append("lines", 0, entry) == 2
    [record] = log.read("lines", 0, 1)
    assert (record.header.kind, record.header.progress) == ("progressed", vector)


def test_given_a_dead_machine_then_the_header_says_where_the_gap_is_and_no_column_does() -> None:
    located = replace(PLAIN, schema=SCHEMA.append(pa.field("position", pa.int64())))
    disk = SimulatedStorage(random.Random(1))
    open_log(disk, located).grant("lines", 0, "sales", "first")
    disk.crash_machine()
    log = open_log(disk, located)
    [gap] = [entry for entry in log.batches("lines", 0) if entry.header.kind == "truncated"]
    assert gap_of(gap) == (1, 1 + RESERVATION_BLOCK)
    assert gap.batch.column("position").to_pylist() == [None]
    with pytest.raises(LogTruncated):
        log.read("lines", 0, RESERVATION_BLOCK)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (SCHEMA.append(ENVELOPE[0]), "column id is the envelope's.*column 0 should be .*id: string not null"),
        (ORDERS.schema.remove(3), "column 3 should be .*subject: string"),
        (ORDERS.schema.set(9, pa.field("sequence", pa.int32(), nullable=False)), "column 9 should be .*int64"),
        (pa.schema(list(reversed(ORDERS.schema))), "column 0 should be"),
        (pa.schema(ENVELOPE[:3]), "column 3 should be"),
    ],
)
def test_given_a_part_of_the_envelope_then_the_topic_is_refused(schema: pa.Schema, message: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"topics\.orders: .*{message}.*Put the whole envelope in front"):
        replace(ORDERS, schema=schema)


def test_given_the_whole_envelope_or_none_of_it_then_the_topic_is_made() -> None:
    assert ORDERS.enveloped
    assert replace(ORDERS, schema=pa.schema(ENVELOPE)).enveloped
    assert not PLAIN.enveloped

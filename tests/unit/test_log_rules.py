"""Who may append what and where: the rules of one partition, over memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from eventmesh.errors import (
    AppendRefused,
    DidNotHappen,
    Fenced,
    NotFound,
    NotOwner,
    OffsetMismatch,
    OffsetOutOfRange,
    RecordTooLarge,
    SchemaMismatch,
)
from eventmesh.log.batch import LogBatch
from eventmesh.log.partition import BEFORE_FIRST, gap_of, progressed
from eventmesh.log.storage import MemoryStorage
from eventmesh.log.store import Log
from eventmesh.messages import encode_rows
from eventmesh.progress import Progress
from tests.unit.log_story import NOON, ORDERS, Writer, facts, header_at, ids, open_log, rows_at


@pytest.fixture
def log() -> Log:
    return open_log(MemoryStorage(), level="memory")


def test_given_a_new_topic_then_it_is_empty(log: Log) -> None:
    assert (log.start("orders", 0), log.end("orders", 0), log.watermark("orders", 0)) == (0, 0, 0)
    assert log.read("orders", 0, 0) == []


def test_given_a_grant_then_it_is_a_record_that_takes_an_offset(log: Log) -> None:
    grant = log.grant("orders", 0, "orders", "first")
    assert (grant.epoch, grant.end) == (1, 1)
    [record] = log.read("orders", 0, 0)
    assert (record.header.kind, record.header.append, record.header.incarnation) == ("granted", BEFORE_FIRST, "first")
    [row] = record.batch.to_pylist()
    assert (row["id"], row["source"], row["subject"]) == ("orders/0/epoch/1", "orders", "first")
    assert (row["type"], row["sequence"], row["reason"], row["order_id"]) == ("eventmesh.Granted", 0, None, None)


def test_given_appends_then_offsets_are_dense_and_batches_come_back_whole(log: Log) -> None:
    writer = Writer(log)
    writer.append("a", "b", "c")
    writer.append("d")
    assert writer.end == log.end("orders", 0) == log.watermark("orders", 0) == 5
    assert [entry.header.base for entry in log.read("orders", 0, 0)] == [0, 1, 4]
    assert [entry.header.base for entry in log.read("orders", 0, 2)] == [1, 4]
    assert log.read("orders", 0, 5) == []
    assert ids(log) == ["a", "b", "c", "d"]


def test_given_a_byte_limit_then_at_least_one_batch_is_read_and_no_more_than_fit(log: Log) -> None:
    writer = Writer(log)
    sizes = [writer.append(name).message.size for name in "abc"]
    assert len(log.read("orders", 0, 1, max_bytes=1)) == 1
    assert len(log.read("orders", 0, 1, max_bytes=sizes[0] + sizes[1])) == 2


def test_given_positions_outside_then_the_reader_is_told_the_range(log: Log) -> None:
    Writer(log).append("a")
    with pytest.raises(OffsetOutOfRange, match=r"outside \[0, 2\]"):
        log.read("orders", 0, 3)
    with pytest.raises(OffsetOutOfRange):
        log.read("orders", 0, -1)
    with pytest.raises(NotFound, match="orders"):
        log.read("invoices", 0, 0)


def test_given_another_service_then_it_is_not_the_owner(log: Log) -> None:
    writer = Writer(log)
    with pytest.raises(NotOwner, match="belongs to orders"):
        log.grant("orders", 0, "payments", "first")
    entry = writer.batch("a")
    stranger = LogBatch.encode(replace(entry.header, writer="payments"), entry.batch)
    with pytest.raises(NotOwner):
        log.append("orders", 0, stranger)
    assert ids(log) == []


def test_given_a_newer_grant_then_the_zombie_is_fenced(log: Log) -> None:
    zombie = Writer(log, "first")
    zombie.append("a")
    heir = Writer(log, "second")
    assert heir.grant.epoch == 2
    with pytest.raises(Fenced, match="must exit"):
        zombie.append("z")
    heir.append("b")
    with pytest.raises(Fenced):
        log.append("orders", 0, facts(heir.end, ["z"], epoch=2, append=1, incarnation="first"))
    with pytest.raises(Fenced):
        log.append("orders", 0, facts(heir.end, ["z"], epoch=3, append=1, incarnation="second"))
    assert ids(log) == ["a", "b"]


def test_given_no_grant_then_nobody_may_append(log: Log) -> None:
    with pytest.raises(Fenced, match="nobody"):
        log.append("orders", 0, facts(0, ["a"], epoch=0, append=0))


@pytest.mark.parametrize("base", [0, 1, 3])
def test_given_another_expected_end_then_the_append_did_not_happen(log: Log, base: int) -> None:
    writer = Writer(log)
    writer.append("a")
    with pytest.raises(OffsetMismatch) as refusal:
        log.append("orders", 0, facts(base, ["b"], append=1))
    assert isinstance(refusal.value, DidNotHappen)
    assert (refusal.value.expected, refusal.value.end) == (base, 2)
    assert ids(log) == ["a"]


def test_given_the_identical_append_again_then_it_is_acknowledged_again_and_written_once(log: Log) -> None:
    writer = Writer(log)
    entry = writer.append("a", "b")
    assert log.append("orders", 0, entry) == writer.end == log.end("orders", 0)
    with pytest.raises(OffsetMismatch):  # the same place, other content
        log.append("orders", 0, facts(1, ["a", "x"], append=0))
    assert ids(log) == ["a", "b"]


def test_given_an_older_append_again_then_it_is_refused(log: Log) -> None:
    writer = Writer(log)
    entry = writer.append("a")
    writer.append("b")
    with pytest.raises(OffsetMismatch):
        log.append("orders", 0, entry)


def test_given_a_hole_in_the_append_numbers_then_it_is_refused(log: Log) -> None:
    writer = Writer(log)
    with pytest.raises(AppendRefused, match="append 1 follows append -1"):
        log.append("orders", 0, facts(writer.end, ["a"], append=1))


def test_given_other_columns_then_the_first_difference_is_named(log: Log) -> None:
    writer = Writer(log)
    entry = writer.batch("a")
    cast = entry.batch.set_column(12, pa.field("order_id", pa.int64()), pa.array([1]))
    with pytest.raises(SchemaMismatch, match="order_id: int64"):
        log.append("orders", 0, LogBatch.encode(entry.header, cast))
    with pytest.raises(SchemaMismatch, match="order_id is missing"):
        log.append("orders", 0, LogBatch.encode(entry.header, entry.batch.select(entry.batch.schema.names[:-1])))
    wider = entry.batch.append_column("extra", pa.array([1]))
    with pytest.raises(SchemaMismatch, match="extra is not in"):
        log.append("orders", 0, LogBatch.encode(entry.header, wider))


def test_given_too_large_a_batch_then_both_sizes_are_named() -> None:
    small = replace(ORDERS, settings=replace(ORDERS.settings, max_message_bytes=1_500))
    log = open_log(MemoryStorage(), small)
    writer = Writer(log)
    with pytest.raises(RecordTooLarge, match=r"max\.message\.bytes is 1500\. Split"):
        writer.append(*("x" * 50 for _ in range(100)))
    writer.append("a")
    assert ids(log) == ["a"]


def _batch(base: int, **columns: Any) -> pa.RecordBatch:
    return encode_rows(ORDERS.schema, [{**rows_at(base, ["a"])[0], **columns}])


@pytest.mark.parametrize("column", ["id", "source", "type", "time", "dataschema", "sequence"])
def test_given_a_null_in_the_envelope_then_the_append_is_refused(log: Log, column: str) -> None:
    end = Writer(log).end
    entry = LogBatch.encode(header_at(end, 1, epoch=1, append=0, incarnation="first"), _batch(end, **{column: None}))
    with pytest.raises(AppendRefused, match=f"column {column} has nulls"):
        log.append("orders", 0, entry)


def test_given_rows_that_are_not_what_the_header_says_then_the_append_is_refused(log: Log) -> None:
    end = Writer(log).end
    header = header_at(end, 1, epoch=1, append=0, incarnation="first")
    with pytest.raises(AppendRefused, match="sequence is not the offsets from 1"):
        log.append("orders", 0, LogBatch.encode(header, _batch(end, sequence=7)))
    with pytest.raises(AppendRefused, match="says 2 rows, the batch has 1"):
        log.append("orders", 0, LogBatch.encode(replace(header, rows=2), _batch(end)))
    with pytest.raises(AppendRefused, match="0 rows"):
        log.append("orders", 0, LogBatch.encode(replace(header, rows=0), _batch(end).slice(0, 0)))
    assert log.append("orders", 0, LogBatch.encode(header, _batch(end))) == 2


def test_given_invalid_arrow_then_the_append_is_refused(log: Log) -> None:
    end = Writer(log).end
    batch = _batch(end)
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff"))
    batch = batch.set_column(12, ORDERS.schema.field(12), broken)
    with pytest.raises(AppendRefused, match="not valid Arrow"):
        log.append("orders", 0, LogBatch.encode(header_at(end, 1, epoch=1, append=0, incarnation="first"), batch))


@pytest.mark.parametrize("kind", ["granted", "truncated"])
def test_given_a_control_record_from_a_writer_then_it_is_refused(log: Log, kind: Any) -> None:
    entry = Writer(log).batch("a")
    with pytest.raises(AppendRefused, match=f"kind {kind}"):
        log.append("orders", 0, LogBatch.encode(replace(entry.header, kind=kind), entry.batch))


def test_given_progress_without_a_fact_then_it_is_a_record_of_one_row(log: Log) -> None:
    writer = Writer(log)
    vector = Progress({"stock/0": 7}).to_json()
    entry = progressed(ORDERS, 0, base=writer.end, epoch=1, append=0, incarnation="first", time=NOON, progress=vector)
    assert log.append("orders", 0, entry) == 2
    [record] = log.read("orders", 0, 1)
    assert (record.header.kind, record.header.progress) == ("progressed", {"next": {"stock/0": 7}})
    assert record.batch.column("type").to_pylist() == ["eventmesh.Progressed"]
    with pytest.raises(AssertionError):
        gap_of(record)


def test_given_level_memory_then_sync_has_nothing_to_do(log: Log) -> None:
    Writer(log).append("a")
    log.sync()
    assert log.watermark("orders", 0) == 2

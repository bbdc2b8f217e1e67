"""The rules of one partition, without I/O: who may append, at which offset, and what.

An append is a compare-and-swap on the end offset by the incarnation that was granted the newest epoch.
Everything the log itself writes (grants, gaps) is a batch of one row, so that the end offset always
tells two attempts apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa

from eventmesh.errors import AppendRefused, Fenced, NotOwner, OffsetMismatch, RecordTooLarge, SchemaMismatch
from eventmesh.log.batch import CONTROL_PREFIX, OWN_RECORDS, BatchKind, Header, LogBatch, embedded_head
from eventmesh.log.topic import Topic
from eventmesh.messages import ENVELOPE, encode_rows
from eventmesh.progress import position_name

BEFORE_FIRST = -1  # the append number of a grant: the holder's own appends count from 0
_REQUIRED = [number for number, column in enumerate(ENVELOPE) if not column.nullable]
_SEQUENCE = [column.name for column in ENVELOPE].index("sequence")


class Durability(StrEnum):
    """What an acknowledged append survives (promise P1)."""

    memory = "memory"  # nothing
    os = "os"  # the death of any process
    fsync = "fsync"  # the death of the machine


@dataclass(frozen=True, slots=True)
class Grant:
    """The right to append: fold the partition exactly to ``end``, then decide, at ``epoch``."""

    epoch: int
    end: int


class Partition:
    """What the rules need to know of a partition; changed only by :meth:`accepted`.

    Offsets rise: ``end`` never falls while the partition is open. ``epoch`` 0 means never granted.
    """

    def __init__(self, topic: Topic, number: int) -> None:
        self.topic, self.number = topic, number
        self.name = position_name(topic.name, number)
        self.end = 0
        self.epoch = 0
        self.incarnation = ""
        self.append = BEFORE_FIRST
        self._last: tuple[int, int, int, int] | None = None  # epoch, append, base, crc32c
        self._last_end = 0

    def accepted(self, header: Header, checksum: int) -> None:
        """Take note of a batch that is now in the log; in offset order, also when recovering."""
        assert header.base >= self.end, f"{self.name}: offsets must rise, {header.base} follows {self.end}"
        assert header.epoch >= self.epoch, f"{self.name}: epochs must rise, {header.epoch} follows {self.epoch}"
        self.end = header.end
        self.epoch, self.incarnation, self.append = header.epoch, header.incarnation, header.append
        if header.kind not in OWN_RECORDS:
            self._last = (header.epoch, header.append, header.base, checksum)
            self._last_end = header.end

    def verdict(self, entry: LogBatch, checksum: int) -> int | None:
        """Whether this append is to be taken: None where it is, the end of the last one where it is that once more.

        Everything else is raised, as one of the ``AppendRefused`` family. ``checksum`` is the message's. Whoever reads
        appends that nobody has judged yet comes to the same log by asking this of each, in their order.
        """
        self.check_writer(entry.header)
        self.check_size(entry.message)
        acknowledged = self.repeated(entry.header, checksum)
        if acknowledged is None:
            self.check_place(entry.header)
            self.check_rows(entry)
        return acknowledged

    def repeated(self, header: Header, checksum: int) -> int | None:
        """The end offset acknowledged to the last append, if this is that append once more."""
        this = (header.epoch, header.append, header.base, checksum)
        return self._last_end if this == self._last and header.kind in ("facts", "progressed") else None

    def check_writer(self, header: Header) -> None:
        """``NotOwner``, or ``Fenced`` unless header names the newest grant."""
        self.check_owner(header.writer)
        if header.kind not in ("facts", "progressed"):
            raise AppendRefused(f"{self.name}: only the log itself writes records of kind {header.kind}")
        if header.epoch != self.epoch or header.incarnation != self.incarnation:
            raise Fenced(
                f"{self.name}: {header.incarnation} appends at epoch {header.epoch}; "
                f"epoch {self.epoch} is held by {self.incarnation or 'nobody'}. This incarnation must exit"
            )

    def check_owner(self, service: str) -> None:
        """``NotOwner`` unless the topic belongs to ``service``."""
        if service != self.topic.owner:
            raise NotOwner(f"{self.name}: the topic belongs to {self.topic.owner}, {service} may only read it")

    def check_place(self, header: Header) -> None:
        """``OffsetMismatch`` unless the append expects this end; ``AppendRefused`` on a hole in its numbers."""
        if header.base != self.end:
            raise OffsetMismatch(self.name, header.base, self.end)
        if header.append != self.append + 1:
            raise AppendRefused(
                f"{self.name}: append {header.append} follows append {self.append} of epoch {self.epoch}. "
                f"A writer numbers its appends within an epoch from 0, without holes"
            )

    def check_size(self, message: pa.Buffer) -> None:
        """``RecordTooLarge`` unless the message fits the topic's ``max.message.bytes``."""
        limit = self.topic.settings.max_message_bytes
        if message.size > limit:
            raise RecordTooLarge(
                f"{self.name}: the batch has {message.size} bytes, max.message.bytes is {limit}. Split the batch"
            )

    def check_rows(self, entry: LogBatch) -> None:
        """``SchemaMismatch`` for other columns, ``AppendRefused`` for rows that are not what they say."""
        self._check_version(entry.header)
        self._check_schema(entry.schema)
        batch, header = self._valid_rows(entry), entry.header
        self._check_schema(batch.schema)
        if header.rows != batch.num_rows or header.rows < 1:
            raise AppendRefused(f"{self.name}: the header says {header.rows} rows, the batch has {batch.num_rows}")
        if self.topic.enveloped:
            self._check_envelope(batch, header)

    def _valid_rows(self, entry: LogBatch) -> pa.RecordBatch:
        try:
            stored = embedded_head(entry.message)
            entry.batch.validate(full=True)
        except (pa.ArrowInvalid, OSError, ValueError) as error:
            raise AppendRefused(f"{self.name}: the batch is not valid Arrow: {error}") from error
        if stored != entry.head:
            raise AppendRefused(f"{self.name}: the batch's message holds another header than the one it came with")
        return entry.batch

    def _check_envelope(self, batch: pa.RecordBatch, header: Header) -> None:
        for number in _REQUIRED:
            if batch.column(number).null_count:
                raise AppendRefused(f"{self.name}: column {ENVELOPE[number].name} has nulls")
        sequence = batch.column(_SEQUENCE).to_numpy()
        if not (sequence == np.arange(header.base, header.end)).all():
            raise AppendRefused(f"{self.name}: column sequence is not the offsets from {header.base}")

    def _check_version(self, header: Header) -> None:
        if header.version != self.topic.version:
            raise SchemaMismatch(
                f"{self.name}: the rows have version {header.version} of the columns, the topic has version "
                f"{self.topic.version}. Start {header.writer} with the application that the log was opened with"
            )

    def _check_schema(self, found: pa.Schema) -> None:
        expected = self.topic.schema
        if found is not expected and not found.equals(expected):
            raise SchemaMismatch(f"{self.name}: {first_difference(expected, found)}")


def first_difference(expected: pa.Schema, found: pa.Schema) -> str:
    """The first column in which two schemas differ, in words."""
    for number in range(max(len(expected), len(found))):
        if number >= len(found):
            return f"column {expected.field(number).name} is missing"
        if number >= len(expected):
            return f"column {found.field(number).name} is not in the topic's schema"
        if not expected.field(number).equals(found.field(number)):
            return f"column {number} is {found.field(number)}, the topic has {expected.field(number)}"
    return "the schemas are equal"


def control_batch(topic: Topic, partition: int, header: Header, **columns: Any) -> LogBatch:
    """A batch of one row without payload: a grant, a gap, or progress without a fact.

    ``columns`` fill or override the envelope; ``id`` is ``topic/partition/kind/base`` by default. In a
    topic of plain rows it is a row of nulls: what it is, the header says.
    """
    assert header.rows == 1, f"a record of kind {header.kind} has one row, not {header.rows}"
    row = {
        "id": f"{position_name(topic.name, partition)}/{header.kind}/{header.base}",
        "source": header.writer,
        "type": f"{CONTROL_PREFIX}{header.kind.capitalize()}",
        "time": header.time,
        "dataschema": topic.dataschema,
        "sequence": header.base,
    }
    return LogBatch.encode(header, encode_rows(topic.schema, [{**row, **columns} if topic.enveloped else {}]))


def granted(
    topic: Topic, partition: int, *, base: int, epoch: int, incarnation: str, time: int, code: str = ""
) -> LogBatch:
    """The record that gives ``incarnation`` of the topic's owner the right to append at ``epoch``.

    ``code`` says which application's files it runs, if that is known.
    """
    header = Header(
        "granted", base, 1, epoch, BEFORE_FIRST, topic.owner, incarnation, time, version=topic.version,
        control={"code": code} if code else {},
    )  # fmt: skip
    name = f"{position_name(topic.name, partition)}/epoch/{epoch}"
    return control_batch(topic, partition, header, id=name, subject=incarnation)


def progressed(
    topic: Topic,
    partition: int,
    *,
    base: int,
    epoch: int,
    append: int,
    incarnation: str,
    time: int,
    progress: Mapping[str, Any],
) -> LogBatch:
    """A writer's record that it has read up to ``progress`` (:meth:`Progress.to_json`) without a fact to write."""
    header = Header(
        "progressed", base, 1, epoch, append, topic.owner, incarnation, time, progress, version=topic.version
    )  # fmt: skip
    return control_batch(topic, partition, header)


def truncated(rules: Partition, *, lost_to: int, time: int) -> LogBatch:
    """The record that offsets ``[rules.end, lost_to)`` may have been given out and are gone; it lies at ``lost_to``."""
    header = _own_record(rules, "truncated", lost_to, time, {"lost_from": rules.end, "lost_to": lost_to})
    return control_batch(rules.topic, rules.number, header, position=f"{rules.end}:{lost_to}")


def overridden(rules: Partition, *, reason: str, start: int, floor: int, deleted_to: int, time: int) -> LogBatch:
    """The record that ``[start, deleted_to)`` goes although ``floor`` and what follows is still needed, and why."""
    control = {"reason": reason, "deleted_from": start, "deleted_to": deleted_to, "floor": floor}
    header = _own_record(rules, "overridden", rules.end, time, control)
    return control_batch(rules.topic, rules.number, header, position=f"{start}:{deleted_to}", reason=reason)


def _own_record(rules: Partition, kind: BatchKind, base: int, time: int, control: Mapping[str, Any]) -> Header:
    """The header of what the log writes between a writer's appends: its epoch and its number stay the newest."""
    topic = rules.topic
    return Header(
        kind, base, 1, rules.epoch, rules.append, topic.owner, rules.incarnation, time, version=topic.version,
        control=control,
    )  # fmt: skip


def gap_of(entry: LogBatch) -> tuple[int, int]:
    """``(lost_from, lost_to)`` of a truncated record."""
    assert entry.header.kind == "truncated", f"a record of kind {entry.header.kind} names no gap"
    return entry.header.control["lost_from"], entry.header.control["lost_to"]

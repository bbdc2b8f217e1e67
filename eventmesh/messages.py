"""The three kinds of message, their envelope, and batches of them as Python columns.

An *event* is a past-tense fact on a topic and expects nothing. A *command* asks another service to do
something and expects a reply. A *query* asks for something and changes nothing. All travel as Arrow
record batches, one row per message. Envelope columns carry the names of CloudEvents 1.0 and its
extensions ``correlationid``, ``causationid``, ``partitionkey`` and ``sequence``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa

TIMESTAMP = pa.timestamp("us", "UTC")

ENVELOPE: tuple[pa.Field, ...] = (
    pa.field("id", pa.string(), nullable=False),  # its cause plus an ordinal; unique per source
    pa.field("source", pa.string(), nullable=False),  # the service that wrote it
    pa.field("type", pa.string(), nullable=False),  # OrderRequested, StockReserved, ...
    pa.field("subject", pa.string()),  # what it is about: the key
    pa.field("time", TIMESTAMP, nullable=False),  # when it was decided
    pa.field("dataschema", pa.string(), nullable=False),  # topic and version of the columns
    pa.field("correlationid", pa.string()),  # the story it belongs to: the order id
    pa.field("causationid", pa.string()),  # the id of the message that caused it (for tracing)
    pa.field("partitionkey", pa.string()),  # what the partition was chosen by
    pa.field("sequence", pa.int64(), nullable=False),  # its offset
)
REFUSAL: tuple[pa.Field, ...] = (
    pa.field("position", pa.string()),  # InputRefused: the input's topic/partition/offset
    pa.field("reason", pa.string()),  # why something was refused
)
Kind = Literal["command", "event", "query"]


@dataclass(frozen=True)
class MessageType:
    """A command or a query that a service answers.

    ``question`` and ``answer`` are the payload columns of the message and of its reply; ``key`` is the
    payload column that says which partition of the answering service is asked (None: the asker names it).
    ``story`` is the payload column that becomes the correlation id of what follows; the key, if None.
    """

    name: str
    kind: Literal["command", "query"]
    service: str
    question: pa.Schema
    answer: pa.Schema
    key: str | None = None
    story: str | None = None


def topic_schema(payload: Iterable[pa.Field]) -> pa.Schema:
    """The one wide schema of a topic: envelope, refusal columns, nullable payload columns (rule 15)."""
    return pa.schema([*ENVELOPE, *REFUSAL, *payload])


class Columns:
    """A batch of messages as Python lists, one per column, decoded on first use.

    Built from a record batch (reading) or from rows as dicts (deciding), with the same access, so
    that ``evolve`` folds facts it has just decided and facts it reads back by the same code.
    A ``list<struct>`` column decodes to a list of lists of tuples, in the struct's field order;
    timestamps decode to int microseconds since the epoch.
    """

    __slots__ = ("_batch", "_lists", "_rows", "count")

    def __init__(self, batch: pa.RecordBatch | None = None, rows: Sequence[Mapping[str, Any]] | None = None) -> None:
        self._batch = batch
        self._rows = rows
        self._lists: dict[str, list[Any]] = {}
        self.count: int = batch.num_rows if batch is not None else len(rows or ())

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, name: str) -> list[Any]:
        column = self._lists.get(name)
        if column is None:
            if self._batch is not None:
                column = decode_column(self._batch.column(name))
            else:
                column = [row.get(name) for row in self._rows or ()]
            self._lists[name] = column
        return column

    def has(self, name: str) -> bool:
        """Whether the batch has this column."""
        return self._batch is None or self._batch.schema.get_field_index(name) >= 0

    def rows(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Rows as tuples of the named columns, in offset order."""
        return zip(*(self[name] for name in names), strict=True)

    def slice(self, start: int, stop: int) -> Columns:
        """Rows ``start`` up to ``stop``."""
        if self._batch is not None:
            return Columns(self._batch.slice(start, stop - start))
        return Columns(rows=(self._rows or ())[start:stop])


def decode_column(array: pa.Array) -> list[Any]:
    """An Arrow array as a Python list; ``list<struct>`` as lists of tuples, timestamps as int."""
    kind = array.type
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        return _decode_structs(array)
    if pa.types.is_timestamp(kind):
        array = array.view(pa.int64())
    values: list[Any] = array.to_pylist()
    return values


def _decode_structs(array: pa.Array) -> list[Any]:
    # `flatten` honours slices and nulls; per-row offsets then restart at 0.
    flat = array.flatten()
    fields = [decode_column(flat.field(i)) for i in range(array.type.value_type.num_fields)]
    items = list(zip(*fields, strict=True))
    offsets = array.offsets.to_numpy(zero_copy_only=False)
    if array.null_count == 0:
        first = int(offsets[0])
        ends = (offsets - first).tolist()
        return [items[a:b] for a, b in pairwise(ends)]
    valid = array.is_valid().to_pylist()
    decoded: list[Any] = []
    at = 0
    for present, length in zip(valid, np.diff(offsets).tolist(), strict=True):
        decoded.append(items[at : at + length] if present else None)
        at += length if present else 0
    return decoded


def encode_column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """A Python list as an Arrow array of the given type; the reverse of :func:`decode_column`."""
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        return _encode_structs(values, kind)
    return pa.array(values, kind)


def _encode_structs(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    struct = kind.value_type
    offsets: list[int | None] = []
    items: list[tuple[Any, ...]] = []
    for value in values:
        offsets.append(None if value is None else len(items))
        if value is not None:
            items.extend(value)
    offsets.append(len(items))
    columns = list(zip(*items, strict=True)) if items else [()] * struct.num_fields
    arrays = [pa.array(column, struct.field(i).type) for i, column in enumerate(columns)]
    child = pa.StructArray.from_arrays(arrays, fields=[struct.field(i) for i in range(struct.num_fields)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), child, type=kind)


def encode_rows(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Rows as dicts to one record batch of ``schema``; a missing key is null."""
    arrays = []
    for field in schema:
        name = field.name
        values = [row.get(name) for row in rows]
        arrays.append(encode_column(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)

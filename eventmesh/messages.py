"""The three kinds of message, their envelope, and batches of them as Python columns.

An *event* is a past-tense fact on a topic and expects nothing. A *command* asks another service to do
something and expects a reply. A *query* asks for something and changes nothing. All travel as Arrow
record batches, one row per message. Envelope columns carry the names of CloudEvents 1.0 and its
extensions ``correlationid``, ``causationid``, ``partitionkey`` and ``sequence``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

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
    pa.field("correlationid", pa.string()),  # the story it belongs to
    pa.field("causationid", pa.string()),  # the id of the message that caused it (for tracing)
    pa.field("partitionkey", pa.string()),  # what the partition was chosen by
    pa.field("sequence", pa.int64(), nullable=False),  # its offset
)
REFUSAL: tuple[pa.Field, ...] = (
    pa.field("position", pa.string()),  # InputRefused: the input's topic/partition/offset
    pa.field("reason", pa.string()),  # why something was refused
)
#: The fact that an input was refused, on any topic: the framework writes it, and no service folds it.
REFUSED = "InputRefused"
#: The fact that the time has come which a conversation waits for; likewise.
TIMER_DUE = "TimerDue"
#: What the framework writes on topics: no service folds it.
OWN_FACTS = frozenset({REFUSED, TIMER_DUE})
#: From so many columns on it is faster to encode all of them at once.
MANY_COLUMNS = 4
ABSENT = -1  # what Arrow answers for the place of a column that a schema does not have


def topic_schema(payload: Iterable[pa.Field]) -> pa.Schema:
    """The one wide schema of a topic: envelope, refusal columns, nullable payload columns (rule 15)."""
    return pa.schema([*ENVELOPE, *REFUSAL, *payload])


class Columns:
    """A batch of messages as Python lists, one per column, decoded on first use.

    Built from a record batch (reading), from rows as dicts, or from lists by column (deciding), with the
    same access, so that ``evolve`` folds facts it has just decided and facts it reads back by the same
    code. A column that the batch does not have reads as nulls. A ``list<struct>`` column decodes to a
    list of lists of tuples, in the struct's field order; timestamps decode to int microseconds since the
    epoch. Lists are shared by all readers: nobody changes them.
    """

    __slots__ = ("_batch", "_lists", "_rows", "count")

    def __init__(
        self,
        batch: pa.RecordBatch | None = None,
        rows: Sequence[Mapping[str, Any]] | None = None,
        lists: dict[str, list[Any]] | None = None,
    ) -> None:
        self._batch, self._rows = batch, rows
        self._lists: dict[str, list[Any]] = {} if lists is None else lists
        if batch is not None:
            self.count: int = batch.num_rows
        elif rows is not None:
            self.count = len(rows)
        else:
            self.count = len(next(iter(self._lists.values()), ()))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, name: str) -> list[Any]:
        column = self._lists.get(name)
        if column is None:
            column = self._lists[name] = self._decode(name)
        return column

    def _decode(self, name: str) -> list[Any]:
        if self._rows is not None:
            return [row.get(name) for row in self._rows]
        if self._batch is None or (place := self._batch.schema.get_field_index(name)) == ABSENT:
            return [None] * self.count
        return decode_column(self._batch.column(place))

    @property
    def names(self) -> Sequence[str]:
        """The columns that the batch has."""
        if self._batch is not None:
            names: list[str] = self._batch.schema.names
            return names
        return list(self._rows[0]) if self._rows else list(self._lists)

    def rows(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Rows as tuples of the named columns, in offset order."""
        return zip(*(self[name] for name in names), strict=True)

    def without(self, kinds: Container[str]) -> Columns:
        """The rows of all other types, as a batch of their own."""
        assert self._batch is not None, "only what was read back is filtered"
        # Not by pyarrow.compute, which every process of a mesh would import for this alone: 30 ms of its start.
        return Columns(self._batch.filter(pa.array([each not in kinds for each in self["type"]], pa.bool_())))

    def dicts(self, schema: pa.Schema) -> list[dict[str, Any]]:
        """Rows as dicts with the columns of ``schema``."""
        names = schema.names
        return [dict(zip(names, values, strict=True)) for values in self.rows(*names)]

    def encode(self, schema: pa.Schema) -> pa.RecordBatch:
        """One record batch of ``schema``; a missing column is null."""
        if self._batch is not None and self._batch.schema.equals(schema):
            return self._batch
        return pa.RecordBatch.from_arrays(encode_columns([self[name] for name in schema.names], schema), schema=schema)


# --- what is asked, in a few bytes ------------------------------------------------------------------

_DIGEST_BYTES = 8  # of each value: two values of one order id are alike by chance once in 10^19
_JSON = json.JSONEncoder(separators=(",", ":"), default=repr)


def fingerprint(*values: Any) -> str:
    """The content of a request, 16 hexadecimal digits for each value: what an idempotency key is compared by.

    The rows of a list count in any order, and an empty list is as none. It is the same in every process, whatever the
    versions of Python and of the libraries: JSON in ASCII, then BLAKE2b. As the *idempotency fingerprint* of the IETF's
    draft "The Idempotency-Key HTTP Header Field", it is taken of selected parts of the payload.
    """
    return "".join([_digest(value) for value in values])


def _digest(value: Any) -> str:
    if isinstance(value, list):
        value = _sorted(value) or None
    return hashlib.blake2b(_JSON.encode(value).encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _sorted(rows: list[Any]) -> list[Any]:
    if len(rows) < 2:
        return rows
    try:
        return sorted(rows)
    except TypeError:  # a null is neither less nor more than anything
        return sorted(rows, key=_JSON.encode)


def fingerprints(columns: Columns, names: Sequence[str]) -> list[str]:
    """The fingerprint of each row, taken of the named columns."""
    return [fingerprint(*values) for values in columns.rows(*names)]


def unlike(one: str, other: str, names: Sequence[str]) -> list[str]:
    """In which of the named columns two requests differ, by their fingerprints."""
    size = 2 * _DIGEST_BYTES
    parts = [slice(place * size, (place + 1) * size) for place in range(len(names))]
    return [name for name, part in zip(names, parts, strict=True) if one[part] != other[part]]


# --- Arrow to Python and back -----------------------------------------------------------------------


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


def encode_columns(columns: Sequence[Sequence[Any]], fields: Iterable[pa.Field]) -> list[pa.Array]:
    """Python lists of equal length as Arrow arrays, one for each field; the reverse of :func:`decode_column`.

    Many are encoded all at once, as rows of a struct: of a dozen columns that takes half the time. Of a few, as asks
    and replies have, it takes longer.
    """
    kinds = list(fields)
    if len(kinds) < MANY_COLUMNS:
        return [pa.array(column, field.type) for column, field in zip(columns, kinds, strict=True)]
    arrays: list[pa.Array] = pa.array(list(zip(*columns, strict=True)), pa.struct(kinds)).flatten()
    return arrays


def encode_rows(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Rows as dicts to one record batch of ``schema``; a missing key is null."""
    return Columns(rows=rows).encode(schema)

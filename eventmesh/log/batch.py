"""One append: a header and the Arrow IPC message of its record batch.

The header rides in the batch's own custom metadata (key ``eventmesh``, JSON), so a segment read by any
Arrow reader still says who wrote each batch, at which epoch, and how far its writer had read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

import pyarrow as pa

from eventmesh.messages import Columns

METADATA_KEY = b"eventmesh"
CONTROL_PREFIX = "eventmesh."
BatchKind = Literal["facts", "granted", "progressed", "truncated", "overridden"]
#: Records that the log puts between a writer's appends, without being one of them.
OWN_RECORDS = frozenset({"truncated", "overridden"})
_UINT32, _INT32 = struct.Struct("<I"), struct.Struct("<i")
_MESSAGE = struct.Struct(
    "<HHHHHHH"
)  # vtable of a Message: its size, the table's, version, type, header, length, metadata
_PAIR = struct.Struct("<HHHH")  # vtable of a KeyValue: its size, the table's, key, value
_FLATBUFFER = 8  # where an IPC message's metadata begins: behind the continuation marker and its length


@dataclass(frozen=True, slots=True)
class Header:
    """What an append says of itself.

    ``base`` is the end offset the writer expects, hence the offset of the first row. ``append`` counts
    the writer's appends within ``epoch`` from 0. ``progress`` is :meth:`Progress.to_json`'s vector.
    ``time`` is the append time in microseconds since the Unix epoch, by the writer's clock. ``control``
    is what a record of the log's own says, beside its kind.
    """

    kind: BatchKind
    base: int
    rows: int
    epoch: int
    append: int
    writer: str  # the owning service
    incarnation: str  # unique per start of the writer's process
    time: int
    progress: Mapping[str, Any] = field(default_factory=dict)
    control: Mapping[str, Any] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """The offset after the last row."""
        return self.base + self.rows

    def to_bytes(self) -> bytes:
        """Compact JSON; ``control`` is left out when empty."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "control" or self.control}
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Header:
        """The reverse of :meth:`to_bytes`."""
        return cls(**json.loads(data.decode()))


@lru_cache(maxsize=256)
def schema_message(schema: pa.Schema) -> bytes:
    """The IPC schema message that opens every segment of this schema."""
    return bytes(schema.serialize())


class LogBatch:
    """A header with its rows, decoded from the IPC message when first asked for (zero-copy).

    ``head`` is the header as it travels and as it is stored: encoded once, by the writer.
    """

    def __init__(self, header: Header, message: pa.Buffer, schema: pa.Schema, head: bytes | None = None) -> None:
        self.header, self.message, self.schema = header, message, schema
        self.head = head or header.to_bytes()

    @classmethod
    def encode(cls, header: Header, batch: pa.RecordBatch) -> LogBatch:
        """Serialize ``batch`` with ``header`` in its custom metadata."""
        sink, head = pa.BufferOutputStream(), header.to_bytes()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch, custom_metadata={METADATA_KEY: head})
            end = sink.tell()
        start = len(schema_message(batch.schema))
        encoded = cls(header, sink.getvalue().slice(start, end - start), batch.schema, head)
        encoded.__dict__["batch"] = batch
        return encoded

    @cached_property
    def batch(self) -> pa.RecordBatch:
        """The rows, in the topic's schema."""
        return pa.ipc.read_record_batch(self.message, self.schema)

    @cached_property
    def columns(self) -> Columns:
        """The rows as Python lists, decoded once for all readers in this process."""
        return Columns(self.batch)

    @classmethod
    def decode(cls, message: pa.Buffer, schema: pa.Schema) -> LogBatch:
        """Read a stored message back: the header now, the rows when they are asked for."""
        head = embedded_head(message)
        return cls(Header.from_bytes(head), message, schema, head)


def embedded_head(message: pa.Buffer) -> bytes:
    """The header as it stands in an IPC message's custom metadata; ``ValueError`` if there is none.

    Arrow's own reader would decode the rows as well, from a copy behind a schema message: five times the
    work. This walks the flatbuffer ``Message`` of Arrow's ``Message.fbs`` to its fifth field.
    """
    try:
        return _find_head(memoryview(message))
    except struct.error as error:
        raise ValueError(f"no Arrow IPC message: {error}") from error


def _find_head(data: memoryview) -> bytes:
    table = _FLATBUFFER + _uint32(data, _FLATBUFFER)
    size, *_, metadata = _MESSAGE.unpack_from(data, _vtable(data, table))
    if size < _MESSAGE.size or not metadata:
        raise ValueError("the message carries no custom metadata")
    pairs = _follow(data, table + metadata)
    for number in range(_uint32(data, pairs)):
        pair = _follow(data, pairs + 4 + 4 * number)
        _, _, key, value = _PAIR.unpack_from(data, _vtable(data, pair))
        if _string(data, pair + key) == METADATA_KEY:
            return _string(data, pair + value)
    raise ValueError(f"the message's custom metadata has no key {METADATA_KEY.decode()}")


def _uint32(data: memoryview, at: int) -> int:
    value: int = _UINT32.unpack_from(data, at)[0]
    return value


def _follow(data: memoryview, at: int) -> int:
    return at + _uint32(data, at)


def _vtable(data: memoryview, table: int) -> int:
    distance: int = _INT32.unpack_from(data, table)[0]
    return table - distance


def _string(data: memoryview, at: int) -> bytes:
    start = _follow(data, at)
    return bytes(data[start + 4 : start + 4 + _uint32(data, start)])

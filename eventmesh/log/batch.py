"""One append: a header and the Arrow IPC message of its record batch.

The header rides in the batch's own custom metadata (key ``eventmesh``, JSON), so a segment read by any
Arrow reader still says who wrote each batch, at which epoch, and how far its writer had read.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

import msgspec
import pyarrow as pa

from eventmesh.log.evolution import fitted
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
#: Bytes of an encoder's memory: some hundred batches of one row. A batch of more than ``LARGE_BYTES`` gets its own.
ENCODER_BYTES, LARGE_BYTES = 256 << 10, 64 << 10
#: Bytes that custom metadata takes beside its value, at most.
METADATA_BYTES = 256
_FLATBUFFER = 8  # where an IPC message's metadata begins: behind the continuation marker and its length


@dataclass(frozen=True, slots=True)
class Header:
    """What an append says of itself.

    ``base`` is the end offset the writer expects, hence the offset of the first row. ``append`` counts
    the writer's appends within ``epoch`` from 0. ``progress`` is :meth:`Progress.to_json`'s vector.
    ``time`` is the append time in microseconds since the Unix epoch, by the writer's clock. ``version``
    is that of the topic's columns which the rows have. ``control`` is what a record of the log's own
    says, beside its kind.
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
    version: int = 1
    control: Mapping[str, Any] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """The offset after the last row."""
        return self.base + self.rows

    @property
    def follows(self) -> int:
        """The end of what lies before it: ``base``, but for the record of a gap, which lies at the gap's end."""
        return int(self.control["lost_from"]) if self.kind == "truncated" else self.base

    def to_bytes(self) -> bytes:
        """Compact JSON; ``control`` is left out when empty, and a ``version`` of 1 with it."""
        packed = msgspec.json.encode(self)
        if self.control:
            return packed
        return packed.removesuffix(_NO_CONTROL if self.version > 1 else _FIRST_VERSION) + b"}"

    @classmethod
    def from_bytes(cls, data: bytes) -> Header:
        """The reverse of :meth:`to_bytes`; ``ValueError`` for anything else."""
        try:
            return _HEADERS.decode(data)
        except msgspec.MsgspecError as error:
            raise ValueError(f"no header of a batch: {error}") from error


_HEADERS = msgspec.json.Decoder(Header)
_NO_CONTROL = b',"control":{}}'
_FIRST_VERSION = b',"version":1' + _NO_CONTROL


@lru_cache(maxsize=256)
def schema_message(schema: pa.Schema) -> bytes:
    """The IPC schema message that opens every segment of this schema."""
    return bytes(schema.serialize())


class LogBatch:
    """A header with its rows, decoded from the IPC message when first asked for (zero-copy).

    ``head`` is the header as it travels and as it is stored: encoded once, by the writer. ``schema`` are the columns
    that the message has, ``shown`` those that its rows are read with, where the topic's have grown since.
    """

    def __init__(
        self, header: Header, message: pa.Buffer, schema: pa.Schema, head: bytes | None = None,
        shown: pa.Schema | None = None,
    ) -> None:  # fmt: skip
        self.header, self.message, self.schema = header, message, schema
        self.head = head or header.to_bytes()
        self.shown = shown if shown is not None else schema

    @classmethod
    def encode(cls, header: Header, batch: pa.RecordBatch) -> LogBatch:
        """Serialize ``batch`` with ``header`` in its custom metadata."""
        head, idle = header.to_bytes(), _idle_encoders(batch.schema)
        try:
            encoder = idle.pop()  # each is used by one thread at a time
        except IndexError:
            encoder = Encoder(batch.schema)
        encoded = cls(header, encoder.encode(batch, head), batch.schema, head)
        idle.append(encoder)
        encoded.__dict__["batch"] = batch
        return encoded

    @cached_property
    def batch(self) -> pa.RecordBatch:
        """The rows, in the topic's schema."""
        rows = pa.ipc.read_record_batch(self.message, self.schema)
        return rows if self.shown is self.schema else fitted(rows, self.shown)

    @cached_property
    def columns(self) -> Columns:
        """The rows as Python lists, decoded once for all readers in this process."""
        return Columns(self.batch)

    @classmethod
    def decode(cls, message: pa.Buffer, schema: pa.Schema, shown: pa.Schema | None = None) -> LogBatch:
        """Read a stored message back: the header now, the rows when they are asked for."""
        head = embedded_head(message)
        return cls(Header.from_bytes(head), message, schema, head, shown)


class Encoder:
    """Writes IPC messages of one schema, one after the other, as parts of one stream.

    To open a stream takes three times as long as to write a row to it. Its memory is used again when it is full: what
    it wrote is copied, unless it is large.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema, self._opening = schema, len(schema_message(schema))
        self._memory = memoryview(pa.allocate_buffer(self._opening + ENCODER_BYTES))
        self._begin()

    def _begin(self) -> None:
        self._sink, self._at = pa.FixedSizeBufferWriter(pa.py_buffer(self._memory)), self._opening
        self._writer = pa.ipc.new_stream(self._sink, self._schema)

    def encode(self, batch: pa.RecordBatch, head: bytes) -> pa.Buffer:
        """The message of ``batch``, in memory of its own, with ``head`` in its metadata."""
        size = pa.ipc.get_record_batch_size(batch) + len(head) + METADATA_BYTES
        if size > LARGE_BYTES:
            return _encode_large(batch, head, self._opening, size)
        if self._at + size > len(self._memory):
            self._begin()
        start = self._at
        self._writer.write_batch(batch, custom_metadata={METADATA_KEY: head})
        self._at = self._sink.tell()
        return pa.py_buffer(bytes(self._memory[start : self._at]))


def _encode_large(batch: pa.RecordBatch, head: bytes, opening: int, size: int) -> pa.Buffer:
    """The same in a stream of its own: a copy of many rows would cost more than that."""
    memory = pa.allocate_buffer(opening + size)
    sink = pa.FixedSizeBufferWriter(memory)
    pa.ipc.new_stream(sink, batch.schema).write_batch(batch, custom_metadata={METADATA_KEY: head})
    return memory.slice(opening, sink.tell() - opening)


@lru_cache(maxsize=256)
def _idle_encoders(schema: pa.Schema) -> list[Encoder]:
    return []


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
    # Written out, since this is done for every batch that is appended or read: a flatbuffer's references are
    # unsigned and forward, but for a table's to its vtable, and a vector or string begins with its length.
    (root,) = _UINT32.unpack_from(data, _FLATBUFFER)
    table = _FLATBUFFER + root
    (distance,) = _INT32.unpack_from(data, table)
    size, *_, metadata = _MESSAGE.unpack_from(data, table - distance)
    if size < _MESSAGE.size or not metadata:
        raise ValueError("the message carries no custom metadata")
    pairs = table + metadata
    pairs += _UINT32.unpack_from(data, pairs)[0]
    (count,) = _UINT32.unpack_from(data, pairs)
    for at in range(pairs + 4, pairs + 4 + 4 * count, 4):
        pair = at + _UINT32.unpack_from(data, at)[0]
        (distance,) = _INT32.unpack_from(data, pair)
        _, _, key, value = _PAIR.unpack_from(data, pair - distance)
        if _string(data, pair + key) == METADATA_KEY:
            return _string(data, pair + value)
    raise ValueError(f"the message's custom metadata has no key {METADATA_KEY.decode()}")


def _string(data: memoryview, at: int) -> bytes:
    at += _UINT32.unpack_from(data, at)[0]
    return bytes(data[at + 4 : at + 4 + _UINT32.unpack_from(data, at)[0]])

"""One append: a header and the Arrow IPC message of its record batch.

The header rides in the batch's own custom metadata (key ``eventmesh``, JSON), so a segment read by any
Arrow reader still says who wrote each batch, at which epoch, and how far its writer had read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

import pyarrow as pa

from eventmesh.messages import Columns

METADATA_KEY = b"eventmesh"
CONTROL_PREFIX = "eventmesh."
BatchKind = Literal["facts", "granted", "progressed", "truncated"]


@dataclass(frozen=True, slots=True)
class Header:
    """What an append says of itself.

    ``base`` is the end offset the writer expects, hence the offset of the first row. ``append`` counts
    the writer's appends within ``epoch`` from 0. ``progress`` is :meth:`Progress.to_json`'s vector.
    ``time`` is the append time in microseconds since the Unix epoch, by the writer's clock.
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

    @property
    def end(self) -> int:
        """The offset after the last row."""
        return self.base + self.rows

    def to_bytes(self) -> bytes:
        """Compact JSON."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Header:
        """The reverse of :meth:`to_bytes`."""
        return cls(**json.loads(data))


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
        """Read a stored message back, header included."""
        stream = pa.ipc.open_stream(pa.py_buffer(schema_message(schema) + message.to_pybytes()))
        batch, metadata = stream.read_next_batch_with_custom_metadata()
        head = metadata[METADATA_KEY]
        decoded = cls(Header.from_bytes(head), message, schema, head)
        decoded.__dict__["batch"] = batch
        return decoded

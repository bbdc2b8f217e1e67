"""What a topic promises: its owner, key, partitions, columns, retention and compaction.

Settings carry Kafka's names and defaults. Keyed records go to the partition that Kafka's Java client
would choose: ``(murmur2(key) & 0x7fffffff) % partitions``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
import pyarrow as pa

from eventmesh.errors import ConfigurationError
from eventmesh.messages import ENVELOPE

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF

Compatibility = Literal[
    "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE", "NONE"
]


@dataclass(frozen=True)
class TopicSettings:
    """Kafka's topic settings, by Kafka's names (dots become underscores) and with Kafka's defaults."""

    cleanup_policy: Literal["delete", "compact"] = "delete"
    retention_ms: int = 604_800_000  # 7 days; -1 keeps everything
    retention_bytes: int = -1
    segment_bytes: int = 1_073_741_824
    segment_ms: int = 604_800_000  # a segment older than this is closed, so that retention can delete it
    max_message_bytes: int = 1_048_588


@dataclass(frozen=True)
class Topic:
    """A topic: ``schema`` is the whole wide schema, ``key`` a payload column.

    The schema begins with the whole envelope, or has none of its columns: a topic of plain rows, whose
    batches have headers all the same. ``ConfigurationError`` for a part of the envelope.

    ``earlier`` are the columns of the versions before, oldest first, which some of what is stored still has.
    """

    name: str
    owner: str
    key: str
    partitions: int
    schema: pa.Schema
    settings: TopicSettings = field(default_factory=TopicSettings)
    compatibility: Compatibility = "BACKWARD"
    earlier: tuple[pa.Schema, ...] = ()

    def __post_init__(self) -> None:
        names = {column.name for column in ENVELOPE}
        found = [name for name in self.schema.names if name in names]
        if found and not self.enveloped:
            raise ConfigurationError(
                f"column {found[0]} is the envelope's, but the schema does not begin with {_first_unlike(self.schema)}",
                path=f"topics.{self.name}",
                hint="Put the whole envelope in front (topic_schema does), or give plain rows other column names",
            )

    @cached_property
    def enveloped(self) -> bool:
        """Whether rows carry the CloudEvents envelope; those of a topic without it have no ids and no types."""
        return len(self.schema) >= len(ENVELOPE) and all(map(pa.Field.equals, ENVELOPE, self.schema))

    @property
    def version(self) -> int:
        """Which version of its columns ``schema`` is, counted from 1."""
        return len(self.earlier) + 1

    @property
    def dataschema(self) -> str:
        """What its facts say of their columns: topic and version."""
        return f"{self.name}/{self.version}"

    def columns_of(self, version: int) -> pa.Schema | None:
        """The columns of a version; None of one that is not known here."""
        if version == self.version:
            return self.schema
        return self.earlier[version - 1] if 1 <= version < self.version else None


def _first_unlike(schema: pa.Schema) -> str:
    fields = enumerate(ENVELOPE)
    number = next(n for n, wanted in fields if n >= len(schema) or not wanted.equals(schema.field(n)))
    return f"the envelope: column {number} should be {ENVELOPE[number]}"


def murmur2(key: bytes) -> int:
    """Austin Appleby's MurmurHash2 as Kafka's ``Utils.murmur2`` has it; signed 32-bit result."""
    length = len(key)
    h = (_SEED ^ length) & _MASK
    for i in range(0, length - 3, 4):
        k = int.from_bytes(key[i : i + 4], "little")
        k = (k * _M) & _MASK
        k ^= k >> 24
        k = (k * _M) & _MASK
        h = ((h * _M) & _MASK) ^ k
    tail = length & ~3
    if length & 3:
        h ^= int.from_bytes(key[tail:], "little")
        h = (h * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    h ^= h >> 15
    return h - (1 << 32) if h >= 1 << 31 else h


@lru_cache(maxsize=262_144)
def partition_for(key: str, partitions: int) -> int:
    """The partition of ``key`` among ``partitions``."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions


def partitions_for(keys: pa.Array, partitions: int) -> np.ndarray:
    """The partition of each key of a string array without nulls: int32, shape ``(len(keys),)``.

    The same function as :func:`partition_for`, over all keys at once.
    """
    if partitions == 1:
        return np.zeros(len(keys), dtype=np.int32)
    keys = keys.cast(pa.string())
    _, offset_buffer, data_buffer = keys.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int32)[keys.offset : keys.offset + len(keys) + 1].astype(np.int64)
    # Four zero bytes behind the last key let every 4-byte read stay inside the array.
    data = np.concatenate([np.frombuffer(data_buffer or b"", dtype=np.uint8), np.zeros(4, np.uint8)])
    start, length = offsets[:-1], np.diff(offsets)
    m = np.uint32(_M)
    h = np.uint32(_SEED) ^ length.astype(np.uint32)
    blocks = length // 4
    with np.errstate(over="ignore"):
        for i in range(int(blocks.max(initial=0))):
            rows = np.flatnonzero(blocks > i)
            k = _little_endian(data, start[rows] + 4 * i, 4) * m
            k ^= k >> np.uint32(24)
            h[rows] = (h[rows] * m) ^ (k * m)
        for tail in (1, 2, 3):
            rows = np.flatnonzero((length & 3) == tail)
            if rows.size:
                h[rows] = (h[rows] ^ _little_endian(data, start[rows] + 4 * blocks[rows], tail)) * m
        h ^= h >> np.uint32(13)
        h *= m
        h ^= h >> np.uint32(15)
    positive = h & np.uint32(0x7FFFFFFF)
    return np.asarray(np.remainder(positive, partitions), dtype=np.int32)


def _little_endian(data: np.ndarray, at: np.ndarray, count: int) -> np.ndarray:
    value: np.ndarray = data[at].astype(np.uint32)
    for i in range(1, count):
        value |= data[at + i].astype(np.uint32) << np.uint32(8 * i)
    return value

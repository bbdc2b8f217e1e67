"""The facts decided since the last append, column by column, on their way to one record batch of the topic's schema."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from eventmesh.log.topic import Topic
from eventmesh.messages import ENVELOPE, Columns, encode_columns
from eventmesh.values import DoesNotFit, Shape

_ENVELOPE_NAMES = {field.name for field in ENVELOPE}
#: The columns of the envelope that have values of their own in each fact.
_OF_EACH = [field for field in ENVELOPE if field.name in ("id", "type", "time", "correlationid", "causationid")]


class FactBatch:
    """Facts as lists by payload column, in chunks as they were decided; :meth:`to_batch` adds the envelope."""

    def __init__(self, topic: Topic, source: str) -> None:
        self.topic, self.source = topic, source
        self._payload_fields = [field for field in topic.schema if field.name not in _ENVELOPE_NAMES]
        self._shape = Shape(self._payload_fields)
        self._dataschema = f"{topic.name}/1"
        self.clear()

    def clear(self) -> None:
        """Start the next batch."""
        self._chunks: list[tuple[int, Mapping[str, list[Any]]]] = []
        self._kinds: list[str] = []
        self._ids: list[str] = []
        self._stories: list[str | None] = []
        self._causations: list[str] = []
        self._times: list[int] = []

    def __len__(self) -> int:
        return len(self._ids)

    def add(
        self,
        kinds: list[str],
        ids: list[str],
        stories: list[str | None],
        causations: list[str],
        payload: Mapping[str, list[Any]],
        base: int,
        now: int,
    ) -> Columns:
        """Add facts, one item per list; returns them as ``evolve`` sees them, with id, type, time and sequence.

        ``base`` is the offset of the batch's first fact. :class:`~eventmesh.values.DoesNotFit` for a value that its
        column does not take, for a column that the topic does not have, or of another length: nothing is added.
        """
        count = len(ids)
        what = kinds[0] if count == 1 else " or ".join(dict.fromkeys(kinds))
        for name, values in payload.items():
            if len(values) != count:
                raise DoesNotFit(f"{what}: {name} has {len(values)} values for {count} facts")
        self._shape.check(payload, what)
        first = base + len(self._ids)
        times = [now] * count
        self._chunks.append((count, payload))
        self._kinds += kinds
        self._ids += ids
        self._stories += stories
        self._causations += causations
        self._times += times
        sequence = list(range(first, first + count))
        return Columns(lists={**payload, "id": ids, "type": kinds, "time": times, "sequence": sequence})

    def to_batch(self, base: int) -> pa.RecordBatch:
        """One record batch whose first row has offset ``base``."""
        count = len(self._ids)
        used = {self.topic.key}.union(*(payload for _, payload in self._chunks))
        fields = [field for field in self._payload_fields if field.name in used]
        columns: list[list[Any]] = [self._ids, self._kinds, self._times, self._stories, self._causations]
        columns += [self._values(field.name) for field in fields]
        ids, kinds, times, stories, causations, *payload = encode_columns(columns, [*_OF_EACH, *fields])
        by_name = {field.name: array for field, array in zip(fields, payload, strict=True)}
        key = by_name[self.topic.key]
        source, dataschema = _same(self.source, count), _same(self._dataschema, count)
        sequence = pa.array(np.arange(base, base + count, dtype=np.int64))
        arrays = [ids, source, kinds, key, times, dataschema, stories, causations, key, sequence]
        arrays += [
            by_name[field.name] if field.name in used else _nulls(field.type, count) for field in self._payload_fields
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.topic.schema)

    def _values(self, name: str) -> list[Any]:
        values: list[Any] = []
        for count, payload in self._chunks:
            values += payload[name] if name in payload else [None] * count
        return values


@lru_cache(maxsize=256)
def _same(text: str, count: int) -> pa.Array:
    return pa.array([text] * count, pa.string())


@lru_cache(maxsize=256)
def _nulls(kind: pa.DataType, count: int) -> pa.Array:
    return pa.nulls(count, kind)

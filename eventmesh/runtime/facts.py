"""The facts decided since the last append, on their way to one record batch of the topic's schema."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from eventmesh.log.topic import Topic
from eventmesh.messages import ENVELOPE, encode_column

_ENVELOPE_NAMES = {field.name for field in ENVELOPE}


class FactBatch:
    """Facts as dicts of payload; :meth:`to_batch` adds the envelope columns."""

    def __init__(self, topic: Topic, source: str) -> None:
        self.topic, self.source = topic, source
        self._payload_fields = [field for field in topic.schema if field.name not in _ENVELOPE_NAMES]
        self._dataschema = f"{topic.name}/1"
        self.clear()

    def clear(self) -> None:
        """Start the next batch."""
        self._facts: list[dict[str, Any]] = []
        self._ids: list[str] = []
        self._correlations: list[str | None] = []
        self._causations: list[str] = []

    def __len__(self) -> int:
        return len(self._facts)

    def add(
        self,
        identity: str,
        kind: str,
        correlation: str | None,
        causation: str,
        payload: dict[str, Any],
        end: int,
        now: int,
    ) -> dict[str, Any]:
        """Add a fact; returns it as ``evolve`` sees it: payload with type, time and sequence (its offset)."""
        payload["type"] = kind
        payload["sequence"] = end + len(self._facts)
        payload["time"] = now
        self._facts.append(payload)
        self._ids.append(identity)
        self._correlations.append(correlation)
        self._causations.append(causation)
        return payload

    def to_batch(self, base: int) -> pa.RecordBatch:
        """One record batch whose first row has offset ``base``."""
        facts = self._facts
        count = len(facts)
        key = encode_column([fact.get(self.topic.key) for fact in facts], pa.string())
        envelope = [
            pa.array(self._ids, pa.string()),
            pa.array([self.source] * count, pa.string()),
            pa.array([fact["type"] for fact in facts], pa.string()),
            key,
            pa.array([fact["time"] for fact in facts], ENVELOPE[4].type),
            pa.array([self._dataschema] * count, pa.string()),
            pa.array(self._correlations, pa.string()),
            pa.array(self._causations, pa.string()),
            key,
            pa.array(np.arange(base, base + count, dtype=np.int64)),
        ]
        payload = [
            key if field.name == self.topic.key else encode_column([fact.get(field.name) for fact in facts], field.type)
            for field in self._payload_fields
        ]
        return pa.RecordBatch.from_arrays([*envelope, *payload], schema=self.topic.schema)

    def progressed(self, name: str, base: int, now: int) -> pa.RecordBatch:
        """The one row of a record that carries the vector alone."""
        row = FactBatch(self.topic, self.source)
        row.add(f"{name}/{base}/progressed", "eventmesh.Progressed", None, "", {}, base, now)
        return row.to_batch(base)

"""The facts decided since the last append, as columns, on their way to one record batch of the topic's schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec.structs import astuple

from eventmesh.configuration import nearest
from eventmesh.declared import Declared, Fact, Facts, shape
from eventmesh.log.topic import Topic
from eventmesh.messages import ENVELOPE, REFUSED, TIMER_DUE, Columns, encode_columns
from eventmesh.values import DoesNotFit

_ENVELOPE_NAMES = {field.name for field in ENVELOPE}
#: The columns of the envelope that have values of their own in each fact.
_OF_EACH = [field for field in ENVELOPE if field.name in ("id", "type", "time", "correlationid", "causationid")]


class FactBatch:
    """Facts as lists by payload column, in chunks as they were decided; :meth:`to_batch` adds the envelope.

    They are those that ``declared`` has on ``topic``, and refusals.
    """

    def __init__(self, topic: Topic, source: str, declared: Declared) -> None:
        self.topic, self.source, self._declared = topic, source, declared
        self._shapes = {cls: shape(cls) for cls in declared.topics.get(topic.name, ())}
        self._payload_fields = [field for field in topic.schema if field.name not in _ENVELOPE_NAMES]
        self._dataschema = topic.dataschema
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
        facts: Sequence[Fact],
        ids: list[str],
        stories: list[str | None],
        causations: list[str],
        base: int,
        now: int,
    ) -> Facts:
        """Add facts, one item per list; returns them as ``evolve`` sees them, with id, type, time and sequence.

        ``base`` is the offset of the batch's first fact. :class:`~eventmesh.values.DoesNotFit` for a value that its
        column does not take, and for what is no fact of the topic: nothing is added.
        """
        kinds, payload = self._columns(facts)
        return self._add(kinds, payload, ids, stories, causations, base, now)

    def add_refusal(
        self, identity: str, story: str | None, causation: str, position: str, reason: str, base: int, now: int
    ) -> None:
        """Add the fact that an input was refused; services do not fold it."""
        self._add_own(REFUSED, identity, story, causation, position, reason, base, now)

    def add_due(self, identity: str, story: str | None, causation: str, name: str, base: int, now: int) -> None:
        """Add the fact that the time has come which a conversation waits for; services do not fold it."""
        self._add_own(TIMER_DUE, identity, story, causation, "", name, base, now)

    def _add_own(
        self, kind: str, identity: str, story: str | None, causation: str, position: str, reason: str, base: int,
        now: int,
    ) -> None:  # fmt: skip
        payload = {"position": [position], "reason": [reason]}
        self._add([kind], payload, [identity], [story], [causation], base, now)

    def _add(
        self,
        kinds: list[str],
        payload: Mapping[str, list[Any]],
        ids: list[str],
        stories: list[str | None],
        causations: list[str],
        base: int,
        now: int,
    ) -> Facts:
        count = len(ids)
        first = base + len(self._ids)
        times = [now] * count
        self._chunks.append((count, payload))
        self._kinds += kinds
        self._ids += ids
        self._stories += stories
        self._causations += causations
        self._times += times
        sequence = list(range(first, first + count))
        columns = Columns(lists={**payload, "id": ids, "type": kinds, "time": times, "sequence": sequence})
        return Facts.of(columns, self._declared)

    def check(self, fact: Fact) -> None:
        """:class:`~eventmesh.values.DoesNotFit` where :meth:`add` would raise it."""
        self._of_one_class(type(fact), [fact])

    def _columns(self, facts: Sequence[Fact]) -> tuple[list[str], Mapping[str, list[Any]]]:
        """The kind of each fact, and their columns, of which every value fits."""
        classes = list(map(type, facts))
        distinct = dict.fromkeys(classes)
        if len(distinct) == 1:
            return [classes[0].__name__] * len(facts), self._of_one_class(classes[0], facts)
        rows = {cls: [place for place, each in enumerate(classes) if each is cls] for cls in distinct}
        parts = {cls: self._of_one_class(cls, [facts[place] for place in places]) for cls, places in rows.items()}
        columns: dict[str, list[Any]] = {}
        for cls, part in parts.items():
            for name, values in part.items():
                column = columns.setdefault(name, [None] * len(facts))
                for place, value in zip(rows[cls], values, strict=True):
                    column[place] = value
        return [cls.__name__ for cls in classes], columns

    def _of_one_class(self, cls: type[Fact], facts: Sequence[Fact]) -> dict[str, list[Any]]:
        fits = self._shapes.get(cls)
        if fits is None:
            raise self._not_ours(facts[0])
        columns = dict(zip(cls.__struct_fields__, map(list, zip(*map(astuple, facts), strict=True)), strict=True))
        fits.check(columns, cls.__name__)
        return columns

    def _not_ours(self, found: Any) -> DoesNotFit:
        kinds = [cls.__name__ for cls in self._shapes]
        if not isinstance(found, Fact):
            return DoesNotFit(f"{found!r} is no fact: {self.source} writes {', '.join(kinds)}")
        name, topic = type(found).__name__, type(found).__topic__
        if topic != self.topic.name:
            return DoesNotFit(f"{name} is a fact of {topic}, and {self.source} writes {self.topic.name}")
        return DoesNotFit(f"{name} is not among what the application declares. {nearest(name, kinds)}".rstrip())

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

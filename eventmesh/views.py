"""A table folded from topics: look-up by key, position, staleness. No I/O.

Each topic is folded into a table of its own, and a look-up puts them together, so that nothing depends on which topic
or partition came first (rule 13). Of last values, a later-listed topic overrides an earlier one; aggregates add up over
all of them. Within a topic a key has the values of its last fact, with the offset of that fact (its *version*); where
several partitions speak of one key, that is the fact which was appended last, by its writer's clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import compress, islice
from operator import itemgetter
from typing import Any

import pyarrow as pa

from eventmesh.log.batch import LogBatch
from eventmesh.messages import Columns
from eventmesh.progress import position_name
from eventmesh.shapes import Aggregate, Count, Max, Min, Sum, Top, ViewShape, Where, all_met, names_of

__all__ = ["ABSENT_VERSION", "Count", "Max", "Min", "Sum", "Top", "View", "ViewShape", "Where", "age_ms"]

#: What a look-up of an unknown key answers: no version, no values.
ABSENT_VERSION = -1
Moment = tuple[int, int, int]  # when a fact was appended (us), its partition, its offset
_NEVER: Moment = (-1, -1, -1)


def age_ms(next_offsets: Mapping[str, int], applied_time: int, ends: Mapping[str, int], now: int) -> float:
    """How old a view is: 0 where it has seen all that there is, else the time since its newest fact was appended.

    Positions and ``ends`` by ``topic/partition``; ``applied_time`` (0: no fact yet) and ``now`` in microseconds.
    """
    complete = all(ends.get(position, at) <= at for position, at in next_offsets.items())
    return 0.0 if complete or not applied_time else (now - applied_time) / 1e3


class View:
    """A service's own copy of what other services said on ``topics`` (weakest first).

    ``spread`` names those of them in which several partitions may speak of one key of this view.
    """

    def __init__(self, name: str, shape: ViewShape, topics: Sequence[str], spread: Collection[str] = ()) -> None:
        self.name, self.shape, self.topics = name, shape, tuple(topics)
        self.spread = tuple(topic for topic in self.topics if topic in spread)
        self.next: dict[str, int] = {}  # topic/partition -> next offset to apply
        self.applied_time = 0  # append time (us) of the newest fact applied
        self.applied_times: dict[str, int] = {}  # the same by topic/partition, for the topics in ``spread``
        self._types, self._filters = frozenset(shape.types), bool(shape.types or shape.where)
        self._names = [each for each in shape.columns if isinstance(each, str)]
        self._whole_key, self._bare = shape.whole_key, isinstance(shape.key, str) and not shape.rows
        self._aggregates = [each if isinstance(each, Aggregate) else None for each in shape.columns]
        self._absent = (ABSENT_VERSION, *(each and each.nothing for each in self._aggregates))
        #: How a column goes on with the value of a fact that is newer, and of one that is older and came late.
        self._onward = [each.plus if each is not None else _newer for each in self._aggregates]
        self._late = [each.plus if each is not None else _older for each in self._aggregates]
        self._last_values = not (shape.aggregates or shape.remove_where)
        self._shown_as_kept = not any(isinstance(each, Top) for each in shape.columns)
        self._found_in_one = self._shown_as_kept and (len(self.topics) == 1 or self._last_values)
        #: By topic and key the version and the values.
        self._tables: dict[str, dict[Any, tuple[Any, ...]]] = {topic: {} for topic in self.topics}
        #: By topic and key the version of what removed it, where something older or weaker may still come.
        self._removed: dict[str, dict[Any, int]] = {topic: {} for topic in self.topics}
        self._moments: dict[str, dict[Any, Moment]] = {topic: {} for topic in self.spread}
        self._rows_of: dict[Any, set[tuple[Any, ...]]] = {}  # by key what its rows are found by, where it has many

    # --- the fold -----------------------------------------------------------------------------

    def apply(self, topic: str, partition: int, base: int, facts: Columns, time: int = 0) -> None:
        """Fold a batch that begins at offset ``base``, appended at ``time``; rows already applied are skipped."""
        name = position_name(topic, partition)
        skip = max(0, self.next.get(name, 0) - base)
        if skip >= len(facts):
            return
        if self._last_values and topic not in self._moments:
            self._update(topic, facts, skip)
        else:
            self._fold_each(topic, partition, facts, skip, time)
        self.next[name] = base + len(facts)
        self.applied_time = max(self.applied_time, time)

    def fold(self, topic: str, partition: int, entry: LogBatch) -> None:
        """Fold a batch as it was read; of one without facts, only the position counts."""
        if entry.header.kind == "facts":
            self.apply(topic, partition, entry.header.base, entry.columns, entry.header.time)
        else:
            self.skip(topic, partition, entry.header.end)

    def skip(self, topic: str, partition: int, end: int) -> None:
        """A batch without facts: only the position moves."""
        name = position_name(topic, partition)
        self.next[name] = max(self.next.get(name, 0), end)

    def _update(self, topic: str, facts: Columns, skip: int) -> None:
        """The last of all that counts, which a dict keeps by itself."""
        keys, table = self._keys(facts), self._tables[topic]
        values = zip(facts["sequence"], *[facts[column] for column in self._names], strict=True)
        rows: Iterable[tuple[Any, tuple[Any, ...]]] = zip(keys, values, strict=True)
        if skip:
            rows = islice(rows, skip, None)
        if self._filters:
            rows = compress(rows, self._counting(facts)[skip:])
        if self._bare:
            table.update(rows)
            table.pop(None, None)  # facts that are about no key
        else:
            found = [(key, row) for key, row in rows if None not in key]
            table.update(found)
            self._file(key for key, _ in found)

    def _fold_each(self, topic: str, partition: int, facts: Columns, skip: int, time: int) -> None:
        """One fact after the other: what becomes of each depends on what there is."""
        table, moments, appended_at = self._tables[topic], self._moments.get(topic), time
        if moments is not None:  # a clock may be set back; within a partition a later offset is later all the same
            name = position_name(topic, partition)
            appended_at = self.applied_times[name] = max(time, self.applied_times.get(name, 0))
        for key, removes, row in self._looked_at(topic, partition, facts, skip):
            newer = True
            if moments is not None:
                moment = (appended_at, partition, row[0])
                newer = moment > moments.get(key, _NEVER)
                if newer:
                    moments[key] = moment
            if key in table and not removes:
                table[key] = self._with(table[key], row, newer)
            elif newer:
                self._put(topic, key, row, removes)

    def _looked_at(
        self, topic: str, partition: int, facts: Columns, skip: int
    ) -> Iterator[tuple[Any, bool, tuple[Any, ...]]]:
        """Of each fact that counts or removes: its key, whether it removes, and its offset with its values."""
        shape, strength, keys = self.shape, self.topics.index(topic), self._keys(facts)
        columns = [
            facts[kept] if isinstance(kept, str) else kept.lifted(facts, strength, partition) for kept in shape.columns
        ]
        rows = zip(facts["sequence"], *columns, strict=True)
        looked_at, removing = self._counting(facts), [False] * len(facts)
        if shape.remove_where:
            removing = all_met(shape.remove_where, facts)
            looked_at = [one or other for one, other in zip(looked_at, removing, strict=True)]
        looked_at = _both(looked_at, [key is not None if self._bare else None not in key for key in keys])
        return compress(islice(zip(keys, removing, rows, strict=True), skip, None), looked_at[skip:])

    def _with(self, known: tuple[Any, ...], row: tuple[Any, ...], newer: bool) -> tuple[Any, ...]:
        """What is kept of a key of which this is known, after one more fact."""
        folds, version = (self._onward, row[0]) if newer else (self._late, known[0])
        return (version, *[fold(one, other) for fold, one, other in zip(folds, known[1:], row[1:], strict=True)])

    def _put(self, topic: str, key: Any, row: tuple[Any, ...], removes: bool) -> None:
        """Begin with a key, or end with it."""
        table, removed = self._tables[topic], self._removed[topic]
        if not removes:
            table[key] = row
            removed.pop(key, None)
            self._file([key])
            return
        table.pop(key, None)
        if topic in self._moments or topic != self.topics[0]:
            removed[key] = row[0]
        self._file([key])

    def _keys(self, facts: Columns) -> Sequence[Any]:
        if self._bare:
            return facts[self._whole_key[0]]
        return list(zip(*[facts[column] for column in self._whole_key], strict=True))

    def _counting(self, facts: Columns) -> list[bool]:
        """Of each fact whether it counts, whatever its key."""
        types = self._types
        counting = [kind in types for kind in facts["type"]] if types else [True] * len(facts)
        return _both(counting, all_met(self.shape.where, facts)) if self.shape.where else counting

    def _file(self, keys: Iterable[Any]) -> None:
        """Note which rows a key has."""
        if not self.shape.rows:
            return
        for whole in keys:
            key, row = self._split(whole)
            if any(whole in table for table in self._tables.values()):
                self._rows_of.setdefault(key, set()).add(row)
            elif row in self._rows_of.get(key, ()):
                self._rows_of[key].discard(row)
                if not self._rows_of[key]:
                    del self._rows_of[key]

    def _split(self, whole: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        """The key, as it is looked up, and what finds a row under it."""
        if isinstance(self.shape.key, str):
            return whole[0], whole[1:]
        size = len(self.shape.key)
        return whole[:size], whole[size:]

    # --- look-ups -----------------------------------------------------------------------------

    def lookup(self, keys: Iterable[Any]) -> list[tuple[Any, ...]]:
        """``(version, *values)`` of each key, in order; of an unknown one version -1, and what a column has of nothing.

        A key of several columns is a tuple. With ``rows`` each key has a tuple of rows, ``(version, *row, *values)``,
        sorted by what finds them; an unknown one has none.
        """
        asked: Sequence[Any] = keys if isinstance(keys, (list, tuple)) else list(keys)
        if not self._bare:
            self._must_be_keys(asked)
            if self.shape.rows:
                return [self._rows_under(key) for key in asked]
        if not self._found_in_one:
            return [self._shown(self._found(key)) for key in asked]
        weakest, *stronger = self._tables.values()
        found = _values(weakest, asked, self._absent)
        for table in stronger:
            if table:
                found = [table.get(key, below) for key, below in zip(asked, found, strict=True)]
        return found

    def _must_be_keys(self, keys: Sequence[Any]) -> None:
        """A key of another form would only never be found."""
        names = names_of(self.shape.key)
        for key in keys if isinstance(self.shape.key, tuple) else ():
            if key is not None and not (isinstance(key, tuple) and len(key) == len(names)):
                expected = f"({', '.join(names)}{',' if len(names) == 1 else ''})"
                raise TypeError(f"the view {self.name!r} is looked up by a list of tuples {expected}, found {key!r}")

    def _rows_under(self, key: Any) -> tuple[Any, ...]:
        begins = (key,) if isinstance(self.shape.key, str) else key
        found = self._found if len(self.topics) > 1 else next(iter(self._tables.values())).get
        rows = [(row, found((*begins, *row))) for row in sorted(self._rows_of.get(key, ()))]
        shown = [(row, self._shown(values)) for row, values in rows if values is not None]
        return tuple([(version, *row, *values) for row, (version, *values) in shown])

    def _found(self, key: Any) -> tuple[Any, ...] | None:
        """What all topics say of a key."""
        found = None
        for topic, table in self._tables.items():
            said = table.get(key)
            if said is not None:
                found = said if found is None else self._with(found, said, True)
            elif key in self._removed[topic]:
                found = None
        return found

    def _shown(self, row: tuple[Any, ...] | None) -> tuple[Any, ...]:
        if row is None:
            row = self._absent
        if self._shown_as_kept:
            return row
        kept = zip(self._aggregates, row[1:], strict=True)
        return (row[0], *[value if each is None else each.shown(value) for each, value in kept])

    def __len__(self) -> int:
        """How many keys it knows; with ``rows``, how many rows."""
        filled = [table for table in self._tables.values() if table]
        if len(filled) == 1 and not any(self._removed.values()):
            return len(filled[0])
        keys = set().union(*filled)
        return sum(self._found(key) is not None for key in keys) if any(self._removed.values()) else len(keys)

    def rows(self) -> list[dict[str, Any]]:
        """The whole table as look-ups see it, sorted by key: equal views give equal rows (P5).

        Each has its ``key`` (with what finds a ``row`` under it, where a key has many), the ``topic`` of which its
        ``version`` is an offset, and its ``values`` in the order of the shape's columns.
        """
        rows = []
        for whole in sorted(set().union(*self._tables.values())):
            found = self._found(whole)
            if found is not None:
                topic = next(topic for topic in reversed(self.topics) if whole in self._tables[topic])
                key, *row = self._split(whole) if self.shape.rows else (whole,)
                version, *values = self._shown(found)
                named = {"topic": topic, "key": key, "row": row[0]} if row else {"topic": topic, "key": key}
                rows.append({**named, "version": version, "values": values})
        return rows

    # --- to a snapshot and back ---------------------------------------------------------------

    def fields(self, topic: str, schema: pa.Schema) -> list[pa.Field]:
        """What the columns of a topic's part are called, and their types; ``schema`` is the topic's."""
        names = ["key"] if self._bare else [f"key.{name}" for name in self._whole_key]
        found = [pa.field(called, _type_of(schema, name)) for called, name in zip(names, self._whole_key, strict=True)]
        found.append(pa.field("version", pa.int64()))
        for kept in self.shape.columns:
            found.append(pa.field(kept, _type_of(schema, kept)) if isinstance(kept, str) else kept.field(schema))
        if self.shape.remove_where:
            found.append(pa.field("removed", pa.bool_()))
        if topic in self._moments:
            found += [pa.field("appended_at", pa.int64()), pa.field("partition", pa.int64())]
        return found

    def columns(self, topic: str) -> list[Sequence[Any]]:
        """What is known from one topic, as columns: :meth:`fields` says which."""
        table, removed = self._tables[topic], self._removed[topic]
        nothing = (None,) * len(self.shape.columns)
        keys, rows = [*table, *removed], [*table.values(), *((version, *nothing) for version in removed.values())]
        found: list[Sequence[Any]] = [keys] if self._bare else _transposed(keys, len(self._whole_key))
        found += _transposed(rows, 1 + len(self.shape.columns))
        if self.shape.remove_where:
            found.append([False] * len(table) + [True] * len(removed))
        if topic in self._moments:
            found += _transposed([self._moments[topic][key][:2] for key in keys], 2)
        return found

    def restore(self, topic: str, columns: Sequence[Sequence[Any]]) -> None:
        """The reverse of :meth:`columns`."""
        size, kept = len(self._whole_key), 1 + len(self.shape.columns)
        keys: Sequence[Any] = columns[0] if self._bare else list(zip(*columns[:size], strict=True))
        versions, *values = columns[size : size + kept]
        whole = [
            each if aggregate is None else aggregate.restored(each)
            for aggregate, each in zip(self._aggregates, values, strict=True)
        ]
        rows: Iterable[tuple[Any, tuple[Any, ...]]] = zip(keys, zip(versions, *whole, strict=True), strict=True)
        more = list(columns[size + kept :])
        if topic in self._moments:
            partitions, moments = more.pop(), more.pop()
            self._moments[topic] = dict(zip(keys, zip(moments, partitions, versions, strict=True), strict=True))
        if self.shape.remove_where:
            [gone] = more
            self._removed[topic] = dict(compress(zip(keys, versions, strict=True), gone))
            rows = compress(rows, [not each for each in gone])
        self._tables[topic] = dict(rows)
        self._file(self._tables[topic])


def _values(table: Mapping[Any, Any], keys: Sequence[Any], absent: Any) -> list[Any]:
    """The value of each key. An itemgetter looks up at twice the speed of a loop, as long as all keys are there."""
    if len(keys) > 1:  # of one key it would give the value alone
        with suppress(KeyError):
            return list(itemgetter(*keys)(table))
    return [table.get(key, absent) for key in keys]


def _newer(known: Any, new: Any) -> Any:
    return new


def _older(known: Any, new: Any) -> Any:
    return known


def _both(one: list[bool], other: list[bool]) -> list[bool]:
    return [each and also for each, also in zip(one, other, strict=True)]


def _transposed(rows: Sequence[Sequence[Any]], width: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) or [()] * width


def _type_of(schema: pa.Schema, name: str) -> pa.DataType:
    """A column that a topic does not have reads as nulls."""
    place = schema.get_field_index(name)
    return schema.field(place).type if place >= 0 else pa.null()

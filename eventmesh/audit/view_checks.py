"""E8: each view equals the fold of its topics at the positions it names, worked out again by SQL.

Of the views' own code nothing is used here. SQL says which facts make up a row; what they say is taken from the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from eventmesh.audit.evidence import Check, Evidence
from eventmesh.audit.verdict import CheckResult, Findings
from eventmesh.history import ViewDump
from eventmesh.messages import decode_column
from eventmesh.progress import split_position

Shape = Any  # what an application says of a view, as data
Rows = dict[tuple[Any, ...], list[Any]]  # the whole key -> [topic, version, [values]]
_POSITION = "{'s': strength, 'p': partition, 'o': \"offset\"}"
#: Structs are compared field by field: the largest is the fact that overrides all others of its key.
_NEWEST = "{'s': strength, 'm': moment, 'p': partition, 'o': \"offset\", 'removes': removes}"


def views_equal_folds(evidence: Evidence) -> CheckResult:
    """E8: each view equals an independent fold of its topics at the positions it names."""
    findings = Findings("E8", "each view equals an independent fold (SQL) at the positions it names")
    shapes = evidence.mesh.application.VIEWS
    for lacking in _not_dumped(evidence):
        findings.lacks(lacking)
    for dump in evidence.history.views:
        topics = evidence.mesh.services[dump.service].views.get(dump.view, [])
        _compare(dump, _Fold(evidence, shapes[dump.view], topics, dump.next).rows(), findings)
    return findings.result()


def _not_dumped(evidence: Evidence) -> Iterator[str]:
    dumped = {(dump.service, dump.view) for dump in evidence.history.views}
    for name, service in evidence.mesh.services.items():
        for view in service.views:
            if (name, view) not in dumped:
                yield f"the view {view} of {name} as it stood at the end"


def _compare(dump: ViewDump, expected: Rows, findings: Findings) -> None:
    name = f"{dump.service}/{dump.instance} {dump.view}"
    held: Rows = {}
    for row in dump.rows:
        key = (*_parts(row["key"]), *_parts(row.get("row", ())))
        if key in held:
            findings.flag(f"{name}, {_said(key)}: the view has it twice")
        held[key] = [row["topic"], row["version"], _as_lists(row["values"])]
    findings.examined += max(len(expected), len(held))
    if held == expected:
        return
    for key in sorted(expected.keys() | held.keys()):
        found, wanted = held.get(key), expected.get(key)
        if found != wanted:
            findings.flag(f"{name}, {_said(key)}: the view has {found}, the log says {wanted}")


def _parts(key: Any) -> tuple[Any, ...]:
    return tuple(key) if isinstance(key, (list, tuple)) else (key,)


def _as_lists(value: Any) -> Any:
    """What was written down and read again has lists in place of tuples."""
    if isinstance(value, (list, tuple)):
        return [_as_lists(each) for each in value]
    return {name: _as_lists(each) for name, each in value.items()} if isinstance(value, dict) else value


def _said(key: tuple[Any, ...]) -> str:
    return str(key[0]) if len(key) == 1 else str(key)


@dataclass(frozen=True)
class _Fold:
    """What a view of this shape holds when it has read its topics (weakest first) up to ``next``."""

    evidence: Evidence
    shape: Shape
    topics: Sequence[str]
    next: Mapping[str, int]

    def rows(self) -> Rows:
        """What look-ups give, by whole key."""
        size = len(self.key)
        kept = [row for row in self._grouped() if not row[size]["removes"]]
        newest = [row[size] for row in kept]
        columns = [[_as_lists(value) for value in column] for column in self._columns(newest, kept)]
        values = list(zip(*columns, strict=True)) or [()] * len(kept)
        return {
            tuple(row[:size]): [self.topics[at["s"]], at["o"], list(each)]
            for row, at, each in zip(kept, newest, values, strict=True)
        }

    # --- which facts, by SQL ------------------------------------------------------------------

    @cached_property
    def key(self) -> tuple[str, ...]:
        """The columns that a row is found by."""
        return (*_parts(self.shape.key), *_parts(self.shape.rows))

    @cached_property
    def column(self) -> Mapping[str, str]:
        """How SQL calls the columns that decide, whatever they are called."""
        names = [*self.key, "type", *(each.column for each in (*self.shape.where, *self.shape.remove_where))]
        names += [_decides(each) for each in self.shape.columns if not isinstance(each, str) and each.how != "count"]
        return {name: f"c{number}" for number, name in enumerate(dict.fromkeys(names))}

    def _grouped(self) -> list[Any]:
        """Of each key: its columns, the fact that overrides all others that count or remove, and the aggregates."""
        sources = [part for strength, topic in enumerate(self.topics) for part in self._source(strength, topic)]
        if not sources:
            return []
        counts, removes = self._counting(), _Condition("false")
        if self.shape.remove_where:
            removes = self._all_of((each.column, each.operator, each.value) for each in self.shape.remove_where)
        whole = self._all_of((name, "is not null", None) for name in self.key)
        keys = ", ".join(self.column[name] for name in self.key)
        chosen = [keys, f"max({_NEWEST})", *self._aggregates()]
        query = f"""
            WITH facts AS ({" UNION ALL BY NAME ".join(sources)}), looked_at AS (
                SELECT *, coalesce({counts.sql}, false) AS counts, coalesce({removes.sql}, false) AS removes FROM facts)
            SELECT {", ".join(chosen)} FROM looked_at WHERE (counts OR removes) AND {whole.sql} GROUP BY {keys}"""
        found: list[Any] = self.evidence.sql.execute(query, [*counts.values, *removes.values]).fetchall()
        return found

    def _source(self, strength: int, topic: str) -> Iterator[str]:
        """The facts of one topic below the view's positions, if there are any."""
        limits = {split_position(name): offset for name, offset in self.next.items()}
        below = [(number, offset) for (name, number), offset in limits.items() if name == topic and offset > 0]
        if not below:
            return
        facts, table, described = self.evidence.facts(topic), f"facts_of_view_{strength}", self.evidence.topics[topic]
        columns = {called: _comparable(facts.column(name)) for name, called in self.column.items()}
        positions = {"partition": facts.partition, "offset": facts.offset, "appended_at": facts.appended_at}
        self.evidence.sql.register(table, pa.table({**columns, **positions}))
        where = " OR ".join(f'(partition = {number} AND "offset" < {offset})' for number, offset in below)
        # Where a key lies in one partition, offsets alone say what is newest. Else clocks do; of one partition's facts
        # none is older than those before it, whatever its writer's clock said.
        moment = "0"
        if described.partitions > 1 and described.key not in self.key:
            moment = 'max(appended_at) OVER (PARTITION BY partition ORDER BY "offset")'
        yield f"SELECT *, {strength} AS strength, {moment} AS moment FROM {table} WHERE {where}"

    def _counting(self) -> _Condition:
        types = [("type", "in", self.shape.types)] if self.shape.types else []
        return self._all_of([*types, *((each.column, each.operator, each.value) for each in self.shape.where)])

    def _all_of(self, conditions: Iterable[tuple[str, str, Any]]) -> _Condition:
        said, values = ["true"], list[Any]()
        for name, operator, value in conditions:
            several = operator in ("in", "not in")
            marks = f"({', '.join('?' * len(value))})" if several else "" if operator.startswith("is ") else "?"
            said.append(f"{self.column[name]} {operator} {marks}")
            values += value if several else [value] if marks else []
        return _Condition(" AND ".join(said), values)

    def _aggregates(self) -> Iterator[str]:
        for kept in (each for each in self.shape.columns if not isinstance(each, str)):
            column = "*" if kept.how == "count" else self.column[_decides(kept)]
            if kept.how == "sum":
                yield f"coalesce(sum({column}::HUGEINT), 0)"
            elif kept.how == "top":
                order = f'{column} {"ASC" if kept.smallest else "DESC"}, strength, partition, "offset"'
                yield f"list({_POSITION} ORDER BY {order}) FILTER ({column} IS NOT NULL)[1:{kept.limit}]"
            else:
                yield f"{kept.how}({column})"

    # --- what they say, from the log ----------------------------------------------------------

    def _columns(self, newest: Sequence[Any], kept: Sequence[Any]) -> Iterator[list[Any]]:
        """The values of each of the view's columns, one for each row."""
        place = len(self.key) + 1
        for column in self.shape.columns:
            if isinstance(column, str):
                yield [value for (value,) in self._told(newest, [column])]
                continue
            values = [row[place] for row in kept]
            place += 1
            if column.how == "top":
                told = iter(self._told([at for each in values for at in each or ()], (column.by, *column.columns)))
                values = [[next(told) for _ in each or ()] for each in values]
            yield values

    def _told(self, positions: Sequence[Any], names: Sequence[str]) -> list[tuple[Any, ...]]:
        """What the facts at these positions say in these columns."""
        told: list[tuple[Any, ...]] = [()] * len(positions)
        for strength, topic in enumerate(self.topics):
            facts, here = self.evidence.facts(topic), [n for n, at in enumerate(positions) if at["s"] == strength]
            partitions, offsets = (np.array([positions[n][part] for n in here], np.int64) for part in ("p", "o"))
            places = pa.array(facts.at(partitions, offsets))
            columns = [decode_column(facts.column(name).take(places)) for name in names]
            for number, values in zip(here, zip(*columns, strict=True), strict=True):
                told[number] = values
        return told


@dataclass(frozen=True)
class _Condition:
    """What is true of a fact, in SQL, and the values for its question marks."""

    sql: str
    values: Sequence[Any] = ()


def _decides(kept: Any) -> str:
    """The column that an aggregate adds up, compares, or is sorted by."""
    return str(kept.by if kept.how == "top" else kept.column)


def _comparable(column: pa.Array) -> pa.Array:
    """Times as whole numbers of their unit, which is how a shape speaks of them."""
    return column.view(pa.int64()) if pa.types.is_timestamp(column.type) else column


CHECKS: dict[str, Check] = {"E8": views_equal_folds}

"""Facts of the market by hand: appends to several partitions, and the plain fold of them all."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from eventmesh import mesh as meshes
from eventmesh.log.topic import partition_for
from eventmesh.mesh import Mesh
from eventmesh.messages import Columns, encode_rows
from eventmesh.views import Count, Max, Min, Sum, Top, View, ViewShape, Where

ROOT = Path(__file__).parents[2]
SERVICE = "board"
PICKED = 1_600_000_000_000_000
Row = dict[str, Any]


@lru_cache
def market() -> Mesh:
    """The application whose views are of every kind."""
    return meshes.load(ROOT / "tests" / "market" / "mesh.yaml")


@dataclass(frozen=True)
class Appended:
    """What a partition got at once: the offset of the first row, when, and the rows."""

    topic: str
    partition: int
    base: int
    time: int
    rows: tuple[Row, ...]

    def cut(self, start: int, stop: int) -> Appended:
        """A part of it, as it would be delivered alone."""
        return Appended(self.topic, self.partition, self.base + start, self.time, self.rows[start:stop])

    def apply(self, view: View) -> None:
        """Have a view fold it, as it is read from the log."""
        schema = market().topics()[self.topic].schema
        rows = [{**row, "sequence": self.base + at} for at, row in enumerate(self.rows)]
        view.apply(self.topic, self.partition, self.base, Columns(encode_rows(schema, rows)), self.time)


def streams(topics: Sequence[str]) -> st.SearchStrategy[list[Appended]]:
    """Appends to the partitions of these topics; clocks may be set back between them."""
    facts = st.fixed_dictionaries(
        {
            "type": st.sampled_from(["Sold", "Sold", "Repriced", "Voided", "TakenBack"]),
            "sale": st.sampled_from(["s1", "s2", "s3", "s4", "s5", None]),
            "customer": st.sampled_from(["ann", "bob", None]),
            "product": st.sampled_from(["fig", "kale", "leek", None]),
            "amount": st.sampled_from([10, 20, 30, -5, 2**63 - 1, None]),
            "weight": st.sampled_from([0.0, -0.0, 1.5, 2.25, None]),
            "organic": st.sampled_from([True, False, None]),
            "picked": st.sampled_from([PICKED, PICKED + 20, None]),
            "floor": st.sampled_from([1, 2, None]),
        }
    )
    append = st.tuples(
        st.sampled_from(topics), st.integers(0, 2), st.integers(0, 5), st.lists(facts, min_size=1, max_size=4)
    )
    return st.lists(append, max_size=10).map(_appended)


def _appended(drawn: Iterable[tuple[str, int, int, list[Row]]]) -> list[Appended]:
    """Each row in the partition that its key says; one without a key in that which was drawn."""
    ends: dict[tuple[str, int], int] = {}
    appends = []
    for topic, home, time, rows in drawn:
        size = market().topics()[topic].partitions
        for number in range(size):
            here = tuple(
                r for r in rows if number == (home % size if r["sale"] is None else partition_for(r["sale"], size))
            )
            base = ends.get((topic, number), 0)
            if here:
                appends.append(Appended(topic, number, base, time, here))
            ends[topic, number] = base + len(here)
    return appends


# --- the plain fold ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fact:
    """One row, and where it stands: ``place`` rises as facts override one another."""

    topic: str
    place: tuple[int, int, int, int]  # the topic among the view's, when it was appended, partition, offset
    row: Row


def plain(view: View, appends: Iterable[Appended]) -> list[Row]:
    """What :meth:`View.rows` should be: all facts of a key side by side, none of them folded."""
    shape, groups = view.shape, dict[tuple[Any, ...], list[Fact]]()
    for fact in _facts(view, appends):
        key = tuple(fact.row[name] for name in shape.whole_key)
        if None not in key and (_counts(shape, fact.row) or _removes(shape, fact.row)):
            groups.setdefault(key, []).append(fact)
    rows = []
    for key in sorted(groups):
        newest = max(groups[key], key=lambda fact: fact.place)
        if not _removes(shape, newest.row):
            values = [_kept(kept, groups[key], newest) for kept in shape.columns]
            rows.append({**_named(shape, key), "topic": newest.topic, "version": newest.place[3], "values": values})
    return rows


def _facts(view: View, appends: Iterable[Appended]) -> Iterable[Fact]:
    latest: dict[tuple[str, int], int] = {}
    for each in sorted(appends, key=lambda each: each.base):
        moment = latest[each.topic, each.partition] = max(each.time, latest.get((each.topic, each.partition), 0))
        for at, row in enumerate(each.rows):
            when = moment if each.topic in view.spread else 0
            yield Fact(each.topic, (view.topics.index(each.topic), when, each.partition, each.base + at), row)


def _named(shape: ViewShape, key: tuple[Any, ...]) -> Row:
    if not shape.rows:
        return {"key": key[0] if isinstance(shape.key, str) else key}
    size = 1 if isinstance(shape.key, str) else len(shape.key)
    return {"key": key[0] if isinstance(shape.key, str) else key[:size], "row": key[size:]}


def _counts(shape: ViewShape, row: Row) -> bool:
    return (not shape.types or row["type"] in shape.types) and all(meets(row, each) for each in shape.where)


def _removes(shape: ViewShape, row: Row) -> bool:
    return bool(shape.remove_where) and all(meets(row, each) for each in shape.remove_where)


COMPARED = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def meets(row: Row, condition: Where) -> bool:
    """Whether a fact meets a condition, in SQL's sense."""
    value, named = row[condition.column], condition.operator
    if named.startswith("is "):
        return (value is None) == (named == "is null")
    if value is None:
        return False
    if named in COMPARED:
        return bool(COMPARED[named](value, condition.value))
    return (value in condition.value) == (named == "in")


def _kept(kept: Any, facts: Sequence[Fact], newest: Fact) -> Any:
    if isinstance(kept, str):
        return newest.row[kept]
    if isinstance(kept, Count):
        return len(facts)
    told = [fact for fact in facts if fact.row[kept.reads[0]] is not None]
    values = [fact.row[kept.reads[0]] for fact in told]
    if isinstance(kept, Sum):
        return sum(values)
    if isinstance(kept, (Min, Max)):
        found = (min if isinstance(kept, Min) else max)(values, default=None)
        return 0.0 if found == 0.0 and isinstance(found, float) else found
    assert isinstance(kept, Top)
    by_place = sorted(told, key=lambda fact: (fact.place[0], fact.place[2], fact.place[3]))
    best = sorted(by_place, key=lambda fact: fact.row[kept.by], reverse=not kept.smallest)[: kept.limit]
    return tuple(tuple(fact.row[name] for name in kept.reads) for fact in best)

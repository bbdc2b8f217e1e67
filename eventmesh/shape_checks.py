"""What is wrong with the shape of a view, over the topics that a mesh file gives it: found when the mesh is read.

Each mistake is said with where it stands in the application's ``VIEWS``, what was found there, and what to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import pyarrow as pa

from eventmesh.configuration import suggestion
from eventmesh.messages import ENVELOPE, OWN_FACTS, REFUSAL
from eventmesh.shapes import (
    OF_NULLS,
    OF_ORDER,
    OF_SEVERAL,
    TOP_MAX,
    Aggregate,
    Operator,
    Sum,
    Top,
    ViewShape,
    Where,
)
from eventmesh.values import column_of

TEXT, WHOLE, NUMBER, TRUTH = "text", "whole number", "number", "truth value"
_COMMON = frozenset(field.name for field in (*ENVELOPE, *REFUSAL))
AGGREGATES = "Count(), Sum(...), Min(...), Max(...) or Top(...)"


class Misshapen(ValueError):
    """A mistake in a shape: ``problem`` says where and what, ``hint`` what to write."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(f"{problem}. {hint}")
        self.problem, self.hint = problem, hint


@dataclass(frozen=True)
class ShapeCheck:
    """One view's shape, held against the schemas of its topics.

    ``facts`` has the types of fact of each topic.
    """

    view: str
    shape: ViewShape
    schemas: Mapping[str, pa.Schema]
    facts: Mapping[str, Iterable[str]]

    def all(self) -> None:
        """Raises :class:`Misshapen` for the first mistake."""
        self._built()
        self._columns_are_there()
        self._keys()
        self._types()
        self._values()
        for place, condition in self._conditions():
            for topic in self.schemas:
                self._condition(place, condition, topic)

    # --- the shape alone ---------------------------------------------------------------------

    def _built(self) -> None:
        if not isinstance(self.shape, ViewShape):
            raise Misshapen(f"VIEWS[{self.view!r}] is {self.shape!r}", "Write ViewShape(KEY, COLUMNS)")
        self._names("key", self.shape.key)
        self._names("rows", self.shape.rows, may_be_empty=True)
        self._tuple_of("columns", self.shape.columns, (str, Aggregate), f"names of columns, {AGGREGATES}")
        self._tuple_of("types", self.shape.types, (str,), "types of fact")
        self._tuple_of("where", self.shape.where, (Where,), "conditions Where(...)")
        self._tuple_of("remove_where", self.shape.remove_where, (Where,), "conditions Where(...)")
        self._once("key and rows", self.shape.whole_key)
        self._once("columns", self.shape.labels)
        if self.shape.remove_where and self.shape.aggregates:
            problem = "removes what its key has, and an aggregate cannot forget: what came later would be gone as well"
            raise self._error("remove_where", problem, "Keep a row each with rows=..., and add up what a look-up gives")
        for kept in self.shape.columns:
            if isinstance(kept, Top):
                self._bounded(kept)

    def _names(self, place: str, names: Any, *, may_be_empty: bool = False) -> None:
        several = isinstance(names, tuple) and all(isinstance(each, str) for each in names)
        if not isinstance(names, str) and not (several and (names or may_be_empty)):
            problem = f"found {names!r}, expected the name of a column, or a tuple of names"
            raise self._error(place, problem, f'Write {place}="COLUMN" or {place}=("COLUMN", "COLUMN")')

    def _tuple_of(self, place: str, found: Any, kinds: tuple[type, ...], expected: str) -> None:
        if not isinstance(found, tuple):
            inside = repr(tuple(found)) if isinstance(found, (list, set)) else f"({found!r},)"
            raise self._error(place, f"found {found!r}, expected a tuple of {expected}", f"Write {place}={inside}")
        for at, each in enumerate(found):
            if not isinstance(each, kinds):
                raise self._error(f"{place}[{at}]", f"found {each!r}", f"Expected: {expected}")

    def _once(self, place: str, names: Iterable[str]) -> None:
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise self._error(place, f"{name!r} is named twice", "Name it once")
            seen.add(name)

    def _bounded(self, top: Top) -> None:
        if type(top.limit) is not int or not 1 <= top.limit <= TOP_MAX:
            problem = f"has the limit {top.limit!r}: what is kept sorted for each key must have a bound"
            raise self._error(top.label, problem, f"Write a limit from 1 to {TOP_MAX}; with rows=... all are kept")

    # --- the shape over its topics -----------------------------------------------------------

    def _columns_are_there(self) -> None:
        for topic, schema in self.schemas.items():
            for name in self.shape.reads:
                if name not in schema.names:
                    raise Misshapen(f"unknown column of {topic} {name!r}", suggestion(name, schema.names))

    def _keys(self) -> None:
        for name in self.shape.whole_key:
            for topic, kind in self._one_kind(name).items():
                if kind not in (TEXT, WHOLE):
                    problem = f"the column {name!r} of {topic} is of type {self._type(topic, name)}"
                    fitting = self._own(topic, lambda kind: _kind(kind) in (TEXT, WHOLE))
                    raise Misshapen(problem, f"A key is of texts or whole numbers. Those that {topic} has: {fitting}")

    def _types(self) -> None:
        known = {*OWN_FACTS, *(kind for topic in self.schemas for kind in self.facts.get(topic, ()))}
        for place, kinds in self._kinds_named():
            for kind in kinds:
                if isinstance(kind, str) and kind not in known:
                    problem = f"{kind!r} is no fact of {' or '.join(self.schemas)}"
                    raise self._error(place, problem, suggestion(kind, known))

    def _kinds_named(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        yield "types", self.shape.types
        for place, condition in self._conditions():
            if condition.column == "type" and condition.operator in ("=", "!="):
                yield place, (condition.value,)
            elif condition.column == "type" and condition.operator in OF_SEVERAL:
                yield place, tuple(condition.value) if isinstance(condition.value, (tuple, list)) else ()

    def _values(self) -> None:
        for kept in self.shape.columns:
            for name in (kept,) if isinstance(kept, str) else kept.reads:
                for topic in self.schemas:
                    self._can_be_kept(name, topic)
            if isinstance(kept, Sum):
                self._can_be_added(kept)
            elif isinstance(kept, Aggregate) and kept.reads:
                self._has_an_order(kept)

    def _can_be_kept(self, name: str, topic: str) -> None:
        kind = self._type(topic, name)
        if not _is_plain(kind):
            problem = f"the column {name!r} of {topic} is of type {kind}"
            hint = "A view keeps texts, numbers, truth values, times, and lists and structs of them"
            raise self._error("columns", problem, hint)

    def _can_be_added(self, kept: Sum) -> None:
        for topic in self.schemas:
            kind = self._type(topic, kept.column)
            if not pa.types.is_integer(kind):
                problem = f"the column {kept.column!r} of {topic} is of type {kind}, and a sum is of whole numbers"
                hint = f"Those that {topic} has: {self._own(topic, pa.types.is_integer)}"
                if pa.types.is_floating(kind):
                    hint = f"Fractions add up to another sum in another order: count in smaller units. {hint}"
                raise self._error(kept.label, problem, hint)

    def _has_an_order(self, kept: Aggregate) -> None:
        name = kept.reads[0]
        for topic, kind in self._one_kind(name).items():
            if kind not in (TEXT, WHOLE, NUMBER) and not pa.types.is_timestamp(self._type(topic, name)):
                problem = f"the column {name!r} of {topic} is of type {kind}, which has no order"
                raise self._error(kept.label, problem, "Name a column of texts, numbers or times")

    def _one_kind(self, name: str) -> dict[str, str]:
        """What a column is in each topic, and that it is the same in all."""
        kinds = {topic: self._kind(topic, name) for topic in self.schemas}
        if len(set(kinds.values())) > 1:
            said = ", ".join(f"in {topic} a {kind}" for topic, kind in kinds.items())
            raise Misshapen(f"the column {name!r} is {said}", "Take topics in which it is the same, or a view for each")
        return kinds

    # --- conditions --------------------------------------------------------------------------

    def _conditions(self) -> Iterator[tuple[str, Where]]:
        for place in ("where", "remove_where"):
            for at, condition in enumerate(getattr(self.shape, place)):
                yield f"{place}[{at}]", condition

    def _condition(self, place: str, condition: Where, topic: str) -> None:
        name, operator, value = condition.column, condition.operator, condition.value
        if operator not in get_args(Operator):
            raise self._error(place, f"unknown operator {operator!r}", suggestion(operator, get_args(Operator)))
        if operator in OF_NULLS:
            if value is not None:
                raise self._error(
                    place, f"{operator!r} takes no value, found {value!r}", f"Write {_written(name, operator)}"
                )
            return
        kind = self._kind(topic, name)
        self._can_be_compared(place, operator, name, topic, kind)
        if operator in OF_SEVERAL and (not isinstance(value, (tuple, list)) or not value):
            raise self._error(place, f"{operator!r} takes a tuple of values, found {value!r}", "Name at least one")
        for each in value if operator in OF_SEVERAL else (value,):
            self._has_value(place, each, name, topic)

    def _can_be_compared(self, place: str, operator: str, name: str, topic: str, kind: str) -> None:
        problem = f"the column {name!r} of {topic} is of type {self._type(topic, name)}"
        if kind not in (TEXT, WHOLE, NUMBER, TRUTH) and not pa.types.is_timestamp(self._type(topic, name)):
            raise self._error(place, f"{problem}, which is compared with nothing", "Write 'is null' or 'is not null'")
        if kind == TRUTH and operator in OF_ORDER:
            raise self._error(place, f"{problem}, which has no order", "Write '=' or '!='")

    def _has_value(self, place: str, value: Any, name: str, topic: str) -> None:
        if value is None:
            hint = f"Write {_written(name, 'is null')} or {_written(name, 'is not null')}"
            raise self._error(place, "compares with None, which nothing is equal to", hint)
        column = column_of(self.schemas[topic].field(name).with_nullable(False))
        if column.misfit([value]) is not None:
            problem = f"{name!r} of {topic} is never {value!r}"
            raise self._error(place, problem, f"Expected {column.expected}")

    # --- words -------------------------------------------------------------------------------

    def _own(self, topic: str, fits: Callable[[pa.DataType], bool]) -> str:
        """The columns of a topic's own, and not those that every topic has, whose type fits."""
        return ", ".join(f.name for f in self.schemas[topic] if f.name not in _COMMON and fits(f.type)) or "none"

    def _type(self, topic: str, name: str) -> pa.DataType:
        return self.schemas[topic].field(name).type

    def _kind(self, topic: str, name: str) -> str:
        return _kind(self._type(topic, name))

    def _error(self, place: str, problem: str, hint: str) -> Misshapen:
        return Misshapen(f"VIEWS[{self.view!r}].{place}: {problem}", hint)


def _kind(kind: pa.DataType) -> str:
    """What the values of a type are to each other; by its own name where they are only alike."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return TEXT
    if pa.types.is_integer(kind):
        return WHOLE
    if pa.types.is_float64(kind):
        return NUMBER
    return TRUTH if pa.types.is_boolean(kind) else str(kind)


def _is_plain(kind: pa.DataType) -> bool:
    """Whether its values are written down for an audit as they are."""
    if pa.types.is_list(kind):
        return _is_plain(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_is_plain(kind.field(at).type) for at in range(kind.num_fields))
    return _kind(kind) in (TEXT, WHOLE, NUMBER, TRUTH) or pa.types.is_timestamp(kind)


def _written(column: str, operator: str) -> str:
    return f"Where({column!r}, {operator!r})"

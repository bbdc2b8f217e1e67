"""How facts become a table, as data: which facts count, the key, and what is kept of each key. No I/O.

A shape says nothing of an order between partitions or topics, and every fold here commutes (rule 13): whichever facts
come first, the same is kept. An audit reads the shape and evaluates it by other means.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import repeat
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import pyarrow as pa

from eventmesh.messages import Columns

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in", "not in", "is null", "is not null"]
#: As many rows of a key are kept sorted, and given with each look-up, at most.
TOP_MAX = 1_000
#: Sums of 64-bit numbers need more room than those: Arrow's widest whole number that other readers know, too.
SUM_TYPE = pa.decimal128(38, 0)


# --- which facts count ------------------------------------------------------------------------------


def _is_null(value: Any, _: Any) -> bool:
    return value is None


def _is_not_null(value: Any, _: Any) -> bool:
    return value is not None


def _among(value: Any, those: Any) -> bool:
    return value in those


def _not_among(value: Any, those: Any) -> bool:
    return value not in those


OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = MappingProxyType(
    {
        "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
        "in": _among, "not in": _not_among, "is null": _is_null, "is not null": _is_not_null,
    }
)  # fmt: skip
#: Those that look at whether there is a value, and take none themselves.
OF_NULLS = ("is null", "is not null")
OF_SEVERAL = ("in", "not in")
OF_ORDER = ("<", "<=", ">", ">=")


@dataclass(frozen=True)
class Where:
    """A condition on one column of a fact: ``Where("days", ">", 14)``, ``Where("type", "in", ("Lent", "Renewed"))``.

    As in SQL a null meets no condition but ``is null``, not even ``!=`` and ``not in``. Texts are in the order of their
    code points; a time is a whole number of its column's unit since 1970.
    """

    column: str
    operator: Operator
    value: Any = None

    def met(self, facts: Columns) -> list[bool]:
        """Of each fact, whether it meets the condition."""
        test, value = OPERATORS[self.operator], self.value
        if self.operator in OF_NULLS:
            return [test(each, None) for each in facts[self.column]]
        if self.operator in OF_SEVERAL:
            value = frozenset(value)
        return [each is not None and test(each, value) for each in facts[self.column]]


def all_met(conditions: Sequence[Where], facts: Columns) -> list[bool]:
    """Of each fact, whether it meets all of these."""
    first, *others = (condition.met(facts) for condition in conditions)
    for met in others:
        first = [one and other for one, other in zip(first, met, strict=True)]
    return first


# --- what is kept of all facts of a key -------------------------------------------------------------


@dataclass(frozen=True)
class Aggregate(ABC):
    """What is kept of all facts of a key that count, rather than of the last one.

    ``lifted`` makes of each fact of a batch the value that a key has of it alone, and ``plus`` makes one of two such
    values. It is commutative and associative, so neither partitions nor topics need an order.
    """

    #: What it is called where it is data: in a snapshot's fold, and by the audit.
    how: ClassVar[str] = ""
    #: What a key has of which no fact counts.
    nothing: ClassVar[Any] = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that it looks at."""
        return ()

    @property
    def label(self) -> str:
        """What its column is called in a snapshot: ``sum(amount)``."""
        return f"{self.how}({', '.join(self.reads)})"

    @abstractmethod
    def lifted(self, facts: Columns, strength: int, partition: int) -> Iterable[Any]:
        """The value of each fact alone; ``strength`` is the place of its topic among the view's."""

    @abstractmethod
    def plus(self, one: Any, other: Any) -> Any:
        """One value of two, whichever came first."""

    def shown(self, value: Any) -> Any:
        """The value as a look-up gives it."""
        return value

    def field(self, schema: pa.Schema) -> pa.Field:
        """Its column in a snapshot; ``schema`` is the topic's."""
        return schema.field(self.reads[0]).with_name(self.label)

    def restored(self, values: Sequence[Any]) -> Sequence[Any]:
        """Values as they were before Arrow."""
        return values


@dataclass(frozen=True)
class Count(Aggregate):
    """How many facts count; 0 of a key that is not known."""

    how: ClassVar[str] = "count"
    nothing: ClassVar[Any] = 0

    @property
    def label(self) -> str:
        """``count``, as SQL says."""
        return self.how

    def lifted(self, facts: Columns, strength: int, partition: int) -> Iterable[int]:
        """One each."""
        return repeat(1, len(facts))

    def plus(self, one: int, other: int) -> int:
        """Their sum."""
        return one + other

    def field(self, schema: pa.Schema) -> pa.Field:
        """A number of offsets."""
        return pa.field(self.label, pa.int64())


@dataclass(frozen=True)
class Sum(Aggregate):
    """The sum of a column of whole numbers, exact however large it becomes; nulls add nothing. 0 of an unknown key."""

    column: str
    how: ClassVar[str] = "sum"
    nothing: ClassVar[Any] = 0

    @property
    def reads(self) -> tuple[str, ...]:
        """The one column."""
        return (self.column,)

    def lifted(self, facts: Columns, strength: int, partition: int) -> Iterable[int]:
        """The values."""
        return [each or 0 for each in facts[self.column]]

    def plus(self, one: int, other: int) -> int:
        """Their sum."""
        return one + other

    def field(self, schema: pa.Schema) -> pa.Field:
        """Wider than the column is."""
        return pa.field(self.label, SUM_TYPE)

    def restored(self, values: Sequence[Any]) -> Sequence[Any]:
        """Python's whole numbers."""
        return [int(each) for each in values]


@dataclass(frozen=True)
class _Extreme(Aggregate):
    """One value of a column that has an order; nulls are passed over."""

    column: str
    _chosen: ClassVar[Callable[..., Any]]

    @property
    def reads(self) -> tuple[str, ...]:
        """The one column."""
        return (self.column,)

    def lifted(self, facts: Columns, strength: int, partition: int) -> Iterable[Any]:
        """The values. Of the two zeros of a float only one is kept, or the first that came would be."""
        return [abs(each) if each == 0 else each for each in facts[self.column]]

    def plus(self, one: Any, other: Any) -> Any:
        """The one that is smaller, or larger."""
        if one is None or other is None:
            return other if one is None else one
        return type(self)._chosen(one, other)


@dataclass(frozen=True)
class Min(_Extreme):
    """The smallest value of a column; None where there is none."""

    how: ClassVar[str] = "min"
    _chosen = min


@dataclass(frozen=True)
class Max(_Extreme):
    """The largest value of a column; None where there is none."""

    how: ClassVar[str] = "max"
    _chosen = max


_BY, _POSITION, _VALUES = operator.itemgetter(0), operator.itemgetter(1, 2, 3), slice(4, None)


@dataclass(frozen=True)
class Top(Aggregate):
    """The ``limit`` facts with the largest values ``by`` a column (``smallest``: the smallest), best first.

    A look-up gives a tuple of rows, each the value of ``by`` and then those of ``columns``. Of equal values that of the
    topic listed first comes first, then of the lower partition, then of the lower offset. A fact whose value is null is
    passed over. What changes and is told in several facts is there with each of them.
    """

    limit: int
    by: str
    columns: tuple[str, ...] = ()
    smallest: bool = False
    how: ClassVar[str] = "top"
    nothing: ClassVar[Any] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """What it is sorted by, and what is kept beside."""
        return (self.by, *self.columns)

    @property
    def label(self) -> str:
        """``top(5, amount, order)``."""
        return f"{self.how}({', '.join([str(self.limit), *self.reads, *(['smallest'] if self.smallest else [])])})"

    def lifted(self, facts: Columns, strength: int, partition: int) -> Iterable[Any]:
        """Each fact as the only one, with its position, which settles between equal ones."""
        columns = (facts[name] for name in ("sequence", *self.columns))
        rows = zip(facts[self.by], repeat(strength), repeat(partition), *columns, strict=False)
        return [(row,) if row[0] is not None else () for row in rows]

    def plus(self, one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
        """The best of both."""
        if not one or not other:
            return one or other
        if len(one) == self.limit and len(other) == 1 and self._is_behind(_BY(other[0]), _BY(one[-1])):
            return one
        return tuple(sorted(sorted(one + other, key=_POSITION), key=_BY, reverse=not self.smallest)[: self.limit])

    def _is_behind(self, value: Any, last: Any) -> bool:
        return bool(value > last if self.smallest else value < last)

    def shown(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        """Without the positions."""
        return tuple([(_BY(row), *row[_VALUES]) for row in value])

    def field(self, schema: pa.Schema) -> pa.Field:
        """A list of rows, each with its position between ``by`` and the other columns."""
        by, *others = (schema.field(name).type for name in self.reads)
        kinds = [by, *[pa.int64()] * 3, *others]
        return pa.field(self.label, pa.list_(pa.struct([(f"{at}", kind) for at, kind in enumerate(kinds)])))

    def restored(self, values: Sequence[Any]) -> Sequence[Any]:
        """Tuples."""
        return [tuple(each) for each in values]


# --- the shape ---------------------------------------------------------------------------------------


def names_of(columns: str | tuple[str, ...]) -> tuple[str, ...]:
    """The columns of a key: one by its name, or several as a tuple."""
    return (columns,) if isinstance(columns, str) else columns


@dataclass(frozen=True, repr=False)
class ViewShape:
    """How facts become a table: which of them count, the key, and what is kept of each key.

    A fact counts when it is of one of the ``types`` (none named: of any), meets all of ``where``, and has a value in
    each column of the key. ``key`` is a column, or a tuple of columns, by a tuple of whose values is looked up.
    Of each key are kept the ``columns``: by its name, a column's value in the last fact; with an
    :class:`Aggregate`, what all facts add up to. With ``rows`` a key has many rows, one for each value of these
    columns. A fact that meets all of ``remove_where`` removes what its key has, whether or not it would count.
    """

    key: str | tuple[str, ...]
    columns: tuple[str | Aggregate, ...] = ()
    types: tuple[str, ...] = ()
    where: tuple[Where, ...] = ()
    rows: str | tuple[str, ...] = ()
    remove_where: tuple[Where, ...] = ()

    def __repr__(self) -> str:
        """Names the fold in snapshots: a shape of older versions has the name that it had then."""
        told = [each for each in fields(self) if each.name in _FIRST or getattr(self, each.name) != each.default]
        return f"ViewShape({', '.join(f'{each.name}={getattr(self, each.name)!r}' for each in told)})"

    @property
    def whole_key(self) -> tuple[str, ...]:
        """The columns of the key, then those of ``rows``: what a row is found by."""
        return (*names_of(self.key), *names_of(self.rows))

    @property
    def reads(self) -> tuple[str, ...]:
        """All columns that it looks at, once each."""
        kept = [(each,) if isinstance(each, str) else each.reads for each in self.columns]
        conditions = [(each.column,) for each in (*self.where, *self.remove_where)]
        return tuple(dict.fromkeys(name for names in (self.whole_key, *kept, *conditions) for name in names))

    @property
    def labels(self) -> tuple[str, ...]:
        """What its columns are called."""
        return tuple(each if isinstance(each, str) else each.label for each in self.columns)

    @property
    def aggregates(self) -> bool:
        """Whether anything is kept but the values of the last fact."""
        return not all(isinstance(each, str) for each in self.columns)


_FIRST = ("key", "columns", "types")

"""Which Python values an Arrow column takes just as they are: nothing is rounded, cut, or read as something else.

What a rule decides is folded at once, and written to the log later; an answer reaches its asker as it is on one
runtime, and as Arrow on the other. So a value must be the same after it was written and read back. One that is not is
found where it is made: :class:`DoesNotFit` names the message, the column, the value, and what was expected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from numbers import Integral
from typing import Any

import pyarrow as pa

#: So much is shown of a value that does not fit.
SHOWN_MAX = 80
_NONE = type(None)


class DoesNotFit(ValueError):
    """A value that its column does not take as it is, or a column that there is not. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """The first value that does not fit: where it lies within its column, and what was expected there."""

    value: Any
    expected: str
    path: str = ""

    def within(self, path: str) -> Misfit:
        """The same, seen from what ``path`` is part of."""
        return Misfit(self.value, self.expected, path + self.path)


class Shape:
    """The columns that a message has, and what each of them takes."""

    def __init__(self, fields: Iterable[pa.Field]) -> None:
        self._columns = {field.name: column_of(field) for field in fields}

    def check(self, columns: Mapping[str, Sequence[Any]], what: str) -> None:
        """Raise :class:`DoesNotFit` for the first value that its column does not take.

        ``columns`` has one list per column; it may leave some out. ``what`` is whose they are, such as the type of a
        fact.
        """
        known = self._columns
        for name, values in columns.items():
            column = known.get(name)
            if column is None:
                raise self._unknown(name, what)
            if len(values) == 1 and column.quick(values[0]):
                continue
            misfit = column.misfit(values)
            if misfit is not None:
                shown = repr(misfit.value)
                shown = shown if len(shown) <= SHOWN_MAX else f"{shown[:SHOWN_MAX]}..."
                raise DoesNotFit(f"{what}: {name}{misfit.path} is {shown}, expected {misfit.expected}")

    def whole(self, row: Any, what: str) -> dict[str, Any]:
        """A row with all columns, None where it says nothing. Raises :class:`DoesNotFit`."""
        complete = self._completed(row, what)
        known = self._columns
        for name, value in complete.items():
            if not known[name].quick(value):
                self.check({name: (value,)}, what)
        return complete

    def all_whole(self, rows: Sequence[Any], what: str) -> list[dict[str, Any]]:
        """:meth:`whole` of many, column by column."""
        complete = [self._completed(row, what) for row in rows]
        self.check({name: [row[name] for row in complete] for name in self._columns}, what)
        return complete

    def _completed(self, row: Any, what: str) -> dict[str, Any]:
        names = self._columns.keys()
        if not isinstance(row, Mapping):
            raise DoesNotFit(f"{what} is {row!r}, expected a mapping with the columns {', '.join(names)}")
        if row.keys() == names:
            return row if isinstance(row, dict) else dict(row)
        for name in row.keys() - names:
            raise self._unknown(name, what)
        return dict.fromkeys(names) | dict(row)

    def _unknown(self, name: str, what: str) -> DoesNotFit:
        return DoesNotFit(f"{what} has no column {name!r}: expected one of {', '.join(self._columns)}")


# --- columns by type --------------------------------------------------------------------------------


class Column:
    """A column of one type. ``exact`` is the type of nearly all values that fit."""

    exact: type
    expected: str

    def __init__(self, *, nullable: bool) -> None:
        self.nullable = nullable

    def quick(self, value: Any) -> bool:
        """Whether one value surely fits; False where :meth:`misfit` has to look."""
        return (type(value) is self.exact and self.all_fit((value,))) or (value is None and self.nullable)

    def misfit(self, values: Sequence[Any]) -> Misfit | None:
        """The first of these, None among them, that does not fit."""
        types, there = set(map(type, values)), values
        if _NONE in types:
            if not self.nullable:
                return Misfit(None, f"{self.expected}, and never None")
            there = [value for value in values if value is not None]
            types.discard(_NONE)
        if types <= {self.exact} and self.all_fit(there):
            return None
        return next((Misfit(value, self.expected) for value in there if not self.fits(value)), None)

    def all_fit(self, values: Sequence[Any]) -> bool:
        """Whether all of these, which are of the exact type, fit: a quick look at the whole column."""
        return True

    def fits(self, value: Any) -> bool:
        """Whether one value, of any type but None's, fits."""
        return isinstance(value, self.exact)


class _Text(Column):
    exact, expected = str, "a text that UTF-8 can hold"

    def quick(self, value: Any) -> bool:
        return (type(value) is str and value.isascii()) or (value is None and self.nullable)

    def all_fit(self, values: Sequence[Any]) -> bool:
        return all(map(str.isascii, values)) or all(map(_is_unicode, values))

    def fits(self, value: Any) -> bool:
        return isinstance(value, str) and _is_unicode(value)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


class _Whole(Column):
    exact = int

    def __init__(self, bits: int, *, signed: bool, nullable: bool, words: str = "a whole number") -> None:
        super().__init__(nullable=nullable)
        self.low, self.high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        self.expected = f"{words} from {self.low} to {self.high}"

    def quick(self, value: Any) -> bool:
        return (type(value) is int and self.low <= value <= self.high) or (value is None and self.nullable)

    def all_fit(self, values: Sequence[Any]) -> bool:
        return not values or (min(values) >= self.low and max(values) <= self.high)

    def fits(self, value: Any) -> bool:
        return isinstance(value, Integral) and not isinstance(value, bool) and self.low <= int(value) <= self.high


class _Float(Column):
    exact, expected = float, "a number that is not NaN"

    def all_fit(self, values: Sequence[Any]) -> bool:
        return not any(value != value for value in values)

    def fits(self, value: Any) -> bool:
        if isinstance(value, float):
            return value == value
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        return whole and abs(int(value)) <= 1 << 53  # beyond that the next number is not the next float


class _Bool(Column):
    exact, expected = bool, "True or False"


class _Bytes(Column):
    exact, expected = bytes, "bytes"


class _List(Column):
    """Lists of one kind of item."""

    exact, expected = list, "a list"

    def __init__(self, item: Column, *, nullable: bool) -> None:
        super().__init__(nullable=nullable)
        self.item = item

    def quick(self, value: Any) -> bool:
        return (type(value) is list and all(map(self.item.quick, value))) or (value is None and self.nullable)

    def all_fit(self, values: Sequence[Any]) -> bool:
        return self.item.misfit(list(chain.from_iterable(values))) is None

    def misfit(self, values: Sequence[Any]) -> Misfit | None:
        found = super().misfit(values)
        if found is None:
            found = self.item.misfit(list(chain.from_iterable(value for value in values if value is not None)))
            found = found and found.within("[]")
        return found


class _Struct(Column):
    """Structs: tuples in the order of their fields within a list, mappings elsewhere, as they are read back."""

    def __init__(self, fields: Sequence[pa.Field], *, in_list: bool, nullable: bool) -> None:
        super().__init__(nullable=nullable)
        self.names, self.columns = [field.name for field in fields], [column_of(field) for field in fields]
        self.exact = tuple if in_list else dict
        self.expected = f"a {self.exact.__name__} of {', '.join(self.names)}"
        self._quick = [column.quick for column in self.columns]

    def quick(self, value: Any) -> bool:
        return (
            type(value) is tuple is self.exact
            and len(value) == len(self.names)
            and all([fits(part) for fits, part in zip(self._quick, value, strict=True)])
        )

    def all_fit(self, values: Sequence[Any]) -> bool:
        return all(map(self._has_all, values)) and self._inside(values) is None

    def fits(self, value: Any) -> bool:
        return isinstance(value, self.exact) and self._has_all(value)

    def _has_all(self, value: Any) -> bool:
        return len(value) == len(self.names) and (self.exact is tuple or value.keys() == set(self.names))

    def misfit(self, values: Sequence[Any]) -> Misfit | None:
        return super().misfit(values) or self._inside([value for value in values if value is not None])

    def _inside(self, values: Sequence[Any]) -> Misfit | None:
        rows = values if self.exact is tuple else [[value[name] for name in self.names] for value in values]
        for name, column, parts in zip(self.names, self.columns, zip(*rows, strict=True), strict=False):
            found = column.misfit(parts)
            if found is not None:
                return found.within(f".{name}")
        return None


class _Other(Column):
    """Any other type of Arrow's: what comes back from it as it went in."""

    exact = object

    def __init__(self, kind: pa.DataType, *, nullable: bool) -> None:
        super().__init__(nullable=nullable)
        self.kind, self.expected = kind, f"a value that Arrow's {kind} gives back as it is"

    def fits(self, value: Any) -> bool:
        try:
            return bool(pa.array([value], self.kind).to_pylist() == [value])
        except (pa.ArrowException, ArithmeticError, TypeError, ValueError):
            return False


def column_of(field: pa.Field, *, in_list: bool = False) -> Column:
    """What a column of this type takes, and whether it takes None."""
    kind, types, nullable = field.type, pa.types, field.nullable
    if types.is_string(kind) or types.is_large_string(kind):
        return _Text(nullable=nullable)
    if types.is_integer(kind):
        return _Whole(kind.bit_width, signed=types.is_signed_integer(kind), nullable=nullable)
    if types.is_timestamp(kind):
        return _Whole(64, signed=True, nullable=nullable, words=f"a whole number of {kind.unit} since 1970,")
    if types.is_float64(kind):
        return _Float(nullable=nullable)
    if types.is_boolean(kind):
        return _Bool(nullable=nullable)
    if types.is_binary(kind):
        return _Bytes(nullable=nullable)
    if types.is_list(kind):
        item = kind.value_field
        if types.is_struct(item.type):  # such a list is read back without its nulls
            item = item.with_nullable(False)
        return _List(column_of(item, in_list=True), nullable=nullable)
    if types.is_struct(kind):
        fields = [kind.field(number) for number in range(kind.num_fields)]
        return _Struct(fields, in_list=in_list, nullable=nullable)
    return _Other(kind, nullable=nullable)

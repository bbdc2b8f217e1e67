"""How the columns of a topic may grow, and how rows with earlier columns are read with the newest. No I/O.

The modes have Confluent's names. By BACKWARD a reader of the new columns reads what was written with the old ones: here
every value of it, since facts are never deleted from under a fold. So columns may be new, where they may be null, and
types may be wider; columns are found by their names. A step that is allowed after another leads to what is allowed at
once: BACKWARD is BACKWARD_TRANSITIVE.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

#: What is said of a column that is not there.
NONE = "none"


@dataclass(frozen=True, slots=True)
class Change:
    """A column, or a part of one (``lines[].price``), that is another one than in the version before.

    ``stored`` and ``found`` are in Arrow's words. ``advice`` says what to do instead, where it may not change so.
    """

    path: str
    stored: str
    found: str
    advice: str = ""

    def __str__(self) -> str:
        said = f"column {self.path}: stored {self.stored}, found {self.found}"
        return f"{said}. {self.advice}" if self.advice else said


def changes(stored: pa.Schema, found: pa.Schema) -> list[Change]:
    """Every difference between the columns of a log and those that are asked for, in the order of the columns."""
    if stored.equals(found):
        return []
    return list(_of_fields(list(stored), list(found), ""))


def _of_fields(stored: Sequence[pa.Field], found: Sequence[pa.Field], within: str) -> Iterator[Change]:
    twice = [name for fields in (stored, found) for name, count in _counted(fields).items() if count > 1]
    if twice:
        for name in dict.fromkeys(twice):
            yield _twice(within + name, _counted(stored)[name], _counted(found)[name])
        return
    after, before = {field.name: field for field in found}, {field.name for field in stored}
    for field in stored:
        if field.name in after:
            yield from _of_field(field, after[field.name], within + field.name)
        else:
            yield Change(within + field.name, _said(field), NONE, _to_keep(field, found, before))
    for field in found:
        if field.name not in before:
            yield Change(within + field.name, NONE, _said(field), "" if field.nullable else _TO_ADD)


def _counted(fields: Iterable[pa.Field]) -> Counter[str]:
    return Counter(field.name for field in fields)


def _of_field(stored: pa.Field, found: pa.Field, path: str) -> Iterator[Change]:
    inner = list(_of_type(stored.type, found.type, path))
    if stored.nullable and not found.nullable:
        yield Change(path, _said(stored), _said(found), "Leave it nullable: what is stored may be null")
    elif stored.nullable != found.nullable and not inner:
        yield Change(path, _said(stored), _said(found))
    yield from inner


def _of_type(stored: pa.DataType, found: pa.DataType, path: str) -> Iterator[Change]:
    if stored.equals(found):
        return
    if pa.types.is_list(stored) and pa.types.is_list(found):
        yield from _of_field(stored.value_field, found.value_field, f"{path}[]")
    elif pa.types.is_struct(stored) and pa.types.is_struct(found):
        yield from _of_fields(_parts(stored), _parts(found), f"{path}.")
    elif is_wider(found, stored):
        yield Change(path, str(stored), str(found))
    else:
        yield Change(path, str(stored), str(found), _other_type(stored, found))


def is_wider(wide: pa.DataType, narrow: pa.DataType) -> bool:
    """Whether every value of the one type is the same value in the other: whole numbers stay whole numbers."""
    types = pa.types
    if types.is_null(narrow):
        return True
    if types.is_integer(wide) and types.is_integer(narrow):
        if types.is_signed_integer(wide) == types.is_signed_integer(narrow):
            return bool(wide.bit_width >= narrow.bit_width)
        return bool(types.is_signed_integer(wide) and wide.bit_width > narrow.bit_width)
    return bool(types.is_floating(wide) and types.is_floating(narrow) and wide.bit_width >= narrow.bit_width)


# --- in words ---------------------------------------------------------------------------------------

_TO_ADD = "Make it nullable: what is stored has no such column, and reads as null"


def _said(field: pa.Field) -> str:
    return f"{field.type}{'' if field.nullable else ' not null'}"


def _to_keep(field: pa.Field, found: Iterable[pa.Field], before: set[str]) -> str:
    new = [each.name for each in found if each.name not in before and each.type.equals(field.type)]
    if new:
        return f"Columns are found by their names, so none is renamed: keep {field.name} beside {' or '.join(new)}"
    return "Keep it: what is stored is folded again and again. New facts may leave it null" + (
        "" if field.nullable else ", once it is nullable"
    )


def _other_type(stored: pa.DataType, found: pa.DataType) -> str:
    if is_wider(stored, found):
        return f"Leave it {stored}: a narrower type does not hold what may be stored"
    return f"Leave it {stored}, and put what is {found} into a new column of another name"


def _twice(path: str, stored: int, found: int) -> Change:
    return Change(path, f"{stored} of that name", f"{found} of that name", "Columns are found by their names: have one")


# --- reading ----------------------------------------------------------------------------------------


def fitted(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Rows with these columns: found by name, null where they are absent, wider where their type is.

    ``schema`` is one to which there are no :func:`changes` with advice; of columns that it does not have nothing is
    left.
    """
    return pa.RecordBatch.from_arrays([_column(rows, field) for field in schema], schema=schema)


def _column(rows: pa.RecordBatch, field: pa.Field) -> pa.Array:
    place = rows.schema.get_field_index(field.name)
    return pa.nulls(rows.num_rows, field.type) if place < 0 else widened(rows.column(place), field.type)


def widened(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The same values in a type that is wider, or the same; parts of structs are found by name, and may be new."""
    # Not by Array.cast: it imports pyarrow.compute, and it finds the parts of a struct by their places.
    if array.type.equals(kind):
        return array
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), kind)
    if pa.types.is_list(kind):
        items = widened(array.values, kind.value_type)
        return pa.Array.from_buffers(
            kind, len(array), array.buffers()[:2], array.null_count, array.offset, children=[items]
        )
    if pa.types.is_struct(kind):
        return _struct(array, kind)
    return _wider(array, kind)


def _struct(array: pa.StructArray, kind: pa.StructType) -> pa.StructArray:
    parts = []
    for part in _parts(kind):
        place = array.type.get_field_index(part.name)
        parts.append(pa.nulls(len(array), part.type) if place < 0 else widened(array.field(place), part.type))
    return pa.Array.from_buffers(kind, len(array), [_validity(array)], array.null_count, children=parts)


def _parts(kind: pa.StructType) -> list[pa.Field]:
    return [kind.field(number) for number in range(kind.num_fields)]


def _validity(array: pa.Array) -> pa.Buffer | None:
    """Which items are there, from the first one on: an array may begin in the middle of its buffer."""
    validity = array.buffers()[0]
    if validity is None or not array.offset:
        return validity
    bits = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")
    return pa.py_buffer(np.packbits(bits[array.offset : array.offset + len(array)], bitorder="little"))


def _wider(array: pa.Array, kind: pa.DataType) -> pa.Array:
    assert is_wider(kind, array.type), f"{array.type} is not read as {kind}"
    validity, data = array.buffers()
    narrow = np.frombuffer(data or b"", array.type.to_pandas_dtype())
    wide = pa.py_buffer(narrow.astype(kind.to_pandas_dtype()))
    return pa.Array.from_buffers(kind, len(array), [validity, wide], array.null_count, array.offset)

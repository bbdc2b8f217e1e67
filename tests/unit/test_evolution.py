"""Given two versions of a topic's columns, then the new one is taken where it reads all that the old one wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmesh.log.evolution import changes, fitted, is_wider
from eventmesh.messages import decode_column

NAME, DAYS, PRICE = pa.field("name", pa.string()), pa.field("days", pa.int32()), pa.field("price", pa.float32())
STORED = pa.schema([NAME, DAYS, PRICE])


def said(*found: pa.Field, stored: Sequence[pa.Field] = STORED) -> list[str]:
    return [str(each) for each in changes(pa.schema(stored), pa.schema(found))]


def struct(*parts: tuple[str, pa.DataType]) -> pa.DataType:
    return pa.struct([pa.field(*part) for part in parts])


# --- what is taken -----------------------------------------------------------------------------------


def test_the_same_columns_are_the_same_version_whatever_their_metadata_say() -> None:
    noted = pa.schema([field.with_metadata({"unit": "day"}) for field in STORED])
    assert said(*noted) == []


def test_new_columns_that_may_be_null_are_taken_wherever_they_stand() -> None:
    assert said(pa.field("first", pa.bool_()), NAME, DAYS, PRICE, pa.field("last", pa.list_(pa.int8()))) == [
        "column first: stored none, found bool", "column last: stored none, found list<item: int8>",
    ]  # fmt: skip


def test_columns_are_found_by_their_names() -> None:
    assert said(PRICE, NAME, DAYS) == []
    rows = pa.RecordBatch.from_pylist([{"name": "a", "days": 1, "price": 0.5}], STORED)
    assert fitted(rows, pa.schema([PRICE, NAME, DAYS])).to_pylist() == [{"price": 0.5, "name": "a", "days": 1}]


def test_wider_types_are_taken_and_whole_numbers_stay_whole() -> None:
    assert said(NAME, DAYS.with_type(pa.int64()), PRICE.with_type(pa.float64())) == [
        "column days: stored int32, found int64", "column price: stored float, found double",
    ]  # fmt: skip
    wholes = {kind: [other for other in _NUMBERS if is_wider(other, kind)] for kind in _NUMBERS}
    assert wholes[pa.int8()] == [pa.int8(), pa.int16(), pa.int32(), pa.int64()]
    assert wholes[pa.uint16()] == [pa.int32(), pa.int64(), pa.uint16(), pa.uint32(), pa.uint64()]
    assert wholes[pa.uint64()] == [pa.uint64()]
    assert wholes[pa.float16()] == [pa.float16(), pa.float32(), pa.float64()]


def test_lists_and_structs_grow_inside() -> None:
    lines = pa.field("lines", pa.list_(struct(("sku", pa.string()), ("quantity", pa.int16()))))
    wider = pa.list_(struct(("quantity", pa.int64()), ("note", pa.string()), ("sku", pa.string())))
    assert said(lines.with_type(wider), stored=[lines]) == [
        "column lines[].quantity: stored int16, found int64", "column lines[].note: stored none, found string",
    ]  # fmt: skip
    rows = pa.RecordBatch.from_arrays([pa.array([[("a", 1), ("b", 2)], None, [("c", 3)]], lines.type)], ["lines"])
    for slice_ in (rows, rows.slice(1)):
        assert decode_column(fitted(slice_, pa.schema([lines.with_type(wider)])).column(0)) == [
            [(1, None, "a"), (2, None, "b")], None, [(3, None, "c")],
        ][-slice_.num_rows :]  # fmt: skip


def test_a_struct_that_is_null_stays_null_wherever_its_rows_begin() -> None:
    stored, found = struct(("net", pa.int8())), struct(("tax", pa.int8()), ("net", pa.int64()))
    rows = pa.RecordBatch.from_arrays([pa.array([None, {"net": 1}, None, {"net": 2}], stored)], ["price"])
    whole = [None, {"tax": None, "net": 1}, None, {"tax": None, "net": 2}]
    for start in range(4):
        assert fitted(rows.slice(start), pa.schema([("price", found)])).column(0).to_pylist() == whole[start:]


def test_what_may_never_be_null_may_become_null() -> None:
    assert said(DAYS, stored=[DAYS.with_nullable(False)]) == ["column days: stored int32 not null, found int32"]


def test_a_column_of_nulls_may_become_anything() -> None:
    assert said(DAYS, stored=[DAYS.with_type(pa.null())]) == ["column days: stored null, found int32"]
    rows = pa.RecordBatch.from_arrays([pa.nulls(2)], ["days"])
    assert fitted(rows, pa.schema([DAYS])).to_pylist() == [{"days": None}] * 2


# --- what is not -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([NAME, PRICE], "column days: stored int32, found none. Keep it: what is stored is folded again and again"),
        (
            [NAME, pa.field("due", pa.int32()), PRICE],
            "column days: stored int32, found none. Columns are found by their names, so none is renamed: "
            "keep days beside due",
        ),
        ([NAME, DAYS.with_type(pa.int16()), PRICE], "stored int32, found int16. Leave it int32: a narrower type"),
        (
            [NAME, DAYS.with_type(pa.uint64()), PRICE],
            "stored int32, found uint64. Leave it int32, and put",
        ),
        (
            [NAME, DAYS.with_type(pa.float64()), PRICE],
            "found double. Leave it int32, and put what is double in",
        ),
        ([NAME, DAYS.with_type(pa.string()), PRICE], "found string. Leave it int32, and put what is string into a new"),
        ([NAME, DAYS.with_nullable(False), PRICE], "stored int32, found int32 not null. Leave it nullable"),
        (
            [*STORED, pa.field("fee", pa.int8(), nullable=False)],
            "stored none, found int8 not null. Make it nullable",
        ),
        ([*STORED, pa.field("name", pa.int8())], "column name: stored 1 of that name, found 2 of that name"),
    ],
)
def test_all_else_is_refused_with_what_was_stored_what_was_found_and_what_to_do(
    found: list[pa.Field], expected: str
) -> None:
    [refused] = [each for each in changes(STORED, pa.schema(found)) if each.advice]
    assert expected in str(refused)


def test_what_is_wrong_is_said_of_every_column() -> None:
    assert [each.path for each in changes(STORED, pa.schema([PRICE.with_type(pa.int8())])) if each.advice] == [
        "name", "days", "price",
    ]  # fmt: skip


@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
def test_a_time_keeps_its_unit_since_services_read_it_as_a_whole_number(unit: str) -> None:
    [refused] = said(pa.field("at", pa.timestamp("us")), stored=[pa.field("at", pa.timestamp(unit))])
    assert f"Leave it timestamp[{unit}]" in refused


# --- any two versions --------------------------------------------------------------------------------

_NUMBERS = [
    pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.float16(),
    pa.float32(), pa.float64(),
]  # fmt: skip
_NAMES = st.sampled_from(["a", "b", "c"])


def column(name: str, kind: pa.DataType, nullable: bool) -> pa.Field:
    return pa.field(name, kind, nullable or pa.types.is_null(kind))


def fields(kinds: st.SearchStrategy[pa.DataType], least: int = 0) -> st.SearchStrategy[list[pa.Field]]:
    named = st.builds(column, _NAMES, kinds, st.booleans())
    return st.lists(named, min_size=least, max_size=3, unique_by=lambda field: field.name)


KINDS = st.recursive(
    st.sampled_from([*_NUMBERS, pa.string(), pa.bool_(), pa.null()]),
    lambda inner: (
        st.builds(lambda kind, nullable: pa.list_(column("item", kind, nullable)), inner, st.booleans())
        | fields(inner, least=1).map(pa.struct)
    ),
    max_leaves=4,
)
#: Two versions that have to do with each other: each may have anything in the place of what the other has.
SCHEMAS = fields(KINDS, least=1).map(pa.schema)


def extremes(kind: pa.DataType, nullable: bool) -> list[Any]:
    """Values of a type, in plain Python, of which every type that is not wide enough loses one."""
    none = [None] if nullable else []
    if pa.types.is_null(kind):
        return [None]
    if pa.types.is_integer(kind):
        bits, signed = kind.bit_width, pa.types.is_signed_integer(kind)
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        return [low, high, *none]
    if pa.types.is_floating(kind):
        largest = {16: 65504.0, 32: 3.4028234663852886e38, 64: 1.7976931348623157e308}[kind.bit_width]
        return [-largest, 0.5, *none]
    if pa.types.is_list(kind):
        return [extremes(kind.value_type, kind.value_field.nullable), [], *none]
    if pa.types.is_struct(kind):
        parts = {part.name: extremes(part.type, part.nullable) for part in kind}
        most = max(map(len, parts.values()))
        return [{name: values[turn % len(values)] for name, values in parts.items()} for turn in range(most)] + none
    return [*([True, False] if pa.types.is_boolean(kind) else ["", "x"]), *none]


def rows_of(schema: pa.Schema) -> list[dict[str, Any]]:
    """As many rows as it takes to have all extremes of each column."""
    columns = {field.name: extremes(field.type, field.nullable) for field in schema}
    most = max(map(len, columns.values()))
    return [{name: values[turn % len(values)] for name, values in columns.items()} for turn in range(most)]


def read_as(value: Any, kind: pa.DataType, nullable: bool) -> Any:
    """What a reader of this type must see of a value of another one, by plain Python; ``KeyError`` if it cannot."""
    if value is None:
        if not nullable:
            raise KeyError("null")
        return None
    if isinstance(value, list) and pa.types.is_list(kind):
        return [read_as(each, kind.value_type, kind.value_field.nullable) for each in value]
    if isinstance(value, dict) and pa.types.is_struct(kind):
        return row_as(value, list(kind))
    # Whether Arrow takes just this value, and gives back just this one.
    try:
        back = pa.array([value], kind).to_pylist()[0]
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise KeyError(f"{value!r} as {kind}") from error
    if type(back) is not type(value) or back != value:
        raise KeyError(f"{value!r} as {kind}")
    return back


def row_as(row: dict[str, Any], columns: Sequence[pa.Field]) -> dict[str, Any]:
    if left := row.keys() - {field.name for field in columns}:
        raise KeyError(f"{left} would be lost")
    return {field.name: read_as(row.get(field.name), field.type, field.nullable) for field in columns}


def all_as(rows: list[dict[str, Any]], found: pa.Schema) -> list[dict[str, Any]] | None:
    """The rows as a reader of these columns must see them; None where anything would be lost."""
    try:
        return [row_as(row, list(found)) for row in rows]
    except KeyError:
        return None


def is_taken(stored: pa.Schema, found: pa.Schema) -> bool:
    return not any(change.advice for change in changes(stored, found))


@given(SCHEMAS, st.data())
def test_any_version_is_taken_exactly_where_its_reader_reads_all_that_was_written(
    stored: pa.Schema, data: st.DataObject
) -> None:
    found = data.draw(SCHEMAS | st.permutations(list(stored)).map(pa.schema) | grown(stored))
    rows = rows_of(stored)
    expected = all_as(rows, found)
    assert is_taken(stored, found) == (expected is not None)
    if expected is None:
        return
    written = pa.RecordBatch.from_pylist(rows, stored)
    start = data.draw(st.integers(0, len(rows)))
    read = fitted(written.slice(start), found)
    read.validate(full=True)
    assert (read.schema, read.to_pylist()) == (found, expected[start:])


def grown(stored: pa.Schema) -> st.SearchStrategy[pa.Schema]:
    """The same with one column of another type, of another nullability, new, or gone."""

    def other(place: int, field: pa.Field) -> pa.Schema:
        return pa.schema([*list(stored)[:place], field, *list(stored)[place + 1 :]])

    field = stored.field(0)
    return st.one_of(
        KINDS.map(lambda kind: other(0, column(field.name, kind, field.nullable))),
        st.just(other(0, column(field.name, field.type, not field.nullable))),
        st.builds(column, st.just("new"), KINDS, st.booleans()).map(lambda new: pa.schema([new, *stored])),
        st.just(pa.schema(list(stored)[1:])) if len(stored) > 1 else st.nothing(),
    )


@given(SCHEMAS, st.data())
def test_what_is_taken_step_by_step_is_taken_at_once(first: pa.Schema, data: st.DataObject) -> None:
    second = data.draw(grown(first))
    third = data.draw(grown(second))
    if is_taken(first, second) and is_taken(second, third):
        assert is_taken(first, third)

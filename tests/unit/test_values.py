"""Given a column, then it takes exactly the values that Arrow gives back as they were."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmesh.messages import decode_column, encode_columns
from eventmesh.values import DoesNotFit, Shape

WHOLE = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint32(), pa.uint64()]
OTHERS = [
    pa.string(),
    pa.float64(),
    pa.bool_(),
    pa.binary(),
    pa.timestamp("us", "UTC"),
    pa.float32(),
    pa.decimal128(6, 2),
]
PARTS = pa.struct([("name", pa.string()), ("grams", pa.int32())])
TYPES = [*WHOLE, *OTHERS, pa.list_(pa.int16()), pa.list_(PARTS), PARTS]

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-200, 300), st.floats(), st.text(), st.binary(max_size=4),
    st.sampled_from([2**31, 2**31 - 1, -(2**31) - 1, 2**63, 2**63 - 1, 2**53 + 1, "\ud800", "é", 1.5, 100.0]),
    st.text(st.characters(codec="utf-16", categories=["Cs", "Lu"]), max_size=3),
)  # fmt: skip
ITEMS = st.one_of(SCALARS, st.tuples(SCALARS, SCALARS), st.fixed_dictionaries({"name": SCALARS, "grams": SCALARS}))
VALUES = st.one_of(ITEMS, st.lists(ITEMS, max_size=3))


def fits(values: list[Any], field: pa.Field) -> bool:
    try:
        Shape([field]).check({field.name: values}, "Paid")
    except DoesNotFit:
        return False
    return True


def read_back(values: list[Any], field: pa.Field) -> list[Any]:
    return decode_column(encode_columns([values], [field])[0])


@pytest.mark.parametrize("kind", TYPES, ids=str)
@given(st.data())
def test_what_fits_comes_back_as_it_was(kind: pa.DataType, data: st.DataObject) -> None:
    field = pa.field("amount", kind)
    values = data.draw(st.lists(VALUES, max_size=4).filter(lambda drawn: fits(drawn, field)))
    assert read_back(values, field) == values


#: Of each type: values that any user would expect to fit, at the edges of what does.
RIGHT: list[tuple[pa.DataType, list[Any]]] = [
    *((kind, [0, 1, -1, 2 ** (kind.bit_width - 1) - 1, -(2 ** (kind.bit_width - 1))]) for kind in WHOLE[:4]),
    *((kind, [0, 1, 2**kind.bit_width - 1]) for kind in WHOLE[4:]),
    (pa.string(), ["", "a", "é", "𝄞", "\0"]),
    (pa.float64(), [0.0, -1.5, 1e308, float("inf"), 3, 2**53]),
    (pa.bool_(), [True, False]),
    (pa.binary(), [b"", b"\xff"]),
    (pa.timestamp("us", "UTC"), [0, -1, 1_700_000_000_000_000]),
    (pa.list_(pa.int16()), [[], [1, None], [2**15 - 1]]),
    (pa.list_(PARTS), [[], [("salt", 1)], [(None, None), ("a", 2)]]),
    (PARTS, [{"name": "salt", "grams": 1}]),
]


@pytest.mark.parametrize(("kind", "values"), RIGHT, ids=[str(kind) for kind, _ in RIGHT])
def test_what_should_fit_does(kind: pa.DataType, values: list[Any]) -> None:
    field = pa.field("amount", kind)
    for some in ([*values, None], *([value] for value in values)):
        assert fits(some, field)
        assert read_back(some, field) == some
    assert not fits([values[0], None], pa.field("amount", kind, nullable=False))
    assert fits([values[0]], pa.field("amount", kind, nullable=False))


PAY = Shape([pa.field("amount", pa.int64()), pa.field("to", pa.string(), nullable=False)])


def test_a_row_has_all_of_its_columns() -> None:
    assert PAY.whole({"to": "anna"}, "Pay") == {"amount": None, "to": "anna"}
    for row, said in (
        ({"amount": 1}, "Pay: to is None, expected a text that UTF-8 can hold, and never None"),
        ({"to": None}, "Pay: to is None, expected a text that UTF-8 can hold, and never None"),
        ({"to": "anna", "amont": 1}, "Pay has no column 'amont': expected one of amount, to"),
        ("anna", "Pay is 'anna', expected a mapping with the columns amount, to"),
    ):
        with pytest.raises(DoesNotFit) as refused:
            PAY.whole(row, "Pay")
        assert str(refused.value) == said


def test_much_is_not_shown_in_full() -> None:
    with pytest.raises(DoesNotFit) as refused:
        PAY.whole({"to": "anna", "amount": "9" * 10_000}, "Pay")
    assert len(str(refused.value)) < 250

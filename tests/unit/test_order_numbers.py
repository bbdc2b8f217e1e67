"""Given numbers written by the rules of many places, then each means one thing, or the key that decides is named."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eventmesh import mesh
from eventmesh.audit.evidence import Evidence
from eventmesh.errors import InputError
from eventmesh.lab.simulated_run import run_simulated
from eventmesh.shop.checks import totals as shop_totals
from eventmesh.shop.order_file import read_orders
from eventmesh.shop.order_history import OrderHistory
from eventmesh.shop.workloads import of_history
from tests.unit.order_story import NAMES, NOON, ROOT, lines_of, mapping, reasons, text_file

AMBIGUOUS = "ambiguous (set csv.decimal)"
OTHER = "with other signs (set csv.decimal or csv.thousands)"
THOUSANDS = "with other signs (set csv.thousands)"
HUGE = "9" * 200


def read(folder: Path, *rows: tuple[str, str], form: dict[str, Any] | None = None, **changes: Any) -> OrderHistory:
    """Orders of one line each with this quantity and price, and one that is always right."""
    cells = [("1", "1"), *rows]
    lines = [f"o{i}|A|{quantity}|{NOON}|{price}|7|France" for i, (quantity, price) in enumerate(cells)]
    path = text_file(folder, "\n".join(["|".join(NAMES), *lines]) + "\n")
    return read_orders(path, mapping(csv={"delimiter": "|", **(form or {})}, **changes))


def price_of(folder: Path, price: str, form: dict[str, Any] | None = None, **changes: Any) -> int | str:
    """The price in minor units, or why there is none."""
    found = read(folder, ("1", price), form=form, unit_price={"column": "UnitPrice", **changes})
    return reasons(found)[0][1].removeprefix("unit_price ") if found.refused.num_rows else lines_of(found, 1)[0][2]


def quantity_of(folder: Path, quantity: str, **form: Any) -> int | str:
    found = read(folder, (quantity, "1"), form=form)
    return reasons(found)[0][1].removeprefix("quantity ") if found.refused.num_rows else lines_of(found, 1)[0][1]


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("1234", 123400), ("12.5", 1250), ("12.50", 1250), (" 12.50 ", 1250), ("0.001", 0), ("0.125", 12), (".5", 50),
        ("1234.567", 123457), ("1.2345", 123), ("01.234", 123), ("+3", 300),
        ("1.234", AMBIGUOUS), ("12.345", AMBIGUOUS), ("999.000", AMBIGUOUS), ("1,234", AMBIGUOUS),
        ("-1.234", AMBIGUOUS),
        ("12,50", OTHER), ("1.234,50", OTHER), ("1,234.50", OTHER), ("1 234.50", OTHER), ("1'234.50", OTHER),
        ("1\u2019234.50", OTHER), ("1.234.567", OTHER), ("1\u202f234,50", OTHER),
        ("one", "not a number"), ("1_0", "not a number"), ("--1", "not a number"), ("1-", "not a number"),
        (".", "not a number"), ("Infinity", "not a number"), ("nan", "not a number"), ("0x10", "not a number"),
        ("\uff11\uff12", "not a number"),
    ],
)  # fmt: skip
def test_a_price_where_no_sign_is_said(tmp_path: Path, text: str, price: int | str) -> None:
    assert price_of(tmp_path, text) == price


@pytest.mark.parametrize(("decimals", "price"), [(0, AMBIGUOUS), (1, AMBIGUOUS), (2, AMBIGUOUS), (3, 1234), (4, 12340)])
def test_three_digits_are_decimals_where_so_many_are_kept(tmp_path: Path, decimals: int, price: int | str) -> None:
    assert price_of(tmp_path, "1.234", decimals=decimals) == price


def test_minor_units_keep_no_decimals(tmp_path: Path) -> None:
    assert price_of(tmp_path, "1.234", unit="minor", decimals=3) == AMBIGUOUS


@pytest.mark.parametrize(
    ("form", "text", "price"),
    [
        ({"decimal": ","}, "12,50", 1250), ({"decimal": ","}, "1,234", 123),
        ({"decimal": ","}, "1.234", THOUSANDS), ({"decimal": ","}, "1.234,50", THOUSANDS),
        ({"decimal": "."}, "1.234", 123), ({"decimal": "."}, "1,234", THOUSANDS),
        ({"decimal": ",", "thousands": "."}, "1.234,50", 123450), ({"decimal": ",", "thousands": "."}, "1.234", 123400),
        ({"decimal": ",", "thousands": "."}, "1234,5", 123450),
        ({"decimal": ",", "thousands": "."}, "1.234.567,89", 123456789),
        ({"decimal": ",", "thousands": "."}, "1.5", "not a number"),
        ({"decimal": ",", "thousands": "."}, "12.3456", "not a number"),
        ({"decimal": ",", "thousands": "."}, "1,234.50", "not a number"),
        ({"decimal": ",", "thousands": "."}, "1234.567", "not a number"),
        ({"decimal": ",", "thousands": "."}, "1,5,0", "not a number"),
        ({"thousands": "."}, "1.234,50", 123450), ({"thousands": ","}, "1,234.50", 123450),
        ({"thousands": ","}, "12,34,567.50", 123456750),
        ({"thousands": "'"}, "1'234.50", 123450), ({"thousands": "'"}, "1\u2019234.50", 123450),
        ({"thousands": " ", "decimal": ","}, "1 234,50", 123450),
        ({"thousands": " ", "decimal": ","}, "1\u202f234,50", 123450),
        ({"thousands": "\u00a0", "decimal": ","}, "1 234,50", 123450),
    ],
)  # fmt: skip
def test_a_price_by_the_signs_that_are_said(tmp_path: Path, form: dict[str, Any], text: str, price: int | str) -> None:
    assert price_of(tmp_path, text, form) == price


@pytest.mark.parametrize(
    ("price", "said"),
    [
        ("12,50", r"write csv: \{decimal: ',', thousands: '\.'\} in the mapping"),
        ("€5", "Set that key in the mapping to the sign"),
    ],
)
def test_where_no_price_can_be_read_the_keys_are_shown_as_they_are_written(
    tmp_path: Path, price: str, said: str
) -> None:
    content = f"{'|'.join(NAMES)}\n1|A|1|{NOON}|{price}|7|France\n"
    with pytest.raises(InputError, match=f"in 1 row, such as '{price}' in line 2.*{said}"):
        read_orders(text_file(tmp_path, content), mapping(csv={"delimiter": "|"}))


@pytest.mark.parametrize("text", ["€12.50", "€ 12.50", "12.50 €", "12.50€", "12.50", "+€12.50", "€+12.50"])
def test_a_currency_stands_around_a_price(tmp_path: Path, text: str) -> None:
    assert price_of(tmp_path, text, currency="€") == 1250


@pytest.mark.parametrize("text", ["€12.50", "12.50 USD", "EUR 5", "$5", "5 CHF"])
def test_a_currency_that_nobody_named_is_told_with_its_key(tmp_path: Path, text: str) -> None:
    assert price_of(tmp_path, text) == "with a currency (set unit_price.currency)"
    assert price_of(tmp_path, text, currency="£") == "not a number"


def test_a_currency_of_letters_and_a_negative_price(tmp_path: Path) -> None:
    assert price_of(tmp_path, "Rs. 1,234.50", {"thousands": ","}, currency="Rs.") == 123450
    assert price_of(tmp_path, "-€12.50", currency="€") == "not positive"
    assert price_of(tmp_path, "\u221212.50") == "not positive"


@pytest.mark.parametrize(
    ("text", "quantity"),
    [("7", 7), ("7.0", 7), ("7.00", 7), ("1.000", AMBIGUOUS), ("1,000", AMBIGUOUS), ("1.500", AMBIGUOUS),
     ("1.5", "not a whole number"), ("1,5", OTHER), ("1.000,0", OTHER), ("7 pcs", "not a whole number"),
     ("EUR 5", "not a whole number")],
)  # fmt: skip
def test_quantities_are_read_by_the_same_rules(tmp_path: Path, text: str, quantity: int | str) -> None:
    assert quantity_of(tmp_path, text) == quantity


def test_quantities_by_the_signs_that_are_said(tmp_path: Path) -> None:
    assert quantity_of(tmp_path, "1.000", thousands=".") == 1000
    assert quantity_of(tmp_path, "1.000", decimal=".") == 1
    assert quantity_of(tmp_path, "1,000", decimal=",") == 1
    assert quantity_of(tmp_path, "1.5", thousands=".") == "not a whole number"


@pytest.mark.parametrize(
    ("text", "said"),
    [("7E1000001", "in exponent form"), ("1e5", "in exponent form"), ("1.23E+05", "in exponent form"),
     ("1e-1000001", "not a whole number"), ("1e999999999", "in exponent form"), ("5e0", 5),
     ("1e9999999999", "not a whole number"), (HUGE, "not a whole number"), ("9" * 60, "too large"),
     ("-" + "9" * 60, "too large"), ("inf", "not a whole number"), ("NaN", "not a whole number")],
)  # fmt: skip
def test_exponents_and_huge_quantities_are_refused_rows(tmp_path: Path, text: str, said: int | str) -> None:
    assert quantity_of(tmp_path, text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [("1e400", "in exponent form"), ("1E+06", "in exponent form"), ("1e-05", 0), ("1e-1000001", 0), ("1e0", 100),
     ("1e-999999999", 0), ("-1e-999999999", "not positive"), (HUGE, "not a number"), ("9" * 60, "value too large"),
     ("-" + "9" * 60, "not positive"), ("0." + "9" * 60, 100)],
)  # fmt: skip
def test_exponents_and_huge_prices_are_refused_rows(tmp_path: Path, text: str, said: int | str) -> None:
    assert price_of(tmp_path, text) == said


# --- ids -----------------------------------------------------------------------------------------


def parquet_with(folder: Path, role: str, column: pa.Array, **changes: Any) -> OrderHistory:
    """One row for each value of ``column``, which is that of ``role``."""
    count = len(column)
    columns: dict[str, Any] = {
        "order": pa.array([f"o{i}" for i in range(count)]), "sku": pa.array(["A"] * count),
        "quantity": pa.array([1] * count), "time": pa.array([NOON] * count, pa.timestamp("us")),
        "price": pa.array([1.0] * count), "customer": pa.array(["7"] * count), "country": pa.array(["FR"] * count),
    } | {role: column}  # fmt: skip
    pq.write_table(pa.table(list(columns.values()), names=NAMES), folder / "ids.parquet")
    return read_orders(folder / "ids.parquet", mapping(cancellations=None, **changes))


def ids_of(found: OrderHistory, role: str) -> list[Any]:
    if role == "sku":
        return [line["sku"] for lines in found.requests["lines"].to_pylist() for line in lines]
    return list(found.requests[f"{role}_id"].to_pylist())


@pytest.mark.parametrize("role", ["order", "sku", "customer"])
@pytest.mark.parametrize(
    ("column", "ids"),
    [
        (pa.array([536365.0, 6599142604869.0, 2.0**53 - 1]), ["536365", "6599142604869", "9007199254740991"]),
        (pa.array([536365.0, 2.0**24 - 1], pa.float32()), ["536365", "16777215"]),
        (pa.array([Decimal("536365.00"), Decimal("10000000000000000001.00")]), ["536365", "10000000000000000001"]),
        (pa.array([2**63 - 1, 12]), ["9223372036854775807", "12"]),
        (pa.array(["536365.0", "00123", "NA", "1E10", "10.00", "a.0"]),
         ["536365", "00123", "NA", "1E10", "10.00", "a.0"]),
    ],
)  # fmt: skip
def test_whole_floats_are_whole_numbers_in_ids(tmp_path: Path, role: str, column: pa.Array, ids: list[str]) -> None:
    found = parquet_with(tmp_path, role, column)
    assert ids_of(found, role) == ids
    assert found.refused.num_rows == 0


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.binary(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_text_of_any_kind_is_text(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array(["1.00", "1.234"])
    column = column.dictionary_encode() if pa.types.is_dictionary(kind) else column.cast(kind)
    assert reasons(parquet_with(tmp_path, "price", column, csv={})) == [(2, f"unit_price {AMBIGUOUS}")]
    assert ids_of(parquet_with(tmp_path, "sku", column), "sku") == ["1.00", "1.234"]


def test_categories_of_floats_are_ids_as_floats_are(tmp_path: Path) -> None:
    assert ids_of(parquet_with(tmp_path, "order", pa.array([536365.0, 7.0]).dictionary_encode()), "order") == [
        "536365",
        "7",
    ]


@pytest.mark.parametrize("role", ["order", "sku", "customer"])
@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([1.0, 1.5]), "not a whole number"),
        (pa.array([1.0, -1e300]), "beyond the exact floats"),
        (pa.array([1.0, 2.0**53]), "beyond the exact floats"),
        (pa.array([1.0, 2.0**24], pa.float32()), "beyond the exact floats"),
        (pa.array([1.0, float("inf")]), "not a whole number"),
        (pa.array([Decimal("1.00"), Decimal("1.50")]), "not a whole number"),
        (pa.array(["1", "1E+06"]), "in exponent form"),
        (pa.array(["1", "6.599142604869e+12"]), "in exponent form"),
    ],
)
def test_a_float_that_names_nobody_is_refused(tmp_path: Path, role: str, column: pa.Array, reason: str) -> None:
    found = parquet_with(tmp_path, role, column)
    assert reasons(found) == [(2, f"{role} {reason}")]
    assert ids_of(found, role) == ["1"]


@pytest.mark.parametrize("role", ["order", "sku"])
@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.0, float("nan"), None]),
        pa.array(["1", "", None, "  ", "\u00a0", "\t", "\u200b", "\ufeff \u2003"]),
        pa.array(["1", " "]).dictionary_encode(),
        pa.array(["1", " "], pa.large_string()),
    ],
)
def test_what_is_blank_is_missing(tmp_path: Path, role: str, column: pa.Array) -> None:
    found = parquet_with(tmp_path, role, column)
    assert reasons(found) == [(row, f"{role} missing") for row in range(2, len(column) + 1)]


def test_a_blank_customer_is_a_guest(tmp_path: Path) -> None:
    assert ids_of(parquet_with(tmp_path, "customer", pa.array(["\u00a0", "7"])), "customer") == [
        None,
        "7",
    ]


def test_the_same_order_as_a_float_and_as_a_number_is_one(tmp_path: Path) -> None:
    found = parquet_with(tmp_path, "order", pa.array(["536365", "536365.0"]))
    assert (found.requests.num_rows, len(lines_of(found))) == (1, 2)


def test_numbers_of_a_parquet_file_need_no_signs(tmp_path: Path) -> None:
    # They are not written by anybody's rules, so that the mapping's signs are not theirs.
    for column in (pa.array([1.234]), pa.array([Decimal("1.234")])):
        assert lines_of(parquet_with(tmp_path, "price", column)) == [("A", 1, 123)]
    assert lines_of(parquet_with(tmp_path, "quantity", pa.array([100000.0]))) == [("A", 100000, 100)]
    with pytest.raises(InputError, match="quantity too large"):
        parquet_with(tmp_path, "quantity", pa.array([1e300]))


# --- totals --------------------------------------------------------------------------------------


def totals(folder: Path, *rows: tuple[str, str, str], **changes: Any) -> OrderHistory:
    """Rows of order, quantity and total."""
    lines = [f"{order},A,{quantity},{NOON},{total},7,France" for order, quantity, total in rows]
    path = text_file(folder, "\n".join([",".join(NAMES), *lines]) + "\n")
    return read_orders(path, mapping(unit_price=None, **{"line_total": {"column": "UnitPrice"}, **changes}))


def test_a_total_is_divided_and_loses_nothing(tmp_path: Path) -> None:
    found = totals(tmp_path, ("1", "4", "10.00"), ("1", "3", "10.00"), ("2", "3", "0.02"), ("2", "1", "7"))
    assert lines_of(found) == [("A", 4, 250), ("A", 2, 333), ("A", 1, 334)]
    assert lines_of(found, 1) == [("A", 1, 0), ("A", 2, 1), ("A", 1, 700)]
    assert found.requests["amount"].to_pylist() == [2000, 702]
    assert found.summary() == {
        "rows": 4, "orders": 2, "lines": 6, "returns": 0, "refused": {}, "value_minor_units": 2702,
        "assumed": {"line_total split in two": 2},
    }  # fmt: skip


def test_a_total_is_tested_and_rounded_as_a_price_is(tmp_path: Path) -> None:
    found = totals(
        tmp_path, ("1", "2", "957.5775"), ("2", "1", "0"), ("3", "1", "-5"), ("4", "0", "5"), ("5", "1", "1e400")
    )
    assert lines_of(found) == [("A", 2, 47879)]
    assert reasons(found) == [
        (2, "line_total not positive"), (3, "line_total not positive"), (4, "quantity not positive"),
        (5, "line_total in exponent form"),
    ]  # fmt: skip
    assert lines_of(totals(tmp_path, ("1", "2", "0"), refuse={"unit_price": "< 0"})) == [("A", 2, 0)]


def test_the_total_of_a_return_counts_as_its_quantity_does(tmp_path: Path) -> None:
    rows = ("C1", "-3", "-10.00"), ("C2", "-3", "10.00"), ("C3", "3", "-10.00"), ("1", "1", "1")
    found = totals(tmp_path, *rows)
    assert found.requests["kind"].to_pylist() == ["return", "order"]
    assert lines_of(found) == [("A", 2, 333), ("A", 1, 334)]
    assert reasons(found) == [(2, "line_total not negative"), (3, "returned quantity not negative")]
    positive = totals(
        tmp_path, ("C1", "3", "9"), ("C2", "3", "-9"), cancellations={"prefix": "C", "quantities": "positive"}
    )
    assert lines_of(positive) == [("A", 3, 300)]
    assert reasons(positive) == [(2, "line_total not positive")]


@pytest.mark.parametrize("wiring", ["views", "request"])
def test_lines_that_were_split_are_sold_and_returned_for_their_exact_value(tmp_path: Path, wiring: str) -> None:
    found = totals(tmp_path, ("1", "3", "10.00"), ("2", "7", "0.05"), ("2", "2", "9.99"), ("C1", "-3", "-10.00"))
    ran = run_simulated(mesh.load(ROOT / "configs" / "meshes" / f"{wiring}.yaml"), of_history(found), seed=1)
    assert ran.audit().verdict == "valid"
    with closing(Evidence(ran.simulation.mesh, ran.reader, ran.history)) as evidence:
        assert shop_totals(evidence)["confirmed_value_minor_units"] == 1000 + 5 + 999

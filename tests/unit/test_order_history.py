"""Given a file of sales and a mapping, then exactly these requests, refusals and figures come out."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from eventmesh.errors import InputError
from eventmesh.shop.order_file import read_orders
from eventmesh.shop.order_history import REFUSED, REQUESTS
from tests.unit.order_story import (
    LATER,
    NAMES,
    NOON,
    REAL_FILE,
    Row,
    csv,
    history,
    lines_of,
    mapping,
    parquet,
    reasons,
    sale,
)


def test_rows_of_one_order_become_its_lines_in_file_order(tmp_path: Path) -> None:
    found = history(
        tmp_path,
        sale("2", "B", 3, NOON, 2.55),
        sale("1", "A", 1, NOON, 0.1),
        sale("2", "A", 2, NOON, 1.1, country="Spain"),
        sale("2", "B", 1, NOON, 1.95),
    )
    assert found.requests.schema == REQUESTS
    assert found.requests["order_id"].to_pylist() == ["2", "1"]
    assert lines_of(found) == [("B", 3, 255), ("A", 2, 110), ("B", 1, 195)]
    assert lines_of(found, 1) == [("A", 1, 10)]
    assert found.requests["amount"].to_pylist() == [765 + 220 + 195, 10]
    assert found.requests["country"].to_pylist() == ["France", "France"]
    assert found.requests["customer_id"].to_pylist() == ["7", "7"]


def test_requests_come_in_order_of_time_then_of_first_row(tmp_path: Path) -> None:
    found = history(tmp_path, sale("late", time=LATER), sale("b"), sale("a"))
    assert found.requests["order_id"].to_pylist() == ["b", "a", "late"]


def test_the_first_time_of_an_order_counts(tmp_path: Path) -> None:
    found = history(tmp_path, sale("1", time=LATER), sale("2", time=LATER), sale("1", time=NOON))
    assert found.requests["ordered_at"].to_pylist() == [LATER.replace(tzinfo=UTC)] * 2
    assert found.requests["order_id"].to_pylist() == ["1", "2"]


def test_identical_rows_are_kept(tmp_path: Path) -> None:
    assert lines_of(history(tmp_path, sale(), sale())) == [("A", 1, 100)] * 2


def test_stock_codes_stay_untouched(tmp_path: Path) -> None:
    codes = ["85123A", "85123a", " 85123a ", "00123", "NA"]
    found = history(tmp_path, *(sale(sku=code) for code in codes))
    assert [line[0] for line in lines_of(found)] == codes
    assert found.demand().num_rows == 5


def test_a_missing_customer_is_a_guest(tmp_path: Path) -> None:
    found = history(tmp_path, sale(customer=None), sale("2"))
    assert found.requests["customer_id"].to_pylist() == [None, "7"]
    assert found.customers().to_pylist() == [{"customer_id": "7", "name": "customer 7", "country": "France"}]


def test_a_customer_named_on_a_later_line_is_the_orders_customer(tmp_path: Path) -> None:
    assert history(tmp_path, sale(customer=None), sale()).requests["customer_id"].to_pylist() == ["7"]


def test_guests_are_refused_where_the_mapping_says_so(tmp_path: Path) -> None:
    found = history(tmp_path, sale(customer=None), sale("2"), refuse={"customer": "missing"})
    assert reasons(found) == [(1, "customer missing")]


def test_cancellations_become_returns_with_positive_quantities(tmp_path: Path) -> None:
    found = history(tmp_path, sale("C5", "A", -3, NOON, 2.0), sale("1", "A", 1, LATER), sale("C5", "B", -1, NOON, 1.0))
    assert found.requests["kind"].to_pylist() == ["return", "order"]
    assert found.requests["order_id"].to_pylist() == ["C5", "1"]
    assert lines_of(found) == [("A", 3, 200), ("B", 1, 100)]
    assert found.requests["amount"].to_pylist() == [700, 100]
    assert found.demand().to_pylist() == [{"sku": "A", "quantity": 1}]


def test_returns_may_be_counted_positive(tmp_path: Path) -> None:
    found = history(tmp_path, sale("C5", quantity=3), cancellations={"prefix": "C", "quantities": "positive"})
    assert (found.requests["kind"].to_pylist(), lines_of(found)) == (["return"], [("A", 3, 100)])


def test_without_cancellations_every_row_is_an_orders(tmp_path: Path) -> None:
    found = history(tmp_path, sale("C5"), sale("C6", quantity=-1), cancellations=None)
    assert found.requests["kind"].to_pylist() == ["order"]
    assert reasons(found) == [(2, "quantity not positive")]


def test_prices_are_tested_before_they_are_rounded(tmp_path: Path) -> None:
    found = history(tmp_path, sale(price=0.001), sale(price=0.0), sale(price=-0.001))
    assert lines_of(found) == [("A", 1, 0)]
    assert reasons(found) == [(2, "unit_price not positive"), (3, "unit_price not positive")]


def test_free_lines_count_where_the_mapping_says_so(tmp_path: Path) -> None:
    found = history(tmp_path, sale(price=0.0), sale(price=-0.001), refuse={"unit_price": "< 0"})
    assert lines_of(found) == [("A", 1, 0)]
    assert reasons(found) == [(2, "unit_price negative")]


@pytest.mark.parametrize(("rounding", "pence"), [("half_even", [100, 268, 0, 1]), ("half_up", [101, 268, 1, 1])])
def test_prices_are_rounded_as_they_are_written(tmp_path: Path, rounding: str, pence: list[int]) -> None:
    # 1.005 and 2.675 are ties in decimal, but lie below the tie in binary.
    rows = [sale(price=price) for price in (1.005, 2.675, 0.005, 0.0051)]
    found = history(tmp_path, *rows, unit_price={"column": "UnitPrice", "rounding": rounding})
    assert [line[2] for line in lines_of(found)] == pence


@pytest.mark.parametrize(
    ("unit", "price"),
    [({"unit": "minor"}, 255), ({"unit": "major", "decimals": 0}, 255), ({"unit": "major", "decimals": 3}, 255_000)],
)
def test_prices_are_counted_in_the_mappings_unit(tmp_path: Path, unit: dict[str, Any], price: int) -> None:
    found = history(tmp_path, sale(price=255.0), unit_price={"column": "UnitPrice"} | unit)
    assert lines_of(found) == [("A", 1, price)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (sale(order=None), "order missing"),
        (sale(order=""), "order missing"),
        (sale(sku=None), "sku missing"),
        (sale(quantity=None), "quantity missing"),
        (sale(quantity=0), "quantity not positive"),
        (sale(quantity=-1, price=0.0), "quantity not positive"),  # the first reason, in order of columns
        (sale(quantity=2**31), "quantity too large"),
        (sale("C1", quantity=1), "returned quantity not negative"),
        (sale(price=None), "unit_price missing"),
        (sale(price=float("nan")), "unit_price missing"),
        (sale(price=float("inf")), "unit_price not a number"),
        (sale(price=1e300), "value too large"),
        (sale(quantity=2**31 - 1, price=10.0), "value too large"),
        (sale(time=None), "time missing"),
    ],
)
def test_a_row_that_cannot_be_a_line_is_refused_with_its_reason(tmp_path: Path, row: Row, reason: str) -> None:
    found = history(tmp_path, sale("good"), row, sale("good"))
    assert reasons(found) == [(2, reason)]
    assert found.requests["order_id"].to_pylist() == ["good"]
    assert found.summary()["rows"] == 3


def test_an_order_goes_on_without_its_refused_rows(tmp_path: Path) -> None:
    found = history(tmp_path, sale(quantity=0, sku="B"), sale(quantity=2))
    assert lines_of(found) == [("A", 2, 100)]


def test_a_file_of_returns_alone_asks_for_nothing(tmp_path: Path) -> None:
    found = history(tmp_path, sale("C1", quantity=-1, customer=None))
    assert found.requests["kind"].to_pylist() == ["return"]
    assert (found.demand().num_rows, found.customers().num_rows) == (0, 0)
    assert found.summary()["value_minor_units"] == 0


def test_refused_rows_are_written_as_the_file_had_them(tmp_path: Path) -> None:
    found = history(tmp_path, sale(), sale("2", "x,y", 0, customer=None, price=2.5))
    target = tmp_path / "new" / "refused.csv"
    found.write_refused(target)
    written = pa_csv.read_csv(target).to_pylist()
    assert found.refused.schema == REFUSED
    assert len(written) == 1
    assert (written[0]["row"], written[0]["reason"]) == (2, "quantity not positive")
    assert (written[0]["sku"], written[0]["unit_price"]) == ("x,y", 2.5)


def test_tables_for_the_other_services(tmp_path: Path) -> None:
    found = history(
        tmp_path,
        sale("C0", "B", -1, NOON, 9.0),
        sale("C0", "A", -1, NOON, 8.0),
        sale("1", "A", 2, NOON, 1.0),
        sale("2", "A", 3, LATER, 0.5, country=None),
        sale("3", "A", 1, LATER, 0.5, country="Spain"),
    )
    assert found.demand().to_pylist() == [{"sku": "A", "quantity": 6}]
    assert found.prices().to_pylist() == [{"sku": "A", "list_price": 100}, {"sku": "B", "list_price": 900}]
    assert found.customers()["country"].to_pylist() == ["Spain"]
    assert found.summary() == {
        "rows": 5, "orders": 3, "lines": 3, "returns": 1, "refused": {}, "value_minor_units": 200 + 150 + 50,
    }  # fmt: skip


def test_csv_and_parquet_give_the_same_history(tmp_path: Path) -> None:
    source = parquet(tmp_path, sale(), sale("C2", "x,\ny", -1, LATER), sale("3", customer=None), sale("4", quantity=0))
    pa_csv.write_csv(pq.read_table(source), tmp_path / "same.csv")
    assert read_orders(tmp_path / "same.csv", mapping()).requests == read_orders(source, mapping()).requests


def test_csv_stays_text_and_bad_text_is_refused(tmp_path: Path) -> None:
    path = csv(
        tmp_path,
        "0012,007,1,2011-07-01 12:00,2.675,17850.0,France",
        "0012,NA,1.0,2011-07-01T12:00:00+02:00,1e0,,",
        "1,A,1.5,2011-07-01 12:00,1,,",
        "1,A,one,2011-07-01 12:00,1,,",
        '1,A,1,2011-07-01 12:00,"1,5",,',
        "1,A,1,yesterday,1,,",
        "1,A,1,2011-07-01 12:00,1_0,,",
    )
    found = read_orders(path, mapping())
    assert found.requests["order_id"].to_pylist() == ["0012"]
    assert lines_of(found) == [("007", 1, 268), ("NA", 1, 100)]
    assert found.requests["customer_id"].to_pylist() == ["17850"]
    assert reasons(found) == [
        (3, "quantity not a whole number"),
        (4, "quantity not a whole number"),
        (5, "unit_price not a number"),
        (6, "time not readable"),
        (7, "unit_price not a number"),
    ]


def test_times_are_read_by_format_and_zone(tmp_path: Path) -> None:
    path = csv(tmp_path, "1,A,1,1/7/2011 12:00,1,,")
    found = read_orders(path, mapping(time_format="%d/%m/%Y %H:%M", timezone="Europe/London"))
    assert found.requests["ordered_at"].to_pylist() == [datetime(2011, 7, 1, 11, tzinfo=UTC)]


def test_a_files_own_zone_wins_over_the_mappings(tmp_path: Path) -> None:
    aware = pa.array([datetime(2011, 7, 1, 12, tzinfo=UTC)], pa.timestamp("ms", "Asia/Tokyo"))
    table = pq.read_table(parquet(tmp_path, sale()))
    pq.write_table(table.set_column(3, "InvoiceDate", aware), tmp_path / "aware.parquet")
    found = read_orders(tmp_path / "aware.parquet", mapping(timezone="Europe/London"))
    assert found.requests["ordered_at"].to_pylist() == [datetime(2011, 7, 1, 12, tzinfo=UTC)]


def test_a_native_time_ignores_the_text_format(tmp_path: Path) -> None:
    assert history(tmp_path, sale(), time_format="%d/%m/%Y").refused.num_rows == 0


def test_csv_of_another_delimiter_and_encoding(tmp_path: Path) -> None:
    path = csv(tmp_path, "1;Ärmel;1;2011-07-01;1;;", encoding="latin1")
    path.write_bytes(path.read_bytes().replace(b",", b";"))
    found = read_orders(path, mapping(csv={"delimiter": ";", "encoding": "latin1"}))
    assert lines_of(found) == [("Ärmel", 1, 100)]
    with pytest.raises(InputError, match=r"line 2: found the bytes c4, which are no text in utf8.*encoding: cp1252"):
        read_orders(path, mapping(csv={"delimiter": ";"}))


def test_roles_that_are_not_mapped_are_null(tmp_path: Path) -> None:
    found = history(tmp_path, sale(), customer=None, country=None)
    assert found.requests.select(["customer_id", "country"]).to_pylist() == [{"customer_id": None, "country": None}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "the file is empty"),
        ("blank.csv", b"\n \n", "the file is empty"),
        ("headed.csv", (",".join(NAMES) + "\n").encode(), "not one row"),
        ("book.xlsx", b"PK\x03\x04....", "found a zip archive.*allowed: Parquet, or CSV"),
        ("sales.json", b'[{"InvoiceNo": 1}]', "found JSON"),
        ("sales.bin", b"a\0b", "found binary data"),
        ("sales.parquet", b"InvoiceNo,x\n1,2\n", r"found something else under the name \.parquet"),
        ("torn.parquet", b"PAR1 and then nothing", "damaged or cut off. Copy it again"),
        ("other.csv", b"Invoice,StockCode\n1,2\n", r"lacks the column 'InvoiceNo' \(mapped as order; did you mean "
         r"'Invoice'\?\), 'Quantity'.*It has: Invoice, StockCode"),
        ("twice.csv", (",".join([*NAMES, "Country"]) + "\n").encode(), "'Country' more than once"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_sales_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_orders(tmp_path / name, mapping())


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    parquet(tmp_path, sale())
    with pytest.raises(InputError, match=r"cannot be read.*Did you mean 'sales\.parquet'"):
        read_orders(tmp_path / "sale.parquet", mapping())
    with pytest.raises(InputError, match="cannot be read"):
        read_orders(tmp_path, mapping())


def test_a_column_of_lists_is_refused(tmp_path: Path) -> None:
    table = pq.read_table(parquet(tmp_path, sale()))
    pq.write_table(table.set_column(1, "StockCode", pa.array([["A"]])), tmp_path / "nested.parquet")
    with pytest.raises(InputError, match=r"column 'StockCode': found list<.*allowed: text, numbers or times"):
        read_orders(tmp_path / "nested.parquet", mapping())


@pytest.mark.skipif(not REAL_FILE.exists(), reason=f"needs {REAL_FILE.name} in ../shared/data")
def test_the_real_file_gives_its_known_figures() -> None:
    found = read_orders(REAL_FILE, mapping())
    assert found.summary() == {
        "rows": 541_909,
        "orders": 19_960,
        "lines": 530_104,
        "returns": 3_836,
        "refused": {"quantity not positive": 1_336, "unit_price not positive": 1_181},
        "value_minor_units": 1_066_668_454,
        "incomplete": 53,
    }
    longest = max(len(lines) for lines in found.requests["lines"].to_pylist())
    assert longest == 1_114
    first, last = found.requests["ordered_at"][0].as_py(), found.requests["ordered_at"][-1].as_py()
    assert (first, last) == (datetime(2010, 12, 1, 8, 26, tzinfo=UTC), datetime(2011, 12, 9, 12, 50, tzinfo=UTC))


@pytest.mark.skipif(not REAL_FILE.exists(), reason=f"needs {REAL_FILE.name} in ../shared/data")
def test_the_real_file_as_text_gives_the_same_history(tmp_path: Path) -> None:
    pa_csv.write_csv(pq.read_table(REAL_FILE, columns=NAMES), tmp_path / "retail.csv")
    found, native = read_orders(tmp_path / "retail.csv", mapping()), read_orders(REAL_FILE, mapping())
    assert found.requests.equals(native.requests)
    assert found.summary() == native.summary()

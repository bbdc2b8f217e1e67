"""Given times as files write them, then each is one instant, or a refused row; what was read by a rule is counted."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eventmesh.errors import InputError
from eventmesh.shop.order_file import read_orders
from eventmesh.shop.order_history import OrderHistory
from tests.unit.order_story import NAMES, csv, mapping, parquet, reasons, sale, text_file

MOMENT = datetime(2023, 11, 26, 15, 25, tzinfo=UTC)
SECONDS = int(MOMENT.timestamp())
TWICE, NEVER = "first of a time that comes twice", "time that never comes moved on"
DIGITS = "time of digits alone (set time_unit)"


def read(folder: Path, *times: str, **changes: Any) -> OrderHistory:
    """An order at each time, by its number from 0, and one more whose time is right."""
    good = str(SECONDS) if "time_unit" in changes else MOMENT.strftime(changes.get("time_format", "%Y-%m-%d"))
    lines = [f'o{i},A,1,"{time}",1.00,7,France' for i, time in enumerate([*times, good])]
    return read_orders(csv(folder, *lines), mapping(**changes))


def time_of(folder: Path, time: str, **changes: Any) -> datetime | str:
    found = read(folder, time, **changes)
    if found.refused.num_rows:
        return reasons(found)[0][1]
    at = found.requests["order_id"].to_pylist().index("o0")
    return found.requests["ordered_at"][at].as_py()  # type: ignore[no-any-return]


def native(folder: Path, column: pa.Array, **changes: Any) -> OrderHistory:
    """A Parquet file with this column of times, and as many orders."""
    count = len(column)
    table = pq.read_table(parquet(folder, *(sale(f"o{i}") for i in range(count))))
    pq.write_table(table.set_column(NAMES.index("InvoiceDate"), "InvoiceDate", column), folder / "native.parquet")
    return read_orders(folder / "native.parquet", mapping(**changes))


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2023-11-26T15:25:00Z", MOMENT), ("2023-11-26 16:25+01:00", MOMENT), (" 2023-11-26 15:25 ", MOMENT),
        ("2023-11-26 15:25\u00a0", MOMENT), ("20231126T152500", MOMENT), ("2023-W47-7T15:25", MOMENT),
        ("20231126", datetime(2023, 11, 26, tzinfo=UTC)), ("2023-11-26", datetime(2023, 11, 26, tzinfo=UTC)),
        ("2023-11-26x15:25", "time not readable"), ("26.11.2023", "time not readable"), ("x", "time not readable"),
        ("1701012300", DIGITS), ("1701012300000", DIGITS), ("1701012300.5", DIGITS), ("-86400", DIGITS),
        ("45352", DIGITS), ("20231126152500", DIGITS), ("2023", DIGITS), ("0", DIGITS), (" ", "time missing"),
    ],
)  # fmt: skip
def test_a_time_without_a_format_is_iso_8601(tmp_path: Path, text: str, time: datetime | str) -> None:
    assert time_of(tmp_path, text) == time


@pytest.mark.parametrize(
    ("unit", "text"),
    [("s", "1701012300"), ("s", "1701012300.0"), ("s", " 1701012300 "), ("ms", "1701012300000"),
     ("us", "1701012300000000"), ("ns", "1701012300000000000"), ("ns", "1701012300000000999")],
)  # fmt: skip
def test_a_count_since_1970_is_read_by_its_unit(tmp_path: Path, unit: str, text: str) -> None:
    found = read_orders(csv(tmp_path, f"o0,A,1,{text},1.00,7,France"), mapping(time_unit=unit))
    assert found.requests["ordered_at"].to_pylist() == [MOMENT]


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("1.234", datetime(1970, 1, 1, 0, 0, 1, 234000, tzinfo=UTC)),
        ("-1", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("1701012300000", "time out of range"), ("1e400", "time in exponent form"),
        ("1.7E+12", "time in exponent form"), ("9" * 60, "time out of range"), ("inf", "time not a number"),
        ("2023-11-26", "time not a number"),
        ("1,5", "time with other signs (set csv.decimal or csv.thousands)"),
    ],
)  # fmt: skip
def test_other_counts(tmp_path: Path, text: str, time: datetime | str) -> None:
    form = {} if text.startswith("1,") else {"decimal": "."}
    assert time_of(tmp_path, text, time_unit="s", csv=form) == time


@pytest.mark.parametrize(
    "column",
    [pa.array([SECONDS, SECONDS]), pa.array([float(SECONDS)] * 2), pa.array([Decimal(SECONDS)] * 2),
     pa.array([SECONDS] * 2, pa.int32())],
)  # fmt: skip
def test_a_column_of_numbers_takes_a_unit_as_well(tmp_path: Path, column: pa.Array) -> None:
    assert native(tmp_path, column, time_unit="s").requests["ordered_at"].to_pylist() == [MOMENT] * 2
    if pa.types.is_integer(column.type):
        with pytest.raises(
            InputError, match=f"{re.escape(DIGITS)} in 2 rows, such as '1701012300' in row 1.*Write time_unit: s in the"
        ):
            native(tmp_path, column)


@pytest.mark.parametrize(
    ("text", "said"),
    [("1701012300", "time_unit: s"), ("1701012300000", "time_unit: ms"), ("1701012300000000", "time_unit: us"),
     ("1701012300000000000", "time_unit: ns"), ("20231126152500", "or else time_format"),
     ("45352", "or else time_format")],
)  # fmt: skip
def test_the_unit_of_a_count_is_guessed_for_the_hint_alone(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=f"of the only row: {re.escape(DIGITS)} in 1 row, .*{said}"):
        read_orders(csv(tmp_path, f"o0,A,1,{text},1.00,7,France"), mapping())
    if text == "1701012300000":
        with pytest.raises(InputError, match=f"time out of range in 1 row, .*{said}"):
            read_orders(csv(tmp_path, f"o0,A,1,{text},1.00,7,France"), mapping(time_unit="s"))


def test_a_format_that_no_row_fits_is_refused_with_an_example(tmp_path: Path) -> None:
    path = csv(tmp_path, *(f"{i},A,1,2024-03-{i + 1:02},1,7,France" for i in range(9)))
    said = (
        r"time not readable in 9 rows, such as '2024-03-01' in line 2\. No time fits time_format '%d/%m/%Y': write it"
    )
    with pytest.raises(InputError, match=said):
        read_orders(path, mapping(time_format="%d/%m/%Y"))


def test_a_format_takes_blanks_around_a_time(tmp_path: Path) -> None:
    assert time_of(tmp_path, " 26/11/2023 15:25 ", time_format="%d/%m/%Y %H:%M") == MOMENT


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Kiritimati"])
@pytest.mark.parametrize(
    "text",
    ["9999-12-31 23:59:59", "9999-12-31", "0001-01-01", "0001-01-01T00:00:00", "1677-12-30", "2262-04-11",
     "9999-12-31T23:59:59-11:00", "0001-01-01T00:00:00+11:00"],
)  # fmt: skip
def test_a_time_that_is_a_mark_for_never_is_out_of_range(tmp_path: Path, text: str, zone: str) -> None:
    assert time_of(tmp_path, text, timezone=zone) == "time out of range"


@pytest.mark.parametrize("text", ["1678-01-02", "1899-12-30", "1970-01-01", "2261-12-30"])
def test_far_times_within_the_range_are_taken(tmp_path: Path, text: str) -> None:
    assert isinstance(time_of(tmp_path, text, timezone="America/New_York"), datetime)


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
@pytest.mark.parametrize("unit", ["ms", "us"])
def test_a_native_time_out_of_range_is_a_refused_row(tmp_path: Path, unit: str, zone: str | None) -> None:
    kind = pa.timestamp(unit, zone)
    column = pa.array([0, 2**62, -(2**62), 2**63 - 1, -(2**63)]).view(kind)
    found = native(tmp_path, column, timezone="America/New_York")
    assert reasons(found) == [(row, "time out of range") for row in range(2, 6)]


def test_a_time_of_the_older_kind_is_not_taken_for_another(tmp_path: Path) -> None:
    times = [datetime(9999, 12, 31), datetime(2023, 11, 26, 15, 25)]
    table = pq.read_table(parquet(tmp_path, sale("1"), sale("2")))
    table = table.set_column(NAMES.index("InvoiceDate"), "InvoiceDate", pa.array(times, pa.timestamp("us")))
    pq.write_table(table, tmp_path / "older.parquet", use_deprecated_int96_timestamps=True)
    found = read_orders(tmp_path / "older.parquet", mapping())
    assert reasons(found) == [(1, "time out of range")]
    assert found.requests["ordered_at"].to_pylist() == [MOMENT]


def test_native_dates_and_nanoseconds(tmp_path: Path) -> None:
    dates = pa.array([datetime(2023, 11, 26).date(), datetime(9999, 12, 31).date()])
    assert reasons(native(tmp_path, dates)) == [(2, "time out of range")]
    counts = pa.array([SECONDS * 10**9 + 999, -1]).view(pa.timestamp("ns"))
    assert native(tmp_path, counts).requests["ordered_at"].to_pylist() == [
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), MOMENT,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["text", "parquet", "format"])
def test_an_hour_that_comes_twice_is_its_first_and_one_that_never_comes_is_moved_on(tmp_path: Path, kind: str) -> None:
    times = [
        datetime(2024, 10, 27, 1, 59), datetime(2024, 10, 27, 2, 0), datetime(2024, 10, 27, 2, 59, 59),
        datetime(2024, 10, 27, 3, 0), datetime(2024, 3, 31, 1, 59),
        datetime(2024, 3, 31, 2, 30), datetime(2024, 3, 31, 3, 0),
    ]  # fmt: skip
    if kind == "parquet":
        found = native(tmp_path, pa.array(times, pa.timestamp("ms")), timezone="Europe/Berlin")
    else:
        pattern = "%d.%m.%Y %H:%M:%S" if kind == "format" else "%Y-%m-%d %H:%M:%S"
        lines = [f"o{i},A,1,{time:{pattern}},1.00,7,France" for i, time in enumerate(times)]
        changes = {"time_format": pattern} if kind == "format" else {}
        found = read_orders(csv(tmp_path, *lines), mapping(timezone="Europe/Berlin", **changes))
    by_order = dict(zip(found.requests["order_id"].to_pylist(), found.requests["ordered_at"].to_pylist(), strict=True))
    hours = [by_order[f"o{i}"].strftime("%H:%M:%S") for i in range(len(times))]
    assert hours == ["23:59:00", "00:00:00", "00:59:59", "02:00:00", "00:59:00", "01:30:00", "01:00:00"]
    assert found.summary()["assumed"] == {TWICE: 2, NEVER: 1}


def test_only_rows_that_are_taken_are_counted_and_only_local_hours(tmp_path: Path) -> None:
    lines = ["1,A,0,2024-10-27 02:30,1.00,7,FR", "2,A,1,2024-10-27T02:30+02:00,1.00,7,FR", "3,A,1,2024-10-28,1.00,7,FR"]
    assert "assumed" not in read_orders(csv(tmp_path, *lines), mapping(timezone="Europe/Berlin")).summary()
    assert "assumed" not in read_orders(csv(tmp_path, *lines), mapping()).summary()


# --- cells that the first line of an order holds ---------------------------------------------------


def shopify(folder: Path, *lines: str, **changes: Any) -> OrderHistory:
    return read_orders(csv(folder, *lines), mapping(refuse={"customer": "missing"}, **changes))


FIRST = "1,A,1,2011-07-01 12:00,1.00,ann,France"


def test_the_first_line_of_an_order_holds_for_its_others_where_the_mapping_says_so(tmp_path: Path) -> None:
    lines = [FIRST, "2,A,1,2011-07-01 13:00,1.00,bob,Spain", "1,B,2,,3.00,,", "1,C,1,\u00a0,4.00, ,"]
    filled = shopify(tmp_path, *lines, fill="first_line")
    assert filled.requests["amount"].to_pylist() == [100 + 600 + 400, 100]
    assert filled.requests["customer_id"].to_pylist() == ["ann", "bob"]
    assert "incomplete" not in filled.summary()
    found = shopify(tmp_path, *lines)
    assert reasons(found) == [(3, "time missing"), (4, "time missing")]
    assert found.summary()["incomplete"] == 1


def test_nothing_but_what_the_first_line_has_is_filled_in(tmp_path: Path) -> None:
    rows = {
        "no time on the first": ["1,A,1,,1.00,ann,FR", FIRST],
        "sku, quantity and price are each line's own": [FIRST, "1,,1,,1.00,,", "1,B,,,1.00,,", "1,B,1,,,,"],
        "a line of its own time keeps it": [FIRST, "1,B,1,2011-07-02,1.00,,"],
        "an order without an id is nobody's": [FIRST, ",B,1,,1.00,,"],
    }
    found = {name: shopify(tmp_path, *lines, fill="first_line") for name, lines in rows.items()}
    assert [reasons(each) for each in found.values()] == [
        [(1, "time missing")],
        [(2, "sku missing"), (3, "quantity missing"), (4, "unit_price missing")],
        [],
        [(2, "order missing")],
    ]


def test_a_first_line_that_is_refused_still_holds_for_the_others_but_a_ragged_one_does_not(tmp_path: Path) -> None:
    refused = shopify(tmp_path, FIRST.replace(",A,", ",,"), "1,B,1,,1.00,,", fill="first_line")
    assert (refused.summary()["lines"], refused.summary()["incomplete"]) == (1, 1)
    ragged = shopify(tmp_path, FIRST + ",more", "1,B,1,,1.00,,", "2" + FIRST[1:], fill="first_line")
    assert reasons(ragged) == [(1, "more cells than the header"), (2, "time missing")]


def test_an_order_that_lost_all_of_its_lines_is_not_incomplete_but_gone(tmp_path: Path) -> None:
    found = shopify(tmp_path, FIRST, "2,A,0,2011-07-01,1.00,7,FR", "2,B,0,2011-07-01,1.00,7,FR")
    assert found.refused.num_rows == 2
    assert "incomplete" not in found.summary()


def test_returns_and_ragged_rows_count_as_incomplete_too(tmp_path: Path) -> None:
    found = shopify(tmp_path, "C1,A,-1,2011-07-01,1,7,FR", "C1,B,1,2011-07-01,1,7,FR", FIRST, "1,B,1,2011-07-01,1,7")
    assert found.summary()["incomplete"] == 2


def test_where_no_row_is_left_the_commonest_reasons_are_told(tmp_path: Path) -> None:
    content = [",".join(NAMES), *("1,A,0,2011-07-01,1,7,FR" for _ in range(3)), "1,,1,2011-07-01,1,7,FR", "x"]
    said = (
        r"no order is left of the 5 rows: quantity not positive in 3 rows, such as '0' in line 2; "
        r"fewer cells than the header in 1 row, such as line 6; sku missing in 1 row, such as line 5\. "
        r"The mapping's key quantity names the column 'Quantity'"
    )
    with pytest.raises(InputError, match=said):
        read_orders(text_file(tmp_path, "\n".join(content)), mapping())
    with pytest.raises(InputError, match=r"such as '0' in row 1\."):
        read_orders(parquet(tmp_path, sale(quantity=0)), mapping())

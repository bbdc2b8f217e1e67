"""Given orders that cannot be replayed, then the command names the file and what is wrong, and leaves no folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.commands.conftest import Ended, Run
from tests.commands.small_run import CONFIGS

MESH = CONFIGS / "meshes" / "views.yaml"
MAPPING = CONFIGS / "mappings" / "online-retail.yaml"
HEADER = "InvoiceNo,StockCode,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
CLI = CONFIGS.parent / "cli.py"
ROW = "1,A,2,2011-07-01T12:00:00,1.50,7,France"


def replay(eventmesh: Run, data: Path, *more: str) -> Ended:
    return eventmesh("run", MESH, "--input", data, "--mapping", MAPPING, "--output", "out", *more)


def test_good_input_is_accepted(eventmesh: Run, tmp_path: Path) -> None:
    data = tmp_path / "sales.csv"
    data.write_text(f"{HEADER}\n{ROW}\n")
    ended = replay(eventmesh, data, "--dry-run")
    assert (ended.code, ended.err, ended.made) == (0, "", [])
    assert "orders 1, lines 1, returns 0, refused none, value_minor_units 300" in " ".join(ended.out.split())


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("sales.csv", b"", ["the file is empty"]),
        ("sales.csv", HEADER.encode() + b"\n", ["not one row"]),
        ("sales.csv", b'{"InvoiceNo": 1}', ["found JSON", "allowed: Parquet, or CSV with a header line"]),
        ("sales.csv", b"PK\x03\x04 and so on", ["found a zip archive (Excel workbooks are such)", "allowed: Parquet"]),
        ("sales.csv", b"a,b\x00c\n", ["found binary data"]),
        ("sales.parquet", f"{HEADER}\n{ROW}\n".encode(), ["found something else under the name .parquet"]),
        ("sales.parquet", b"PAR1 but no more", ["begins as Parquet but is damaged or cut off"]),
        (
            "sales.csv",
            f"{HEADER}\n{ROW},and,more\n".encode(),
            ["no order is left", "more cells than the header in 1 row"],
        ),
        ("sales.csv", b"InvoiceNo,Quantity\n1,2\n", ["'StockCode' (mapped as sku)"]),
        ("sales.csv", f"{HEADER.replace('Quantity', 'Quantities')}\n{ROW}\n".encode(), ["did you mean 'Quantities'?"]),
    ],
)
def test_a_file_that_holds_no_orders(
    eventmesh: Run, tmp_path: Path, name: str, content: bytes, said: list[str]
) -> None:
    data = tmp_path / name
    data.write_bytes(content)
    replay(eventmesh, data).must_have_refused(data, *said)


def test_a_parquet_file_that_lacks_a_mapped_column(eventmesh: Run, tmp_path: Path) -> None:
    data = tmp_path / "sales.parquet"
    pq.write_table(pa.table({"InvoiceNo": ["1"], "StockCod": ["A"]}), data)
    replay(eventmesh, data).must_have_refused(data, "'StockCode' (mapped as sku; did you mean 'StockCod'?)")


def test_a_file_that_is_missing_suggests_its_neighbour(eventmesh: Run, tmp_path: Path) -> None:
    (tmp_path / "sales.csv").write_text(f"{HEADER}\n{ROW}\n")
    missing = tmp_path / "sale.csv"
    replay(eventmesh, missing).must_have_refused(missing, "No such file", "Did you mean 'sales.csv'?")
    replay(eventmesh, tmp_path).must_have_refused(tmp_path, "Is a directory")


def test_a_number_of_orders_beside_an_input_that_has_its_own(eventmesh: Run) -> None:
    words = ("--input", "sales.csv", "--mapping", MAPPING, "--orders", 5)
    eventmesh("run", MESH, *words).must_have_refused("--orders is for orders that are generated", "leave it out")


@pytest.mark.parametrize("given", [["--input", "sales.csv"], ["--mapping", str(MAPPING)]])
def test_input_and_mapping_go_together(eventmesh: Run, given: list[str]) -> None:
    eventmesh("run", MESH, *given).must_have_refused("--input and --mapping go together", "the mapping says how")


# --- files as shops export them --------------------------------------------------------------------

PLAIN = """\
schema: eventmesh.mapping/1
order: Id
sku: Sku
quantity: Qty
unit_price: {column: Price}
time: Placed
customer: Customer
"""
HEAD = "Id,Sku,Qty,Price,Placed,Customer"
GOOD = "1,A,1,1.00,2024-03-01 10:00:00,C1"


def orders(eventmesh: Run, folder: Path, content: str | bytes, *keys: str, dry: bool = True) -> Ended:
    """What a run of this file says; ``keys`` are lines of the mapping beside the plain ones."""
    data, mapping = folder / "orders.csv", folder / "mapping.yaml"
    data.write_bytes(content if isinstance(content, bytes) else content.encode())
    document = yaml.safe_load(PLAIN) | yaml.safe_load("\n".join(keys) or "{}")
    mapping.write_text(yaml.safe_dump(document))
    more = ["--dry-run", "--json"] if dry else []
    return eventmesh("run", MESH, "--input", data, "--mapping", mapping, "--output", "out", *more)


def imported(ended: Ended) -> Any:
    assert (ended.code, ended.err, ended.made) == (0, "", [])
    return json.loads(ended.out)["import"]


def lines(*rows: str) -> str:
    return "\n".join([HEAD, *rows]) + "\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(
            lines(GOOD, '2,"19"" wide,1,1.00,2024-03-01,C2', GOOD),
            ["line 3: a value begins with a quotation mark, which is open at the end", "csv: {quote: none}"],
            id="a mark that stays open",
        ),
        pytest.param(
            lines(GOOD, '2,"19"" wide,1,1.00,2024-03-01,C2', GOOD, '3,"21"" wide,1,1.00,2024-03-01,C2'),
            ["line 5, in the row that begins in line 3: a quotation mark ends a value, but no delimiter ',' follows"],
            id="a mark that is closed before no delimiter",
        ),
        pytest.param(
            lines(GOOD, '2,"Dune,1,1.00,2024-03-01,C2', GOOD, '3,12",1,1.00,2024-03-01,C2'),
            ["line 3: found a value in quotation marks that holds rows up to line 5"],
            id="two marks with rows between them",
        ),
        pytest.param(
            lines("1,A,x,1,2024-03-01,C1", "2,A,y,1,2024-03-01,C1", "3,A,1,1,x,C1"),
            ["no order is left of the 3 rows", "quantity not a whole number in 2 rows, such as 'x' in line 2",
             "time not readable in 1 row, such as 'x' in line 4", "key quantity names the column 'Qty'"],
            id="nothing is left",
        ),
        pytest.param(
            lines("1,A,1,1,1701012300000,C1"),
            ["time of digits alone (set time_unit) in 1 row, such as '1701012300000' in line 2"],
            id="counts since 1970",
        ),
        pytest.param(
            lines("1,A,1,1.234,2024-03-01,C1"), ["unit_price ambiguous (set csv.decimal) in 1 row, such as '1.234'"],
            id="numbers of two meanings",
        ),
        pytest.param(
            lines(GOOD).encode("utf-16"), ["found UTF-16 text, the mapping says utf8", "csv: {encoding: utf-16}"],
            id="UTF-16",
        ),
        pytest.param(
            lines("1,Ä,1,1,2024-03-01,C1").encode("cp1252"), ["line 2: found the bytes c4", "{encoding: cp1252}"],
            id="another encoding",
        ),
    ],
)  # fmt: skip
def test_a_file_of_which_nothing_can_be_taken_is_refused_by_the_same_words_before_a_run(
    eventmesh: Run, tmp_path: Path, content: str | bytes, said: list[str]
) -> None:
    dry = orders(eventmesh, tmp_path, content)
    dry.must_have_refused(tmp_path / "orders.csv", *said)
    (tmp_path / "orders.csv").unlink()
    (tmp_path / "mapping.yaml").unlink()
    assert orders(eventmesh, tmp_path, content, dry=False).err == dry.err


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("time_format: '%s'", ["time_format: must be a format of strptime, which has no %s", "set time_unit: s"]),
        ("csv: {encoding: hex}", ["csv.encoding: must be the name of a text encoding, such as utf8"]),
        ("csv: {encoding: rot13}", ["csv.encoding: must be the name of a text encoding, such as utf8"]),
        ('csv: {delimiter: "\\n"}', ["csv.delimiter: must be a character that can stand between two values"]),
        ("csv: {delimiter: '||'}", ["csv.delimiter: must be one character, found text '||'"]),
        ("line_total: {column: Total}", ["one of unit_price and line_total must be mapped, both are"]),
    ],
)
def test_a_mapping_that_fits_no_file_is_refused(eventmesh: Run, tmp_path: Path, key: str, said: list[str]) -> None:
    orders(eventmesh, tmp_path, lines(GOOD), key).must_have_refused(tmp_path / "mapping.yaml", *said)


@pytest.mark.parametrize(
    ("content", "keys", "found"),
    [
        pytest.param(
            "sep=;\nId;Sku;Qty;Price;Placed;Customer\n1;A;1.000;1.234,50 €;2024-03-01;C1\n",
            ["csv: {decimal: ',', thousands: .}", "unit_price: {column: Price, currency: €}"],
            {"lines": 1, "value_minor_units": 123_450_000},
            id="European numbers",
        ),
        pytest.param(
            lines(GOOD, '2,Frame 12" black,1,1.00,2024-03-01,C2', '3,"Dune,1,1.00,2024-03-01,C2'),
            ["csv: {quote: none}"], {"lines": 3},
            id="marks that quote nothing",
        ),
        pytest.param(
            lines(GOOD, "1,B,1", GOOD + ",more"), [],
            {"refused": {"fewer cells than the header": 1, "more cells than the header": 1}, "incomplete": 1},
            id="ragged rows",
        ),
        pytest.param(lines("1,A,1,1,1701012300000,C1"), ["time_unit: ms"], {"lines": 1}, id="counts since 1970"),
        pytest.param(
            lines(GOOD, "2,A,7E1000001,1,2024-03-01,C1", "1E+06,A,1,1,2024-03-01,C1", "3,A,1,1e400,2024-03-01,C1"),
            [], {"refused": {f"{role} in exponent form": 1 for role in ("order", "quantity", "unit_price")}},
            id="exponents",
        ),
        pytest.param(
            lines(GOOD, "2,A,1,1.00,9999-12-31 23:59:59,C1"), ["timezone: America/New_York"],
            {"lines": 1, "refused": {"time out of range": 1}},
            id="a mark for never",
        ),
        pytest.param(
            lines(GOOD, "1,B,1,2.00,,"), ["fill: first_line"], {"orders": 1, "lines": 2, "value_minor_units": 300},
            id="cells that the first line holds",
        ),
        pytest.param(
            lines("1,A,1,1.00,2024-10-27 02:30,C1", "2,A,1,1.00,2024-03-31 02:30,C1"), ["timezone: Europe/Berlin"],
            {"assumed": {"first of a time that comes twice": 1, "time that never comes moved on": 1}},
            id="changed clocks",
        ),
        pytest.param(
            lines("536365.0,A,1,1,2024-03-01,17850.0", "536365,B,1,1,2024-03-01,17850", "\u00a0,B,1,1,2024-03-01,C"),
            [], {"orders": 1, "lines": 2, "refused": {"order missing": 1}},
            id="ids of floats, and blanks",
        ),
        pytest.param(
            lines("1,A,3,10.00,2024-03-01,C1").replace("Price", "Total"),
            ["unit_price: null", "line_total: {column: Total}"], {"lines": 2, "value_minor_units": 1000},
            id="totals",
        ),
    ],
)  # fmt: skip
def test_files_as_shops_export_them(
    eventmesh: Run, tmp_path: Path, content: str, keys: list[str], found: dict[str, Any]
) -> None:
    ended = imported(orders(eventmesh, tmp_path, content, *keys))
    assert {name: ended[name] for name in found} == found


def test_orders_come_from_another_command(tmp_path: Path) -> None:
    (tmp_path / "mapping.yaml").write_text(PLAIN)
    words = ("run", MESH, "--dry-run", "--json", "--input", "/dev/stdin", "--mapping", tmp_path / "mapping.yaml")
    ended = subprocess.run(
        [sys.executable, CLI, *map(str, words)],
        input=lines(GOOD).encode(),
        capture_output=True,
        cwd=tmp_path,
        timeout=50,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert json.loads(ended.stdout)["import"]["orders"] == 1


def test_what_is_no_file_is_refused_by_its_name(eventmesh: Run, tmp_path: Path) -> None:
    replay(eventmesh, Path(os.devnull)).must_have_refused(os.devnull, "found a device, allowed: a file or a pipe")
    replay(eventmesh, Path("-")).must_have_refused("Name /dev/stdin to read what another command writes")

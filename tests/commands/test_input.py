"""Given orders that cannot be replayed, then the command names the file and what is wrong, and leaves no folder."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.commands.conftest import Ended, Run
from tests.commands.small_run import CONFIGS

MESH = CONFIGS / "meshes" / "views.yaml"
MAPPING = CONFIGS / "mappings" / "online-retail.yaml"
HEADER = "InvoiceNo,StockCode,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
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
        ("sales.csv", f"{HEADER}\n{ROW},and,more\n".encode(), ["no order is left", "more cells than the header 1"]),
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


@pytest.mark.parametrize("given", [["--input", "sales.csv"], ["--mapping", str(MAPPING)]])
def test_input_and_mapping_go_together(eventmesh: Run, given: list[str]) -> None:
    eventmesh("run", MESH, *given).must_have_refused("--input and --mapping go together", "the mapping says how")

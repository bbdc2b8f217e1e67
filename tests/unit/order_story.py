"""Files of sales and mappings of them, as the tests of order histories tell them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from eventmesh.shop.order_file import read_orders
from eventmesh.shop.order_history import OrderHistory
from eventmesh.shop.order_mapping import OrderMapping

ROOT = Path(__file__).resolve().parents[2]
MAPPING_FILE = ROOT / "configs" / "mappings" / "online-retail.yaml"
REAL_FILE = ROOT.parent / "shared" / "data" / "online_retail.parquet"
NAMES = ["InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
TYPES = [pa.string(), pa.string(), pa.int64(), pa.timestamp("ns"), pa.float64(), pa.float64(), pa.string()]
NOON = datetime(2011, 7, 1, 12)
LATER = datetime(2011, 7, 1, 13)

Row = tuple[Any, ...]


def sale(
    order: Any = "1", sku: Any = "A", quantity: Any = 1, time: Any = NOON, price: Any = 1.0, customer: Any = 7.0,
    country: Any = "France",
) -> Row:  # fmt: skip
    return order, sku, quantity, time, price, customer, country


def parquet(folder: Path, *rows: Row) -> Path:
    path = folder / "sales.parquet"
    columns = [pa.array([row[i] for row in rows], kind) for i, kind in enumerate(TYPES)]
    pq.write_table(pa.table(columns, names=NAMES), path)
    return path


def csv(folder: Path, *lines: str, name: str = "sales.csv", encoding: str = "utf8") -> Path:
    path = folder / name
    path.write_text("\n".join([",".join(NAMES), *lines]) + "\n", encoding=encoding)
    return path


def text_file(folder: Path, content: str | bytes, name: str = "sales.csv") -> Path:
    """Exactly this."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def mapping(**changes: Any) -> OrderMapping:
    plain = OrderMapping.load(MAPPING_FILE).model_dump(by_alias=True)
    return OrderMapping.model_validate(plain | changes)


def history(folder: Path, *rows: Row, **changes: Any) -> OrderHistory:
    return read_orders(parquet(folder, *rows), mapping(**changes))


def reasons(found: OrderHistory) -> list[tuple[int, str]]:
    return list(zip(found.refused["row"].to_pylist(), found.refused["reason"].to_pylist(), strict=True))


def lines_of(found: OrderHistory, request: int = 0) -> list[tuple[Any, ...]]:
    return [tuple(line.values()) for line in found.requests["lines"][request].as_py()]

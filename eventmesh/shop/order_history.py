"""Orders as callers asked for them, in order of time, and the rows of a file that could not be asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from eventmesh.declared import stored_schema
from eventmesh.messages import TIMESTAMP
from eventmesh.shop.facts import PlaceOrder
from eventmesh.shop.order_mapping import ROLES

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
LINES = stored_schema(PlaceOrder).field("lines").type
REQUESTS = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),  # "order" | "return" | "cancel"
        pa.field("order_id", pa.string(), nullable=False),
        pa.field("customer_id", pa.string()),  # null: a guest
        pa.field("country", pa.string()),
        pa.field("ordered_at", TIMESTAMP, nullable=False),
        pa.field("lines", LINES, nullable=False),  # a cancel has none; quantities are positive
        pa.field("amount", pa.int64(), nullable=False),  # sum of quantity * unit_price, minor units
    ]
)
REFUSED = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # 1 is the first row of data
        pa.field("line", pa.int64()),  # of the file, where the row begins; null: a Parquet file has none
        pa.field("reason", pa.string(), nullable=False),
        *(pa.field(role, pa.string()) for role in ROLES),  # the values as the file has them
    ]
)
QUANTITY_MAX = 2**31 - 1  # the lines' column is int32
VALUE_MAX = 10**12  # minor units of one line, so that nine million of them still sum within int64

#: The rule for a line whose total is no multiple of its quantity: it becomes two, whose prices differ by one.
SPLIT = "line_total split in two"


@dataclass(frozen=True)
class OrderHistory:
    """What was asked, as one table, and the rows that could not be asked.

    ``requests`` has the columns :data:`REQUESTS`, in order of ``ordered_at``, then of the first row of
    each in the file. ``refused`` has the columns :data:`REFUSED`, in order of ``row``.
    """

    requests: pa.Table
    refused: pa.Table
    incomplete: int = 0  # orders and returns that go on although a row of theirs was refused
    assumed: Mapping[str, int] = field(default_factory=dict)  # accepted rows that were read by a rule, by that rule

    def __post_init__(self) -> None:
        """Assert the columns."""
        assert self.requests.schema.equals(REQUESTS), self.requests.schema
        assert self.refused.schema.equals(REFUSED), self.refused.schema

    def demand(self) -> pa.Table:
        """Units ordered of each product, returns left out: ``sku`` (sorted), ``quantity`` int64."""
        ordered = self._lines("order").group_by("sku").aggregate([("quantity", "sum")])
        return ordered.rename_columns(["sku", "quantity"]).sort_by("sku")

    def customers(self) -> pa.Table:
        """Every named customer: ``customer_id`` (sorted), ``name``, ``country`` (the last one seen).

        Histories carry no names, so ``name`` is a label made from the id.
        """
        named = self.requests.select(["customer_id", "country"]).filter(pc.field("customer_id").is_valid())
        latest = named.group_by("customer_id", use_threads=False).aggregate([("country", "last")])
        ids = latest["customer_id"]
        names = pc.binary_join_element_wise("customer", ids, " ")
        return pa.table({"customer_id": ids, "name": names, "country": latest["country_last"]}).sort_by("customer_id")

    def prices(self) -> pa.Table:
        """The first price quoted for each product: ``sku`` (sorted), ``list_price`` int64 minor units.

        Orders quote before returns do: a return's price counts only where nobody ever ordered the product.
        """
        quoted = pa.concat_tables([self._lines("order"), self._lines("return")])
        first = quoted.group_by("sku", use_threads=False).aggregate([("unit_price", "first")])
        return first.rename_columns(["sku", "list_price"]).sort_by("sku")

    def summary(self) -> dict[str, Any]:
        """The ``import`` part of ``run.json``: counts, and the value of all orders in minor units.

        ``rows`` are the lines of orders and of returns and the refused rows; ``lines`` those of orders. A row whose
        total was :data:`SPLIT` is two lines. What is ``incomplete`` or ``assumed`` is left out where nothing is.
        """
        orders = self._of_kind("order")
        lines, returned = len(self._lines("order")), len(self._lines("return"))
        reasons = sorted(self.refused["reason"].value_counts().to_pylist(), key=lambda count: str(count["values"]))
        return {
            "rows": lines + returned + self.refused.num_rows - self.assumed.get(SPLIT, 0),
            "orders": orders.num_rows,
            "lines": lines,
            "returns": self._of_kind("return").num_rows,
            "refused": {count["values"]: count["counts"] for count in reasons},
            "value_minor_units": pc.sum(orders["amount"], min_count=0).as_py(),
            **({"incomplete": self.incomplete} if self.incomplete else {}),
            **({"assumed": dict(self.assumed)} if self.assumed else {}),
        }

    def told(self) -> str:
        """The same in a sentence, for a report."""
        counted = self.summary()
        refused = "".join(f"; refused, {reason}: {count:,}" for reason, count in counted["refused"].items())
        return (
            f"{counted['rows']:,} rows, {counted['orders']:,} orders with {counted['lines']:,} lines, "
            f"{counted['returns']:,} returns, {counted['value_minor_units']:,} minor units in all{refused}."
        )

    def write_refused(self, path: Path | str) -> None:
        """Write the refused rows as CSV with a header; an existing file is replaced."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        pa_csv.write_csv(self.refused, str(path))

    def _of_kind(self, kind: str) -> pa.Table:
        return self.requests.filter(pc.field("kind") == kind)

    def _lines(self, kind: str) -> pa.Table:
        structs = pc.list_flatten(self._of_kind(kind)["lines"])
        names = [field.name for field in LINES.value_type]
        return pa.table({name: pc.struct_field(structs, name) for name in names})


def list_lines(starts: Integers, sku: pa.Array, quantity: Integers, unit_price: Integers) -> pa.ListArray:
    """Flat columns, already in order of their requests, as one list of lines per request.

    ``starts`` has one entry more than there are requests: request ``i`` has the lines
    ``starts[i]`` up to ``starts[i + 1]``.
    """
    columns = [sku, pa.array(quantity, pa.int32()), pa.array(unit_price, pa.int64())]
    structs = pa.StructArray.from_arrays(columns, fields=list(LINES.value_type))
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), structs, type=LINES)


def amounts(starts: Integers, quantity: Integers, unit_price: Integers) -> Integers:
    """The value of each request in minor units; arguments as for :func:`list_lines`."""
    running = np.concatenate([np.zeros(1, np.int64), np.cumsum(quantity * unit_price)])
    values: Integers = running[starts[1:]] - running[starts[:-1]]
    return values

"""Orders as callers asked for them, in order of time: read from a file of real sales by a mapping.

Every row of the file becomes a line of an order, a line of a return, or a refused row with its reason;
none is dropped or changed on the way. No clock, no randomness: the same file gives the same history.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from eventmesh.errors import InputError
from eventmesh.messages import TIMESTAMP
from eventmesh.shop.facts import LINES
from eventmesh.shop.order_mapping import ROLES, OrderMapping, cause, nearest, zone

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
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
        pa.field("reason", pa.string(), nullable=False),
        *(pa.field(role, pa.string()) for role in ROLES),  # the values as the file has them
    ]
)
QUANTITY_MAX = 2**31 - 1  # the lines' column is int32
VALUE_MAX = 10**12  # minor units of one line, so that nine million of them still sum within int64

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,9})?", re.ASCII)
_ROUNDINGS = {"half_even": ROUND_HALF_EVEN, "half_up": ROUND_HALF_UP}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class OrderHistory:
    """What was asked, as one table, and the rows that could not be asked.

    ``requests`` has the columns :data:`REQUESTS`, in order of ``ordered_at``, then of the first row of
    each in the file. ``refused`` has the columns :data:`REFUSED`, in order of ``row``.
    """

    requests: pa.Table
    refused: pa.Table

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

        ``rows`` are the lines of orders and of returns and the refused rows; ``lines`` those of orders.
        """
        orders = self._of_kind("order")
        lines, returned = len(self._lines("order")), len(self._lines("return"))
        reasons = sorted(self.refused["reason"].value_counts().to_pylist(), key=lambda count: str(count["values"]))
        return {
            "rows": lines + returned + self.refused.num_rows,
            "orders": orders.num_rows,
            "lines": lines,
            "returns": self._of_kind("return").num_rows,
            "refused": {count["values"]: count["counts"] for count in reasons},
            "value_minor_units": pc.sum(orders["amount"], min_count=0).as_py(),
        }

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


def read_orders(path: Path | str, mapping: OrderMapping) -> OrderHistory:
    """The history in a Parquet or CSV file, one line of an order or of a return per row.

    Lines keep the order of the file and their stock codes; the first time of an order counts. Raises
    InputError where the file is missing, empty, of another format or lacks a mapped column.
    """
    raw = _read(Path(path), mapping)
    if raw.num_rows == 0:
        raise InputError(f"{path}: the file has columns ({', '.join(raw.column_names)}) but not one row")
    text = _as_text(raw, mapping, str(path))
    rows = _judge(text, mapping, native_time=not _is_text(raw.schema.field(mapping.time).type))
    history = OrderHistory(_requests(text, rows), _refused(text, rows.reason))
    assert history.summary()["rows"] == raw.num_rows, "every row is an order's, a return's, or refused"
    return history


def _read(path: Path, mapping: OrderMapping) -> pa.Table:
    read = _read_parquet if _is_parquet(path) else _read_csv
    try:
        return read(path, mapping)
    except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
        shown = " ".join(str(error).split())
        raise InputError(f"{path}: the file is damaged or not written as its mapping says ({shown})") from error


def _is_parquet(path: Path) -> bool:
    head = _head(path)
    if not head.strip():
        raise InputError(f"{path}: the file is empty")
    if head.startswith(b"PAR1"):
        return True
    found = next((name for magic, name in _OTHER_FORMATS if head.startswith(magic)), None)
    found = found or ("binary data" if b"\0" in head else None)
    if found is None and path.suffix.lower() in (".parquet", ".pq"):
        found = f"something else under the name {path.suffix}"
    if found:
        raise InputError(f"{path}: found {found}, allowed: Parquet, or CSV with a header line")
    return False


_OTHER_FORMATS = (
    (b"PK\x03\x04", "a zip archive (Excel workbooks are such)"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"\x1f\x8b", "a gzip file"),
    (b"ARROW1", "an Arrow IPC file"),
    (b"{", "JSON"),
    (b"[", "JSON"),
    (b"<", "XML or HTML"),
)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError as error:
        beside = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
        missing = isinstance(error, FileNotFoundError)
        hint = nearest(path.name, beside) if missing else ""
        raise InputError(f"{path}: the file cannot be read ({cause(error)}){hint}") from error


def _read_parquet(path: Path, mapping: OrderMapping) -> pa.Table:
    with pq.ParquetFile(path) as file:
        wanted = _check_columns(path, file.schema_arrow.names, mapping)
        return file.read(columns=wanted).select(wanted)


def _read_csv(path: Path, mapping: OrderMapping) -> pa.Table:
    parse = pa_csv.ParseOptions(delimiter=mapping.csv.delimiter, newlines_in_values=True)
    read = pa_csv.ReadOptions(encoding=mapping.csv.encoding)
    with pa_csv.open_csv(path, read_options=read, parse_options=parse) as file:
        wanted = _check_columns(path, file.schema.names, mapping)
    # Everything stays text here, so that codes such as 00123 or NA are not taken for something else.
    convert = pa_csv.ConvertOptions(
        include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()), null_values=[""],
        strings_can_be_null=True,
    )  # fmt: skip
    return pa_csv.read_csv(path, read_options=read, parse_options=parse, convert_options=convert)


def _check_columns(path: Path, names: list[str], mapping: OrderMapping) -> list[str]:
    wanted = mapping.columns()
    lacking = [
        f"{column!r} (mapped as {role}{nearest(column, names)})"
        for role, column in wanted.items()
        if column not in names
    ]
    if lacking:
        raise InputError(f"{path}: the file lacks the column {', '.join(lacking)}. It has: {', '.join(names)}")
    twice = [column for column in wanted.values() if names.count(column) > 1]
    if twice:
        raise InputError(f"{path}: the file has the column {twice[0]!r} more than once: rename one of them")
    return list(dict.fromkeys(wanted.values()))


def _as_text(raw: pa.Table, mapping: OrderMapping, path: str) -> pa.Table:
    """The mapped columns by role, each as text with missing values null; a role not mapped is all null."""
    columns = mapping.columns()
    texts = {
        role: _text(raw[columns[role]].combine_chunks(), f"{path}: column {columns[role]!r}")
        if role in columns
        else pa.nulls(raw.num_rows, pa.string())
        for role in ROLES
    }
    # Customer numbers with gaps pass through float columns in many tools: 17850.0 is customer 17850.
    texts["customer"] = pc.replace_substring_regex(texts["customer"], r"^(\d+)\.0$", r"\1")
    return pa.table(texts)


def _text(column: pa.Array, where: str) -> pa.Array:
    kind = column.type
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    try:
        if pa.types.is_timestamp(kind):
            instants = column.cast(pa.timestamp("us", kind.tz), safe=False).view(pa.int64()).view(pa.timestamp("us"))
            text = pc.binary_join_element_wise(instants.cast(pa.string()), "Z" if kind.tz else "", "")
        else:
            text = column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{where}: found {kind}, allowed: text, numbers or times") from error
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


@dataclass(frozen=True)
class _Rows:
    """What each row of the file says; ``reason`` indexes ``_REASONS``, 0 for a row that is accepted."""

    reason: npt.NDArray[np.int16]
    is_return: Flags
    quantity: Integers  # always counted positive, where accepted
    unit_price: Integers  # minor units
    time: Integers  # microseconds since 1970 UTC


_REASONS = (
    "",
    "order missing",
    "sku missing",
    "quantity missing",
    "quantity not a whole number",
    "quantity not positive",
    "returned quantity not negative",
    "quantity too large",
    "unit_price missing",
    "unit_price not a number",
    "unit_price not positive",
    "unit_price negative",
    "value too large",
    "time missing",
    "time not readable",
    "customer missing",
)
_CODES = {reason: np.int16(code) for code, reason in enumerate(_REASONS)}


def _judge(text: pa.Table, mapping: OrderMapping, *, native_time: bool) -> _Rows:
    """Read every row and give each that cannot become a line its first reason, column by column."""
    returns = mapping.cancellations
    is_return = _flags(pc.starts_with(text["order"], returns.prefix)) if returns else np.zeros(len(text), np.bool_)
    quantity, quantity_fault = _parse(text["quantity"], _whole_number, "quantity missing")
    if returns and returns.quantities == "negative":
        quantity = np.where(is_return, -quantity, quantity)
    unit_price, price_fault = _parse(text["unit_price"], _price_reader(mapping), "unit_price missing")
    time, time_fault = _parse(text["time"], _time_reader(mapping, native=native_time), "time missing")
    negative = is_return & bool(returns and returns.quantities == "negative")
    faults = [
        _where(_flags(text["order"].is_null()), "order missing"),
        _where(_flags(text["sku"].is_null()), "sku missing"),
        quantity_fault,
        _where((quantity <= 0) & negative, "returned quantity not negative"),
        _where(quantity <= 0, "quantity not positive"),
        price_fault,
        # In floating point, since the exact product may not fit where it is too large.
        _where(quantity.astype(np.float64) * unit_price > VALUE_MAX, "value too large"),
        time_fault,
    ]
    if mapping.refuse.customer == "missing":
        faults.append(_where(_flags(text["customer"].is_null()), "customer missing"))
    return _Rows(_first_fault(faults), is_return, quantity, unit_price, time)


def _first_fault(faults: list[npt.NDArray[np.int16]]) -> npt.NDArray[np.int16]:
    reason = np.zeros_like(faults[0])
    for fault in faults:
        reason = np.where(reason == 0, fault, reason)
    return reason


def _where(flags: Flags, reason: str) -> npt.NDArray[np.int16]:
    return np.where(flags, _CODES[reason], np.int16(0))


def _flags(column: pa.ChunkedArray) -> Flags:
    flags: Flags = pc.fill_null(column, False).to_numpy().astype(np.bool_)
    return flags


def _parse(
    column: pa.ChunkedArray, reader: Callable[[str], int | str], missing: str
) -> tuple[Integers, npt.NDArray[np.int16]]:
    """Each text as an int64 with its fault; ``reader`` gives the number or the reason why there is none.

    Only distinct texts are read: a column of half a million prices has some two thousand.
    """
    encoded = column.combine_chunks().dictionary_encode()
    outcomes = [reader(value) for value in encoded.dictionary.to_pylist()]
    values = np.array([0 if isinstance(o, str) else o for o in outcomes] + [0], np.int64)
    faults = np.array([_CODES[o] if isinstance(o, str) else 0 for o in outcomes] + [_CODES[missing]], np.int16)
    # A missing value takes the entry behind the last.
    at = encoded.indices.fill_null(len(outcomes)).to_numpy()
    return values[at], faults[at]


def _whole_number(text: str) -> int | str:
    if not _NUMBER.fullmatch(text.strip()):
        return "quantity not a whole number"
    value = Decimal(text.strip())
    if abs(value) > QUANTITY_MAX:
        return "quantity too large"
    return int(value) if value == value.to_integral_value() else "quantity not a whole number"


def _price_reader(mapping: OrderMapping) -> Callable[[str], int | str]:
    """Exact decimals throughout: 2.675 is a tie as it is written, but not as a binary fraction."""
    price = mapping.unit_price
    decimals = price.decimals if price.unit == "major" else 0
    step, rounding = Decimal(1).scaleb(-decimals), _ROUNDINGS[price.rounding]
    zero_is_refused = mapping.refuse.unit_price == "<= 0"

    def read(text: str) -> int | str:
        if not _NUMBER.fullmatch(text.strip()):
            return "unit_price not a number"
        value = Decimal(text.strip())
        if value <= 0 and zero_is_refused:
            return "unit_price not positive"
        if value < 0:
            return "unit_price negative"
        if value > Decimal(VALUE_MAX).scaleb(-decimals):
            return "value too large"
        return int(value.quantize(step, rounding).scaleb(decimals))

    return read


def _time_reader(mapping: OrderMapping, *, native: bool) -> Callable[[str], int | str]:
    pattern = None if native else mapping.time_format
    local = zone(mapping.timezone)

    def read(text: str) -> int | str:
        try:
            # A time without a zone is given the mapping's in the next line.
            moment = datetime.strptime(text, pattern) if pattern else datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=local)
            return (moment - _EPOCH) // timedelta(microseconds=1)
        except (ValueError, OverflowError):
            return "time not readable"

    return read


def _refused(text: pa.Table, reason: npt.NDArray[np.int16]) -> pa.Table:
    rows = np.flatnonzero(reason)
    reasons = pa.array(_REASONS, pa.string()).take(pa.array(reason[rows]))
    values = text.take(pa.array(rows))
    return pa.table([pa.array(rows + 1), reasons, *(values[role] for role in ROLES)], schema=REFUSED)


def _requests(text: pa.Table, rows: _Rows) -> pa.Table:
    """Gather the accepted rows by order; requests by time, then first row; lines by row."""
    kept = np.flatnonzero(rows.reason == 0)
    accepted = text.take(pa.array(kept))
    is_return, time = rows.is_return[kept], rows.time[kept]
    encoded = accepted["order"].combine_chunks().dictionary_encode()
    first = _first_rows(encoded.indices.to_numpy(), len(encoded.dictionary))
    in_time = np.lexsort((first, time[first]))
    place = np.empty_like(in_time)
    place[in_time] = np.arange(len(in_time))
    request = place[encoded.indices.to_numpy()]  # of each accepted row
    first = first[in_time]
    by_request = np.argsort(request, kind="stable")
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(request, minlength=len(first)))])
    sku = accepted["sku"].combine_chunks().take(pa.array(by_request))
    quantity, unit_price = rows.quantity[kept][by_request], rows.unit_price[kept][by_request]
    columns = [
        pa.array(np.where(is_return[first], "return", "order"), pa.string()),
        encoded.dictionary.take(pa.array(in_time)),
        _first_known(accepted["customer"], request, len(first)),
        _first_known(accepted["country"], request, len(first)),
        pa.array(time[first]).view(TIMESTAMP),
        list_lines(starts, sku, quantity, unit_price),
        pa.array(amounts(starts, quantity, unit_price)),
    ]
    return pa.table(columns, schema=REQUESTS)


def _first_rows(group: Integers, groups: int) -> Integers:
    """The first row of each group 0..groups-1, -1 for a group without rows."""
    first = np.full(groups, -1, np.int64)
    present, at = np.unique(group, return_index=True)
    first[present] = at
    return first


def _first_known(column: pa.ChunkedArray, request: Integers, requests: int) -> pa.Array:
    """The first value that is not missing among the rows of each request; null where all are."""
    known = np.flatnonzero(_flags(column.is_valid()))
    first = _first_rows(request[known], requests)
    values = column.combine_chunks().take(pa.array(known))
    return values.take(pa.array(first, mask=first < 0))

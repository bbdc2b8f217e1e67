"""Reads a file of real sales as an order history.

Every row of the file becomes a line of an order, a line of a return, or a refused row with its reason; none is dropped
or changed on the way. No clock, no randomness: the same file gives the same history.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmesh.errors import InputError
from eventmesh.messages import TIMESTAMP
from eventmesh.shop.order_columns import MappedColumns, read_columns
from eventmesh.shop.order_history import REFUSED, REQUESTS, SPLIT, Integers, OrderHistory, amounts, list_lines
from eventmesh.shop.order_mapping import ROLES, OrderMapping, Role
from eventmesh.shop.order_rows import Codes, Rows, first_rows, judge
from eventmesh.shop.order_times import DIGITS, NOT_READABLE, OUT_OF_RANGE, unit_of

#: Reasons that an error names where no row is left.
_REASONS_SHOWN = 3
_SHOWN_MAX = 40


def read_orders(path: Path | str, mapping: OrderMapping) -> OrderHistory:
    """The history in a Parquet or text file, one line of an order or of a return per row.

    Lines keep the order of the file and their stock codes; the first time of an order counts. Raises
    InputError where the file is missing, empty, of another format, lacks a mapped column, or where no row is left.
    """
    columns = read_columns(path, mapping)
    rows = judge(columns, mapping)
    kept = np.flatnonzero(rows.reason == 0)
    if not len(kept):
        raise InputError(_nothing_left(columns, rows, mapping))
    lines = _lines(rows, kept, totals=mapping.line_total is not None)
    assumed = _counted(rows, rows.assumed[kept])
    if len(lines.row) > len(kept):
        assumed[SPLIT] = len(lines.row) - len(kept)
    history = OrderHistory(_requests(rows, lines), _refused(columns, rows), _incomplete(rows, kept), assumed)
    assert history.summary()["rows"] == columns.rows, "every row is an order's, a return's, or refused"
    return history


@dataclass(frozen=True)
class _Lines:
    """The lines that the accepted rows become, in their order."""

    row: Integers  # that each is of
    quantity: Integers
    unit_price: Integers


def _lines(rows: Rows, kept: Integers, *, totals: bool) -> _Lines:
    """A total that is no multiple of its quantity becomes two lines whose prices differ by one minor unit.

    So no value is lost: 10.00 for 3 is 2 at 3.33 and 1 at 3.34.
    """
    quantity, price = rows.quantity[kept], rows.price[kept]
    if not totals:
        return _Lines(kept, quantity, price)
    each, rest = np.divmod(price, quantity)
    split = np.flatnonzero(rest)
    row = np.concatenate([kept, kept[split]])
    amount = np.concatenate([quantity - rest, rest[split]])
    unit_price = np.concatenate([each, each[split] + 1])
    by_row = np.argsort(row, kind="stable")
    return _Lines(row[by_row], amount[by_row], unit_price[by_row])


def _counted(rows: Rows, codes: Codes) -> dict[str, int]:
    """How often each word was said, by the word."""
    found = np.bincount(codes, minlength=len(rows.words.known))
    return {word: int(count) for word, count in sorted(zip(rows.words.known, found, strict=True)) if word and count}


def _requests(rows: Rows, lines: _Lines) -> pa.Table:
    """Gather the lines by order; requests by time, then first row; lines by row."""
    orders = rows.of("order", lines.row).dictionary_encode()
    first = first_rows(orders.indices.to_numpy(), len(orders.dictionary))
    in_time = np.lexsort((first, rows.time[lines.row[first]]))
    place = np.empty_like(in_time)
    place[in_time] = np.arange(len(in_time))
    request = place[orders.indices.to_numpy()]  # of each line
    first_row = lines.row[first[in_time]]
    by_request = np.argsort(request, kind="stable")
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(request, minlength=len(first)))])
    quantity, unit_price = lines.quantity[by_request], lines.unit_price[by_request]
    columns = [
        pa.array(np.where(rows.is_return[first_row], "return", "order"), pa.string()),
        orders.dictionary.take(pa.array(in_time)),
        _first_known(rows, "customer", lines.row, request, len(first)),
        _first_known(rows, "country", lines.row, request, len(first)),
        pa.array(rows.time[first_row]).view(TIMESTAMP),
        list_lines(starts, rows.of("sku", lines.row[by_request]), quantity, unit_price),
        pa.array(amounts(starts, quantity, unit_price)),
    ]
    return pa.table(columns, schema=REQUESTS)


def _first_known(rows: Rows, role: Role, row: Integers, request: Integers, requests: int) -> pa.Array:
    """The first value that is not missing among the lines of each request; null where all are."""
    known = np.flatnonzero(~rows.missing(role)[row])
    first = first_rows(request[known], requests)
    values = rows.of(role, row[known])
    return values.take(pa.array(first, mask=first < 0))


def _incomplete(rows: Rows, kept: Integers) -> int:
    """How many orders and returns go on although a row that names them was refused."""
    refused = np.flatnonzero(rows.reason)
    lost = rows.of("order", refused).unique()
    return int(pc.is_in(lost, value_set=rows.of("order", kept).unique()).true_count)


def _refused(columns: MappedColumns, rows: Rows) -> pa.Table:
    refused = np.flatnonzero(rows.reason)
    line = pa.nulls(len(refused), pa.int64()) if columns.line is None else pa.array(columns.line[refused])
    reasons = pa.array(rows.words.known, pa.string()).take(pa.array(rows.reason[refused]))
    values = [rows.of(role, refused) for role in ROLES]
    return pa.table([pa.array(refused + 1), line, reasons, *values], schema=REFUSED)


# --- no row is left ------------------------------------------------------------------------------


def _nothing_left(columns: MappedColumns, rows: Rows, mapping: OrderMapping) -> str:
    """The commonest reasons, each with its number of rows and the first that was found, and what to try."""
    counted = _counted(rows, rows.reason)
    commonest = sorted(counted, key=lambda reason: -counted[reason])[:_REASONS_SHOWN]
    told = "; ".join(_told(columns, rows, reason, counted[reason]) for reason in commonest)
    count = "the only row" if columns.rows == 1 else f"the {columns.rows:,} rows"
    hint = _try(commonest[0], columns, mapping, _first(columns, rows, commonest[0])[1])
    return f"{columns.file}: no order is left of {count}: {told}. {hint}"


def _role_of(reason: str, columns: MappedColumns) -> Role | None:
    return next((role for role in columns.names if reason.startswith((f"{role} ", f"returned {role} "))), None)


def _first(columns: MappedColumns, rows: Rows, reason: str) -> tuple[str, str]:
    """Where the first row with that reason is, and what was found there."""
    row = int(np.flatnonzero(rows.reason == rows.words.code(reason))[0])
    role = _role_of(reason, columns)
    text = None if role is None else rows.of(role, np.array([row]))[0].as_py()
    return f"row {row + 1}" if columns.line is None else f"line {columns.line[row]}", text or ""


def _told(columns: MappedColumns, rows: Rows, reason: str, count: int) -> str:
    where, text = _first(columns, rows, reason)
    shown = text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."
    example = f"{shown!r} in {where}" if text else where
    return f"{reason} in {count:,} {'row' if count == 1 else 'rows'}, such as {example}"


def _try(reason: str, columns: MappedColumns, mapping: OrderMapping, found: str) -> str:
    role = _role_of(reason, columns)
    if role is None:
        return "Check csv.delimiter and csv.quote in the mapping" if "cells" in reason else "Check the mapping"
    if reason == DIGITS or (reason == OUT_OF_RANGE and mapping.time_unit):
        unit = unit_of(found)
        other = "Write time_unit where they count since 1970, or else time_format"
        return f"Write time_unit: {unit} in the mapping, if they count since 1970" if unit else other
    if "(set csv." in reason:
        return (
            "For 1.234,50 write csv: {decimal: ',', thousands: '.'} in the mapping; for 1,234.50 csv: {thousands: ','}"
        )
    if "(set " in reason:
        return "Set that key in the mapping to the sign that the file writes"
    if reason == NOT_READABLE and mapping.time_format is not None:
        return f"No time fits time_format {mapping.time_format!r}: write it as the file writes its times"
    if reason == NOT_READABLE:
        return "Without time_format a time is ISO 8601, such as 2024-03-01 10:00: write how the file writes it"
    key = f"{role}.column" if role in ("unit_price", "line_total") else role
    return f"The mapping's key {key} names the column {columns.names[role]!r}: does it hold what is meant?"

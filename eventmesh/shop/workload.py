"""What callers ask of the shop: seeding from an order history's own data, then its orders and returns."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa

from eventmesh.messages import Columns
from eventmesh.runtime.caller import Requests, Workload, WorkloadOptions
from eventmesh.service import Row
from eventmesh.shop.facts import MESSAGES
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.order_history import OrderHistory, read_orders
from eventmesh.shop.order_mapping import OrderMapping

COMMANDS = {"order": "PlaceOrder", "cancel": "CancelOrder", "return": "RequestReturn"}
#: Open orders at a time when an input is replayed as fast as possible.
WINDOW = 400


def workload(options: WorkloadOptions) -> Workload:
    """Read or generate the orders, and say what seeds them."""
    if options.input is not None and options.mapping is not None:
        history = read_orders(options.input, OrderMapping.load(options.mapping))
    else:
        history = generate(options.orders, seed=options.seed, **(options.generate))
    return of_history(history, rate=options.rate, stock_fraction=options.stock_fraction)


def of_history(history: OrderHistory, *, rate: float | None = None, stock_fraction: float = 1.0) -> Workload:
    """The workload of an order history. Scarce: each SKU starts with ``stock_fraction`` of its demand, rounded up."""
    demand = [{**row, "quantity": math.ceil(row["quantity"] * stock_fraction)} for row in rows_of(history.demand())]
    seeding = [
        _at_once("RegisterCustomer", rows_of(history.customers())),
        _at_once("ListPrice", rows_of(history.prices())),
        _at_once("Restock", [row for row in demand if row["quantity"] > 0]),
    ]
    rows = rows_of(history.requests)
    commands = [COMMANDS[row["kind"]] for row in rows]
    count = len(rows)
    at = np.zeros(count, np.int64) if rate is None else (np.arange(count) * (1e6 / rate)).astype(np.int64)
    load = Requests(commands, [row["order_id"] for row in rows], _questions(commands, rows), at)
    return Workload(
        [stage for stage in seeding if len(stage)],
        load,
        window=WINDOW if rate is None else 1_000_000,
        summary=history.summary(),
        write_refused=history.write_refused if history.refused.num_rows else None,
    )


def rows_of(table: pa.Table) -> list[Row]:
    """A table's rows as dicts; lines as lists of tuples, times as int microseconds."""
    names = table.schema.names
    rows: list[Row] = []
    for batch in table.to_batches():
        rows += [dict(zip(names, values, strict=True)) for values in Columns(batch).rows(*names)]
    return rows


def _at_once(command: str, rows: list[Row]) -> Requests:
    key = MESSAGES[command].key
    assert key is not None
    commands = [command] * len(rows)
    return Requests(commands, [row[key] for row in rows], _questions(commands, rows), np.zeros(len(rows), np.int64))


def _questions(commands: list[str], rows: list[Row]) -> list[Row]:
    names = {command: MESSAGES[command].question.names for command in set(commands)}
    return [{name: row[name] for name in names[command]} for command, row in zip(commands, rows, strict=True)]

"""What callers ask of the shop: seeding from an order history's own data, then its orders and returns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from eventmesh.runtime.caller import Workload, WorkloadOptions
from eventmesh.runtime.requests import Requests
from eventmesh.shop.facts import MESSAGES
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.order_file import read_orders
from eventmesh.shop.order_history import OrderHistory
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
    requests = history.requests
    count = requests.num_rows
    at = np.zeros(count, np.int64) if rate is None else (np.arange(count) * (1e6 / rate)).astype(np.int64)
    kinds = requests["kind"].to_pylist()
    load = Requests(
        [COMMANDS[kind] for kind in kinds],
        requests["order_id"].to_pylist(),
        one_batch(requests.select(MESSAGES["PlaceOrder"].question.names)),
        at,
    )
    seeding = [
        _at_once("RegisterCustomer", history.customers()),
        _at_once("ListPrice", history.prices()),
        _at_once("Restock", _scaled(history.demand(), stock_fraction)),
    ]
    return Workload(
        [stage for stage in seeding if len(stage)],
        load,
        window=WINDOW if rate is None else 1_000_000,
        summary=history.summary(),
        write_refused=history.write_refused if history.refused.num_rows else None,
    )


def _scaled(demand: pa.Table, fraction: float) -> pa.Table:
    quantities = np.ceil(demand["quantity"].to_numpy() * fraction).astype(np.int64)
    place = demand.schema.get_field_index("quantity")
    return demand.set_column(place, "quantity", pa.array(quantities)).filter(pa.array(quantities > 0))


def _at_once(command: str, rows: pa.Table) -> Requests:
    message, count = MESSAGES[command], rows.num_rows
    assert message.key is not None
    payload = one_batch(rows.select(message.question.names))
    return Requests([command] * count, rows[message.key].to_pylist(), payload, np.zeros(count, np.int64))


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table as a single record batch."""
    whole = table.combine_chunks()
    return whole.to_batches()[0] if len(whole) else pa.RecordBatch.from_pylist([], whole.schema)

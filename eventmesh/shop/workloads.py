"""What callers ask of the shop: seeding from an order history's own data, then its orders and returns.

Seeding brings in what the orders need, once: nothing for an order whose id was asked under before, by this load or by
an earlier run on the same mesh.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from eventmesh import shipped
from eventmesh.declared import Command
from eventmesh.errors import InputError
from eventmesh.messages import fingerprint
from eventmesh.shop.facts import CancelOrder, ListPrice, PlaceOrder, RegisterCustomer, RequestReturn, Restock
from eventmesh.shop.generated_orders import GENERATED, generate
from eventmesh.shop.order_file import read_orders
from eventmesh.shop.order_history import OrderHistory
from eventmesh.shop.order_mapping import OrderMapping
from eventmesh.workload import Requests, Workload, WorkloadOptions

COMMANDS = {"order": PlaceOrder.__name__, "cancel": CancelOrder.__name__, "return": RequestReturn.__name__}
#: Open orders at a time when an input is replayed as fast as possible.
WINDOW = 400


#: Generated orders are kept in memory, about a kilobyte each.
ORDERS_MAX = 10_000_000


class OrderOptions(WorkloadOptions):
    """What a user may choose of the orders. Without an ``input``, and its ``mapping``, they are generated."""

    input: Path | None = Field(None, description="Orders to replay: a .parquet file, or text such as .csv and .tsv.")
    mapping: Path | None = Field(
        None,
        description="How the input's columns become orders: online-retail or another that ships, or a file.",
        json_schema_extra={"ships": "mappings"},
    )
    orders: int = Field(1_000, ge=1, le=ORDERS_MAX, description="Orders to generate where there is no input.")
    stock_fraction: float = Field(1.0, ge=0.0, le=1.0, description="Initial stock as a share of the demand.")


WORKLOAD = OrderOptions


def workload(options: OrderOptions) -> Workload:
    """Read or generate the orders, and say what seeds them."""
    if (options.input is None) != (options.mapping is None):
        raise InputError("--input and --mapping go together: the mapping says how the input's columns become orders")
    if options.input is not None and "orders" in options.model_fields_set:
        raise InputError("--orders is for orders that are generated, and the input has its own: leave it out")
    if options.input is not None and options.mapping is not None:
        history = read_orders(options.input, OrderMapping.load(shipped.find("mappings", options.mapping)))
    else:
        # What a later run on the same mesh generates are other orders, and need other names.
        prefix = GENERATED if options.number == 1 else f"R{options.number}-"
        history = generate(options.orders, seed=options.seed, prefix=prefix)
    return of_history(history, rate=options.rate, stock_fraction=options.stock_fraction, asked=options.asked)


def of_history(
    history: OrderHistory, *, rate: float | None = None, stock_fraction: float = 1.0, asked: pa.Table | None = None
) -> Workload:
    """The workload of an order history. Scarce: each SKU starts with ``stock_fraction`` of its demand, rounded up.

    ``asked`` is what callers asked of the mesh before (:data:`eventmesh.history.CALLERS`).
    """
    requests = history.requests
    count = requests.num_rows
    at = np.zeros(count, np.int64) if rate is None else (np.arange(count) * (1e6 / rate)).astype(np.int64)
    kinds = requests["kind"].to_pylist()
    load = Requests(
        [COMMANDS[kind] for kind in kinds],
        requests["order_id"].to_pylist(),
        one_batch(requests.select(PlaceOrder.__struct_fields__)),
        at,
    )
    unknown = _unknown(history, asked)
    brought: dict[type[Command[Any]], pa.Table] = {
        RegisterCustomer: unknown.customers(),
        ListPrice: unknown.prices(),
        Restock: _scaled(unknown.demand(), stock_fraction),
    }
    seeding = [_at_once(command, rows) for command, rows in brought.items()]
    return Workload(
        [stage for stage in seeding if len(stage)],
        load,
        window=WINDOW if rate is None else 1_000_000,
        summary={**history.summary(), "incomplete": history.incomplete, "assumed": dict(history.assumed)},
        told=history.told(),
        write_refused=history.write_refused if history.refused.num_rows else None,
        seeding_name=_seeding_name(unknown, brought.values()),
    )


def _unknown(history: OrderHistory, asked: pa.Table | None) -> OrderHistory:
    """The requests that are the first under their ids: the mesh has taken none before, and none comes earlier here."""
    requests = history.requests
    names = pc.binary_join_element_wise(requests["kind"], requests["order_id"], " ").combine_chunks()
    first = np.zeros(len(names), bool)
    first[np.unique(names.dictionary_encode().indices.to_numpy(), return_index=True)[1]] = True
    if asked is not None:
        first &= ~pc.is_in(names, _taken(asked)).to_numpy(zero_copy_only=False)
    return history if first.all() else replace(history, requests=requests.filter(pa.array(first)))


def _taken(asked: pa.Table) -> pa.Array:
    """What was not refused, by kind and order id."""
    taken = asked.filter(pc.is_valid(asked["outcome"]))
    taken = taken.filter(pc.not_equal(taken["outcome"], "refused"))
    kinds = {command: kind for kind, command in COMMANDS.items()}
    known = taken.filter(pc.is_in(taken["command"], pa.array(list(kinds))))
    named = pa.array([kinds[command] for command in known["command"].to_pylist()], pa.string())
    return pc.binary_join_element_wise(named, known["key"].combine_chunks(), " ")


def _seeding_name(unknown: OrderHistory, brought: Iterable[pa.Table]) -> str:
    """By the requests that need it and what they need: a run that died before its load is not seeded for twice."""
    rows = [list(zip(*(column.to_pylist() for column in table.columns), strict=True)) for table in brought]
    needed_for = unknown.requests["order_id"].to_pylist()
    return f"seeding-{fingerprint((needed_for, rows))}"


def _scaled(demand: pa.Table, fraction: float) -> pa.Table:
    quantities = np.ceil(demand["quantity"].to_numpy() * fraction).astype(np.int64)
    place = demand.schema.get_field_index("quantity")
    return demand.set_column(place, "quantity", pa.array(quantities)).filter(pa.array(quantities > 0))


def _at_once(command: type[Command[Any]], rows: pa.Table) -> Requests:
    count, names = rows.num_rows, [command.__name__] * rows.num_rows
    payload = one_batch(rows.select(command.__struct_fields__))
    return Requests(names, rows[command.__key__].to_pylist(), payload, np.zeros(count, np.int64))


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table as a single record batch."""
    whole = table.combine_chunks()
    return whole.to_batches()[0] if len(whole) else pa.RecordBatch.from_pylist([], whole.schema)

"""The article's shop: the first application of the framework.

The framework takes an application's parts from its package by these names. Checks and workload are imported when they
are first asked for: the processes of a mesh never do, and each of them would take a tenth of a second longer to start.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from eventmesh.application import Words
from eventmesh.shop.facts import DECLARED
from eventmesh.shop.gateway import Gateway
from eventmesh.shop.inventory import Inventory
from eventmesh.shop.joined import VIEWS
from eventmesh.shop.options import (
    GatewayOptions,
    InventoryOptions,
    Options,
    OrdersOptions,
    PaymentsOptions,
    SourceOptions,
    TableOptions,
)
from eventmesh.shop.orders import Orders
from eventmesh.shop.payments import Payments
from eventmesh.shop.shipping import Shipping
from eventmesh.shop.tables import Catalog, Customers
from eventmesh.shop.wirings import WIRINGS

if TYPE_CHECKING:
    from eventmesh.shop.checks import CHECKS, TIMED_CHECKS, totals
    from eventmesh.shop.variation import VARIATION
    from eventmesh.shop.workloads import WORKLOAD, workload

SERVICES = {service.name: service for service in (Gateway, Orders, Inventory, Payments, Shipping, Customers, Catalog)}
OPTIONS = {
    "gateway": GatewayOptions,
    "orders": OrdersOptions,
    "inventory": InventoryOptions,
    "payments": PaymentsOptions,
    "shipping": Options,
    "customers": SourceOptions,
    "catalog": SourceOptions,
    "pricing": TableOptions,  # the plug-in: it owns a topic from the start and runs when it is plugged in
}

WORDS = Words(
    request="order",
    requests="orders",
    a_request="an order",
    joins={
        "view": "local view", "per_row": "a query per row", "per_order": "queries per order",
        "pipelined": "pipelined queries", "batched": "batched queries", "cached": "cached queries",
        "hedged": "hedged queries", "none": "no join",
    },
    wirings=("request", "hybrid", "views", "events", "clustered"),
)  # fmt: skip
STORY = "order_id"

_LATER = {
    "CHECKS": "checks", "TIMED_CHECKS": "checks", "totals": "checks", "VARIATION": "variation",
    "workload": "workloads", "WORKLOAD": "workloads",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)


__all__ = [
    "CHECKS", "DECLARED", "OPTIONS", "SERVICES", "STORY", "TIMED_CHECKS", "VARIATION",
    "VIEWS", "WIRINGS", "WORDS", "WORKLOAD", "totals", "workload",
]  # fmt: skip

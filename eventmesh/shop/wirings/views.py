"""``views``: orders validates from its own copies of stock, customers and prices, fed by events."""

from __future__ import annotations

from operator import attrgetter

from eventmesh.service import Trigger
from eventmesh.shop.facts import OrderRequested
from eventmesh.shop.orders import Orders
from eventmesh.shop.wirings.event_driven import ORDERS, OTHERS

TRIGGERS: dict[str, Trigger] = {
    **OTHERS,
    "orders": Trigger({**ORDERS, OrderRequested: Orders.validate_from_views}, reads=attrgetter("joins")),
}

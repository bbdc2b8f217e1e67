"""The remote join that ``hybrid`` and ``request`` share: ask customers, catalog and inventory at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eventmesh.declared import Named
from eventmesh.service import Talk
from eventmesh.shop.facts import OrderRejected, OrderRequested, OrderValidated, TakeOrder
from eventmesh.shop.joined import REMOTE
from eventmesh.shop.options import OrdersOptions
from eventmesh.shop.orders import Orders, validation


def queries(options: OrdersOptions) -> Iterable[Named]:
    """What is asked, by what is joined."""
    return [REMOTE[name].query for name in options.joins]


async def validate_by_asking(
    orders: Orders, order: OrderRequested | TakeOrder, talk: Talk, *, attempts: int | None = None
) -> OrderValidated | OrderRejected:
    """What validation says, with every joined value asked of its owner. All questions go out together."""
    lines = order.lines or []
    skus = [sku for sku, _, _ in lines]
    keys = {"customers": [] if order.customer_id is None else [order.customer_id], "prices": skus, "stock": skus}
    joins = orders.place.options.joins
    asked = {name: talk.ask(REMOTE[name].questions(keys[name]), attempts=attempts) for name in joins}
    known: dict[str, Any] = {name: REMOTE[name].read(await answer) for name, answer in asked.items()}
    customer = known["customers"][0] if known.get("customers") else ((-1, None) if "customers" in joins else None)
    return validation(order.order_id, order.customer_id, lines, customer, known.get("prices"), known.get("stock"))

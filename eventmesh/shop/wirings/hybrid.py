"""``hybrid``: events notify, but orders asks the owners by remote query before it validates."""

from __future__ import annotations

from eventmesh.service import Talk, Trigger
from eventmesh.shop.facts import OrderRequested
from eventmesh.shop.orders import Orders
from eventmesh.shop.wirings.asking import queries, validate_by_asking
from eventmesh.shop.wirings.event_driven import ORDERS, OTHERS


async def validate(orders: Orders, order: OrderRequested, talk: Talk) -> None:
    """Ask, however long it takes; an order cancelled meanwhile stays cancelled."""
    if talk.state.status(order.order_id) is not None:
        return
    fact = await validate_by_asking(orders, order, talk)
    if talk.state.status(order.order_id) is None:
        talk.record(fact)


TRIGGERS: dict[str, Trigger] = {
    **OTHERS,
    "orders": Trigger({**ORDERS, OrderRequested: validate}, sends=queries, until_answered=queries),
}

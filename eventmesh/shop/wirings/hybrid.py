"""``hybrid``: events notify, but orders asks the owners by remote query before it validates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventmesh.service import Talk, Trigger
from eventmesh.shop.orders import Orders
from eventmesh.shop.wirings.asking import queries, validate_by_asking
from eventmesh.shop.wirings.event_driven import ORDERS, OTHERS


async def validate(orders: Orders, row: Mapping[str, Any], talk: Talk) -> None:
    """Ask, however long it takes; an order cancelled meanwhile stays cancelled."""
    if talk.state.status(row["order_id"]) is not None:
        return
    kind, payload = await validate_by_asking(orders, row, talk)
    if talk.state.status(row["order_id"]) is None:
        talk.record(kind, **payload)


TRIGGERS: dict[str, Trigger] = {
    **OTHERS,
    "orders": Trigger({**ORDERS, "OrderRequested": validate}, sends=queries),
}

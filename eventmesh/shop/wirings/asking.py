"""The remote join that ``hybrid`` and ``request`` share: ask customers, catalog and inventory at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from eventmesh.service import Talk
from eventmesh.shop.joined import REMOTE
from eventmesh.shop.options import OrdersOptions
from eventmesh.shop.orders import Answer, Orders, validation


def queries(options: OrdersOptions) -> Iterable[str]:
    """What is asked, by what is joined."""
    return [REMOTE[name].query for name in options.joins]


async def validate_by_asking(
    orders: Orders, row: Mapping[str, Any], talk: Talk, *, attempts: int | None = None
) -> Answer:
    """What validation says, with every joined value asked of its owner. All questions go out together."""
    keys: dict[str, list[str]] = {
        "customers": [] if row["customer_id"] is None else [row["customer_id"]],
        "prices": [sku for sku, _, _ in row["lines"]],
        "stock": [sku for sku, _, _ in row["lines"]],
    }
    joins = orders.place.options.joins
    asked = {
        name: talk.ask(REMOTE[name].query, REMOTE[name].questions(keys[name]), attempts=attempts) for name in joins
    }
    known: dict[str, Any] = {name: REMOTE[name].read(await answer) for name, answer in asked.items()}
    customer = known["customers"][0] if known.get("customers") else ((-1, None) if "customers" in joins else None)
    return validation(
        row["order_id"], row["customer_id"], row["lines"], customer, known.get("prices"), known.get("stock")
    )

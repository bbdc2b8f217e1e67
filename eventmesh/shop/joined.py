"""What services know of others: the shape of each view, and the query that asks the owner instead."""

from __future__ import annotations

from eventmesh.joins import RemoteJoin
from eventmesh.shop.facts import CustomerById, PriceBySku, StockBySku
from eventmesh.views import ViewShape

VIEWS: dict[str, ViewShape] = {
    "customers": ViewShape("customer_id", ("country",)),
    "prices": ViewShape("sku", ("list_price",)),
    "stock": ViewShape("sku", ("on_hand", "reserved")),
    # What became of each order, for callers who ask again after the gateway was away.
    "outcomes": ViewShape("order_id", ("type", "reason"), ("OrderConfirmed", "OrderRejected", "OrderCancelled")),
}
REMOTE: dict[str, RemoteJoin] = {
    "customers": RemoteJoin(CustomerById, VIEWS["customers"]),
    "prices": RemoteJoin(PriceBySku, VIEWS["prices"]),
    "stock": RemoteJoin(StockBySku, VIEWS["stock"]),
}

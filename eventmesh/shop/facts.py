"""The shop's facts, commands and queries.

Money is whole minor units, time is microseconds UTC. A line is (order_id, line_number); its price is the one quoted on
it. Line numbers count from 0 in the order the caller gave the lines.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import NamedTuple

from eventmesh.declared import Answer, Command, Declared, Fact, Int32, Query, Timestamp


class Line(NamedTuple):
    """What is ordered of one SKU, at the price quoted for a unit."""

    sku: str
    quantity: Int32
    unit_price: int


class JoinedLine(NamedTuple):
    """What orders joined to a line: the catalog's price and the free stock.

    Each has the offset of the fact that the value comes from; -1: no such fact was known.
    """

    list_price: int | None
    price_version: int | None
    available: int | None
    stock_version: int | None


def amount(lines: Iterable[tuple[str, int, int]]) -> int:
    """What an order's lines (sku, quantity, unit price) come to, minor units."""
    return sum([quantity * price for _, quantity, price in lines])


# --- order-requests: what callers asked for -----------------------------------------------------------


class OrderRequested(Fact, topic="order-requests"):
    """A caller placed an order; ``ordered_at`` is the caller's own time of it."""

    order_id: str
    customer_id: str | None
    ordered_at: Timestamp | None
    lines: list[Line] | None
    amount: int | None


class CancellationRequested(Fact, topic="order-requests"):
    """A caller wants an order cancelled."""

    order_id: str
    customer_id: str | None = None
    ordered_at: Timestamp | None = None
    lines: list[Line] | None = None
    amount: int | None = None


class ReturnRequested(Fact, topic="order-requests"):
    """A customer sends something back."""

    order_id: str
    customer_id: str | None
    ordered_at: Timestamp | None
    lines: list[Line] | None
    amount: int | None


# --- orders: what becomes of each ---------------------------------------------------------------------


class OrderValidated(Fact, topic="orders"):
    """All of its SKUs are known to be available; with the values that were joined."""

    order_id: str
    customer_id: str | None
    lines: list[Line]
    amount: int
    customer_country: str | None
    customer_version: int | None
    joined_lines: list[JoinedLine]


class OrderReserved(Fact, topic="orders"):
    """Inventory holds every line."""

    order_id: str
    amount: int


class OrderConfirmed(Fact, topic="orders"):
    """It is paid."""

    order_id: str


class OrderRejected(Fact, topic="orders"):
    """It cannot be; where no other fact says what was asked for, this one does."""

    order_id: str
    reason: str
    customer_id: str | None = None
    lines: list[Line] | None = None
    amount: int | None = None


class OrderCancelling(Fact, topic="orders"):
    """It is to be undone, step by step."""

    order_id: str
    reason: str


class OrderCancelled(Fact, topic="orders"):
    """All of it is undone."""

    order_id: str
    reason: str


class OrderShipped(Fact, topic="orders"):
    """It has left the house."""

    order_id: str


class ReservationExpired(Fact, topic="orders"):
    """It was reserved, and not paid in time."""

    order_id: str


class OrderReturned(Fact, topic="orders"):
    """It came back."""

    order_id: str


# --- stock: each fact says what is on hand and reserved after it; shipped units are not on hand --------


class StockReserved(Fact, topic="stock"):
    """Units are held for an order's line."""

    sku: str
    order_id: str
    line_number: Int32
    quantity: int
    on_hand: int
    reserved: int


class StockShort(Fact, topic="stock"):
    """There were too few for an order's line; nothing is held."""

    sku: str
    order_id: str
    line_number: Int32
    quantity: int
    on_hand: int
    reserved: int


class StockReleased(Fact, topic="stock"):
    """What a line held is free again."""

    sku: str
    order_id: str
    line_number: Int32
    quantity: int
    on_hand: int
    reserved: int


class StockShipped(Fact, topic="stock"):
    """What a line held has left the house."""

    sku: str
    order_id: str
    line_number: Int32
    quantity: int
    on_hand: int
    reserved: int


class StockReturned(Fact, topic="stock"):
    """A line came back."""

    sku: str
    order_id: str
    line_number: Int32
    quantity: int
    on_hand: int
    reserved: int


class StockRestocked(Fact, topic="stock"):
    """A delivery came in, for the sake of ``reason``."""

    sku: str
    quantity: int
    on_hand: int
    reserved: int
    reason: str


# --- payments and shipments ---------------------------------------------------------------------------


class PaymentCaptured(Fact, topic="payments"):
    """The order is paid."""

    order_id: str
    amount: int


class PaymentDeclined(Fact, topic="payments"):
    """The card company said no."""

    order_id: str
    amount: int


class PaymentVoided(Fact, topic="payments"):
    """No charge will ever be made for the order."""

    order_id: str
    amount: int


class PaymentRefunded(Fact, topic="payments"):
    """What was captured went back."""

    order_id: str
    amount: int


class ShipmentDispatched(Fact, topic="shipments"):
    """The parcel has left."""

    order_id: str


class ShipmentRefused(Fact, topic="shipments"):
    """There will be no parcel."""

    order_id: str


# --- tables: whole values, one fact per change of a key -----------------------------------------------


class CustomerRegistered(Fact, topic="customers"):
    """Who buys."""

    customer_id: str
    name: str | None
    country: str | None


class CustomerChanged(Fact, topic="customers"):
    """The same customer, with other values."""

    customer_id: str
    name: str | None
    country: str | None


class PriceListed(Fact, topic="prices"):
    """What a SKU costs in the list."""

    sku: str
    list_price: int | None


class PriceChanged(Fact, topic="price-updates"):
    """What the pricing service wants it to cost."""

    sku: str
    list_price: int | None


# --- what callers may ask of the gateway --------------------------------------------------------------


class Told(Answer):
    """What callers hear; ``repeated``: it is the outcome of an earlier request of this name and content."""

    order_id: str
    outcome: str
    reason: str | None = None
    repeated: bool = False


#: What an order or a return asks for under its id. The amount follows from the lines; the caller's own time of it is
#: when it was asked, not what; the country is the customer's.
CONTENT = ("customer_id", "lines")


class PlaceOrder(Command[Told], service="gateway", key="order_id", story="order_id", content=CONTENT, public=True):
    """A caller orders."""

    order_id: str
    customer_id: str | None
    ordered_at: Timestamp | None
    lines: list[Line] | None


class CancelOrder(Command[Told], service="gateway", key="order_id", story="order_id", public=True):
    """A caller no longer wants it."""

    order_id: str


class RequestReturn(Command[Told], service="gateway", key="order_id", story="order_id", content=CONTENT, public=True):
    """A customer sends something back."""

    order_id: str
    customer_id: str | None
    ordered_at: Timestamp | None
    lines: list[Line] | None


# --- what the request-driven wiring commands; the lines say which partitions have a part in it ---------


class Settled(Answer):
    """What became of the order at the service that was asked."""

    order_id: str | None
    outcome: str | None
    reason: str | None = None


class LinesAnswered(Answer):
    """The lines that a partition answers for, and those of them that are not covered."""

    order_id: str
    outcome: str
    line_numbers: list[Int32]
    short: list[Int32]


class TakeOrder(Command[Told], service="orders", key="order_id", story="order_id", content=CONTENT):
    """The gateway hands an order on."""

    order_id: str
    customer_id: str | None
    ordered_at: Timestamp | None
    lines: list[Line] | None


class StopOrder(Command[Told], service="orders", key="order_id", story="order_id"):
    """The gateway hands a cancellation on."""

    order_id: str


class ReserveStock(Command[LinesAnswered], service="inventory", story="order_id"):
    """Hold the lines."""

    order_id: str
    lines: list[Line]


class ReleaseStock(Command[LinesAnswered], service="inventory", story="order_id"):
    """Let them go."""

    order_id: str
    lines: list[Line]


class ShipStock(Command[LinesAnswered], service="inventory", story="order_id"):
    """They leave the house."""

    order_id: str
    lines: list[Line]


class CheckRestock(Command[Settled], service="inventory", story="order_id"):
    """Look whether to buy more."""

    order_id: str
    lines: list[Line]


class CapturePayment(Command[Settled], service="payments", key="order_id", story="order_id"):
    """Take the money."""

    order_id: str
    amount: int


class VoidPayment(Command[Settled], service="payments", key="order_id", story="order_id"):
    """Give it back, or never take it."""

    order_id: str


class ShipOrder(Command[Settled], service="shipping", key="order_id", story="order_id"):
    """Send the parcel."""

    order_id: str


class CancelShipment(Command[Settled], service="shipping", key="order_id", story="order_id"):
    """Never send it."""

    order_id: str


# --- what a run seeds its tables with -----------------------------------------------------------------


class CustomerPublished(Answer):
    """The customer is known."""

    customer_id: str
    outcome: str
    reason: str | None = None


class PricePublished(Answer):
    """The price is known."""

    sku: str
    outcome: str
    reason: str | None = None


class RegisterCustomer(Command[CustomerPublished], service="customers", key="customer_id", public=True):
    """This is a customer."""

    customer_id: str
    name: str | None
    country: str | None


class ListPrice(Command[PricePublished], service="catalog", key="sku", public=True):
    """This is what it costs."""

    sku: str
    list_price: int | None


class Restock(Command[Settled], service="inventory", key="sku", public=True):
    """A delivery."""

    sku: str
    quantity: int


# --- remote joins: the version is the offset of the fact that the values come from, or -1 ----------------


class CustomerFound(Answer):
    """Where the customer lives."""

    version: int
    country: str | None


class PriceFound(Answer):
    """The list price."""

    version: int
    list_price: int | None


class StockFound(Answer):
    """What there is."""

    version: int
    on_hand: int | None
    reserved: int | None


class CustomerById(Query[CustomerFound], service="customers", key="customer_id", public=True):
    """Where does the customer live?"""

    customer_id: str


class PriceBySku(Query[PriceFound], service="catalog", key="sku", public=True):
    """What does it cost in the list?"""

    sku: str


class StockBySku(Query[StockFound], service="inventory", key="sku", public=True):
    """What is on hand, and reserved?"""

    sku: str


DECLARED = Declared(sys.modules[__name__])

"""The shop's facts, commands and queries, with their columns.

Money is whole minor units (int64), time is microseconds UTC. A line is (order_id, line_number); its
price is the one quoted on it. Line numbers count from 0 in the order the caller gave the lines.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from eventmesh.messages import TIMESTAMP, MessageType, topic_schema

LINES = pa.list_(pa.struct([("sku", pa.string()), ("quantity", pa.int32()), ("unit_price", pa.int64())]))
#: What orders joined to each line, in line order: the catalog's price and the free stock, each with
#: the offset of the fact that the value comes from (-1: no such fact was known).
JOINED_LINES = pa.list_(
    pa.struct(
        [
            ("list_price", pa.int64()),
            ("price_version", pa.int64()),
            ("available", pa.int64()),
            ("stock_version", pa.int64()),
        ]
    )
)

ORDER_ID = pa.field("order_id", pa.string())
CUSTOMER_ID = pa.field("customer_id", pa.string())
SKU = pa.field("sku", pa.string())
QUANTITY = pa.field("quantity", pa.int64())
AMOUNT = pa.field("amount", pa.int64())

#: The types of fact on each topic.
FACTS: dict[str, tuple[str, ...]] = {
    "order-requests": ("OrderRequested", "CancellationRequested", "ReturnRequested"),
    "orders": (
        "OrderValidated", "OrderReserved", "OrderConfirmed", "OrderRejected", "OrderCancelling", "OrderCancelled",
        "OrderShipped", "OrderReturned",
    ),
    "stock": ("StockReserved", "StockShort", "StockReleased", "StockShipped", "StockReturned", "StockRestocked"),
    "payments": ("PaymentCaptured", "PaymentDeclined", "PaymentVoided", "PaymentRefunded"),
    "shipments": ("ShipmentDispatched", "ShipmentRefused"),
    "customers": ("CustomerRegistered", "CustomerChanged"),
    "prices": ("PriceListed",),
    "price-updates": ("PriceChanged",),
}  # fmt: skip
PAYLOADS: dict[str, list[pa.Field]] = {
    "order-requests": [
        ORDER_ID,
        CUSTOMER_ID,
        pa.field("ordered_at", TIMESTAMP),  # the caller's own time of the order
        pa.field("lines", LINES),
        AMOUNT,
    ],
    "orders": [
        ORDER_ID,
        CUSTOMER_ID,
        pa.field("lines", LINES),
        AMOUNT,
        pa.field("customer_country", pa.string()),
        pa.field("customer_version", pa.int64()),
        pa.field("joined_lines", JOINED_LINES),
    ],
    "stock": [
        SKU,
        ORDER_ID,
        pa.field("line_number", pa.int32()),
        QUANTITY,
        pa.field("on_hand", pa.int64()),  # after this fact, shipped units excluded
        pa.field("reserved", pa.int64()),  # after this fact; available = on_hand - reserved
    ],
    "payments": [ORDER_ID, AMOUNT],
    "shipments": [ORDER_ID],
    "customers": [CUSTOMER_ID, pa.field("name", pa.string()), pa.field("country", pa.string())],
    "prices": [SKU, pa.field("list_price", pa.int64())],
    "price-updates": [SKU, pa.field("list_price", pa.int64())],
}
SCHEMAS: dict[str, pa.Schema] = {name: topic_schema(payload) for name, payload in PAYLOADS.items()}


def amount(lines: Iterable[tuple[str, int, int]]) -> int:
    """What an order's lines (sku, quantity, unit price) come to, minor units."""
    return sum([quantity * price for _, quantity, price in lines])


OUTCOME = [ORDER_ID, pa.field("outcome", pa.string()), pa.field("reason", pa.string())]
#: What callers hear; ``repeated``: the outcome is that of an earlier request of this name and content.
TOLD = [*OUTCOME, pa.field("repeated", pa.bool_())]
#: What an order or a return asks for under its id. The amount follows from the lines; the caller's own time of it is
#: when it was asked, not what; the country is the customer's.
CONTENT = ("customer_id", "lines")
ORDER = [ORDER_ID, CUSTOMER_ID, pa.field("ordered_at", TIMESTAMP), pa.field("lines", LINES)]
ORDER_LINES = [ORDER_ID, pa.field("lines", LINES)]
LINE_ANSWERS = [
    *OUTCOME[:2],
    pa.field("line_numbers", pa.list_(pa.int32())),  # the lines this partition answers for
    pa.field("short", pa.list_(pa.int32())),  # those of them that are not covered
]
JOINED = pa.field("version", pa.int64())

Fields = list[pa.Field]


def _command(name: str, service: str, key: str | None, question: Fields, answer: Fields = OUTCOME) -> MessageType:
    story = "order_id" if ORDER_ID in question else None
    content = CONTENT if question is ORDER else ()
    return MessageType(name, "command", service, pa.schema(question), pa.schema(answer), key, story, content)


def _query(name: str, service: str, key: pa.Field, answer: Fields) -> MessageType:
    return MessageType(name, "query", service, pa.schema([key]), pa.schema([JOINED, *answer]), key.name)


MESSAGES: dict[str, MessageType] = {
    message.name: message
    for message in [
        # What callers may ask of the gateway.
        _command("PlaceOrder", "gateway", "order_id", ORDER, TOLD),
        _command("CancelOrder", "gateway", "order_id", [ORDER_ID], TOLD),
        _command("RequestReturn", "gateway", "order_id", ORDER, TOLD),
        # What the request-driven wiring commands; the lines say which partitions have a part in it.
        _command("TakeOrder", "orders", "order_id", ORDER, TOLD),
        _command("StopOrder", "orders", "order_id", [ORDER_ID], TOLD),
        _command("ReserveStock", "inventory", None, ORDER_LINES, LINE_ANSWERS),
        _command("ReleaseStock", "inventory", None, ORDER_LINES, LINE_ANSWERS),
        _command("ShipStock", "inventory", None, ORDER_LINES, LINE_ANSWERS),
        _command("CheckRestock", "inventory", None, ORDER_LINES),
        _command("CapturePayment", "payments", "order_id", [ORDER_ID, AMOUNT]),
        _command("VoidPayment", "payments", "order_id", [ORDER_ID]),
        _command("ShipOrder", "shipping", "order_id", [ORDER_ID]),
        _command("CancelShipment", "shipping", "order_id", [ORDER_ID]),
        # What a run seeds its tables with.
        _command("RegisterCustomer", "customers", "customer_id", PAYLOADS["customers"], [CUSTOMER_ID, *OUTCOME[1:]]),
        _command("ListPrice", "catalog", "sku", PAYLOADS["prices"], [SKU, *OUTCOME[1:]]),
        _command("Restock", "inventory", "sku", [SKU, QUANTITY]),
        # Remote joins.
        _query("CustomerById", "customers", CUSTOMER_ID, [pa.field("country", pa.string())]),
        _query("PriceBySku", "catalog", SKU, [pa.field("list_price", pa.int64())]),
        _query("StockBySku", "inventory", SKU, [pa.field("on_hand", pa.int64()), pa.field("reserved", pa.int64())]),
    ]
}

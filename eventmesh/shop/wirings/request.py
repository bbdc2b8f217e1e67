"""``request``: orders commands the others, step by step, and waits for each answer.

Every answer becomes a fact before the next step, and the fold says which step is next: after a restart
the same commands go out again under the same ids, and find what they did the first time. A command that
got no answer may have happened: the order is then *cancelling* until all that was asked for is undone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from eventmesh.errors import AskTimeout
from eventmesh.messages import fingerprint
from eventmesh.service import UNTIL_ANSWERED, Row, Talk, Trigger
from eventmesh.shop.facts import CONTENT, amount
from eventmesh.shop.gateway import Gateway, recorded_as
from eventmesh.shop.inventory import Inventory
from eventmesh.shop.options import OrdersOptions
from eventmesh.shop.orders import TRANSITIONS, Order, Orders, cancelled, gathered, payment_answered
from eventmesh.shop.payments import Payments
from eventmesh.shop.shipping import Shipping
from eventmesh.shop.wirings.asking import queries, validate_by_asking
from eventmesh.shop.wirings.event_driven import TABLES

QUERY_ATTEMPTS = 4
#: What a step may have sent before, the undoing sends for itself.
UNDOING = "undoing"


async def forward_order(gateway: Gateway, row: Mapping[str, Any], talk: Talk) -> Row:
    """The caller's reply is the outcome."""
    question = {name: row[name] for name in ("order_id", "customer_id", "ordered_at", "lines")}
    return await talk.command("TakeOrder", question, attempts=UNTIL_ANSWERED)


async def forward_cancellation(gateway: Gateway, row: Mapping[str, Any], talk: Talk) -> Row:
    """The caller hears what became of the order. Who asked first is written down, so that a repeat is known as one."""
    order_id, kind = row["order_id"], "CancellationRequested"
    earlier = talk.state.recorded.get(recorded_as(kind, order_id))
    if earlier is None:
        await talk.record(kind, order_id=order_id)
    answer = await talk.command("StopOrder", {"order_id": order_id}, attempts=UNTIL_ANSWERED)
    return {**answer, "repeated": earlier is not None and earlier.command != talk.cause}


async def take_order(orders: Orders, row: Mapping[str, Any], talk: Talk) -> Row:
    """Validate a new order and see it through; a repeat of a known one hears what became of it.

    Another order under its id is refused. A rejection here keeps what was asked, which no other fact has.
    """
    order_id, earlier, repeated = row["order_id"], talk.state.asked.get(row["order_id"]), False
    if earlier is not None:
        content = fingerprint(*(row[name] for name in CONTENT))
        repeated = earlier.repeated_by(talk.cause, content, f"order {order_id}")
    if talk.state.status(order_id) is None:
        try:
            kind, payload = await validate_by_asking(orders, row, talk, attempts=QUERY_ATTEMPTS)
        except AskTimeout as timeout:
            kind, payload = "OrderRejected", {"order_id": order_id, "reason": f"unavailable: {timeout}"}
        lines = row["lines"]
        asked = {"customer_id": row["customer_id"], "lines": lines, "amount": amount(lines)}
        await follow(talk, kind, {**asked, **payload})
    return {**await carry_on(orders, {"key": order_id}, talk), "repeated": repeated}


async def carry_on(orders: Orders, row: Mapping[str, Any], talk: Talk) -> Row:
    """Take the next step until the order has ended; the caller is told as soon as it is confirmed."""
    order_id = row["key"]
    while (order := talk.state.open.get(order_id)) is not None:
        await STEPS[order.status](orders, order_id, order, talk)
    return outcome(talk, order_id)


def outcome(talk: Talk, order_id: str) -> Row:
    """What callers are told: a shipped order was confirmed."""
    status = talk.state.status(order_id)
    told = "confirmed" if status == "shipped" else status
    return {"order_id": order_id, "outcome": told, "reason": None, "repeated": False}


async def follow(talk: Talk, kind: str, payload: Row) -> None:
    """Record ``kind`` if the order, as it is now, may take that step; it may have moved on meanwhile."""
    if (talk.state.status(payload["order_id"]) or "requested") in TRANSITIONS[kind]:
        await talk.record(kind, **payload)


def inventory_partitions(orders: Orders, order: Order) -> list[int]:
    """The inventory partitions that have a line of the order."""
    return sorted({orders.place.partition_of("stock", sku) for sku, _, _ in order.lines})


async def command_inventory(
    orders: Orders,
    name: str,
    order_id: str,
    order: Order,
    talk: Talk,
    *,
    attempts: int = UNTIL_ANSWERED,
    part: str = "",
) -> list[Row]:
    """Send one command to every inventory partition concerned, all at once."""
    row = {"order_id": order_id, "lines": order.lines}
    partitions = inventory_partitions(orders, order)
    sent = [talk.command(name, row, partition=partition, attempts=attempts, part=part) for partition in partitions]
    return [await answer for answer in sent]


async def reserve(orders: Orders, order_id: str, order: Order, talk: Talk) -> None:
    """validated: reserve every line; if one is short, give the others back before saying so."""
    if orders.place.options.commands_restock:
        await command_inventory(orders, "CheckRestock", order_id, order, talk)
    try:
        answers = await command_inventory(orders, "ReserveStock", order_id, order, talk, attempts=QUERY_ATTEMPTS)
    except AskTimeout as timeout:
        await follow(talk, "OrderCancelling", {"order_id": order_id, "reason": str(timeout)})
        return
    if order.status != "validated":
        return
    short = sorted(number for answer in answers for number in answer["short"])
    if short or any(answer["outcome"] != "reserved" for answer in answers):
        await command_inventory(orders, "ReleaseStock", order_id, order, talk)
        short = short or list(range(len(order.lines)))
    kind, payload = gathered(order_id, order, short)
    await follow(talk, kind, payload)


async def capture(orders: Orders, order_id: str, order: Order, talk: Talk) -> None:
    """reserved: take the money, then confirm; if it is declined, give the stock back first."""
    try:
        answer = await talk.command("CapturePayment", {"order_id": order_id, "amount": order.amount})
    except AskTimeout as timeout:
        await follow(talk, "OrderCancelling", {"order_id": order_id, "reason": str(timeout)})
        return
    if order.status != "reserved":
        return
    if answer["outcome"] != "captured":
        await command_inventory(orders, "ReleaseStock", order_id, order, talk)
    kind, payload = payment_answered(
        order_id, "PaymentCaptured" if answer["outcome"] == "captured" else "PaymentDeclined"
    )
    await follow(talk, kind, payload)
    if order.status == "confirmed":
        talk.reply(**outcome(talk, order_id))


async def ship(orders: Orders, order_id: str, order: Order, talk: Talk) -> None:
    """confirmed: have it dispatched, and the stock taken out."""
    answer = await talk.command("ShipOrder", {"order_id": order_id}, attempts=UNTIL_ANSWERED)
    if answer["outcome"] == "dispatched":
        await shipped(orders, order_id, order, talk)


async def undo(orders: Orders, order_id: str, order: Order, talk: Talk) -> None:
    """cancelling: unless it has left the house, undo everything that was asked for; only then is it cancelled."""
    shipment = await talk.command("CancelShipment", {"order_id": order_id}, attempts=UNTIL_ANSWERED)
    if shipment["outcome"] == "dispatched":
        await shipped(orders, order_id, order, talk, part=UNDOING)
        return
    await command_inventory(orders, "ReleaseStock", order_id, order, talk, part=UNDOING)
    await talk.command("VoidPayment", {"order_id": order_id}, attempts=UNTIL_ANSWERED)
    kind, payload = cancelled(order_id)
    await follow(talk, kind, payload)


async def shipped(orders: Orders, order_id: str, order: Order, talk: Talk, part: str = "") -> None:
    """The parcel has left: take the stock out, and say so."""
    await command_inventory(orders, "ShipStock", order_id, order, talk, part=part)
    await follow(talk, "OrderShipped", {"order_id": order_id})


async def stop_order(orders: Orders, row: Mapping[str, Any], talk: Talk) -> Row:
    """Cancel what can still be cancelled, and answer when that is settled."""
    order_id = row["order_id"]
    status = talk.state.status(order_id)
    kind, payload = cancelled(order_id)
    if status is None:
        await talk.record(kind, **payload)
    elif status in ("validated", "reserved", "confirmed"):
        await follow(talk, "OrderCancelling", payload)
    await talk.join("TakeOrder", order_id)
    return outcome(talk, order_id)


#: What the steps of an order command.
COMMANDS = (
    "ReserveStock", "ReleaseStock", "ShipStock", "CapturePayment", "VoidPayment", "ShipOrder", "CancelShipment",
)  # fmt: skip


def sent_by_orders(options: OrdersOptions) -> Iterable[str]:
    """Questions first, then commands, one of them by option."""
    return [*queries(options), *COMMANDS, *(["CheckRestock"] if options.commands_restock else [])]


STEPS = {"validated": reserve, "reserved": capture, "confirmed": ship, "cancelling": undo}
TRIGGERS: dict[str, Trigger] = {
    "gateway": Trigger(
        {
            "PlaceOrder": forward_order,
            "CancelOrder": forward_cancellation,
            "RequestReturn": Gateway.request_return,
        },
        sends=["TakeOrder", "StopOrder"],
    ),
    "orders": Trigger(
        {"TakeOrder": take_order, "StopOrder": stop_order}, resume={"TakeOrder": carry_on}, sends=sent_by_orders
    ),
    "inventory": Trigger(
        {
            "ReserveStock": Inventory.reserve,
            "ReleaseStock": Inventory.release,
            "ShipStock": Inventory.ship,
            "CheckRestock": Inventory.check_restock,
            "Restock": Inventory.restock,
        }
    ),
    "payments": Trigger({"CapturePayment": Payments.capture, "VoidPayment": Payments.void}),
    "shipping": Trigger({"ShipOrder": Shipping.dispatch, "CancelShipment": Shipping.refuse}),
    **TABLES,
}

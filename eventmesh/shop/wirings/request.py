"""``request``: orders commands the others, step by step, and waits for each answer.

Every answer becomes a fact before the next step, and the fold says which step is next: after a restart
the same commands go out again under the same ids, and find what they did the first time. A command that
got no answer may have happened: the order is then *cancelling* until all that was asked for is undone. Where an ask
policy let nothing out, and nothing was done before, the order is rejected at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from msgspec.structs import replace

from eventmesh.declared import A, Command, Named
from eventmesh.errors import NOT_SENT, AskTimeout, DidNotHappen
from eventmesh.messages import fingerprint
from eventmesh.service import UNTIL_ANSWERED, Talk, Trigger
from eventmesh.shop.facts import (
    CONTENT,
    CancellationRequested,
    CancelOrder,
    CancelShipment,
    CapturePayment,
    CheckRestock,
    Line,
    OrderCancelling,
    OrderRejected,
    OrderReserved,
    OrderShipped,
    PlaceOrder,
    ReleaseStock,
    RequestReturn,
    ReservationExpired,
    ReserveStock,
    Restock,
    ShipOrder,
    ShipStock,
    StopOrder,
    TakeOrder,
    Told,
    VoidPayment,
    amount,
)
from eventmesh.shop.gateway import Gateway, recorded_as
from eventmesh.shop.inventory import Inventory
from eventmesh.shop.options import OrdersOptions
from eventmesh.shop.orders import ASKED_FOR, Order, Orders, Step, cancelled, gathered, may_follow, payment_answered
from eventmesh.shop.payments import Payments
from eventmesh.shop.shipping import Shipping
from eventmesh.shop.wirings.asking import queries, validate_by_asking
from eventmesh.shop.wirings.event_driven import TABLES

QUERY_ATTEMPTS = 4
#: What a step may have sent before, the undoing sends for itself.
UNDOING = "undoing"


async def forward_order(gateway: Gateway, order: PlaceOrder, talk: Talk) -> Told:
    """The caller's reply is the outcome."""
    command = TakeOrder(order.order_id, order.customer_id, order.ordered_at, order.lines)
    return await talk.command(command, attempts=UNTIL_ANSWERED)


async def forward_cancellation(gateway: Gateway, order: CancelOrder, talk: Talk) -> Told:
    """The caller hears what became of the order. Who asked first is written down, so that a repeat is known as one."""
    order_id = order.order_id
    earlier = talk.state.recorded.get(recorded_as(CancellationRequested.__name__, order_id))
    if earlier is None:
        await talk.record(CancellationRequested(order_id))
    answer = await talk.command(StopOrder(order_id), attempts=UNTIL_ANSWERED)
    return replace(answer, repeated=earlier is not None and earlier.command != talk.cause)


async def take_order(orders: Orders, order: TakeOrder, talk: Talk) -> Told:
    """Validate a new order and see it through; a repeat of a known one hears what became of it.

    Another order under its id is refused. A rejection here keeps what was asked, which no other fact has.
    """
    order_id, earlier, repeated = order.order_id, talk.state.asked.get(order.order_id), False
    if earlier is not None:
        content = fingerprint(*(getattr(order, name) for name in CONTENT))
        repeated = earlier.repeated_by(talk.cause, content, f"order {order_id}")
    if talk.state.status(order_id) is None:
        try:
            step = await validate_by_asking(orders, order, talk, attempts=QUERY_ATTEMPTS)
        except (AskTimeout, *NOT_SENT) as unanswered:
            step = unavailable(order_id, unanswered)
        lines = order.lines or []
        await follow(talk, replace(step, customer_id=order.customer_id, lines=lines, amount=amount(lines)))
    return replace(await carry_on(orders, order_id, talk), repeated=repeated)


async def carry_on(orders: Orders, order_id: str, talk: Talk) -> Told:
    """Take the next step until the order has ended; the caller is told as soon as it is confirmed."""
    while (order := talk.state.open.get(order_id)) is not None:
        await STEPS[order.status](orders, order_id, order, talk)
    return outcome(talk, order_id)


def outcome(talk: Talk, order_id: str) -> Told:
    """What callers are told: a shipped order was confirmed."""
    status = talk.state.status(order_id)
    return Told(order_id, "confirmed" if status == "shipped" else status)


async def follow(talk: Talk, step: Step) -> None:
    """Record ``step`` if the order, as it is now, may take it; it may have moved on meanwhile."""
    if may_follow(step, talk.state.status(step.order_id) or "requested"):
        await talk.record(step)


def unavailable(order_id: str, why: Exception) -> OrderRejected:
    """Rejected since nobody said what was asked; nothing was done for the order."""
    return OrderRejected(order_id, f"unavailable: {why}")


def inventory_partitions(orders: Orders, order: Order) -> list[int]:
    """The inventory partitions that have a line of the order."""
    return sorted({orders.place.partition_of("stock", sku) for sku, _, _ in order.lines})


async def command_inventory(
    orders: Orders,
    kind: Callable[[str, list[Line]], Command[A]],
    order_id: str,
    order: Order,
    talk: Talk,
    *,
    attempts: int = UNTIL_ANSWERED,
    part: str = "",
) -> list[A]:
    """Send one command to every inventory partition concerned, all at once."""
    command, partitions = kind(order_id, order.lines), inventory_partitions(orders, order)
    return await every(
        [talk.command(command, partition=partition, attempts=attempts, part=part) for partition in partitions]
    )


async def every(asked: Sequence[Awaitable[A]]) -> list[A]:
    """All the answers.

    Where some were not sent, the others may have happened: only where none was sent, none happened.
    """
    answers, noes = list[A](), list[DidNotHappen]()
    for each in asked:
        try:
            answers.append(await each)
        except NOT_SENT as no:
            noes.append(no)
    if noes and answers:
        raise AskTimeout(f"not all were asked: {noes[0]}")
    if noes:
        raise noes[0]
    return answers


async def reserve(orders: Orders, order_id: str, order: Order, talk: Talk) -> None:
    """validated: reserve every line; if one is short, give the others back before saying so."""
    if orders.place.options.commands_restock:
        await command_inventory(orders, CheckRestock, order_id, order, talk)
    try:
        answers = await command_inventory(orders, ReserveStock, order_id, order, talk, attempts=QUERY_ATTEMPTS)
    except AskTimeout as timeout:
        await follow(talk, OrderCancelling(order_id, str(timeout)))
        return
    except NOT_SENT as no:
        await follow(talk, unavailable(order_id, no))
        return
    if order.status != "validated":
        return
    short = sorted(number for answer in answers for number in answer.short)
    if short or any(answer.outcome != "reserved" for answer in answers):
        await command_inventory(orders, ReleaseStock, order_id, order, talk)
        short = short or list(range(len(order.lines)))
    step = gathered(order_id, order, short)
    if isinstance(step, OrderReserved) and orders.expires_s is not None:
        talk.after(orders.expires_s, ReservationExpired(order_id), name=order_id)
    await follow(talk, step)


async def capture(orders: Orders, order_id: str, order: Order, talk: Talk) -> None:
    """reserved: take the money, then confirm; if it is declined, give the stock back first.

    Where it was not even asked for, there is still stock to give back: that is written down before it is done, so that
    nobody asks for the money after all when half of it is undone.
    """
    try:
        answer = await talk.command(CapturePayment(order_id, order.amount))
    except (AskTimeout, *NOT_SENT) as unanswered:
        await follow(talk, OrderCancelling(order_id, str(unanswered)))
        return
    talk.cancel(ReservationExpired, order_id)
    if order.status != "reserved":
        return
    if answer.outcome != "captured":
        await command_inventory(orders, ReleaseStock, order_id, order, talk)
    await follow(talk, payment_answered(order_id, captured=answer.outcome == "captured"))
    if order.status == "confirmed":
        talk.reply(outcome(talk, order_id))


async def ship(orders: Orders, order_id: str, order: Order, talk: Talk) -> None:
    """confirmed: have it dispatched, and the stock taken out."""
    answer = await talk.command(ShipOrder(order_id), attempts=UNTIL_ANSWERED)
    if answer.outcome == "dispatched":
        await shipped(orders, order_id, order, talk)


async def undo(orders: Orders, order_id: str, order: Order, talk: Talk) -> None:
    """cancelling: unless it has left the house, undo everything that was asked for; only then is it cancelled."""
    shipment = await talk.command(CancelShipment(order_id), attempts=UNTIL_ANSWERED)
    if shipment.outcome == "dispatched":
        await shipped(orders, order_id, order, talk, part=UNDOING)
        return
    await command_inventory(orders, ReleaseStock, order_id, order, talk, part=UNDOING)
    await talk.command(VoidPayment(order_id), attempts=UNTIL_ANSWERED)
    await follow(talk, cancelled(order_id))


async def shipped(orders: Orders, order_id: str, order: Order, talk: Talk, part: str = "") -> None:
    """The parcel has left: take the stock out, and say so."""
    await command_inventory(orders, ShipStock, order_id, order, talk, part=part)
    await follow(talk, OrderShipped(order_id))


async def stop_order(orders: Orders, stopped: StopOrder, talk: Talk) -> Told:
    """Cancel what can still be cancelled, and answer when that is settled."""
    order_id = stopped.order_id
    status = talk.state.status(order_id)
    if status is None:
        await talk.record(cancelled(order_id))
    elif status in ("validated", "reserved", "confirmed"):
        await follow(talk, OrderCancelling(order_id, ASKED_FOR))
    await talk.join(TakeOrder, order_id)
    return outcome(talk, order_id)


#: What the steps of an order command.
COMMANDS = (ReserveStock, ReleaseStock, ShipStock, CapturePayment, VoidPayment, ShipOrder, CancelShipment)


#: Those of which an order can do without an answer: it is undone then.
TRIED = (ReserveStock, CapturePayment)


def sent_by_orders(options: OrdersOptions) -> Iterable[Named]:
    """Questions first, then commands, one of them by option."""
    return [*queries(options), *_commands(options)]


def _commands(options: OrdersOptions) -> list[Named]:
    return [*COMMANDS, *([CheckRestock] if options.commands_restock else [])]


def until_answered(options: OrdersOptions) -> Iterable[Named]:
    """What must get through in the end: whatever undoes something, and what happens once there is no way back."""
    return [command for command in _commands(options) if command not in TRIED]


STEPS = {"validated": reserve, "reserved": capture, "confirmed": ship, "cancelling": undo}
TRIGGERS: dict[str, Trigger] = {
    "gateway": Trigger(
        {
            PlaceOrder: forward_order,
            CancelOrder: forward_cancellation,
            RequestReturn: Gateway.request_return,
        },
        sends=[TakeOrder, StopOrder],
        until_answered=[TakeOrder, StopOrder],
    ),
    "orders": Trigger(
        {TakeOrder: take_order, StopOrder: stop_order, ReservationExpired: Orders.expire_step_by_step},
        resume={TakeOrder: carry_on},
        sends=sent_by_orders,
        until_answered=until_answered,
    ),
    "inventory": Trigger(
        {
            ReserveStock: Inventory.reserve,
            ReleaseStock: Inventory.release,
            ShipStock: Inventory.ship,
            CheckRestock: Inventory.check_restock,
            Restock: Inventory.restock,
        }
    ),
    "payments": Trigger({CapturePayment: Payments.capture, VoidPayment: Payments.void}),
    "shipping": Trigger({ShipOrder: Shipping.dispatch, CancelShipment: Shipping.refuse}),
    **TABLES,
}

"""Orders: the order's state machine over several topics. It alone says what becomes of an order.

requested -> validated -> reserved -> confirmed -> shipped; rejected or cancelled from any state before
shipped. A confirmed order that is to be cancelled is *cancelling* until shipping has agreed; so is one
whose command to another service got no answer (rule 4).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from eventmesh.declared import Facts
from eventmesh.joins import Joined
from eventmesh.messages import fingerprint
from eventmesh.service import Inputs, Outcome, Service, at_places
from eventmesh.shop.facts import (
    CONTENT,
    CancellationRequested,
    JoinedLine,
    Line,
    OrderCancelled,
    OrderCancelling,
    OrderConfirmed,
    OrderRejected,
    OrderRequested,
    OrderReserved,
    OrderShipped,
    OrderValidated,
    PaymentCaptured,
    PaymentDeclined,
    ReservationExpired,
    ShipmentDispatched,
    ShipmentRefused,
    StockReserved,
    StockShort,
    amount,
)
from eventmesh.shop.memory import Asked, Finished, Requested
from eventmesh.shop.options import OrdersOptions

#: A step that an order takes.
Step = OrderValidated | OrderReserved | OrderConfirmed | OrderRejected | OrderCancelling | OrderCancelled | OrderShipped

#: From which states each fact may follow; the audit holds the log against the same table.
TRANSITIONS: dict[str, frozenset[str]] = {
    "OrderValidated": frozenset({"requested"}),
    "OrderReserved": frozenset({"validated"}),
    "OrderConfirmed": frozenset({"reserved"}),
    "OrderRejected": frozenset({"requested", "validated", "reserved"}),
    "OrderCancelling": frozenset({"validated", "reserved", "confirmed"}),
    "OrderCancelled": frozenset({"requested", "validated", "reserved", "cancelling"}),
    "OrderShipped": frozenset({"confirmed", "cancelling"}),
}
STATUS = {kind: kind.removeprefix("Order").lower() for kind in TRANSITIONS}
ENDED = frozenset({"rejected", "cancelled", "shipped"})
#: Why an order is cancelled.
ASKED_FOR, EXPIRED = "requested by the caller", "not paid in time"
#: In the id of what an order led to that came as a command.
TAKEN = ":TakeOrder:"


@dataclass(slots=True)
class Order:
    """An open order."""

    status: str
    lines: list[Line]
    amount: int


@dataclass
class Book:
    """Open orders, and what became of the ended ones for as long as it may be asked.

    ``asked`` is what each was asked for, where orders come as commands; else the gateway has compared it.
    """

    open: dict[str, Order]
    ended: Finished
    asked: Requested

    def status(self, order_id: str) -> str | None:
        """The order's status, None if it is not known."""
        order = self.open.get(order_id)
        return order.status if order is not None else self.ended.status(order_id)


class Orders(Service):
    """Decides each step of an order from what the other services said."""

    name = "orders"
    state_version = 2

    @property
    def batches_queries(self) -> bool:
        """By option: an order's own messages (pipelined), or those of all orders of a step together."""
        return bool(self.place.options.batched)

    @classmethod
    def hears_itself(cls, options: OrdersOptions) -> bool:
        """Only where a reservation may expire."""
        return options.reservation_s is not None

    def initial(self) -> Book:
        """No orders."""
        return Book({}, Finished(), Requested())

    def unfinished(self, state: Book) -> Iterable[str]:
        """Every open order."""
        return state.open

    def begun_by(self, state: Book, key: str) -> str | None:
        """The command that an open order came by."""
        asked = state.asked.get(key)
        return None if asked is None else asked.command

    # --- validation: enrich, and check the stock ------------------------------------------------

    def validate_from_views(self, state: Book, requests: Inputs[OrderRequested], out: Outcome) -> None:
        """Validate with what the local views know now: one look-up per view for all lines of the run."""
        rows = [row for order_id, row in requests.first("order_id").items() if state.status(order_id) is None]
        lines = at_places(requests["lines"], rows)
        skus = [sku for each in lines for sku, _, _ in each]
        joins, views = self.place.options.joins, self.views
        known = {name: views[name].lookup(skus) for name in ("prices", "stock") if name in joins}
        buyers = at_places(requests["customer_id"], rows)
        customers = views["customers"].lookup(buyers) if "customers" in joins else [None] * len(rows)
        answers, at = list[Step](), 0
        for order_id, buyer, own, customer in zip(
            at_places(requests["order_id"], rows), buyers, lines, customers, strict=True
        ):
            prices, stock = (known[name][at : at + len(own)] if name in known else None for name in ("prices", "stock"))
            answers.append(validation(order_id, buyer, own, customer, prices, stock))
            at += len(own)
        out.facts(rows, answers)

    # --- what the others said ---------------------------------------------------------------------

    def lines_answered(self, state: Book, lines: Inputs[StockReserved | StockShort], out: Outcome) -> None:
        """Inventory answered lines; decide on an order once all have, told by line number and not by count."""
        kind, rows, answers, decided = lines.kind, list[int](), list[Step](), set[str]()
        for row, order_id, number in lines.rows("order_id", "line_number"):
            order = state.open.get(order_id)
            if order is None or order.status != "validated" or order_id in decided:
                out.gathered(order_id)
                continue
            said = out.gather(row, order_id, number, kind)
            if len(said) == len(order.lines):
                out.gathered(order_id)
                decided.add(order_id)
                short = sorted(part for part, answer in said.items() if answer == "StockShort")
                rows.append(row)
                answers.append(gathered(order_id, order, short))
        out.facts(rows, answers)
        if self.expires_s is not None:
            for row, step in zip(rows, answers, strict=True):
                if isinstance(step, OrderReserved):
                    out.after(row, self.expires_s, ReservationExpired(step.order_id), name=step.order_id)

    @property
    def expires_s(self) -> float | None:
        """Seconds after which a reservation expires."""
        expires_s: float | None = self.place.options.reservation_s
        return expires_s

    def paid(self, state: Book, orders: Inputs[PaymentCaptured | PaymentDeclined], out: Outcome) -> None:
        """Payments answered; a reservation that it answers does not expire any more."""
        for order_id in orders["order_id"] if self.expires_s is not None else ():
            out.cancel(ReservationExpired, order_id)
        self._follow(
            state, orders, out, lambda order_id: payment_answered(order_id, captured=orders.cls is PaymentCaptured)
        )

    def dispatched(self, state: Book, orders: Inputs[ShipmentDispatched], out: Outcome) -> None:
        """Shipping dispatched the orders: also those that were to be cancelled, too late."""
        self._follow(state, orders, out, OrderShipped)

    def shipment_refused(self, state: Book, orders: Inputs[ShipmentRefused], out: Outcome) -> None:
        """Shipping agreed not to dispatch."""
        self._follow(state, orders, out, cancelled)

    def cancel(self, state: Book, orders: Inputs[CancellationRequested], out: Outcome) -> None:
        """The caller wants it cancelled. An order never seen is cancelled for good: its late request finds that."""
        for row, order_id in orders.rows("order_id"):
            status = state.status(order_id)
            if status is None or status in ("validated", "reserved"):
                out.fact(row, cancelled(order_id))
            elif status == "confirmed":
                out.fact(row, OrderCancelling(order_id, ASKED_FOR))

    def expire(self, state: Book, orders: Inputs[ReservationExpired], out: Outcome) -> None:
        """Nobody paid in time. A payment that comes all the same is given back, as for any cancelled order."""
        self._expire(state, orders, out, OrderCancelled)

    def expire_step_by_step(self, state: Book, orders: Inputs[ReservationExpired], out: Outcome) -> None:
        """The same where orders commands the others: what it has commanded is undone."""
        self._expire(state, orders, out, OrderCancelling)

    def _expire(
        self, state: Book, orders: Inputs[ReservationExpired], out: Outcome,
        step: type[OrderCancelled | OrderCancelling],
    ) -> None:  # fmt: skip
        for row, expired in orders.each():
            if state.status(expired.order_id) == "reserved":
                out.fact(row, step(expired.order_id, EXPIRED))

    def _follow(self, state: Book, orders: Inputs[Any], out: Outcome, step: Callable[[str], Step]) -> None:
        """Decide the next step where the order's state allows it; an answer that comes too late changes nothing."""
        rows, steps = list[int](), list[Step]()
        for order_id, row in orders.first("order_id").items():
            fact, order = step(order_id), state.open.get(order_id)
            if order is not None and may_follow(fact, order.status):
                rows.append(row)
                steps.append(fact)
        out.facts(rows, steps)

    # --- the fold ---------------------------------------------------------------------------------

    def evolve(self, state: Book, facts: Facts) -> None:
        """Move orders; every move is one the table of transitions has."""
        memory = self.place.options.memory_us
        for kind, order_id, lines, total, time in facts.rows("type", "order_id", "lines", "amount", "time"):
            if kind not in TRANSITIONS:
                continue  # a reservation that expired: what follows from it moves the order
            order = state.open.get(order_id)
            before = order.status if order is not None else state.ended.status(order_id) or "requested"
            assert before in TRANSITIONS[kind], f"{kind} after {before}: {order_id}"
            status = STATUS[kind]
            if status in ENDED:
                state.open.pop(order_id, None)
                state.ended.remember(order_id, status, time, memory)
            elif order is None:
                state.open[order_id] = Order(status, lines, total)
            else:
                order.status = status
        self._remember_asked(state, facts)

    def _remember_asked(self, state: Book, facts: Facts) -> None:
        """By the facts that answer the command itself, which have all of its content."""
        memory = self.place.options.memory_us
        for order_id, identity, time, *content in facts.rows("order_id", "id", "time", *CONTENT):
            if content[-1] and TAKEN in identity:
                state.asked.remember(order_id, Asked.of_fact(identity, fingerprint(*content), time), memory)


def may_follow(step: Step, status: str) -> bool:
    """Whether an order of this status may take the step."""
    return status in TRANSITIONS[type(step).__name__]


def validation(
    order_id: str,
    customer_id: str | None,
    lines: list[Line],
    customer: Joined | None,
    prices: Sequence[Joined] | None,
    stock: Sequence[Joined] | None,
) -> OrderValidated | OrderRejected:
    """An order is validated if every SKU is known to be available; the joined values go with the fact.

    ``customer`` is (version, country), ``prices`` (version, list_price) and ``stock`` (version, on_hand,
    reserved) per line; None where the mesh does not join them.
    """
    short = _short(lines, stock) if stock is not None else []
    if short:
        return OrderRejected(order_id, "out of stock: " + ", ".join(short))
    joined = [
        JoinedLine(price, price_version, None if on_hand is None else on_hand - reserved, stock_version)
        for (price_version, price), (stock_version, on_hand, reserved) in zip(
            prices or [(None, None)] * len(lines), stock or [(None, None, None)] * len(lines), strict=True
        )
    ]
    version, country = customer or (None, None)
    return OrderValidated(order_id, customer_id, lines, amount(lines), country, version, joined)


def _short(lines: Sequence[Line], stock: Sequence[Joined]) -> list[str]:
    if len(lines) == 1:
        (sku, quantity, _), (_, on_hand, reserved) = lines[0], stock[0]
        return [sku] if (on_hand or 0) - (reserved or 0) < quantity else []
    wanted: Counter[str] = Counter()
    for sku, quantity, _ in lines:
        wanted[sku] += quantity
    available = {
        sku: (on_hand or 0) - (reserved or 0) for (sku, _, _), (_, on_hand, reserved) in zip(lines, stock, strict=True)
    }
    return sorted(sku for sku, quantity in wanted.items() if available[sku] < quantity)


def gathered(order_id: str, order: Order, short: Sequence[int]) -> OrderReserved | OrderRejected:
    """All lines are answered: reserved if none is short."""
    if not short:
        return OrderReserved(order_id, order.amount)
    skus = ", ".join(sorted({order.lines[number][0] for number in short}))
    return OrderRejected(order_id, f"out of stock: {skus}")


def payment_answered(order_id: str, *, captured: bool) -> OrderConfirmed | OrderRejected:
    """Confirmed if captured, rejected if declined."""
    return OrderConfirmed(order_id) if captured else OrderRejected(order_id, "payment declined")


def cancelled(order_id: str) -> OrderCancelled:
    """Cancelled for good."""
    return OrderCancelled(order_id, ASKED_FOR)

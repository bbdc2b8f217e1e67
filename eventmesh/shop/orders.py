"""Orders: the order's state machine over several topics. It alone says what becomes of an order.

requested -> validated -> reserved -> confirmed -> shipped; rejected or cancelled from any state before
shipped. A confirmed order that is to be cancelled is *cancelling* until shipping has agreed; so is one
whose command to another service got no answer (rule 4).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from eventmesh.joins import Joined
from eventmesh.service import Outcome, Row, Service
from eventmesh.shop.memory import Finished

Line = tuple[str, int, int]  # sku, quantity, unit price in minor units
Answer = tuple[str, Row]  # the fact that follows, and its payload

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
ENDED = frozenset({"rejected", "cancelled", "shipped"})


@dataclass(slots=True)
class Order:
    """An open order."""

    status: str
    lines: list[Line]
    amount: int


@dataclass
class Book:
    """Open orders, and what became of the ended ones for as long as it may be asked."""

    open: dict[str, Order]
    ended: Finished

    def status(self, order_id: str) -> str | None:
        """The order's status, None if it is not known."""
        order = self.open.get(order_id)
        return order.status if order is not None else self.ended.status(order_id)


class Orders(Service):
    """Decides each step of an order from what the other services said."""

    name = "orders"
    reads = ("order_id", "customer_id", "lines", "line_number", "amount")
    fold = ("order_id", "lines", "amount")

    @property
    def batches_queries(self) -> bool:
        """By option: an order's own messages (pipelined), or those of all orders of a step together."""
        return bool(self.place.options.batched)

    def initial(self) -> Book:
        """No orders."""
        return Book({}, Finished(self.place.options.memory_s * 1_000_000))

    def unfinished(self, state: Book) -> Iterable[str]:
        """Every open order."""
        return state.open

    # --- validation: enrich, and check the stock ------------------------------------------------

    def validate_from_views(self, state: Book, row: Row, out: Outcome) -> None:
        """Validate with what the local views know now."""
        if state.status(row["order_id"]) is not None:
            return
        lines, views, joins = row["lines"], self.views, self.place.options.joins
        skus = [sku for sku, _, _ in lines]
        customer = views["customers"].lookup([row["customer_id"]])[0] if "customers" in joins else None
        prices = views["prices"].lookup(skus) if "prices" in joins else None
        stock = views["stock"].lookup(skus) if "stock" in joins else None
        kind, payload = validation(row, customer, prices, stock)
        out.fact(kind, **payload)

    # --- what the others said ---------------------------------------------------------------------

    def line_answered(self, state: Book, row: Row, out: Outcome) -> None:
        """Inventory answered a line; decide once every line has, told by line number and not by count."""
        order_id = row["order_id"]
        order = state.open.get(order_id)
        if order is None or order.status != "validated":
            out.gathered(order_id)
            return
        answers = out.gather(order_id, row["line_number"], row["type"])
        if len(answers) < len(order.lines):
            return
        out.gathered(order_id)
        short = sorted(number for number, kind in answers.items() if kind == "StockShort")
        kind, payload = gathered(order_id, order, short)
        out.fact(kind, **payload)

    def paid(self, state: Book, row: Row, out: Outcome) -> None:
        """Payments answered."""
        self._follow(state, row["order_id"], out, *payment_answered(row["order_id"], row["type"]))

    def dispatched(self, state: Book, row: Row, out: Outcome) -> None:
        """Shipping dispatched the order: also one that was to be cancelled, too late."""
        self._follow(state, row["order_id"], out, "OrderShipped", {"order_id": row["order_id"]})

    def shipment_refused(self, state: Book, row: Row, out: Outcome) -> None:
        """Shipping agreed not to dispatch."""
        self._follow(state, row["order_id"], out, *cancelled(row["order_id"]))

    def cancel(self, state: Book, row: Row, out: Outcome) -> Row:
        """The caller wants it cancelled. An order never seen is cancelled for good: its late request finds that."""
        order_id = row["order_id"]
        status = state.status(order_id)
        if status is None or status in ("validated", "reserved"):
            kind, payload = cancelled(order_id)
            out.fact(kind, **payload)
        elif status == "confirmed":
            out.fact("OrderCancelling", order_id=order_id, reason="requested by the caller")
        return {"order_id": order_id, "outcome": state.status(order_id), "reason": None}

    def _follow(self, state: Book, order_id: str, out: Outcome, kind: str, payload: Row) -> None:
        """Decide ``kind`` where the order's state allows it; an answer that comes too late changes nothing."""
        if (state.status(order_id) or "requested") in TRANSITIONS[kind] and order_id in state.open:
            out.fact(kind, **payload)

    # --- the fold ---------------------------------------------------------------------------------

    def evolve(self, state: Book, fact: Row) -> None:
        """Move one order; every move is one the table of transitions has."""
        order_id, kind = fact["order_id"], fact["type"]
        before = state.status(order_id) or "requested"
        assert before in TRANSITIONS[kind], f"{kind} after {before}: {order_id}"
        status = kind.removeprefix("Order").lower()
        if status in ENDED:
            state.open.pop(order_id, None)
            state.ended.remember(order_id, status, fact["time"])
        elif kind == "OrderValidated":
            state.open[order_id] = Order(status, fact["lines"], fact["amount"])
        else:
            state.open[order_id].status = status


def validation(
    request: Row, customer: Joined | None, prices: Sequence[Joined] | None, stock: Sequence[Joined] | None
) -> Answer:
    """An order is validated if every SKU is known to be available; the joined values go with the fact.

    ``customer`` is (version, country), ``prices`` (version, list_price) and ``stock`` (version, on_hand,
    reserved) per line; None where the mesh does not join them.
    """
    order_id, lines = request["order_id"], request["lines"]
    short = _short(lines, stock) if stock is not None else []
    if short:
        return "OrderRejected", {"order_id": order_id, "reason": "out of stock: " + ", ".join(short)}
    joined = [
        (price, price_version, None if on_hand is None else on_hand - reserved, stock_version)
        for (price_version, price), (stock_version, on_hand, reserved) in zip(
            prices or [(None, None)] * len(lines), stock or [(None, None, None)] * len(lines), strict=True
        )
    ]
    version, country = customer or (None, None)
    return "OrderValidated", {
        "order_id": order_id,
        "customer_id": request["customer_id"],
        "lines": lines,
        "amount": sum(quantity * price for _, quantity, price in lines),
        "customer_country": country,
        "customer_version": version,
        "joined_lines": joined,
    }


def _short(lines: Sequence[Line], stock: Sequence[Joined]) -> list[str]:
    wanted: Counter[str] = Counter()
    for sku, quantity, _ in lines:
        wanted[sku] += quantity
    available = {
        sku: (on_hand or 0) - (reserved or 0) for (sku, _, _), (_, on_hand, reserved) in zip(lines, stock, strict=True)
    }
    return sorted(sku for sku, quantity in wanted.items() if available[sku] < quantity)


def gathered(order_id: str, order: Order, short: Sequence[int]) -> Answer:
    """All lines are answered: reserved if none is short."""
    if not short:
        return "OrderReserved", {"order_id": order_id, "amount": order.amount}
    skus = ", ".join(sorted({order.lines[number][0] for number in short}))
    return "OrderRejected", {"order_id": order_id, "reason": f"out of stock: {skus}"}


def payment_answered(order_id: str, answer: str) -> Answer:
    """Confirmed if captured, rejected if declined."""
    if answer == "PaymentCaptured":
        return "OrderConfirmed", {"order_id": order_id}
    return "OrderRejected", {"order_id": order_id, "reason": "payment declined"}


def cancelled(order_id: str, reason: str = "requested by the caller") -> Answer:
    """Cancelled for good."""
    return "OrderCancelled", {"order_id": order_id, "reason": reason}

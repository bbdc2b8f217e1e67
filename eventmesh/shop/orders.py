"""Orders: the order's state machine over several topics. It alone says what becomes of an order.

requested -> validated -> reserved -> confirmed -> shipped; rejected or cancelled from any state before
shipped. A confirmed order that is to be cancelled is *cancelling* until shipping has agreed; so is one
whose command to another service got no answer (rule 4).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from eventmesh.joins import Joined
from eventmesh.messages import Columns, fingerprint
from eventmesh.service import Inputs, Outcome, Row, Service, at_places
from eventmesh.shop.facts import CONTENT, amount
from eventmesh.shop.memory import Asked, Finished, Requested

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
STATUS = {kind: kind.removeprefix("Order").lower() for kind in TRANSITIONS}
ENDED = frozenset({"rejected", "cancelled", "shipped"})
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

    def validate_from_views(self, state: Book, requests: Inputs, out: Outcome) -> None:
        """Validate with what the local views know now: one look-up per view for all lines of the run."""
        rows = [row for order_id, row in requests.first("order_id").items() if state.status(order_id) is None]
        lines = at_places(requests["lines"], rows)
        skus = [sku for each in lines for sku, _, _ in each]
        joins, views = self.place.options.joins, self.views
        known = {name: views[name].lookup(skus) for name in ("prices", "stock") if name in joins}
        buyers = at_places(requests["customer_id"], rows)
        customers = views["customers"].lookup(buyers) if "customers" in joins else [None] * len(rows)
        answers, at = [], 0
        for order_id, buyer, own, customer in zip(
            at_places(requests["order_id"], rows), buyers, lines, customers, strict=True
        ):
            prices, stock = (known[name][at : at + len(own)] if name in known else None for name in ("prices", "stock"))
            answers.append(validation(order_id, buyer, own, customer, prices, stock))
            at += len(own)
        decide(out, rows, answers)

    # --- what the others said ---------------------------------------------------------------------

    def lines_answered(self, state: Book, lines: Inputs, out: Outcome) -> None:
        """Inventory answered lines; decide on an order once all have, told by line number and not by count."""
        kind, rows, answers, decided = lines.kind, list[int](), list[Answer](), set[str]()
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
        decide(out, rows, answers)

    def paid(self, state: Book, orders: Inputs, out: Outcome) -> None:
        """Payments answered."""
        self._follow(state, orders, out, lambda order_id: payment_answered(order_id, orders.kind))

    def dispatched(self, state: Book, orders: Inputs, out: Outcome) -> None:
        """Shipping dispatched the orders: also those that were to be cancelled, too late."""
        self._follow(state, orders, out, lambda order_id: ("OrderShipped", {"order_id": order_id}))

    def shipment_refused(self, state: Book, orders: Inputs, out: Outcome) -> None:
        """Shipping agreed not to dispatch."""
        self._follow(state, orders, out, cancelled)

    def cancel(self, state: Book, orders: Inputs, out: Outcome) -> None:
        """The caller wants it cancelled. An order never seen is cancelled for good: its late request finds that."""
        for row, order_id in orders.rows("order_id"):
            status = state.status(order_id)
            if status is None or status in ("validated", "reserved"):
                kind, payload = cancelled(order_id)
                out.fact(row, kind, **payload)
            elif status == "confirmed":
                out.fact(row, "OrderCancelling", order_id=order_id, reason="requested by the caller")

    def _follow(self, state: Book, orders: Inputs, out: Outcome, answer: Callable[[str], Answer]) -> None:
        """Decide the next step where the order's state allows it; an answer that comes too late changes nothing."""
        rows, answers = list[int](), list[Answer]()
        for order_id, row in orders.first("order_id").items():
            kind, payload = answer(order_id)
            order = state.open.get(order_id)
            if order is not None and order.status in TRANSITIONS[kind]:
                rows.append(row)
                answers.append((kind, payload))
        decide(out, rows, answers)

    # --- the fold ---------------------------------------------------------------------------------

    def evolve(self, state: Book, facts: Columns) -> None:
        """Move orders; every move is one the table of transitions has."""
        memory = self.place.options.memory_us
        for kind, order_id, lines, total, time in facts.rows("type", "order_id", "lines", "amount", "time"):
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

    def _remember_asked(self, state: Book, facts: Columns) -> None:
        """By the facts that answer the command itself, which have all of its content."""
        memory = self.place.options.memory_us
        for order_id, identity, time, *content in facts.rows("order_id", "id", "time", *CONTENT):
            if content[-1] and TAKEN in identity:
                state.asked.remember(order_id, Asked.of_fact(identity, fingerprint(*content), time), memory)


def decide(out: Outcome, rows: list[int], answers: Sequence[Answer]) -> None:
    """Decide the facts that follow from ``rows``, each with its payload."""
    names = dict.fromkeys(name for _, payload in answers for name in payload)
    columns = {name: [payload.get(name) for _, payload in answers] for name in names}
    out.facts([kind for kind, _ in answers], rows, **columns)


def validation(
    order_id: str,
    customer_id: str | None,
    lines: list[Line],
    customer: Joined | None,
    prices: Sequence[Joined] | None,
    stock: Sequence[Joined] | None,
) -> Answer:
    """An order is validated if every SKU is known to be available; the joined values go with the fact.

    ``customer`` is (version, country), ``prices`` (version, list_price) and ``stock`` (version, on_hand,
    reserved) per line; None where the mesh does not join them.
    """
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
        "customer_id": customer_id,
        "lines": lines,
        "amount": amount(lines),
        "customer_country": country,
        "customer_version": version,
        "joined_lines": joined,
    }


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

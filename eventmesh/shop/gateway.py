"""The gateway: where callers come in. Each order id is taken once; what became of it is told to who asks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from eventmesh.declared import Facts
from eventmesh.errors import KeyReused, Throttled
from eventmesh.messages import fingerprint
from eventmesh.service import Inputs, Outcome, Service, at_places
from eventmesh.shop.facts import (
    CONTENT,
    CancellationRequested,
    CancelOrder,
    OrderCancelled,
    OrderConfirmed,
    OrderRejected,
    OrderRequested,
    PlaceOrder,
    RequestReturn,
    ReturnRequested,
    Told,
    amount,
)
from eventmesh.shop.memory import Asked, Requested
from eventmesh.views import ABSENT_VERSION

Written = OrderRequested | CancellationRequested | ReturnRequested
#: What each fact writes down, in the words of a refusal.
NAMES = {"OrderRequested": "order", "CancellationRequested": "cancellation of order", "ReturnRequested": "return"}


def outcome_of(kind: str) -> str:
    """``OrderConfirmed`` to ``confirmed``."""
    return kind.removeprefix("Order").lower()


#: Why an id is refused whose order ended so long ago that nobody can say whether the same is asked.
FORGOTTEN = (
    "has ended long ago, and what it asked for is no longer remembered. Nothing was done now; use an id of its own"
)


@dataclass
class Remembered:
    """What was asked for and is still known: order ids taken, and by :func:`recorded_as` cancellations and returns."""

    taken: Requested
    recorded: Requested


def recorded_as(kind: str, order_id: str) -> str:
    """The key under which a cancellation or a return is remembered."""
    return f"{kind}:{order_id}"


class Names:
    """The requests of one run by the names that their callers gave them. Of two in one run the first is the first.

    ``fresh`` are the names that nobody had asked under before, each with its row.
    """

    def __init__(self, kind: str, known: Requested, requests: Inputs[Any]) -> None:
        self.kind, self._known, self._requests = kind, known, requests
        self.order_ids = requests["order_id"]
        self.fresh: dict[str, int] = {}

    def earlier(self, row: int) -> Asked | None:
        """What was asked before under the name of this request."""
        order_id = self.order_ids[row]
        found = self._known.get(order_id if self.kind == "OrderRequested" else recorded_as(self.kind, order_id))
        if found is None and (first := self.fresh.get(order_id)) is not None:
            return Asked(self._content(first), self._requests.ids[first], 0)
        return found

    @property
    def forgotten(self) -> bool:
        """Whether somebody may have asked under a name that is not known."""
        return self._known.forgotten > 0

    def take(self, row: int) -> None:
        """This request is the first of its name."""
        self.fresh[self.order_ids[row]] = row

    def repeats(self, row: int, earlier: Asked, out: Outcome) -> bool | None:
        """Whether this request asks the same again by another command; None: it asks otherwise, and is refused."""
        name = f"{NAMES[self.kind]} {self.order_ids[row]}"
        try:
            return earlier.repeated_by(self._requests.ids[row], self._content(row), name)
        except KeyReused as reused:
            out.refuse(row, reused, on_record=True)
            return None

    def _content(self, row: int) -> str:
        return fingerprint(*self._contents[row])

    @cached_property
    def _contents(self) -> list[tuple[Any, ...]]:
        return list(zip(*(self._requests[name] for name in CONTENT), strict=True))


def _write_down(fact: type[Written], requests: Inputs[Any], rows: list[int], out: Outcome) -> None:
    columns = [at_places(requests[name], rows) for name in ("order_id", "customer_id", "ordered_at", "lines")]
    out.facts(
        rows,
        [
            fact(order_id, customer_id, ordered_at, lines or None, amount(lines) if lines else None)
            for order_id, customer_id, ordered_at, lines in zip(*columns, strict=True)
        ],
    )


def _watched(order_id: str, repeated: bool) -> str:
    return f"{'again' if repeated else 'first'} {order_id}"


class Gateway(Service):
    """Takes orders, cancellations and returns, and follows the orders to their end."""

    name = "gateway"
    state_version = 2

    def initial(self) -> Remembered:
        """Nothing asked for."""
        return Remembered(Requested(), Requested())

    def place_order(self, state: Remembered, orders: Inputs[PlaceOrder], out: Outcome) -> None:
        """Take an order id once. A first reply says accepted, a second what became of it.

        Whoever asks the same again hears the same, as a repeat; another order under the id is refused on record.
        """
        names = Names("OrderRequested", state.taken, orders)
        room = self.place.options.open_orders_max - out.watched
        ids = orders["order_id"]
        for row, (order_id, (version, kind, reason)) in enumerate(
            zip(ids, self.views["outcomes"].lookup(ids), strict=True)
        ):
            ended = version != ABSENT_VERSION
            repeated = self._repeated(names, row, kind if ended else None, room, out)
            if repeated is None:
                continue
            if ended:
                out.answer(row, Told(order_id, outcome_of(kind), reason, repeated))
            else:
                out.watch(row, _watched(order_id, repeated))
                out.answer(row, Told(order_id, "accepted", None, repeated), more=True)
        _write_down(OrderRequested, orders, list(names.fresh.values()), out)

    def _repeated(self, names: Names, row: int, ended: str | None, room: int, out: Outcome) -> bool | None:
        """Whether an order was placed before, or None: it is refused. A new one is taken. ``ended``: as what."""
        earlier = names.earlier(row)
        if earlier is not None:
            return names.repeats(row, earlier, out)
        if ended is None and len(names.fresh) >= room:
            out.refuse(row, Throttled(f"{out.watched} orders are open at the gateway; come back later"))
            return None
        if ended is None or (ended == "OrderCancelled" and not names.forgotten):  # it was cancelled before it came
            names.take(row)
        elif ended != "OrderCancelled":
            out.refuse(row, KeyReused(f"order {names.order_ids[row]} {FORGOTTEN}"), on_record=True)
            return None
        return False

    def cancel_order(self, state: Remembered, requests: Inputs[CancelOrder], out: Outcome) -> None:
        """Record that the caller wants an order cancelled; orders decides whether it still can be."""
        self._record(state, CancellationRequested, requests, out)

    def request_return(self, state: Remembered, requests: Inputs[RequestReturn], out: Outcome) -> None:
        """Record what a customer sends back; its effects are a story of their own."""
        self._record(state, ReturnRequested, requests, out)

    def _record(self, state: Remembered, fact: type[Written], requests: Inputs[Any], out: Outcome) -> None:
        names = Names(fact.__name__, state.recorded, requests)
        for row, order_id in requests.rows("order_id"):
            earlier, repeated = names.earlier(row), False
            if earlier is None:
                names.take(row)
            elif (compared := names.repeats(row, earlier, out)) is None:
                continue
            else:
                repeated = compared
            out.answer(row, Told(order_id, "recorded", None, repeated))
        _write_down(fact, requests, list(names.fresh.values()), out)

    def ended(
        self, state: Remembered, orders: Inputs[OrderConfirmed | OrderRejected | OrderCancelled], out: Outcome
    ) -> None:
        """Orders confirmed, rejected or cancelled: tell who waits."""
        outcome = outcome_of(orders.kind)
        for _, order_id, reason in orders.rows("order_id", "reason"):
            for repeated in (False, True):
                out.tell(_watched(order_id, repeated), Told(order_id, outcome, reason, repeated))

    def evolve(self, state: Remembered, facts: Facts) -> None:
        """What was asked under which name, until no deadline can still be open."""
        memory = self.place.options.memory_us
        for kind, order_id, time, identity, *content in facts.rows("type", "order_id", "time", "id", *CONTENT):
            asked = Asked.of_fact(identity, fingerprint(*content), time)
            if kind == "OrderRequested":
                state.taken.remember(order_id, asked, memory)
            else:
                state.recorded.remember(recorded_as(kind, order_id), asked, memory)

"""The gateway: where callers come in. Each order id is taken once; what became of it is told to who asks."""

from __future__ import annotations

from dataclasses import dataclass

from eventmesh.errors import Throttled
from eventmesh.messages import Columns
from eventmesh.service import Inputs, Outcome, Service, at_places
from eventmesh.shop.facts import amount
from eventmesh.shop.memory import Finished
from eventmesh.views import ABSENT_VERSION


def outcome_of(kind: str) -> str:
    """``OrderConfirmed`` to ``confirmed``."""
    return kind.removeprefix("Order").lower()


@dataclass
class Requests:
    """What was asked for: order ids taken, cancellations and returns recorded."""

    taken: Finished
    recorded: Finished


class Gateway(Service):
    """Takes orders, cancellations and returns, and follows the orders to their end."""

    name = "gateway"

    def initial(self) -> Requests:
        """Nothing asked for."""
        return Requests(Finished(), Finished())

    def place_order(self, state: Requests, orders: Inputs, out: Outcome) -> None:
        """Take an order id once. A first reply says accepted, a second what became of it."""
        ids = orders["order_id"]
        fresh: dict[str, int] = {}  # order id to its row
        room = self.place.options.open_orders_max - out.watched
        for row, (order_id, (version, kind, reason)) in enumerate(
            zip(ids, self.views["outcomes"].lookup(ids), strict=True)
        ):
            if version != ABSENT_VERSION:
                out.answer(row, {"order_id": order_id, "outcome": outcome_of(kind), "reason": reason})
                continue
            if order_id not in state.taken and order_id not in fresh:
                if len(fresh) >= room:
                    out.refuse(row, Throttled(f"{out.watched} orders are open at the gateway; come back later"))
                    continue
                fresh[order_id] = row
            out.watch(row, order_id)
            out.answer(row, {"order_id": order_id, "outcome": "accepted", "reason": None}, more=True)
        self._write_down("OrderRequested", orders, list(fresh.values()), out)

    def _write_down(self, kind: str, requests: Inputs, rows: list[int], out: Outcome) -> None:
        lines = at_places(requests["lines"], rows)
        out.facts(
            kind,
            rows,
            order_id=at_places(requests["order_id"], rows),
            customer_id=at_places(requests["customer_id"], rows),
            lines=[line or None for line in lines],
            ordered_at=at_places(requests["ordered_at"], rows),
            amount=[amount(line) if line else None for line in lines],
        )

    def cancel_order(self, state: Requests, requests: Inputs, out: Outcome) -> None:
        """Record that the caller wants an order cancelled; orders decides whether it still can be."""
        self._record(state, "CancellationRequested", requests, out)

    def request_return(self, state: Requests, requests: Inputs, out: Outcome) -> None:
        """Record what a customer sends back; its effects are a story of their own."""
        self._record(state, "ReturnRequested", requests, out)

    def _record(self, state: Requests, kind: str, requests: Inputs, out: Outcome) -> None:
        asked = requests.first("order_id")
        fresh = [row for order_id, row in asked.items() if f"{kind}:{order_id}" not in state.recorded]
        self._write_down(kind, requests, fresh, out)
        for row, order_id in requests.rows("order_id"):
            out.answer(row, {"order_id": order_id, "outcome": "recorded", "reason": None})

    def ended(self, state: Requests, orders: Inputs, out: Outcome) -> None:
        """Orders confirmed, rejected or cancelled: tell who waits."""
        outcome = outcome_of(orders.kind)
        for _, order_id, reason in orders.rows("order_id", "reason"):
            out.tell(order_id, order_id=order_id, outcome=outcome, reason=reason)

    def evolve(self, state: Requests, facts: Columns) -> None:
        """Order ids taken, until no deadline can still be open."""
        memory = self.place.options.memory_us
        for kind, order_id, time in facts.rows("type", "order_id", "time"):
            if kind == "OrderRequested":
                state.taken.remember(order_id, "requested", time, memory)
            else:
                state.recorded.remember(f"{kind}:{order_id}", "recorded", time, memory)

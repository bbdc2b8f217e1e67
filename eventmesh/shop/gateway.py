"""The gateway: where callers come in. Each order id is taken once; what became of it is told to who asks."""

from __future__ import annotations

from dataclasses import dataclass

from eventmesh.errors import Throttled
from eventmesh.service import Outcome, Row, Service
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
    reads = ("order_id", "reason")
    fold = ("order_id",)

    def initial(self) -> Requests:
        """Nothing asked for."""
        memory = self.place.options.memory_s * 1_000_000
        return Requests(Finished(memory), Finished(memory))

    def place_order(self, state: Requests, row: Row, out: Outcome) -> Row:
        """Take an order id once. A first reply says accepted, a second what became of it."""
        order_id = row["order_id"]
        version, kind, reason = self.views["outcomes"].lookup([order_id])[0]
        if version != ABSENT_VERSION:
            return {"order_id": order_id, "outcome": outcome_of(kind), "reason": reason}
        if order_id not in state.taken:
            self._refuse_when_full(out)
            out.fact(
                "OrderRequested",
                order_id=order_id,
                customer_id=row["customer_id"],
                lines=row["lines"],
                ordered_at=row["ordered_at"],
                amount=sum(q * price for _, q, price in row["lines"]),
            )
        out.watch(order_id)
        return {"order_id": order_id, "outcome": "accepted", "reason": None, "more": True}

    def _refuse_when_full(self, out: Outcome) -> None:
        if out.watched >= self.place.options.open_orders_max:
            raise Throttled(f"{out.watched} orders are open at the gateway; come back later")

    def cancel_order(self, state: Requests, row: Row, out: Outcome) -> Row:
        """Record that the caller wants an order cancelled; orders decides whether it still can be."""
        return self._record(state, "CancellationRequested", row, out)

    def request_return(self, state: Requests, row: Row, out: Outcome) -> Row:
        """Record what a customer sends back; its effects are a story of their own."""
        return self._record(state, "ReturnRequested", row, out)

    def _record(self, state: Requests, kind: str, row: Row, out: Outcome) -> Row:
        if f"{kind}:{row['order_id']}" not in state.recorded:
            lines = row.get("lines") or None
            out.fact(
                kind,
                order_id=row["order_id"],
                customer_id=row.get("customer_id"),
                lines=lines,
                ordered_at=row.get("ordered_at"),
                amount=lines and sum(q * price for _, q, price in lines),
            )
        return {"order_id": row["order_id"], "outcome": "recorded", "reason": None}

    def ended(self, state: Requests, row: Row, out: Outcome) -> None:
        """Orders confirmed, rejected or cancelled: tell who waits."""
        order_id = row["order_id"]
        out.tell(order_id, order_id=order_id, outcome=outcome_of(row["type"]), reason=row["reason"])

    def evolve(self, state: Requests, fact: Row) -> None:
        """Order ids taken, until no deadline can still be open."""
        if fact["type"] == "OrderRequested":
            state.taken.remember(fact["order_id"], "requested", fact["time"])
        else:
            state.recorded.remember(f"{fact['type']}:{fact['order_id']}", "recorded", fact["time"])

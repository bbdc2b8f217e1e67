"""Shipping: dispatches a confirmed order once, or agrees not to when its cancellation came first."""

from __future__ import annotations

from dataclasses import dataclass

from eventmesh.service import Outcome, Row, Service
from eventmesh.shop.memory import Finished


@dataclass
class Dock:
    """What became of each order: dispatched or refused."""

    known: Finished


class Shipping(Service):
    """Ships on a confirmed order."""

    name = "shipping"
    reads = ("order_id",)
    fold = ("order_id",)

    def initial(self) -> Dock:
        """Nothing dispatched."""
        return Dock(Finished(self.place.options.memory_s * 1_000_000))

    def dispatch(self, state: Dock, row: Row, out: Outcome) -> Row:
        """Dispatch once, unless it was agreed not to."""
        return self._settle(state, row["order_id"], "ShipmentDispatched", out)

    def refuse(self, state: Dock, row: Row, out: Outcome) -> Row:
        """Agree not to dispatch; an order already dispatched stays so, and orders hears of that."""
        return self._settle(state, row["order_id"], "ShipmentRefused", out)

    def _settle(self, state: Dock, order_id: str, kind: str, out: Outcome) -> Row:
        if order_id not in state.known:
            out.fact(kind, order_id=order_id)
        return {"order_id": order_id, "outcome": state.known.status(order_id), "reason": None}

    def evolve(self, state: Dock, fact: Row) -> None:
        """One fact per order."""
        state.known.remember(fact["order_id"], fact["type"].removeprefix("Shipment").lower(), fact["time"])

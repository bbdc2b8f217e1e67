"""Shipping: dispatches a confirmed order once, or agrees not to when its cancellation came first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eventmesh.declared import Facts
from eventmesh.service import Inputs, Outcome, Service
from eventmesh.shop.facts import (
    CancelShipment,
    OrderCancelling,
    OrderConfirmed,
    Settled,
    ShipmentDispatched,
    ShipmentRefused,
    ShipOrder,
)
from eventmesh.shop.memory import Finished


@dataclass
class Dock:
    """What became of each order: dispatched or refused."""

    known: Finished


class Shipping(Service):
    """Ships on a confirmed order."""

    name = "shipping"

    def initial(self) -> Dock:
        """Nothing dispatched."""
        return Dock(Finished())

    def dispatch(self, state: Dock, orders: Inputs[ShipOrder | OrderConfirmed], out: Outcome) -> None:
        """Dispatch once, unless it was agreed not to."""
        self._settle(state, orders, ShipmentDispatched, out)

    def refuse(self, state: Dock, orders: Inputs[CancelShipment | OrderCancelling], out: Outcome) -> None:
        """Agree not to dispatch; an order already dispatched stays so, and orders hears of that."""
        self._settle(state, orders, ShipmentRefused, out)

    def _settle(
        self, state: Dock, orders: Inputs[Any], fact: type[ShipmentDispatched | ShipmentRefused], out: Outcome
    ) -> None:
        fresh = {order_id: row for order_id, row in orders.first("order_id").items() if order_id not in state.known}
        out.facts(list(fresh.values()), [fact(order_id) for order_id in fresh])
        if out.asked:
            for row, order_id in orders.rows("order_id"):
                out.answer(row, Settled(order_id, state.known.status(order_id)))

    def evolve(self, state: Dock, facts: Facts) -> None:
        """One fact per order."""
        memory = self.place.options.memory_us
        for kind, order_id, time in facts.rows("type", "order_id", "time"):
            state.known.remember(order_id, kind.removeprefix("Shipment").lower(), time, memory)

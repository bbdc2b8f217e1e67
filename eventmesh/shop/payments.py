"""Payments: charges an order once, or declines; undoes a charge; remembers a void of what it never saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import google_crc32c

from eventmesh.declared import Facts
from eventmesh.service import Inputs, Outcome, Service, at_places
from eventmesh.shop.facts import (
    CapturePayment,
    OrderCancelled,
    OrderReserved,
    PaymentCaptured,
    PaymentDeclined,
    PaymentRefunded,
    PaymentVoided,
    Settled,
    VoidPayment,
)
from eventmesh.shop.memory import Finished


@dataclass
class Ledger:
    """Captured amounts in minor units by order, and what became of each order."""

    captured: dict[str, int]
    known: Finished


class Payments(Service):
    """Captures on a reserved order, undoes on a cancelled one."""

    name = "payments"

    def initial(self) -> Ledger:
        """Nothing captured."""
        return Ledger({}, Finished())

    def capture(self, state: Ledger, orders: Inputs[CapturePayment | OrderReserved], out: Outcome) -> None:
        """Capture once; a voided order's late capture is refused (rule 4)."""
        fresh = {order_id: row for order_id, row in orders.first("order_id").items() if order_id not in state.known}
        rows = list(fresh.values())
        facts = [
            (PaymentDeclined if self._declines(order_id) else PaymentCaptured)(order_id, amount)
            for order_id, amount in zip(fresh, at_places(orders["amount"], rows), strict=True)
        ]
        out.facts(rows, facts)
        self._answer(state, orders, out)

    def void(self, state: Ledger, orders: Inputs[VoidPayment | OrderCancelled], out: Outcome) -> None:
        """Undo a charge by a refund; where there is none, make sure that none will come."""
        for row, order_id in orders.rows("order_id"):
            status = state.known.status(order_id)
            if status == "captured":
                out.fact(row, PaymentRefunded(order_id, state.captured[order_id]))
            elif status is None:
                out.fact(row, PaymentVoided(order_id, 0))
        self._answer(state, orders, out)

    def _declines(self, order_id: str) -> bool:
        permille = self.place.options.decline_permille
        return bool(permille and google_crc32c.value(f"{self.place.seed}:{order_id}".encode()) % 1000 < permille)

    def _answer(self, state: Ledger, orders: Inputs[Any], out: Outcome) -> None:
        if out.asked:
            for row, order_id in orders.rows("order_id"):
                out.answer(row, Settled(order_id, state.known.status(order_id)))

    def evolve(self, state: Ledger, facts: Facts) -> None:
        """A ledger of what is captured now."""
        memory = self.place.options.memory_us
        for kind, order_id, amount, time in facts.rows("type", "order_id", "amount", "time"):
            status = kind.removeprefix("Payment").lower()
            if status == "captured":
                state.captured[order_id] = amount
            else:
                state.captured.pop(order_id, None)
            state.known.remember(order_id, status, time, memory)
        if len(state.captured) > len(state.known):
            for forgotten in [key for key in state.captured if key not in state.known]:
                del state.captured[forgotten]

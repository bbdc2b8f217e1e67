"""Payments: charges an order once, or declines; undoes a charge; remembers a void of what it never saw."""

from __future__ import annotations

from dataclasses import dataclass

import google_crc32c

from eventmesh.service import Outcome, Row, Service
from eventmesh.shop.memory import Finished


@dataclass
class Ledger:
    """Captured amounts in minor units by order, and what became of each order."""

    captured: dict[str, int]
    known: Finished


class Payments(Service):
    """Captures on a reserved order, undoes on a cancelled one."""

    name = "payments"
    reads = ("order_id", "amount")
    fold = ("order_id", "amount")

    def initial(self) -> Ledger:
        """Nothing captured."""
        return Ledger({}, Finished(self.place.options.memory_s * 1_000_000))

    def capture(self, state: Ledger, row: Row, out: Outcome) -> Row:
        """Capture once; a voided order's late capture is refused (rule 4)."""
        order_id = row["order_id"]
        if order_id not in state.known:
            kind = "PaymentDeclined" if self._declines(order_id) else "PaymentCaptured"
            out.fact(kind, order_id=order_id, amount=row["amount"])
        return self._answer(state, order_id)

    def void(self, state: Ledger, row: Row, out: Outcome) -> Row:
        """Undo a charge by a refund; where there is none, make sure that none will come."""
        order_id = row["order_id"]
        status = state.known.status(order_id)
        if status == "captured":
            out.fact("PaymentRefunded", order_id=order_id, amount=state.captured[order_id])
        elif status is None:
            out.fact("PaymentVoided", order_id=order_id, amount=0)
        return self._answer(state, order_id)

    def _declines(self, order_id: str) -> bool:
        digest = google_crc32c.value(f"{self.place.seed}:{order_id}".encode())
        return bool(digest % 1000 < self.place.options.decline_permille)

    def _answer(self, state: Ledger, order_id: str) -> Row:
        return {"order_id": order_id, "outcome": state.known.status(order_id), "reason": None}

    def evolve(self, state: Ledger, fact: Row) -> None:
        """A ledger of what is captured now."""
        order_id = fact["order_id"]
        status = fact["type"].removeprefix("Payment").lower()
        if status == "captured":
            state.captured[order_id] = fact["amount"]
        else:
            state.captured.pop(order_id, None)
        state.known.remember(order_id, status, fact["time"])
        if len(state.captured) > len(state.known):
            for forgotten in [key for key in state.captured if key not in state.known]:
                del state.captured[forgotten]

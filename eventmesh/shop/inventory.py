"""Inventory: the only one to say what is on hand and what is reserved, one fact per order line.

Each partition answers for the SKUs that hash to it, so an order's lines may be answered by several.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from eventmesh.service import Outcome, Row, Service
from eventmesh.shop.memory import Finished
from eventmesh.views import ABSENT_VERSION


class Level(NamedTuple):
    """One SKU's stock. Invariant: 0 <= reserved <= on_hand."""

    on_hand: int
    reserved: int
    version: int  # the offset of the fact that set it


class Line(NamedTuple):
    """An answered line of an open order; short lines hold nothing."""

    number: int
    sku: str
    quantity: int
    short: bool


@dataclass
class Stock:
    """Levels by SKU, answered lines by open order, and the orders that are done with."""

    levels: dict[str, Level]
    orders: dict[str, tuple[Line, ...]]
    finished: Finished
    deliveries: Finished  # what restocks were taken in for: command ids among them


NOTHING = Level(0, 0, ABSENT_VERSION)


class Inventory(Service):
    """Reserves, releases, ships and restocks."""

    name = "inventory"
    reads = ("order_id", "lines", "sku", "quantity")
    fold = ("sku", "order_id", "line_number", "quantity", "on_hand", "reserved", "reason")

    def initial(self) -> Stock:
        """No stock, no orders."""
        memory = self.place.options.memory_s * 1_000_000
        return Stock({}, {}, Finished(memory), Finished(memory))

    # --- rules --------------------------------------------------------------------------------

    def reserve(self, state: Stock, row: Row, out: Outcome) -> Row:
        """Reserve what there is for each line of ours, in line order; a line that is not covered is short."""
        order_id = row["order_id"]
        if order_id not in state.orders and order_id not in state.finished:
            for number, sku, quantity in self._own_lines(row["lines"]):
                level = state.levels.get(sku, NOTHING)
                covered = level.on_hand - level.reserved >= quantity
                self._move(
                    state,
                    out,
                    "StockReserved" if covered else "StockShort",
                    order_id,
                    number,
                    sku,
                    quantity,
                    reserved=quantity if covered else 0,
                )
        return self._answer(state, order_id)

    def reserve_and_restock(self, state: Stock, row: Row, out: Outcome) -> Row:
        """Reserve, and buy more by inventory's own rule."""
        answer = self.reserve(state, row, out)
        for line in state.orders.get(row["order_id"], ()):
            self._restock_if_low(state, line.sku, out)
        return answer

    def release(self, state: Stock, row: Row, out: Outcome) -> Row:
        """Give back what an order holds. One never seen is remembered: its late reservation is refused (rule 4)."""
        order_id = row["order_id"]
        held = state.orders.get(order_id)
        if held is not None:
            for line in held:
                back = 0 if line.short else -line.quantity
                self._move(state, out, "StockReleased", order_id, line.number, line.sku, -back, reserved=back)
        elif order_id not in state.finished and row.get("lines"):
            for number, sku, _ in self._own_lines(row["lines"]):
                self._move(state, out, "StockReleased", order_id, number, sku, 0)
        return self._answer(state, order_id)

    def ship(self, state: Stock, row: Row, out: Outcome) -> Row:
        """What was reserved for the order leaves the house."""
        order_id = row["order_id"]
        for line in state.orders.get(order_id, ()):
            self._move(
                state,
                out,
                "StockShipped",
                order_id,
                line.number,
                line.sku,
                line.quantity,
                on_hand=-line.quantity,
                reserved=-line.quantity,
            )
        return self._answer(state, order_id)

    def restock(self, state: Stock, row: Row, out: Outcome) -> Row:
        """Take in a delivery, once per command id."""
        if row["id"] not in state.deliveries:
            level = state.levels.get(row["sku"], NOTHING)
            out.fact(
                "StockRestocked",
                sku=row["sku"],
                quantity=row["quantity"],
                reason=row["id"],
                on_hand=level.on_hand + row["quantity"],
                reserved=level.reserved,
            )
        return {"order_id": None, "outcome": "restocked", "reason": None}

    def check_restock(self, state: Stock, row: Row, out: Outcome) -> Row:
        """Told by another service to look whether to buy more: the article's mixed responsibility. Buys once per id."""
        told = f"below the limit, as told by {row['id']}"
        if told not in state.deliveries:
            for _, sku, _ in self._own_lines(row["lines"]):
                self._restock_if_low(state, sku, out, told)
        return {"order_id": row["order_id"], "outcome": "checked", "reason": None}

    def _restock_if_low(self, state: Stock, sku: str, out: Outcome, reason: str = "below the limit") -> None:
        rule = self.place.options.restock
        level = state.levels.get(sku, NOTHING)
        if rule is not None and level.on_hand - level.reserved < rule.below:
            out.fact(
                "StockRestocked",
                sku=sku,
                quantity=rule.quantity,
                reason=reason,
                on_hand=level.on_hand + rule.quantity,
                reserved=level.reserved,
            )

    def _own_lines(self, lines: list[tuple[str, int, int]]) -> Iterator[tuple[int, str, int]]:
        place = self.place
        for number, (sku, quantity, _) in enumerate(lines):
            if place.partition_of("stock", sku) == place.partition:
                yield number, sku, quantity

    def _move(
        self,
        state: Stock,
        out: Outcome,
        kind: str,
        order_id: str,
        number: int,
        sku: str,
        quantity: int,
        *,
        on_hand: int = 0,
        reserved: int = 0,
    ) -> None:
        level = state.levels.get(sku, NOTHING)
        out.fact(
            kind,
            sku=sku,
            order_id=order_id,
            line_number=number,
            quantity=quantity,
            on_hand=level.on_hand + on_hand,
            reserved=level.reserved + reserved,
        )

    def _answer(self, state: Stock, order_id: str) -> Row:
        """What the fold says of an order: the same whether it was just decided or is asked for again."""
        lines = state.orders.get(order_id)
        if lines is None:
            return {
                "order_id": order_id,
                "outcome": state.finished.status(order_id) or "unknown",
                "line_numbers": [],
                "short": [],
            }
        return {
            "order_id": order_id,
            "outcome": "short" if any(line.short for line in lines) else "reserved",
            "line_numbers": [line.number for line in lines],
            "short": [line.number for line in lines if line.short],
        }

    # --- the fold -----------------------------------------------------------------------------

    def evolve(self, state: Stock, fact: Row) -> None:
        """Levels come from the fact itself; stock is never negative, nor more reserved than there is."""
        sku, order_id, kind = fact["sku"], fact.get("order_id"), fact["type"]
        level = Level(fact["on_hand"], fact["reserved"], fact["sequence"])
        assert 0 <= level.reserved <= level.on_hand, f"{kind} leaves {sku} at {level}"
        state.levels[sku] = level
        if kind == "StockRestocked":
            state.deliveries.remember(fact["reason"], "restocked", fact["time"])
        elif kind in ("StockReserved", "StockShort"):
            line = Line(fact["line_number"], sku, fact["quantity"], kind == "StockShort")
            state.orders[order_id] = (*state.orders.get(order_id, ()), line)  # type: ignore[index, arg-type]
        else:
            self._settle(state, order_id, fact, "released" if kind == "StockReleased" else "shipped")  # type: ignore[arg-type]

    def _settle(self, state: Stock, order_id: str, fact: Row, status: str) -> None:
        left = tuple(line for line in state.orders.get(order_id, ()) if line.number != fact["line_number"])
        if left:
            state.orders[order_id] = left
            return
        state.orders.pop(order_id, None)
        state.finished.remember(order_id, status, fact["time"])


def _stock_by_sku(state: Stock, question: Row) -> Row:
    level = state.levels.get(question["sku"], NOTHING)
    if level.version == ABSENT_VERSION:
        return {"version": ABSENT_VERSION, "on_hand": None, "reserved": None}
    return {"version": level.version, "on_hand": level.on_hand, "reserved": level.reserved}


Inventory.queries = {"StockBySku": _stock_by_sku}

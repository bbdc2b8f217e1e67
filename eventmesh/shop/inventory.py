"""Inventory: the only one to say what is on hand and what is reserved, one fact per order line.

Each partition answers for the SKUs that hash to it, so an order's lines may be answered by several.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from eventmesh.declared import Facts
from eventmesh.service import Inputs, Outcome, Service
from eventmesh.shop.facts import (
    CheckRestock,
    LinesAnswered,
    OrderCancelled,
    OrderRejected,
    OrderValidated,
    ReleaseStock,
    ReserveStock,
    Restock,
    Settled,
    ShipmentDispatched,
    ShipStock,
    StockBySku,
    StockFound,
    StockReleased,
    StockReserved,
    StockRestocked,
    StockShipped,
    StockShort,
)
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
OwnLine = tuple[int, str, int]  # line number, sku, quantity
OfLine = StockReserved | StockShort | StockReleased | StockShipped  # a fact about an order's line


class Inventory(Service):
    """Reserves, releases, ships and restocks."""

    name = "inventory"

    def initial(self) -> Stock:
        """No stock, no orders."""
        return Stock({}, {}, Finished(), Finished())

    # --- rules --------------------------------------------------------------------------------

    def reserve(self, state: Stock, orders: Inputs[ReserveStock], out: Outcome) -> None:
        """Reserve what there is for each line of ours, in line order; a line that is not covered is short."""
        self._reserve(state, orders, out)

    def reserve_and_restock(self, state: Stock, orders: Inputs[OrderValidated], out: Outcome) -> None:
        """Reserve, and buy more by inventory's own rule."""
        self._reserve(state, orders, out, "below the limit")

    def _reserve(self, state: Stock, orders: Inputs[Any], out: Outcome, restock: str = "") -> None:
        moves, lines = Moves(state), orders["lines"]
        for order_id, row in orders.first("order_id").items():
            if order_id in state.orders or order_id in state.finished:
                continue
            own = list(self._own_lines(lines[row]))
            for number, sku, quantity in own:
                level = moves.level(sku)
                if level.on_hand - level.reserved >= quantity:
                    moves.add(row, StockReserved, sku, quantity, order_id, number, reserved=quantity)
                else:
                    moves.add(row, StockShort, sku, quantity, order_id, number)
            if restock:
                self._restock_if_low(moves, row, own, restock)
        moves.decide(out)
        self._answer_all(state, orders, out)

    def release(
        self, state: Stock, orders: Inputs[ReleaseStock | OrderRejected | OrderCancelled], out: Outcome
    ) -> None:
        """Give back what an order holds. One never seen is remembered: its late reservation is refused (rule 4)."""
        moves, lines = Moves(state), orders["lines"]
        for order_id, row in orders.first("order_id").items():
            held = state.orders.get(order_id)
            if held is not None:
                for line in held:
                    back = 0 if line.short else -line.quantity
                    moves.add(row, StockReleased, line.sku, -back, order_id, line.number, reserved=back)
            elif order_id not in state.finished and lines[row]:
                for number, sku, _ in self._own_lines(lines[row]):
                    moves.add(row, StockReleased, sku, 0, order_id, number)
        moves.decide(out)
        self._answer_all(state, orders, out)

    def ship(self, state: Stock, orders: Inputs[ShipStock | ShipmentDispatched], out: Outcome) -> None:
        """What was reserved for the orders leaves the house."""
        moves = Moves(state)
        for order_id, row in orders.first("order_id").items():
            for number, sku, quantity, _ in state.orders.get(order_id, ()):
                moves.add(row, StockShipped, sku, quantity, order_id, number, on_hand=-quantity, reserved=-quantity)
        moves.decide(out)
        self._answer_all(state, orders, out)

    def restock(self, state: Stock, deliveries: Inputs[Restock], out: Outcome) -> None:
        """Take in deliveries, each once per command id."""
        moves, skus, quantities = Moves(state), deliveries["sku"], deliveries["quantity"]
        for delivery, row in deliveries.first("id").items():
            if delivery not in state.deliveries:
                moves.take_in(row, skus[row], quantities[row], delivery)
        moves.decide(out)
        for row in range(len(deliveries)):
            out.answer(row, Settled(None, "restocked"))

    def check_restock(self, state: Stock, orders: Inputs[CheckRestock], out: Outcome) -> None:
        """Told by another service to look whether to buy more: the article's mixed responsibility. Buys once per id."""
        moves, lines = Moves(state), orders["lines"]
        for command, row in orders.first("id").items():
            told = f"below the limit, as told by {command}"
            if told not in state.deliveries:
                self._restock_if_low(moves, row, self._own_lines(lines[row]), told)
        moves.decide(out)
        for row, order_id in orders.rows("order_id"):
            out.answer(row, Settled(order_id, "checked"))

    def _restock_if_low(self, moves: Moves, row: int, lines: Iterable[OwnLine], reason: str) -> None:
        rule = self.place.options.restock
        for _, sku, _ in lines if rule is not None else ():
            level = moves.level(sku)
            if level.on_hand - level.reserved < rule.below:
                moves.take_in(row, sku, rule.quantity, reason)

    def _own_lines(self, lines: list[tuple[str, int, int]]) -> Iterator[OwnLine]:
        place = self.place
        for number, (sku, quantity, _) in enumerate(lines):
            if place.partition_of("stock", sku) == place.partition:
                yield number, sku, quantity

    def _answer_all(self, state: Stock, orders: Inputs[Any], out: Outcome) -> None:
        if out.asked:
            for row, order_id in orders.rows("order_id"):
                out.answer(row, self._answer(state, order_id))

    def _answer(self, state: Stock, order_id: str) -> LinesAnswered:
        """What the fold says of an order: the same whether it was just decided or is asked for again."""
        lines = state.orders.get(order_id)
        if lines is None:
            return LinesAnswered(order_id, state.finished.status(order_id) or "unknown", [], [])
        short = [line.number for line in lines if line.short]
        return LinesAnswered(order_id, "short" if short else "reserved", [line.number for line in lines], short)

    # --- the fold -----------------------------------------------------------------------------

    def evolve(self, state: Stock, facts: Facts) -> None:
        """Levels come from the facts themselves; stock is never negative, nor more reserved than there is."""
        rows = facts.rows(
            "type", "sku", "order_id", "line_number", "quantity", "on_hand", "reserved", "sequence", "reason", "time"
        )
        for kind, sku, order_id, number, quantity, on_hand, reserved, sequence, reason, time in rows:
            assert 0 <= reserved <= on_hand, f"{kind} leaves {sku} at {on_hand} on hand, {reserved} reserved"
            state.levels[sku] = Level(on_hand, reserved, sequence)
            if kind == "StockRestocked":
                state.deliveries.remember(reason, "restocked", time, self.place.options.memory_us)
            elif kind in ("StockReserved", "StockShort"):
                line = Line(number, sku, quantity, kind == "StockShort")
                state.orders[order_id] = (*state.orders.get(order_id, ()), line)
            else:
                self._settle(state, order_id, number, "released" if kind == "StockReleased" else "shipped", time)

    def _settle(self, state: Stock, order_id: str, number: int, status: str, time: int) -> None:
        left = tuple([line for line in state.orders.get(order_id, ()) if line.number != number])
        if left:
            state.orders[order_id] = left
            return
        state.orders.pop(order_id, None)
        state.finished.remember(order_id, status, time, self.place.options.memory_us)


class Moves:
    """Stock facts of one decision, in order: each line finds the levels that those before it leave."""

    def __init__(self, state: Stock) -> None:
        self._levels, self._moved = state.levels, dict[str, Level]()
        self._rows: list[int] = []
        self._facts: list[OfLine | StockRestocked] = []

    def level(self, sku: str) -> Level:
        """What there is of a SKU now."""
        return self._moved.get(sku) or self._levels.get(sku, NOTHING)

    def add(
        self,
        row: int,
        fact: type[OfLine],
        sku: str,
        quantity: int,
        order_id: str,
        number: int,
        *,
        on_hand: int = 0,
        reserved: int = 0,
    ) -> None:
        """A fact about an order's line, with what it adds to the SKU's level."""
        after = self._move(row, sku, on_hand, reserved)
        self._facts.append(fact(sku, order_id, number, quantity, after.on_hand, after.reserved))

    def take_in(self, row: int, sku: str, quantity: int, reason: str) -> None:
        """A delivery; ``reason`` says for whose sake, and is remembered."""
        after = self._move(row, sku, quantity, 0)
        self._facts.append(StockRestocked(sku, quantity, after.on_hand, after.reserved, reason))

    def _move(self, row: int, sku: str, on_hand: int, reserved: int) -> Level:
        before = self.level(sku)
        after = self._moved[sku] = Level(before.on_hand + on_hand, before.reserved + reserved, before.version)
        self._rows.append(row)
        return after

    def decide(self, out: Outcome) -> None:
        """Decide all of them."""
        out.facts(self._rows, self._facts)


def _stock_by_sku(state: Stock, question: StockBySku) -> StockFound:
    level = state.levels.get(question.sku, NOTHING)
    if level.version == ABSENT_VERSION:
        return StockFound(ABSENT_VERSION, None, None)
    return StockFound(level.version, level.on_hand, level.reserved)


Inventory.queries = {StockBySku: _stock_by_sku}

"""Every order of a run as arrays, one item per order: what was asked, how far it came, what it cost."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmesh.audit.evidence import ABSENT, Evidence, Facts, Integers
from eventmesh.audit.verdict import Mask
from eventmesh.messages import Columns, fingerprints
from eventmesh.shop.facts import CONTENT
from eventmesh.shop.orders import ENDED, TRANSITIONS

REQUESTED = "requested"
#: States by number; the state after the n-th kind of fact in TRANSITIONS is n + 1.
STATES = [REQUESTED, *(kind.removeprefix("Order").lower() for kind in TRANSITIONS)]
KINDS = list(TRANSITIONS)
#: What an order that stands in these states counts as: a shipped order was confirmed.
OUTCOMES = {"confirmed": "confirmed", "shipped": "confirmed", "rejected": "rejected", "cancelled": "cancelled"}
_ALLOWED = np.array([[state in TRANSITIONS[kind] for state in STATES] for kind in KINDS])
_TOPICS = ("order-requests", "orders", "stock", "payments", "shipments")


class Stories:
    """All orders that the log knows, numbered by ``ids``. Arrays are per order unless they say otherwise."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.order, self.ids = evidence.encoded("order_id", [name for name in _TOPICS if name in evidence.topics])
        self.count = len(self.ids)
        self.requests, self.orders = evidence.facts("order-requests"), evidence.facts("orders")
        self.stock, self.payments = evidence.facts("stock"), evidence.facts("payments")
        self.shipments = evidence.facts("shipments")
        self._asked: dict[str, pa.Table] = {}

    def name(self, order: int) -> str:
        """The id of an order."""
        return str(self.ids[int(order)].as_py())

    def orders_of(self, facts: Facts, *kinds: str) -> Integers:
        """The order of every fact of these kinds that names one, in offset order."""
        order = self.order[facts.topic.name]
        chosen: Integers = order[facts.of(*kinds) & (order != ABSENT)]
        return chosen

    def count_of(self, facts: Facts, *kinds: str) -> Integers:
        """How many facts of these kinds each order has."""
        return np.bincount(self.orders_of(facts, *kinds), minlength=self.count)

    def sum_of(self, facts: Facts, column: str, *kinds: str) -> Integers:
        """The sum of ``column`` over the facts of these kinds."""
        order = self.order[facts.topic.name]
        mask = facts.of(*kinds) & (order != ABSENT)
        sums = np.zeros(self.count, np.int64)
        np.add.at(sums, order[mask], facts.numbers(column)[mask])
        return sums

    @cached_property
    def by_command(self) -> bool:
        """Whether orders come to the orders service as commands, not as facts."""
        return not self._listened_to("OrderRequested")

    @cached_property
    def stopped_by_command(self) -> bool:
        """Whether cancellations do."""
        return not self._listened_to("CancellationRequested")

    def _listened_to(self, kind: str) -> bool:
        wiring = self.evidence.mesh.application.WIRINGS[self.evidence.mesh.wiring]
        return "orders" not in wiring or kind in wiring["orders"].rules

    def asked(self, command: str) -> pa.Table:
        """What callers asked by one command."""
        if command not in self._asked:
            callers = self.evidence.history.callers
            self._asked[command] = callers.filter(pc.equal(callers["command"], command))
        return self._asked[command]

    def orders_asked(self, command: str) -> Integers:
        """The order of each row of :meth:`asked`; -1 where the log does not know it."""
        found = pc.fill_null(pc.index_in(self.asked(command)["key"], value_set=self.ids), ABSENT)
        order: Integers = found.to_numpy().astype(np.int64)
        return order

    def contents(self, kind: str) -> pa.Array:
        """What the log says was asked for by facts of ``kind``, as a fingerprint per order; null where it does not say.

        Where orders come as commands, what answers the command says it.
        """
        facts, rows = self.requests, np.flatnonzero(self.requests.of(kind))
        if kind == "OrderRequested" and self.by_command:
            facts = self.orders
            lines = pc.fill_null(pc.list_value_length(facts.column("lines")), 0).to_numpy(zero_copy_only=False)
            rows = np.flatnonzero(facts.of("OrderValidated", "OrderRejected") & (lines > 0))
        order = self.order[facts.topic.name][rows]
        rows, order = rows[order != ABSENT], order[order != ABSENT]
        batch = pa.RecordBatch.from_arrays([facts.column(name).take(pa.array(rows)) for name in CONTENT], CONTENT)
        place = np.full(self.count, ABSENT)
        place[order[::-1]] = np.arange(len(order))[::-1]  # of several facts the first one counts
        found = pa.array(fingerprints(Columns(batch), CONTENT), pa.string())
        return found.take(pa.array(place, mask=place == ABSENT))

    @cached_property
    def requested(self) -> Mask:
        """Whether somebody asked for the order: by the log, or where orders are commands by the callers."""
        asked = np.zeros(self.count, bool)
        asked[self.orders_of(self.requests, "OrderRequested")] = True
        if self.by_command:
            placed = self.orders_asked("PlaceOrder")
            asked[placed[placed != ABSENT]] = True
        return asked

    @cached_property
    def steps(self) -> tuple[Integers, Integers, Integers, Integers]:
        """The facts of ``orders`` that move an order, sorted by order, then offset: row, order, kind, state before."""
        codes, names = self.orders.kinds
        kind_of = np.array([KINDS.index(name) if name in KINDS else ABSENT for name in names], np.int64)
        kinds, order = kind_of[codes], self.order["orders"]
        rows = np.flatnonzero((kinds != ABSENT) & (order != ABSENT))
        rows = rows[np.argsort(order[rows], kind="stable")]
        kinds, order = kinds[rows], order[rows]
        before = np.zeros(len(rows), np.int64)
        same = order[1:] == order[:-1]
        before[1:][same] = kinds[:-1][same] + 1
        return rows, order, kinds, before

    @cached_property
    def illegal(self) -> Mask:
        """Which of ``steps`` the table of transitions does not have."""
        _, _, kinds, before = self.steps
        return ~_ALLOWED[kinds, before]

    @cached_property
    def state(self) -> Integers:
        """The number of the state in which each order ends; *requested* where no step was taken."""
        _, order, kinds, _ = self.steps
        state = np.zeros(self.count, np.int64)
        state[order] = kinds + 1  # of repeated places the last one stays
        return state

    @property
    def known(self) -> Mask:
        """Which orders the log knows: they were requested, or took a step."""
        return self.requested | self.moved

    @cached_property
    def moved(self) -> Mask:
        """Whether ``orders`` knows the order at all."""
        moved = np.zeros(self.count, bool)
        moved[self.steps[1]] = True
        return moved

    def stands(self, *states: str) -> Mask:
        """Which orders stand in one of these states at the end."""
        return np.isin(self.state, [STATES.index(state) for state in states])

    @cached_property
    def ended(self) -> Mask:
        """Which orders have ended for good."""
        return self.stands(*ENDED)

    @cached_property
    def confirmed(self) -> Mask:
        """Which orders count as confirmed at the end."""
        return self.stands("confirmed", "shipped")

    @cached_property
    def amount(self) -> Integers:
        """The amount each order was validated with, minor units; 0 where it was not."""
        amount = np.zeros(self.count, np.int64)
        amount[self.orders_of(self.orders, "OrderValidated")] = self._amounts(self.orders, "OrderValidated")
        return amount

    def _amounts(self, facts: Facts, kind: str) -> Integers:
        chosen: Integers = facts.numbers("amount")[facts.of(kind) & (self.order[facts.topic.name] != ABSENT)]
        return chosen

    @cached_property
    def validated(self) -> Mask:
        """Which orders were ever validated."""
        return self.count_of(self.orders, "OrderValidated") > 0

    def first_time(self, facts: Facts, *kinds: str) -> Integers:
        """When the first fact of these kinds was decided (microseconds); the largest int64 where there is none."""
        times = np.full(self.count, np.iinfo(np.int64).max)
        order = self.order[facts.topic.name]
        mask = facts.of(*kinds) & (order != ABSENT)
        np.minimum.at(times, order[mask], facts.time[mask])
        return times


def stories(evidence: Evidence) -> Stories:
    """The orders of a run, worked out once."""
    return evidence.made("stories", Stories)


def line_sums(facts: Facts) -> Integers:
    """Per fact, the sum of quantity times unit price over its lines; 0 where it has none."""
    lines = facts.column("lines")
    flat = lines.flatten()
    quantity = flat.field("quantity").to_numpy(zero_copy_only=False).astype(np.int64)
    values = quantity * flat.field("unit_price").to_numpy(zero_copy_only=False).astype(np.int64)
    lengths = pc.fill_null(lines.value_lengths(), 0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths)
    running = np.concatenate([np.zeros(1, np.int64), np.cumsum(values)])
    sums: Integers = running[ends] - running[ends - lengths]
    return sums

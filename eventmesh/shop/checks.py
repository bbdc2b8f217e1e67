"""Group E: what the business promises, held against the log and what callers were told.

What needs the end of a run is only judged where the run was drained; else its verdict is unknown.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmesh.audit.evidence import ABSENT, Check, Evidence, Facts, Integers
from eventmesh.audit.verdict import CheckResult, Findings, Mask
from eventmesh.shop.caller_checks import callers_heard_right
from eventmesh.shop.cause_checks import causes_first
from eventmesh.shop.joined_checks import joined_values, wrong_decisions
from eventmesh.shop.orders import TRANSITIONS
from eventmesh.shop.stories import OUTCOMES, STATES, Stories, line_sums, stories

NOT_DRAINED = "the end of the run: it was not drained"


# --- E1: every order ends, once ---------------------------------------------------------------------


def orders_end_once(evidence: Evidence) -> CheckResult:
    """E1: every order ends in exactly one outcome, by legal steps; callers heard what the log says."""
    findings = Findings("E1", "every order request ends in exactly one of confirmed, rejected, cancelled")
    story = stories(evidence)
    findings.examined = int(np.count_nonzero(story.known))
    _legal_steps(story, findings)
    never_asked = story.moved & ~story.requested & (story.count_of(story.orders, "OrderCancelled") == 0)
    findings.flag_where(never_asked, lambda i: f"order {story.name(i)}: nobody asked for it")
    callers_heard_right(story, findings)
    if not evidence.history.drained:
        findings.lacks(NOT_DRAINED)
        return findings.result()
    open_still = story.known & ~story.stands(*OUTCOMES)
    findings.flag_where(open_still, lambda i: f"order {story.name(i)}: still {STATES[story.state[i]]} at the end")
    return findings.result()


def _legal_steps(story: Stories, findings: Findings) -> None:
    rows, _, _, before = story.steps
    findings.flag_where(story.illegal, lambda i: f"{story.orders.say(rows[i])}: follows {STATES[before[i]]}")


# --- E2: money --------------------------------------------------------------------------------------


def money_adds_up(evidence: Evidence) -> CheckResult:
    """E2: an order is charged once if and only if it was confirmed, with the sum of its lines."""
    findings = Findings("E2", "charged once if and only if confirmed, with the amount of the lines")
    story = stories(evidence)
    captured, refunded = (story.count_of(story.payments, kind) for kind in ("PaymentCaptured", "PaymentRefunded"))
    findings.examined = int(np.count_nonzero(story.known))
    findings.flag_where(captured > 1, lambda i: f"order {story.name(i)}: captured {captured[i]} times")
    findings.flag_where(
        refunded > captured,
        lambda i: f"order {story.name(i)}: refunded {refunded[i]} times, captured {captured[i]}",
    )
    _amounts(story, findings)
    if not evidence.history.drained:
        findings.lacks(NOT_DRAINED)
        return findings.result()
    net = story.sum_of(story.payments, "amount", "PaymentCaptured") - story.sum_of(
        story.payments, "amount", "PaymentRefunded"
    )
    due = np.where(story.confirmed, story.amount, 0)
    findings.flag_where(
        net != due,
        lambda i: f"order {story.name(i)}: {STATES[story.state[i]]}, {net[i]} charged where {due[i]} is due",
    )
    return findings.result()


def _amounts(story: Stories, findings: Findings) -> None:
    for facts, kind in ((story.requests, "OrderRequested"), (story.orders, "OrderValidated")):
        stated, sums = facts.numbers("amount"), line_sums(facts)
        wrong = facts.of(kind) & (stated != sums)
        findings.flag_where(wrong, lambda i, f=facts, a=stated, s=sums: f"{f.say(i)}: amount {a[i]}, lines {s[i]}")  # type: ignore[misc]
    for facts, kind in (
        (story.requests, "OrderRequested"),
        (story.orders, "OrderReserved"),
        (story.payments, "PaymentCaptured"),
    ):
        order = story.order[facts.topic.name]
        must = facts.of(kind) & (np.append(story.validated, False)[order] | (kind != "OrderRequested"))
        due = np.append(story.amount, 0)[order]
        wrong = must & (facts.numbers("amount") != due)
        findings.flag_where(wrong, lambda i, f=facts, d=due: f"{f.say(i)}: the order was validated with {d[i]}")  # type: ignore[misc]


# --- E3: stock --------------------------------------------------------------------------------------

#: What one unit of a fact's quantity does to on_hand and to reserved.
_MOVES: dict[str, tuple[int, int]] = {
    "StockRestocked": (1, 0),
    "StockReturned": (1, 0),
    "StockReserved": (0, 1),
    "StockReleased": (0, -1),
    "StockShipped": (-1, -1),
    "StockShort": (0, 0),
}


def stock_adds_up(evidence: Evidence) -> CheckResult:
    """E3: per SKU at every fact, initial + restocked + returned = on hand + shipped, and so for what is reserved."""
    findings = Findings("E3", "stock adds up per SKU at every point; nothing stays reserved for an ended order")
    story = stories(evidence)
    stock = story.stock
    sku, names = stock.coded("sku")
    rows = np.flatnonzero((sku != ABSENT) & stock.of(*_MOVES))
    rows = rows[np.argsort(sku[rows], kind="stable")]
    findings.examined = len(rows)
    quantity = stock.numbers("quantity")
    _no_negative_moves(stock, quantity, findings)
    running = _running(stock, sku, rows, quantity)
    for name, expected in running.items():
        stated = stock.numbers(name)[rows]
        findings.flag_where(
            stated != expected,
            lambda i, s=stated, e=expected, n=name: (  # type: ignore[misc]
                f"{stock.say(int(rows[i]))}: {n} {s[i]}, by the facts {e[i]}"
            ),
        )
    on_hand, reserved = running["on_hand"], running["reserved"]
    findings.flag_where(
        (reserved < 0) | (reserved > on_hand),
        lambda i: f"{stock.say(rows[i])}: {names[sku[rows[i]]]} has {on_hand[i]} on hand, {reserved[i]} reserved",
    )
    _nothing_stays(story, quantity, findings)
    if not evidence.history.drained:
        findings.lacks(NOT_DRAINED)
    return findings.result()


def _no_negative_moves(stock: Facts, quantity: Integers, findings: Findings) -> None:
    wrong = stock.of(*_MOVES) & (quantity < 0)
    findings.flag_where(wrong, lambda i: f"{stock.say(i)}: quantity {quantity[i]}")


def _running(stock: Facts, sku: Integers, rows: Integers, quantity: Integers) -> dict[str, Integers]:
    """The level after each of ``rows`` (sorted by SKU), from the quantities alone."""
    codes, kinds = stock.kinds
    factors = np.array([_MOVES.get(kind, (0, 0)) for kind in kinds], np.int64).reshape(-1, 2)[codes[rows]]
    first = np.ones(len(rows), bool)
    first[1:] = sku[rows[1:]] != sku[rows[:-1]]
    group = np.cumsum(first) - 1
    levels = {}
    for name, factor in zip(("on_hand", "reserved"), factors.T, strict=True):
        moves = factor * quantity[rows]
        total = np.cumsum(moves)
        levels[name] = total - (total - moves)[first][group]
    return levels


def _nothing_stays(story: Stories, quantity: Integers, findings: Findings) -> None:
    """Per order line, what was reserved and not given back or shipped; an ended order holds nothing."""
    stock = story.stock
    order = story.order["stock"]
    rows = np.flatnonzero((order != ABSENT) & stock.of("StockReserved", "StockReleased", "StockShipped"))
    sign = np.where(stock.of("StockReserved"), 1, -1)[rows]
    lines, place = np.unique(packed(order[rows], stock.numbers("line_number")[rows]), return_inverse=True)
    held = np.zeros(len(lines), np.int64)
    np.add.at(held, place, sign * quantity[rows])
    example = np.zeros(len(lines), np.int64)
    example[place] = rows
    of_order = order[example]
    findings.flag_where(held < 0, lambda i: f"{stock.say(example[i])}: gave back {-held[i]} more than was reserved")
    if story.evidence.history.drained:
        stays = (held > 0) & story.ended[of_order]
        findings.flag_where(
            stays,
            lambda i: (
                f"order {story.name(of_order[i])}: {STATES[story.state[of_order[i]]]}, "
                f"{held[i]} stay reserved since {stock.say(example[i])}"
            ),
        )


def packed(*columns: Integers) -> Integers:
    """Several columns as one, equal where all are equal; for finding repeats quickly."""
    result = columns[0]
    for column in columns[1:]:
        low = int(column.min(initial=0))
        span = int(column.max(initial=0)) - low + 1
        if int(result.max(initial=0)) * span >= 2**62:
            result = np.unique(result, return_inverse=True)[1]
        result = result * span + (column - low)
    return result


def repeats(values: Integers) -> Mask:
    """Which items equal an earlier one."""
    again = np.zeros(len(values), bool)
    ordered = np.sort(values)
    if (ordered[1:] != ordered[:-1]).all():
        return again
    order = np.argsort(values, kind="stable")
    again[order[1:]] = values[order[1:]] == values[order[:-1]]
    return again


# --- E4: shipping -----------------------------------------------------------------------------------


def shipped_once(evidence: Evidence) -> CheckResult:
    """E4: exactly one shipment per confirmed order, none for another; shipped only what was dispatched."""
    findings = Findings("E4", "shipped once per confirmed order; never for another")
    story = stories(evidence)
    dispatched = story.count_of(story.shipments, "ShipmentDispatched")
    shipped = story.count_of(story.orders, "OrderShipped")
    findings.examined = int(np.count_nonzero(story.known))
    findings.flag_where(dispatched > 1, lambda i: f"order {story.name(i)}: dispatched {dispatched[i]} times")
    unsent = (shipped > 0) & (dispatched == 0)
    findings.flag_where(unsent, lambda i: f"order {story.name(i)}: shipped, but never dispatched")
    if not evidence.history.drained:
        findings.lacks(NOT_DRAINED)
        return findings.result()
    lacking = story.confirmed & (dispatched == 0) & (shipped == 0)
    findings.flag_where(lacking, lambda i: f"order {story.name(i)}: confirmed, but never dispatched")
    wrongly = ~story.confirmed & (dispatched > 0)
    findings.flag_where(wrongly, lambda i: f"order {story.name(i)}: dispatched, though {STATES[story.state[i]]}")
    return findings.result()


# --- E6: once ---------------------------------------------------------------------------------------

#: Per topic, of which kinds together an order has at most one fact.
_ONE_PER_ORDER: dict[str, list[tuple[str, ...]]] = {
    "order-requests": [("OrderRequested",), ("CancellationRequested",), ("ReturnRequested",)],
    "orders": [(kind,) for kind in TRANSITIONS],
    "payments": [("PaymentCaptured", "PaymentDeclined", "PaymentVoided"), ("PaymentRefunded",)],
    "shipments": [("ShipmentDispatched", "ShipmentRefused")],
}
_ONE_PER_LINE = [("StockReserved", "StockShort"), ("StockReleased",), ("StockShipped",)]


def inputs_took_effect_once(evidence: Evidence) -> CheckResult:
    """E6: no cause has the same effect twice, and no order or line the same step twice."""
    findings = Findings("E6", "each input took effect once")
    story = stories(evidence)
    for topic in evidence.topics:
        _once_per_cause(evidence.facts(topic), findings)
    for topic, groups in _ONE_PER_ORDER.items():
        for kinds in groups:
            _once(evidence.facts(topic), kinds, [story.order[topic]], "order", findings)
    for kinds in _ONE_PER_LINE:
        _once(story.stock, kinds, [story.order["stock"], story.stock.numbers("line_number")], "line", findings)
    _deliveries_once(story.stock, findings)
    return findings.result()


def _own_restock(facts: Facts) -> Mask:
    """Restocks by inventory's own rule: one order may start several of one SKU, line by line."""
    if facts.topic.name != "stock":
        return np.zeros(len(facts), bool)
    by_rule = pc.fill_null(pc.starts_with(facts.column("reason"), "below "), False).to_numpy(zero_copy_only=False)
    own: Mask = by_rule & facts.of("StockRestocked")
    return own


def _once_per_cause(facts: Facts, findings: Findings) -> None:
    rows = np.flatnonzero(~_own_restock(facts))
    causes, kinds, keys = facts.causes[0], facts.kinds[0], facts.coded(facts.topic.key)[0]
    columns = [causes[rows], kinds[rows], keys[rows]]
    if "line_number" in facts.rows.schema.names:
        columns.append(facts.numbers("line_number")[rows])
    findings.examined += len(rows)
    findings.flag_where(repeats(packed(*columns)), lambda i: f"{facts.say(rows[i])}: its cause had this effect before")


def _once(facts: Facts, kinds: tuple[str, ...], columns: list[Integers], what: str, findings: Findings) -> None:
    rows = np.flatnonzero(facts.of(*kinds) & (columns[0] != ABSENT))
    again = repeats(packed(*(column[rows] for column in columns)))
    findings.flag_where(again, lambda i: f"{facts.say(rows[i])}: a second {' or '.join(kinds)} of the same {what}")


def _deliveries_once(stock: Facts, findings: Findings) -> None:
    rows = np.flatnonzero(stock.of("StockRestocked") & ~_own_restock(stock))
    again = repeats(stock.coded("reason")[0][rows])
    findings.flag_where(again, lambda i: f"{stock.say(rows[i])}: this delivery was taken in before")


# --- E9: two runs -----------------------------------------------------------------------------------


def outcomes(evidence: Evidence) -> pa.Table:
    """What became of each order: ``order_id`` (sorted), ``state``, and ``amount`` in minor units where confirmed."""
    story = stories(evidence)
    known = np.flatnonzero(story.known)
    states = [OUTCOMES.get(state, state) for state in STATES]
    state = pa.array([states[code] for code in story.state[known]], pa.string())
    amount = pa.array(story.amount[known], pa.int64(), mask=~story.confirmed[known])
    return pa.table({"order_id": story.ids.take(pa.array(known)), "state": state, "amount": amount}).sort_by("order_id")


def totals(evidence: Evidence) -> dict[str, int]:
    """For ``run.json``: how many orders ended in each state, and the value of the confirmed ones in minor units."""
    table = outcomes(evidence)
    counted = table.group_by("state").aggregate([("order_id", "count")])
    by_state = dict(zip(counted["state"].to_pylist(), counted["order_id_count"].to_pylist(), strict=True))
    return {**by_state, "confirmed_value_minor_units": pc.sum(table["amount"]).as_py() or 0}


def same_outcomes(first: pa.Table, second: pa.Table) -> CheckResult:
    """E9: two runs of the same orders, uncontended and without faults, end alike; tables as :func:`outcomes` gives."""
    findings = Findings("E9", "the wirings give the same terminal state and amount per order")
    here, there = (
        {order: (state, amount) for order, state, amount in zip(*table.to_pydict().values(), strict=True)}
        for table in (first, second)
    )
    findings.examined = len(here.keys() | there.keys())
    if here != there:
        for order in sorted(here.keys() | there.keys()):
            if here.get(order) != there.get(order):
                one, other = here.get(order, "unknown"), there.get(order, "unknown")
                findings.flag(f"order {order}: {one} in one, {other} in the other")
    return findings.result()


CHECKS: dict[str, Check] = {
    "E1": orders_end_once,
    "E2": money_adds_up,
    "E3": stock_adds_up,
    "E4": shipped_once,
    "E6": inputs_took_effect_once,
    "E7": causes_first,
    "E10": wrong_decisions,
    "E11": joined_values,
}
#: E7 holds facts of several services against their times, and E11 the time of an answer against its owner's.
TIMED_CHECKS = ("E7", "E11")

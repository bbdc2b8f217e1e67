"""Given an order id that comes again, then the same order is a repeat, another one is refused; nothing is twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eventmesh.lab.simulated_run import Crashes
from eventmesh.log.store import LogReader
from eventmesh.runtime.simulated.simulation import Simulation
from eventmesh.shop import memory
from eventmesh.shop.facts import ListPrice
from eventmesh.workload import Requests
from tests.simulation.scenario import WIRINGS, shop
from tests.simulation.standing_story import ONE, Asked, Line, Standing, counted, told

ORDERS = (Asked("1001"), Asked("1002", (("A", 2, 100), ("B", 1, 50))))


@pytest.fixture(params=WIRINGS)
def standing(request: pytest.FixtureRequest) -> Standing:
    return Standing(shop(request.param, "os", 0, False))


def test_a_file_that_comes_again_is_answered_as_before_and_counted_apart(standing: Standing) -> None:
    first = standing.run(*ORDERS)
    assert told(first) == [("1001", "confirmed", False), ("1002", "confirmed", False)]
    second = standing.run(*ORDERS)
    assert told(second) == [("1001", "confirmed", True), ("1002", "confirmed", True)]
    assert counted(first) == {"confirmed": 2}
    assert counted(second) == {"repeated": 2}
    assert standing.stock() == {"A": 0, "B": 0}
    assert standing.audit().describe() == "audit: valid"


@pytest.mark.parametrize(
    ("lines", "customer", "differs"),
    [
        ((("B", 7, 900),), "c2", "with another customer and other lines"),
        (ONE, "c2", "with another customer."),
        (ONE, None, "with another customer."),
        ((("A", 2, 100),), "c1", "with other lines."),
        ((("A", 1, 101),), "c1", "with other lines."),
        ((("A", 1, 100), ("A", 1, 100)), "c1", "with other lines."),
    ],
)
def test_another_order_under_the_same_id_is_refused_on_record(
    standing: Standing, lines: tuple[Line, ...], customer: str | None, differs: str
) -> None:
    standing.run(*ORDERS)
    told_now = standing.run(Asked("1001", lines, customer), Asked("1003"))
    assert told(told_now) == [("1001", "refused", False), ("1003", "confirmed", False)]
    assert counted(told_now) == {"refused": 1, "confirmed": 1}
    assert "idempotency key reused: order 1001 was asked for before, " + differs in told_now[0]["reason"]
    [refusal] = [*standing.facts("order-requests", "InputRefused"), *standing.facts("orders", "InputRefused")]
    assert (refusal["correlationid"], refusal["reason"]) == ("1001", told_now[0]["reason"].removeprefix("refused: "))
    [validated] = [fact for fact in standing.facts("orders", "OrderValidated") if fact["order_id"] == "1001"]
    assert (validated["customer_id"], validated["amount"]) == ("c1", 100)
    assert standing.stock() == {"A": 0, "B": 0}, "nothing was brought in for what was refused"
    assert standing.audit().describe() == "audit: valid"


@pytest.mark.parametrize(
    "again",
    [
        Asked("1002", (("B", 1, 50), ("A", 2, 100))),  # its lines in another order
        Asked("1002", ORDERS[1].lines, at=5),  # asked at another time
        Asked("1002", ORDERS[1].lines, country="Peru"),  # its customer has moved
    ],
)
def test_what_the_order_is_for_counts_and_not_how_or_when_it_was_said(standing: Standing, again: Asked) -> None:
    standing.run(*ORDERS)
    assert told(standing.run(again)) == [("1002", "confirmed", True)]
    assert standing.audit().describe() == "audit: valid"


def test_whoever_else_is_in_the_batch_changes_nothing(standing: Standing) -> None:
    """Two of one id and another order under it, all at once: the first is the first."""
    other = Asked("1", (("A", 9, 100),))
    rows = standing.run(Asked("1"), Asked("1"), other, Asked("2"), Asked("1"), other)
    assert told(rows) == [
        ("1", "confirmed", False), ("1", "confirmed", True), ("1", "refused", False), ("2", "confirmed", False),
        ("1", "confirmed", True), ("1", "refused", False),
    ]  # fmt: skip
    assert standing.stock() == {"A": 0}, "brought in for the first of each id"
    assert standing.audit().describe() == "audit: valid"


def test_a_repeat_of_what_is_still_open_is_told_its_outcome(standing: Standing) -> None:
    """At 1,000 a second each comes before the one before has ended."""
    rows = standing.run(*(Asked("1") for _ in range(5)), rate=1_000)
    assert told(rows) == [("1", "confirmed", False), *[("1", "confirmed", True)] * 4]
    assert standing.audit().describe() == "audit: valid"


def test_a_rejected_order_stays_rejected_and_its_id_is_taken(standing: Standing) -> None:
    standing.run(Asked("0"))
    standing.seed(replace(standing.workload(Asked("1")), seeding=[]))
    workload = standing.workload(Asked("1"))
    standing.simulation.call("short", workload.load)  # nothing is brought in for it
    standing.loads.append("short")
    standing.simulation.drain()
    again = standing.run(Asked("1"), Asked("1", (("A", 2, 100),)))
    assert told(again) == [("1", "rejected", True), ("1", "refused", False)]
    assert standing.audit().describe() == "audit: valid"


def test_returns_and_cancellations_have_ids_as_well(standing: Standing) -> None:
    asked = (Asked("1"), Asked("C1", kind="return"), Asked("2"), Asked("2", (), kind="cancel"))
    first = standing.run(*asked, rate=10)
    assert [row["repeated"] for row in first] == [False] * 4
    second = standing.run(*asked, Asked("C1", (("A", 2, 100),), kind="return"))
    assert [row["repeated"] for row in second] == [*[True] * 4, False]
    assert counted(second) == {"repeated": 4, "refused": 1}
    assert "return C1 was asked for before, with other lines" in second[-1]["reason"]
    assert [row["outcome"] for row in second[:4]] == [row["outcome"] for row in first]
    assert standing.audit().describe() == "audit: valid"


def test_of_two_files_that_overlap_only_the_new_orders_are_brought_in(standing: Standing) -> None:
    old = [Asked(f"o{number}", (("A", number + 1, 100),)) for number in range(9)]
    standing.run(*old)
    before = len(standing.facts("stock", "StockRestocked"))
    rows = standing.run(*old, Asked("new", (("A", 3, 100),)))
    assert counted(rows) == {"repeated": 9, "confirmed": 1}
    [restocked] = standing.facts("stock", "StockRestocked")[before:]
    assert restocked["quantity"] == 3
    assert standing.audit().describe() == "audit: valid"


def test_seeding_whose_load_never_came_is_not_done_twice(standing: Standing) -> None:
    standing.seed(standing.workload(*ORDERS))
    assert counted(standing.run(*ORDERS)) == {"confirmed": 2}
    assert standing.stock() == {"A": 0, "B": 0}
    assert standing.audit().describe() == "audit: valid"


@pytest.mark.parametrize("wiring", WIRINGS)
def test_what_was_asked_is_known_after_a_restart_with_a_snapshot_or_without(wiring: str) -> None:
    for snapshot_rows in (None, 3):
        standing = Standing(shop(wiring, "os", 0, False, snapshot_rows=snapshot_rows))
        standing.run(*ORDERS)
        for host in standing.simulation.hosts.values():
            standing.simulation.kill(host)
        rows = standing.run(*ORDERS, Asked("1001", ONE, "c2"))
        assert told(rows) == [("1001", "confirmed", True), ("1002", "confirmed", True), ("1001", "refused", False)]
        assert standing.audit().describe() == "audit: valid"


@pytest.mark.parametrize("wiring", ["views", "hybrid"])
def test_an_order_that_nobody_remembers_is_no_repeat_and_no_new_order(
    wiring: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "KEPT_MIN", 1)
    standing = Standing(shop(wiring, "os", 0, False))
    standing.run(*ORDERS)
    later = standing.simulation.world.now + 3_600_000_001  # more than the hour that an order is remembered at least
    standing.simulation.world.at(later, lambda: None)
    standing.simulation.run_until(lambda: standing.simulation.world.now >= later, seconds=4_000)
    standing.run(*(Asked(f"later-{number}") for number in range(9)))
    [row] = standing.run(ORDERS[0])
    assert row["outcome"] == "refused"
    assert "idempotency key reused: order 1001 has ended long ago" in row["reason"]
    assert standing.audit().describe() == "audit: valid"


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("seed", range(6))
def test_whatever_dies_each_id_is_taken_once_for_what_was_asked_first(wiring: str, seed: int) -> None:
    """Callers, services, broker: all are killed while orders, returns and cancellations come twice and thrice.

    What was sent first may well come last; of two things asked under one id, whichever comes first is meant by it.
    """
    mesh = shop(wiring, "os", 50, False, snapshot_rows=(None, 5)[seed % 2])
    scarce = [Asked(f"o{number}", (("A", 1 + number % 3, 100),), f"c{number % 4}") for number in range(12)]
    ended = [Asked(f"o{number}", (), kind="cancel") for number in range(0, 12, 4)]
    back = [Asked(f"C{number}", ONE, kind="return") for number in range(3)]
    others = [replace(each, customer="somebody else") for each in (*scarce, *back)]
    asked = [*scarce, *ended, *back, *scarce, *others, *ended, *back, *scarce]
    standing = Standing(mesh, seed)
    standing.crashes = Crashes(10, broker_share=0.2, caller_share=0.2)
    rows = standing.run(*asked, rate=(200.0, 2_000.0)[seed % 2], stock_fraction=0.7)
    assert standing.audit().describe() == "audit: valid"
    for name in {(row["command"], row["key"]) for row in rows}:
        own = [row for row in rows if (row["command"], row["key"]) == name]
        heard = [row for row in own if row["outcome"] != "refused"]
        if wiring == "request" and {row["outcome"] for row in heard} == {"cancelled"}:
            continue  # it may have been cancelled before it came: then nobody knows what was to be in it
        assert [row["repeated"] for row in heard].count(False) == 1, own
        assert {row["content"] for row in heard}.isdisjoint(row["content"] for row in own if row not in heard)


def test_a_price_that_comes_a_second_time_does_not_undo_a_later_one() -> None:
    """Its command was repeated by a caller who had not heard the answer, after the price had changed once more."""
    simulation = Simulation(shop("views", "os", 0, restocks=False, snapshot_rows=2), seed=1)
    for name, price in (("first", 100), ("second", 200), ("first", 100)):  # one name: the same ids of commands
        simulation.call(name, Requests.of([ListPrice("S1", price)]))
        simulation.drain()
        simulation.kill(simulation.hosts["catalog", 0])
        simulation.drain()
    reader = LogReader.of(simulation.storage)
    partitions = range(simulation.topics["prices"].partitions)
    rows = [row for number in partitions for row in reader.table("prices", number).to_pylist()]
    assert [row["list_price"] for row in rows if row["type"] == "PriceListed"] == [100, 200]

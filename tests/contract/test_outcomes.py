"""Given a mesh without faults, then its outcomes are those of the business, whatever the wiring."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest

from eventmesh.lab.audit import Evidence
from eventmesh.log.batch import Header
from eventmesh.runtime.caller import Workload, WorkloadOptions
from eventmesh.runtime.requests import Requests
from eventmesh.shop.checks import outcomes, same_outcomes
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workload import of_history
from tests.contract.conftest import DescribeMesh, Finished, Runtime
from tests.tiny import workload as library_workload

WIRINGS = ("views", "hybrid", "request")


def orders(count: int = 40, rate: float = 300.0, **traits: int) -> Workload:
    return of_history(generate(count, seed=3, products=20, customers=10, guest_permille=200, **traits), rate=rate)


def of(finished: Finished) -> object:
    return outcomes(Evidence(finished.mesh, finished.reader, finished.history))


def test_every_wiring_gives_the_same_outcomes(runtime: Runtime, shop: DescribeMesh) -> None:
    runs = [runtime(shop(wiring, payments={"decline_permille": 200}), orders()) for wiring in WIRINGS]
    assert [run.audit().describe() for run in runs] == ["audit: valid"] * 3
    for one, other in itertools.pairwise(runs):
        compared = same_outcomes(of(one), of(other))
        assert compared.verdict == "valid", compared.examples
        assert compared.examined == 40
    assert {row["outcome"] for row in runs[0].callers("PlaceOrder")} == {"confirmed", "rejected"}


@pytest.mark.parametrize("runtime", ["simulated"], indirect=True)
def test_another_outcome_would_be_seen(runtime: Runtime, shop: DescribeMesh) -> None:
    plain, declined = (runtime(shop("views", payments={"decline_permille": d}), orders(10)) for d in (0, 1000))
    assert same_outcomes(of(plain), of(declined)).violations == 10


@pytest.mark.parametrize("wiring", WIRINGS)
def test_accepted_means_written_down_before(runtime: Runtime, shop: DescribeMesh, wiring: str) -> None:
    run = runtime(shop(wiring), orders())
    topic, kind = ("orders", "OrderConfirmed") if wiring == "request" else ("order-requests", "OrderRequested")
    written = {fact["order_id"]: int(fact["time"].timestamp() * 1e6) for fact in run.facts(topic, kind)}
    told = {row["key"]: row["accepted_at"] for row in run.callers("PlaceOrder")}
    assert told
    assert all(written[order] < at for order, at in told.items())


@pytest.mark.parametrize("wiring", WIRINGS)
def test_the_same_order_twice_is_one_order_with_one_answer(runtime: Runtime, shop: DescribeMesh, wiring: str) -> None:
    once = orders(12)
    load = once.load
    # The same again at the same moment, and once more when all has long been settled.
    count = len(load)
    at = np.concatenate([load.at, load.at, load.at + 1_000_000])
    by_time = np.argsort(at, kind="stable")
    again = load.take(by_time % count)
    tripled = Requests(again.commands, again.keys, again.payload, at[by_time])
    run = runtime(shop(wiring), Workload(once.seeding, tripled))
    answers: dict[str, set[str]] = {}
    for row in run.callers("PlaceOrder"):
        answers.setdefault(row["key"], set()).add(row["outcome"])
    assert answers == {key: {"confirmed"} for key in load.keys}
    assert len(run.facts("orders", "OrderValidated")) == len(run.facts("payments", "PaymentCaptured")) == 12
    assert run.audit().verdict == "valid"


@pytest.mark.parametrize("wiring", WIRINGS)
def test_an_order_can_be_cancelled_in_every_state(runtime: Runtime, shop: DescribeMesh, wiring: str) -> None:
    placed = orders(90, rate=100.0)
    count = len(placed.load)
    # Cancelled from 2 ms before it is placed to 28 ms after, when it has long been shipped.
    cancelled = placed.load.at + np.arange(count) * 333 - 2_000
    at = np.concatenate([placed.load.at, np.maximum(0, cancelled)])
    by_time = np.argsort(at, kind="stable")
    commands = [*placed.load.commands, *["CancelOrder"] * count]
    keys = [*placed.load.keys] * 2
    twice = pa.concat_batches([placed.load.payload] * 2)  # a cancellation reads the order id alone
    load = Requests(commands, keys, twice, at).take(by_time)
    run = runtime(shop(wiring), Workload(placed.seeding, load))
    assert run.audit().describe() == "audit: valid"
    outcomes = {row["outcome"] for row in run.callers("PlaceOrder")}
    assert outcomes <= {"confirmed", "cancelled"}
    if run.virtual:  # on a real clock nobody knows which states an order was caught in
        before = states_when_cancelled(run)
        assert {None, "OrderValidated", "OrderConfirmed", "OrderShipped"} <= before, before
        assert len(outcomes) == 2


def states_when_cancelled(run: Finished) -> set[str | None]:
    """The last fact of each order before it was (or was being) cancelled; its last at all where it never was."""
    last: dict[str, str | None] = {}
    found: set[str | None] = set()
    for fact in run.facts("orders"):
        if fact["type"] in ("OrderCancelled", "OrderCancelling"):
            found.add(last.get(fact["order_id"]))
        last[fact["order_id"]] = fact["type"]
    return found | {kind for kind in last.values() if kind == "OrderShipped"}


def test_two_instances_of_each_service_share_its_partitions(runtime: Runtime, shop: DescribeMesh) -> None:
    shared = {service: {"instances": 2} for service in ("gateway", "orders", "inventory", "payments", "shipping")}
    run = runtime(shop("views", **shared), orders(30))
    assert run.audit().describe() == "audit: valid"
    assert {row["outcome"] for row in run.callers("PlaceOrder")} == {"confirmed"}
    writers = {header.incarnation for number in (0, 1) for header in headers(run, "orders", number)}
    assert len(writers) == 2, "a process per partition"


def headers(run: Finished, topic: str, partition: int) -> list[Header]:
    """The headers of all batches of a partition."""
    return [entry.header for entry in run.reader.batches(topic, partition)]


@pytest.mark.parametrize("wiring", ["events", "asking"])
def test_another_trade_runs_by_the_same_rules(runtime: Runtime, library: DescribeMesh, wiring: str) -> None:
    run = runtime(library(wiring), library_workload(WorkloadOptions(seed=1, orders=60, rate=2_000.0)))
    assert run.audit().describe() == "audit: valid"
    assert {name[0] for name in run.audit().checks} == {"A", "D", "E"}, (
        "the framework's checks alone, without the shop's"
    )
    lent, refused = (len(run.facts("copies", kind)) for kind in ("CopyLent", "CopyRefused"))
    told = [row["outcome"] for row in run.callers("Borrow")]
    assert lent + refused == 60
    assert (told.count("granted"), told.count("declined")) == (lent, refused)
    assert lent == sum(fact["copies"] for fact in run.facts("copies", "CopiesBought"))

"""Given a mesh without faults, then its outcomes are those of the business, whatever the wiring and the runtime."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from eventmesh.audit.audit import Evidence
from eventmesh.log.batch import Header
from eventmesh.shop.checks import outcomes, same_outcomes
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from eventmesh.workload import Requests, Workload
from tests.contract.conftest import RUNTIMES, DescribeMesh, Finished, Runtime, described_shop
from tests.tiny import workload as library_workload
from tests.tiny.workload import LoanOptions

WIRINGS = ("views", "hybrid", "request")
#: Of the story's orders: placed once, placed three times, placed and cancelled.
PLAIN, THRICE, CANCELLED = range(40), range(40, 52), range(52, 142)
SECOND = 1_000_000


def story() -> Workload:
    """One load with everything in it, since bringing a mesh to life takes longer than what any of it asks.

    Those that come three times: twice at the same moment, and once more when all has long been settled. Those that are
    cancelled: from 2 ms before they are placed to 28 ms after, when they have long been shipped.
    """
    once = of_history(generate(142, seed=3, products=20, customers=10, guest_permille=200), rate=300.0)
    placed = np.arange(142) * 3_333
    placed[CANCELLED.start :] = placed[CANCELLED.start] + np.arange(len(CANCELLED)) * 10_000
    twice = placed[THRICE.start : THRICE.stop]
    cancelled = placed[CANCELLED.start :] + np.arange(len(CANCELLED)) * 333 - 2_000
    at = np.concatenate([placed, twice, twice + 2 * SECOND, cancelled])
    orders = np.array([*range(142), *THRICE, *THRICE, *CANCELLED])
    commands = ["PlaceOrder"] * (len(orders) - len(CANCELLED)) + ["CancelOrder"] * len(CANCELLED)
    asked = once.load.take(orders)  # a cancellation reads the order id alone
    by_time = np.argsort(at, kind="stable")
    return Workload(once.seeding, Requests(commands, asked.keys, asked.payload, at).take(by_time))


STORY = story()


def keys(places: range) -> set[str]:
    """The ids of these orders."""
    table = generate(142, seed=3, products=20, customers=10, guest_permille=200).requests
    return set(table["order_id"].to_pylist()[places.start : places.stop])


Stories = Callable[[str, str], Finished]


@pytest.fixture(scope="module")
def stories(request: pytest.FixtureRequest) -> Stories:
    """``stories(runtime, wiring)``: the story's run, which all tests look at."""
    runs: dict[tuple[str, str], Finished] = {}

    def run(runtime: str, wiring: str) -> Finished:
        if (runtime, wiring) not in runs:
            mesh = described_shop(wiring, payments={"decline_permille": 200})
            runs[runtime, wiring] = RUNTIMES[runtime](request)(mesh, STORY)
        return runs[runtime, wiring]

    return run


@pytest.fixture(params=itertools.product(RUNTIMES, WIRINGS), ids="-".join)
def told(request: pytest.FixtureRequest, stories: Stories) -> Finished:
    """The story, on every runtime in every wiring."""
    return stories(*request.param)


def of(finished: Finished) -> pa.Table:
    return outcomes(Evidence(finished.mesh, finished.reader, finished.history))


@pytest.mark.timeout(180)
def test_the_audit_finds_nothing(told: Finished) -> None:
    assert told.audit().describe() == "audit: valid"


@pytest.mark.timeout(600)
def test_every_wiring_gives_the_same_outcomes_on_every_runtime(stories: Stories) -> None:
    """Which state a cancellation finds its order in, only the clock can say: those are left out."""
    steady = pa.array(keys(PLAIN) | keys(THRICE))
    tables = [of(stories(*each)) for each in itertools.product(RUNTIMES, WIRINGS)]
    tables = [table.filter(pc.is_in(table["order_id"], steady)) for table in tables]
    for one, other in itertools.pairwise(tables):
        compared = same_outcomes(one, other)
        assert compared.verdict == "valid", compared.examples
        assert compared.examined == 52
    assert set(tables[0]["state"].to_pylist()) == {"confirmed", "rejected"}


@pytest.mark.parametrize("runtime", ["simulated"], indirect=True)
def test_another_outcome_would_be_seen(runtime: Runtime, shop: DescribeMesh) -> None:
    orders = of_history(generate(10, seed=3, products=20), rate=300.0)
    plain, declined = (runtime(shop("views", payments={"decline_permille": d}), orders) for d in (0, 1000))
    assert same_outcomes(of(plain), of(declined)).violations == 10


def test_accepted_means_written_down_before(told: Finished) -> None:
    asking = told.mesh.wiring == "request"
    topic, kinds = (
        ("orders", ("OrderConfirmed", "OrderRejected")) if asking else ("order-requests", ("OrderRequested",))
    )
    written = {fact["order_id"]: int(fact["time"].timestamp() * 1e6) for fact in told.facts(topic, *kinds)}
    accepted = {row["key"]: row["accepted_at"] for row in told.callers("PlaceOrder") if row["key"] in keys(PLAIN)}
    assert len(accepted) == len(PLAIN)
    assert all(written[order] < at for order, at in accepted.items())


def test_the_same_order_three_times_is_one_order_with_one_answer(told: Finished) -> None:
    asked, answers = keys(THRICE), dict[str, list[tuple[bool, str]]]()
    for row in told.callers("PlaceOrder"):
        if row["key"] in asked:
            answers.setdefault(row["key"], []).append((row["repeated"], row["outcome"]))
    assert answers.keys() == asked
    for each in answers.values():
        assert sorted(repeated for repeated, _ in each) == [False, True, True]
        assert len({outcome for _, outcome in each}) == 1
    for topic, kinds in {"orders": ("OrderValidated",), "payments": ("PaymentCaptured", "PaymentDeclined")}.items():
        decided = [fact["order_id"] for fact in told.facts(topic, *kinds) if fact["order_id"] in asked]
        assert sorted(decided) == sorted(asked)


def test_an_order_can_be_cancelled_in_every_state(told: Finished) -> None:
    asked = keys(CANCELLED)
    found = {row["outcome"] for row in told.callers("PlaceOrder") if row["key"] in asked}
    assert found <= {"confirmed", "cancelled", "rejected"}
    if told.virtual:  # on a real clock nobody knows which states an order was caught in
        before = states_when_cancelled(told, asked)
        assert {None, "OrderValidated", "OrderConfirmed", "OrderShipped"} <= before, before
        assert {"confirmed", "cancelled"} <= found


def states_when_cancelled(run: Finished, orders: set[str]) -> set[str | None]:
    """The last fact of each order before it was (or was being) cancelled; its last at all where it never was."""
    last: dict[str, str | None] = {}
    found: set[str | None] = set()
    for fact in (fact for fact in run.facts("orders") if fact["order_id"] in orders):
        if fact["type"] in ("OrderCancelled", "OrderCancelling"):
            found.add(last.get(fact["order_id"]))
        last[fact["order_id"]] = fact["type"]
    return found | {kind for kind in last.values() if kind == "OrderShipped"}


def test_two_instances_of_each_service_share_its_partitions(runtime: Runtime, shop: DescribeMesh) -> None:
    shared = {service: {"instances": 2} for service in ("gateway", "orders", "inventory", "payments", "shipping")}
    run = runtime(shop("views", **shared), of_history(generate(30, seed=3, products=20), rate=300.0))
    assert run.audit().describe() == "audit: valid"
    assert {row["outcome"] for row in run.callers("PlaceOrder")} == {"confirmed"}
    writers = {header.incarnation for number in (0, 1) for header in headers(run, "orders", number)}
    assert len(writers) == 2, "a process per partition"


def headers(run: Finished, topic: str, partition: int) -> list[Header]:
    """The headers of all batches of a partition."""
    return [entry.header for entry in run.reader.batches(topic, partition)]


@pytest.mark.parametrize("wiring", ["events", "asking"])
def test_another_trade_runs_by_the_same_rules(runtime: Runtime, library: DescribeMesh, wiring: str) -> None:
    run = runtime(library(wiring), library_workload(LoanOptions(seed=1, loans=60, rate=2_000.0)))
    assert run.audit().describe() == "audit: valid"
    assert {name[0] for name in run.audit().checks} == {"A", "D", "E"}, (
        "the framework's checks alone, without the shop's"
    )
    lent, refused = (len(run.facts("copies", kind)) for kind in ("CopyLent", "CopyRefused"))
    told = [row["outcome"] for row in run.callers("Borrow")]
    assert lent + refused == 60
    assert (told.count("granted"), told.count("declined")) == (lent, refused)
    assert lent == sum(fact["copies"] for fact in run.facts("copies", "CopiesBought"))

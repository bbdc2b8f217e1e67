"""Given a mesh that runs, then what docs/promises.md says of single messages holds: P6, P8, and rule 16."""

from __future__ import annotations

from eventmesh.runtime.limits import Limits
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from eventmesh.workload import Requests
from tests.contract.conftest import DescribeMesh, Runtime, after
from tests.tiny import workload as library_workload
from tests.tiny.lending import Borrow, Buy, CopiesOf, GiveBack, HelpYourself, Lend
from tests.tiny.workload import LoanOptions


def test_a_query_cannot_change_anything(runtime: Runtime, library: DescribeMesh) -> None:
    bought = [Requests.of([Buy("Faust", 3)])]
    run = runtime(library(), after(bought, [HelpYourself("Faust")], [CopiesOf("Faust")]))
    (refused,) = run.callers("HelpYourself")
    assert refused["outcome"] == "refused"
    assert "TypeError" in refused["reason"]
    assert [row["outcome"] for row in run.callers("CopiesOf")] == ["3"], "the state is as it was"
    assert [fact["type"] for fact in run.facts("copies")] == ["CopiesBought"]


LOANS = [Borrow(f"loan-{n}", f"book-{n % 4}", 7) for n in range(24)]
BOOKS = [Requests.of([Buy(f"book-{n}", 9) for n in range(4)])]


def test_a_poisoned_fact_is_refused_on_record_and_the_partition_goes_on(
    runtime: Runtime, library: DescribeMesh
) -> None:
    # Three of these books were never lent; the shelf's rule breaks on each, in the middle of a batch.
    returned = [GiveBack(f"loan-{n}", f"book-{n % 4}") for n in (1, 2, 30, 3, 31, 4, 32)]
    run = runtime(library("events"), after(BOOKS, LOANS, returned, [LATER]))
    refused = run.facts("copies", "InputRefused")
    assert {fact["reason"] for fact in refused} == {
        f"ValueError: book-{n} came back and was never lent" for n in (30 % 4, 31 % 4, 32 % 4)
    }
    strange = [f for f in run.facts("loans", "LoanReturned") if f["loan_id"] in ("loan-30", "loan-31", "loan-32")]
    assert {fact["position"] for fact in refused} == {f"loans/{f['partition']}/{f['offset']}" for f in strange}
    assert {fact["loan_id"] for fact in run.facts("copies", "CopyReturned")} == {f"loan-{n}" for n in (1, 2, 3, 4)}
    assert {row["outcome"] for row in run.callers("Borrow")} == {"granted"}, "before and after"
    assert run.audit().describe() == "audit: valid"


LATER = Borrow("later", "book-1", 1)


def test_a_poisoned_command_is_its_callers_definite_no(runtime: Runtime, library: DescribeMesh) -> None:
    lend = [Lend(loan.loan_id, loan.book, 0 if n in (5, 11) else 7) for n, loan in enumerate(LOANS)]
    run = runtime(library("asking"), after(BOOKS, lend))
    told = [row["outcome"] for row in run.callers("Lend")]
    assert [n for n, outcome in enumerate(told) if outcome == "refused"] == [5, 11]
    assert told.count("granted") == 22
    assert len(run.facts("copies", "InputRefused")) == 2


def test_a_full_queue_says_so_and_nothing_is_lost(runtime: Runtime, library: DescribeMesh) -> None:
    loans = library_workload(LoanOptions(loans=3_300))
    run = runtime(library("events"), loans, limits=Limits(asks_queued_rows_max=600, appends_in_flight_max=1))
    throttled = [row["throttled"] for row in run.callers("Borrow")]
    assert sum(throttled) > 0, "the queue was never full: nothing was tested"
    assert len(run.facts("loans", "LoanRequested")) == len(run.facts("copies", "CopyLent", "CopyRefused")) == 3_300
    assert all(row["outcome"] in ("granted", "declined") for row in run.callers("Borrow"))
    assert run.audit().verdict == "valid"


def test_a_gateway_with_too_many_open_orders_says_so(runtime: Runtime, shop: DescribeMesh) -> None:
    orders = of_history(generate(24, seed=5, products=10, customers=5))
    run = runtime(shop("views", gateway={"open_orders_max": 3}), orders)
    assert sum(row["throttled"] for row in run.callers("PlaceOrder")) > 0
    assert {row["outcome"] for row in run.callers("PlaceOrder")} == {"confirmed"}
    assert run.audit().verdict == "valid"

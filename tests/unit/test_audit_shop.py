"""Given a day at the shop with one thing wrong, the audit of the business says what; near misses pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eventmesh.audit.verdict import CheckResult
from eventmesh.messages import fingerprint
from eventmesh.shop.checks import outcomes, same_outcomes
from eventmesh.shop.gateway import FORGOTTEN
from tests.unit.audit_story import LINES, Lines, Said, Story, a_day, command

ONE = [("s1", 1, 10)]


def opened(wiring: str = "views") -> Story:
    story = Story(wiring)
    story.seed({"s1": 50, "s2": 50})
    return story


def spoiled(kind: str, **changes: Any) -> Callable[[], Story]:
    """A day with one order that goes well but for one column of one kind of fact."""

    def tell() -> Story:
        story = opened()
        story.tweak[kind] = changes
        story.shipped("o1", ONE)
        return story

    return tell


def without(kind: str, end: str = "shipped") -> Callable[[], Story]:
    """A day with one order of which one kind of fact is missing."""

    def tell() -> Story:
        story = opened()
        story.skip = {kind}
        getattr(story, end)("o1", ONE)
        return story

    return tell


def with_more(*facts: tuple[str, str, dict[str, Any]], after: str = "shipped") -> Callable[[], Story]:
    """A day with one order, after whose end more is said of it."""

    def tell() -> Story:
        story = opened()
        getattr(story, after)("o1", ONE)
        for topic, kind, payload in facts:
            story.say(topic, kind, command(f"again:{kind}", "o1"), **{"order_id": "o1", **payload})
        return story

    return tell


def told(**changes: Any) -> Callable[[], Story]:
    """A day with one order that goes well, of which its caller remembers something else."""

    def tell() -> Story:
        story = opened()
        story.shipped("o1", ONE)
        story.calls[0].update(changes)
        return story

    return tell


def nobody_asked() -> Story:
    story = opened()
    story.skip = {"OrderRequested"}
    story.shipped("o1", ONE)
    story.calls.clear()
    return story


def sold_twice() -> Story:
    """Two orders hold what is there for one: the levels are told as if the other did not exist."""
    story = opened()
    story.until_reserved("o1", [("s1", 50, 1)])
    story.levels["s1"] = (50, 0)
    story.until_reserved("o2", [("s1", 50, 1)])
    return story


def below_nothing() -> Story:
    story = opened()
    story.until_reserved("o1", [("s1", 51, 1)])
    return story


def gave_back_too_much() -> Story:
    story = opened()
    story.until_reserved("o2", [("s1", 5, 1)])
    story.until_reserved("o1", ONE)
    story.move("StockReleased", command("x", "o1"), "s1", 3, reserved=-3, order_id="o1", line_number=0)
    return story


def the_same_effect_twice() -> Story:
    story = opened()
    story.until_confirmed("o1", ONE)
    cause = command("orders/0:ShipStock:o1:0", "o1")
    story.move("StockShipped", cause, "s1", 1, on_hand=-1, reserved=-1, order_id="o1", line_number=0)
    story.move("StockShipped", cause, "s1", 1, on_hand=-1, order_id="o1", line_number=0)
    return story


def a_delivery_twice() -> Story:
    story = opened()
    for attempt in ("first", "second"):
        story.move("StockRestocked", command(attempt), "s1", 5, on_hand=5, reason="delivery-7")
    return story


def never_sent() -> Story:
    story = opened()
    story.until_confirmed("o1", ONE)
    return story


def requested_twice() -> Story:
    story = opened()
    story.shipped("o1", ONE)
    story.say("order-requests", "OrderRequested", command("load:again", "o1"), order_id="o1", lines=ONE, amount=10)
    return story


def told_of(asked: str, fact: str | None, **changes: Any) -> Callable[[], Story]:
    """A day with one order, after which its caller asks something more of it and remembers something else."""

    def tell() -> Story:
        story = opened()
        story.shipped("o1", ONE)
        story.call(asked, "o1", "recorded")
        story.calls[-1].update(changes)
        if fact is not None:
            story.say("order-requests", fact, command(f"load:{asked}:o1", "o1"), order_id="o1")
        return story

    return tell


REUSED = "refused: idempotency key reused: order o1 was asked for before, with other lines"
TWO = [("s1", 2, 10)]


def asked_again(
    outcome: str, lines: Lines = ONE, *, wiring: str = "views", customer: str = "c1", **more: Any
) -> Callable[[], Story]:
    """An order that was shipped is asked for again, and told this."""

    def tell() -> Story:
        story = opened(wiring)
        story.skip = {"OrderRequested"} if wiring == "request" else set()
        story.shipped("o1", ONE)
        story.call("PlaceOrder", "o1", outcome, content=fingerprint(customer, lines), **more)
        return story

    return tell


def returned_again(outcome: str, lines: Lines = ONE, **more: Any) -> Callable[[], Story]:
    """The same of a return."""

    def tell() -> Story:
        story = opened()
        story.shipped("o1", ONE)
        content = fingerprint("c1", ONE)
        story.call("RequestReturn", "o1", "recorded", content=content)
        story.say("order-requests", "ReturnRequested", command("load:RequestReturn:o1", "o1"), order_id="o1",
                  customer_id="c1", lines=ONE, amount=10)  # fmt: skip
        story.call("RequestReturn", "o1", outcome, content=fingerprint("c1", lines), **more)
        return story

    return tell


def cancelled_again(**more: Any) -> Callable[[], Story]:
    """The same of a cancellation, which has no content."""

    def tell() -> Story:
        story = told_of("CancelOrder", "CancellationRequested")()
        story.call("CancelOrder", "o1", "recorded", **more)
        return story

    return tell


def stopped(end: str, outcome: str, **changes: Any) -> Callable[[], Story]:
    """A day where orders and cancellations are commands: one order, which its caller wants to stop."""

    def tell() -> Story:
        story = opened("request")
        story.skip = {"OrderRequested", "CancellationRequested"}
        if end == "cancelled":
            story.cancelled("o1", ONE, outcome)
        else:
            getattr(story, end)("o1", ONE)
            story.cancel("o1", outcome)
        story.calls[-1].update(changes)
        return story

    return tell


def a_cancellation_ignored() -> Story:
    """Orders reads it while the order is reserved, and the order is shipped all the same."""
    story = opened()
    story.until_reserved("o1", ONE)
    asked = story.cancel("o1")
    paid = story.say("payments", "PaymentCaptured", asked, order_id="o1", amount=10)
    assert paid is not None
    story.tweak["OrderConfirmed"] = {"progress": vector_past(asked)}
    confirmed = story.say("orders", "OrderConfirmed", paid, order_id="o1")
    assert confirmed is not None
    dispatched = story.say("shipments", "ShipmentDispatched", confirmed, order_id="o1")
    assert dispatched is not None
    story.settle("o1", ONE, dispatched, "StockShipped")
    story.say("orders", "OrderShipped", dispatched, order_id="o1")
    return story


def vector_past(said: Said) -> dict[str, Any]:
    """The vector of a writer that has read up to and including what was said."""
    assert said.position is not None
    name, offset = said.position
    return {"next": {name: offset + 1}}


def a_cancellation_of_nothing() -> Story:
    story = opened()
    story.cancel("o7")
    return story


CANARIES: list[tuple[str, Callable[[], Story], int, str]] = [
    # check, what happened, violations, what the audit says
    ("E1", without("OrderRejected", "declined"), 2, "still reserved"),
    ("E1", without("OrderConfirmed"), 2, "OrderShipped"),
    ("E1", with_more(("orders", "OrderRejected", {})), 1, "follows shipped"),
    ("E1", with_more(("orders", "OrderConfirmed", {}), after="cancelled"), 1, "follows cancelled"),
    ("E1", nobody_asked, 1, "nobody asked"),
    ("E1", told(outcome="rejected"), 1, "told rejected"),
    ("E1", told(outcome=None), 1, "unanswered"),
    ("E1", told(key="o9"), 1, "not in the log"),
    ("E1", told(outcome="shipped"), 1, "told shipped, which is no answer"),
    ("E1", told(outcome="refused"), 1, "told no, the log has it"),
    ("E1", told_of("CancelOrder", None), 1, "no CancellationRequested in the log"),
    ("E1", told_of("CancelOrder", "CancellationRequested", outcome="cancelled"), 1, "told cancelled, which is no"),
    ("E1", told_of("CancelOrder", "CancellationRequested", outcome="refused"), 1, "told no, the log has it"),
    ("E1", told_of("CancelOrder", "CancellationRequested", outcome=None), 1, "unanswered"),
    ("E1", told_of("RequestReturn", None), 1, "no ReturnRequested in the log"),
    ("E1", told_of("RequestReturn", "ReturnRequested", outcome="returned"), 1, "told returned, which is no answer"),
    ("E1", a_cancellation_ignored, 1, "orders has read it, and left the order confirmed"),
    ("E1", a_cancellation_of_nothing, 1, "orders has read it, and left the order requested"),
    ("E1", stopped("cancelled", "confirmed"), 1, "told confirmed, which is not its end: cancelled"),
    ("E1", stopped("shipped", "cancelled"), 1, "told cancelled, which is not its end: shipped"),
    ("E1", stopped("until_confirmed", "confirmed"), 1, "told confirmed, which is not its end: confirmed"),
    ("E1", stopped("shipped", "confirmed", key="o9"), 1, "not in the log"),
    ("E1", stopped("shipped", "recorded"), 1, "told recorded, which is no answer"),
    ("E1", asked_again("confirmed", TWO, repeated=True), 1, "told confirmed, but the log has something else under"),
    ("E1", asked_again("confirmed", TWO, repeated=None), 1, "told confirmed, but the log has something else under"),
    ("E1", asked_again("confirmed", customer="c2", repeated=True), 1, "the log has something else under this id"),
    ("E1", asked_again("confirmed", TWO, wiring="request", repeated=True), 1, "something else under this id"),
    ("E1", asked_again("confirmed"), 1, "told confirmed as if nobody had asked before"),
    ("E1", asked_again("confirmed", wiring="request"), 1, "told confirmed as if nobody had asked before"),
    ("E1", asked_again("refused", reason=REUSED), 1, "refused as something else under its id, but it asks for what"),
    ("E1", returned_again("recorded", TWO, repeated=True), 1, "the log has something else under this id"),
    ("E1", returned_again("recorded"), 1, "as if nobody had asked before"),
    ("E1", cancelled_again(), 1, "as if nobody had asked before"),
    ("E2", with_more(("payments", "PaymentCaptured", {"amount": 10})), 2, "captured 2 times"),
    ("E2", without("PaymentCaptured"), 1, "0 charged where 10 is due"),
    ("E2", without("PaymentRefunded", "cancelled"), 1, "10 charged where 0 is due"),
    ("E2", with_more(("payments", "PaymentRefunded", {"amount": 10})), 1, "0 charged where 10 is due"),
    ("E2", with_more(("payments", "PaymentRefunded", {"amount": 0}), after="declined"), 1, "refunded 1 times"),
    ("E2", spoiled("PaymentCaptured", amount=11), 2, "validated with 10"),
    ("E2", spoiled("OrderValidated", amount=11), 5, "amount 11, lines 10"),
    ("E2", spoiled("OrderRequested", amount=11), 2, "amount 11, lines 10"),
    ("E3", spoiled("StockReserved", reserved=2), 1, "reserved 2, by the facts 1"),
    ("E3", spoiled("StockReserved", on_hand=49), 1, "on_hand 49, by the facts 50"),
    ("E3", sold_twice, 2, "reserved 50, by the facts 100"),
    ("E3", below_nothing, 1, "50 on hand, 51 reserved"),
    ("E3", without("StockReleased", "cancelled"), 1, "stay reserved"),
    ("E3", without("StockShipped"), 1, "stay reserved"),
    ("E3", gave_back_too_much, 1, "2 more than was reserved"),
    ("E3", spoiled("StockReserved", quantity=-1), 6, "quantity -1"),
    ("E4", without("ShipmentDispatched"), 1, "shipped, but never dispatched"),
    ("E4", never_sent, 1, "confirmed, but never dispatched"),
    ("E4", with_more(("shipments", "ShipmentDispatched", {})), 1, "dispatched 2 times"),
    ("E4", with_more(("shipments", "ShipmentDispatched", {}), after="declined"), 1, "though rejected"),
    ("E5", spoiled("PaymentCaptured", source="orders"), 1, "the source is not payments"),
    ("E6", the_same_effect_twice, 2, "this effect before"),
    ("E6", a_delivery_twice, 1, "taken in before"),
    ("E6", requested_twice, 1, "a second OrderRequested"),
    ("E6", with_more(("payments", "PaymentDeclined", {"amount": 1})), 1, "a second PaymentCaptured or PaymentDeclined"),
    ("E6", with_more(("shipments", "ShipmentRefused", {})), 1, "a second ShipmentDispatched or ShipmentRefused"),
    ("E7", spoiled("OrderValidated", id="order-requests/0/77#0"), 1, "no fact at order-requests/0/77"),
    ("E7", spoiled("OrderValidated", causationid="another"), 1, "names another"),
    ("E7", spoiled("OrderRequested", causationid="another"), 1, "names another"),
    ("E7", spoiled("OrderValidated", correlationid="o2"), 1, "told as story 'o2'"),
    ("E7", spoiled("StockReserved", correlationid=None), 1, "told as story None"),
    ("E7", spoiled("OrderConfirmed", time=1), 2, "decided before its cause"),
    ("E7", without("PaymentCaptured"), 1, "OrderConfirmed before any PaymentCaptured"),
    ("E7", without("OrderShipped"), 1, "stops at confirmed"),
]


@pytest.mark.parametrize(
    ("check", "tell", "violations", "says"), CANARIES, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_given_one_thing_wrong_then_its_check_says_what(
    check: str, tell: Callable[[], Story], violations: int, says: str
) -> None:
    found = tell().check(check)
    assert found.violations == violations, found
    assert found.verdict == "invalid"
    assert any(says in example for example in found.examples), found.examples


# --- near misses --------------------------------------------------------------------------------------


def assert_valid(story: Story, *unlike: str) -> None:
    found = story.audit()
    wrong = {name for name, check in found.checks.items() if check.verdict != "valid"}
    assert wrong == set(unlike), found.describe()


def test_given_an_order_cancelled_before_it_came_then_it_ends_cancelled() -> None:
    story = opened()
    asked = story.say("order-requests", "CancellationRequested", command("cancel", "o1"), order_id="o1")
    assert asked is not None
    story.say("orders", "OrderCancelled", asked, order_id="o1", reason="requested by the caller")
    assert_valid(story)
    story.request("o1", ONE, "cancelled")  # and its late request finds that
    assert_valid(story)


def test_given_a_cancellation_that_came_too_late_then_the_order_is_shipped_and_paid() -> None:
    story = opened()
    confirmed = story.until_confirmed("o1", ONE)
    dispatched = story.say("shipments", "ShipmentDispatched", confirmed, order_id="o1")
    assert dispatched is not None
    story.settle("o1", ONE, dispatched, "StockShipped")
    asked = story.say("order-requests", "CancellationRequested", command("cancel", "o1"), order_id="o1")
    assert asked is not None
    story.say("orders", "OrderCancelling", asked, order_id="o1")
    story.say("orders", "OrderShipped", dispatched, order_id="o1")
    assert_valid(story)


def test_given_a_line_of_the_same_sku_twice_and_two_restocks_of_one_cause_then_nothing_is_wrong() -> None:
    story = opened()
    story.shipped("o1", [("s1", 1, 10), ("s1", 1, 10), ("s2", 1, 10)])
    request = story.request("o2", ONE)
    assert request is not None
    with story.one_append(request):
        for _ in range(2):  # by inventory's own rule, line by line
            story.move("StockRestocked", request, "s1", 5, on_hand=5, reason="below 20")
    assert story.check("E6").verdict == "valid"
    assert story.check("E3").verdict == "valid"


def test_given_all_that_happened_in_the_same_microsecond_then_causes_still_precede() -> None:
    story = opened()
    at = story.now + 1_000_000
    kinds = (
        "OrderRequested",
        "OrderValidated",
        "StockReserved",
        "OrderReserved",
        "PaymentCaptured",
        "OrderConfirmed",
        "ShipmentDispatched",
        "StockShipped",
        "OrderShipped",
    )
    story.tweak = {kind: {"time": at} for kind in kinds}
    story.shipped("o1", ONE)
    assert_valid(story)


def test_given_a_run_that_was_not_drained_then_what_needs_its_end_is_unknown_and_what_is_wrong_stays_wrong() -> None:
    story = opened()
    story.drained = False
    story.until_confirmed("o1", ONE)
    story.calls[0]["outcome"] = None
    found = story.audit().checks
    assert {name for name, check in found.items() if check.verdict == "unknown"} == {"E1", "E2", "E3", "E4", "E7"}
    assert all(check.violations == 0 for check in found.values())
    story.say("payments", "PaymentCaptured", command("again", "o1"), order_id="o1", amount=10)
    assert story.check("E2").verdict == "invalid"


@pytest.mark.parametrize(
    "tell",
    [
        asked_again("confirmed", repeated=True),
        asked_again("confirmed", repeated=True, wiring="request"),
        asked_again("confirmed", repeated=None),  # by callers of a version that did not know
        asked_again("refused", TWO, reason=REUSED, accepted_at=None),
        asked_again("refused", TWO, reason=REUSED, accepted_at=None, wiring="request"),
        asked_again("refused", reason=f"refused: idempotency key reused: order o1 {FORGOTTEN}", accepted_at=None),
        returned_again("recorded", repeated=True),
        returned_again("refused", TWO, reason=REUSED, accepted_at=None),
        cancelled_again(repeated=True),
    ],
)
def test_given_an_id_that_came_again_then_a_repeat_hears_the_same_and_another_request_hears_no(
    tell: Callable[[], Story],
) -> None:
    assert tell().check("E1").verdict == "valid", tell().check("E1").examples


def test_given_the_first_of_an_id_was_lost_with_its_caller_then_another_order_under_it_is_still_refused() -> None:
    story = asked_again("refused", TWO, reason=REUSED, accepted_at=None)()
    del story.calls[0]
    assert story.check("E1").verdict == "valid", story.check("E1").examples
    story.calls[0]["content"] = fingerprint("c1", ONE)
    assert story.check("E1").verdict == "invalid"


def test_given_orders_that_came_as_commands_then_callers_are_who_asked() -> None:
    story = opened("request")
    story.skip = {"OrderRequested"}
    story.shipped("o1", ONE)
    found = story.audit()
    # The story's facts name the lost request as their cause, as a command of that id.
    assert found.checks["E1"].verdict == "valid", found.describe()
    story.calls.clear()
    assert "nobody asked" in story.check("E1").examples[0]


def test_given_a_caller_who_was_refused_once_and_accepted_later_then_the_log_may_have_it() -> None:
    story = opened()
    story.call("PlaceOrder", "o1", "refused")
    story.calls[-1]["accepted_at"] = None
    story.call("PlaceOrder", "o9", "refused")  # and this one never came that far
    story.calls[-1]["accepted_at"] = None
    story.shipped("o1", ONE)
    assert_valid(story)


def test_given_a_cancellation_that_orders_has_not_read_yet_then_nothing_can_be_said_of_it() -> None:
    story = a_cancellation_of_nothing()
    assert story.check("E1").verdict == "invalid"
    story.drained = False
    found = story.check("E1")
    assert (found.verdict, found.violations) == ("unknown", 0)


@pytest.mark.parametrize(("end", "outcome"), [("cancelled", "cancelled"), ("shipped", "confirmed")])
def test_given_an_order_to_be_stopped_then_its_caller_hears_its_end(end: str, outcome: str) -> None:
    assert stopped(end, outcome)().check("E1").verdict == "valid"


def test_given_a_cancellation_that_orders_refused_on_record_then_the_order_may_go_on() -> None:
    def tell(**changes: Any) -> Story:
        story = opened()
        story.poison = True
        paid = story.until_reserved("o1", ONE)
        asked = story.cancel("o1")
        story.refuse(asked, "ValueError: no rule for o1", **changes)
        paid = story.say("payments", "PaymentCaptured", paid, order_id="o1", amount=10) or paid
        story.say("orders", "OrderConfirmed", paid, order_id="o1")
        return story

    assert tell().check("E1").verdict == "valid"
    assert "left the order reserved" in tell(position="order-requests/0/1").check("E1").examples[0]


# --- E9: two runs ---------------------------------------------------------------------------------------


def test_given_two_runs_that_end_alike_then_they_have_the_same_outcomes_whatever_the_way_there() -> None:
    first, second = a_day(), Story()
    second.seed({"s1": 80, "s2": 50})
    second.cancelled("o4", LINES)
    second.shipped("o5", LINES)
    second.short("o3", [("s1", 900, 10)])
    second.shipped("o1", LINES)
    second.declined("o2", LINES)
    found = same_outcomes(outcomes(first.evidence()), outcomes(second.evidence()))
    assert (found.verdict, found.examined) == ("valid", 5)


def test_given_another_state_amount_or_order_then_the_outcomes_differ() -> None:
    def run(*orders: tuple[str, str, int]) -> Story:
        story = opened()
        for order_id, end, price in orders:
            getattr(story, end)(order_id, [("s1", 1, price)])
        return story

    def compare(*orders: tuple[str, str, int]) -> CheckResult:
        return same_outcomes(outcomes(run(("o1", "shipped", 10)).evidence()), outcomes(run(*orders).evidence()))

    assert compare(("o1", "shipped", 10)).verdict == "valid"
    assert compare(("o1", "shipped", 11)).violations == 1
    assert compare(("o1", "cancelled", 10)).violations == 1
    assert compare(("o1", "shipped", 10), ("o2", "shipped", 10)).violations == 1


# --- E11: joined values ---------------------------------------------------------------------------------


def joined(wiring: str = "views", **changes: Any) -> CheckResult:
    """What E11 says of an order whose OrderValidated was changed; prices stood at 100 then."""
    story = opened(wiring)
    story.tweak["OrderValidated"] = changes
    story.shipped("o1", ONE)
    return story.check("E11")


PRICE, STOCK = (100, 1), (50, 1)  # of s1: value and version (offset 0 holds the grant)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"customer_country": "England"}, "as England"),
        ({"customer_version": 0}, "no such value"),
        ({"customer_version": -1, "customer_country": None}, "the view had read customers@1"),
        ({"customer_version": None, "customer_country": None}, "version None"),
        ({"joined_lines": [(99, 1, *STOCK)]}, "version 1 as 99"),
        ({"joined_lines": [(*PRICE, 49, 1)]}, "version 1 as 49"),
        ({"joined_lines": [(*PRICE, 50, 2)]}, "version 2"),  # the version of another SKU
        ({"joined_lines": [(None, -1, *STOCK)]}, "the view had read prices@1"),
        ({"joined_lines": [(None, None, *STOCK)]}, "prices 's1' at version None"),
        ({"joined_lines": [(50, -1, *STOCK)]}, "version -1 as 50"),
        ({"joined_lines": [(None, -2, *STOCK)]}, "version -2 as None; the log has no such value"),
        ({"joined_lines": []}, "1 lines, 0 of them joined"),
        ({"lines": [("s1", 2, 10)]}, "with other lines"),
        ({"joined_lines": None}, "1 lines, 0 of them joined"),
    ],
)
def test_given_a_joined_value_that_the_log_does_not_have_then_e11_says_so(changes: dict[str, Any], says: str) -> None:
    story = opened()
    story.say("orders", "OrderCancelled", command("before", "o0"), order_id="o0")  # says what the views had read
    story.tweak["OrderValidated"] = changes
    story.shipped("o1", ONE)
    found = story.check("E11")
    assert found.verdict == "invalid"
    assert any(says in example for example in found.examples), found.examples


def test_given_values_as_they_stood_at_their_versions_then_e11_is_content() -> None:
    story = a_day()
    found = story.check("E11")
    assert (found.verdict, found.violations) == ("valid", 0)
    assert found.examined == 5 + 2 * (4 * 3 + 1)  # one customer per order, a price and a level per line


def test_given_a_view_that_had_read_less_then_its_older_value_is_right_and_one_it_had_replaced_is_not() -> None:
    for read, verdict in ((2, "valid"), (3, "valid"), (4, "invalid")):
        story = opened()
        views = {"customers/0": 2, "prices/0": 3, "stock/0": read}
        story.progressed("orders", {"next": {}, "views": views})
        story.restock("s1", 5, "more")  # at offset 3; the order is still validated with 50 at version 1
        story.tweak["OrderValidated"] = {"joined_lines": [(*PRICE, *STOCK)]}
        story.until_reserved("o1", ONE)
        found = story.check("E11")
        assert found.verdict == verdict, found.examples


def test_given_a_version_that_the_view_had_not_read_when_it_answered_then_it_was_not_joined() -> None:
    for read, verdict in ((2, "valid"), (1, "invalid")):
        story = opened()
        story.progressed("orders", {"next": {}, "views": {}})
        vector = {"next": {}, "views": {"customers/0": 2, "prices/0": 3, "stock/0": read}}
        story.tweak["OrderValidated"] = {"progress": vector}
        story.until_reserved("o1", ONE)  # joined with the stock at version 1
        found = story.check("E11")
        assert found.verdict == verdict, found.examples
        assert all("only read up to 1" in example for example in found.examples)


def test_given_an_answer_that_was_published_only_afterwards_then_it_was_not_asked_for() -> None:
    for late, verdict in ((0, "valid"), (1, "invalid")):
        story = opened("hybrid")
        validated = story.now + 1_000  # when the last of what it joins was published, or just before
        story.tweak["OrderValidated"] = {"time": validated - late, "joined_lines": [(*PRICE, 51, 3)]}
        request = story.request("o1", ONE)
        assert request is not None
        story.now = validated - 10
        story.move("StockRestocked", request, "s1", 1, on_hand=1, reason="another delivery")
        story.validate("o1", ONE, request)
        found = story.check("E11")
        assert found.verdict == verdict, found.examples
        assert all("published only at" in example for example in found.examples)


def test_given_a_guest_then_nothing_is_joined_and_nothing_is_missing() -> None:
    story = opened()
    story.say("orders", "OrderCancelled", command("before", "o0"), order_id="o0")
    story.tweak["OrderRequested"] = {"customer_id": None}
    story.tweak["OrderValidated"] = {"customer_id": None, "customer_version": -1, "customer_country": None}
    story.until_reserved("o1", ONE)
    assert story.check("E11").verdict == "valid"
    del story.tweak["OrderRequested"]
    story.until_reserved("o2", ONE)  # of a customer, joined as if of a guest
    assert "asked for by c1, with the same lines" in story.check("E11").examples[0]


def test_given_a_mesh_that_joins_nothing_then_e11_asks_for_nothing() -> None:
    story = opened()
    object.__setattr__(story.mesh.options["orders"], "joins", [])
    story.tweak["OrderValidated"] = {"joined_lines": None, "customer_version": None, "customer_country": None}
    story.until_reserved("o1", ONE)
    assert story.check("E11").verdict == "valid"


def test_given_a_remote_query_then_its_answer_may_not_lack_what_was_published_before_it_was_asked() -> None:
    missing = {"joined_lines": [(None, -1, *STOCK)]}
    assert joined("hybrid").verdict == "valid"
    found = joined("hybrid", **missing)
    assert found.violations == 1
    assert "before it was asked" in found.examples[0]


def test_given_a_price_published_after_the_order_was_asked_for_then_a_remote_query_may_not_know_it() -> None:
    story = opened("hybrid")
    request = story.request("o1", [("s3", 1, 10)])
    assert request is not None
    story.restock("s3", 5, "late")
    story.say("prices", "PriceListed", command("late price"), sku="s3", list_price=10)
    story.prices["s3"], story.versions["prices", "s3"] = 10, -1
    story.tweak["OrderValidated"] = {"joined_lines": [(None, -1, None, -1)]}
    story.validate("o1", [("s3", 1, 10)], request)
    assert story.check("E11").verdict == "valid"


# --- E10: wrong decisions -------------------------------------------------------------------------------


def test_given_an_order_refused_though_there_was_stock_then_it_is_counted_and_the_run_stays_valid() -> None:
    story = opened()
    request = story.request("o1", [("s1", 30, 1), ("s1", 20, 1)], "rejected")
    assert request is not None
    story.say("orders", "OrderRejected", request, order_id="o1", reason="out of stock: s1")
    found = story.check("E10")
    assert (found.verdict, found.violations) == ("valid", 1)
    assert "o1" in found.examples[0]
    assert_valid(story)


def test_given_an_order_refused_because_there_was_not_enough_at_that_time_then_it_is_not_counted() -> None:
    story = opened()
    request = story.request("o1", [("s1", 30, 1), ("s1", 21, 1)], "rejected")
    assert request is not None
    story.say("orders", "OrderRejected", request, order_id="o1", reason="out of stock: s1")
    story.restock("s1", 100, "too late")
    assert story.check("E10").violations == 0


def test_given_an_order_validated_and_then_found_short_then_it_is_counted() -> None:
    assert "validated, then found short" in a_day().check("E10").examples[0]

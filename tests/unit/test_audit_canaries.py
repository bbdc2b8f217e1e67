"""Given the audit's checks, then each has a canary that it must flag, and a near miss that it must pass.

A near miss is as close to the canary as the rule allows. What else a check says, and in which words, stands in
the stories of ``test_audit_log`` and ``test_audit_shop``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pytest

from eventmesh.audit import state_checks
from eventmesh.audit.audit import FRAMEWORK_CHECKS
from eventmesh.audit.verdict import CheckResult
from eventmesh.history import StateDump
from eventmesh.log.batch import LogBatch
from eventmesh.log.partition import truncated
from eventmesh.log.store import LogReader
from eventmesh.mesh import parse
from eventmesh.messages import Columns
from eventmesh.shop.checks import CHECKS, outcomes, same_outcomes
from eventmesh.shop.tables import Catalog, Table
from eventmesh.states import digest
from tests.unit import test_audit_shop as shop
from tests.unit.audit_story import LINES, Forged, Story, a_day, command, entries_of, with_header
from tests.unit.test_audit_log import FORGED, REQUESTS, Forge, a_hole, writes

Tell = Callable[[], Story]
Judge = Callable[[], CheckResult]
ONE = shop.ONE


def told(check: str, tell: Tell) -> Judge:
    return lambda: tell().check(check)


def forged(forge: Forge) -> Tell:
    """A day whose orders are shown otherwise than they were written."""

    def tell() -> Story:
        story = a_day()
        story.shown = Forged(story, "orders", forge(entries_of(story, "orders")))
        return story

    return tell


# --- partitions ---------------------------------------------------------------------------------------


def an_epoch_left_out(entries: list[LogBatch]) -> list[LogBatch]:
    return [*entries[:-1], with_header(entries[-1], epoch=7)]


def with_a_gap(recorded: bool) -> Tell:
    def tell() -> Story:
        story = shop.opened()
        entries, rules = entries_of(story, "prices"), story.log._partition("prices", 0).rules
        gap = truncated(rules, lost_to=rules.end + 100, time=0)
        story.shown = Forged(story, "prices", [*entries, gap if recorded else with_header(gap, base=rules.end + 200)])
        return story

    return tell


def damaged_at(place: int | None) -> Tell:
    """A byte is flipped, or half a batch stands behind the last one, where a writer died."""

    def tell() -> Story:
        story = shop.opened()
        path = next(path for path in story.storage.files if path.startswith("stock/0/") and path.endswith(".arrow"))
        file = story.storage.files[path]
        if place is None:
            file += file[-500:-100]
        else:
            file[place] ^= 1
        story.shown = LogReader.of(story.storage)
        return story

    return tell


def a_price_in(partition: int | None, key: str | None) -> Tell:
    """``s9`` belongs in partition 1 of 2."""

    def tell() -> Story:
        story = Story(partitions=2)
        story.tweak["PriceListed"] = {"partitionkey": key, "sku": key}
        story.say("prices", "PriceListed", command("a"), sku="s9", list_price=1, partition=partition)
        return story

    return tell


def starting_at_three(retention_ms: int) -> Tell:
    def tell() -> Story:
        story = Story(topics={"orders": {"retention.ms": retention_ms}})
        story.seed({"s1": 5})
        story.shipped("o1", [("s1", 1, 10)])
        story.shown = Forged(story, "orders", entries_of(story, "orders"), start=3)
        return story

    return tell


def in_versions(*versions: int, said: int | None = None) -> Tell:
    """The last facts of a day are in these versions of their columns, and say so, or else that they are of another."""

    def forge(entries: list[LogBatch]) -> list[LogBatch]:
        place = [each.header.kind for each in entries].index("facts", len(entries) - len(versions))
        changed = [
            of_version(entry, version, said or version)
            for entry, version in zip(entries[place:], versions, strict=True)
        ]
        return [*entries[:place], *changed]

    return forged(forge)


def of_version(entry: LogBatch, version: int, said: int) -> LogBatch:
    names = pa.array([f"orders/{said}"] * entry.header.rows, pa.string())
    place = entry.batch.schema.get_field_index("dataschema")
    rows = entry.batch.set_column(place, entry.batch.schema.field(place), names)
    return LogBatch.encode(replace(entry.header, version=version), rows)


def restarted_twice() -> Story:
    """Orders starts again and is gone before it has said anything, then once more, and goes on."""
    story = shop.opened()
    story.shipped("o1", ONE)
    story.restart("orders")
    story.restart("orders")
    story.shipped("o2", ONE)
    return story


# --- progress and refusals ----------------------------------------------------------------------------


def vectors(*vectors: dict[str, object]) -> Tell:
    return lambda: writes(*vectors)


def decided(offset: int) -> Tell:
    """Orders has read up to 4 and from 5 to 9, and then decides on a request at this offset."""

    def tell() -> Story:
        story = writes({"next": {REQUESTS: 4}, "ahead": {REQUESTS: [[5, 9]]}})
        story.tweak["OrderRejected"] = {"id": f"{REQUESTS}/{offset}#0"}
        story.say("orders", "OrderRejected", command("any"), order_id="o3")
        return story

    return tell


def refused(reason: str, *, poison: bool | None = False, also: str = "", **changes: object) -> Tell:
    """A request that orders refuses on record; ``also`` is what it makes of it besides."""

    def tell() -> Story:
        story = shop.opened()
        story.poison = poison
        request = story.request("o1", ONE)
        assert request is not None
        story.refuse(request, reason, **changes)
        if also:
            story.say("orders", also, request, order_id="o1")
        return story

    return tell


NO_RULE, BROKEN = "ValueError: no rule for o1", "AssertionError: OrderReserved follows shipped"
TOO_LARGE = "orders/0: the batch has 2000000 bytes, max.message.bytes is 1048588. Split the batch"


def a_command_refused() -> Story:
    story = shop.opened()
    story.poison = True
    story.refuse(command("load:TakeOrder:o1", "o1"), NO_RULE)
    return story


def sent_by(sender: str) -> Tell:
    """Inventory does what nobody but a caller may ask of it where services listen."""

    def tell() -> Story:
        story = shop.opened()
        story.restock("s1", 5, f"{sender}:Restock:more")
        return story

    return tell


def told_in_the_story_of(order_id: str) -> Tell:
    """A rejection of o1."""

    def tell() -> Story:
        story = shop.opened()
        request = story.request("o1", ONE)
        assert request is not None
        story.tweak["OrderRejected"] = {"correlationid": order_id}
        story.say("orders", "OrderRejected", request, order_id="o1")
        return story

    return tell


# --- timers -------------------------------------------------------------------------------------------

TIMER = "timer:orders/0/1#0:1@7#0"


def timed(
    *, is_set: bool = True, happens: bool = True, late_us: int = 0, identity: str = TIMER, of: str = "o1",
    kind: str = "OrderCancelled", rest_us: int | None = None,
) -> Tell:  # fmt: skip
    """A timer that cancels o1 is set, and happens ``late_us`` after it is due; orders is at rest after ``rest_us``."""

    def tell() -> Story:
        story = shop.opened()
        due_at = story.now + 20 - late_us
        timer = {"kind": "OrderCancelled", "name": "o1", "due_at": due_at, "id": TIMER, "story": "o1"}
        changes = {"set": timer} if is_set else {"end": ["OrderCancelled", "o2"]}
        story.tweak["OrderValidated"] = {"progress": {"next": {}, "timers": [changes]}}
        story.say("orders", "OrderValidated", command("any"), order_id="o1", partition=0)
        if happens:
            due = {"next": {}, "timers": [{"due": ["OrderCancelled", "o1"]}]}
            story.tweak[kind] = {"progress": due, "id": identity, "correlationid": of}
            story.say("orders", kind, command("any"), order_id="o1", partition=0)
        if rest_us is not None:
            story.states = [StateDump("orders", 0, story.log.watermark("orders", 0), "", due_at + rest_us)]
        return story

    return tell


# --- states -------------------------------------------------------------------------------------------


def folding_as(evolve: Callable[[Catalog, Table, Columns], None], *, changed: bool = False) -> Judge:
    """The catalog folds its facts in this way; its live state is ``changed``, or what they fold to."""

    def judge() -> CheckResult:
        story = shop.opened()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Catalog, "evolve", evolve)
            live = story.state("catalog")
            story.states = [replace(live, digest=digest(Table())) if changed else live]
            return story.check("D10")

    return judge


EVOLVE = Catalog.evolve


def by_chance(self: Catalog, state: Table, facts: Columns) -> None:
    state.rows.update({sku: (random.random(),) for sku in facts["sku"]})


def by_the_batch(self: Catalog, state: Table, facts: Columns) -> None:
    state.rows["batches"] = (state.rows.get("batches", (0,))[0] + 1,)


def by_chance_later(self: Catalog, state: Table, facts: Columns) -> None:
    for sku, offset in facts.rows("sku", "sequence"):
        state.rows[sku] = (random.random() if offset > 1 else 0.0,)


def not_at_all(self: Catalog, state: Table, facts: Columns) -> None:
    if len(facts) > 1:
        raise KeyError("s9")
    EVOLVE(self, state, facts)


# --- views --------------------------------------------------------------------------------------------


def views_of_an_hour_ago(spoil: bool) -> Tell:
    """Views say where they stand; below that they must equal the log, above it they cannot."""

    def tell() -> Story:
        story = a_day()
        story.spoiled = story.views()
        story.shipped("o9", LINES)
        if spoil:
            names = {"stock/0": story.log.end("stock", 0)}
            story.spoiled = [replace(d, next=names) if d.view == "stock" else d for d in story.spoiled]
        return story

    return tell


# --- the business -------------------------------------------------------------------------------------


def cancelled_before_it_came() -> Story:
    story = shop.opened()
    asked = story.cancel("o1")
    story.say("orders", "OrderCancelled", asked, order_id="o1", reason="requested by the caller")
    story.request("o1", ONE, "cancelled")
    return story


def ending(end: str) -> Tell:
    def tell() -> Story:
        story = shop.opened()
        getattr(story, end)("o1", ONE)
        return story

    return tell


def the_last_piece() -> Story:
    story = shop.opened()
    story.shipped("o1", [("s1", 50, 1)])
    return story


def bought_twice_for_two_lines() -> Story:
    story = shop.opened()
    request = story.request("o2", ONE)
    assert request is not None
    with story.one_append(request):
        for _ in range(2):  # by inventory's own rule, line by line
            story.move("StockRestocked", request, "s1", 5, on_hand=5, reason="below 20")
    return story


def all_at_once() -> Story:
    """Everything of an order happens in the same microsecond."""
    story = shop.opened()
    kinds = ["OrderRequested", "OrderValidated", "StockReserved", "OrderReserved", "PaymentCaptured", "OrderConfirmed"]
    kinds += ["ShipmentDispatched", "StockShipped", "OrderShipped"]
    story.tweak = {kind: {"time": story.now + 1_000_000} for kind in kinds}
    story.shipped("o1", ONE)
    return story


def refused_at_validation(quantity: int) -> Tell:
    """Of 50 pieces on hand."""

    def tell() -> Story:
        story = shop.opened()
        request = story.request("o1", [("s1", quantity, 1)], "rejected")
        assert request is not None
        story.say("orders", "OrderRejected", request, order_id="o1", reason="out of stock: s1")
        return story

    return tell


def joined_before_it_was_read(offset: int) -> Tell:
    """A delivery at offset 3 of the stock, which orders had read up to ``offset``, is not in what it joined."""

    def tell() -> Story:
        story = shop.opened()
        story.progressed("orders", {"next": {}, "views": {"customers/0": 2, "prices/0": 3, "stock/0": offset}})
        story.restock("s1", 5, "more")
        story.tweak["OrderValidated"] = {"joined_lines": [(*shop.PRICE, *shop.STOCK)]}
        story.until_reserved("o1", ONE)
        return story

    return tell


def joined_with_an_answer(age_us: int, **cache: float) -> Tell:
    """The stock that orders joined was replaced so long before the order was asked for; ``cache`` keeps answers."""

    def tell() -> Story:
        story = shop.opened("hybrid")
        if cache:
            document = story.mesh.resolved()
            document["services"]["orders"]["policies"] = {"StockBySku": {"cache": cache}}
            story.mesh = parse(document)
        story.restock("s1", 5, "more")
        story.now += age_us - 11  # the caller asks a microsecond from now, its gateway writes that down 10 later
        story.tweak["OrderValidated"] = {"joined_lines": [(*shop.PRICE, *shop.STOCK)]}
        story.until_reserved("o1", ONE)
        return story

    return tell


def answered_with(carried: bool) -> Tell:
    """The vector of the append that rejects an order has passed its request, or has stayed behind it."""

    def tell() -> Story:
        story = a_day()
        request = story.request("late", LINES)
        assert request is not None
        last = story.log.watermark("order-requests", 0) - 1
        ahead = {"ahead": {REQUESTS: [[last, last + 1]]}} if carried else {}
        story.tweak["OrderRejected"] = {"progress": {"next": {REQUESTS: 1}, **ahead}}
        story.say("orders", "OrderRejected", request, order_id="late")
        return story

    return tell


def compared(tell: Tell, other: Tell) -> Judge:
    return lambda: same_outcomes(outcomes(tell().evidence()), outcomes(other().evidence()))


# --- the table ----------------------------------------------------------------------------------------

#: Those that have theirs in the tables of the other two files.
ELSEWHERE = {check for check, *_ in (*FORGED, *shop.CANARIES)}
CANARIES: list[tuple[str, Judge]] = [
    ("A2", told("A2", with_a_gap(recorded=False))),
    ("A3", told("A3", damaged_at(-40))),
    ("A6", told("A6", a_price_in(0, "s9"))),
    ("A7", told("A7", starting_at_three(retention_ms=-1))),
    ("A8", told("A8", in_versions(2, 1))),
    ("A8", told("A8", in_versions(2, said=1))),
    ("D1", told("D1", vectors({"next": {REQUESTS: 5}}, {"next": {REQUESTS: 4}}))),
    ("D2", told("D2", vectors({"next": {REQUESTS: 22}}))),
    ("D3", told("D3", decided(3))),
    ("D3", told("D3", decided(5))),
    ("D6", told("D6", answered_with(carried=False))),
    ("D7", told("D7", refused(NO_RULE))),
    ("D7", told("D7", refused(BROKEN, poison=True))),
    ("D7", told("D7", refused(BROKEN, poison=None))),
    ("D7", told("D7", refused(NO_RULE, poison=True, also="OrderRejected"))),
    ("D7", told("D7", refused(NO_RULE, poison=True, position=f"{REQUESTS}/7"))),
    ("D7", told("D7", refused(NO_RULE, poison=True, id=f"{REQUESTS}/7#0", position=f"{REQUESTS}/7"))),
    ("D8", told("D8", sent_by("orders/0"))),
    ("D9", told("D9", told_in_the_story_of("o2"))),
    ("D10", folding_as(EVOLVE, changed=True)),
    ("D10", folding_as(by_chance)),
    ("D10", folding_as(by_the_batch)),
    ("D10", folding_as(not_at_all)),
    ("D11", told("D11", timed(late_us=-1))),
    ("D11", told("D11", timed(is_set=False))),
    ("D11", told("D11", timed(identity="orders/0/1#5"))),
    ("D11", told("D11", timed(identity="timer:orders/0/1#0:2@7#0"))),
    ("D11", told("D11", timed(of="o2"))),
    ("D11", told("D11", timed(kind="OrderShipped"))),
    ("D11", told("D11", timed(happens=False, rest_us=1))),
    ("E8", told("E8", views_of_an_hour_ago(spoil=True))),
    ("E9", compared(ending("shipped"), ending("cancelled"))),
    ("E10", told("E10", refused_at_validation(50))),
    ("E11", told("E11", joined_before_it_was_read(4))),
    ("E11", told("E11", joined_with_an_answer(1))),
    ("E11", told("E11", joined_with_an_answer(5_001, ttl_ms=5))),
    ("E11", told("E11", joined_with_an_answer(8_001, ttl_ms=5, stale_while_revalidate_ms=3))),
]
NEAR_MISSES: list[tuple[str, Judge]] = [
    ("A1", told("A1", forged(a_hole))),
    ("A2", told("A2", with_a_gap(recorded=True))),
    ("A3", told("A3", damaged_at(None))),
    ("A4", told("A4", forged(an_epoch_left_out))),
    ("A5", told("A5", restarted_twice)),
    ("A6", told("A6", a_price_in(1, "s9"))),
    ("A6", told("A6", a_price_in(0, None))),
    ("A7", told("A7", starting_at_three(retention_ms=1_000))),
    ("A8", told("A8", in_versions(2, 3))),
    ("D1", told("D1", vectors({"next": {REQUESTS: 5}}, {"next": {REQUESTS: 5}}))),
    ("D2", told("D2", vectors({"next": {REQUESTS: 21}}))),
    ("D3", told("D3", decided(4))),
    ("D3", told("D3", decided(9))),
    ("D4", told("D4", restarted_twice)),
    ("D5", told("D5", restarted_twice)),
    ("D6", told("D6", answered_with(carried=True))),
    ("D7", told("D7", refused(NO_RULE, poison=True))),
    ("D7", told("D7", refused(NO_RULE, poison=None))),
    ("D7", told("D7", refused(TOO_LARGE))),
    ("D7", told("D7", a_command_refused)),
    ("D7", told("D7", refused("idempotency key reused: order o1 was asked for before, with other lines"))),
    ("D8", told("D8", sent_by("load"))),
    ("D8", told("D8", sent_by("stock/0"))),
    ("D9", told("D9", told_in_the_story_of("o1"))),
    ("D10", folding_as(EVOLVE)),
    ("D11", told("D11", timed())),
    ("D11", told("D11", timed(late_us=5, rest_us=1))),
    ("D11", told("D11", timed(happens=False, rest_us=-1))),
    ("E1", told("E1", cancelled_before_it_came)),
    ("E1", told("E1", shop.told_of("CancelOrder", "CancellationRequested"))),
    ("E1", told("E1", shop.told_of("RequestReturn", "ReturnRequested"))),
    ("E1", told("E1", shop.stopped("shipped", "confirmed"))),
    ("E2", told("E2", ending("cancelled"))),
    ("E2", told("E2", ending("declined"))),
    ("E3", told("E3", the_last_piece)),
    ("E4", told("E4", a_day)),
    ("E5", told("E5", restarted_twice)),
    ("E6", told("E6", bought_twice_for_two_lines)),
    ("E7", told("E7", all_at_once)),
    ("E8", told("E8", views_of_an_hour_ago(spoil=False))),
    ("E9", compared(ending("shipped"), ending("until_confirmed"))),
    ("E10", told("E10", refused_at_validation(51))),
    ("E11", told("E11", joined_before_it_was_read(3))),
    ("E11", told("E11", joined_with_an_answer(0))),
    ("E11", told("E11", joined_with_an_answer(5_000, ttl_ms=5))),
    ("E11", told("E11", joined_with_an_answer(8_000, ttl_ms=5, stale_while_revalidate_ms=3))),
]


@pytest.mark.parametrize(("check", "judge"), CANARIES)
def test_given_a_canary_then_its_check_flags_it(check: str, judge: Judge) -> None:
    found = judge()
    assert (found.id, found.violations > 0) == (check, True)
    assert found.verdict == ("valid" if check == "E10" else "invalid"), "E10 only counts"
    assert found.examples


@pytest.mark.parametrize(("check", "judge"), NEAR_MISSES)
def test_given_a_near_miss_then_its_check_looks_at_it_and_passes_it(check: str, judge: Judge) -> None:
    found = judge()
    assert (found.id, found.verdict, found.violations) == (check, "valid", 0), found.examples
    assert found.examined > 0


def test_every_check_has_a_canary_and_a_near_miss() -> None:
    checks = {*FRAMEWORK_CHECKS, *CHECKS, "E9"}  # E9 compares two runs, and is in no registry
    assert checks - ELSEWHERE - {check for check, _ in CANARIES} == set(), "no canary"
    assert checks - {check for check, _ in NEAR_MISSES} == set(), "no near miss"


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        (folding_as(by_chance), "its facts fold to another state each time: evolve throws dice"),
        (folding_as(by_chance_later), "its facts fold to another state each time: evolve throws dice"),
        (folding_as(EVOLVE, changed=True), "it is not what its facts below offset "),
    ],
)
def test_a_state_that_is_no_fold_is_told_from_a_fold_that_is_none(
    monkeypatch: pytest.MonkeyPatch, judge: Judge, said: str
) -> None:
    """Also where the first facts, which alone are folded one by one, do not show it."""
    monkeypatch.setattr(state_checks, "ONE_BY_ONE_MAX", 1)
    [found] = judge().examples
    assert said in found

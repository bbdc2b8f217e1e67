"""Given a shop that asks by policies, then whatever is lost, late or away, orders end right and each policy is seen."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from eventmesh import mesh as meshes
from eventmesh.errors import EventmeshError
from eventmesh.lab.run import run as run_into_folder
from eventmesh.lab.simulated_run import SimulatedRun, run_simulated
from eventmesh.lab.terminal import asks_told
from eventmesh.needs import named
from eventmesh.policies import AskPolicy, Backoff, Bulkhead, Cache, CircuitBreaker, Hedge
from eventmesh.report import record, report
from eventmesh.runtime import conversation
from eventmesh.runtime.ask_policy import Cache as KeptAnswers
from eventmesh.runtime.asks import Asks
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from tests.simulation.ask_policy_story import (
    BREAKER,
    BY_WIRING,
    CACHE,
    audited,
    counts,
    planned,
    run,
    shop_that_asks,
    total,
)
from tests.simulation.scenario import facts
from tests.tiny import WORKLOAD, workload

TINY = Path(__file__).parents[1] / "tiny" / "asking.yaml"
TROUBLES: dict[str, list[tuple[float, dict[str, Any]]]] = {
    "nothing": [],
    "asks and replies that are lost": [
        (0.0, {"kind": "loss", "source": ["orders", "gateway"], "target": "*", "share": 0.3, "lasts_s": 0.3}),
    ],
    "asks and replies that are late": [
        (0.0, {"kind": "reordering", "source": "orders", "target": "*", "share": 0.3, "delay_ms": [5, 80],
               "lasts_s": 0.3}),
    ],
    "inventory away": [(0.05, {"kind": "end", "process": "inventory/0", "lasts_s": 0.3})],
    "payments away": [(0.05, {"kind": "end", "process": "payments/0", "lasts_s": 0.3})],
    "everybody dies once": [
        (at, {"kind": "kill", "process": process})
        for at, process in ((0.04, "inventory/0"), (0.07, "broker"), (0.1, "orders/0"), (0.13, "catalog/0"))
    ],
}  # fmt: skip


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("wiring", BY_WIRING)
def test_all_policies_at_once_and_the_audit_is_valid(wiring: str, trouble: str) -> None:
    for seed in range(2):
        done = run(shop_that_asks(wiring, BY_WIRING[wiring]), seed, planned(*TROUBLES[trouble]))
        assert audited(done).describe() == "audit: valid", f"seed {seed}"


@pytest.mark.parametrize("instances", [1, 2])
def test_the_same_seed_is_the_same_history_with_jitter_and_all(instances: int) -> None:
    def history() -> list[dict[str, Any]]:
        mesh = shop_that_asks("request", BY_WIRING["request"], instances=instances)
        done = run(mesh, 5, planned(*TROUBLES["asks and replies that are lost"]))
        return [*done.history.callers.to_pylist(), *facts(done, "orders", "OrderConfirmed", "OrderCancelling")]

    assert history() == history()


# --- each is seen -----------------------------------------------------------------------------------


def test_a_cache_spares_questions_and_an_answer_that_is_kept_for_too_long_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = run(shop_that_asks("hybrid", {}), 1)
    mesh = shop_that_asks("hybrid", {"default": {"cache": {"ttl_ms": 40, "stale_while_revalidate_ms": 60}}})
    done = run(mesh, 1)
    assert audited(done).describe() == "audit: valid"
    assert total(done, "attempts") < 0.6 * total(plain, "attempts")
    for name in ("cache_hits", "cache_stale", "cache_misses"):
        assert total(done, name) > 0, name
    find = KeptAnswers.find
    monkeypatch.setattr(KeptAnswers, "find", lambda cache, question, now: find(cache, question, now - 100_000))
    found = audited(run(mesh, 1)).checks["E11"]
    assert found.verdict == "invalid", "100 ms older than the 100 ms that the mesh file allows"
    assert "before it was asked for, 0.1 s before that" in found.examples[0]


def test_a_hedge_wins_where_messages_are_lost() -> None:
    lossy = planned((0.0, {"kind": "loss", "source": "orders", "target": "*", "share": 0.3, "lasts_s": 1.0}))

    def slowest_ms(sections: dict[str, Any]) -> tuple[float, SimulatedRun]:
        done = run(shop_that_asks("hybrid", sections), 1, lossy, cancel_permille=0)
        callers = done.history.callers
        return max((callers["completed_at"].to_numpy() - callers["sent_at"].to_numpy()) / 1e3), done

    without, _ = slowest_ms({})
    hedged, done = slowest_ms({"default": {"hedge": {"after_ms": 3}}})
    assert hedged < without
    assert 0 < total(done, "hedges_won") < total(done, "hedges_sent")


def payments_away(sections: dict[str, Any]) -> SimulatedRun:
    return run(shop_that_asks("request", sections), 2, planned((0.02, {"kind": "end", "process": "payments/0",
               "lasts_s": 2.0})), orders=60, cancel_permille=0)  # fmt: skip


def test_a_breaker_spares_who_is_away_and_undoing_gets_through_in_the_end() -> None:
    """Payments is away for two seconds; an order that got no further is undone once it is back."""
    plain = payments_away({"CapturePayment": {"timeout_ms": 20}})
    done = payments_away({"CapturePayment": {"timeout_ms": 20}, "default": {"circuit_breaker": BREAKER}})
    assert audited(done).describe() == "audit: valid"
    tried, would_have = counts(done)["CapturePayment"], counts(plain)["CapturePayment"]
    assert tried.circuit_opened > 0
    assert tried.circuit_not_permitted > 0
    assert tried.attempts < would_have.attempts
    outcomes = Counter(done.history.callers["outcome"].to_pylist())
    assert outcomes["cancelled"] > 30
    assert counts(done)["VoidPayment"].given_up == counts(done)["ReleaseStock"].given_up == 0
    cancelling = facts(done, "orders", "OrderCancelling")
    assert any("its circuit is open" in fact["reason"] for fact in cancelling)


def test_what_was_never_sent_is_rejected_at_once_and_holds_nothing() -> None:
    sections = {"ReserveStock": {"bulkhead": {"in_flight_max": 1}}}
    done = run(shop_that_asks("request", sections), 3, rate=4_000.0, cancel_permille=0)
    assert audited(done).describe() == "audit: valid"
    rejected = [fact["reason"] for fact in facts(done, "orders", "OrderRejected")]
    assert any(reason.startswith("unavailable: ReserveStock to inventory/") for reason in rejected), rejected
    assert counts(done)["ReserveStock"].bulkhead_full > 0


def test_a_queue_behind_a_bulkhead_lets_through_what_would_have_been_refused() -> None:
    sections = {"ReserveStock": {"bulkhead": {"in_flight_max": 1, "queued_max": 200}}}
    done = run(shop_that_asks("request", sections), 3, rate=4_000.0, cancel_permille=0)
    assert audited(done).describe() == "audit: valid"
    assert counts(done)["ReserveStock"].bulkhead_queued > 0
    assert counts(done)["ReserveStock"].bulkhead_full == 0
    assert set(done.history.callers["outcome"].to_pylist()) <= {"confirmed", "rejected"}
    assert not [fact for fact in facts(done, "orders", "OrderRejected") if "unavailable" in fact["reason"]]


# --- may have happened is never a no ------------------------------------------------------------------


def away(**policies: Any) -> SimulatedRun:
    """The library, whose shelf is away while loans are asked for. Its rule catches nothing."""
    document = meshes.load(TINY).resolved()
    document["services"]["desk"]["policies"] = policies
    mesh = meshes.parse(document)
    faults = planned((0.001, {"kind": "end", "process": "shelf/0", "lasts_s": 1.0}))
    return run_simulated(mesh, workload(WORKLOAD(seed=1, loans=20, rate=100.0)), seed=1, faults=faults)


LIBRARY: dict[str, Any] = {"default": {"timeout_ms": 10, "circuit_breaker": {**BREAKER, "consecutive_failures": 1}}}


def test_what_a_rule_does_not_catch_is_no_no_to_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """The desk has written the loan down before it asks: whoever asked for it is not told that nothing happened."""

    def outcomes() -> Counter[str]:
        done = away(**LIBRARY)
        assert counts(done, "desk")["Lend"].circuit_not_permitted > 0
        return Counter(done.history.callers["outcome"].to_pylist())

    assert outcomes().keys() <= {"granted", "declined"}

    def as_it_is(error: EventmeshError) -> EventmeshError:
        return error

    monkeypatch.setattr(conversation, "_of_the_whole", as_it_is)
    assert outcomes()["refused"] > 0, "with nothing to tell the two apart callers are told wrong"


# --- what rules send until it is answered --------------------------------------------------------------


@pytest.mark.parametrize("wiring", ["request", "hybrid"])
def test_a_wiring_says_what_its_rules_ask_until_it_is_answered(wiring: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: set[tuple[str, str, bool]] = set()
    enter = Asks._enter

    def noted(asks: Asks, ask: Any) -> None:
        sent.add((asks.sender.partition("/")[0], ask.message.name, ask.persists))
        enter(asks, ask)

    monkeypatch.setattr(Asks, "_enter", noted)
    for seed in (1, 2):
        mesh = shop_that_asks(wiring, {}, restocks=True)
        run(mesh, seed, planned(*TROUBLES["payments away"]), cancel_permille=500)
    said = set()
    for service, trigger in mesh.application.WIRINGS[wiring].items():
        options = mesh.options.get(service)
        persists = named(trigger.until_answered, options)
        said |= {(mesh.topic_of(service), name, name in persists) for name in named(trigger.sends, options)}
        assert set(persists) <= set(named(trigger.sends, options))
    assert sent == said


# --- the page ----------------------------------------------------------------------------------------


def test_the_example_of_the_page_is_a_shop_that_works() -> None:
    page = (Path(__file__).parents[2] / "docs" / "application.md").read_text()
    [example] = re.findall(r"```yaml\n(services:.*?)```", page, re.DOTALL)
    orders = yaml.safe_load(example)["services"]["orders"]
    mesh = shop_that_asks("request", orders["policies"])
    assert mesh.services["orders"].asks == orders["asks"]
    done = run(mesh, 1, planned(*TROUBLES["asks and replies that are lost"]))
    assert audited(done).describe() == "audit: valid"
    assert total(done, "cache_hits") > 0
    assert total(done, "hedges_sent") > 0
    sections = page.partition("| key | what it does |")[2].partition("\n\n")[0]
    keys = re.findall(r"^\| `(\w+)` \|", sections, re.MULTILINE)
    assert keys == list(AskPolicy.model_fields), "every key, in the order of the schema"
    fields = [name for part in (Backoff, Cache, Hedge, CircuitBreaker, Bulkhead) for name in part.model_fields]
    assert [name for name in fields if f"`{name}" not in sections] == []


# --- the record ---------------------------------------------------------------------------------------


def test_a_run_records_what_came_of_its_asks(tmp_path: Path) -> None:
    mesh = shop_that_asks("request", {"default": {"cache": CACHE}})
    load = of_history(generate(60, seed=1, products=5), rate=400.0)
    finished = run_into_folder(mesh, load, tmp_path, seed=1, runtime="simulated")
    found = {(each.asker, each.message): each for each in record.read(tmp_path).asks}
    assert finished.asks == list(found.values())
    assert {asker for asker, _ in found} == {"gateway", "orders"}
    stock = found["orders", "StockBySku"]
    assert stock.cache_hits + stock.cache_stale > 0
    assert found["gateway", "TakeOrder"].attempts >= 60
    page = report.render(finished)
    assert f"<td>{stock.cache_misses}</td>" in page
    assert "<th>cache misses</th>" in page
    assert "hedges" not in page, "what never came is no column"
    told = {
        (row["asker"], row["message"]): row["what came of them"] for row in asks_told([vars(e) for e in finished.asks])
    }
    assert f"cache_misses {stock.cache_misses}" in told["orders", "StockBySku"]

"""Given ask policies in a mesh file, then they hold for what is sent, or an error says what to write instead."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from eventmesh import mesh
from eventmesh.errors import ConfigurationError
from eventmesh.mesh import Mesh
from eventmesh.policies import Policy
from eventmesh.shop.facts import DECLARED

MESHES = Path(__file__).parents[2] / "configs" / "meshes"


def document(wiring: str, service: str = "orders", **policies: Any) -> dict[str, Any]:
    """A shipped mesh of the shop, of which one service asks by these policies."""
    loaded: dict[str, Any] = deepcopy(yaml.safe_load((MESHES / f"{wiring}.yaml").read_text()))
    loaded["services"][service]["policies"] = policies
    return loaded


def parsed(wiring: str, **policies: Any) -> Mesh:
    return mesh.parse(document(wiring, **policies))


def policy(of: Mesh, message: str, asker: str = "orders") -> Policy:
    return of.policy(asker, DECLARED.messages[message])


def refusal(wiring: str, service: str = "orders", **policies: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        mesh.parse(document(wiring, service, **policies), file="mine.yaml")
    assert caught.value.file == "mine.yaml"
    return caught.value


# --- what holds -------------------------------------------------------------------------------------


def test_a_list_of_services_that_are_asked_is_a_whole_description() -> None:
    assert policy(parsed("request"), "StockBySku") == Policy()


def test_a_key_that_a_message_s_section_lacks_is_the_default_s() -> None:
    found = parsed(
        "request",
        default={"attempts": 3, "timeout_ms": 200, "bulkhead": {"in_flight_max": 9}},
        StockBySku={"timeout_ms": 50, "bulkhead": None},
    )
    stock, price = policy(found, "StockBySku"), policy(found, "PriceBySku")
    assert (stock.attempts, stock.timeout_ms, stock.bulkhead) == (3, 50, None)
    assert (price.attempts, price.timeout_ms) == (3, 200)
    assert dict(stock.stands) == {"attempts": "default", "timeout_ms": "StockBySku"}


def test_a_cache_and_a_hedge_of_the_default_are_those_of_queries() -> None:
    found = parsed("request", default={"cache": {"ttl_ms": 10}, "hedge": {"after_ms": 5}})
    assert policy(found, "StockBySku").cache is not None
    assert (policy(found, "ReserveStock").cache, policy(found, "ReserveStock").hedge) == (None, None)


def test_a_breaker_has_resilience4j_s_defaults() -> None:
    said = policy(parsed("request", default={"circuit_breaker": {}}), "ReserveStock").circuit_breaker
    assert said is not None
    assert said.model_dump() == {
        "failure_rate_threshold": 50.0, "sliding_window_size": 100, "minimum_number_of_calls": 100,
        "wait_duration_in_open_state_ms": 60_000, "permitted_number_of_calls_in_half_open_state": 10,
    }  # fmt: skip
    small = policy(parsed("request", default={"circuit_breaker": {"sliding_window_size": 5}}), "ReserveStock")
    assert small.circuit_breaker is not None
    assert small.circuit_breaker.minimum_number_of_calls == 5


def test_a_resolved_mesh_reads_back_the_same_and_says_no_more() -> None:
    found = parsed(
        "request",
        default={"attempts": 3, "backoff": {"first_ms": 5}, "circuit_breaker": {"consecutive_failures": 5}},
        StockBySku={"cache": {"ttl_ms": 10}, "circuit_breaker": None},
    )
    resolved = found.resolved()
    assert resolved["services"]["orders"]["policies"] == {
        "default": {
            "attempts": 3,
            "backoff": {"first_ms": 5.0, "factor": 2.0, "max_ms": 2000.0, "jitter": 0.0},
            "circuit_breaker": {
                "consecutive_failures": 5, "wait_duration_in_open_state_ms": 60_000.0,
                "permitted_number_of_calls_in_half_open_state": 10,
            },
        },
        "StockBySku": {
            "cache": {"ttl_ms": 10.0, "stale_while_revalidate_ms": 0.0, "entries_max": 10_000}, "circuit_breaker": None,
        },
    }  # fmt: skip
    assert mesh.parse(yaml.safe_load(yaml.safe_dump(resolved))).resolved() == resolved
    assert resolved["services"]["gateway"]["policies"] == {}


# --- what is refused --------------------------------------------------------------------------------

QUERIES = "CustomerById, PriceBySku, StockBySku"
REFUSED: list[tuple[str, dict[str, Any], str, str, str]] = [
    # wiring, policies, path below services.orders.policies, problem, hint
    ("request", {"StokBySku": {"attempts": 2}}, "StokBySku",
     "unknown message 'StokBySku'", "Did you mean 'StockBySku'?"),
    ("hybrid", {"ReserveStock": {"timeout_ms": 2}}, "ReserveStock",
     "never sends 'ReserveStock'", f"Allowed: {QUERIES}"),
    ("views", {"StockBySku": {"timeout_ms": 2}}, "StockBySku",
     "in wiring 'views' orders never sends", "Allowed: default"),
    ("views", {"default": {"timeout_ms": 2}}, "default.timeout_ms",
     "none of what orders sends in wiring 'views'", "Leave"),
    ("request", {"StockBySku": {}}, "StockBySku", "says nothing", "Leave it out"),
    ("request", {"ReserveStock": {"cache": {"ttl_ms": 1}}}, "ReserveStock.cache", "is a command", QUERIES),
    ("request", {"ReserveStock": {"hedge": {"after_ms": 1}}}, "ReserveStock.hedge", "is a command", QUERIES),
    ("request", {"ReleaseStock": {"attempts": 3}}, "ReleaseStock.attempts",
     "asks ReleaseStock until it is answered", "Leave"),
    ("hybrid", {"StockBySku": {"deadline_ms": 9e3}}, "StockBySku.deadline_ms", "until it is answered", "Leave it out"),
    ("hybrid", {"default": {"attempts": 3}}, "default.attempts", "none of what orders sends", "under the name"),
    ("request", {"StockBySku": {"cache": None}}, "StockBySku.cache", "the default section does not have it", "Leave"),
    ("request", {"default": {"cache": None}}, "default.cache", "null takes a default away", "Leave it out"),
    ("request", {"StockBySku": {"attempts": 1, "backoff": {}}}, "StockBySku.backoff", "nothing is repeated", "Leave"),
    ("hybrid", {"default": {"timeout_ms": 9}, **{name: {"timeout_ms": 8} for name in QUERIES.split(", ")}},
     "default.timeout_ms", "none of what orders sends", "Leave it out"),
    ("request", {"default": {"deadline_ms": 4_999}}, "default.deadline_ms",
     "found 4999, and one attempt takes up to 5000 ms", "5000 or more"),
    ("request", {"default": {"timeout_ms": 300}, "StockBySku": {"deadline_ms": 299}}, "StockBySku.deadline_ms",
     "takes up to 300 ms", "300 or more"),
    ("request", {"default": {"timeout_ms": 300}, "StockBySku": {"hedge": {"after_ms": 300}}},
     "StockBySku.hedge.after_ms",
     "the second message is never sent", "below 300"),
    ("request", {"default": {"backoff": {"first_ms": 10, "max_ms": 9}}}, "default.backoff.max_ms",
     "below the first", "10"),
    ("request", {"default": {"backoff": {"first_ms": 3_000}}}, "default.backoff.max_ms",
     "2000 ms, is below", "max_ms: 3000"),
    ("request", {"default": {"backoff": {"jitter": 2}}}, "default.backoff.jitter", "less than or equal to 1", ""),
    ("request", {"default": {"circuit_breaker": {"consecutive_failures": 3, "sliding_window_size": 9}}},
     "default.circuit_breaker.sliding_window_size",
     "does nothing beside consecutive_failures, found number 9", "Leave"),
    ("request", {"default": {"circuit_breaker": {"sliding_window_size": 5, "minimum_number_of_calls": 6}}},
     "default.circuit_breaker.minimum_number_of_calls", "it would never open", "5 or less"),
    ("request", {"default": {"circuit_breaker": {"failure_rate": 5}}}, "default.circuit_breaker.failure_rate",
     "unknown key", "Did you mean 'failure_rate_threshold'?"),
    ("request", {"default": {"bulkhead": {}}}, "default.bulkhead.in_flight_max", "missing", "queued_max"),
    ("request", {"default": {"timeout_ms": float("inf")}}, "default.timeout_ms", "finite", ""),
    ("request", {"default": {"attempts": 0}}, "default.attempts", "greater than or equal to 1", ""),
    ("request", {"default": {"timeout": 5}}, "default.timeout", "unknown key 'timeout'", "Did you mean 'timeout_ms'?"),
]  # fmt: skip


@pytest.mark.parametrize(("wiring", "policies", "path", "problem", "hint"), REFUSED, ids=lambda each: str(each)[:60])
def test_what_does_nothing_or_contradicts_itself_is_refused(
    wiring: str, policies: dict[str, Any], path: str, problem: str, hint: str
) -> None:
    error = refusal(wiring, **policies)
    assert error.path == f"services.orders.policies.{path}"
    assert problem in error.problem, error.problem
    assert hint in error.hint, error.hint


def test_what_the_gateway_must_get_through_no_policy_ends() -> None:
    error = refusal("request", "gateway", TakeOrder={"attempts": 3})
    assert "gateway asks TakeOrder until it is answered" in error.problem


def test_a_wiring_that_asks_what_is_no_message_until_it_is_answered_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from eventmesh import shop
    from eventmesh.service import Trigger

    wiring = shop.WIRINGS["hybrid"]
    orders = Trigger(wiring["orders"].rules, sends=wiring["orders"].sends, until_answered=["StokBySku"])
    monkeypatch.setitem(shop.WIRINGS, "hybrid", {**wiring, "orders": orders})
    error = refusal("hybrid")
    assert (error.path, "'StokBySku'" in error.problem) == ("wiring", True)
    assert "Did you mean 'StockBySku'?" in error.hint

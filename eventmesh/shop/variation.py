"""What a fuzzer varies of the shop: scarcity, declined payments, cancellations, restocks, and how orders asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import pyarrow as pa
from pydantic import Field

from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from eventmesh.workload import Dice, Requests, Variation, Workload

#: Reordering at so few pieces happens in small runs, too.
RESTOCK = {"below": 8, "quantity": 5}
#: Ask policies of orders, so tight that small runs meet them. A message takes up to 0.6 ms, in a slow network 15.
QUERIES_ONLY = {
    "cache": {"ttl_ms": 5, "stale_while_revalidate_ms": 30, "entries_max": 10}, "hedge": {"after_ms": 4},
}  # fmt: skip
GUARDS = {
    "timeout_ms": 15,
    "backoff": {"first_ms": 1, "max_ms": 20, "jitter": 0.5},
    "circuit_breaker": {
        "consecutive_failures": 2, "wait_duration_in_open_state_ms": 25,
        "permitted_number_of_calls_in_half_open_state": 1,
    },
    "bulkhead": {"in_flight_max": 4, "queued_max": 4},
}  # fmt: skip
#: How the reason of what is bought because stock is low begins; what is delivered while seeding has another one.
BOUGHT_AGAIN = "below "


class ShopVariation(Variation):
    """``requests`` are orders here; cancellations and returns come in addition."""

    stock_fraction: float = Field(1.0, ge=0.0, le=1.0)
    decline_permille: int = Field(50, ge=0, le=1000)
    cancel_permille: int = Field(150, ge=0, le=900)
    products: int = Field(30, ge=1)
    restocks: bool = False
    policies: Literal["none", "cached", "guarded"] = "none"

    @classmethod
    def drawn(cls, dice: Dice) -> Self:
        """See :class:`Variation`."""
        return cls(
            requests=dice.choice((dice.randint(5, 35), dice.randint(5, 35), dice.randint(5, 35), 120)),
            rate=dice.choice((200.0, 500.0, 2_000.0)),
            stock_fraction=dice.choice((1.0, 0.6)),
            cancel_permille=dice.choice((150, 150, 250, 600)),
            products=dice.choice((30, 30, 5)),
            restocks=dice.random() < 0.4,
            policies=dice.choice(("none", "none", "none", "none", "cached", "guarded")),
        )

    def options(self, wiring: str, services: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
        """See :class:`Variation`."""
        options: dict[str, dict[str, Any]] = {"payments": {"decline_permille": self.decline_permille}, "orders": {}}
        if self.restocks:
            options["inventory"] = {"restock": RESTOCK}
            options["orders"]["commands_restock"] = wiring == "request"
        policy = self._policy(wiring, asks=bool(services.get("orders", {}).get("joins", True)))
        if policy:
            options["orders"]["policies"] = {"default": policy}
        return options

    def _policy(self, wiring: str, *, asks: bool) -> Mapping[str, Any]:
        """The policy of orders, where it sends what has a use for it; ``asks``: what it joins it must ask for."""
        if wiring not in ("request", "hybrid") or not (asks or wiring == "request"):
            return {}
        if self.policies == "cached":
            return QUERIES_ONLY if asks else {}
        if self.policies == "guarded":
            return {**GUARDS, "attempts": 2, "deadline_ms": 60} if wiring == "request" else GUARDS
        return {}

    def workload(self, application: Any, seed: int) -> Workload:
        """The same orders whatever the wiring and whatever goes wrong. A fifth of them is of guests."""
        history = generate(
            self.requests, seed=seed, products=self.products, customers=20, cancel_permille=self.cancel_permille,
            guest_permille=200, return_permille=50, cancel_after_s_mean=0.02,
        )  # fmt: skip
        return of_history(history, rate=self.rate, stock_fraction=self.stock_fraction)

    def problems(self, workload: Workload, facts: Callable[[str], pa.Table]) -> Mapping[str, str]:
        """Whether what was delivered while seeding came in once, and nothing was bought twice for one order's sake."""
        restocked = [fact for fact in facts("stock").to_pylist() if fact["type"] == "StockRestocked"]
        return {
            name: said
            for name, said in (
                ("deliveries", deliveries(workload.seeding, restocked)),
                ("restocks", restocks(restocked)),
            )
            if said
        }


def deliveries(seeding: Iterable[Requests], restocked: Sequence[Mapping[str, Any]]) -> str:
    """How what inventory took in differs from what was delivered while seeding; empty where it does not.

    ``restocked`` are the facts that say so, as dicts.
    """
    asked = {
        row["sku"]: row["quantity"]
        for stage in seeding
        if "Restock" in stage.commands
        for row in stage.payload.to_pylist()
    }
    taken: dict[str, int] = {}
    for fact in restocked:
        if not fact["reason"].startswith(BOUGHT_AGAIN):
            taken[fact["sku"]] = taken.get(fact["sku"], 0) + fact["quantity"]
    wrong = sorted(sku for sku in asked.keys() | taken.keys() if asked.get(sku) != taken.get(sku))
    told = ", ".join(f"{sku}: {asked.get(sku, 0)} delivered, {taken.get(sku, 0)} taken in" for sku in wrong[:5])
    return f"inventory did not take each delivery in once ({told})" if wrong else ""


def restocks(restocked: Sequence[Mapping[str, Any]]) -> str:
    """For which orders inventory bought a product more than once when told to look; empty where it never did."""
    told: dict[tuple[str, str], set[str]] = {}
    for fact in restocked:
        if ":CheckRestock:" in fact["reason"]:
            told.setdefault((fact["correlationid"], fact["sku"]), set()).add(fact["id"].partition("#")[0])
    twice = sorted(f"{sku} for {order}" for (order, sku), causes in told.items() if len(causes) > 1)
    return f"inventory bought twice: {', '.join(twice[:5])}" if twice else ""


VARIATION = ShopVariation

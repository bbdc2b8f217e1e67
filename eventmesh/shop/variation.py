"""What a fuzzer varies of the shop: scarcity, declined payments, cancellations, stock that is bought again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import pyarrow as pa
from pydantic import Field

from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from eventmesh.workload import Dice, Variation, Workload

#: Reordering at so few pieces happens in small runs, too.
RESTOCK = {"below": 8, "quantity": 5}
#: How the reason of what is bought because stock is low begins; what is delivered while seeding has another one.
BOUGHT_AGAIN = "below "


class ShopVariation(Variation):
    """``requests`` are orders here; cancellations and returns come in addition."""

    stock_fraction: float = Field(1.0, ge=0.0, le=1.0)
    decline_permille: int = Field(50, ge=0, le=1000)
    cancel_permille: int = Field(150, ge=0, le=900)
    products: int = Field(30, ge=1)
    restocks: bool = False

    @classmethod
    def drawn(cls, dice: Dice) -> Self:
        """See :class:`Variation`."""
        return cls(
            requests=dice.randint(15, 35),
            rate=dice.choice((200.0, 500.0, 2_000.0)),
            stock_fraction=dice.choice((1.0, 0.6)),
            cancel_permille=dice.choice((150, 150, 250, 600)),
            products=dice.choice((30, 30, 5)),
            restocks=dice.random() < 0.3,
        )

    def options(self, wiring: str) -> Mapping[str, Mapping[str, Any]]:
        """See :class:`Variation`."""
        options: dict[str, dict[str, Any]] = {"payments": {"decline_permille": self.decline_permille}}
        if self.restocks:
            options["inventory"] = {"restock": RESTOCK}
            options["orders"] = {"commands_restock": wiring == "request"}
        return options

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
            for name, said in (("deliveries", deliveries(workload, restocked)), ("restocks", restocks(restocked)))
            if said
        }


def deliveries(workload: Workload, restocked: list[dict[str, Any]]) -> str:
    """How what inventory took in differs from what was delivered while seeding; empty where it does not."""
    asked = {
        row["sku"]: row["quantity"]
        for stage in workload.seeding
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


def restocks(restocked: list[dict[str, Any]]) -> str:
    """For which orders inventory bought a product more than once when told to look; empty where it never did."""
    told: dict[tuple[str, str], set[str]] = {}
    for fact in restocked:
        if ":CheckRestock:" in fact["reason"]:
            told.setdefault((fact["correlationid"], fact["sku"]), set()).add(fact["id"].partition("#")[0])
    twice = sorted(f"{sku} for {order}" for (order, sku), causes in told.items() if len(causes) > 1)
    return f"inventory bought twice: {', '.join(twice[:5])}" if twice else ""


VARIATION = ShopVariation

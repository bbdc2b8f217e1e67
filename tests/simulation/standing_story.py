"""A mesh that stays, in the simulation: load after load on one log, and one audit of them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from eventmesh.audit.audit import Audit, audit
from eventmesh.lab.run import count_outcomes
from eventmesh.lab.simulated_run import Crashes, SimulatedRun
from eventmesh.log.store import LogReader
from eventmesh.mesh import Mesh
from eventmesh.shop.order_history import REFUSED, REQUESTS, OrderHistory
from eventmesh.shop.workloads import of_history
from eventmesh.workload import Workload
from tests.simulation.scenario import WIRINGS, Shop, facts, judged, shop

Line = tuple[str, int, int]  # sku, quantity, unit price in minor units
ONE: tuple[Line, ...] = (("A", 1, 100),)


@dataclass(frozen=True)
class Asked:
    """What a row of a history asks; ``kind`` is an order, a return or a cancel."""

    order_id: str
    lines: Sequence[Line] = ONE
    customer: str | None = "c1"
    country: str | None = "Wales"
    kind: str = "order"
    at: int = 0  # the customer's own time of it


def history(*asked: Asked) -> OrderHistory:
    """What was asked, in this order."""
    rows = [
        {
            "kind": each.kind, "order_id": each.order_id, "customer_id": each.customer, "country": each.country,
            "ordered_at": each.at, "amount": sum(quantity * price for _, quantity, price in each.lines),
            "lines": [dict(zip(("sku", "quantity", "unit_price"), line, strict=True)) for line in each.lines],
        }
        for each in asked
    ]  # fmt: skip
    return OrderHistory(pa.Table.from_pylist(rows, REQUESTS), REFUSED.empty_table())


class Standing:
    """Runs of one mesh, numbered from 1."""

    def __init__(self, mesh: Mesh, seed: int = 1) -> None:
        self.simulation = Shop(mesh, seed=seed)
        self.seed_number, self.crashes = seed, Crashes()
        self.loads: list[str] = []

    def run(self, *asked: Asked, rate: float | None = None, stock_fraction: float = 1.0) -> list[dict[str, Any]]:
        """Bring in what is needed, ask, drain; what became of each request, as rows of the callers' table."""
        workload = self.workload(*asked, rate=rate, stock_fraction=stock_fraction)
        self.seed(workload)
        name = f"run-{len(self.loads) + 1}-load"
        self.simulation.arrange(self.crashes.drawn(self.simulation.mesh, self.seed_number))
        client = self.simulation.call(name, workload.load, window=workload.window)
        self.loads.append(name)
        self.simulation.drain()
        assert client.caller is not None
        rows: list[dict[str, Any]] = client.caller.table().to_pylist()
        return rows

    def workload(self, *asked: Asked, rate: float | None = None, stock_fraction: float = 1.0) -> Workload:
        """What a run asks, given what the earlier ones were told."""
        earlier = self.simulation.history(self.loads).callers
        return of_history(history(*asked), rate=rate, stock_fraction=stock_fraction, asked=earlier)

    def seed(self, workload: Workload) -> None:
        """Bring in what a load needs."""
        for number, stage in enumerate(workload.seeding):
            self.simulation.call(f"{workload.seeding_name}-{number}", stage)
            self.simulation.drain()

    @property
    def done(self) -> SimulatedRun:
        """All runs so far; nobody sent poison."""
        seen = replace(self.simulation.history(self.loads), poison=False)
        return SimulatedRun(self.simulation, seen, LogReader.of(self.simulation.storage))

    def audit(self) -> Audit:
        """Of all runs so far."""
        done = self.done
        return audit(self.simulation.mesh, done.reader, done.history)

    def facts(self, topic: str, *kinds: str) -> list[dict[str, Any]]:
        """The facts of these kinds in the log."""
        return facts(self.done, topic, *kinds)

    def stock(self) -> dict[str, int]:
        """What is on hand of each SKU at the end; what was shipped is gone."""
        kinds = ("StockRestocked", "StockReserved", "StockReleased", "StockShipped", "StockShort")
        return {fact["sku"]: fact["on_hand"] for fact in self.facts("stock", *kinds)}


def told(rows: list[dict[str, Any]]) -> list[tuple[str, str, bool]]:
    """Key, outcome, and whether it is a repeat, in the order of asking."""
    return [(row["key"], row["outcome"], row["repeated"]) for row in rows]


def counted(rows: list[dict[str, Any]]) -> dict[str, int]:
    """The outcomes as a run shows them."""
    return count_outcomes(pa.Table.from_pylist(rows))


def an_id_again(seed: int) -> set[str]:
    """What speaks against three runs: the second asks one thing again, the third something else under the same id.

    Its refusal on record and deliveries under several names are as they should be.
    """
    found = set[str]()
    for wiring in WIRINGS:

        def run(wiring: str = wiring) -> SimulatedRun:
            standing = Standing(shop(wiring, "os", 0, False), seed)
            standing.run(Asked("1001"), Asked("1002"))
            standing.run(Asked("1002"))
            standing.run(Asked("1001", (("B", 7, 900),), customer="c2"), Asked("1003"))
            return standing.done

        found |= judged(run)
    return found - {"InputRefused", "deliveries"}

"""Given orders that must be paid in time, when the card company is slow, then their stock is free again; else not."""

from __future__ import annotations

from collections import Counter

import pytest

from eventmesh import mesh as meshes
from eventmesh.lab.simulated_run import Crashes, SimulatedRun, run_simulated
from eventmesh.mesh import Mesh
from eventmesh.runtime.faults import AtTime, Freeze, Planned
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from tests.simulation.scenario import WIRINGS, facts, shop

RESERVATION_S = 0.1


def paid_in_time(wiring: str) -> Mesh:
    """The shop, in which a reserved order must be paid within a tenth of a second."""
    document = shop(wiring, "os", 0, restocks=False).resolved()
    document["services"]["orders"]["reservation_s"] = RESERVATION_S
    return meshes.parse(document)


def slow_cards(mesh: Mesh, lasts_s: float) -> list[Planned]:
    """The card company stands still for so long from the beginning."""
    count = mesh.services["payments"].instances
    return [
        Planned(moment=AtTime(seconds=0.02), fault=Freeze(process=f"payments/{number}", lasts_s=lasts_s))
        for number in range(count)
    ]


def run(mesh: Mesh, seed: int, faults: list[Planned]) -> SimulatedRun:
    """Forty orders in a fifth of a second."""
    return run_simulated(mesh, of_history(generate(40, seed=seed), rate=200.0), seed=seed, faults=faults)


def cancelled_for(run: SimulatedRun) -> Counter[str]:
    return Counter(fact["reason"] for fact in facts(run, "orders", "OrderCancelled", "OrderCancelling"))


@pytest.mark.parametrize("wiring", WIRINGS)
def test_who_does_not_pay_in_time_loses_the_reservation(wiring: str) -> None:
    mesh = paid_in_time(wiring)
    done = run(mesh, 3, slow_cards(mesh, 1.0))
    assert cancelled_for(done)["not paid in time"] > 0
    audit = done.audit()
    assert audit.verdict == "valid", audit.describe()
    assert audit.checks["D11"].examined > 0


@pytest.mark.parametrize("wiring", WIRINGS)
def test_who_pays_in_time_keeps_it(wiring: str) -> None:
    done = run(paid_in_time(wiring), 3, [])
    assert cancelled_for(done) == {}
    assert len(facts(done, "orders", "OrderConfirmed")) == 40
    assert [state.timers for state in done.history.states if state.timers] == []


@pytest.mark.parametrize("wiring", WIRINGS)
def test_whatever_dies_meanwhile(wiring: str) -> None:
    mesh = paid_in_time(wiring)
    for seed in range(3):
        done = run(mesh, seed, [*slow_cards(mesh, 0.3), *Crashes(8, broker_share=0.2).drawn(mesh, seed)])
        audit = done.audit()
        assert audit.verdict == "valid", f"seed {seed}: {audit.describe()}"


@pytest.mark.parametrize("wiring", WIRINGS)
def test_a_shop_whose_reservations_do_not_expire_reads_no_topic_of_its_own(wiring: str) -> None:
    assert "orders/0" not in shop(wiring, "os", 0, restocks=False).inputs_of("orders", 0)
    assert paid_in_time(wiring).inputs_of("orders", 0)[-1] == "orders/0"

"""The shop whose orders ask by policies of a mesh file, and what goes wrong meanwhile. Times are of a virtual clock."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from eventmesh import mesh as meshes
from eventmesh.audit.audit import Audit, audit
from eventmesh.lab.simulated_run import SimulatedRun, run_simulated
from eventmesh.mesh import Mesh
from eventmesh.runtime.faults import PLAN, Planned
from eventmesh.runtime.limits import AskCounts, Limits
from eventmesh.runtime.simulated.network import Speeds
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from tests.simulation.scenario import judged, shop

Sections = Mapping[str, Mapping[str, Any]]
#: A message takes up to 0.6 ms each way.
BREAKER = {
    "consecutive_failures": 3, "wait_duration_in_open_state_ms": 40, "permitted_number_of_calls_in_half_open_state": 2,
}  # fmt: skip
CACHE = {"ttl_ms": 5, "stale_while_revalidate_ms": 20, "entries_max": 20}
#: All policies at once, each of them tight.
ALL: dict[str, Any] = {
    "timeout_ms": 10,
    "backoff": {"first_ms": 2, "max_ms": 20, "jitter": 0.5},
    "circuit_breaker": BREAKER,
    "bulkhead": {"in_flight_max": 8, "queued_max": 8},
    "cache": CACHE,
    "hedge": {"after_ms": 3},
}
BY_WIRING: dict[str, Sections] = {
    "request": {"default": {**ALL, "attempts": 3, "deadline_ms": 60}},
    "hybrid": {"default": ALL},
}


def shop_that_asks(wiring: str, orders: Sections, gateway: Sections | None = None, **more: Any) -> Mesh:
    """The shop, whose orders and gateway ask by these policies; ``more`` as for :func:`shop`."""
    options: dict[str, Any] = {"durability": "os", "decline_permille": 50, "restocks": False, **more}
    document = shop(wiring, **options).resolved()
    document["services"]["orders"]["policies"] = orders
    document["services"]["gateway"]["policies"] = gateway or {}
    return meshes.parse(document)


def planned(*faults: tuple[float, Mapping[str, Any]]) -> list[Planned]:
    """Faults, each with the second of the load at which it strikes."""
    return PLAN.validate_python([{"moment": {"kind": "at-time", "seconds": at}, "fault": f} for at, f in faults])


def run(
    mesh: Mesh, seed: int, faults: Sequence[Planned] = (), *,
    orders: int = 80, rate: float = 400.0, products: int = 8, cancel_permille: int = 150, **how: Any,
) -> SimulatedRun:  # fmt: skip
    """Few products, so that the same is asked often."""
    history = generate(
        orders, seed=seed, products=products, customers=10, cancel_permille=cancel_permille, guest_permille=200,
        cancel_after_s_mean=0.02,
    )  # fmt: skip
    return run_simulated(mesh, of_history(history, rate=rate), seed=seed, faults=faults, seconds=120.0, **how)


def audited(done: SimulatedRun) -> Audit:
    """Nobody sends poison: whatever was refused shows a broken rule."""
    return audit(done.simulation.mesh, done.reader, replace(done.history, poison=False))


def counts(done: SimulatedRun, asker: str = "orders") -> dict[str, AskCounts]:
    """What came of the asks of a service that runs in one process, by message."""
    [found] = [each.instance for each in done.simulation.hosts.values() if each.service == asker]
    assert found is not None
    return found.counters.asks


def total(done: SimulatedRun, name: str) -> int:
    """One count over all messages that orders asks."""
    return sum(getattr(each, name) for each in counts(done).values())


# --- a circuit that opens over what was sent before ---------------------------------------------------

#: Orders asks inventory thirty times for a reservation, so that one is open for long; nothing else waits for long.
PATIENT: Sections = {
    "default": {
        "timeout_ms": 8, "attempts": 2, "backoff": {"first_ms": 2, "max_ms": 10},
        "circuit_breaker": {
            "consecutive_failures": 2, "wait_duration_in_open_state_ms": 30,
            "permitted_number_of_calls_in_half_open_state": 1,
        },
    },
    "ReserveStock": {"attempts": 30},
}  # fmt: skip


def sent_before_the_circuit_opened(seed: int) -> set[str]:
    """Inventory stands still with reservations in its inbox; the broker dies, so that orders folds again meanwhile."""
    dice = random.Random(seed)
    faults = planned(
        (0.02, {"kind": "freeze", "process": "inventory/0", "lasts_s": 0.5}),
        *((0.03 + dice.random() * 0.05, {"kind": "kill", "process": "broker"}) for _ in range(2)),
    )
    return judged(
        lambda: run(
            shop_that_asks("request", PATIENT), seed, faults, cancel_permille=0,
            speeds=Speeds(restart=(1_000, 8_000)), limits=Limits(refold_delay=5_000),
        )
    )  # fmt: skip

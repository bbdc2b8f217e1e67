"""A made-up benchmark for the tests of the report: no mesh ran, every figure comes from a formula and a seed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from eventmesh.history import CALLERS
from eventmesh.report import measure
from eventmesh.report.record import AuditRecord, CheckRecord, Point, Repetition, Run
from eventmesh.report.repetitions import summarise
from eventmesh.report.ways import Way
from eventmesh.shop import WORDS

ROLES = ("broker", "gateway", "orders", "inventory", "payments", "shipping", "customers", "catalog", "generator")
VALID = AuditRecord(
    verdict="valid",
    checks={
        "A1": CheckRecord(verdict="valid", examined=81, violations=0, title="offsets strictly increase"),
        "E2": CheckRecord(
            verdict="valid", examined=5_000, violations=0, title="an order is charged once iff confirmed"
        ),
    },
)
INVALID = AuditRecord(
    verdict="invalid",
    checks={
        "E2": CheckRecord(
            verdict="invalid", examined=5_000, violations=3, title="an order is charged once iff confirmed",
            examples=["order <o-17>: captured 2,400 twice"],
        )
    },
)  # fmt: skip
LOADS = (50, 100, 200, 400, 800, 1_600, 3_200)
#: Milliseconds of service at no load and orders per second at most, per way: base, per joined service, per ms of rtt.
WAYS: dict[tuple[str, str], tuple[float, float, float, float]] = {
    ("views", "view"): (6.2, 0.1, 0.0, 3_000),
    ("hybrid", "batched"): (6.6, 0.7, 1.0, 1_500),
    ("request", "per_order"): (3.1, 0.6, 2.0, 620),
}


def callers(
    due_us: np.ndarray, latency_ms: np.ndarray, *, accepted_ms: np.ndarray | None = None, lag_ms: float = 0.02
) -> pa.Table:
    """A callers' table of confirmed orders; NaN latency: no outcome."""
    due = np.asarray(due_us, np.int64)
    count = len(due)

    def after(milliseconds: np.ndarray) -> pa.Array:
        missing = np.isnan(milliseconds)
        return pa.array(due + (np.where(missing, 0, milliseconds) * 1_000).astype(np.int64), pa.int64(), mask=missing)

    accepted = latency_ms if accepted_ms is None else accepted_ms
    columns = [
        np.arange(count), ["PlaceOrder"] * count, [f"o-{i}" for i in range(count)], due, due + int(lag_ms * 1_000),
        after(accepted), after(latency_ms), [None if np.isnan(each) else "confirmed" for each in latency_ms],
        [None] * count, np.ones(count, np.int32), np.zeros(count, np.int32), np.zeros(count, bool), [None] * count,
    ]  # fmt: skip
    arrays = [pa.array(column, field.type) if not isinstance(column, pa.Array) else column
              for column, field in zip(columns, CALLERS, strict=True)]  # fmt: skip
    return pa.Table.from_arrays(arrays, schema=CALLERS)


def repetition(
    wiring: str, join: str, axis: Mapping[str, float], number: int, *, audit: AuditRecord = VALID, lag_ms: float = 0.02
) -> Repetition:
    """One made-up repetition: latency as of a queue, a backlog where the load passes the capacity."""
    base, per_service, per_rtt, most = WAYS[wiring, join]
    services, rtt, load = axis["joined_services"], axis["rtt_ms"], axis["offered_per_s"]
    most /= 1 + (per_service + per_rtt * rtt) * (services - 1) * 0.3 + per_rtt * rtt * 0.4
    dice = np.random.default_rng([number, int(load), int(services), int(rtt), list(WAYS).index((wiring, join))])
    count = int(min(max(load * 2, 300), 2_400))
    due = np.arange(count) * 1e6 / load + 1e15
    service = base + services * per_service + rtt * (1 + per_rtt * services)
    latency = service * (0.8 + dice.gamma(2, 0.1, count)) / max(1 - load / most, 0.08) * dice.uniform(0.95, 1.05)
    if load > most:
        latency += (1 - most / load) * (due - due[0]) / 1_000
    accepted = latency if wiring == "request" else 0.9 + dice.gamma(2, 0.2, count) + (load > most) * latency * 0.2
    view = wiring == "views"
    cpu = {role: dice.uniform(0.9, 1.1) * count * 1e-4 * (3 if role in ("broker", "orders") else 1) for role in ROLES}
    memory = {role: 128 + dice.uniform(0, 6) + (84 * services if role == "orders" and view else 0) for role in ROLES}
    return measure.point(
        callers(due, latency, accepted_ms=accepted, lag_ms=lag_ms), primary="PlaceOrder", wiring=wiring, join=join,
        joining=WORDS.joins[join], axis=axis, audit=audit, turn=number, cpu_s=cpu, memory_mb=memory,
        bytes_moved=count * 2_400, staleness_us=dice.gamma(2, 700, count) if view else None,
    )  # fmt: skip


def point(wiring: str, join: str, axis: Mapping[str, float], repetitions: int = 3, *,
          audit: AuditRecord = VALID, lag_ms: float = 0.02) -> Point:  # fmt: skip
    return summarise(
        [repetition(wiring, join, axis, number, audit=audit, lag_ms=lag_ms) for number in range(repetitions)]
    )


def shop_way(wiring: str, join: str) -> Way:
    """A way of the shop, as a report knows it."""
    return Way(wiring, join, WORDS.joins[join], asks=join != "view")


def axes(services: float = 3, rtt: float = 1, load: float = 100) -> dict[str, float]:
    return {"joined_services": services, "rtt_ms": rtt, "offered_per_s": load}


def points(scenarios: tuple[tuple[int, int], ...] = ((3, 1),), loads: tuple[int, ...] = LOADS) -> list[Point]:
    return [point(*way, axes(*scenario, load)) for scenario in scenarios for way in WAYS for load in loads]


def run(points: list[Point], **more: object) -> Run:
    fields: dict[str, object] = {
        "name": "join-scaling", "seed": 7, "commit": "0123456789ab", "machine": {"processor": "Made Up 1", "cores": 2,
        "memory_gb": 8.0, "system": "Linux 6.1"}, "versions": {"eventmesh": "0.1", "python": "3.11.7"},
        "config": {"sweep": {"offered_per_s": list(LOADS)}}, "durability": "os", "status": "complete", "warmup_s": 2.0,
        "started_at": datetime(2026, 3, 1, 12, tzinfo=UTC), "verdict": "valid", "points": points, "words": WORDS,
    }  # fmt: skip
    return Run(**(fields | more))  # type: ignore[arg-type]

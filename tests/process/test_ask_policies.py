"""Given a shop of real processes' parts that asks by all policies at once, then orders end right whatever is lost."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from eventmesh import mesh as meshes
from eventmesh.runtime.caller import Caller
from eventmesh.runtime.faults import Loss
from eventmesh.runtime.limits import AskCounts
from eventmesh.runtime.process import caller_member
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from tests.process.whole_mesh import LIMITS, WholeMesh, shown

MESH = Path(__file__).parents[2] / "configs" / "meshes" / "request.yaml"
#: Patient beside what real threads take on a busy machine, and impatient beside what is lost.
POLICY: dict[str, Any] = {
    "timeout_ms": 200,
    "backoff": {"first_ms": 5, "max_ms": 50, "jitter": 0.5},
    "cache": {"ttl_ms": 50, "stale_while_revalidate_ms": 200},
    "hedge": {"after_ms": 20},
    "circuit_breaker": {
        "consecutive_failures": 4, "wait_duration_in_open_state_ms": 50,
        "permitted_number_of_calls_in_half_open_state": 2,
    },
    "bulkhead": {"in_flight_max": 6, "queued_max": 500},
}  # fmt: skip


@pytest.fixture
def mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WholeMesh]:
    monkeypatch.setattr(caller_member, "Caller", partial(Caller, patience=LIMITS.attempt_timeout))
    document = meshes.load(MESH).resolved()
    document["services"]["orders"]["policies"] = {"default": POLICY}
    made = WholeMesh(meshes.parse(document), tmp_path)
    yield made
    made.close()


def test_what_is_lost_on_the_way_is_asked_again_or_undone(mesh: WholeMesh) -> None:
    orders = of_history(generate(60, seed=3, products=8, customers=5), rate=100.0)
    tables = [mesh.call(f"seeding-{number}", stage) for number, stage in enumerate(orders.seeding)]
    struck = mesh.strike(Loss(source="orders", target="*", share=0.2, lasts_s=60.0))
    tables.append(mesh.call("load", orders.load))
    mesh.heal()
    audit = mesh.audit(pa.concat_tables(tables))
    assert audit.verdict == "valid", audit.describe()
    assert sum(shown(struck).values()) > 0
    counts = mesh.services["orders", 0].instance.counters.asks

    def total(name: str) -> int:
        return sum(getattr(each, name) for each in counts.values())

    never = [name for name in AskCounts().to_json() if not total(name)]
    assert set(never) <= {"given_up", "circuit_opened", "circuit_not_permitted", "bulkhead_full"}, never
    told = mesh.services["orders", 0].readings()
    assert {each.tags["message"] for each in told if each.name == "eventmesh_counted_asks_total"} == set(counts)

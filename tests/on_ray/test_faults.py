"""Given one mesh under load, when faults of every place strike it, then each is seen to have happened, and the audit is
valid.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from eventmesh import mesh as meshes
from eventmesh.errors import ConfigurationError
from eventmesh.lab.run import audit_folder
from eventmesh.mesh import Mesh
from eventmesh.runtime import faults
from eventmesh.runtime.faults import (
    Bandwidth,
    ClockJump,
    Cut,
    Duplication,
    End,
    FailingSyncs,
    Fault,
    Freeze,
    FullDisk,
    Kill,
    Latency,
    Loss,
    LostUnsynced,
    Reordering,
    Reset,
    SlowDisk,
    Split,
    Stall,
    Struck,
    TornWrite,
)
from eventmesh.runtime.on_ray.cluster import MeshOnRay
from eventmesh.runtime.running import seed_with
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history

MESHES = Path(__file__).resolve().parents[2] / "configs" / "meshes"
pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("ray_cluster")]

SOON_S = 60.0
#: One after the other, each for a moment, in the middle of one load: all kinds that exist on Ray but `flipped-bit`,
#: after which no audit is valid.
FAULTS: list[Fault] = [
    Latency(source="*", target="broker", latency_ms=20, jitter_ms=5, lasts_s=1),
    Split(groups=(("orders",), ("broker",)), lasts_s=1),
    Stall(source="broker", target="*", toxicity=0.5, lasts_s=1),
    Bandwidth(source="*", target="broker", rate_kb_per_s=200, lasts_s=1),
    Cut(source="orders", target="payments", lasts_s=0.5),
    Reset(source="*", target="broker"),
    Loss(source="*", target=("gateway", "inventory"), share=0.3, lasts_s=1),
    Reordering(source="orders", target="inventory", share=0.3, delay_ms=(5, 50), lasts_s=1),
    Duplication(source="generator", target="gateway", share=0.5, delay_ms=(0, 20), lasts_s=1),
    SlowDisk(extra_ms=20, lasts_s=1),
    FullDisk(lasts_s=0.5),
    FailingSyncs(lasts_s=0.5),
    # Forth, it would break E7 by its own word: facts that follow from one of the future lie before it.
    ClockJump(process="gateway/0", by_ms=-60_000, lasts_s=1),
    Freeze(process="inventory/0", lasts_s=1),
    Kill(process="orders/0"),
    End(process="inventory/0", lasts_s=1),
    TornWrite(after_bytes=2_000),
    Kill(process="broker"),
]


def mesh_of(wiring: str, durability: str) -> Mesh:
    document = meshes.load(MESHES / f"{wiring}.yaml").resolved()
    document["log"]["durability"] = durability
    return meshes.parse(document)


def until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SOON_S
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_faults_of_every_place_on_one_mesh_under_one_load(tmp_path: Path) -> None:
    there = {kind for kind, model in faults.FAULTS.items() if "on_ray" in model.runtimes}
    assert {fault.kind for fault in FAULTS} == there - {"flipped-bit"}
    orders = of_history(generate(6_500, seed=4, products=40, customers=20), rate=200.0)
    mesh, tables = mesh_of("request", "fsync"), list[pa.Table]()
    with MeshOnRay(mesh, tmp_path / "log", seed=4) as running:
        seed_with(running, orders.seeding)
        load = threading.Thread(target=lambda: tables.append(running.call("load", orders.load)))
        load.start()
        struck: list[Struck] = []
        for fault in FAULTS:
            struck.append(running.strike(fault))
            until(lambda: struck[-1].ended_us is not None, f"{fault} to be over")
        running.heal()
        running.heal()
        load.join()
        running.drain()
        history = running.history(pa.concat_tables(tables))
    assert [each.fault.kind for each in struck if not each.happened] == []
    ended = {each.fault.kind: each.shows for each in struck}
    assert ended["kill"]["lives begun"] == ended["end"]["lives begun"] == ended["torn-write"]["lives begun"] == 1
    audit, *_ = audit_folder(mesh, tmp_path, history)
    assert audit.verdict == "valid", audit.describe()
    assert audit.checks["E1"].examined == len(orders.load)


def test_what_lasts_is_over_when_it_is_healed_and_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    orders = of_history(generate(50, seed=4, products=40, customers=20))
    with MeshOnRay(mesh_of("views", "os"), tmp_path / "log", seed=4) as running:
        seed_with(running, orders.seeding)
        with pytest.raises(ConfigurationError, match="lost-unsynced does not exist on the runtime on_ray"):
            running.strike(LostUnsynced())
        lasting = [
            running.strike(Stall(source="*", target="broker", lasts_s=600)),
            running.strike(Freeze(process="orders/0", lasts_s=600)),
        ]
        running.heal()
        until(lambda: all(each.ended_us is not None for each in lasting), "all to be healed")
        running.call("load", orders.load)
        running.drain()

"""Given a mesh that is backed up at any moment, then what is restored goes on to a run that the audit finds valid."""

from __future__ import annotations

import random
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from eventmesh.audit.audit import audit
from eventmesh.lab import backup
from eventmesh.lab.simulated_run import SimulatedRun
from eventmesh.log.storage import MemoryStorage
from eventmesh.log.store import LogReader
from eventmesh.mesh import Mesh
from eventmesh.runtime.journal import COLUMNS, Journal
from eventmesh.runtime.simulated.simulation import CLUSTER, Simulation
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from tests.simulation.scenario import WIRINGS, Shop, shop

COUNTERS = ("watermark", "published_start", "sync_failed")
ORDERS = 30


def gone_on_with(mesh: Mesh, seed: int, data: Path, now: int) -> Simulation:
    """The simulation, gone on with from a data directory at the time when it was copied, and its load with it."""
    simulation = Shop(mesh, seed=seed, storage=loaded(data / "log"), now=now, lives_before=1_000)
    simulation.resume(Journal.open(data / "generator" / "load"))
    return simulation


def loaded(folder: Path) -> MemoryStorage:
    storage = MemoryStorage()
    for path in sorted(each for each in folder.rglob("*") if each.is_file() and each.name != "lock"):
        name, data = path.relative_to(folder).as_posix(), path.read_bytes()
        if path.name in COUNTERS:
            storage.counter(name).set(struct.unpack("<q", data)[0])
        else:
            storage.replace(name, data)
    return storage


def write_data(simulation: Simulation, folder: Path) -> None:
    """What a mesh on Ray has on its disk at this moment."""
    counters = {path: struct.pack("<q", counter.get()) for path, counter in simulation.storage.counters.items()}
    for path, content in {**simulation.storage.files, **counters}.items():
        file = folder / "log" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(content))
    (folder / "mesh.yaml").write_text(yaml.safe_dump(simulation.mesh.resolved(), sort_keys=False))
    journal = simulation.clients["load"].journal
    assert journal is not None
    written = Journal.create(folder / "generator" / "load", "load", journal.requests, journal.window)
    for word in journal.words.words:
        written.words.code(word)
    for column in COLUMNS:
        getattr(written, column)[:] = getattr(journal, column)
    np.copyto(written._header, journal._header)
    written.close()


def copied(mesh: Mesh, seed: int, folder: Path, after_us: int) -> int:
    """Run the mesh, and write down what it has on its disk so long after its load began: that moment."""
    workload, simulation = of_history(generate(ORDERS, seed=seed), rate=200.0), Shop(mesh, seed=seed)
    for number, stage in enumerate(workload.seeding):
        simulation.call(f"seeding-{number}", stage)
    simulation.drain(seconds=600)
    simulation.call("load", workload.load, window=workload.window)
    moment = simulation.world.now + after_us
    simulation.world.at(moment, lambda: write_data(simulation, folder))
    simulation.drain(seconds=600)
    return moment


def restored(folder: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Through an archive, and given the names that the simulation gives."""
    archive = folder.with_name(f"{folder.name}.tar.zst")
    said = backup.take(folder, archive)
    shutil.rmtree(folder)
    settle = backup.settle
    monkeypatch.setattr(
        backup, "settle", lambda where, what, **_: settle(where, what, cluster_id=CLUSTER, node="simulated")
    )
    backup.restore(archive, target)
    return said


@pytest.mark.parametrize("wiring", WIRINGS)
def test_what_is_restored_goes_on_and_is_valid(wiring: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way = 0
    for seed in range(4):
        mesh = shop(wiring, "os" if seed % 2 else "fsync", 0, False, snapshot_rows=20 if seed % 3 else None)
        data, target = tmp_path / f"data-{seed}", tmp_path / f"restored-{seed}"
        moment = copied(mesh, seed, data, random.Random(seed).randrange(1_000, 150_000))
        restored(data, target, monkeypatch)
        simulation = gone_on_with(mesh, seed, target, moment + 1_000_000)
        journal = simulation.clients["load"].journal
        assert journal is not None
        under_way += int((journal.completed < 0).any() and (journal.accepted >= 0).any())
        simulation.drain(seconds=600)
        history = simulation.history(["load"])
        assert history.callers["outcome"].null_count == 0
        assert audit(mesh, LogReader.of(simulation.storage), history).describe() == "audit: valid", f"seed {seed}"
    assert under_way >= 2, "some of the moments are in the middle of it"


def test_with_retention_the_snapshots_come_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = shop("views", "os", 0, False, snapshot_rows=5, retention_ms=20)
    moment = copied(mesh, 1, tmp_path / "data", 149_000)
    restored(tmp_path / "data", tmp_path / "restored", monkeypatch)
    simulation = gone_on_with(mesh, 1, tmp_path / "restored", moment + 1_000_000)
    log = simulation.broker.log
    assert log is not None
    assert any(log.start(name, number) for name, topic in mesh.topics().items() for number in range(topic.partitions))
    simulation.drain(seconds=600)
    run = SimulatedRun(simulation, simulation.history(["load"]), LogReader.of(simulation.storage))
    assert {name for name, check in run.audit().checks.items() if check.verdict == "invalid"} == set()
    assert run.history.callers["outcome"].null_count == 0

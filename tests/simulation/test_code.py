"""Given the code that an application is, then the log and its snapshots say which; and a fold that changed is found."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from eventmesh import mesh as meshes
from eventmesh.audit.audit import audit
from eventmesh.log.simulated_storage import SimulatedStorage
from eventmesh.log.store import LogReader
from eventmesh.messages import Columns
from eventmesh.runtime.simulated.simulation import Simulation
from tests.simulation.version_story import Growth
from tests.tiny import Shelf, workload
from tests.tiny.test_library import library
from tests.tiny.workload import LoanOptions


def lending(snapshot_rows: int) -> Growth:
    """Loans that are under way while the library is started with its next version."""
    document = library("events").resolved()
    document["log"]["snapshot_rows"] = snapshot_rows
    return Growth(meshes.parse(document), workload(LoanOptions(seed=1, loans=40, rate=600.0)))


def test_each_grant_and_each_snapshot_says_which_application_it_is_of() -> None:
    run = lending(3).run(2)
    mesh = meshes.load(Path(__file__).parents[1] / "tiny" / "mesh.yaml")
    assert len(mesh.code) == 32
    granted = [entry.header for entry in run.reader.batches("loans", 0) if entry.header.kind == "granted"]
    assert [header.control for header in granted] == [{"code": mesh.code}] * len(granted)
    assert granted
    header = run.simulation.snapshots.header("state/loans/0")
    assert header is not None
    assert header.code == mesh.code


def test_a_fold_that_has_changed_without_a_word_goes_on_from_its_snapshots_and_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another hash alone folds nothing anew: that the meaning has changed, ``state_version`` says."""
    evolve = Shelf.evolve

    def otherwise(shelf: Shelf, state: Any, facts: Columns) -> None:
        evolve(shelf, state, facts)
        state.lent |= {f"{loan_id}, noted": True for loan_id in facts["loan_id"]}

    first = lending(3)._first(2)
    taken = first.snapshots.header("state/copies/0")
    assert taken is not None
    assert taken.next["copies/0"] > 3
    monkeypatch.setattr(Shelf, "evolve", otherwise)
    verdicts = {}
    for version in (Shelf.state_version, Shelf.state_version + 1):
        monkeypatch.setattr(Shelf, "state_version", version)
        verdicts[version] = verdict_on_states(first)
    assert verdicts == {1: "invalid", 2: "valid"}


def verdict_on_states(first: Simulation) -> str:
    """What D10 says of a mesh that goes on with a copy of what the first one left."""
    storage = SimulatedStorage(random.Random(1))
    storage.boot_id = first.storage.boot_id
    for path, content in first.storage.files.items():
        storage.replace(path, bytes(content))
    for path, counter in first.storage.counters.items():
        storage.counter(path).set(counter.get())
    second = Simulation(first.mesh, seed=2, storage=storage, now=first.world.now + 1_000_000, lives_before=1_000)
    second.drain()
    found = audit(second.mesh, LogReader.of(storage), second.history([]), only={"D10"})
    return found.checks["D10"].verdict

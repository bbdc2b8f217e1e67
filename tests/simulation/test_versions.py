"""Given a mesh that goes on with more and wider columns, then old and new facts lead to one right end, whoever dies."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pytest

from eventmesh.errors import DataDirectoryError
from eventmesh.lab.simulated_run import Crashes, SimulatedRun
from eventmesh.log.batch import LogBatch
from eventmesh.log.simulated_storage import SimulatedStorage
from eventmesh.mesh import parse
from eventmesh.progress import position_name
from eventmesh.runtime.partition_state import PartitionState
from tests.simulation.scenario import Shop
from tests.simulation.version_story import SHOP_GROWS, Growth, before, notes, versions_told
from tests.tiny import workload
from tests.tiny.test_library import library
from tests.tiny.workload import LoanOptions


def library_grows(wiring: str, durability: str, seed: int, *, snapshots: int | None = None) -> Growth:
    """Loans of the library that are under way while it grows."""
    document = library(wiring, durability).resolved()
    document["log"]["snapshot_rows"] = snapshots
    machines = 0.5 if durability == "fsync" else 0.0
    deaths = Crashes(5, broker_share=0.4, machine_share=machines)
    return Growth(parse(document), workload(LoanOptions(seed=seed, loans=40, rate=600.0)), deaths)


def problems(grown: Growth, seeds: range) -> list[str]:
    """What speaks against the runs of these seeds."""
    return [
        f"seed {seed}: {audit.describe()}" for seed in seeds if (audit := grown.run(seed).audit()).verdict != "valid"
    ]


@pytest.mark.parametrize("wiring", ["events", "asking"])
@pytest.mark.parametrize("durability", ["os", "fsync"])
def test_what_was_under_way_is_finished_by_the_next_version(wiring: str, durability: str) -> None:
    sides = Counter[str]()
    for seed in range(6):
        run = library_grows(wiring, durability, seed, snapshots=(None, 3)[seed % 2]).run(seed)
        audit = run.audit()
        assert audit.verdict == "valid", f"seed {seed}: {audit.describe()}"
        assert set(run.history.callers["outcome"].to_pylist()) <= {"granted", "declined"}, f"seed {seed}"
        told = versions_told(run)
        assert {said for said in told} <= {("/1", None), ("/2", "in version 2")}, "each fact says what it has"
        sides.update({version: count for (version, _), count in told.items()})
    assert min(sides["/1"], sides["/2"]) > 100, f"there is something on both sides: {sides}"


def test_orders_of_the_shop_are_finished_by_the_next_version() -> None:
    assert problems(SHOP_GROWS, range(4)) == []


@pytest.mark.parametrize("durability", ["os", "fsync"])
def test_the_broker_may_die_at_any_step_of_the_first_opening(durability: str) -> None:
    dice, lives = random.Random(5), 0
    for seed in range(12):
        grown = replace(library_grows("events", durability, seed), crashes=Crashes(0), die_after=dice.randrange(18_000))
        run = grown.run(seed)
        lives += run.simulation.broker.life > 1
        audit = run.audit()
        assert audit.verdict == "valid", f"seed {seed}, {grown.die_after}: {audit.describe()}"
        assert ("/2", "in version 2") in versions_told(run)
    assert lives > 6, "most of them died in the middle of it"


#: Columns that were of 32 bits.
WIDER = {"loans": ["days"], "copies": ["copies"]}


def done(seed: int = 1) -> SimulatedRun:
    return library_grows("events", "os", seed, snapshots=5).run(seed)


def test_readers_see_one_table_with_nulls_and_wider_values() -> None:
    run = done()
    for name in ("loans", "copies"):
        assert run.simulation.topics[name].version == 2
        tables = [run.reader.table(name, number) for number in (0, 1)]
        assert [table.schema.field(column).type for table in tables for column in WIDER[name]] == [pa.int64()] * 2
        notes_told = {note for table in tables for note in table["note"].to_pylist()}
        assert notes_told == {None, "in version 2"}
    views = [dump for dump in run.history.views if dump.view == "copies"]
    assert views
    assert all(isinstance(value, int) for dump in views for row in dump.rows for value in row["values"])


def test_a_snapshot_of_what_was_folded_from_old_facts_is_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was folded before the mesh grew is not even read again."""
    grown, name = library_grows("events", "os", 2, snapshots=3), "copies/0"
    with notes():
        first = grown._first(2)
        taken = first.snapshots.header(f"state/{name}")
        assert taken is not None
        assert taken.next[name] > 3
        folded: list[LogBatch] = []
        fold = PartitionState.fold

        def noted(own: PartitionState, entry: LogBatch) -> None:
            if position_name(own.topic.name, own.partition) == name:
                folded.append(entry)
            fold(own, entry)

        monkeypatch.setattr(PartitionState, "fold", noted)
        grown._second(first, 2).drain()
    assert min(entry.header.base for entry in folded) >= taken.next[name]
    assert {entry.header.version for entry in folded} == {1, 2}, "and on from there, over what is in both"


def test_going_back_is_refused_before_anything_starts() -> None:
    storage = done().simulation.storage
    assert isinstance(storage, SimulatedStorage)
    kept = {path: bytes(content) for path, content in storage.files.items()}
    with pytest.raises(DataDirectoryError) as refused:
        Shop(before(library("events")), seed=1, storage=storage)
    assert str(refused.value).count("version 1 of its columns is asked for, and version 2 is stored") == 2
    assert {path: bytes(content) for path, content in storage.files.items()} == kept

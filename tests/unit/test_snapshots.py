"""Given a log, then a snapshot taken anywhere in it, and the rest folded on top, equals the fold of all of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from eventmesh import mesh as meshes
from eventmesh.lab.simulated_run import SimulatedRun, run_simulated
from eventmesh.log.evolution import fitted
from eventmesh.log.simulated_storage import SimulatedStorage
from eventmesh.log.storage import MemoryStorage
from eventmesh.log.store import Durability, Log, LogReader
from eventmesh.mesh import Mesh
from eventmesh.messages import Columns
from eventmesh.progress import position_name
from eventmesh.runtime.limits import Counters
from eventmesh.runtime.partition_state import PartitionState
from eventmesh.runtime.snapshots import (
    FOLDER,
    Floors,
    Snapshot,
    SnapshotHeader,
    SnapshotStore,
    encode_view,
    restore_view,
    state_name,
    view_header,
    view_name,
)
from eventmesh.runtime.snapshotter import Snapshotter
from eventmesh.service import Service
from eventmesh.views import View, ViewShape
from tests.market import sales
from tests.simulation.scenario import Scenario
from tests.tiny import workload as library_workload
from tests.tiny.workload import LoanOptions

ROOT = Path(__file__).parents[2]
CLUSTER = "simulated"


@lru_cache
def run(application: str) -> SimulatedRun:
    """A finished run of the shop, in one of its wirings, of the library, or of the market."""
    if application == "library":
        mesh = meshes.load(ROOT / "tests" / "tiny" / "mesh.yaml")
        return run_simulated(mesh, library_workload(LoanOptions(seed=1, loans=40, rate=2_000.0)), seed=1)
    if application == "market":
        mesh = meshes.load(ROOT / "tests" / "market" / "mesh.yaml")
        return run_simulated(mesh, sales(seed=1, count=120), seed=1)
    return Scenario(application, orders=40, cancel_permille=300, restocks=True).run(5)


def empty(mesh: Mesh, service: str, partition: int) -> PartitionState:
    topic = mesh.topics()[mesh.topic_of(service)]
    return PartitionState(mesh.folding(service, partition), topic, clock=lambda: 0, counters=Counters())


def owned(mesh: Mesh) -> Iterator[tuple[str, str, int]]:
    for topic in mesh.topics().values():
        for partition in range(topic.partitions) if topic.owner in mesh.services else ():
            yield topic.owner, topic.name, partition


@pytest.mark.parametrize("application", ["views", "hybrid", "request", "library"])
def test_a_state_is_what_its_log_says_wherever_the_snapshot_was_taken(application: str) -> None:
    done, dice = run(application), random.Random(1)
    mesh, cuts = done.simulation.mesh, 0
    for service, topic, partition in owned(mesh):
        entries = list(done.reader.batches(topic, partition))
        whole = empty(mesh, service, partition)
        for entry in entries:
            whole.fold(entry)
        for cut in {0, len(entries), *(dice.randrange(len(entries) + 1) for _ in range(4))}:
            first, rest = empty(mesh, service, partition), empty(mesh, service, partition)
            for entry in entries[:cut]:
                first.fold(entry)
            end = entries[cut - 1].header.end if cut else 0
            kept = Snapshot.from_bytes(first.snapshot(CLUSTER, end, 1).to_bytes())
            assert kept is not None
            assert rest.restore(kept) == end
            for entry in entries[cut:]:
                rest.fold(entry)
            for name in ("state", "refusals", "views_required"):
                assert getattr(rest, name) == getattr(whole, name), f"{service}/{partition} cut at {cut}"
            assert rest.progress.to_json() == whole.progress.to_json()
            cuts += bool(cut)
    assert cuts > 10


@pytest.mark.parametrize("application", ["views", "hybrid", "market"])
def test_a_view_is_what_its_topics_say_wherever_the_snapshot_was_taken(application: str) -> None:
    done, dice = run(application), random.Random(2)
    mesh, topics = done.simulation.mesh, done.simulation.topics
    schemas = {name: topic.schema for name, topic in topics.items()}
    for service, section in mesh.services.items():
        for name, sources in section.views.items():
            entries = [
                (topic, number, entry)
                for topic in sources
                for number in range(topics[topic].partitions)
                for entry in done.reader.batches(topic, number)
            ]
            whole, first, rest = (mesh.view(service, name) for _ in range(3))
            for topic, number, entry in entries:
                whole.fold(topic, number, entry)
            cut = dice.randrange(len(entries) + 1)
            for topic, number, entry in entries[:cut]:
                first.fold(topic, number, entry)
            header = view_header(first, service, CLUSTER, 0)
            kept = Snapshot.from_bytes(Snapshot(header, encode_view(first, schemas)).to_bytes())
            assert kept is not None
            restore_view(rest, kept, schemas)
            for topic, number, entry in entries[cut:]:
                rest.fold(topic, number, entry)
            assert (rest.rows(), rest.next) == (whole.rows(), whole.next), f"{service}'s {name} cut at {cut}"


def test_a_view_of_columns_that_have_grown_since_is_what_all_its_facts_say() -> None:
    """A service finds what is in a list by its place, so that what was folded before has to have the new place, too."""
    line = [pa.field("sku", pa.string()), pa.field("quantity", pa.int16())]
    grown = [line[0], pa.field("gift", pa.bool_()), line[1].with_type(pa.int64())]
    before, after = (
        pa.schema([("order_id", pa.string()), ("lines", pa.list_(pa.struct(each))), ("sequence", pa.int64())])
        for each in (line, grown)
    )
    facts = pa.RecordBatch.from_pylist(
        [{"order_id": "a", "lines": [{"sku": "s", "quantity": 3}], "sequence": 0}], before
    )
    old, restored, folded = (View("orders", ViewShape("order_id", ("lines",)), ["orders"]) for _ in range(3))
    old.apply("orders", 0, 0, Columns(facts))
    header = view_header(old, "shipping", CLUSTER, 0)
    restore_view(restored, Snapshot(header, encode_view(old, {"orders": before})), {"orders": after})
    folded.apply("orders", 0, 0, Columns(fitted(facts, after)))
    assert restored.rows() == folded.rows()
    assert restored.lookup(["a"]) == [(0, [("s", None, 3)])]


# --- those that are not gone on with ---------------------------------------------------------------


def taken(application: str = "views") -> tuple[Mesh, LogReader, SnapshotStore, MemoryStorage]:
    """A finished run with a snapshot of everything."""
    done = run(application)
    storage = MemoryStorage()
    reader, store = done.reader, SnapshotStore(storage)
    snapshotter = Snapshotter(done.simulation.mesh, reader, store, cluster_id=CLUSTER, rows=1, clock=lambda: 7)
    assert state_name("orders", 0) in snapshotter.take_due()
    assert snapshotter.take_due() == [], "nothing has come since"
    return done.simulation.mesh, reader, store, storage


def test_a_whole_one_of_this_log_is_gone_on_with() -> None:
    mesh, reader, store, _ = taken()
    for name in (state_name("orders", 0), view_name("orders", "stock")):
        found = store.get(name, reader, CLUSTER)
        assert found is not None
        assert (found.header, found.header.taken_at) == (store.header(name), 7)
    found = store.get(state_name("orders", 0), reader, CLUSTER)
    assert found is not None
    assert found.header.next == {"orders/0": reader.watermark("orders", 0)}
    assert empty(mesh, "orders", 0).restore(found) == reader.watermark("orders", 0)


def damage(data: bytearray) -> None:
    data[-1] ^= 1


def cut(data: bytearray) -> None:
    del data[-1:]


def cut_to_nothing(data: bytearray) -> None:
    del data[10:]


@pytest.mark.parametrize("hurt", [damage, cut, cut_to_nothing])
def test_a_damaged_one_is_not(hurt: Callable[[bytearray], None]) -> None:
    _, reader, store, storage = taken()
    hurt(storage.files["state/orders/0.snapshot"])
    assert store.get(state_name("orders", 0), reader, CLUSTER) is None


def test_one_of_another_log_is_not() -> None:
    _, reader, store, _ = taken()
    assert store.get(state_name("orders", 0), reader, "another") is None


def test_one_of_another_fold_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh, reader, store, _ = taken()
    found = store.get(state_name("orders", 0), reader, CLUSTER)
    assert found is not None
    monkeypatch.setattr(mesh.application.SERVICES["orders"], "state_version", 1_000)
    other = empty(mesh, "orders", 0)
    assert (other.restore(found), other.state) == (0, other.service.initial())


@pytest.mark.parametrize("changed", ["a view's shape", "a state's version"])
def test_one_of_another_fold_is_replaced_at_once(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few rows have come since; unless the log's beginning, which it would need, is deleted."""
    mesh, reader, store, _ = taken()
    if changed == "a view's shape":
        names, changed_views = {view_name("orders", "stock")}, {**mesh.application.VIEWS, "stock": ViewShape("sku")}
        monkeypatch.setattr(mesh.application, "VIEWS", changed_views)
    else:
        names = {state_name("orders", number) for number in range(2)}
        monkeypatch.setattr(mesh.application.SERVICES["orders"], "state_version", 1_000)
    before = {name: store.header(name) for name in names}
    snapshotter = Snapshotter(mesh, reader, store, cluster_id=CLUSTER, rows=1, clock=lambda: 8)
    with monkeypatch.context() as deleted:
        deleted.setattr(reader, "start", lambda topic, partition: 1)
        assert snapshotter.take_due() == []
        assert {name: store.header(name) for name in names} == before
    assert set(snapshotter.take_due()) == names
    assert not {store.header(name).fold for name in names} & {header.fold for header in before.values()}  # type: ignore[union-attr]
    assert snapshotter.take_due() == []


@pytest.mark.parametrize("body", [b"", b"\xc1", msgspec.msgpack.encode({"open": 7}), msgspec.msgpack.encode([])])
def test_one_of_a_state_that_has_become_another_is_not(body: bytes) -> None:
    """Somebody has changed the state, and not its version: all is folded again, and the service comes back."""
    mesh, reader, store, _ = taken()
    found = store.get(state_name("orders", 0), reader, CLUSTER)
    assert found is not None
    other = empty(mesh, "orders", 0)
    assert other.restore(msgspec.structs.replace(found, body=body)) == 0
    assert (other.state, other.refusals) == (other.service.initial(), {})


@pytest.mark.parametrize("beyond", [1, 1_000])
def test_one_that_stands_beyond_the_log_is_not(beyond: int) -> None:
    _, reader, store, _ = taken()
    found = store.get(state_name("orders", 0), reader, CLUSTER)
    assert found is not None
    ahead = replace_header(found, next={"orders/0": reader.watermark("orders", 0) + beyond})
    store.put(ahead)
    assert store.get(state_name("orders", 0), reader, CLUSTER) is None


def replace_header(snapshot: Snapshot, **fields: Any) -> Snapshot:
    header = {name: getattr(snapshot.header, name) for name in snapshot.header.__struct_fields__}
    return Snapshot(SnapshotHeader(**{**header, **fields}), snapshot.body)


def test_what_it_stands_on_survives_the_machine() -> None:
    """At level ``os`` a machine may take back what was appended, but not what a snapshot holds."""
    for seed in range(6):
        done = replace(Scenario(orders=20), snapshot_rows=10).run(seed)
        storage = done.simulation.storage
        assert isinstance(storage, SimulatedStorage)
        Snapshotter(
            done.simulation.mesh, LogReader.of(storage), SnapshotStore(storage, FOLDER), cluster_id=CLUSTER, rows=1,
            clock=lambda: 7,
        ).take_due()  # fmt: skip
        storage.crash_machine()
        log = Log.open(
            storage, done.simulation.topics, durability=Durability.os, cluster_id=CLUSTER, node="simulated",
            clock=lambda: 8,
        )  # fmt: skip
        store = SnapshotStore(storage, FOLDER)
        for _, topic, partition in owned(done.simulation.mesh):
            if store.size(state_name(topic, partition)):
                assert store.get(state_name(topic, partition), log, CLUSTER) is not None, f"seed {seed}"


# --- what retention must leave ---------------------------------------------------------------------


def headers(
    mesh: Mesh, changed: Mapping[str, SnapshotHeader | None] = MappingProxyType({})
) -> Callable[[str], SnapshotHeader | None]:
    """Snapshots of everything, all at 10, but for those that ``changed`` says otherwise (None: there is none)."""
    found: dict[str, SnapshotHeader] = {}
    for service, topic, partition in owned(mesh):
        progress = {"next": dict.fromkeys(mesh.inputs_of(service, partition), 10)}
        own = position_name(topic, partition)
        found[state_name(topic, partition)] = SnapshotHeader("", CLUSTER, "", {own: 10}, 0, progress=progress)
    for service, section in mesh.services.items():
        for view, topics in section.views.items():
            names = [position_name(name, n) for name in topics for n in range(mesh.topics()[name].partitions)]
            found[view_name(service, view)] = SnapshotHeader("", CLUSTER, "", dict.fromkeys(names, 10), 0)
    return lambda name: changed.get(name, found.get(name))


def floors(mesh: Mesh, header: Callable[[str], SnapshotHeader | None]) -> Mapping[str, int]:
    looked = Floors(mesh, header, grace_us=100)
    looked.at(0)
    return looked.at(100)


def test_everybody_counts() -> None:
    mesh = run("views").simulation.mesh
    assert set(floors(mesh, headers(mesh)).values()) == {10, 0}
    assert floors(mesh, headers(mesh))["price-updates/0"] == 0, "its owner does not run yet, and will need all of it"
    own = SnapshotHeader(
        "", CLUSTER, "", {"stock/1": 4}, 0, progress={"next": dict.fromkeys(mesh.inputs_of("inventory", 1), 10)}
    )
    assert floors(mesh, headers(mesh, {state_name("stock", 1): own}))["stock/1"] == 4
    input_of = SnapshotHeader("", CLUSTER, "", {"payments/0": 10}, 0, progress={"next": {"orders/0": 3}})
    assert floors(mesh, headers(mesh, {state_name("payments", 0): input_of}))["orders/0"] == 3
    seen = SnapshotHeader("", CLUSTER, "", {"stock/0": 10, "stock/1": 2}, 0)
    assert floors(mesh, headers(mesh, {view_name("orders", "stock"): seen}))["stock/1"] == 2
    assert floors(mesh, headers(mesh, {state_name("orders", 1): None}))["orders/1"] == 0


def test_a_snapshot_counts_when_it_is_old_enough() -> None:
    mesh, offset = run("request").simulation.mesh, 0

    def header(name: str) -> SnapshotHeader | None:
        return (
            SnapshotHeader("", CLUSTER, "", {"customers/0": offset}, 0) if name == state_name("customers", 0) else None
        )

    looked, found = Floors(mesh, header, grace_us=100), []
    for now in (0, 50, 100, 150, 260):
        offset = now
        found.append(looked.at(now).get("customers/0"))
    assert found == [None, None, 0, 50, 150]


def test_a_service_says_of_what_type_its_state_is() -> None:
    for application in ("views", "library"):
        mesh = run(application).simulation.mesh
        for service, _, partition in owned(mesh):
            kind: Service = empty(mesh, service, partition).service
            assert type(kind).initial.__annotations__["return"] not in ("Any", None)

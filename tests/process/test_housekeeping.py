"""Given a broker with a log of a mesh, then it serves its snapshots, and deletes what no restart would read."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.flight as flight
import pytest

from eventmesh import mesh as meshes
from eventmesh.errors import LogStopped, PeerLost, Unauthenticated
from eventmesh.lab.simulated_run import run_simulated
from eventmesh.log.retention import Deleted
from eventmesh.log.storage import FileStorage
from eventmesh.log.store import Log, open_read_only
from eventmesh.mesh import Mesh
from eventmesh.runtime import broker as rules
from eventmesh.runtime.process import snapshot_transfer
from eventmesh.runtime.process.broker_member import BrokerMember
from eventmesh.runtime.process.housekeeping import Housekeeping
from eventmesh.runtime.process.reactor import now
from eventmesh.runtime.process.snapshot_process import Assignment, SnapshotProcess, Taken
from eventmesh.runtime.snapshots import FOLDER, SnapshotStore, state_name, view_name
from eventmesh.runtime.snapshotter import Snapshotter
from eventmesh.runtime.wire.channel import OPEN, Access
from tests.process.whole_mesh import until
from tests.simulation.scenario import Scenario

SOON_S = 30.0
MINE = Access(token="a secret of this mesh")
NAMES = [state_name("orders", 1), view_name("orders", "stock")]


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    document = Scenario().mesh.resolved()
    for topic in document["topics"].values():
        topic |= {"segment.bytes": 20_000, "retention.ms": 1}
    return meshes.parse(document)


@pytest.fixture(scope="module")
def finished(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a finished run, and snapshots of it."""
    folder = tmp_path_factory.mktemp("finished") / "log"
    done = run_simulated(mesh, Scenario(orders=60).workload(1), seed=1)
    storage = FileStorage(folder)
    broker = Log.open(
        storage, mesh.topics(), durability=done.simulation.durability, cluster_id="test", node="n", clock=now
    )  # fmt: skip
    for topic in mesh.topics().values():
        for partition in range(topic.partitions):
            for entry in done.reader.batches(topic.name, partition):
                if entry.header.kind == "granted":
                    broker.grant(topic.name, partition, topic.owner, entry.header.incarnation)
                else:
                    broker.append(topic.name, partition, entry)
    broker.close()
    reader, store = open_read_only(folder), FileStorage(folder / FOLDER)
    Snapshotter(mesh, reader, SnapshotStore(store), cluster_id="test", rows=1, clock=now).take_due()
    store.close()
    reader.close()
    return folder


@pytest.fixture
def log(finished: Path, tmp_path: Path) -> Path:
    """A copy of it for each test."""
    return Path(shutil.copytree(finished, tmp_path / "log"))


def served(mesh: Mesh, log: Path, monkeypatch: pytest.MonkeyPatch, access: Access = OPEN) -> BrokerMember:
    monkeypatch.setattr("eventmesh.runtime.process.broker_member.machine_id", lambda: "n")
    return BrokerMember(mesh.topics(), log, "os", "test", access=access)


@pytest.fixture
def broker(mesh: Mesh, log: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BrokerMember]:
    running = served(mesh, log, monkeypatch)
    yield running
    running.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_snapshot_arrives_as_it_lies_on_the_disk(broker: BrokerMember, log: Path, name: str) -> None:
    fetched = snapshot_transfer.fetch(broker.address(), name, OPEN)
    assert fetched is not None
    assert fetched.to_bytes() == (log / FOLDER / f"{name}.snapshot").read_bytes()


def test_what_there_is_no_snapshot_of_is_no_error(broker: BrokerMember, log: Path) -> None:
    assert snapshot_transfer.fetch(broker.address(), state_name("price-updates", 0), OPEN) is None
    (log / FOLDER / f"{NAMES[0]}.snapshot").unlink()
    assert snapshot_transfer.fetch(broker.address(), NAMES[0], OPEN) is None


def test_while_no_log_is_open_nobody_is_told_that_there_is_no_snapshot(
    broker: BrokerMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who took that for an answer would read from 0 on, where retention may have deleted."""
    monkeypatch.setattr(rules, "REOPEN_US", 600_000_000)
    with broker.lock:
        broker.rules.sync_failed(LogStopped("the disk failed"))
    with pytest.raises(PeerLost, match="the disk failed"):
        snapshot_transfer.fetch(broker.address(), NAMES[0], OPEN)
    with broker.lock:
        broker.rules.tick(now() + rules.REOPEN_US)
    assert snapshot_transfer.fetch(broker.address(), NAMES[0], OPEN) is not None


@pytest.mark.parametrize("name", ["", "state/orders", "state/../../manifest.json", "other/orders/0", "state/orders/.."])
def test_a_ticket_that_names_no_snapshot_is_an_error_that_says_so(broker: BrokerMember, name: str) -> None:
    with pytest.raises(PeerLost, match=r"expected \.snapshots/state/TOPIC/PARTITION or"):
        snapshot_transfer.fetch(broker.address(), name, OPEN)
    with flight.connect(broker.address()) as client:
        assert client.do_get(flight.Ticket(b"orders/0/0")).read_all().num_rows


def test_without_the_token_no_snapshot_is_given(mesh: Mesh, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = served(mesh, log, monkeypatch, MINE)
    with pytest.raises(Unauthenticated, match="no token came with the call"):
        snapshot_transfer.fetch(running.address(), NAMES[0], OPEN)
    assert snapshot_transfer.fetch(running.address(), NAMES[0], MINE) is not None
    running.close()
    with pytest.raises(PeerLost, match=NAMES[0]):
        snapshot_transfer.fetch(running.address(), NAMES[0], MINE)


class Retained:
    """Runs housekeeping's calls, and tells when retention has deleted."""

    def __init__(self, broker: BrokerMember) -> None:
        self.broker, self.deleted, self.looks = broker, threading.Event(), threading.Semaphore(0)

    def __call__(self, call: Callable[[Log], Any]) -> Any:
        found = self.broker._guarded(call)
        if any(isinstance(each, Deleted) for each in found):
            self.deleted.set()
        self.looks.release()
        return found


def test_what_every_snapshot_has_passed_is_deleted(
    mesh: Mesh, log: Path, broker: BrokerMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventmesh.runtime.process.housekeeping.LOOK_S", 0.01)
    guarded = Retained(broker)
    never = mesh.description.log.model_copy(update={"snapshot_rows": 10**9})
    quiet = replace(mesh, description=mesh.description.model_copy(update={"log": never}))
    keeping = Housekeeping(quiet, log, "test", guarded, retention_s=0.05)
    assert guarded.deleted.wait(20)
    keeping.close()
    starts = {name: broker.rules.log.start(name, 0) for name in ("orders", "stock", "price-updates")}
    assert starts["orders"] > 0 < starts["stock"]
    assert starts["price-updates"] == 0
    assert snapshot_transfer.fetch(broker.address(), state_name("orders", 0), OPEN) is not None


def assignment(mesh: Mesh, log: Path) -> Assignment:
    for path in (log / FOLDER).glob("*/*/*.snapshot"):
        path.unlink()
    return Assignment(mesh, log, "test", rows=1)


def test_snapshots_are_taken_by_a_process_that_gives_way_to_all_others(mesh: Mesh, log: Path) -> None:
    taking, gave_way = SnapshotProcess(assignment(mesh, log)), False
    while not taking.done():
        gave_way = gave_way or os.sched_getscheduler(taking.pid) == os.SCHED_IDLE
        with suppress(subprocess.TimeoutExpired):  # it gives way to this loop as well
            taking._process.wait(0.002)
    assert gave_way
    taken = taking.taken()
    assert taken is not None
    assert set(NAMES) <= set(taken.names)
    assert taken.cpu_s > 0
    store = SnapshotStore(FileStorage(log / FOLDER, read_only=True))
    assert all(store.header(name) for name in taken.names)


def test_who_takes_snapshots_ends_with_who_wanted_them(mesh: Mesh, log: Path) -> None:
    taking = SnapshotProcess(assignment(mesh, log))
    assert taking._process.stdin is not None
    taking._process.stdin.close()
    taking._process.wait(SOON_S)
    taking._process.stdin = None
    assert taking.taken() is None
    assert not list((log / FOLDER).glob("*/*/*.snapshot"))


def test_a_log_that_cannot_be_read_is_a_failure_that_says_why(
    mesh: Mesh, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    taking = SnapshotProcess(Assignment(mesh, tmp_path, "test", rows=1))
    taking._process.wait(SOON_S)
    assert taking.taken() is None
    assert "it has no manifest" in capfd.readouterr().err


def taken_by(assignment: Assignment) -> Taken | None:
    process = SnapshotProcess(assignment)
    until(process.done)
    return process.taken()


def test_snapshots_are_not_taken_with_another_application_than_the_one_that_was_checked(
    mesh: Mesh, log: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert mesh.sources is not None
    shutil.rmtree(log / FOLDER)
    checked = replace(mesh.sources, files={**mesh.sources.files, "orders.py": "as it was"})
    assert taken_by(Assignment(replace(mesh, sources=checked), log, "test", 1)) is None
    said = capfd.readouterr().err
    assert f"in {checked.place}, and not as it was checked in {checked.place}: orders.py is another" in said
    assert not (log / FOLDER).exists()
    taken = taken_by(Assignment(mesh, log, "test", 1))
    assert taken is not None
    with closing(FileStorage(log / FOLDER, read_only=True)) as storage:
        headers = [SnapshotStore(storage).header(name) for name in taken.names]
    assert [header.code for header in headers if header is not None] == [mesh.code] * len(taken.names)

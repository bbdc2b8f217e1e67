"""Given a data directory that an older version wrote, then it opens, or is refused with the way out; nothing is lost.

``data_of_4e43704.tar.gz`` was written by the code of commit 4e43704: the mesh ``views`` with snapshots every four rows,
six orders on the simulated runtime, two of them cancelled or returned; the log was then opened and closed as files, and
a second run begun of whose four orders two had their outcome. Only the names of the machine and of its start were
replaced afterwards.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from eventmesh import mesh as meshes
from eventmesh.audit.audit import audit
from eventmesh.errors import DataDirectoryError, StoredSetting
from eventmesh.history import History
from eventmesh.lab.standing_runs import all_callers, earlier, next_run, set_lost_journals_aside, unfinished
from eventmesh.log.manifest import MANIFEST
from eventmesh.log.storage import FileStorage, machine_id
from eventmesh.log.store import Durability, Log, LogReader, open_read_only
from eventmesh.mesh import Mesh
from eventmesh.progress import split_position
from eventmesh.runtime.journal import Journal
from eventmesh.runtime.snapshots import FOLDER, Snapshot, SnapshotStore, restore_view
from eventmesh.runtime.snapshotter import Snapshotter
from eventmesh.shop import WORDS, Orders, Payments
from tests.commands.conftest import Run

ARCHIVE = Path(__file__).with_name("data_of_4e43704.tar.gz")
BYTES_MAX = 100_000
CLUSTER = "simulated"
#: What was in each partition when it was written.
ENDS = {
    "customers/0": 7, "order-requests/0": 5, "order-requests/1": 4, "orders/0": 13, "orders/1": 13, "payments/0": 4,
    "payments/1": 4, "price-updates/0": 0, "prices/0": 19, "shipments/0": 4, "shipments/1": 4, "stock/0": 46,
    "stock/1": 30,
}  # fmt: skip
COMPACTED = ("customers", "prices")


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """The directory on another machine than the one that wrote it."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path / "data", filter="data")
    return tmp_path / "data" / "shop"


@pytest.fixture
def data(moved: Path) -> Path:
    """The directory on the machine that wrote it, which was not started again since."""
    path = moved / "log" / MANIFEST
    with closing(FileStorage(moved / "elsewhere")) as storage:
        here = {"node": machine_id(), "boot_id": storage.boot_id}
    shutil.rmtree(moved / "elsewhere")
    path.write_text(json.dumps(json.loads(path.read_text()) | here))
    return moved


def ends(reader: LogReader) -> dict[str, int]:
    return {
        f"{topic}/{number}": reader.watermark(topic, number)
        for topic, each in reader.topics.items()
        for number in range(each.partitions)
    }


def test_it_is_kept_small() -> None:
    assert ARCHIVE.stat().st_size < BYTES_MAX


# --- the mesh ----------------------------------------------------------------------------------------


def test_it_can_be_started_and_what_has_no_effect_is_said(eventmesh: Run, data: Path) -> None:
    ended = eventmesh("up", "--data", data, "--dry-run")
    assert (ended.code, ended.made) == (0, [])
    lines = ended.err.splitlines()
    assert [f"mesh.yaml: topics.{name}.cleanup.policy: does nothing" in line for name, line in
            zip(COMPACTED, lines, strict=True)] == [True, True]  # fmt: skip
    assert all(line.startswith("eventmesh: ") and "All of it is kept, as before" in line for line in lines)


def test_what_was_to_be_compacted_is_kept_for_ever_as_it_was_before(data: Path) -> None:
    with pytest.warns(StoredSetting, match="found text 'compact'"):
        mesh = meshes.load_stored(data / "mesh.yaml")
    settings = {name: mesh.topics()[name].settings for name in (*COMPACTED, "orders")}
    assert [(each.cleanup_policy, each.retention_ms, each.retention_bytes) for each in settings.values()] == [
        ("delete", -1, -1), ("delete", -1, -1), ("delete", 604_800_000, -1),
    ]  # fmt: skip
    assert meshes.parse(mesh.resolved()).resolved() == mesh.resolved(), "what is written now is what may be written"


def test_options_of_a_service_that_had_no_effect_are_passed_over(eventmesh: Run, data: Path) -> None:
    stored = yaml.safe_load((data / "mesh.yaml").read_text())
    stored["services"]["inventory"]["initial"] = "none"
    stored["services"]["customers"]["memory_s"] = 60
    stored["services"]["orders"]["batched"] = True
    (data / "mesh.yaml").write_text(yaml.safe_dump(stored))
    ended = eventmesh("up", "--data", data, "--dry-run")
    assert ended.code == 0
    for path in ("inventory.initial", "customers.memory_s", "orders.batched"):
        assert f"mesh.yaml: services.{path}: does nothing" in ended.err
    new = eventmesh("up", data / "mesh.yaml", "--data", data, "--dry-run")
    assert (new.code, new.out) == (2, ""), "named by hand it is a mesh file like any other"


def test_on_another_machine_it_is_refused_with_the_way_out(eventmesh: Run, moved: Path) -> None:
    ended = eventmesh("up", "--data", moved, "--dry-run")
    assert (ended.code, ended.out) == (6, "")
    assert "belongs to node the machine of 4e43704" in ended.err
    assert "or name another directory" in ended.err


# --- the log -----------------------------------------------------------------------------------------


def test_its_log_is_read_to_the_end(eventmesh: Run, data: Path) -> None:
    with closing(open_read_only(data / "log")) as reader:
        assert ends(reader) == ENDS
    for words in (["log", "topics"], ["log", "verify"], ["log", "read", "orders"], ["trace", "G00000001"]):
        ended = eventmesh(*words, "--run", data)
        assert ended.code == 0, ended
        assert ended.err.count("there is no compaction yet") == len(COMPACTED)
        assert ended.err.count("manifest.json: topics.") == len(COMPACTED)


@pytest.mark.filterwarnings("ignore::eventmesh.errors.StoredSetting")
def test_its_log_is_gone_on_with(eventmesh: Run, data: Path) -> None:
    mesh = meshes.load_stored(data / "mesh.yaml")
    log = Log.open(
        FileStorage(data / "log"), mesh.topics(), durability=Durability.os, cluster_id=CLUSTER, node=machine_id(),
        clock=lambda: 1_800_000_000_000_000,
    )  # fmt: skip
    assert {name: log.end(*split_position(name)) for name in ENDS} == ENDS
    assert log.grant("orders", 0, "orders", "a new life").end == ENDS["orders/0"] + 1
    log.close()
    ended = eventmesh("log", "topics", "--run", data)
    assert (ended.code, ended.err) == (0, ""), "the manifest says what holds now"


@pytest.mark.filterwarnings("ignore::eventmesh.errors.StoredSetting")
def test_its_first_run_is_still_found_valid(data: Path) -> None:
    mesh, callers = meshes.load_stored(data / "mesh.yaml"), all_callers(earlier(data))
    assert callers.num_rows == 7
    assert callers["repeated"].null_count == callers.num_rows, "that was not written down yet"
    with closing(open_read_only(data / "log")) as reader:
        found = audit(mesh, reader, History(callers, [], drained=True))
    doubts = {name: each.verdict for name, each in found.checks.items() if each.verdict != "valid"}
    assert doubts == {"E8": "unknown"}, f"only the views that processes held are not here: {found.describe()}"


# --- snapshots ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::eventmesh.errors.StoredSetting")
def test_what_is_folded_from_its_snapshots_is_what_is_folded_from_the_log_alone(data: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(data, tmp_path / "bare"))
    shutil.rmtree(bare / "log" / FOLDER)
    mesh = meshes.load_stored(data / "mesh.yaml")
    old, new = (folded(mesh, folder) for folder in (data, bare))
    assert old == new
    assert len(new) > 10


def folded(mesh: Mesh, data: Path) -> dict[str, object]:
    """Every snapshot taken anew, from what lies there on: its fold, how far it has got, and its content."""
    with closing(open_read_only(data / "log")) as reader, closing(FileStorage(data / "log" / FOLDER)) as storage:
        store = SnapshotStore(storage)
        snapshotter = Snapshotter(mesh, reader, store, cluster_id=CLUSTER, rows=1, clock=lambda: 7)
        names = [subject.name for subject in snapshotter._subjects if snapshotter._take(subject)]
        taken = {name: store.get(name, reader, CLUSTER) for name in names}
    return {
        name: (each.header.fold, dict(each.header.next), rows(mesh, name, each) or bytes(each.body))
        for name, each in taken.items()
        if each is not None
    }


def rows(mesh: Mesh, name: str, snapshot: Snapshot) -> list[dict[str, Any]]:
    """Those of a view, whose snapshot has them in the order in which they came; nothing of a state."""
    kind, service, part = name.split("/")
    if kind != "view":
        return []
    view = mesh.view(service, part)
    restore_view(view, snapshot, mesh.schemas)
    return view.rows()


def test_its_snapshots_are_of_both_kinds(data: Path) -> None:
    """Some are gone on with; those of a state that has changed since are passed over, which is what is tested above."""
    with closing(FileStorage(data / "log" / FOLDER, read_only=True)) as storage:
        store = SnapshotStore(storage)
        folds = {name: getattr(store.header(name), "fold", "") for name in ("state/orders/0", "state/payments/0")}
    versions = {"state/orders/0": Orders.state_version, "state/payments/0": Payments.state_version}
    assert {name: folds[name].endswith(str(version)) for name, version in versions.items()} == {
        "state/orders/0": False, "state/payments/0": True,
    }  # fmt: skip


# --- the journal -------------------------------------------------------------------------------------


def test_its_journal_is_refused_with_the_way_out(data: Path) -> None:
    with pytest.raises(DataDirectoryError, match=r"the format 'eventmesh\.journal/1'") as refused:
        Journal.open(data / "generator" / "run-2-load")
    assert "with the version that wrote it" in str(refused.value)
    assert "eventmesh up keeps the journal aside" in str(refused.value)


def test_its_journal_is_set_aside_whole_and_its_number_is_not_given_out_again(data: Path) -> None:
    folder = data / "generator" / "run-2-load"
    content = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}
    left = unfinished(data)
    assert left is not None
    assert (left.number, left.lost) == (2, folder)
    lost = set_lost_journals_aside(data)
    assert lost is not None
    assert lost.lost is not None
    assert "run 2 was cut off: its orders that are in the log stay there" in lost.text(WORDS)
    assert {path.name: path.read_bytes() for path in lost.lost.iterdir() if path.name in content} == content
    assert next_run(data) == 3


def test_a_backup_is_refused_rather_than_made_of_a_journal_that_is_not_understood(
    eventmesh: Run, data: Path, tmp_path: Path
) -> None:
    ended = eventmesh("backup", "shop.tar", "--data", data)
    assert (ended.code, ended.out, (tmp_path / "shop.tar").exists()) == (6, "", False)
    assert "this journal has the format 'eventmesh.journal/1'" in ended.err
    set_lost_journals_aside(data)
    assert eventmesh("backup", "shop.tar", "--data", data).code == 0
    assert eventmesh("restore", "shop.tar", "--name", "again").code == 0
    with closing(open_read_only(tmp_path / "data" / "again" / "log")) as reader:
        assert ends(reader) == ENDS

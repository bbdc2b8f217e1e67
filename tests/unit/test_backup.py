"""Given a data directory, then its backup is restored as it was, and nothing else is ever restored."""

from __future__ import annotations

import errno
import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest
import yaml

from eventmesh import __version__
from eventmesh import mesh as meshes
from eventmesh.errors import CorruptSegment, DataDirectoryError, EnvironmentUnavailable, EventmeshError, InputError
from eventmesh.lab import archive, backup
from eventmesh.lab.archive import CHECKSUM, MANIFEST
from eventmesh.log.manifest import read_manifest
from eventmesh.log.storage import FileStorage, machine_id
from eventmesh.log.store import Durability, Log, open_read_only
from eventmesh.runtime import journal_copy
from eventmesh.runtime.journal import REQUESTS, Journal, written_again
from eventmesh.runtime.journal_copy import ChangedMeanwhile
from eventmesh.workload import Requests
from tests.commands.small_run import CONFIGS, write_run

MESH = CONFIGS / "meshes" / "views.yaml"


def requests(count: int = 8) -> Requests:
    payload = pa.RecordBatch.from_pydict({"order_id": [f"o{number}" for number in range(count)]})
    return Requests(
        ["PlaceOrder"] * count, [f"o{number}" for number in range(count)], payload, np.zeros(count, np.int64)
    )


def tell(journal: Journal, *, sent: int, accepted: int, completed: int) -> None:
    """So many requests have got so far."""
    code = journal.words.code("confirmed")
    journal.begin_life(1)
    journal.sent[:sent] = 10
    journal.attempts[:sent] = 1
    journal.accepted[:accepted] = 20
    journal.outcomes[:completed] = code
    journal.completed[:completed] = 30


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory, which no test may change."""
    folder = write_run(tmp_path_factory.mktemp("kept") / "shop")
    shutil.rmtree(folder / "history")  # a run has it, a mesh's data has not
    (folder / "mesh.yaml").write_text(yaml.safe_dump(meshes.load(MESH).resolved(), sort_keys=False))
    (folder / "callers").mkdir()
    for run in (1, 2):
        (folder / "callers" / f"run-{run}.claimed").touch()
    (folder / "callers" / "run-1.arrow").write_bytes(b"what callers of the first run were told")
    journal = Journal.create(folder / "generator" / "run-2-load", "run-2-load", requests(), 5)
    tell(journal, sent=6, accepted=4, completed=2)
    journal.close()
    storage = FileStorage(folder / "generator" / "run-2-load")
    storage.boot_id = "an earlier start of this machine, or another machine"
    storage.replace(REQUESTS, written_again(storage))
    storage.close()
    for name in ("run.lock", "notes.txt", "log/lock"):
        (folder / name).write_text("nobody's")
    return folder


@pytest.fixture
def data(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "shop"))


@pytest.fixture(scope="module")
def written(kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its backup."""
    file = tmp_path_factory.mktemp("written") / "shop.tar"
    backup.take(kept, file)
    return file


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(file: Path, *said: str, kind: type[EventmeshError] = InputError) -> None:
    """Nothing is restored, nothing is left, and the error says all of this."""
    beside = sorted(file.parent.iterdir())
    with pytest.raises(kind) as caught:
        backup.restore(file, file.parent / "new" / "shop")
    assert [each for each in said if each not in str(caught.value)] == [], str(caught.value)
    assert sorted(file.parent.iterdir()) == beside


# --- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", archive.SUFFIXES)
def test_what_is_restored_is_what_was_there(kept: Path, tmp_path: Path, suffix: str) -> None:
    file, target = tmp_path / f"shop{suffix}", tmp_path / "deep" / "shop"
    taken = backup.take(kept, file)
    assert (taken["mesh"], taken["runs"], taken["under_way"]) == ("views", 1, ["run-2-load"])
    assert taken["bytes"] == file.stat().st_size
    said = backup.restore(file, target)
    assert {name: said[name] for name in ("mesh", "records", "runs")} == {
        name: taken[name] for name in ("mesh", "records", "runs")
    }
    before, after = contents(kept), contents(target)
    same = [
        name for name in before if name.endswith((".arrow", ".claimed", ".index", "mesh.yaml", "words", "progress"))
    ]
    differ = {name for name in same if before[name] != after[name]}
    assert differ == {"generator/run-2-load/requests.arrow"}, "it names the start of the machine that wrote it"
    assert {path.name for path in tmp_path.iterdir()} == {file.name, "deep"}
    assert "notes.txt" not in after


def test_the_log_has_a_home_and_a_name_of_its_own(written: Path, kept: Path, tmp_path: Path) -> None:
    backup.restore(written, tmp_path / "one")
    backup.restore(written, tmp_path / "two")
    found = [
        read_manifest(FileStorage(each / "log", read_only=True)) for each in (kept, tmp_path / "one", tmp_path / "two")
    ]
    ids = [manifest.cluster_id for manifest in found if manifest is not None]
    assert len(set(ids)) == 3, "two of the same backup are two logs from here on"
    assert [manifest.node for manifest in found[1:] if manifest is not None] == [machine_id()] * 2
    with pytest.raises(DataDirectoryError, match="belongs to cluster"):
        opened(tmp_path / "one", ids[0])
    log = opened(tmp_path / "one", ids[1])
    with open_reader(kept) as reader:
        assert log.vectors().keys() == {
            f"{topic}/{n}" for topic, it in reader.topics.items() for n in range(it.partitions)
        }
        for topic, number in ((name, n) for name, it in reader.topics.items() for n in range(it.partitions)):
            assert log.end(topic, number) == reader.watermark(topic, number)
            assert log.table(topic, number).equals(reader.table(topic, number))
    log.close()


def open_reader(folder: Path) -> Any:
    from contextlib import closing

    return closing(open_read_only(folder / "log"))


def opened(folder: Path, cluster_id: str) -> Log:
    storage = FileStorage(folder / "log")
    try:
        return Log.open(
            storage, {}, durability=Durability.os, cluster_id=cluster_id, node=machine_id(), clock=lambda: 1
        )
    except EventmeshError:
        storage.close()
        raise


def test_a_load_that_was_under_way_is_gone_on_with(written: Path, tmp_path: Path) -> None:
    backup.restore(written, tmp_path / "shop")
    journal = Journal.open(tmp_path / "shop" / "generator" / "run-2-load")
    assert journal is not None
    assert (journal.name, journal.window, journal.next) == ("run-2-load", 5, 6)
    assert [(column >= 0).sum() for column in (journal.sent, journal.accepted, journal.completed)] == [6, 4, 2]
    assert journal.words.texts(journal.outcomes).to_pylist()[:3] == ["confirmed", "confirmed", None]
    journal.close()


def test_a_dry_run_writes_nothing(kept: Path, written: Path, tmp_path: Path) -> None:
    assert backup.take(kept, tmp_path / "a.tar", dry_run=True)["runs"] == 1
    assert backup.restore(written, tmp_path / "shop", dry_run=True)["runs"] == 1
    assert list(tmp_path.iterdir()) == []


# --- what callers were told, and when ---------------------------------------------------------------


def test_what_was_told_is_of_before_and_what_was_asked_of_after(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "generator" / "load", "load", requests(), 5)
    tell(journal, sent=3, accepted=2, completed=1)
    before = journal_copy.look(tmp_path / "generator")
    tell(journal, sent=7, accepted=6, completed=5)  # and now comes the log's moment, somewhere in between
    files = journal_copy.joined(before, journal_copy.look(tmp_path / "generator"))
    journal.close()
    for path, content in files.items():
        (tmp_path / "copy" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / path).write_bytes(content)
    copy = Journal.open(tmp_path / "copy" / "load")
    assert copy is not None
    assert [(column >= 0).sum() for column in (copy.sent, copy.accepted, copy.completed)] == [7, 2, 1]
    assert copy.attempts.tolist() == [1] * 7 + [0]
    copy.close()


def test_a_load_that_began_after_the_first_look_has_been_told_nothing(tmp_path: Path) -> None:
    before = journal_copy.look(tmp_path / "generator")
    journal = Journal.create(tmp_path / "generator" / "load", "load", requests(), 5)
    tell(journal, sent=7, accepted=6, completed=5)
    files = journal_copy.joined(before, journal_copy.look(tmp_path / "generator"))
    journal.close()
    (tmp_path / "copy").mkdir()
    for path, content in files.items():
        (tmp_path / "copy" / Path(path).name).write_bytes(content)
    copy = Journal.open(tmp_path / "copy")
    assert copy is not None
    assert [(column >= 0).sum() for column in (copy.sent, copy.accepted, copy.completed)] == [7, 0, 0]
    copy.close()


@pytest.mark.parametrize("then", ["nothing", "another", "other requests"])
def test_a_load_that_ended_meanwhile_is_looked_at_again(tmp_path: Path, then: str) -> None:
    Journal.create(tmp_path / "load", "load", requests(), 5).close()
    before = journal_copy.look(tmp_path)
    shutil.rmtree(tmp_path / "load")
    if then != "nothing":
        name = "next" if then == "another" else "load"
        Journal.create(tmp_path / name, name, requests(9), 5).close()
    with pytest.raises(ChangedMeanwhile):
        journal_copy.joined(before, journal_copy.look(tmp_path))


def test_a_backup_begins_again_when_a_load_ends(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look, left = journal_copy.look, [0, 1, 2, 3]

    def ending(folder: Path) -> Any:
        found = look(folder)
        if left:
            shutil.rmtree(folder)
            Journal.create(folder / f"run-{left.pop()}", "run", requests(), 5).close()
        return found

    monkeypatch.setattr(journal_copy, "look", ending)
    assert backup.take(data, tmp_path / "a.tar")["under_way"] == ["run-0"]
    left += list(range(1_000))
    with pytest.raises(EnvironmentUnavailable, match="meanwhile, 20 times in a row"):
        backup.take(data, tmp_path / "b.tar")
    assert not (tmp_path / "b.tar").exists()


# --- what is refused --------------------------------------------------------------------------------


def test_no_file_is_overwritten(kept: Path, tmp_path: Path) -> None:
    file = tmp_path / "shop.tar"
    file.write_text("mine")
    with pytest.raises(InputError, match="exists already, and no backup is ever overwritten"):
        backup.take(kept, file)
    (tmp_path / "link.tar").symlink_to("nowhere")
    with pytest.raises(InputError, match="exists already"):
        backup.take(kept, tmp_path / "link.tar")
    assert (file.read_text(), sorted(path.name for path in tmp_path.iterdir())) == ("mine", ["link.tar", "shop.tar"])


def test_not_even_one_that_comes_meanwhile(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = archive.sync
    monkeypatch.setattr(archive, "sync", lambda path: (sync(path), (tmp_path / "shop.tar").write_text("mine")))
    with pytest.raises(InputError, match="exists already"):
        backup.take(kept, tmp_path / "shop.tar")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("shop.tar", "mine")]


@pytest.mark.parametrize("comes", [False, True])
def test_where_there_are_no_hard_links(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes: bool
) -> None:
    def refused(one: Path, other: Path) -> None:
        if comes:
            other.write_text("mine")
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refused)
    if comes:
        with pytest.raises(InputError, match="exists already"):
            backup.take(kept, tmp_path / "shop.tar")
        assert (tmp_path / "shop.tar").read_text() == "mine"
    else:
        backup.take(kept, tmp_path / "shop.tar")
        archive.verified(tmp_path / "shop.tar", backup.SCHEMA, backup.PATHS)
    assert [path.name for path in tmp_path.iterdir()] == ["shop.tar"]


def test_a_bar_is_told_how_much_was_moved(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "TOLD_FROM", 1)
    told: dict[str, list[tuple[int, int]]] = {}

    def report(stage: str, done: int, total: int) -> None:
        told.setdefault(stage, []).append((done, total))

    backup.take(kept, tmp_path / "shop.tar", report=report)
    backup.restore(tmp_path / "shop.tar", tmp_path / "shop", report=report)
    assert list(told) == ["copying, MB", "checking, MB", "restoring, MB"]
    assert all(sorted(steps) == steps for steps in told.values())


@pytest.mark.parametrize("name", ["shop", "shop.zip", "shop.tar.bz2", ".tar", "shop.tar.old"])
def test_a_name_that_says_nothing_of_the_format(kept: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"a backup's name ends in .tar, .tar.gz, .tgz, .tar.zst"):
        backup.take(kept, tmp_path / name)
    with pytest.raises(InputError, match="a backup's name ends in"):
        backup.restore(tmp_path / name, tmp_path / "shop")


def test_a_folder_that_is_not_there(kept: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        backup.take(kept, tmp_path / "no" / "shop.tar")


def test_a_directory_that_holds_no_mesh(tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryError, match="holds no mesh"):
        backup.take(tmp_path, tmp_path / "shop.tar")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(kept: Path, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive, "sync", full)
    with pytest.raises(EnvironmentUnavailable, match=r"cannot be written \(No space left on device\)"):
        backup.take(kept, tmp_path / "shop.tar")
    with pytest.raises(EnvironmentUnavailable, match=r"cannot be restored \(No space left on device\)"):
        backup.restore(written, tmp_path / "a" / "b" / "shop")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_log_is_not_backed_up(data: Path, tmp_path: Path) -> None:
    [path] = (data / "log" / "orders" / "0").glob("*.arrow")
    spoilt = bytearray(path.read_bytes())
    spoilt[-50] ^= 1
    path.write_bytes(spoilt)
    with pytest.raises(CorruptSegment, match=str(path)):
        backup.take(data, tmp_path / "backup.tar")
    assert [each.name for each in tmp_path.iterdir()] == ["shop"]


def test_what_retention_took_and_no_snapshot_has(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eventmesh.log.copying import Moment

    held = Moment._held

    def deleted(moment: Moment) -> dict[str, int]:
        found = held(moment)
        moment._files["orders/0"].segments[0].base = 1
        return found

    monkeypatch.setattr(Moment, "_held", deleted)
    with pytest.raises(EnvironmentUnavailable, match="retention has deleted what no snapshot holds of orders/0"):
        backup.take(data, tmp_path / "backup.tar")


@pytest.mark.parametrize("lies", ["a file in it", "a file", "a link"])
def test_nothing_is_restored_over_anything(written: Path, tmp_path: Path, lies: str) -> None:
    target = tmp_path / "shop"
    if lies == "a file in it":
        target.mkdir()
        (target / "mine").write_text("mine")
    elif lies == "a file":
        target.write_text("mine")
    else:
        (tmp_path / "elsewhere").mkdir()
        target.symlink_to("elsewhere")
    before = contents(tmp_path)
    with pytest.raises(InputError, match="not an empty folder, and nothing is restored over what lies there"):
        backup.restore(written, target)
    assert contents(tmp_path) == before


def test_an_empty_folder_is_taken(written: Path, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    backup.restore(written, tmp_path / "shop")
    assert (tmp_path / "shop" / "log" / "manifest.json").is_file()


@pytest.mark.parametrize("suffix", archive.SUFFIXES)
def test_a_bit_that_flipped_is_found_or_means_nothing(kept: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"shop{suffix}"
    backup.take(kept, file)
    whole, dice = file.read_bytes(), random.Random(suffix)
    right = archive.verified(file, backup.SCHEMA, backup.PATHS)
    found = 0
    for _ in range(60):
        spoilt = bytearray(whole)
        spoilt[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        file.write_bytes(spoilt)
        try:
            assert archive.verified(file, backup.SCHEMA, backup.PATHS) == right
        except InputError:
            refused(file, "no whole backup")
            found += 1
    assert found >= 30


@pytest.mark.parametrize("suffix", archive.SUFFIXES)
def test_an_archive_that_was_cut_short_is_refused(kept: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"shop{suffix}"
    backup.take(kept, file)
    whole = file.read_bytes()
    end = len(whole) if suffix != ".tar" else whole.rindex(b"}") + 1
    for size in (0, 1, 511, 512, 513, end // 3, end // 2, end - 513, end - 1):
        file.write_bytes(whole[:size])
        refused(file, str(file), "no whole backup")


def made(
    file: Path, members: list[tuple[str, bytes]], change: Callable[[dict[str, Any]], object] = lambda _: None
) -> Path:
    """An archive whose checksums are all right, of anything."""
    listed = [{"path": name, "bytes": len(data), CHECKSUM: google_crc32c.value(data)} for name, data in members]
    manifest: dict[str, Any] = {
        "schema": "eventmesh.backup/1", "eventmesh": __version__, "mesh": "m", "taken_at": "2026-01-01T00:00:00Z",
        "cluster_id": "c", "log_format": 2, "partitions": {}, "runs": 0, "under_way": [], "files": listed,
    }  # fmt: skip
    change(manifest)
    manifest = {CHECKSUM: google_crc32c.value(json.dumps(manifest, sort_keys=True).encode()), **manifest}
    with tarfile.open(file, "w") as packed:
        for name, data in (*members, (MANIFEST, json.dumps(manifest).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    return file


@pytest.mark.parametrize(
    "path",
    [
        "../evil", "/evil", "log/../../evil", "log/orders/0/../../../evil.arrow", "log/orders/0/watermark",
        "mesh.yaml/", "callers/run-1.arrow/../../x", "generator/../progress", "generator/x/lock", "log/.hidden/0/x",
        "log/orders/0/00000000000000000000.arrow\n", "run.lock", ".",
    ],
)  # fmt: skip
def test_a_path_that_no_backup_has_is_refused(tmp_path: Path, path: str) -> None:
    refused(made(tmp_path / "shop.tar", [(path, b"evil")]), "is no")
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_only_regular_files_are_taken(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "shop.tar", "w") as packed:
        member = tarfile.TarInfo("mesh.yaml")
        member.type, member.linkname = kind, "/etc/passwd"
        packed.addfile(member)
    refused(tmp_path / "shop.tar", "'mesh.yaml' is no regular file")


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another version": (lambda it: it.update(schema="eventmesh.backup/2"), "a backup of format eventmesh.backup/2"),
    "another kind": (lambda it: it.update(schema="eventmesh.run/1"), "does not match"),
    "another log": (lambda it: it.update(log_format=4), "its log has format version 4, this program reads 2 and 3"),
    "no files": (lambda it: it.update(files=[]), "1 files are there, 0 were written"),
    "a file that is not there": (lambda it: it["files"].append(it["files"][0]), "1 files are there, 2 were written"),
    "other bytes": (lambda it: it["files"][0].update({CHECKSUM: 1}), "mesh.yaml is not what was written"),
    "no partitions": (lambda it: it.pop("partitions"), "partitions is not as expected"),
    "an end below zero": (
        lambda it: it.update(partitions={"a/0": {"start": 0, "end": -1}}),
        "partitions.a/0.end is not",
    ),
    "no log": (lambda it: None, "cannot"),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES.keys())
def test_a_manifest_that_will_not_do(tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str) -> None:
    made(tmp_path / "shop.tar", [("mesh.yaml", b"name: m")], change)
    kind: type[EventmeshError] = DataDirectoryError if said == "cannot" else InputError
    refused(tmp_path / "shop.tar", said if said != "cannot" else "no manifest", kind=kind)


@pytest.mark.parametrize("content", [b"", b"no tar", b"\0" * 10_240, b"\x1f\x8b" + b"\0" * 100])
@pytest.mark.parametrize("suffix", archive.SUFFIXES)
def test_what_is_no_archive(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"shop{suffix}").write_bytes(content)
    refused(tmp_path / f"shop{suffix}", f"shop{suffix}: no whole backup")


def test_an_archive_that_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "shop.tar", "no such file. Name a backup")
    (tmp_path / "shop.tar").mkdir()
    refused(tmp_path / "shop.tar", "no such file")


def test_a_file_that_is_there_twice(tmp_path: Path) -> None:
    refused(made(tmp_path / "shop.tar", [("mesh.yaml", b"a"), ("mesh.yaml", b"a")]), "there twice")


def test_an_archive_that_changes_after_it_was_checked(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, verified = Path(shutil.copy(written, tmp_path / "shop.tar")), archive.verified

    def changed(*arguments: Any) -> Any:
        found = verified(*arguments)
        spoilt = bytearray(file.read_bytes())
        spoilt[spoilt.index(b"application:")] ^= 1
        file.write_bytes(spoilt)
        return found

    monkeypatch.setattr(archive, "verified", changed)
    refused(file, "mesh.yaml has changed since it was checked")


def test_a_log_that_is_not_whole_although_every_checksum_is_right(written: Path, tmp_path: Path) -> None:
    """As a mistake of the program that wrote it would leave it."""

    def members() -> Iterator[tuple[str, bytes]]:
        with tarfile.open(written) as packed:
            for member in packed:
                content = packed.extractfile(member)
                assert content is not None
                if member.name != MANIFEST and not member.name.endswith(f"orders/0/{0:020d}.index"):
                    yield member.name, content.read()

    right = archive.verified(written, backup.SCHEMA, backup.PATHS)
    ends = {name: right["partitions"][name] for name in right["partitions"]}
    made(tmp_path / "shop.tar", list(members()), lambda manifest: manifest.update(partitions=ends))
    refused(tmp_path / "shop.tar", "the backup's log is not whole: orders/0")

"""Backups of a mesh's data directory, also of one that is up, and what is restored from them.

A backup is the mesh as if everything had been killed at one moment: the log up to there, snapshots that are no further,
what callers had been told by then, and the journal of a load that was under way. So it is gone on with as after any
``kill -9``, and the promises hold for it.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eventmesh import __version__, configuration
from eventmesh import mesh as meshes
from eventmesh.errors import CorruptSegment, DataDirectoryError, EnvironmentUnavailable, InputError
from eventmesh.lab import archive
from eventmesh.lab.run import CALLERS, LOG, MESH_FILE
from eventmesh.log import copying
from eventmesh.log.copying import CopiedFile, Moment
from eventmesh.log.manifest import FORMAT_VERSION, FORMATS_READ, formats_read
from eventmesh.log.storage import FileStorage, MemoryStorage, machine_id
from eventmesh.log.store import open_read_only
from eventmesh.report.progress_bar import Report, silent
from eventmesh.runtime import journal_copy
from eventmesh.runtime.journal import GENERATOR
from eventmesh.runtime.journal_copy import ChangedMeanwhile
from eventmesh.runtime.snapshots import FOLDER, Floors, Snapshot, SnapshotStore

#: How often it is begun again where a load began or ended meanwhile, or retention went on.
TRIES = 20
#: Bytes from which on a progress bar is told: what is smaller takes no time.
TOLD_FROM = 64_000_000
_TOPIC = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
#: The files of a backup; nothing else is restored.
PATHS = re.compile(
    rf"mesh\.yaml|log/manifest\.json|log/{_TOPIC}/\d+/\d{{20}}\.(arrow|index)"
    rf"|log/\.snapshots/(state|view)/{_TOPIC}/{_TOPIC}\.snapshot|callers/run-\d+\.(arrow|claimed)"
    rf"|generator/{_TOPIC}/(requests\.arrow|progress|words)"
)


class Extent(BaseModel):
    """Offsets of a partition: ``[start, end)``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: int = Field(ge=0)
    end: int = Field(ge=0)


class Backup(BaseModel):
    """What an archive says of itself. ``under_way`` names the loads that had begun, finished or not."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    version: Literal["eventmesh.backup/1"] = Field(default="eventmesh.backup/1", alias="schema")
    eventmesh: str
    mesh: str
    taken_at: datetime
    cluster_id: str
    log_format: int
    partitions: dict[str, Extent]
    runs: int
    under_way: list[str]

    def summary(self, **more: Any) -> dict[str, Any]:
        """What a command says of it."""
        records = sum(extent.end - extent.start for extent in self.partitions.values())
        return {
            "mesh": self.mesh, "taken_at": self.taken_at.isoformat(timespec="seconds"), "partitions":
            len(self.partitions), "records": records, "runs": self.runs, "under_way": self.under_way, **more,
        }  # fmt: skip


SCHEMA = str(Backup.model_fields["version"].default)


# --- backup --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Collected:
    """All that goes into an archive but the log, which is streamed."""

    files: Mapping[str, bytes]
    moment: Moment
    backup: Backup

    def all_files(self) -> Iterator[CopiedFile]:
        for path, data in self.files.items():
            yield CopiedFile(path, len(data), iter([data]))
        for file in self.moment.files():
            yield CopiedFile(f"{LOG}/{file.path}", file.size, file.chunks)


def _meter(report: Report, stage: str, total: int) -> archive.Moved:
    """Tells a progress bar of what was moved, in megabytes of ``total`` bytes (0: nobody knows)."""
    done = 0

    def moved(size: int) -> None:
        nonlocal done
        done += size
        if done >= TOLD_FROM:
            report(f"{stage}, MB", done // 1_000_000, total // 1_000_000)

    return moved


def take(data: Path, file: Path, *, dry_run: bool = False, report: Report = silent) -> dict[str, Any]:
    """Write a backup of the data directory ``data``, of a mesh that is up or down, to ``file``; what is in it.

    Nothing is left where this fails. :class:`InputError` for a ``file`` that is there, :class:`DataDirectoryError`
    where ``data`` holds no mesh or is damaged.
    """
    archive.must_be_new(file)
    if not (data / MESH_FILE).is_file() or not (data / LOG).is_dir():
        raise DataDirectoryError(f"{data} holds no mesh: name a data directory with --data, or a mesh that is up")
    with _readable(data), _collected(data) as collected:
        if not dry_run:
            total = collected.moment.size + sum(map(len, collected.files.values()))
            said = collected.backup.model_dump(mode="json", by_alias=True)
            archive.write(file, collected.all_files(), said, _meter(report, "copying", total))
    size = {} if dry_run else {"bytes": file.stat().st_size}
    return collected.backup.summary(data=str(data), file=str(file), **size)


@contextmanager
def _readable(data: Path) -> Iterator[None]:
    """Errors name files by their whole path, and say what may help."""
    try:
        yield
    except CorruptSegment as error:
        raise CorruptSegment(str(data / LOG / error.file), error.offset, error.position, error.detail) from error
    except OSError as error:
        problem = f"{error.filename or data}: cannot be read ({error.strerror})"
        raise DataDirectoryError(f"{problem}. If the machine died, start the mesh once: it recovers its log") from error


@contextmanager
def _collected(data: Path) -> Iterator[_Collected]:
    why: Exception | None = None
    for _ in range(TRIES):
        try:
            collected = _collect(data)
        except ChangedMeanwhile as changed:
            why = changed
            continue
        try:
            yield collected
        finally:
            collected.moment.close()
        return
    raise EnvironmentUnavailable(f"{data}: {why}, {TRIES} times in a row. Try again later")


def _collect(data: Path) -> _Collected:
    """The order counts: what callers were told comes before the log's moment, and so does what is folded of the log.

    Journals come before the records of runs, since a record is written before the journal of its run is given up.
    """
    before = journal_copy.look(data / GENERATOR)
    files = {MESH_FILE: (data / MESH_FILE).read_bytes()}
    callers = {f"{CALLERS}/{path.name}": path.read_bytes() for path in sorted((data / CALLERS).glob("run-*.arrow"))}
    snapshots = _snapshots(data / LOG / FOLDER)
    moment = Moment(data / LOG)
    try:
        journals = journal_copy.joined(before, journal_copy.look(data / GENERATOR))
        kept = {path: each for path, each in snapshots.items() if each.header.cluster_id == moment.manifest.cluster_id}
        _check_floors(data, moment, kept)
    except BaseException:
        moment.close()
        raise
    # After the log's moment: the number of every run that is in it was given out before.
    files |= {f"{CALLERS}/{path.name}": path.read_bytes() for path in (data / CALLERS).glob("run-*.claimed")}
    files |= callers | {f"{GENERATOR}/{path}": content for path, content in journals.items()}
    files |= {f"{LOG}/{FOLDER}/{path}": each.to_bytes() for path, each in kept.items()}
    return _Collected(files, moment, _described(data, moment, len(callers), journals))


def _described(data: Path, moment: Moment, runs: int, journals: Mapping[str, bytes]) -> Backup:
    extents = {name: Extent(start=moment.starts[name], end=end) for name, end in moment.ends.items()}
    return Backup(
        eventmesh=__version__, mesh=str(configuration.read(data / MESH_FILE).get("name")), taken_at=datetime.now(UTC),
        cluster_id=moment.manifest.cluster_id, log_format=FORMAT_VERSION, partitions=extents, runs=runs,
        under_way=sorted({path.partition("/")[0] for path in journals}),
    )  # fmt: skip


def _snapshots(folder: Path) -> dict[str, Snapshot]:
    """Every whole one by its path below ``folder``; each is replaced as a whole."""
    found = {}
    for path in sorted(folder.glob("*/*/*.snapshot")):
        snapshot = Snapshot.from_bytes(path.read_bytes())
        if snapshot is not None:
            found[path.relative_to(folder).as_posix()] = snapshot
    return found


def _check_floors(data: Path, moment: Moment, snapshots: Mapping[str, Snapshot]) -> None:
    """Where retention has deleted anything, the copied snapshots must stand no further back than what is left."""
    if not any(moment.starts.values()):
        return
    storage = MemoryStorage()
    for path, snapshot in snapshots.items():
        storage.replace(path, snapshot.to_bytes())
    floors = Floors(meshes.load_stored(data / MESH_FILE), SnapshotStore(storage).header, grace_us=0).at(0)
    late = [name for name, start in moment.starts.items() if start > floors.get(name, start)]
    if late:
        raise ChangedMeanwhile(f"retention has deleted what no snapshot holds of {', '.join(late)}")


# --- restore -------------------------------------------------------------------------------------


def restore(file: Path, data: Path, *, dry_run: bool = False, report: Report = silent) -> dict[str, Any]:
    """Make ``data``, a directory that is empty or not there, that of the mesh in the backup ``file``; what is in it.

    The log gets this machine for its home and a cluster id of its own: where the mesh that was copied goes on, too, the
    two are not the same log from there on. Nothing is left where this fails.
    """
    _must_be_free(data)
    manifest = archive.verified(file, SCHEMA, PATHS, _meter(report, "checking", 0))
    backup = _parsed(file, manifest)
    if not dry_run:
        with _in_its_place(data) as folder:
            total = sum(each["bytes"] for each in manifest["files"])
            archive.extract(file, folder, manifest, _meter(report, "restoring", total))
            settle(folder, backup, cluster_id=uuid.uuid4().hex, node=machine_id())
    return backup.summary(file=str(file), data=str(data))


def _parsed(file: Path, manifest: Mapping[str, Any]) -> Backup:
    try:
        backup = Backup.model_validate(manifest)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise InputError(f"{file}: no whole backup ({archive.MANIFEST}: {where} is not as expected)") from error
    if backup.log_format not in FORMATS_READ:
        raise InputError(
            f"{file}: its log has format version {backup.log_format}, this program reads {formats_read()}. "
            f"Restore it with the program that wrote it, eventmesh {backup.eventmesh}"
        )
    return backup


def _must_be_free(data: Path) -> None:
    try:
        if data.is_symlink() or (data.exists() and (not data.is_dir() or any(data.iterdir()))):
            problem = f"{data} is not an empty folder, and nothing is restored over what lies there"
            raise InputError(f"{problem}. Name another with --data, or remove it")
    except OSError as error:
        raise EnvironmentUnavailable(f"{data}: cannot be read ({error.strerror}). Name another with --data") from error


@contextmanager
def _in_its_place(data: Path) -> Iterator[Path]:
    """A folder beside ``data`` that takes its place once everything in it is right, or goes."""
    made = [folder for folder in (data.parent, *data.parent.parents) if not folder.exists()]
    folder: Path | None = None
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{data.name}.", suffix=".unfinished", dir=data.parent))
        folder.chmod(0o755)
        yield folder
        for below in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            archive.sync(below)
        os.rename(folder, data)
        archive.sync(data.parent)
    except BaseException as error:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for each in made:
            if each.is_dir() and not any(each.iterdir()):
                each.rmdir()
        if isinstance(error, OSError):
            problem = f"{error.filename or data}: the backup cannot be restored ({error.strerror})"
            raise EnvironmentUnavailable(f"{problem}. Name another directory with --data") from error
        raise


def settle(folder: Path, backup: Backup, *, cluster_id: str, node: str) -> None:
    """Make the extracted files a data directory that can be started; all of it is checked once more."""
    log = folder / LOG
    log.mkdir(exist_ok=True)
    copying.settle(log, {name: it.end for name, it in backup.partitions.items()}, cluster_id=cluster_id, node=node)
    _settle_snapshots(log / FOLDER, cluster_id)
    for path in sorted((folder / GENERATOR).glob("*")):
        journal_copy.settle(path)
    with closing(open_read_only(log)) as reader:
        findings = {f"{each.topic}/{each.partition}": each for each in reader.verify()}
    right = {name: Extent(start=each.start, end=each.watermark) for name, each in findings.items() if not each.damage}
    if right != backup.partitions:
        wrong = ", ".join(sorted(name for name in backup.partitions if right.get(name) != backup.partitions[name]))
        raise InputError(f"the backup's log is not whole: {wrong or 'other partitions'}. Use another copy of it")


def _settle_snapshots(folder: Path, cluster_id: str) -> None:
    """A snapshot is of one log, by its cluster id: these are of this one now."""
    found = _snapshots(folder)
    if not found:
        return
    with closing(FileStorage(folder)) as storage:
        for snapshot in found.values():
            header = msgspec.structs.replace(snapshot.header, cluster_id=cluster_id)
            SnapshotStore(storage).put(Snapshot(header, snapshot.body))

"""The folders of runs: what there is, and what a user has deleted. Nothing is ever deleted by itself.

A run is a folder right below ``runs`` whose ``run.json`` says so. Everything else is left alone, and so is a run that
is being written, or whose log somebody has open. Links are removed as links: a run of a mesh that is up points at the
mesh's log, which stays.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from eventmesh.errors import EnvironmentUnavailable, InputError
from eventmesh.lab.run import CALLERS, LATEST, LOG, point_latest
from eventmesh.log.storage import LOCK
from eventmesh.report import record
from eventmesh.runtime.journal import GENERATOR

UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_AGE = re.compile(rf"([1-9][0-9]{{0,5}})([{''.join(UNITS)}])")
#: What a run is called from the moment it goes, so that a half-deleted one is none.
_GOING = ".{}.pruned"


@dataclass(frozen=True)
class Folder:
    """A run's folder, or another one below ``runs``; ``left_alone`` says why it is never deleted, if it is not."""

    path: Path
    started_at: datetime | None
    status: str
    verdict: str
    bytes: int
    left_alone: str = ""

    def row(self) -> dict[str, Any]:
        """For people and machines."""
        started = None if self.started_at is None else f"{self.started_at:%Y-%m-%d %H:%M}"
        row = {"run": str(self.path), "started": started, "status": self.status or None, "audit": self.verdict or None}
        return {**row, "bytes": self.bytes, "left alone": self.left_alone or None}


def listed(runs: Path) -> list[Folder]:
    """Every folder below ``runs``, the oldest run first; folders that are no runs come last."""
    try:
        paths = [path for path in runs.iterdir() if not path.is_symlink() and path.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise EnvironmentUnavailable(f"{runs}: cannot be read ({error.strerror})") from error
    found = [_folder(path) for path in paths if not _is_going(path)]
    latest = datetime.max.replace(tzinfo=UTC)
    return sorted(found, key=lambda each: (each.started_at or latest, each.path.name))


def _folder(path: Path) -> Folder:
    size = _size(path)
    try:
        document = json.loads((path / record.FILE).read_bytes())
        started_at = datetime.fromisoformat(document["started_at"])
        if document["schema"] != record.SCHEMA or started_at.tzinfo is None:
            raise ValueError(record.FILE)
    except FileNotFoundError:
        return Folder(path, None, "", "", size, f"no run: {record.FILE} is missing")
    except (OSError, ValueError, KeyError, TypeError):
        return Folder(path, None, "", "", size, f"no run that can be read: {record.FILE}")
    status, verdict = str(document.get("status")), str(document.get("verdict"))
    return Folder(path, started_at, status, verdict, size, _in_use(path))


def _in_use(path: Path) -> str:
    if (path / CALLERS).exists() or (path / GENERATOR).exists():
        return "it holds the data of a mesh"
    if not _is_free(path):
        return "it is being written"
    log = path / LOG
    return "its log is open" if not log.is_symlink() and (log / LOCK).exists() and not _is_free(log / LOCK) else ""


def _is_free(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _size(path: Path) -> int:
    """Bytes of the files below, not of what links point at."""
    size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.lstat(os.path.join(folder, name)).st_size
    return size


# --- prune ---------------------------------------------------------------------------------------


def older_than(text: str) -> timedelta:
    """``30m``, ``12h``, ``7d``, ``2w``; :class:`InputError` for anything else."""
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise InputError(f"--older-than {text!r}: expected a number and one of m, h, d, w, such as 7d or 12h")
    return int(found[1]) * UNITS[found[2]]


def chosen(folders: Sequence[Folder], *, keep: int | None, older: timedelta | None, now: datetime) -> list[Folder]:
    """The runs that are to go: all but the ``keep`` newest, or those that started longer ago than ``older``.

    :class:`InputError` unless one of the two is given. What is left alone counts as a run that is kept.
    """
    if (keep is None) == (older is None):
        raise InputError("say which runs may go: with --keep N all but the N newest, or with --older-than such as 7d")
    runs = [each for each in folders if each.started_at is not None]
    if keep is not None:
        going = runs[: max(0, len(runs) - keep)]
    else:
        going = [
            each for each in runs if each.started_at is not None and now - each.started_at > (older or timedelta())
        ]
    return [each for each in going if not each.left_alone]


def prune(runs: Path, *, keep: int | None, older: timedelta | None, now: datetime, dry_run: bool) -> dict[str, Any]:
    """Delete the runs that :func:`chosen` names; what went, or would. ``latest`` points at the newest that is left."""
    folders = listed(runs)
    going = chosen(folders, keep=keep, older=older, now=now)
    gone = list(going)
    if not dry_run:
        _clear(runs)
        gone = [each for each in going if _delete(each)]
        _keep_latest(runs)
    left = [each for each in folders if each not in gone]
    return {
        "deleted": [{"run": str(each.path), "bytes": each.bytes} for each in gone],
        "bytes": sum(each.bytes for each in gone),
        "kept": sum(each.started_at is not None for each in left),
        "left_alone": {str(each.path): each.left_alone for each in left if each.left_alone},
        "dry_run": dry_run,
    }


def _delete(folder: Folder) -> bool:
    """Whether it went: somebody may have begun to use it since it was listed."""
    going = folder.path.with_name(_GOING.format(folder.path.name))
    with _troubles(folder.path):
        if _in_use(folder.path):
            return False
        folder.path.rename(going)
        shutil.rmtree(going)
    return True


def _clear(runs: Path) -> None:
    """What a prune that was interrupted has left."""
    for path in runs.glob(_GOING.format("*")):
        if not path.is_symlink() and path.is_dir():
            with _troubles(path):
                shutil.rmtree(path)


def _is_going(path: Path) -> bool:
    before, after = _GOING.split("{}")
    return path.name.startswith(before) and path.name.endswith(after)


@contextmanager
def _troubles(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        problem = f"{error.filename or path}: cannot be deleted ({error.strerror})"
        raise EnvironmentUnavailable(
            f"{problem}. What was deleted before it is gone; prune again when it can be"
        ) from error


def _keep_latest(runs: Path) -> None:
    link = runs / LATEST
    if not link.is_symlink() or link.exists():
        return
    left = [each for each in listed(runs) if each.started_at is not None]
    if left:
        point_latest(left[-1].path)
    else:
        link.unlink()

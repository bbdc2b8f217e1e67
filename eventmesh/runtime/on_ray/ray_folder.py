"""The folder in which a Ray of our own keeps its sockets and its logs: one whose name its sockets' names fit behind."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eventmesh.errors import EnvironmentUnavailable

#: Bytes of a Unix socket's name, less the zero at its end.
SOCKET_NAME_MAX = 103 if sys.platform == "darwin" else 107
#: What Ray puts behind the folder's name, as long as it may get: process numbers have seven digits at most.
_LONGEST = "/session_2026-11-27_23-45-19_120029_4194304/sockets/plasma_store"
_PREFIX = "eventmesh-"
#: Characters that :mod:`tempfile` adds to a prefix.
_RANDOM = 8


def make() -> Path:
    """A new folder of our own; :class:`~eventmesh.errors.EnvironmentUnavailable` where there is no place for one.

    It is made in the folder for temporary files (``TMPDIR``), or else, where that is too long or not in ASCII, which
    Ray needs, in ``/tmp``, ``/var/tmp`` or the user's runtime folder.
    """
    problems = []
    for place in _places():
        problem = unfit(place)
        if problem is None:
            try:
                return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
            except OSError as error:
                problem = error.strerror or type(error).__name__
        problems.append(f"{place} ({problem})")
    raise EnvironmentUnavailable(
        f"there is no folder for Ray's sockets: tried {'; '.join(problems)}. Set TMPDIR to a folder that can be "
        f"written, whose name is in ASCII and has at most {longest()} characters"
    )


def keep_logs(folder: Path) -> Path | None:
    """What Ray and the processes of the mesh wrote down, moved out of ``folder`` before that goes; None without any."""
    kept = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}logs-"))
    for logs in (folder / "session_latest" / "logs", folder / "start.log"):
        with suppress(OSError):
            shutil.move(logs.resolve(strict=True), kept / logs.name)
    if any(kept.iterdir()):
        return kept
    kept.rmdir()
    return None


@contextmanager
def logs_kept_of(folder: Path) -> Iterator[None]:
    """Where the mesh or Ray fails meanwhile, their logs stay, and the error says where."""
    try:
        yield
    except EnvironmentUnavailable as error:
        if kept := keep_logs(folder):
            error.args = (f"{error}. What Ray and the processes of the mesh wrote down is in {kept}",)
        raise


def _places() -> Iterator[str]:
    named = [os.environ.get("TMPDIR"), _default(), "/tmp", "/var/tmp", os.environ.get("XDG_RUNTIME_DIR")]
    yield from dict.fromkeys(place for place in named if place)


def _default() -> str | None:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:  # none of the usual folders can be written
        return None


def longest() -> int:
    """Characters that the name of the folder for temporary files may have."""
    return SOCKET_NAME_MAX - len(_LONGEST) - len(f"/{_PREFIX}") - _RANDOM


def unfit(place: str) -> str | None:
    """Why Ray cannot have its folder in ``place``; None where it can."""
    if not place.isascii():
        return "its name is not in ASCII"
    if len(os.path.abspath(place)) > longest():
        return f"its name has {len(os.path.abspath(place))} characters, at most {longest()} fit"
    return None

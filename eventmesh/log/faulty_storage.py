"""A storage around another one that goes wrong as disks do, while its switches say so.

What it promises when nothing is switched on is what the storage in it promises. What has not been synced it keeps: only
a simulated disk can lose that.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from eventmesh.errors import StorageFull
from eventmesh.log.storage import Counter, Storage


def _nobody(what: str) -> None:
    """Nobody wants to know."""


def _at_once() -> None:
    """Nothing holds a sync up."""


class FaultyStorage:
    """``inner`` with switches, see :class:`~eventmesh.log.storage.Storage`.

    ``full``: no room. ``fail_sync``: syncs raise, and nothing is synced. ``die_after``: bytes that are still written
    before ``die`` is called in the middle of a write. ``before_sync`` is called before each sync, and may take
    its time. ``noticed`` is told of each thing that goes wrong.
    """

    def __init__(self, inner: Storage, *, die: Callable[[], None]) -> None:
        self.inner, self._die = inner, die
        self.noticed: Callable[[str], None] = _nobody
        self.full = self.fail_sync = False
        self.die_after: int | None = None
        self.before_sync: Callable[[], None] = _at_once

    # --- storage ----------------------------------------------------------------------------------

    def append(self, path: str, position: int, data: pa.Buffer | bytes) -> None:
        """Write at ``position``, or the part of it that the process lives to write."""
        self._refuse_if_full(path)
        if self.die_after is not None:
            self._write_or_die(path, position, data, self.die_after)
        else:
            self.inner.append(path, position, data)

    def _refuse_if_full(self, path: str) -> None:
        if self.full:
            self.noticed("writes refused")
            raise StorageFull(f"{path}: a fault leaves no room on the disk. Nothing was appended")

    def _write_or_die(self, path: str, position: int, data: pa.Buffer | bytes, rest: int) -> None:
        if len(data) <= rest:
            self.die_after = rest - len(data)
            self.inner.append(path, position, data)
            return
        if rest:
            self.inner.append(path, position, bytes(data)[:rest])
        self.noticed("writes torn")
        self._die()

    def sync(self, path: str) -> None:
        """Sync, late or not at all where a switch says so."""
        self._fail_or_wait(path)
        self.inner.sync(path)

    def replace(self, path: str, data: pa.Buffer | bytes) -> None:
        """All or nothing; it needs room, and a sync."""
        self._refuse_if_full(path)
        self._fail_or_wait(path)
        self.inner.replace(path, data)

    def _fail_or_wait(self, path: str) -> None:
        self.before_sync()
        if self.fail_sync:
            self.noticed("syncs failed")
            raise OSError(errno.EIO, f"a fault fails each sync: {path}")

    @property
    def boot_id(self) -> str:
        """Of the storage in it, like all that follows."""
        return self.inner.boot_id

    def list(self, directory: str = "") -> list[str]:
        """The paths of all files below ``directory``, sorted."""
        return self.inner.list(directory)

    def size(self, path: str) -> int:
        """Bytes of the file; 0 if there is none."""
        return self.inner.size(path)

    def read(self, path: str, position: int, length: int) -> pa.Buffer:
        """Up to ``length`` bytes from ``position``."""
        return self.inner.read(path, position, length)

    def truncate(self, path: str, size: int) -> None:
        """Cut the file to ``size`` bytes."""
        self.inner.truncate(path, size)

    def remove(self, path: str) -> None:
        """Delete the file, durably, if it exists."""
        self.inner.remove(path)

    def release(self, path: str) -> None:
        """No more writes to the file are to be expected: let go of its handle."""
        self.inner.release(path)

    def counter(self, path: str) -> Counter:
        """The counter kept in this file."""
        return self.inner.counter(path)

    def close(self) -> None:
        """Let go of everything, the lock last."""
        self.inner.close()


def flip(file: Path, position: int, bit: int) -> None:
    """One bit of the file rots, behind the back of who has it open or mapped."""
    with file.open("r+b") as opened:
        opened.seek(position)
        (byte,) = opened.read(1)
        opened.seek(position)
        opened.write(bytes([byte ^ 1 << bit]))

"""A disk that misbehaves as disks do, by a seeded dice: torn writes, lost page caches, full, failing, lying.

Built on memory, so that a thousand deaths cost milliseconds. It keeps apart what the page cache holds
and what the platter holds; only a sync that tells the truth carries one to the other.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Protocol

import pyarrow as pa

from eventmesh.errors import StorageFull
from eventmesh.log.storage import Counter, MemoryCounter, MemoryStorage

SECTOR = 64  # bytes that survive or vanish together: small, so that small tests tear often
_HISTORY_MAX = 16


class Dice(Protocol):
    """The part of ``random.Random`` that is needed; pass a seeded one."""

    def randrange(self, start: int, stop: int) -> int:
        """A number of ``[start, stop)``."""
        ...


def _nobody(what: str) -> None:
    """Nobody wants to know."""


class ProcessDied(Exception):
    """The writing process was killed in the middle of an operation; the storage refuses it from then on."""


class _RememberingCounter(MemoryCounter):
    """Any value since the last writeback may be the one on the platter."""

    def __init__(self) -> None:
        super().__init__()
        self.history = [0]

    def set(self, value: int) -> None:
        """Store ``value``."""
        self.value = value
        self.history = [*self.history[-_HISTORY_MAX:], value]


class SimulatedStorage(MemoryStorage):
    """Memory with deaths of process and machine, and switches for what else goes wrong.

    ``full``: no room. ``fail_sync``: syncs raise, and as in Linux the pages count as clean afterwards,
    written or not. ``skip_sync``: syncs lie (a mutant: promise P1 must be seen to break).
    ``die_after``: bytes that the process still writes before it is killed, any other operation counts one.
    """

    def __init__(self, dice: Dice) -> None:
        super().__init__()
        self.dice = dice
        self.noticed: Callable[[str], None] = _nobody  # told of each thing that goes wrong because of a switch
        self.boots = 1
        self.boot_id = "boot-1"
        self.full = self.fail_sync = self.skip_sync = False
        self.die_after: int | None = None
        self.dead = False
        self._platter: dict[str, bytes] = {}
        self._unsynced: dict[str, list[tuple[int, int]]] = {}  # byte ranges in the page cache only
        self._resized: set[str] = set()  # the size in the page cache is not the platter's

    # -- deaths ----------------------------------------------------------------------------------

    def restart_process(self) -> None:
        """The process is gone and another may open the log; nothing that was written is lost."""
        self.dead = False
        self.die_after = None

    def crash_machine(self) -> None:
        """The machine dies and starts again: what was not synced is there, gone or torn, as the dice fall."""
        self.restart_process()
        self.boots += 1
        self.boot_id = f"boot-{self.boots}"
        self.full = self.fail_sync = False
        for path in sorted(self.files):
            self._survive(path)
        for counter in self.counters.values():
            assert isinstance(counter, _RememberingCounter)
            counter.value = counter.history[self.dice.randrange(0, len(counter.history))]
            counter.history = [counter.value]

    def flip(self, path: str, position: int, bit: int) -> None:
        """One bit of the file rots, in the page cache and on the platter."""
        self.files[path][position] ^= 1 << bit
        platter = self._platter.get(path)
        if platter is not None and position < len(platter):
            rotten = bytearray(platter)
            rotten[position] ^= 1 << bit
            self._platter[path] = bytes(rotten)

    def _survive(self, path: str) -> None:
        cached, old = self.files[path], self._platter.get(path)
        if old is None and self.dice.randrange(0, 3) == 0:
            del self.files[path]  # the name itself was never synced
        else:
            content = self._resize(old or b"", cached) if path in self._resized else bytearray(old or b"")
            for start, stop in self._unsynced.get(path, ()):
                self._tear(content, cached, start, min(stop, len(content), len(cached)))
            self.files[path] = content
            self._platter[path] = bytes(content)
        self._unsynced.pop(path, None)
        self._resized.discard(path)

    def _resize(self, old: bytes, cached: bytearray) -> bytearray:
        low, high = sorted((len(old), len(cached)))
        size = (len(old), len(cached), self.dice.randrange(low, high + 1))[self.dice.randrange(0, 3)]
        return bytearray(old[:size].ljust(size, b"\0"))

    def _tear(self, content: bytearray, cached: bytearray, start: int, stop: int) -> None:
        fate = self.dice.randrange(0, 4)
        if stop <= start or fate == 0:
            return
        if fate == 1:
            content[start:stop] = cached[start:stop]
        elif fate == 2:
            torn = self.dice.randrange(start, stop)
            content[start:torn] = cached[start:torn]
        else:
            for at in range(start, stop, SECTOR):
                if self.dice.randrange(0, 2):
                    content[at : min(at + SECTOR, stop)] = cached[at : min(at + SECTOR, stop)]

    def _spend(self, size: int) -> int:
        """How many of ``size`` bytes are written before the process dies."""
        if self.dead:
            raise ProcessDied("this process is dead")
        if self.die_after is None:
            return size
        if size > self.die_after:
            self.dead = True
            return self.die_after
        self.die_after -= size
        return size

    def _check_alive(self, operation: str) -> None:
        if self._spend(1) == 0:
            raise ProcessDied(f"killed before {operation}")

    # -- storage ---------------------------------------------------------------------------------

    def append(self, path: str, position: int, data: pa.Buffer | bytes) -> None:
        """Write at ``position``, or the part of it that the process lives to write."""
        if self.full:
            self._check_alive(f"a write to {path}")
            self.noticed("writes refused")
            raise StorageFull(f"{path}: no space left on the simulated disk")
        content = bytes(data)
        written = self._spend(len(content))
        super().append(path, position, content[:written])
        self._unsynced.setdefault(path, []).append((position, position + written))
        self._resized.add(path)
        if written < len(content):
            raise ProcessDied(f"killed {written} bytes into a write to {path}")

    def truncate(self, path: str, size: int) -> None:
        """Cut the file in the page cache; the platter learns of it at the next sync."""
        self._check_alive(f"cutting {path}")
        super().truncate(path, size)
        ranges = self._unsynced.get(path, [])
        self._unsynced[path] = [(start, min(stop, size)) for start, stop in ranges if start < size]
        self._resized.add(path)

    def sync(self, path: str) -> None:
        """Carry the page cache to the platter, unless a switch says otherwise."""
        self._check_alive(f"a sync of {path}")
        if self.skip_sync:
            return
        ranges, cached = self._unsynced.pop(path, []), self.files[path]
        if self.fail_sync:
            self._resized.discard(path)
            self.noticed("syncs failed")
            raise OSError(errno.EIO, f"simulated failure of a sync of {path}")
        size = len(cached)
        content = bytearray(self._platter.get(path, b"")[:size].ljust(size, b"\0"))
        for start, stop in ranges:
            content[start:stop] = cached[start:stop]
        self._platter[path] = bytes(content)
        self._resized.discard(path)

    def replace(self, path: str, data: pa.Buffer | bytes) -> None:
        """All or nothing, and durable."""
        self._check_alive(f"replacing {path}")
        if self.fail_sync:
            self.noticed("syncs failed")
            raise OSError(errno.EIO, f"simulated failure of a sync of {path}")
        if self.full:
            self.noticed("writes refused")
            raise StorageFull(f"{path}: no space left on the simulated disk")
        super().replace(path, data)
        self._platter[path] = bytes(data)
        self._unsynced.pop(path, None)
        self._resized.discard(path)

    def remove(self, path: str) -> None:
        """Delete the file, durably."""
        self._check_alive(f"removing {path}")
        super().remove(path)
        self._platter.pop(path, None)
        self._unsynced.pop(path, None)
        self._resized.discard(path)

    def counter(self, path: str) -> Counter:
        """The counter of this name."""
        return self.counters.setdefault(path, _RememberingCounter())

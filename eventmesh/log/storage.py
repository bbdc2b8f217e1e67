"""Where the log keeps its bytes: the seam between its rules and a disk, memory, or a simulated disk.

A storage promises appends that happen whole or (full disk) not at all, an atomic ``replace``, and that
what was synced survives the machine. Paths are relative, with ``/`` between their parts.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from eventmesh.errors import DataDirectoryError, StorageFull
from eventmesh.log.mapped_files import NOTHING, MappedCounter, MappedFile, write_fully

LOCK = "lock"
#: Files that stay mapped, per storage; each costs address space and no descriptor.
MAPS_MAX = 256
#: Bytes that are looked at in mapped files before their pages are let go of: they would count as the process's own.
LOOKED_AT_MAX = 64 << 20
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_ID = Path("/etc/machine-id")
#: What the kernel says of a disk without room.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def machine_id() -> str:
    """A name for this machine that outlives its starts: systemd's machine id, else the host's name."""
    return _said_by(_MACHINE_ID) or os.uname().nodename


def _said_by(path: Path) -> str:
    """What a file of the system says; empty where there is none."""
    return path.read_text().strip() if path.exists() else ""


class Counter(Protocol):
    """An int64 that one writer stores and any number of readers load, never torn."""

    def get(self) -> int:
        """The value; 0 if never set."""
        ...

    def set(self, value: int) -> None:
        """Store ``value``: visible to other processes at once, durable only by chance."""
        ...


class Storage(Protocol):
    """What the log asks of its disk. A failed sync raises ``OSError``, a full disk ``StorageFull``."""

    @property
    def boot_id(self) -> str:
        """Changes when the machine starts; empty where that cannot be known."""
        ...

    def list(self, directory: str = "") -> list[str]:
        """The paths of all files below ``directory``, sorted."""
        ...

    def size(self, path: str) -> int:
        """Bytes of the file; 0 if there is none."""
        ...

    def read(self, path: str, position: int, length: int) -> pa.Buffer:
        """Up to ``length`` bytes from ``position``; fewer where the file ends. Copies only if it must."""
        ...

    def append(self, path: str, position: int, data: pa.Buffer | bytes) -> None:
        """Write at ``position``, the file's end. ``StorageFull``: the file ends at ``position`` as before."""
        ...

    def truncate(self, path: str, size: int) -> None:
        """Cut the file to ``size`` bytes."""
        ...

    def sync(self, path: str) -> None:
        """Make the file and its name survive the death of the machine."""
        ...

    def replace(self, path: str, data: pa.Buffer | bytes) -> None:
        """Give the file this content, durably: a reader or a crash finds the old content or the new."""
        ...

    def remove(self, path: str) -> None:
        """Delete the file, durably, if it exists."""
        ...

    def release(self, path: str) -> None:
        """No more writes to the file are to be expected: let go of its handle."""
        ...

    def counter(self, path: str) -> Counter:
        """The counter kept in this file, which is created if this storage may write."""
        ...

    def close(self) -> None:
        """Let go of everything, the lock last."""
        ...


class MemoryCounter:
    """A counter without a file."""

    def __init__(self) -> None:
        self.value = 0

    def get(self) -> int:
        """The value; 0 if never set."""
        return self.value

    def set(self, value: int) -> None:
        """Store ``value``."""
        self.value = value


class MemoryStorage:
    """Files as byte arrays: level ``memory``, and the simulation. Survives nothing but a reopening of the log."""

    def __init__(self) -> None:
        self.boot_id = "memory"
        self.files: dict[str, bytearray] = {}
        self.counters: dict[str, MemoryCounter] = {}

    def list(self, directory: str = "") -> list[str]:
        """The paths of all files below ``directory``, sorted."""
        prefix = f"{directory}/" if directory else ""
        return sorted(path for path in self.files if path.startswith(prefix))

    def size(self, path: str) -> int:
        """Bytes of the file; 0 if there is none."""
        return len(self.files.get(path, b""))

    def read(self, path: str, position: int, length: int) -> pa.Buffer:
        """A copy, since a byte array that is looked at cannot grow."""
        return pa.py_buffer(bytes(memoryview(self.files.get(path, b""))[position : position + length]))

    def append(self, path: str, position: int, data: pa.Buffer | bytes) -> None:
        """Write at ``position``, the file's end."""
        file = self.files.setdefault(path, bytearray())
        assert position == len(file), f"{path}: append at {position}, the file ends at {len(file)}"
        file += data

    def truncate(self, path: str, size: int) -> None:
        """Cut the file to ``size`` bytes."""
        del self.files[path][size:]

    def sync(self, path: str) -> None:
        """Memory has nowhere to sync to."""

    def replace(self, path: str, data: pa.Buffer | bytes) -> None:
        """Give the file this content."""
        self.files[path] = bytearray(data)

    def remove(self, path: str) -> None:
        """Delete the file if it exists."""
        self.files.pop(path, None)

    def release(self, path: str) -> None:
        """Memory keeps no handles."""

    def counter(self, path: str) -> Counter:
        """The counter of this name."""
        return self.counters.setdefault(path, MemoryCounter())

    def save(self, directory: Path) -> None:
        """Write everything out as a data directory, for readers such as the audit."""
        files = FileStorage(directory)
        try:
            for path, data in self.files.items():
                files.append(path, 0, bytes(data))
            for path, counter in self.counters.items():
                files.counter(path).set(counter.get())
        finally:
            files.close()

    def close(self) -> None:
        """Nothing to let go of."""


class FileStorage:
    """A directory held by ``flock``. With ``read_only`` it takes no lock and refuses to write."""

    def __init__(self, directory: Path | str, *, read_only: bool = False, maps_max: int | None = None) -> None:
        self.directory, self.maps_max = Path(directory), maps_max
        self.read_only = read_only
        self.boot_id = _said_by(_BOOT_ID)
        self._descriptors: dict[str, int] = {}
        self._maps: dict[str, MappedFile] = {}
        self._looked_at = 0
        self._counters: dict[str, MappedCounter] = {}
        self._unnamed: set[str] = set()  # created, and their directory entries not yet synced
        self._lock = -1 if read_only else self._take_lock()

    def _take_lock(self) -> int:
        self.directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
            os.close(descriptor)
            raise DataDirectoryError(
                f"{self.directory} is in use by process {holder}. Stop it, or name another data directory"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def list(self, directory: str = "") -> list[str]:
        """The paths of all files below ``directory``, sorted; the lock is not one of them."""
        below = self.directory / directory
        found = [path.relative_to(self.directory).as_posix() for path in below.rglob("*") if path.is_file()]
        return sorted(path for path in found if path != LOCK)

    def size(self, path: str) -> int:
        """Bytes of the file; 0 if there is none. One that was deleted and is still mapped stays as it was last seen."""
        try:
            return os.stat(self.directory / path).st_size
        except FileNotFoundError:
            mapped = self._maps.get(path)
            return mapped.size if mapped is not None else 0

    def read(self, path: str, position: int, length: int) -> pa.Buffer:
        """A view into the mapped file, without a copy; the file is looked up again when it must have grown."""
        mapped = self._maps.get(path)
        if mapped is None or position + length > mapped.size:
            mapped = mapped if mapped is not None and mapped.look_again() else self._map(path)
        if mapped is None:
            return NOTHING
        view = mapped.view(position, length)
        self._looked_at += view.size
        if self._looked_at > LOOKED_AT_MAX:
            self._let_go()
        return view

    def _let_go(self) -> None:
        for mapped in self._maps.values():
            mapped.let_go()
        self._looked_at = 0

    def _map(self, path: str) -> MappedFile | None:
        self._maps.pop(path, None)
        try:
            mapped = MappedFile(self.directory / path)
        except FileNotFoundError:
            return None
        if len(self._maps) >= (self.maps_max or MAPS_MAX):
            del self._maps[next(iter(self._maps))]
        self._maps[path] = mapped
        return mapped

    def append(self, path: str, position: int, data: pa.Buffer | bytes) -> None:
        """Write at ``position``, the file's end; a partial write that a full disk left is cut back."""
        _write(self._descriptor(path), path, position, data)

    def _descriptor(self, path: str) -> int:
        descriptor = self._descriptors.get(path)
        return self._open(path) if descriptor is None else descriptor

    def _open(self, path: str) -> int:
        assert not self.read_only, f"{path}: this storage was opened for reading"
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            self._unnamed.add(path)
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _full(path, error) from error
        self._descriptors[path] = descriptor
        return descriptor

    def truncate(self, path: str, size: int) -> None:
        """Cut the file to ``size`` bytes."""
        self._maps.pop(path, None)
        os.ftruncate(self._descriptor(path), size)

    def sync(self, path: str) -> None:
        """Sync the file; if it is new, its directory and those above it too, unless this storage is for reading."""
        if self.read_only:
            _sync_file(self.directory / path)
            return
        os.fsync(self._descriptor(path))
        if path in self._unnamed:
            self._sync_directories(path)
            self._unnamed.discard(path)

    def _sync_directories(self, path: str) -> None:
        at = (self.directory / path).parent
        _sync_directory(at)
        while at != self.directory:
            at = at.parent
            _sync_directory(at)

    def replace(self, path: str, data: pa.Buffer | bytes) -> None:
        """Write a temporary file, sync it, rename it, sync the directory; a full disk leaves the old file."""
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.temporary")
        try:
            _write_anew(temporary, path, data)
        except (OSError, StorageFull):
            temporary.unlink(missing_ok=True)
            raise
        os.replace(temporary, file)
        self.release(path)
        self._sync_directories(path)

    def remove(self, path: str) -> None:
        """Delete the file, durably, if it exists."""
        self.release(path)
        (self.directory / path).unlink(missing_ok=True)
        self._unnamed.discard(path)
        if (self.directory / path).parent.exists():
            _sync_directory((self.directory / path).parent)

    def release(self, path: str) -> None:
        """Close the file's descriptor and forget its mapping (views into it stay valid)."""
        self._maps.pop(path, None)
        descriptor = self._descriptors.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)

    def counter(self, path: str) -> Counter:
        """The mapped counter in this file."""
        found = self._counters.get(path)
        if found is None:
            file = self.directory / path
            if not self.read_only:
                file.parent.mkdir(parents=True, exist_ok=True)
            found = self._counters[path] = MappedCounter(file, writable=not self.read_only)
        return found

    def close(self) -> None:
        """Close all files, then give the lock back."""
        for counter in self._counters.values():
            counter.close()
        self._counters.clear()
        for path in list(self._descriptors):
            self.release(path)
        self._maps.clear()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _write_anew(temporary: Path, file: str, data: pa.Buffer | bytes) -> None:
    # Nobody goes by this file yet, so that unlike elsewhere a sync may fail for want of room and be tried again.
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            _write(descriptor, file, 0, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _full(file, error) from error


def _write(descriptor: int, file: str, position: int, data: pa.Buffer | bytes) -> None:
    try:
        if os.pwrite(descriptor, data, position) != len(data):
            write_fully(descriptor, data, position)
    except OSError as error:
        os.ftruncate(descriptor, position)
        raise _full(file, error) from error


def _full(file: str, error: OSError) -> Exception:
    if error.errno not in NO_ROOM:
        return error
    return StorageFull(f"{file}: {error.strerror}. Nothing was appended; make room and append again")


def _sync_directory(directory: Path) -> None:
    _sync_file(directory, os.O_DIRECTORY)


def _sync_file(path: Path, flags: int = 0) -> None:
    """Of whatever wrote it: a descriptor for reading carries the page cache's changes to the disk as well."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

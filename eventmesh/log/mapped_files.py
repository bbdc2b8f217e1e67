"""Files seen through memory: a counter that is stored at once, and a growing file that is read without a copy.

A mapping reaches beyond its file's end, so that a file that has grown need not be mapped anew. What lies
beyond the end is never touched, since that is a SIGBUS: views end where the file was seen to end.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import pyarrow as pa

#: Bytes of address space, not of memory, that the smallest mapping takes; files that outgrow it double it.
REACH_MIN = 16 << 20
NOTHING = pa.py_buffer(b"")
_LIBC = ctypes.CDLL(None, use_errno=True)  # Python's own mmap refuses to reach beyond the end of a file
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_FAILED = ctypes.c_void_p(-1).value


class MappedCounter:
    """An int64 in a mapped file of eight bytes.

    Stored by one aligned store through ``memoryview.cast``: ``struct.pack_into`` zeroes its target
    first, and readers in other processes do see the zero.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY, 0o644)
        try:
            if os.fstat(descriptor).st_size != 8:
                # Written out in full before it is mapped: a full disk under a sparse page is a SIGBUS.
                write_fully(descriptor, b"\0" * 8, 0)
            access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
            self._map = mmap.mmap(descriptor, 8, access=access)
        finally:
            os.close(descriptor)
        self._cells = memoryview(self._map).cast("q")

    def get(self) -> int:
        """The value; 0 if never set."""
        return self._cells[0]

    def set(self, value: int) -> None:
        """Store ``value``."""
        self._cells[0] = value

    def close(self) -> None:
        """Unmap the file."""
        self._cells.release()
        self._map.close()


class _Mapping:
    """Address space that is given back when the last view into it is gone."""

    def __init__(self, descriptor: int, reach: int) -> None:
        self.reach = reach
        self.address = _LIBC.mmap(None, reach, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if self.address == _FAILED:
            raise OSError(ctypes.get_errno(), f"{reach} bytes cannot be mapped")

    def __del__(self, munmap: ctypes._NamedFuncPointer = _LIBC.munmap) -> None:
        if self.address != _FAILED:
            munmap(self.address, self.reach)


class MappedFile:
    """A file that may grow, for reading. Its writer never cuts what has been looked at.

    ``size`` is the file's size when it was last looked up, and bounds every view.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)  # its size is looked up with every read at the tail
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            self._file = (status.st_dev, status.st_ino)
            self.size = status.st_size
            reach = max(REACH_MIN, 1 << self.size.bit_length())
            self._mapping = _Mapping(descriptor, reach)
            self._buffer = pa.foreign_buffer(self._mapping.address, reach, self._mapping)
        finally:
            os.close(descriptor)

    def view(self, position: int, length: int) -> pa.Buffer:
        """Up to ``length`` bytes from ``position``; fewer where the known size ends. Stays valid for ever."""
        there = min(length, self.size - position)
        return self._buffer.slice(position, there) if there > 0 else NOTHING

    def let_go(self) -> None:
        """Give the pages that were looked at back to the page cache alone; a view brings its own in again."""
        _LIBC.madvise(self._mapping.address, self._mapping.reach, mmap.MADV_DONTNEED)

    def look_again(self) -> bool:
        """Look the size up. False if another file has come in this one's place, or this mapping is too short.

        A file that was deleted stays as it was last seen.
        """
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return True
        if (status.st_dev, status.st_ino) != self._file or status.st_size > self._buffer.size:
            return False
        self.size = status.st_size
        return True


def write_fully(descriptor: int, data: pa.Buffer | bytes, position: int) -> None:
    """``pwrite`` until all of it is written."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, position)
        position, view = position + written, view[written:]

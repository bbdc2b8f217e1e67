"""One number in a small file of its own: replaced durably as a whole, and checked when it is read."""

from __future__ import annotations

import struct

from eventmesh.errors import CorruptSegment
from eventmesh.log.segment import crc32c
from eventmesh.log.storage import Storage

_PACKED = struct.Struct("<qI")  # the number, crc32c of its eight bytes


class DurableNumber:
    """An int64 that survives the machine; ``absent`` until it is first written."""

    def __init__(self, storage: Storage, path: str, absent: int) -> None:
        self._storage, self._path, self._absent = storage, path, absent

    def read(self) -> int:
        """The number on the disk; ``CorruptSegment`` if it is not what was written."""
        data = self._storage.read(self._path, 0, _PACKED.size).to_pybytes()
        if not data:
            return self._absent
        if len(data) != _PACKED.size or crc32c(data[:8]) != _PACKED.unpack(data)[1]:
            name = self._path.rpartition("/")[2]
            raise CorruptSegment(self._path, 0, 0, f"the {name} does not match its checksum")
        number: int = _PACKED.unpack(data)[0]
        return number

    def write(self, number: int) -> None:
        """Durable when this returns; ``StorageFull`` leaves the old number."""
        packed = struct.pack("<q", number)
        self._storage.replace(self._path, packed + struct.pack("<I", crc32c(packed)))

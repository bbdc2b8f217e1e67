"""One segment of a partition: an Arrow IPC stream file, and an index file with checksums and positions.

The data file opens in any Arrow reader. The index says where each batch lies and what its CRC32C is, and
each of its entries checks itself, so that a torn tail is cut exactly where it tore.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Sequence

import google_crc32c
import pyarrow as pa

from eventmesh.errors import CorruptSegment, StorageFull
from eventmesh.log.batch import Header, LogBatch, schema_message
from eventmesh.log.storage import Storage

END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"  # what closes an Arrow IPC stream
_MAGIC = b"EVTMINDX"
_VERSION = 1
_HEAD = struct.Struct("<8sIIqII")  # magic, version, entry size, base, zero, crc32c of what precedes
_ENTRY = struct.Struct("<qqIIII")  # base, byte position, rows, length, crc32c of the batch, crc32c of what precedes
_OPENING = struct.Struct("<iI")  # Arrow's continuation marker, and the length of the schema message behind it
ENTRY_BYTES = _ENTRY.size
_CHECKED = ENTRY_BYTES - 4


def crc32c(data: pa.Buffer | bytes) -> int:
    """CRC32C (Castagnoli), as Kafka's record batches carry it."""
    checksum: int = google_crc32c.value(data)
    return checksum


def _with_check(packed: bytes) -> bytes:
    return packed[:-4] + crc32c(packed[:-4]).to_bytes(4, "little")


class Segment:
    """The batches from offset ``base`` up to the next segment's, as files below ``directory``.

    ``bases``, ``rows``, ``positions``, ``lengths`` and ``checksums`` hold one item per batch. The first
    batch lies at ``base``, or above it when it is the record of a gap. All of them have the columns of
    one version, ``schema``: the first of ``versions``, newest first, that the data file begins with.
    """

    def __init__(self, storage: Storage, directory: str, base: int, versions: Sequence[pa.Schema]) -> None:
        self.storage, self.base, self.versions = storage, base, versions
        self.schema: pa.Schema = versions[0]
        self.data_path = f"{directory}/{base:020d}.arrow"
        self.index_path = f"{directory}/{base:020d}.index"
        self.unload()

    def unload(self) -> None:
        """Forget what was read of the index; :meth:`load` reads it again."""
        self.bases, self.positions = array("q"), array("q")
        self.rows, self.lengths, self.checksums = array("I"), array("I"), array("I")
        self.size = 0  # data bytes up to the end of the last batch; 0: not written or not loaded
        self._began_at: int | None = None

    def __len__(self) -> int:
        return len(self.bases)

    @property
    def end(self) -> int:
        """The offset after the last batch."""
        return self.bases[-1] + self.rows[-1] if self.bases else self.base

    @property
    def _index_size(self) -> int:
        return _HEAD.size + len(self.bases) * ENTRY_BYTES

    def sizes(self, count: int) -> tuple[int, int]:
        """Bytes of the data file and of the index that the first ``count`` batches take, without an end marker."""
        data = self.positions[count] if count < len(self) else self.size
        return data, _HEAD.size + count * ENTRY_BYTES

    def create(self) -> None:
        """Write an empty segment of the newest version. ``StorageFull``: none is left."""
        self.unload()
        self.schema = self.versions[0]
        opening = schema_message(self.schema)
        head = _with_check(_HEAD.pack(_MAGIC, _VERSION, ENTRY_BYTES, self.base, 0, 0))
        try:
            self.storage.append(self.data_path, 0, opening)
            self.storage.append(self.index_path, 0, head)
        except StorageFull:
            self.remove()
            raise
        self.size = len(opening)

    def load(self, below: int | None = None) -> bool:
        """Read the index, or what was added to it since; False if something torn follows the last entry.

        With ``below``, only the batches below that offset: a reader beside the writer must not remember
        what the writer may yet cut. Says nothing of the batches themselves: see :meth:`first_damaged`.
        """
        if not self.size and not self._opens():
            return False
        here = self._index_size
        # Each entry is for one offset at least, so that a follower need not ask for the size.
        length = self.storage.size(self.index_path) - here if below is None else (below - self.end) * ENTRY_BYTES
        data = memoryview(self.storage.read(self.index_path, here, length))
        for at in range(0, len(data) - ENTRY_BYTES + 1, ENTRY_BYTES):
            # What the writer may yet cut is not even touched: no page of it need exist.
            if below is not None and self.end >= below:
                return True
            if not self._take(data, at):
                return False
        return len(data) % ENTRY_BYTES == 0

    def _opens(self) -> bool:
        head = self.storage.read(self.index_path, 0, _HEAD.size).to_pybytes()
        if head != _with_check(_HEAD.pack(_MAGIC, _VERSION, ENTRY_BYTES, self.base, 0, 0)):
            return False
        for schema in self.versions:
            opening = schema_message(schema)
            if self.storage.read(self.data_path, 0, len(opening)).to_pybytes() == opening:
                self.schema, self.size = schema, len(opening)
                return True
        return False

    @property
    def is_newest(self) -> bool:
        """Whether its batches have the newest columns."""
        return self.schema is self.versions[0]

    def begin_anew(self) -> None:
        """Give an empty segment the newest columns, durably: a reader or a death finds the old ones or the new."""
        assert not len(self), f"{self.data_path} has batches, whose columns stay what they are"
        opening = schema_message(self.versions[0])
        self.storage.replace(self.data_path, opening)
        self.schema, self.size = self.versions[0], len(opening)

    def _take(self, data: memoryview, at: int) -> bool:
        base, position, rows, length, checksum, check = _ENTRY.unpack_from(data, at)
        if position != self.size or base < self.end or crc32c(bytes(data[at : at + _CHECKED])) != check:
            return False
        self._add(base, rows, length, checksum)
        return True

    def _add(self, base: int, rows: int, length: int, checksum: int) -> None:
        self.bases.append(base)
        self.rows.append(rows)
        self.positions.append(self.size)
        self.lengths.append(length)
        self.checksums.append(checksum)
        self.size += length

    def append(self, header: Header, message: pa.Buffer, checksum: int) -> None:
        """Write a batch, then its index entry: without the entry it does not exist.

        ``StorageFull``: neither is left.
        """
        position, length = self.size, message.size
        packed = _with_check(_ENTRY.pack(header.base, position, header.rows, length, checksum, 0))
        self.storage.append(self.data_path, position, message)
        try:
            self.storage.append(self.index_path, self._index_size, packed)
        except StorageFull:
            self.storage.truncate(self.data_path, position)
            raise
        self._add(header.base, header.rows, length, checksum)
        if len(self) == 1:
            self._began_at = header.time

    def cut(self, count: int) -> bool:
        """Keep the first ``count`` batches and nothing behind them; False if there was nothing to cut.

        A segment that does not even open is written anew, empty.
        """
        if not self.size:
            self._rewrite()
            return True
        if count < len(self.bases):
            self.size = self.positions[count]
            for column in (self.bases, self.rows, self.positions, self.lengths, self.checksums):
                del column[count:]
            self._began_at = self._began_at if count else None
        sizes = {self.data_path: self.size, self.index_path: self._index_size}
        longer = [path for path, size in sizes.items() if self.storage.size(path) != size]
        for path in longer:
            self.storage.truncate(path, sizes[path])
        return bool(longer)

    def _rewrite(self) -> None:
        for path in (self.data_path, self.index_path):
            if self.storage.size(path):
                self.storage.truncate(path, 0)
        self.create()

    def seal(self) -> None:
        """Close the stream with Arrow's end marker and sync: a closed segment survives the machine.

        ``StorageFull``: the segment is as it was.
        """
        self.storage.append(self.data_path, self.size, END_OF_STREAM)
        self.sync()

    def unseal(self) -> None:
        """Take the end marker away again, since no segment follows after all."""
        self.storage.truncate(self.data_path, self.size)

    def sync(self) -> None:
        """Make all batches survive the machine."""
        self.storage.sync(self.data_path)
        self.storage.sync(self.index_path)

    def copy_anew(self) -> None:
        """Put durable copies in the files' places, where a sync of the files themselves cannot be believed."""
        for path, size in ((self.data_path, self.size), (self.index_path, self._index_size)):
            self.storage.replace(path, self.storage.read(path, 0, size))

    def began_at(self) -> int:
        """When the first batch was appended, in microseconds, by its header."""
        if self._began_at is None:
            self._began_at = self.batch(0).header.time
        return self._began_at

    def ended_at(self) -> int:
        """When the last batch was appended."""
        return self.batch(len(self) - 1).header.time

    @property
    def bytes(self) -> int:
        """What its files take on the disk."""
        return self.storage.size(self.data_path) + self.storage.size(self.index_path)

    def remove(self) -> None:
        """Delete both files."""
        self.storage.remove(self.data_path)
        self.storage.remove(self.index_path)

    def release(self) -> None:
        """Let go of the files' handles."""
        self.storage.release(self.data_path)
        self.storage.release(self.index_path)

    def at_or_after(self, offset: int) -> int:
        """The number of the batch that contains ``offset``, else of the first one above it."""
        found = bisect_right(self.bases, offset) - 1
        return found if found >= 0 and offset < self.bases[found] + self.rows[found] else found + 1

    def message(self, number: int) -> pa.Buffer:
        """The stored bytes of a batch, checked; ``CorruptSegment`` if they are not what was written."""
        message = self.storage.read(self.data_path, self.positions[number], self.lengths[number])
        if message.size != self.lengths[number]:
            raise self.corrupt(number, f"{message.size} of {self.lengths[number]} bytes are there")
        found = crc32c(message)
        if found != self.checksums[number]:
            raise self.corrupt(number, f"crc32c is {found:08x}, the index says {self.checksums[number]:08x}")
        return message

    def batch(self, number: int) -> LogBatch:
        """A batch from the disk, checked."""
        return LogBatch.decode(self.message(number), self.schema, self.versions[0])

    def first_damaged(self) -> int:
        """The number of the first batch whose bytes are wrong; ``len(self)`` if all are right."""
        for number in range(len(self.bases)):
            try:
                self.message(number)
            except CorruptSegment:
                return number
        return len(self.bases)

    @property
    def memory(self) -> int:
        """Bytes that its index takes in memory."""
        columns = (self.bases, self.positions, self.rows, self.lengths, self.checksums)
        return sum(column.itemsize * len(column) for column in columns)

    def corrupt(self, number: int, detail: str) -> CorruptSegment:
        """The error for batch ``number``, or for what should follow the last one."""
        if number < len(self.bases):
            return CorruptSegment(self.data_path, self.bases[number], self.positions[number], detail)
        return CorruptSegment(self.data_path, self.end, self.size, detail)


def batches_on_disk(storage: Storage, directory: str, *, closed: bool) -> tuple[str, range] | None:
    """The data file that is written to, or the oldest closed one, and the bytes in it that batches take up.

    None where there is no such file, or no batch in it.
    """
    paths = [path for path in storage.list(directory) if path.endswith(".arrow")]
    if not paths or (closed and len(paths) == 1):
        return None
    path = paths[0] if closed else paths[-1]
    end = storage.size(path) - (len(END_OF_STREAM) if closed else 0)
    found = range(_opening_bytes(storage, path), end)
    return (path, found) if found else None


def _opening_bytes(storage: Storage, path: str) -> int:
    """How long the schema message is that a data file begins with: a marker, its length, and no body."""
    begins = storage.read(path, 0, _OPENING.size)
    return _OPENING.size + _OPENING.unpack(begins)[1] if begins.size == _OPENING.size else storage.size(path)


class LoadedIndexes:
    """The closed segments of a whole log whose indexes are in memory, bounded in bytes; at least the newest used."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._segments: list[tuple[Segment, int]] = []  # with its bytes, oldest use first
        self._bytes = 0

    def keep(self, closed: Segment) -> None:
        """Keep an index that was read or written just now; the oldest make room."""
        self._segments.append((closed, closed.memory))
        self._bytes += closed.memory
        while self._bytes > self.max_bytes and len(self._segments) > 1:
            oldest, size = self._segments.pop(0)
            self._bytes -= size
            oldest.unload()

    def forget(self, gone: Segment) -> None:
        """The segment is not there any more."""
        self._bytes -= sum(size for segment, size in self._segments if segment is gone)
        self._segments = [each for each in self._segments if each[0] is not gone]
        gone.unload()

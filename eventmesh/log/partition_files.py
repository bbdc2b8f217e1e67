"""One partition on its storage: segments, watermark, reservation, and their recovery.

Closed segments are synced when they are closed, so only the newest can be torn. Nothing above the
watermark is shown; the end offset always stays below the reservation, so that an opening after the
machine died can go on at an offset that nobody ever heard of.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from eventmesh.errors import CorruptSegment, DataDirectoryError, LogTruncated, OffsetOutOfRange, StorageFull
from eventmesh.log.batch import LogBatch
from eventmesh.log.partition import Durability, Partition, truncated
from eventmesh.log.segment import Segment, crc32c
from eventmesh.log.storage import Storage
from eventmesh.log.topic import Topic

#: Offsets per reservation, each a durable replace of a small file: at six million rows a second six a second.
RESERVATION_BLOCK = 1 << 20
_RESERVATION = struct.Struct("<qI")


class RecentBatches:
    """The newest batches of a whole log, bounded in bytes, so that readers at the tail never touch the disk."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._batches: dict[tuple[str, int], LogBatch] = {}  # by partition and base, oldest first
        self._bytes = 0

    def add(self, partition: str, entry: LogBatch) -> None:
        """Keep a batch; the oldest make room."""
        self._batches[partition, entry.header.base] = entry
        self._bytes += _held(entry)
        while self._bytes > self.max_bytes:
            self._bytes -= _held(self._batches.pop(next(iter(self._batches))))

    def get(self, partition: str, base: int) -> LogBatch | None:
        """The batch at ``base``, if it is still here."""
        return self._batches.get((partition, base))


def _held(entry: LogBatch) -> int:
    size: int = entry.message.size
    return 2 * size  # the message, and the rows it was encoded from


class PartitionFiles:
    """The segments of ``topic/partition``, oldest first, and the rules' state folded from them."""

    def __init__(self, storage: Storage, topic: Topic, number: int, recent: RecentBatches) -> None:
        self.rules = Partition(topic, number)
        self.storage, self.schema, self.recent = storage, topic.schema, recent
        self.directory = f"{topic.name}/{number}"
        self._reservation_path = f"{self.directory}/reservation"
        self.segments: list[Segment] = []
        self.reserved = 1  # no position at or above this was ever given out
        self.watermark = 0
        self.dirty = False  # batches above the watermark wait for a sync
        self._counter = storage.counter(f"{self.directory}/watermark")

    # -- opening ---------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """``topic/partition``."""
        return self.rules.name

    @property
    def active(self) -> Segment:
        """The segment that is appended to."""
        return self.segments[-1]

    def _new_segment(self, base: int) -> Segment:
        return Segment(self.storage, self.directory, base, self.schema)

    def bases_on_storage(self) -> list[int]:
        """The bases of all segments of which a file exists."""
        names = [path.rpartition("/")[2].partition(".") for path in self.storage.list(self.directory)]
        return sorted({int(stem) for stem, _, kind in names if kind in ("arrow", "index")})

    def create(self) -> None:
        """Write the first, empty segment durably, or repair one whose creation was cut short."""
        self.segments = [self._new_segment(base) for base in self.bases_on_storage() or [0]]
        self.active.load()
        if len(self.segments) > 1 or len(self.active):
            raise DataDirectoryError(f"{self.name} has segments, but the manifest does not know the topic")
        self.active.cut(0)
        self.active.sync()

    def recover(self, *, same_boot: bool, level: Durability, sync_failed: bool, clock: Callable[[], int]) -> None:
        """Bring the partition to what ``level``, at which it was last written, still owes its readers.

        ``CorruptSegment`` for damage below the watermark that only rot can explain.
        """
        self._find_segments()
        self.reserved = self._read_reservation()
        self._cut_torn_tail(same_boot, level)
        # Nothing is shown before it is known to be on the disk.
        if sync_failed:
            # The kernel takes the pages of a failed sync for clean: the next one would succeed and write nothing.
            self.active.copy_anew()
        else:
            self.active.sync()
        self._fold_tail()
        # Where `end + 1 == reserved` every position that was given out is still there.
        if not same_boot and self.reserved > self.rules.end + 1:
            self._record_gap(clock)
        self.publish()

    def _find_segments(self) -> None:
        self.segments = [self._new_segment(base) for base in self.bases_on_storage()]
        if not self.segments:
            raise DataDirectoryError(f"the manifest says that {self.name} exists, its files are gone. Restore them")

    def _cut_torn_tail(self, same_boot: bool, level: Durability) -> None:
        active = self.active
        active.load()
        kept = active.first_damaged()
        if same_boot and level is Durability.fsync:
            # What lies above the watermark was never acknowledged, and after a failed sync the page cache
            # vouches for bytes that the disk refused: only a cut makes the next sync mean what it says.
            kept = min(kept, active.at_or_after(self._counter.get()))
        end = active.bases[kept - 1] + active.rows[kept - 1] if kept else active.base
        self._check_floor(end, kept, same_boot, level)
        active.cut(kept)

    def _check_floor(self, end: int, kept: int, same_boot: bool, level: Durability) -> None:
        if same_boot:
            floor = self._counter.get()
        elif level is Durability.fsync:
            # The watermark is the synced end here, and so was the reservation's last position when it was written.
            floor = max(self._counter.get(), self.reserved - 1)
        else:
            return  # the machine's death may have taken any part of the newest segment
        if end < floor:
            raise self.active.corrupt(kept, f"everything below offset {floor} was acknowledged, this ends at {end}")

    def _fold_tail(self) -> None:
        """Fold the last batches' headers: the newest carries epoch, incarnation and append number."""
        self.rules.end = 0
        newest: list[tuple[LogBatch, int]] = []
        for segment, number in self._backwards():
            newest.append((segment.batch(number), segment.checksums[number]))
            if newest[-1][0].header.kind != "truncated":
                break
        for entry, checksum in reversed(newest):
            self.rules.accepted(entry.header, checksum)
        self.rules.end = max(self.rules.end, self.active.end)

    def _backwards(self) -> Iterator[tuple[Segment, int]]:
        for segment in reversed(self.segments):
            self._load(segment)
            for number in reversed(range(len(segment))):
                yield segment, number

    def _load(self, segment: Segment) -> None:
        """Load a closed segment's index on first use; it must be whole and reach the next segment."""
        if segment.size or segment is self.active:
            return
        whole = segment.load()
        following = self.segments[self.segments.index(segment) + 1]
        if not whole or segment.end != following.base:
            raise segment.corrupt(len(segment), f"{segment.index_path} should reach offset {following.base}")

    def _record_gap(self, clock: Callable[[], int]) -> None:
        """Go on at the reservation. Dying in here leaves a wider gap to the next opening, never a reused offset."""
        lost_to = self.reserved
        self._reserve(lost_to + 1)
        entry = truncated(self.rules, lost_to=lost_to, time=clock())
        self._write(entry, crc32c(entry.message))
        self.active.sync()

    # -- reservation -----------------------------------------------------------------------------

    def _read_reservation(self) -> int:
        data = self.storage.read(self._reservation_path, 0, _RESERVATION.size).to_pybytes()
        if not data:
            return 1
        if len(data) != _RESERVATION.size or crc32c(data[:8]) != _RESERVATION.unpack(data)[1]:
            raise CorruptSegment(self._reservation_path, 0, 0, "the reservation does not match its checksum")
        reserved: int = _RESERVATION.unpack(data)[0]
        return reserved

    def _write_reservation(self, reserved: int) -> None:
        packed = struct.pack("<q", reserved)
        self.storage.replace(self._reservation_path, packed + struct.pack("<I", crc32c(packed)))
        self.reserved = reserved

    def _reserve(self, end: int) -> None:
        """Make sure that ``end`` may be given out as a position."""
        if end >= self.reserved:
            self._write_reservation(end + RESERVATION_BLOCK)

    def settle(self) -> None:
        """Everything is synced: take the reservation back to the end, so that no gap follows from it."""
        if self.reserved > self.rules.end + 1:
            self._write_reservation(self.rules.end + 1)

    # -- appending -------------------------------------------------------------------------------

    def append(self, entry: LogBatch, checksum: int, *, reserve: bool) -> None:
        """Write a batch that the rules have admitted. ``StorageFull``: everything is as it was.

        At level fsync no reservation is needed (``reserve`` False): only synced offsets are ever given
        out, and those are found again.
        """
        if reserve:
            self._reserve(entry.header.end)
        if self.active.size + entry.message.size > self.rules.topic.settings.segment_bytes and len(self.active):
            self._roll()
        self._write(entry, checksum)
        self.recent.add(self.name, entry)
        self.dirty = True

    def _write(self, entry: LogBatch, checksum: int) -> None:
        self.active.append(entry.header, entry.message, checksum)
        self.rules.accepted(entry.header, checksum)

    def _roll(self) -> None:
        """Close the active segment durably, publish it, and begin the next."""
        closed = self.active
        closed.seal()
        # The watermark must not lag behind into a closed segment: recovery cuts the newest one only.
        self.publish()
        following = self._new_segment(closed.end)
        try:
            following.create()
        except StorageFull:
            closed.unseal()
            raise
        closed.release()
        self.segments.append(following)

    def sync(self) -> None:
        """Sync what was appended, then publish it; ``OSError`` if the disk fails."""
        self.active.sync()
        self.publish()

    def publish(self) -> None:
        """Show everything that was appended."""
        self.watermark = self.rules.end
        self._counter.set(self.watermark)
        self.dirty = False

    # -- reading ---------------------------------------------------------------------------------

    @property
    def start(self) -> int:
        """The lowest offset that can be read."""
        return self.segments[0].base

    def follow(self) -> None:
        """As a reader beside the writer: take over its watermark and the index entries below it."""
        if not self.segments:
            self._find_segments()
        watermark = self._counter.get()
        if watermark <= self.watermark:
            return
        self.active.load(watermark)
        if self.active.end < watermark:
            known = self.active.base
            self.segments += [self._new_segment(base) for base in self.bases_on_storage() if base > known]
            self.active.load(watermark)
        if self.active.end < watermark:
            raise self.active.corrupt(len(self.active), f"the watermark is {watermark}, the index ends before it")
        self.watermark = watermark
        self.rules.end = watermark

    def read(self, offset: int, max_bytes: int) -> list[LogBatch]:
        """Whole batches from the one that contains ``offset``, at least one if there is any."""
        if not self.start <= offset <= self.watermark:
            raise OffsetOutOfRange(self.name, offset, self.start, self.watermark)
        found: list[LogBatch] = []
        size = 0
        for segment, number in self._forwards(offset):
            if segment.bases[number] >= self.watermark or (found and size + segment.lengths[number] > max_bytes):
                break
            found.append(self._fetch(segment, number))
            size += segment.lengths[number]
        return found

    def _forwards(self, offset: int) -> Iterator[tuple[Segment, int]]:
        at = bisect_right(self.segments, offset, key=lambda segment: segment.base) - 1
        first = True
        for segment in self.segments[at:]:
            self._load(segment)
            numbers = range(segment.at_or_after(offset) if first else 0, len(segment))
            if first and numbers:
                self._check_gap(segment, numbers[0], offset)
            first = first and not numbers
            for number in numbers:
                yield segment, number

    def _check_gap(self, segment: Segment, number: int, offset: int) -> None:
        """A position at the gap's very start has seen nothing that was lost, and may go on."""
        lost_from = segment.bases[number - 1] + segment.rows[number - 1] if number else segment.base
        if lost_from < offset < segment.bases[number]:
            raise LogTruncated(self.name, offset, lost_from, segment.bases[number])

    def _fetch(self, segment: Segment, number: int) -> LogBatch:
        cached = self.recent.get(self.name, segment.bases[number])
        return cached if cached is not None else segment.batch(number)

    def read_all(self) -> Iterator[LogBatch]:
        """Every batch below the watermark, in offset order; gaps are passed over."""
        for segment, number in self._visible():
            yield self._fetch(segment, number)

    def _visible(self) -> Iterator[tuple[Segment, int]]:
        for segment in self.segments:
            self._load(segment)
            for number in range(len(segment)):
                if segment.bases[number] < self.watermark:
                    yield segment, number

    def verify(self) -> tuple[int, int]:
        """Check all that is visible on the disk: ``(batches, bytes)``. ``CorruptSegment`` at the first damage."""
        sizes = [segment.message(number).size for segment, number in self._visible()]
        return len(sizes), sum(sizes)

    def release(self) -> None:
        """Let go of the files' handles."""
        for segment in self.segments:
            segment.release()


def as_table(entries: Iterator[LogBatch], partition: int, schema: pa.Schema) -> pa.Table:
    """Rows of all batches, with ``offset, partition, epoch, base, kind`` behind the topic's own columns."""
    found = list(entries)
    headers = [entry.header for entry in found]
    rows = np.array([header.rows for header in headers], np.int64)
    batch = np.repeat(np.arange(len(rows)), rows)
    base = np.array([header.base for header in headers], np.int64)[batch]
    place = np.arange(len(batch)) - (np.cumsum(rows) - rows)[batch]
    epoch = np.array([header.epoch for header in headers], np.int64)[batch]
    kind = pa.array([header.kind for header in headers], pa.string()).take(pa.array(batch))
    extra = {
        "offset": pa.array(base + place),
        "partition": pa.repeat(pa.scalar(partition, pa.int32()), len(batch)),
        "epoch": pa.array(epoch),
        "base": pa.array(base),
        "kind": kind,
    }
    table = pa.Table.from_batches([entry.batch for entry in found], schema)
    for name, column in extra.items():
        table = table.append_column(pa.field(name, column.type, nullable=False), column)
    return table

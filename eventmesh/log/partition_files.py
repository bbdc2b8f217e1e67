"""One partition on its storage: segments, watermark, reservation, and their recovery.

Closed segments are synced when they are closed, so only the newest can be torn. Nothing above the
watermark is shown; the end offset always stays below the reservation, so that an opening after the
machine died can go on at an offset that nobody ever heard of.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from eventmesh.errors import CorruptSegment, DataDirectoryError, LogTruncated, OffsetOutOfRange, StorageFull
from eventmesh.log.batch import OWN_RECORDS, Header, LogBatch
from eventmesh.log.durable_number import DurableNumber
from eventmesh.log.partition import Durability, Partition, overridden, truncated
from eventmesh.log.retention import ClosedSegment, Deleted, new_start
from eventmesh.log.segment import LoadedIndexes, Segment, crc32c
from eventmesh.log.storage import Storage
from eventmesh.log.topic import Topic

#: Offsets per reservation, each a durable replace of a small file: at six million rows a second six a second.
RESERVATION_BLOCK = 1 << 20
#: Bytes that the objects of a batch and of each of its decoded columns take, as measured on CPython 3.11.
BATCH_OVERHEAD, COLUMN_OVERHEAD = 2_300, 600
_WRITERS = ("facts", "progressed")


class RecentBatches:
    """The newest batches of a whole log, bounded in bytes, so that readers at the tail never touch the disk."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._batches: dict[tuple[str, int], tuple[LogBatch, int]] = {}  # with its bytes, oldest first
        self._bytes = 0

    def add(self, partition: str, entry: LogBatch) -> None:
        """Keep a batch; the oldest make room."""
        held = _held(entry)
        self._batches[partition, entry.header.base] = entry, held
        self._bytes += held
        while self._bytes > self.max_bytes:
            _, freed = self._batches.pop(next(iter(self._batches)))
            self._bytes -= freed

    def get(self, partition: str, base: int) -> LogBatch | None:
        """The batch at ``base``, if it is still here."""
        found = self._batches.get((partition, base))
        return None if found is None else found[0]


def _held(entry: LogBatch) -> int:
    """What a batch takes in memory: bytes, objects, and the frame that it came in, which lives as long as its parts."""
    rows: int = entry.message.size  # it was encoded from them; rows decoded from the message share its bytes
    frame: int = (entry.message.parent or entry.message).size
    return rows + frame + BATCH_OVERHEAD + COLUMN_OVERHEAD * len(entry.schema)


class PartitionFiles:
    """The segments of ``topic/partition``, oldest first, and the rules' state folded from them."""

    def __init__(
        self, storage: Storage, topic: Topic, number: int, recent: RecentBatches, loaded: LoadedIndexes
    ) -> None:
        self.rules = Partition(topic, number)
        self.storage, self.recent, self._loaded = storage, recent, loaded
        self._versions = (topic.schema, *reversed(topic.earlier))
        self.directory = f"{topic.name}/{number}"
        self._reservation = DurableNumber(storage, f"{self.directory}/reservation", 1)
        self._durable_start = DurableNumber(storage, f"{self.directory}/start", 0)
        self.segments: list[Segment] = []
        self.reserved = 1  # no position at or above this was ever given out
        self.watermark = 0
        self.vector: Mapping[str, Any] = {}  # the newest one below the watermark
        self._unshown: deque[tuple[int, Mapping[str, Any]]] = deque()  # those above it, each with its append's end
        self._has_vector = False
        self._needed = 0  # base of the batch that carries it, else of the newest grant: recovery folds from here
        self._counter = storage.counter(f"{self.directory}/watermark")
        self._published_start = storage.counter(f"{self.directory}/published_start")

    # -- opening ---------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """``topic/partition``."""
        return self.rules.name

    @property
    def dirty(self) -> bool:
        """Whether batches above the watermark wait for a sync."""
        return self.watermark < self.rules.end

    @property
    def active(self) -> Segment:
        """The segment that is appended to."""
        return self.segments[-1]

    def _new_segment(self, base: int) -> Segment:
        return Segment(self.storage, self.directory, base, self._versions)

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
        self._finish_deletion()
        self._find_segments()
        self.reserved = self._reservation.read()
        self._cut_torn_tail(same_boot, level)
        # Nothing is shown before it is known to be on the disk.
        if sync_failed:
            # The kernel takes the pages of a failed sync for clean: the next one would succeed and write nothing.
            self.active.copy_anew()
        else:
            self.active.sync()
        self._fold_tail()
        self._begin_newest_version()
        # Where `end + 1 == reserved` every position that was given out is still there.
        if not same_boot and self.reserved > self.rules.end + 1:
            self._record_gap(clock)
        self.publish()

    def _finish_deletion(self) -> None:
        """A death in the middle of :meth:`_delete_below` leaves files below the start."""
        start = self._durable_start.read()
        self._published_start.set(start)
        for base in self.bases_on_storage():
            if base < start:
                self._new_segment(base).remove()

    def _find_segments(self) -> None:
        start = self._known_start()
        bases = [base for base in self.bases_on_storage() if base >= start]
        if bases[:1] == [start]:
            self.segments = [self._new_segment(base) for base in bases]
        elif start < self._known_start():
            self._find_segments()  # beside the writer: it deleted segments meanwhile
        else:
            raise DataDirectoryError(
                f"the manifest says that {self.name} exists from offset {start} on, its files are gone. Restore them"
            )

    def _known_start(self) -> int:
        # The counter is the writer's word to readers beside it; after a restart of the machine it may be an old one.
        return max(self._durable_start.read(), self._published_start.get())

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
        """Fold the last batches' headers, back to the newest vector: they carry epoch, incarnation, append number."""
        self.rules.end = 0
        newest: list[tuple[Header, int]] = []
        for segment, number in self._backwards():
            newest.append((segment.batch(number).header, segment.checksums[number]))
            if newest[-1][0].kind in _WRITERS:
                break
        for header, checksum in reversed(newest):
            self._accepted(header, checksum)
        self.rules.end = max(self.rules.end, self.active.end)

    def _backwards(self) -> Iterator[tuple[Segment, int]]:
        for segment in reversed(self.segments):
            self._load(segment)
            for number in reversed(range(len(segment))):
                yield segment, number

    def _load(self, segment: Segment) -> None:
        """Load a closed segment's index on first use; it must be whole and reach the next segment."""
        if not segment.size and segment is not self.active:
            self._check_not_deleted(segment.base)
        self._load_index(segment)

    def _load_index(self, segment: Segment) -> None:
        if segment.size or segment is self.active:
            return
        whole = segment.load()
        following = self.segments[self.segments.index(segment) + 1]
        if not whole or segment.end != following.base:
            raise segment.corrupt(len(segment), f"{segment.index_path} should reach offset {following.base}")
        self._loaded.keep(segment)

    def _begin_newest_version(self) -> None:
        """What is appended from now on has the newest columns: end a segment of earlier ones, once it is synced."""
        if self.active.is_newest:
            return
        if len(self.active):
            self.roll()
        else:
            self.active.begin_anew()

    def _record_gap(self, clock: Callable[[], int]) -> None:
        """Go on at the reservation. Dying in here leaves a wider gap to the next opening, never a reused offset."""
        lost_to = self.reserved
        self._reserve(lost_to + 1)
        entry = truncated(self.rules, lost_to=lost_to, time=clock())
        self._write(entry, crc32c(entry.message))
        self.active.sync()

    # -- reservation -----------------------------------------------------------------------------

    def _write_reservation(self, reserved: int) -> None:
        self._reservation.write(reserved)
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
        settings = self.rules.topic.settings
        if self.active.size + entry.message.size > settings.segment_bytes or self._aged(entry.header.time):
            self.roll()
        self._write(entry, checksum)
        self.recent.add(self.name, entry)

    def _aged(self, now: int) -> bool:
        """Whether the active segment's first batch is older than ``segment.ms``."""
        return len(self.active) > 0 and now - self.active.began_at() >= self.rules.topic.settings.segment_ms * 1_000

    def _write(self, entry: LogBatch, checksum: int) -> None:
        self.active.append(entry.header, entry.message, checksum)
        self._accepted(entry.header, checksum)

    def _accepted(self, header: Header, checksum: int) -> None:
        self.rules.accepted(header, checksum)
        if header.kind in _WRITERS:
            self._unshown.append((header.end, header.progress))
            self._has_vector = True
        elif header.kind in OWN_RECORDS or self._has_vector:
            return
        self._needed = header.base

    def roll(self) -> None:
        """Close the active segment durably, publish it, and begin the next; nothing if it is empty."""
        closed = self.active
        if not len(closed):
            return
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
        self._loaded.keep(closed)

    def sync(self) -> None:
        """Sync what was appended, then publish it; ``OSError`` if the disk fails."""
        self.active.sync()
        self.publish()

    def publish(self, end: int | None = None) -> None:
        """Show everything that was appended, or what lies below ``end``; what is shown stays so."""
        self.watermark = self.rules.end if end is None else max(self.watermark, min(end, self.rules.end))
        while self._unshown and self._unshown[0][0] <= self.watermark:
            self.vector = self._unshown.popleft()[1]
        self._counter.set(self.watermark)

    # -- retention -------------------------------------------------------------------------------

    def retain(self, now: int, floor: int) -> int:
        """Where the partition should start, by its topic's retention; closes a segment that ``segment.ms`` ends."""
        if self._aged(now):
            self.roll()
        size = sum(segment.bytes for segment in self.segments)
        floor, settings = min(floor, self._needed), self.rules.topic.settings
        return new_start(self._closed(), settings, start=self.start, size=size, now=now, floor=floor)

    def _closed(self) -> Iterator[ClosedSegment]:
        for segment in self.segments[:-1]:
            self._load(segment)
            yield ClosedSegment(segment.end, segment.bytes, segment.ended_at())

    def delete_below(self, start: int) -> Deleted:
        """Delete the segments below ``start``, one's base: said durably, then to readers, then done.

        Dying in here leaves files below the start, which the next opening removes. What stays is synced
        first: epoch and vector must not be left to a page cache alone.
        """
        self.sync()
        before, gone = self.start, [segment for segment in self.segments if segment.base < start]
        deleted = Deleted(self.name, before, start, len(gone), sum(segment.bytes for segment in gone))
        self._durable_start.write(start)
        self._published_start.set(start)
        self._forget(gone)
        for segment in gone:
            segment.remove()
        return deleted

    def _forget(self, gone: list[Segment]) -> None:
        self.segments = self.segments[len(gone) :]
        for segment in gone:
            self._loaded.forget(segment)
            segment.release()

    def override(self, *, reason: str, floor: int, deleted_to: int, time: int, reserve: bool) -> None:
        """Record, durably, that retention goes past ``floor``, before it does."""
        entry = overridden(self.rules, reason=reason, start=self.start, floor=floor, deleted_to=deleted_to, time=time)
        self.append(entry, crc32c(entry.message), reserve=reserve)
        self.sync()

    # -- copying ---------------------------------------------------------------------------------

    def published(self) -> int:
        """The watermark as its writer has it now, without a look at the files below it."""
        return self._counter.get()

    def hold(self) -> bool:
        """Map the files of every segment, so that what is deleted stays readable; False if one went before that."""
        for segment in self.segments:
            for path in (segment.data_path, segment.index_path):
                self.storage.release(path)  # an earlier look may have seen less of it
                self.storage.read(path, 0, 1)
        return self.start >= self._published_start.get()

    def below(self, end: int) -> Iterator[tuple[Segment, int, bool]]:
        """The segments that hold what lies below ``end``, at least one: how many of its batches do, and is it closed.

        One after the other: the index of each is in memory until the next is asked for.
        """
        following = [*self.segments[1:], None]
        for segment, after in zip(self.segments, following, strict=True):
            if segment.base >= end and segment is not self.segments[0]:
                return
            self._load_index(segment)
            if not segment.size:
                segment.load(end)  # nothing was ever read of it: it is empty so far
            yield segment, bisect_left(segment.bases, end), after is not None and after.base < end

    # -- reading ---------------------------------------------------------------------------------

    @property
    def start(self) -> int:
        """The lowest offset that can be read."""
        return self.segments[0].base

    def follow(self) -> None:
        """As a reader beside the writer: take over its watermark and the index entries below it."""
        start = self._published_start.get()
        if not self.segments or self.active.base < start:
            self._find_segments()
            self.watermark = self.start  # of what is below, nothing is left to know
        elif self.start < start:
            self._forget([segment for segment in self.segments if segment.base < start])
        watermark = self._counter.get()
        if watermark <= self.watermark:
            return
        self.active.load(watermark)
        if self.active.end < watermark:
            self._follow_roll()
            self.active.load(watermark)
        if self.active.end < watermark:
            raise self.active.corrupt(len(self.active), f"the watermark is {watermark}, the index ends before it")
        self.watermark = watermark
        self.rules.end = watermark

    def _follow_roll(self) -> None:
        closed = self.active
        following = [self._new_segment(base) for base in self.bases_on_storage() if base > closed.base]
        if not following:
            return
        self.segments += following
        closed.release()
        if closed.end == following[0].base:
            self._loaded.keep(closed)
        else:
            closed.unload()  # it was deleted before all of it was seen: nothing of it may be passed over

    def read(self, offset: int, max_bytes: int) -> list[LogBatch]:
        """Whole batches from the one that contains ``offset``, at least one if there is any."""
        if not self.start <= offset <= self.watermark:
            raise OffsetOutOfRange(self.name, offset, self.start, self.watermark)
        if offset == self.watermark:
            return []
        try:
            return self._read(offset, max_bytes)
        except CorruptSegment:
            self._check_not_deleted(offset)
            raise

    def _check_not_deleted(self, offset: int) -> None:
        """Files that the writer deletes while they are read are no damage: the start has moved."""
        start = max(self.start, self._published_start.get())
        if offset < start:
            raise OffsetOutOfRange(self.name, offset, start, self.watermark)

    def _read(self, offset: int, max_bytes: int) -> list[LogBatch]:
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
            try:
                yield from self._visible_in(segment)
            except CorruptSegment:
                self._check_not_deleted(segment.base)
                raise

    def _visible_in(self, segment: Segment) -> Iterator[tuple[Segment, int]]:
        self._load(segment)
        for number in range(len(segment)):
            self._load(segment)  # other readers may have crowded it out meanwhile
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
    base = np.array([header.base for header in headers], np.int64)
    epoch = np.array([header.epoch for header in headers], np.int64)
    ends = np.cumsum(rows)
    kinds = pa.array([header.kind for header in headers], pa.string()).dictionary_encode()
    codes = pa.array(np.repeat(kinds.indices.to_numpy(), rows))
    extra = {
        "offset": pa.array(np.arange(ends[-1] if found else 0) + np.repeat(base - (ends - rows), rows)),
        "partition": pa.repeat(pa.scalar(partition, pa.int32()), len(codes)),
        "epoch": pa.array(np.repeat(epoch, rows)),
        "base": pa.array(np.repeat(base, rows)),
        "kind": pa.DictionaryArray.from_arrays(codes, kinds.dictionary).cast(pa.string()),
    }
    table = pa.Table.from_batches([entry.batch for entry in found], schema)
    for name, column in extra.items():
        table = table.append_column(pa.field(name, column.type, nullable=False), column)
    return table

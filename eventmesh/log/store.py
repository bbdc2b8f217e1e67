"""The log: all partitions in one data directory, written by one process and read by any number.

Acknowledged means, per :class:`Durability`: ``memory`` and ``os`` when ``append`` returns, ``fsync`` when
the ``sync`` after it returns. Not thread-safe: a runtime that has threads brings its own lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from eventmesh.errors import CorruptSegment, DataDirectoryError, LogStopped, NotFound
from eventmesh.log.batch import LogBatch
from eventmesh.log.manifest import MANIFEST, Manifest, check_home, gone_on_with, read_manifest
from eventmesh.log.partition import Durability, Grant, granted
from eventmesh.log.partition_files import PartitionFiles, RecentBatches, as_table
from eventmesh.log.retention import Deleted
from eventmesh.log.segment import LoadedIndexes, crc32c
from eventmesh.log.storage import FileStorage, Storage
from eventmesh.log.topic import Topic
from eventmesh.progress import split_position

__all__ = [
    "Deleted",
    "Durability",
    "Finding",
    "Grant",
    "Log",
    "LogReader",
    "check_directory",
    "open_read_only",
    "read_stored",
    "read_table",
    "read_topics",
    "verify",
]

RECENT_BYTES_MAX = 32 << 20
#: Bytes of closed segments' indexes that stay in memory, at 28 bytes per batch.
LOADED_BYTES_MAX = 64 << 20
#: A counter that outlives the process, as the page cache does: 1 says that the cache is not to be believed.
SYNC_FAILED = "sync_failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What :func:`verify` found in one partition; ``damage`` is None where every checksum holds."""

    topic: str
    partition: int
    start: int
    watermark: int
    batches: int
    bytes: int
    damage: CorruptSegment | None


class LogReader:
    """Reads a data directory beside its writer, or without one; takes no lock and writes nothing.

    Each call sees what the writer has published by then. After the machine died and before a writer has
    opened the directory again, it shows at most what the surviving watermark covers.
    """

    def __init__(self, storage: Storage, topics: Mapping[str, Topic], recent_bytes_max: int = 0) -> None:
        self.topics: dict[str, Topic] = dict(topics)
        self._storage = storage
        recent, loaded = RecentBatches(recent_bytes_max), LoadedIndexes(LOADED_BYTES_MAX)
        self._partitions = {
            (topic.name, number): PartitionFiles(storage, topic, number, recent, loaded)
            for topic in self.topics.values()
            for number in range(topic.partitions)
        }

    @classmethod
    def of(cls, storage: Storage) -> LogReader:
        """A reader of all topics in the manifest; ``DataDirectoryError`` if there is none."""
        manifest = read_manifest(storage)
        if manifest is None:
            raise DataDirectoryError("this is no data directory: it has no manifest")
        return LogReader(storage, manifest.topics)

    def _files(self, topic: str, partition: int) -> PartitionFiles:
        files = self._partition(topic, partition)
        try:
            files.follow()
        except CorruptSegment as error:
            self._check_not_grown(topic, error)
            raise
        return files

    def _check_not_grown(self, topic: str, error: CorruptSegment) -> None:
        """A segment with columns that this reader has never heard of is no damage: the topic has grown meanwhile."""
        self._storage.release(MANIFEST)  # another file is in its place, if so
        manifest = read_manifest(self._storage)
        known, found = self.topics[topic], manifest.topics.get(topic) if manifest is not None else None
        if found is not None and found.version > known.version:
            raise DataDirectoryError(
                f"{topic} has version {found.version} of its columns by now, and version {known.version} when this "
                f"reader began: open the directory again"
            ) from error

    def _partition(self, topic: str, partition: int) -> PartitionFiles:
        try:
            return self._partitions[topic, partition]
        except KeyError:
            known = ", ".join(sorted(self.topics))
            raise NotFound(f"there is no partition {topic}/{partition}; the topics are {known}") from None

    def read(self, topic: str, partition: int, offset: int, max_bytes: int = 1 << 20) -> list[LogBatch]:
        """Whole batches below the watermark, the first of which contains ``offset``; ``[]`` at the watermark.

        At least one batch if there is any, then as many as fit ``max_bytes``. ``OffsetOutOfRange`` below
        the start or above the watermark; ``LogTruncated`` inside a gap (at its start: the record of the
        gap, since a reader there has seen nothing that was lost); ``CorruptSegment`` on a bad checksum.
        """
        return self._files(topic, partition).read(offset, max_bytes)

    def start(self, topic: str, partition: int) -> int:
        """The lowest offset that can be read."""
        return self._files(topic, partition).start

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next append must expect; above the watermark where a sync is owed."""
        return self._files(topic, partition).rules.end

    def watermark(self, topic: str, partition: int) -> int:
        """The offset below which batches are shown."""
        return self._files(topic, partition).watermark

    def seen(self, topic: str, partition: int) -> int:
        """The watermark as the last call that looked found it."""
        return self._partition(topic, partition).watermark

    def batches(self, topic: str, partition: int) -> Iterator[LogBatch]:
        """Every visible batch in offset order, control records included; gaps are passed over."""
        return self._files(topic, partition).read_all()

    def table(self, topic: str, partition: int) -> pa.Table:
        """All visible rows, with ``offset, partition, epoch, base, kind`` behind the topic's own columns."""
        return as_table(self.batches(topic, partition), partition, self.topics[topic].schema)

    def make_durable(self, topic: str, partition: int) -> None:
        """Make everything visible survive the machine, also beside the writer and at level ``os``."""
        self._files(topic, partition).active.sync()

    def verify(self) -> list[Finding]:
        """Check all stored bytes against their checksums, one finding per partition."""
        return [self._verify(topic, partition) for topic, partition in sorted(self._partitions)]

    def _verify(self, topic: str, partition: int) -> Finding:
        files = self._partition(topic, partition)
        batches, size, damage = 0, 0, None
        try:
            self._files(topic, partition)
            batches, size = files.verify()
        except CorruptSegment as error:
            damage = error
        start = files.start if files.segments else 0
        return Finding(topic, partition, start, files.watermark, batches, size, damage)

    def close(self) -> None:
        """Let go of all files."""
        self._storage.close()


class Log(LogReader):
    """The writer of a data directory: grants epochs, appends, syncs."""

    def __init__(
        self,
        storage: Storage,
        topics: Mapping[str, Topic],
        durability: Durability,
        clock: Callable[[], int],
        recent_bytes_max: int,
    ) -> None:
        super().__init__(storage, topics, recent_bytes_max)
        self.durability = durability
        self._clock = clock
        self._stopped = ""
        self._sync_failed = storage.counter(SYNC_FAILED)

    @classmethod
    def open(
        cls,
        storage: Storage,
        topics: Mapping[str, Topic],
        *,
        durability: Durability,
        cluster_id: str,
        node: str,
        clock: Callable[[], int],
        recent_bytes_max: int = RECENT_BYTES_MAX,
    ) -> Log:
        """Recover every partition that the manifest names, create the new ones, and go on.

        Columns that have grown are the next version of their topic: it is registered first, then each
        partition ends its segment (rule 18).

        ``clock`` gives microseconds since the epoch; ``node`` names the machine, in any way that tells it
        from all others. ``DataDirectoryError`` for another cluster, node, format or topic than asked for,
        ``CorruptSegment`` for rot. Dying in here changes nothing that was owed:
        the manifest is replaced last, and until then the next opening recovers the same way.
        """
        manifest = read_manifest(storage)
        log = cls(storage, _all_topics(manifest, topics, cluster_id, node), durability, clock, recent_bytes_max)
        with log._stopping():
            log._register(manifest)
            log._recover(manifest)
            written = Manifest(cluster_id, node, storage.boot_id, durability, log.topics).to_bytes()
            if storage.read(MANIFEST, 0, storage.size(MANIFEST)).to_pybytes() != written:
                storage.replace(MANIFEST, written)
        log._sync_failed.set(0)
        return log

    def _register(self, manifest: Manifest | None) -> None:
        """Write new versions of columns down before anything has them; the rest of the manifest stays what it was."""
        if manifest is None:
            return
        grown = {
            name: replace(stored, schema=self.topics[name].schema, earlier=self.topics[name].earlier)
            for name, stored in manifest.topics.items()
        }
        if any(topic.version > manifest.topics[name].version for name, topic in grown.items()):
            self._storage.replace(MANIFEST, replace(manifest, topics=grown).to_bytes())

    def _recover(self, manifest: Manifest | None) -> None:
        known = manifest.topics if manifest is not None else {}
        boot, level = (manifest.boot_id, manifest.durability) if manifest is not None else ("", self.durability)
        same_boot = bool(boot) and boot == self._storage.boot_id
        sync_failed = bool(self._sync_failed.get())
        for (topic, _), files in self._partitions.items():
            if topic in known:
                files.recover(same_boot=same_boot, level=level, sync_failed=sync_failed, clock=self._clock)
            else:
                files.create()
            if self.durability is Durability.fsync:
                files.settle()

    def _files(self, topic: str, partition: int) -> PartitionFiles:
        return self._partition(topic, partition)

    def grant(self, topic: str, partition: int, service: str, incarnation: str, code: str = "") -> Grant:
        """Give ``incarnation`` of the owning ``service`` the next epoch: synced at every level.

        ``code`` is written down with it: which application's files the incarnation runs.
        From here on every older incarnation is fenced. ``NotOwner``, ``StorageFull``, ``LogStopped``.
        """
        files = self._writable(topic, partition)
        rules = files.rules
        rules.check_owner(service)
        entry = granted(
            rules.topic, partition, base=rules.end, epoch=rules.epoch + 1, incarnation=incarnation,
            time=self._clock(), code=code,
        )  # fmt: skip
        with self._stopping():
            self._append(files, entry, crc32c(entry.message))
            files.sync()
        return Grant(rules.epoch, rules.end)

    def append(self, topic: str, partition: int, entry: LogBatch) -> int:
        """Append at the offset that the header names; the new end offset.

        An identical repeat of the last append is acknowledged again. Everything in the ``AppendRefused``
        family means that nothing was appended.
        """
        files = self._writable(topic, partition)
        checksum = crc32c(entry.message)
        acknowledged = files.rules.verdict(entry, checksum)
        if acknowledged is not None:
            return acknowledged
        with self._stopping():
            self._append(files, entry, checksum)
        if self.durability is not Durability.fsync:
            files.publish()
        return files.rules.end

    def _append(self, files: PartitionFiles, entry: LogBatch, checksum: int) -> None:
        files.append(entry, checksum, reserve=self.durability is not Durability.fsync)

    def owed(self) -> dict[str, int]:
        """The ends, by ``topic/partition``, of what was appended and is not shown yet: level fsync owes it a sync."""
        return {files.name: files.rules.end for files in self._partitions.values() if files.dirty}

    def flush(self, ends: Mapping[str, int]) -> None:
        """Make the files of these partitions durable, as they are now; :meth:`show` then shows what that covers.

        ``LogStopped`` if the disk fails: what this should have covered may be lost, and the log accepts nothing until
        it is opened again.
        """
        self._check_running()
        with self._stopping():
            for name in ends:
                self._partition(*split_position(name)).active.sync()

    def show(self, ends: Mapping[str, int]) -> None:
        """Show these partitions up to these ends, which a :meth:`flush` begun at them has made durable (rule 23)."""
        for name, end in ends.items():
            self._partition(*split_position(name)).publish(end)

    def sync(self) -> None:
        """Flush and show all that is owed: a sync during which nothing is appended."""
        ends = self.owed()
        self.flush(ends)
        self.show(ends)

    def vectors(self) -> dict[str, Mapping[str, Any]]:
        """How far each partition's owner has read, by ``topic/partition``: what its newest visible append carries.

        :meth:`Progress.to_json`'s form; empty where the owner has appended nothing yet.
        """
        return {files.name: files.vector for files in self._partitions.values()}

    def retain(
        self, now: int, floors: Mapping[str, int], *, overrides: Mapping[str, str] | None = None
    ) -> list[Deleted]:
        """Delete whole closed segments that their topic's retention lets go; what went, by partition.

        ``now`` in microseconds; a segment's age is that of its last append. ``floors`` gives, by
        ``topic/partition``, the lowest offset that a registered reader or the owner's snapshot still needs:
        nothing at or above it is deleted, and nothing of a partition without one. ``overrides`` names
        partitions whose floor does not count, each with a reason, which is recorded in the partition first.
        The newest vector and the newest grant always stay.
        """
        reasons = overrides or {}
        names = sorted({*floors, *reasons})
        return [deleted for name in names if (deleted := self._retain(name, now, floors.get(name), reasons.get(name)))]

    def _retain(self, name: str, now: int, floor: int | None, reason: str | None) -> Deleted | None:
        files = self._writable(*split_position(name))
        with self._stopping():
            if floor is None:
                floor = files.start
            start = files.retain(now, floor if reason is None else files.watermark)
            if start == files.start:
                return None
            if reason is None or start <= floor:
                return files.delete_below(start)
            reserve = self.durability is not Durability.fsync
            files.override(reason=reason, floor=floor, deleted_to=start, time=now, reserve=reserve)
            return replace(files.delete_below(start), overrode=floor)

    def _writable(self, topic: str, partition: int) -> PartitionFiles:
        self._check_running()
        return self._partition(topic, partition)

    def _check_running(self) -> None:
        if self._stopped:
            raise LogStopped(f"the log stopped: {self._stopped}. Open it again; it keeps what was acknowledged")

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """After a failed write or sync there is no retry: the kernel may have dropped the very pages."""
        try:
            yield
        except OSError as error:
            self._stopped = str(error)
            self._sync_failed.set(1)
            raise LogStopped(f"the disk failed: {error}. Open the log again; it keeps what was acknowledged") from error

    def close(self) -> None:
        """Sync everything, so that the next opening finds no gap even after a restart of the machine."""
        if not self._stopped:
            with self._stopping():
                for files in self._partitions.values():
                    files.sync()
                    files.settle()
        self._storage.close()


def _all_topics(
    manifest: Manifest | None, topics: Mapping[str, Topic], cluster_id: str, node: str
) -> Mapping[str, Topic]:
    if manifest is None:
        return topics
    check_home(manifest, cluster_id, node)
    return {**manifest.topics, **gone_on_with(manifest.topics, topics)}


def open_read_only(directory: Path | str) -> LogReader:
    """A reader of the data directory, for audits and readers on the writer's node."""
    return LogReader.of(FileStorage(directory, read_only=True))


def read_stored(directory: Path | str) -> Manifest | None:
    """What the directory says of itself; None where there is no log yet, or no directory."""
    return read_manifest(FileStorage(directory, read_only=True))


def check_directory(directory: Path | str, topics: Mapping[str, Topic], node: str) -> Manifest | None:
    """What the log that lies there says of itself; None where none does yet.

    Raises ``DataDirectoryError`` as :meth:`Log.open` would, before anything is started: the directory is in use, of
    another node or format, or holds other topics of these names.
    """
    storage = FileStorage(directory)  # takes the lock, if nobody has it
    try:
        manifest = read_manifest(storage)
        if manifest is not None:
            _all_topics(manifest, topics, manifest.cluster_id, node)
        return manifest
    finally:
        storage.close()


def read_topics(directory: Path | str) -> dict[str, Topic]:
    """The topics that the directory's manifest names."""
    return dict(open_read_only(directory).topics)


def read_table(directory: Path | str, topic: str, partition: int) -> pa.Table:
    """All visible rows of a partition; see :meth:`LogReader.table`."""
    return open_read_only(directory).table(topic, partition)


def verify(directory: Path | str) -> list[Finding]:
    """Check a data directory; see :meth:`LogReader.verify`."""
    return open_read_only(directory).verify()

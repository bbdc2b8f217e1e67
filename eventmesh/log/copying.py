"""A log as it stood at one moment, beside its writer, and a log of its own made of such a copy: for backups.

Facts name offsets of other partitions, and follow from answers that no vector names. So the ends of all partitions must
be those of one instant: then whatever a fact in the copy rests on is in the copy, too. Each watermark only ever rises;
where two looks at all of them find the same, every one stood there between the looks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from eventmesh.errors import CorruptSegment, DataDirectoryError, EnvironmentUnavailable
from eventmesh.log.durable_number import DurableNumber
from eventmesh.log.manifest import MANIFEST, Manifest, read_manifest
from eventmesh.log.partition_files import PartitionFiles, RecentBatches
from eventmesh.log.segment import END_OF_STREAM, LoadedIndexes, Segment
from eventmesh.log.storage import FileStorage
from eventmesh.log.store import LOADED_BYTES_MAX
from eventmesh.progress import position_name

#: Pairs of looks at the watermarks of which one must agree: a look takes microseconds, and appends are further apart.
LOOKS_MAX = 100_000
#: Files that are held: what a machine lets one process map, less what it needs besides.
HELD_MAX = 50_000
CHUNK = 1 << 20


@dataclass(frozen=True)
class CopiedFile:
    """A file of a copy: its path below the log's directory, its size, and its bytes, checked as they are read."""

    path: str
    size: int
    chunks: Iterator[bytes]


class Moment:
    """The log in ``directory`` at one moment. ``ends`` and ``starts`` give the offsets of each ``topic/partition``.

    What retention deletes from then on stays readable here until :meth:`close`. ``DataDirectoryError`` where no log
    lies, ``EnvironmentUnavailable`` where the log does not stand still for long enough.
    """

    def __init__(self, directory: Path) -> None:
        self._storage = FileStorage(directory, read_only=True, maps_max=HELD_MAX)
        manifest = read_manifest(self._storage)
        if manifest is None:
            raise DataDirectoryError(f"{directory} is no log: it has no manifest")
        self.manifest: Manifest = manifest
        recent, loaded = RecentBatches(0), LoadedIndexes(LOADED_BYTES_MAX)
        self._files = {
            position_name(topic.name, number): PartitionFiles(self._storage, topic, number, recent, loaded)
            for topic in manifest.topics.values()
            for number in range(topic.partitions)
        }
        self.ends = self._held()
        self.starts = {name: files.start for name, files in self._files.items()}

    def _held(self) -> dict[str, int]:
        """Where every partition ends at one instant; its files are held, and none that is needed went before."""
        for _ in range(LOOKS_MAX):
            ends = self._look()
            if ends == self._look() and all(files.hold() for files in self._follow()):
                return ends
        raise EnvironmentUnavailable(
            f"{self._storage.directory}: the log was never still for the moment that a copy needs. Try again"
        )

    def _look(self) -> dict[str, int]:
        return {name: files.published() for name, files in self._files.items()}

    def _follow(self) -> Iterator[PartitionFiles]:
        for files in self._files.values():
            files.follow()
            yield files

    def files(self) -> Iterator[CopiedFile]:
        """Every file of the copy, the manifest first. Raises :class:`CorruptSegment` at damage."""
        manifest = self.manifest.to_bytes()
        yield CopiedFile(MANIFEST, len(manifest), iter([manifest]))
        for name, files in self._files.items():
            for segment, count, closed in files.below(self.ends[name]):
                yield from self._segment(segment, count, closed=closed)

    @property
    def size(self) -> int:
        """About how many bytes the files have."""
        pieces = (piece for name, files in self._files.items() for piece in files.below(self.ends[name]))
        return sum(sum(segment.sizes(count)) for segment, count, _ in pieces)

    def _segment(self, segment: Segment, count: int, *, closed: bool) -> Iterator[CopiedFile]:
        data, index = segment.sizes(count)
        ending = END_OF_STREAM if closed else b""
        yield CopiedFile(segment.data_path, data + len(ending), self._data(segment, count, data, ending))
        yield CopiedFile(segment.index_path, index, self._chunks(segment.index_path, 0, index))

    def _data(self, segment: Segment, count: int, size: int, ending: bytes) -> Iterator[bytes]:
        begins = segment.positions[0] if count else size
        yield from self._chunks(segment.data_path, 0, begins)
        for number in range(count):
            yield segment.message(number).to_pybytes()
        if ending:
            yield ending

    def _chunks(self, path: str, at: int, size: int) -> Iterator[bytes]:
        while at < size:
            chunk = self._storage.read(path, at, min(CHUNK, size - at)).to_pybytes()
            if not chunk:
                raise CorruptSegment(path, 0, at, f"it ends there, {size} bytes were expected")
            at += len(chunk)
            yield chunk

    def close(self) -> None:
        """Let go of all files."""
        self._storage.close()


def settle(directory: Path, ends: Mapping[str, int], *, cluster_id: str, node: str) -> None:
    """Make a log of its own of copied files: what is derived is written, and the manifest names another home.

    The copy was written and synced as a whole, so that no start of the machine can have taken anything from it: its
    manifest names none, and no offset above its ends is reserved.
    """
    storage = FileStorage(directory)
    try:
        manifest = read_manifest(storage)
        if manifest is None:
            raise DataDirectoryError("the copy has no manifest")
        for name, end in ends.items():
            starts = [int(path.rpartition("/")[2].partition(".")[0]) for path in storage.list(name)]
            storage.replace(f"{name}/watermark", struct.pack("<q", end))
            storage.replace(f"{name}/published_start", struct.pack("<q", min(starts)))
            DurableNumber(storage, f"{name}/start", 0).write(min(starts))
            DurableNumber(storage, f"{name}/reservation", 1).write(end + 1)
        storage.replace(MANIFEST, replace(manifest, cluster_id=cluster_id, node=node, boot_id="").to_bytes())
    finally:
        storage.close()

"""Takes snapshots beside the work: folds what the log holds beyond the last ones, and writes new ones. No threads.

It reads the log as any reader on its node does, so that the services know nothing of it: state that is not
acknowledged yet it never sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from eventmesh.log.batch import LogBatch
from eventmesh.log.store import LogReader
from eventmesh.mesh import Mesh
from eventmesh.progress import position_name, split_position
from eventmesh.runtime.limits import Counters
from eventmesh.runtime.partition_state import PartitionState
from eventmesh.runtime.snapshots import (
    Snapshot,
    SnapshotStore,
    encode_view,
    restore_view,
    state_fold,
    state_name,
    view_fold,
    view_header,
    view_name,
)

READ_BYTES = 4 << 20
#: A snapshot as large as this many bytes per row of the tail would cost more to write than the tail to fold.
BYTES_PER_ROW = 128


@dataclass(frozen=True)
class Subject:
    """What a snapshot is taken of: its name, the name of its fold, the partitions that it folds, and how."""

    name: str
    fold: str
    partitions: tuple[str, ...]
    take: Callable[[Snapshot | None], Snapshot]


class Snapshotter:
    """Of every partition of a running service, and of every view of each service. ``rows``: see the mesh's ``log``."""

    def __init__(
        self, mesh: Mesh, reader: LogReader, store: SnapshotStore, *, cluster_id: str, rows: int,
        clock: Callable[[], int],
    ) -> None:  # fmt: skip
        self.mesh, self.topics = mesh, mesh.topics()
        self._schemas = {name: topic.schema for name, topic in self.topics.items()}
        self._reader, self._store, self._cluster_id, self._rows, self._clock = reader, store, cluster_id, rows, clock
        self._subjects = [*self._states(), *self._views()]

    def _states(self) -> Iterator[Subject]:
        for topic in self.topics.values():
            for number in range(topic.partitions) if topic.owner in self.mesh.services else ():
                fold = state_fold(self.mesh.application.SERVICES[topic.owner])
                yield Subject(
                    state_name(topic.name, number), fold, (position_name(topic.name, number),),
                    lambda last, service=topic.owner, number=number: self._state(service, number, last),  # type: ignore[misc]
                )  # fmt: skip

    def _views(self) -> Iterator[Subject]:
        for service, section in self.mesh.services.items():
            for view, topics in section.views.items():
                fold = view_fold(self.mesh.view(service, view))
                yield Subject(
                    view_name(service, view), fold, tuple(self.mesh.positions(topics)),
                    lambda last, service=service, view=view: self._view(service, view, last),  # type: ignore[misc]
                )  # fmt: skip

    def take_due(self) -> list[str]:
        """Take those whose tail has grown long enough; their names. What is taken survives the machine."""
        return [subject.name for subject in self._subjects if self._is_due(subject) and self._take(subject)]

    def _is_due(self, subject: Subject) -> bool:
        header, size = self._store.header(subject.name), self._store.size(subject.name)
        ours = header is not None and (header.cluster_id, header.fold) == (self._cluster_id, subject.fold)
        folded = header.next if header is not None and ours else {}
        tail = sum(self._reader.watermark(*split_position(name)) - folded.get(name, 0) for name in subject.partitions)
        return tail >= max(self._rows, size // BYTES_PER_ROW)

    def _take(self, subject: Subject) -> bool:
        last = self._store.get(subject.name, self._reader, self._cluster_id)
        if last is not None and last.header.fold != subject.fold:
            last = None  # another fold cannot go on with it
        if last is None and any(self._reader.start(*split_position(name)) for name in subject.partitions):
            return False  # what it would have to begin with is deleted
        taken = subject.take(last)
        snapshot = Snapshot(msgspec.structs.replace(taken.header, code=self.mesh.code), taken.body)
        # A snapshot of what the machine's death may take back would stand beyond the log's end.
        for name in subject.partitions:
            self._reader.make_durable(*split_position(name))
        self._store.put(snapshot)
        return True

    # --- folding --------------------------------------------------------------------------------

    def _state(self, service: str, number: int, last: Snapshot | None) -> Snapshot:
        topic = self.topics[self.mesh.topic_of(service)]
        own = PartitionState(self.mesh.folding(service, number), topic, clock=self._clock, counters=Counters())
        end = own.restore(last) if last is not None else 0
        epoch = last.header.epoch if last is not None else -1
        for entry in self._batches(topic.name, number, end):
            own.fold(entry)
            end, epoch = entry.header.end, entry.header.epoch
        return own.snapshot(self._cluster_id, end, epoch)

    def _view(self, service: str, name: str, last: Snapshot | None) -> Snapshot:
        view = self.mesh.view(service, name)
        if last is not None:
            restore_view(view, last, self._schemas)
        for position in self.mesh.positions(view.topics):
            topic, number = split_position(position)
            for entry in self._batches(topic, number, view.next.get(position, 0)):
                view.fold(topic, number, entry)
        header = view_header(view, service, self._cluster_id, self._clock())
        return Snapshot(header, encode_view(view, self._schemas))

    def _batches(self, topic: str, partition: int, offset: int) -> Iterator[LogBatch]:
        """From ``offset`` to where the partition ends now."""
        end = self._reader.watermark(topic, partition)
        while offset < end:
            for entry in self._reader.read(topic, partition, offset, READ_BYTES):
                yield entry
                offset = entry.header.end

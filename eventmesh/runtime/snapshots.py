"""Snapshots: what a log adds up to at given offsets, so that a restart folds the tail alone. No clock, no threads.

There is one of each partition's state and one of each view. Nothing rests on them but retention, which deletes no fact
that a restart from the newest snapshots would read: without them, a log that still begins at 0 is folded from there.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import pyarrow as pa

from eventmesh.errors import LogTruncated, NotFound, OffsetOutOfRange
from eventmesh.log.evolution import widened
from eventmesh.log.segment import crc32c
from eventmesh.log.storage import Storage
from eventmesh.log.store import LogReader
from eventmesh.mesh import Mesh
from eventmesh.messages import decode_column, encode_columns
from eventmesh.progress import position_name, split_position
from eventmesh.service import Service
from eventmesh.states import state_type
from eventmesh.views import View

#: Where they are in a data directory; no topic's name begins with a dot.
FOLDER = ".snapshots"
MAGIC = b"eventmesh.snapshot/1\n"
_SIZES = struct.Struct("<II")  # crc32c of all that follows it, bytes of the header


class SnapshotHeader(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a snapshot is of. ``next`` gives, by ``topic/partition``, the offset behind the last that is folded in.

    ``fold`` names the fold that made it: another one cannot go on with it. ``code`` says which application's files it
    was taken with, and nothing follows from that. The rest is of a state (the epoch and the vector of its newest
    append, the commands refused on record) or of a view (the time of its newest fact; by ``topic/partition``, too,
    where several partitions speak of one key).
    """

    name: str
    cluster_id: str
    fold: str
    next: dict[str, int]
    taken_at: int
    epoch: int = -1
    progress: dict[str, Any] = {}
    refusals: dict[str, str] = {}
    timers: dict[str, Any] = {}
    applied_time: int = 0
    applied_times: dict[str, int] = {}
    code: str = ""


class Snapshot(msgspec.Struct, frozen=True):
    """A header, and the state as MessagePack or the view's tables as Arrow IPC streams."""

    header: SnapshotHeader
    body: bytes

    def to_bytes(self) -> bytes:
        """As it lies in its file: checked as a whole."""
        header = msgspec.json.encode(self.header)
        rest = len(header).to_bytes(4, "little") + header + self.body
        return MAGIC + crc32c(rest).to_bytes(4, "little") + rest

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot | None:
        """The reverse; None where the bytes are not those that were written."""
        at = len(MAGIC) + _SIZES.size
        if len(data) < at or not data.startswith(MAGIC):
            return None
        checksum, size = _SIZES.unpack(data[len(MAGIC) : at])
        if crc32c(data[len(MAGIC) + 4 :]) != checksum:
            return None
        return cls(msgspec.json.decode(data[at : at + size], type=SnapshotHeader), data[at + size :])


#: Gives the newest snapshot of this name that the log still goes on from, None if there is none; raises
#: :class:`~eventmesh.errors.PeerLost` where nobody can tell.
LoadSnapshot = Callable[[str], Snapshot | None]


def no_snapshots(name: str) -> Snapshot | None:
    """A log that keeps none."""
    return None


def state_name(topic: str, partition: int) -> str:
    """What the snapshot of a partition's state is called."""
    return f"state/{position_name(topic, partition)}"


def view_name(service: str, view: str) -> str:
    """What the snapshot of a service's view is called; it holds for all instances."""
    return f"view/{service}/{view}"


# --- what a state and a view become ----------------------------------------------------------------


def state_fold(service: type[Service]) -> str:
    """Names the fold of a service's state."""
    return f"{service.__module__}.{service.__qualname__}/{service.state_version}"


def encode_state(state: Any) -> bytes:
    """Dataclasses, mappings, lists, tuples, sets and scalars as MessagePack."""
    return msgspec.msgpack.encode(state)


def decode_state(service: Service, body: bytes) -> Any:
    """The reverse, for the type that ``service.initial`` says it returns."""
    return msgspec.msgpack.decode(body, type=state_type(type(service)))


def view_fold(view: View) -> str:
    """Names the fold of a view: all that its shape says, and whose facts it adds up in which order."""
    return repr((view.shape, view.topics, *((view.spread,) if view.spread else ())))


def view_header(view: View, service: str, cluster_id: str, taken_at: int) -> SnapshotHeader:
    """What a snapshot of a view says of where it stands."""
    return SnapshotHeader(
        view_name(service, view.name), cluster_id, view_fold(view), dict(view.next), taken_at,
        applied_time=view.applied_time, applied_times=dict(view.applied_times),
    )  # fmt: skip


def encode_view(view: View, schemas: Mapping[str, pa.Schema]) -> bytes:
    """A view's tables, each as an Arrow IPC stream of its own: key, version, and what is kept of each key."""
    sink = pa.BufferOutputStream()
    for topic in view.topics:
        schema = pa.schema(view.fields(topic, schemas[topic]))
        batch = pa.RecordBatch.from_arrays(encode_columns(view.columns(topic), schema), schema=schema)
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def restore_view(view: View, snapshot: Snapshot, schemas: Mapping[str, pa.Schema]) -> None:
    """Put a view where its snapshot stands. Columns that have grown since are read as those of the log are."""
    source, header = pa.BufferReader(snapshot.body), snapshot.header
    for topic in view.topics:
        with pa.ipc.open_stream(source) as reader:
            table = reader.read_all().combine_chunks()
        [batch] = table.to_batches() or [pa.RecordBatch.from_pylist([], table.schema)]
        types = pa.schema(view.fields(topic, schemas[topic])).types
        columns = [widened(column, kind) for column, kind in zip(batch.columns, types, strict=True)]
        view.restore(topic, [decode_column(column) for column in columns])
    view.next, view.applied_time = dict(header.next), header.applied_time
    view.applied_times = dict(header.applied_times)


# --- where they are kept ---------------------------------------------------------------------------


class SnapshotStore:
    """The newest snapshot of each name, a file each below ``folder`` of ``storage``, replaced as a whole."""

    def __init__(self, storage: Storage, folder: str = "") -> None:
        self._storage, self._folder = storage, folder

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}.snapshot".lstrip("/")

    def put(self, snapshot: Snapshot) -> None:
        """Durable when this returns; a death in between leaves the one before."""
        self._storage.replace(self._path(snapshot.header.name), snapshot.to_bytes())

    def size(self, name: str) -> int:
        """Bytes of the file; 0 where there is none."""
        return self._storage.size(self._path(name))

    def load(self, name: str, cluster_id: str) -> Snapshot | None:
        """The snapshot of this name, if it is whole, and of this log."""
        path = self._path(name)
        self._storage.release(path)  # another process may have put another file in its place
        snapshot = Snapshot.from_bytes(self._storage.read(path, 0, self._storage.size(path)).to_pybytes())
        return snapshot if snapshot is not None and snapshot.header.cluster_id == cluster_id else None

    def get(self, name: str, reader: LogReader, cluster_id: str) -> Snapshot | None:
        """The same, if the log goes on from where it stands."""
        snapshot = self.load(name, cluster_id)
        return snapshot if snapshot is not None and goes_on(reader, snapshot.header) else None

    def header(self, name: str) -> SnapshotHeader | None:
        """Its header alone, unchecked: how far it has got."""
        path, at = self._path(name), len(MAGIC) + _SIZES.size
        self._storage.release(path)
        begins = self._storage.read(path, 0, at).to_pybytes()
        if len(begins) < at or not begins.startswith(MAGIC):
            return None
        _, size = _SIZES.unpack(begins[len(MAGIC) :])
        return msgspec.json.decode(self._storage.read(path, at, size).to_pybytes(), type=SnapshotHeader)


def goes_on(reader: LogReader, header: SnapshotHeader) -> bool:
    """Whether the log can be read from where the snapshot stands: a machine that died may have lost what it holds."""
    try:
        for name, offset in header.next.items():
            reader.read(*split_position(name), offset, 1)
    except (LogTruncated, OffsetOutOfRange, NotFound):
        return False
    return True


# --- what retention must leave ---------------------------------------------------------------------


class Floors:
    """By ``topic/partition``, the offset below which nobody reads any more, whatever is started again.

    An owner reads its own facts from its snapshot on, its inputs from that snapshot's vector on, and its views from
    theirs. What has no snapshot yet needs everything, and so does an owner that does not run. A snapshot counts when it
    is ``grace_us`` old: a reader that began before it was taken has passed it by then.
    """

    def __init__(self, mesh: Mesh, header: Callable[[str], SnapshotHeader | None], *, grace_us: int) -> None:
        self._mesh, self._header, self._grace_us = mesh, header, grace_us
        self._looks: deque[tuple[int, dict[str, int]]] = deque()

    def at(self, now: int) -> Mapping[str, int]:
        """Those that hold at ``now``, in microseconds; none before the first look is old enough."""
        self._looks.append((now, self._look()))
        while len(self._looks) > 1 and self._looks[1][0] <= now - self._grace_us:
            self._looks.popleft()
        looked_at, floors = self._looks[0]
        return floors if looked_at <= now - self._grace_us else {}

    def _look(self) -> dict[str, int]:
        lowest: dict[str, int] = {}
        for name, offset in (*self._of_states(), *self._of_views()):
            lowest[name] = min(offset, lowest.get(name, offset))
        return lowest

    def _of_states(self) -> Iterator[tuple[str, int]]:
        for topic in self._mesh.topics().values():
            for partition in range(topic.partitions):
                own, header = position_name(topic.name, partition), self._header(state_name(topic.name, partition))
                yield own, header.next[own] if header is not None else 0
                reached = header.progress.get("next", {}) if header is not None else {}
                for name in self._mesh.inputs_of(topic.owner, partition) if topic.owner in self._mesh.services else ():
                    yield name, reached.get(name, 0)

    def _of_views(self) -> Iterator[tuple[str, int]]:
        for service, section in self._mesh.services.items():
            for view, topics in section.views.items():
                header = self._header(view_name(service, view))
                for name in self._mesh.positions(topics):
                    yield name, header.next.get(name, 0) if header is not None else 0

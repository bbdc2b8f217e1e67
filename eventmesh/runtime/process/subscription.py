"""Batches of partitions, from given offsets on and in order, whichever way they come.

On the broker's own node bytes do not travel: the subscriber maps segments and watermark and reads for itself, woken by
a doorbell. Everywhere else the broker sends batches over Flight. The reader cannot tell which it got.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from eventmesh.errors import EventmeshError
from eventmesh.log.batch import LogBatch
from eventmesh.log.manifest import MANIFEST
from eventmesh.log.store import LogReader, open_read_only
from eventmesh.log.topic import Topic
from eventmesh.progress import split_position
from eventmesh.runtime.broker import DELIVERY_BYTES
from eventmesh.runtime.process.reactor import now
from eventmesh.runtime.wire import doorbell, frames, protocol
from eventmesh.runtime.wire.channel import OPEN, Access
from eventmesh.runtime.wire.connection import Connection, Lost
from eventmesh.runtime.wire.doorbell import Doorbell
from eventmesh.runtime.wire.faulty import Line, LinkFaults
from eventmesh.runtime.wire.protocol import FrameHeader

Entry = tuple[str, int, LogBatch]
#: Called with (topic, partition, batch) triples and the time they were sent, in microseconds; may block to hold back.
Deliver = Callable[[Sequence[Entry], int], None]
Failed = Callable[[EventmeshError], None]

#: Seconds that a follower sleeps at most: a ring that was lost, with its ringer for instance, is not waited for longer.
NAP_S = 1.0


@dataclass(frozen=True)
class Arrival:
    """Batches that came late, and when they were sent. ``apart``: those of a topic that is late by itself."""

    entries: Sequence[Entry]
    sent_at: int
    apart: bool = False


def _size(entries: Sequence[Entry]) -> int:
    return sum(entry.message.size for _, _, entry in entries)


class Subscription:
    """A stream of these ``topics`` from the broker at ``address``. ``deliver`` is called on a thread of its own.

    ``lost`` is called once when the stream is over, ``failed`` for each partition that cannot be read on: its offset is
    below the log start or in a gap, or its segment is damaged. With ``local`` False batches always come over Flight.
    ``link_faults`` and ``peer`` are those of its connection; what is read from the files is held up by them as well.
    Raises :class:`~eventmesh.errors.PeerLost` where nobody is at ``address``.
    """

    def __init__(
        self,
        address: str,
        topics: Mapping[str, Topic],
        deliver: Deliver,
        lost: Lost,
        *,
        failed: Failed,
        local: bool = True,
        access: Access = OPEN,
        link_faults: LinkFaults | None = None,
        peer: str = "",
    ) -> None:
        self._topics, self._handed_on, self._failed = topics, deliver, failed
        self._link_faults = link_faults or LinkFaults()
        self._late_topics: dict[str, Line[Arrival]] = {}
        self._from_files: Line[Arrival] | None = None
        self._lock = threading.Lock()
        self._follower: Follower | None = None
        self._early: list[tuple[str, int]] = []  # asked for before it was known which way batches come
        self._attached = False
        self._bell = Doorbell() if local and doorbell.available() else None
        try:
            self._connection = Connection(
                address, "subscribe", self._received, lost, access, local=local,
                link_faults=self._link_faults, peer=peer,
            )  # fmt: skip
            self._send(protocol.Attach(None if self._bell is None else self._bell.name))
        except BaseException:
            self._close_bell()
            raise

    @property
    def is_local(self) -> bool:
        """Whether it reads the files itself; False until that is known."""
        return self._follower is not None

    def subscribe(self, name: str, offset: int) -> None:
        """Deliver ``topic/partition`` from ``offset`` on; replaces an earlier one of that name."""
        with self._lock:
            if not self._attached:
                self._early.append((name, offset))
                return
        self._ask(name, offset)

    def unsubscribe(self, name: str) -> None:
        """Deliver nothing more of ``topic/partition``."""
        with self._lock:
            self._early = [early for early in self._early if early[0] != name]
        if self._follower is not None:
            self._follower.forget(name)
        self._send(protocol.Unsubscribe(name))

    def _ask(self, name: str, offset: int) -> None:
        if self._follower is not None:
            self._follower.want(name, offset)
        self._send(protocol.Subscribe(name, offset))

    def _send(self, header: FrameHeader) -> None:
        self._connection.channel.send(protocol.pack(header))

    def _received(self, header: FrameHeader, bodies: Sequence[pa.Buffer]) -> None:
        match header:
            case protocol.Attached():
                self._attach(header.home)
            case protocol.ReadFailed():
                self._failed(header.failure.error())
            case protocol.Entries():
                self._deliver(frames.unpack_entries(header, bodies, self._topics), header.sent_at)
            case _:
                raise protocol.unexpected(header, protocol.Attached, protocol.Entries, protocol.ReadFailed)

    def _attach(self, home: protocol.Home | None) -> None:
        if home is not None and self._bell is not None:
            reader = _same_files(Path(home.directory), home.manifest)
            if reader is None:
                # Its machine has our sockets and not our files: two containers of one host.
                self._send(protocol.Attach(None))
                return
            self._from_files = self._line()
            self._follower = Follower(reader, self._bell, self._read_from_files, self._failed)
        else:
            self._close_bell()
        with self._lock:
            self._attached, early = True, self._early
            self._early = []
        for name, offset in early:
            self._ask(name, offset)

    # --- faults on the way here -------------------------------------------------------------------

    def _line(self, topic: str = "") -> Line[Arrival]:
        connection = self._connection
        return Line(
            self._link_faults, connection.peer, self._link_faults.name, connection.name, self._arrived_late, topic
        )

    def _arrived_late(self, arrival: Arrival) -> None:
        try:
            if arrival.apart:
                self._handed_on(arrival.entries, arrival.sent_at)
            else:
                self._deliver(arrival.entries, arrival.sent_at)
        except Exception as error:  # a defect: unsaid, the reader would only seem to have nothing new
            self._failed(EventmeshError(f"what came late is not handed on: {type(error).__name__}: {error}"))

    def _read_from_files(self, entries: Sequence[Entry], sent_at: int) -> None:
        line = self._from_files
        assert line is not None
        if line.direct:
            self._deliver(entries, sent_at)
        else:
            with suppress(BrokenPipeError):  # it is being closed
                line.put(Arrival(entries, sent_at), _size(entries))

    def _deliver(self, entries: Sequence[Entry], sent_at: int) -> None:
        """Hand on at once, but for topics that are late."""
        if self._link_faults.on_topics:
            entries = self._on_time(entries, sent_at)
        if entries:
            self._handed_on(entries, sent_at)

    def _on_time(self, entries: Sequence[Entry], sent_at: int) -> list[Entry]:
        """Each topic that is late waits on a line of its own, in nobody's way."""
        by_topic: dict[str, list[Entry]] = {}
        for entry in entries:
            by_topic.setdefault(entry[0], []).append(entry)
        on_time: list[Entry] = []
        for topic, of_it in by_topic.items():
            line = self._late_topics.get(topic)
            if line is None:
                line = self._late_topics[topic] = self._line(topic)
            if line.direct:
                on_time += of_it
            else:
                with suppress(BrokenPipeError):
                    line.put(Arrival(of_it, sent_at, apart=True), _size(of_it))
        return on_time

    def close(self) -> None:
        """End the stream; ``lost`` is not called."""
        for line in [*self._late_topics.values(), self._from_files]:
            if line is not None:
                line.stop()
        self._connection.close()
        if self._follower is not None:
            self._follower.close()
        self._close_bell()

    def _close_bell(self) -> None:
        if self._bell is not None and self._follower is None:
            self._bell.close()
            self._bell = None


def _same_files(directory: Path, manifest: Sequence[int]) -> LogReader | None:
    """A reader of ``directory``, if it is the very directory whose manifest the broker sees as (device, inode)."""
    try:
        found = (directory / MANIFEST).stat()
    except OSError:
        return None
    return open_read_only(directory) if [found.st_dev, found.st_ino] == list(manifest) else None


class Follower:
    """The thread that reads a data directory beside its writer."""

    def __init__(self, reader: LogReader, bell: Doorbell, deliver: Deliver, failed: Failed) -> None:
        self._reader, self._bell, self._deliver, self._failed = reader, bell, deliver, failed
        self._cursors: dict[str, int] = {}
        self._lock = threading.Lock()
        self._closing = False
        self._thread = threading.Thread(target=self._follow, name="follow", daemon=True)
        self._thread.start()

    def want(self, name: str, offset: int) -> None:
        """Read ``topic/partition`` from ``offset`` on. The broker rings when it hears of it, too."""
        with self._lock:
            self._cursors[name] = offset

    def forget(self, name: str) -> None:
        """Read no more of it."""
        with self._lock:
            self._cursors.pop(name, None)

    def _follow(self) -> None:
        try:
            while not self._closing:
                self._bell.wait(NAP_S)
                while not self._closing and self._read_some():
                    pass
        except Exception as error:  # a defect: unsaid, the reader would only seem to have nothing new
            self._failed(EventmeshError(f"the log's files are not read on: {type(error).__name__}: {error}"))
        finally:
            self._bell.close()
            self._reader.close()

    def _read_some(self) -> bool:
        """Deliver what is new in every partition, up to a bound each; True where the bound left some behind.

        What is appended after this has looked rings again.
        """
        with self._lock:
            cursors = list(self._cursors.items())
        entries: list[Entry] = []
        more = False
        for name, offset in cursors:
            topic, partition = split_position(name)
            found = self._read(name, topic, partition, offset)
            if found and self._advance(name, offset, end := found[-1].header.end):
                entries += [(topic, partition, entry) for entry in found]
                more = more or end < self._reader.seen(topic, partition)
        if entries:
            self._deliver(entries, now())
        return more

    def _read(self, name: str, topic: str, partition: int, offset: int) -> list[LogBatch]:
        try:
            return self._reader.read(topic, partition, offset, DELIVERY_BYTES)
        except EventmeshError as error:
            self.forget(name)
            self._failed(error)
            return []

    def _advance(self, name: str, offset: int, end: int) -> bool:
        with self._lock:
            if self._cursors.get(name) != offset:
                return False  # subscribed anew meanwhile
            self._cursors[name] = end
            return True

    def close(self) -> None:
        """End the thread."""
        self._closing = True
        self._bell.ring()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=2 * NAP_S)

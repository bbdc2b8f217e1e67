"""The log's client: what a service, a producer or a reader asks of the log, and what it is told.

A client knows neither files nor streams. It is told when there is a connection, and then asks for what it reads from
where it broke off; it is told when a connection is lost, and then everything that it had asked for on it may have
happened. :class:`BrokerBackbone` is the one that finds a broker and speaks with it.
"""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, get_args

import pyarrow as pa
import pyarrow.flight as flight

from eventmesh.errors import EventmeshError, InputError, PeerLost, ProtocolError, Unauthenticated
from eventmesh.log.batch import LogBatch
from eventmesh.log.topic import Topic
from eventmesh.progress import position_name
from eventmesh.runtime.effects import BrokerAnswer
from eventmesh.runtime.process import snapshot_transfer
from eventmesh.runtime.process.directory import BROKER, peer_name
from eventmesh.runtime.process.reactor import now
from eventmesh.runtime.process.subscription import Deliver, Entry, Failed, Subscription
from eventmesh.runtime.snapshots import Snapshot
from eventmesh.runtime.wire import frames, protocol
from eventmesh.runtime.wire.channel import GONE, OPEN, Access, Channel
from eventmesh.runtime.wire.connection import Connection, Lost
from eventmesh.runtime.wire.faulty import LinkFaults
from eventmesh.runtime.wire.flight import call_options, connect, first_line
from eventmesh.runtime.wire.link import Link, Once
from eventmesh.runtime.wire.protocol import Frame, FrameHeader

#: Seconds that the broker has to say where its partitions end.
ENDS_S = 20.0
#: Deliveries that wait for who follows a log at most.
ARRIVED_MAX = 16
_BROKER = peer_name(BROKER)


def _nothing(*what: object) -> None:
    """Who does not ask for it need not hear of it."""


@dataclass(frozen=True)
class Callbacks:
    """What a client is told, on threads of the backbone.

    ``up``: there is a connection, the first or another one; nothing is subscribed to on it yet. ``lost``: there is none
    any more, or nothing could be sent. ``answered``: a broker's answer and when it was sent, in microseconds.
    ``delivered``: batches and when they were sent; it may block to hold back. ``cannot_read``: a partition is not read
    on. ``refused``: the two sides did not understand each other.
    """

    up: Callable[[], None] = _nothing
    lost: Callable[[EventmeshError], None] = _nothing
    answered: Callable[[BrokerAnswer, int], None] = _nothing
    delivered: Deliver = _nothing
    cannot_read: Failed = _nothing
    refused: Callable[[ProtocolError], None] = _nothing


@dataclass(frozen=True)
class Writer:
    """Who writes: an incarnation of the ``service`` that owns ``topic``, which runs the application ``code``."""

    topic: str
    service: str
    incarnation: str
    code: str = ""


class Backbone(Protocol):
    """The log, seen by one client, which is the writer of one topic, a reader, or both."""

    @property
    def unreached(self) -> str | None:
        """Why the last attempt to connect failed."""

    def start(self) -> None:
        """Begin to connect, and connect again whenever a connection is lost.

        One that connects only once does so here, and raises why it cannot.
        """

    def grant(self, partition: int) -> None:
        """Ask for an epoch. Answer: ``Granted``, ``GrantFailed``, or a lost connection."""

    def append(self, partition: int, entry: LogBatch) -> None:
        """Append. Answer, in order: ``Appended``, ``AppendFailed``, or a lost connection."""

    def asked_now(self) -> Collection[int]:
        """The partitions for which something was last asked on the connection of the moment.

        A connection that was lost before it does not concern them.
        """

    def subscribe(self, topic: str, partition: int, offset: int) -> None:
        """Deliver the partition from ``offset`` on; replaces an earlier one, and is dropped without a connection."""

    def unsubscribe(self, topic: str, partition: int) -> None:
        """Deliver no more of it; what is on its way may still come."""

    def ends(self) -> dict[str, int]:
        """The end of every ``topic/partition``; :class:`~eventmesh.errors.PeerLost` where the log is away."""

    def snapshot(self, name: str) -> Snapshot | None:
        """The newest of that name that the log goes on from, if any; ``PeerLost`` where the log is away."""

    def renew(self, why: PeerLost) -> None:
        """Give the connection of the moment up, as if it were lost."""

    def close(self) -> None:
        """End. No more is told."""


#: Makes a backbone for a client, not started.
Connect = Callable[[Callbacks], Backbone]


@dataclass(frozen=True)
class BrokerStreams:
    """The streams to a broker, which live and die together: one for appends and grants, one for batches."""

    writing: Connection | None
    reading: Subscription | None

    @property
    def channel(self) -> Channel:
        """Where appends and grants go out."""
        assert self.writing is not None, "a reader writes nothing"
        return self.writing.channel

    def close(self) -> None:
        """End both."""
        for each in (self.writing, self.reading):
            if each is not None:
                each.close()


class BrokerBackbone:
    """The log of the broker that ``locate`` finds, see :class:`Backbone`.

    It reads the ``topics``, and writes as ``writer``, if there is one. With ``once`` it connects only once,
    and sending waits for a broker that does not read; otherwise nothing waits. ``local`` False goes over Flight.
    ``link_faults`` are those of the client's process, on which faults may act.
    """

    def __init__(
        self,
        locate: Callable[[], str],
        callbacks: Callbacks,
        *,
        topics: Mapping[str, Topic] | None = None,
        writer: Writer | None = None,
        access: Access = OPEN,
        local: bool = True,
        once: bool = False,
        link_faults: LinkFaults | None = None,
    ) -> None:
        self._link_faults = link_faults or LinkFaults()
        self._locate, self._callbacks, self._topics, self._writer = locate, callbacks, topics or {}, writer
        self._access, self._local = access, local
        self._asked_on: dict[int, BrokerStreams | None] = {}  # the streams that a partition's last request went out on
        self._lost: Lost = _nothing
        self._link: Link[BrokerStreams] | Once[BrokerStreams] = (Once if once else Link)(
            "broker", self._connect, up=lambda streams: callbacks.up(), down=callbacks.lost, refused=callbacks.refused
        )

    @property
    def unreached(self) -> str | None:
        """See :class:`Backbone`."""
        return self._link.unreached

    def start(self) -> None:
        """See :class:`Backbone`."""
        self._link.start()

    def _connect(self, lost: Lost) -> BrokerStreams:
        self._lost = lost
        address, access, local = self._locate(), self._access, self._local
        writing = None
        if self._writer is not None:
            writing = Connection(
                address, "write", self._answered, lost, access, local=local, link_faults=self._link_faults, peer=_BROKER
            )  # fmt: skip
        try:
            reading = self._reading(address, lost) if self._topics else None
        except EventmeshError:
            if writing is not None:
                writing.close()
            raise
        return BrokerStreams(writing, reading)

    def _reading(self, address: str, lost: Lost) -> Subscription:
        told = self._callbacks
        return Subscription(
            address, self._topics, told.delivered, lost, failed=told.cannot_read, local=self._local,
            access=self._access, link_faults=self._link_faults, peer=_BROKER,
        )  # fmt: skip

    # --- writing --------------------------------------------------------------------------------

    def grant(self, partition: int) -> None:
        """See :class:`Backbone`."""
        writer = self._writer
        assert writer is not None, "a reader writes nothing"
        asked = protocol.Grant(writer.topic, partition, writer.service, writer.incarnation, now(), writer.code)
        self._write(partition, protocol.pack(asked))

    def append(self, partition: int, entry: LogBatch) -> None:
        """See :class:`Backbone`."""
        assert self._writer is not None, "a reader writes nothing"
        self._write(partition, frames.pack_append(self._writer.topic, partition, entry, now()))

    def _write(self, partition: int, frame: Frame) -> None:
        self._asked_on[partition] = self._link.stream
        if not self._link.send(frame):
            self._callbacks.lost(PeerLost("there is no connection to the broker"))

    def asked_now(self) -> Collection[int]:
        """See :class:`Backbone`."""
        streams = self._link.stream
        return [number for number, asked_on in self._asked_on.items() if streams is not None and asked_on is streams]

    def _answered(self, header: FrameHeader, bodies: Sequence[pa.Buffer]) -> None:
        if not isinstance(header, protocol.BrokerAnswer):
            raise protocol.unexpected(header, *get_args(protocol.BrokerAnswer))
        if header.partition not in self._asked_on:
            raise InputError(f"an answer for partition {header.partition}, for which nothing was asked")
        self._callbacks.answered(frames.unpack_answer(header), header.sent_at)

    # --- reading --------------------------------------------------------------------------------

    def subscribe(self, topic: str, partition: int, offset: int) -> None:
        """See :class:`Backbone`."""
        if (streams := self._link.stream) is not None and streams.reading is not None:
            streams.reading.subscribe(position_name(topic, partition), offset)

    def unsubscribe(self, topic: str, partition: int) -> None:
        """See :class:`Backbone`."""
        if (streams := self._link.stream) is not None and streams.reading is not None:
            streams.reading.unsubscribe(position_name(topic, partition))

    def ends(self) -> dict[str, int]:
        """See :class:`Backbone`. They are asked for over Flight, as any Flight client would."""
        self._link_faults.check_reach(_BROKER)
        address = self._locate()
        try:
            with connect(address) as client:
                found = list(client.list_flights(options=call_options(self._access, ENDS_S)))
        except flight.FlightUnauthenticatedError as error:
            raise Unauthenticated(f"{address} does not let us in: {first_line(error)}") from error
        except GONE as error:
            raise PeerLost(f"{address} did not say where its partitions end: {first_line(error)}") from error
        offsets = [json.loads(each.app_metadata)["offsets"] for each in found]
        return {name: int(end) for each in offsets for name, (_, end) in each.items()}

    def snapshot(self, name: str) -> Snapshot | None:
        """See :class:`Backbone`."""
        self._link_faults.check_reach(_BROKER)
        return snapshot_transfer.fetch(self._locate(), name, self._access)

    # --- the connection -------------------------------------------------------------------------

    def renew(self, why: PeerLost) -> None:
        """See :class:`Backbone`."""
        self._lost(why)

    def close(self) -> None:
        """See :class:`Backbone`."""
        self._link.close()


def follow(connect: Connect, offsets: Mapping[tuple[str, int], int]) -> Iterator[tuple[str, int, LogBatch]]:
    """(topic, partition, batch) of these partitions from ``offsets`` on, each batch once and as they come, for ever.

    ``connect`` makes backbones that connect once; of one whose connection was lost the next takes the place. Raises why
    none can be connected to, why a partition cannot be read on, and why the two sides do not understand each other.
    """
    cursors = dict(offsets)
    while True:
        with closing(_Following(connect)) as following:
            for topic, partition, entry in following.batches(cursors):
                if entry.header.end > cursors[topic, partition]:
                    cursors[topic, partition] = entry.header.end
                    yield topic, partition, entry


class _Following:
    """One connection of :func:`follow`."""

    def __init__(self, connect: Connect) -> None:
        self._arrived: queue.Queue[Sequence[Entry] | EventmeshError] = queue.Queue(ARRIVED_MAX)
        self._closing = False
        put = self._put
        told = Callbacks(
            lost=put, cannot_read=put, refused=put, delivered=lambda entries, sent_at: put(entries)
        )  # fmt: skip
        self._backbone = connect(told)

    def _put(self, what: Sequence[Entry] | EventmeshError) -> None:
        if not self._closing:
            self._arrived.put(what)

    def batches(self, cursors: Mapping[tuple[str, int], int]) -> Iterator[Entry]:
        """Until the connection is lost; raises what is more than that."""
        self._backbone.start()
        for (topic, partition), offset in cursors.items():
            self._backbone.subscribe(topic, partition, offset)
        while True:
            arrived = self._arrived.get()
            if isinstance(arrived, PeerLost) and not isinstance(arrived, ProtocolError):
                return
            if isinstance(arrived, EventmeshError):
                raise arrived
            yield from arrived

    def close(self) -> None:
        """Let go of who waits to put something in, then end."""
        self._closing = True
        while not self._arrived.empty():
            self._arrived.get_nowait()
        self._backbone.close()

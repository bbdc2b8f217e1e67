"""A backbone in memory, directly on a log: what :class:`Backbone` promises, without files, sockets and threads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from eventmesh.errors import EventmeshError, PeerLost
from eventmesh.log.batch import LogBatch
from eventmesh.log.partition import Durability
from eventmesh.log.storage import MemoryStorage
from eventmesh.log.store import Log
from eventmesh.log.topic import Topic
from eventmesh.progress import position_name
from eventmesh.runtime.effects import Appended, AppendFailed, BrokerAnswer, Granted, GrantFailed
from eventmesh.runtime.process.backbone import Callbacks, Writer
from eventmesh.runtime.process.reactor import now
from eventmesh.runtime.snapshots import Snapshot

AWAY = "the broker is away"


class MemoryBroker:
    """A log and its clients, all on the thread of whoever calls."""

    def __init__(self, topics: Mapping[str, Topic]) -> None:
        self.log = Log.open(
            MemoryStorage(), topics, durability=Durability.os, cluster_id="test", node="here", clock=now
        )  # fmt: skip
        self.topics = topics
        self.clients: list[MemoryBackbone] = []
        self.snapshots: dict[str, Snapshot] = {}
        self.up = True
        self._held: list[Callable[[], None]] | None = None

    def connect(self, callbacks: Callbacks, *, writer: Writer | None = None, once: bool = False) -> MemoryBackbone:
        """A client, not started."""
        return MemoryBackbone(self, callbacks, writer, once)

    @contextmanager
    def held(self) -> Iterator[None]:
        """What is asked meanwhile is done afterwards, if its client is still there."""
        self._held = []
        yield
        held, self._held = self._held, None
        for each in held:
            each()

    def do(self, call: Callable[[], None]) -> None:
        """Now, or when it is no longer held up."""
        if self._held is None:
            call()
        else:
            self._held.append(call)

    def stop(self) -> None:
        """Be away."""
        self.up = False
        for client in list(self.clients):
            client.renew(PeerLost(AWAY))

    def start(self) -> None:
        """Be there again."""
        self.up = True
        for client in list(self.clients):
            client.begin()


class MemoryBackbone:
    """One client of a :class:`MemoryBroker`."""

    def __init__(self, broker: MemoryBroker, callbacks: Callbacks, writer: Writer | None, once: bool) -> None:
        self._broker, self._told, self._writer, self._once = broker, callbacks, writer, once
        self._connection: object | None = None
        self._asked_on: dict[int, object] = {}
        self._cursors: dict[tuple[str, int], int] = {}
        self.unreached: str | None = None

    def start(self) -> None:
        if self._once and not self._broker.up:
            raise PeerLost(AWAY)
        self._broker.clients.append(self)
        self.begin()

    def begin(self) -> None:
        """Connect, if there is a broker."""
        if self._broker.up:
            self._connection, self.unreached = object(), None
            self._told.up()
        else:
            self.unreached = AWAY

    # --- writing --------------------------------------------------------------------------------

    def grant(self, partition: int) -> None:
        writer = self._writer
        assert writer is not None

        def answer() -> BrokerAnswer:
            try:
                grant = self._broker.log.grant(
                    writer.topic, partition, writer.service, writer.incarnation, writer.code
                )  # fmt: skip
            except EventmeshError as error:
                return GrantFailed(partition, error)
            return Granted(partition, grant.epoch, grant.end)

        self._ask(partition, answer)

    def append(self, partition: int, entry: LogBatch) -> None:
        writer = self._writer
        assert writer is not None

        def answer() -> BrokerAnswer:
            try:
                end = self._broker.log.append(writer.topic, partition, entry)
            except EventmeshError as error:
                return AppendFailed(partition, entry.header.epoch, error)
            return Appended(partition, entry.header.epoch, end)

        self._ask(partition, answer)

    def _ask(self, partition: int, answer: Callable[[], BrokerAnswer]) -> None:
        connection = self._asked_on[partition] = self._connection
        if connection is None:
            return self._told.lost(PeerLost(AWAY))

        def do() -> None:
            if self._connection is connection:
                self._told.answered(answer(), now())
                for client in self._broker.clients:
                    client.deliver()

        self._broker.do(do)

    def asked_now(self) -> Collection[int]:
        asked, connection = self._asked_on.items(), self._connection
        return [number for number, asked_on in asked if connection is not None and asked_on is connection]

    # --- reading --------------------------------------------------------------------------------

    def subscribe(self, topic: str, partition: int, offset: int) -> None:
        if self._connection is not None:
            self._cursors[topic, partition] = offset
            self.deliver()

    def unsubscribe(self, topic: str, partition: int) -> None:
        self._cursors.pop((topic, partition), None)

    def deliver(self) -> None:
        """What is new."""
        for (topic, partition), offset in list(self._cursors.items()):
            try:
                found = self._broker.log.read(topic, partition, offset)
            except EventmeshError as error:
                del self._cursors[topic, partition]
                self._told.cannot_read(error)
                continue
            if found:
                self._cursors[topic, partition] = found[-1].header.end
                self._told.delivered([(topic, partition, entry) for entry in found], now())

    def ends(self) -> dict[str, int]:
        self._must_be_up()
        log = self._broker.log
        return {
            position_name(name, number): log.watermark(name, number)
            for name, topic in self._broker.topics.items()
            for number in range(topic.partitions)
        }

    def snapshot(self, name: str) -> Snapshot | None:
        self._must_be_up()
        return self._broker.snapshots.get(name)

    def _must_be_up(self) -> None:
        if not self._broker.up:
            raise PeerLost(AWAY)

    # --- the connection -------------------------------------------------------------------------

    def renew(self, why: PeerLost) -> None:
        if self._connection is None:
            return
        self._connection = None
        self._cursors.clear()
        self._told.lost(why)
        if self._once:
            self.close()
        else:
            self.begin()

    def close(self) -> None:
        self._connection = None
        self._cursors.clear()
        if self in self._broker.clients:
            self._broker.clients.remove(self)

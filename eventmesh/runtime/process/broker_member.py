"""The broker's process: one log, served over Flight. Appends are acknowledged in order, then subscribers hear of them.

A slow subscriber holds up its own stream only. At level ``fsync`` one thread syncs for all who wait
(group commit) and acknowledges after.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from eventmesh.errors import EventmeshError, InputError, LogStopped, MayHaveHappened, ProtocolError
from eventmesh.log.batch import LogBatch
from eventmesh.log.manifest import MANIFEST
from eventmesh.log.storage import FileStorage, MemoryStorage, Storage, machine_id
from eventmesh.log.store import Durability, Log
from eventmesh.log.topic import Topic
from eventmesh.progress import position_name, split_position
from eventmesh.runtime.contract import Appended, AppendFailed, Granted, GrantFailed
from eventmesh.runtime.process import metrics, snapshot_transfer
from eventmesh.runtime.process.actor_log import log
from eventmesh.runtime.process.reactor import now
from eventmesh.runtime.process.subscribers import Subscriber
from eventmesh.runtime.process.subscription import DELIVERY_BYTES
from eventmesh.runtime.process.vitals import Process
from eventmesh.runtime.snapshots import Snapshot, goes_on
from eventmesh.runtime.wire import frames, protocol
from eventmesh.runtime.wire.channel import OPEN, Access, Channel, Received
from eventmesh.runtime.wire.connection import Listener
from eventmesh.runtime.wire.discovery import Offer, shown
from eventmesh.runtime.wire.protocol import FrameHeader

#: Runs a call on the log under the broker's lock; raises why the log stopped.
Guarded = Callable[[Callable[[Log], Any]], Any]


class Keeps(Protocol):
    """What is done beside the work, and the CPU seconds that it took in other processes."""

    cpu_s: float

    def close(self) -> None:
        """Do no more of it."""


Keep = Callable[[Guarded], Keeps]
#: A partition or an offset in a ticket; Python reads no number of thousands of digits.
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Waiting:
    """The answer to an append, and the partition that has grown by it (none, where it was refused)."""

    name: str
    channel: Channel
    answer: Appended | AppendFailed

    def send(self, error: EventmeshError | None = None) -> None:
        """Answer, as planned or that the append failed after all."""
        answer = self.answer if error is None else AppendFailed(self.answer.partition, self.answer.epoch, error)
        self.channel.send(frames.pack_answer(answer, now()))


class Broker(Process):
    """The log with its lock, its listener and its subscribers. Level ``memory`` leaves ``directory`` alone.

    ``failure`` is why the log stopped: it accepts nothing until it is opened again. ``keep`` makes what is done beside
    the work (:class:`~eventmesh.runtime.process.housekeeping.Housekeeping`), if anything is.
    """

    def __init__(
        self,
        topics: Mapping[str, Topic],
        directory: Path,
        durability: str,
        cluster_id: str,
        delay_us: int = 0,
        access: Access = OPEN,
        keep: Keep | None = None,
        mesh_name: str = "",
        registries: metrics.Registries | None = None,
    ) -> None:
        super().__init__(registries)
        self.topics, self.delay_us, self.cluster_id = topics, delay_us, cluster_id
        self.directory = directory
        self.durability = Durability(durability)
        self.storage: Storage = MemoryStorage() if self.durability is Durability.memory else FileStorage(directory)
        self.log = Log.open(
            self.storage, topics, durability=self.durability, cluster_id=cluster_id, node=machine_id(), clock=now
        )
        self.lock = threading.Lock()
        self.subscribers: dict[int, Subscriber] = {}
        self.failure: EventmeshError | None = None
        self.unsynced: list[Waiting] = []
        self.wants_sync = threading.Condition()
        self.closing = False
        self.home = _home(directory) if isinstance(self.storage, FileStorage) else None
        self.appended: dict[str, metrics.Appended] = defaultdict(metrics.Appended)
        self.housekeeping = keep(self._guarded) if keep is not None else None
        self.listener = Listener(self, access)
        self.publish(mesh_name, self.readings)
        if self.durability is Durability.fsync:
            threading.Thread(target=self._sync_all, name="group commit", daemon=True).start()

    # --- streams --------------------------------------------------------------------------------

    def opened(self, purpose: str, channel: Channel) -> Received:
        """Streams for appends and grants, and streams for subscriptions."""
        if purpose == "subscribe":
            subscriber = self.subscribers[id(channel)] = Subscriber(channel, self.read, self.home)
            return subscriber.received
        return lambda header, bodies: self._write(channel, header, bodies)

    def closed(self, purpose: str, channel: Channel, problem: ProtocolError | None) -> None:
        """A client is gone."""
        if problem is not None:
            log.error("stream refused", process="broker", purpose=purpose, problem=str(problem))
        subscriber = self.subscribers.pop(id(channel), None)
        if subscriber is not None:
            subscriber.close()

    def fetch(self, ticket: bytes) -> pa.RecordBatchReader:
        """``topic/partition/offset``: everything from there to the watermark. Or a snapshot, by its name."""
        if ticket.startswith(snapshot_transfer.TICKET):
            return snapshot_transfer.answer(self._snapshot(ticket))
        topic, partition, offset = self._asked_for(ticket.decode(errors="replace"))
        name = position_name(topic, partition)

        def batches() -> Any:
            at = offset
            while found := self.read(name, at, DELIVERY_BYTES):
                yield from (entry.batch for entry in found)
                at = found[-1].header.end
            if self.closing:  # this end may not be the log's
                raise LogStopped(f"the broker is closing: read on from {name}/{at} when there is one again")

        return pa.RecordBatchReader.from_batches(self.topics[topic].schema, batches())

    def offers(self) -> list[Offer]:
        """Every partition with its offsets."""
        with self.lock:
            if self.closing:
                raise LogStopped("the broker is closing")
            return [
                Offer(
                    self.cluster_id,
                    name,
                    number,
                    topic.schema,
                    self.log.start(name, number),
                    self.log.watermark(name, number),
                )
                for name, topic in sorted(self.topics.items())
                for number in range(topic.partitions)
            ]

    def _snapshot(self, ticket: bytes) -> Snapshot | None:
        """The newest one that the log goes on from."""
        found = snapshot_transfer.load(self.directory, ticket, self.cluster_id) if self.home is not None else None
        with self.lock:
            return found if found is not None and not self.closing and goes_on(self.log, found.head) else None

    def _asked_for(self, ticket: str) -> tuple[str, int, int]:
        topic, *numbers = ticket.rsplit("/", 2)
        known = self.topics.get(topic)
        if known is None or len(numbers) != 2 or not all(_NUMBER.fullmatch(number) for number in numbers):
            raise InputError(f"ticket {shown(ticket)}: expected topic/partition/offset, of {sorted(self.topics)}")
        partition, offset = map(int, numbers)
        if partition >= known.partitions:
            problem = f"{topic} has {known.partitions} partitions, counted from 0"
            raise InputError(f"ticket {ticket!r}: {problem}; expected topic/partition/offset")
        return topic, partition, offset

    def _guarded(self, call: Callable[[Log], Any]) -> Any:
        with self.lock:
            if self.failure is not None or self.closing:
                raise self.failure or LogStopped("the broker is closing")
            return call(self.log)

    def usage(self) -> dict[str, float]:
        """See :meth:`Process.usage`; the CPU of taking snapshots is the broker's."""
        used = super().usage()
        return {**used, "cpu_s": used["cpu_s"] + (self.housekeeping.cpu_s if self.housekeeping is not None else 0.0)}

    def read(self, name: str, offset: int, max_bytes: int) -> list[LogBatch]:
        """Whole batches from ``offset``."""
        topic, partition = split_position(name)
        with self.lock:
            if self.closing:
                return []
            return self.log.read(topic, partition, offset, max_bytes)

    # --- writing --------------------------------------------------------------------------------

    def _write(self, channel: Channel, header: FrameHeader, bodies: Sequence[pa.Buffer]) -> None:
        if not isinstance(header, (protocol.Grant, protocol.Append)):
            raise protocol.unexpected(header, protocol.Grant, protocol.Append)
        _sleep_until(header.sent_at + self.delay_us if self.delay_us else 0)
        if isinstance(header, protocol.Grant):
            self._grant(channel, header)
        else:
            self._append(channel, header, bodies)

    def _grant(self, channel: Channel, asked: protocol.Grant) -> None:
        partition, sent_at = asked.partition, now()
        try:
            with self.lock:
                grant = self.log.grant(asked.topic, partition, asked.service, asked.incarnation)
        except EventmeshError as error:
            self._note(error)
            channel.send(frames.pack_answer(GrantFailed(partition, error), sent_at))
            return
        channel.send(frames.pack_answer(Granted(partition, grant.epoch, grant.end), sent_at))
        self._grown({position_name(asked.topic, partition)})

    def _append(self, channel: Channel, asked: protocol.Append, bodies: Sequence[pa.Buffer]) -> None:
        topic, partition = asked.topic, asked.partition
        if topic not in self.topics:
            raise InputError(f"there is no topic {topic!r}: expected one of {sorted(self.topics)}")
        entry = frames.unpack_append(bodies, self.topics[topic].schema)
        epoch = entry.header.epoch
        name = position_name(topic, partition)
        try:
            with self.lock:
                end = self.log.append(topic, partition, entry)
                self.appended[name].count(entry.header.rows, entry.message.size)
        except EventmeshError as error:
            self._note(error)
            self._answer(Waiting("", channel, AppendFailed(partition, epoch, error)))
        else:
            self._answer(Waiting(name, channel, Appended(partition, epoch, end)))

    def _answer(self, waiting: Waiting) -> None:
        """Now, or after the sync: a refusal must not overtake the acknowledgements before it."""
        if self.durability is Durability.fsync and self.failure is None:
            with self.wants_sync:
                self.unsynced.append(waiting)
                self.wants_sync.notify()
            return
        # Subscribers first: a ring takes a tenth of the time of a frame, and what they read is shown already.
        self._grown({waiting.name})
        waiting.send()

    def _sync_all(self) -> None:
        while not self.closing:
            with self.wants_sync:
                if not self.unsynced:
                    self.wants_sync.wait(timeout=1.0)
                batch, self.unsynced = self.unsynced, []
            if batch and not self._sync(batch):
                return

    def _sync(self, batch: Sequence[Waiting]) -> bool:
        try:
            with self.lock:
                if self.closing:
                    return False
                self.log.sync()
        except EventmeshError as error:
            self._note(error)
            for waiting in batch:  # rule 9: what this sync should have covered may be lost, or not
                waiting.send(MayHaveHappened(f"the sync failed: {error}"))
            return False
        for waiting in batch:
            waiting.send()
        self._grown({waiting.name for waiting in batch})
        return True

    def _note(self, error: EventmeshError) -> None:
        if isinstance(error, LogStopped) and self.failure is None:
            self.failure = error

    def _grown(self, names: Collection[str]) -> None:
        for subscriber in list(self.subscribers.values()):
            subscriber.notify(names)

    # --- the control plane ------------------------------------------------------------------------

    def ends(self) -> dict[str, int]:
        """The watermark of every partition; :class:`~eventmesh.errors.LogStopped` if the log accepts nothing more."""
        with self.lock:
            if self.failure is not None:
                raise self.failure
            return {
                position_name(name, partition): self.log.watermark(name, partition)
                for name, topic in self.topics.items()
                for partition in range(topic.partitions)
            }

    def readings(self) -> Iterable[metrics.Reading]:
        """What Prometheus is told."""
        return metrics.of_broker(self.ends(), self.appended)

    def save(self, directory: Path) -> None:
        """Level ``memory``: write the log out, for the audit. Nothing at other levels."""
        if isinstance(self.storage, MemoryStorage):
            with self.lock:
                self.storage.save(directory)

    def address(self) -> str:
        """Where it is served."""
        return self.listener.address

    def close(self) -> None:
        """Stop serving, and close the log; harmless to repeat."""
        self.publish_no_more()
        with self.lock:
            if not self.closing:
                self.closing = True
                self.log.close()
        if self.housekeeping is not None:
            self.housekeeping.close()
        self.listener.end()


def _home(directory: Path) -> protocol.Home:
    """Where the files are, and the manifest's device and inode: who sees the same file is on this node."""
    found = (directory / MANIFEST).stat()
    return protocol.Home(str(directory.resolve()), (found.st_dev, found.st_ino))


def _sleep_until(due: int) -> None:
    wait = due - now()
    if due and wait > 0:
        threading.Event().wait(wait / 1e6)

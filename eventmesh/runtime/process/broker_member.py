"""The broker's process: drives :class:`~eventmesh.runtime.broker.Broker` with threads, files and sockets.

Calls of the rules are made one at a time, under a lock, and what they leave to be done is done at once. Nothing of it
waits for a peer, but for the thread of a stream that answers what was asked on it. At level ``fsync`` one thread syncs
for all who wait (group commit). Beside that it serves the log to any Flight client.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from eventmesh.errors import InputError, LogStopped, ProtocolError
from eventmesh.log.batch import LogBatch
from eventmesh.log.faulty_storage import FaultyStorage
from eventmesh.log.manifest import MANIFEST
from eventmesh.log.storage import FileStorage, MemoryStorage, Storage, machine_id
from eventmesh.log.store import Durability, Log
from eventmesh.log.topic import Topic
from eventmesh.progress import position_name
from eventmesh.runtime import broker as rules
from eventmesh.runtime.broker import DELIVERY_BYTES, Result
from eventmesh.runtime.effects import BrokerAnswer
from eventmesh.runtime.process import metrics, snapshot_transfer
from eventmesh.runtime.process.actor_log import log
from eventmesh.runtime.process.directory import BROKER, peer_name
from eventmesh.runtime.process.disk import Disk, die
from eventmesh.runtime.process.reactor import now
from eventmesh.runtime.process.subscribers import Subscriber
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


class BrokerMember(Process):
    """The broker with its lock, its listener and its subscribers. Level ``memory`` leaves ``directory`` alone.

    ``keep`` makes what is done beside the work (:class:`~eventmesh.runtime.process.housekeeping.Housekeeping`), if
    anything is.
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
        super().__init__(registries, peer_name(BROKER))
        self.topics, self.delay_us, self.cluster_id = topics, delay_us, cluster_id
        self.directory = directory
        self.durability = Durability(durability)
        self.storage: Storage = MemoryStorage()
        if self.durability is not Durability.memory:
            self.storage = FaultyStorage(FileStorage(directory), die=die)
            self.strikes.disk = Disk(self.storage, directory)
        self.lock = threading.Lock()
        self.subscribers: dict[Channel, Subscriber] = {}
        self.closing = False
        self.appended: dict[str, metrics.Appended] = defaultdict(metrics.Appended)
        self._answers: list[tuple[Channel, BrokerAnswer]] = []
        self._wants_sync = threading.Semaphore(0)
        self._stopped, self._closed = threading.Event(), threading.Event()
        self._acts: Mapping[type, Callable[[Any], None]] = {
            rules.Answer: self._answer, rules.Wake: self._wake, rules.CannotRead: self._cannot_read,
            rules.WantSync: lambda _: self._wants_sync.release(), rules.Stopped: self._log_stopped,
            rules.Reopened: self._log_reopened,
        }  # fmt: skip
        for name, work in (("group commit", self._sync_all), ("reopen", self._reopen)):
            threading.Thread(target=work, name=name, daemon=True).start()
        self.rules = rules.Broker(
            self._open_log, rules.ACKNOWLEDGEMENTS[self.durability], clock=now, emit=self._carry_out
        )
        self.home = _home(directory) if self.durability is not Durability.memory else None
        self.housekeeping = keep(self._guarded) if keep is not None else None
        self.listener = Listener(self, access, self.link_faults)
        self.publish(mesh_name, self.readings)

    def _open_log(self) -> Log:
        return Log.open(
            self.storage, self.topics, durability=self.durability, cluster_id=self.cluster_id, node=machine_id(),
            clock=now,
        )  # fmt: skip

    # --- what the rules leave to be done; under the lock ------------------------------------------

    def _carry_out(self, effect: rules.BrokerEffect) -> None:
        self._acts[type(effect)](effect)

    def _answer(self, effect: rules.Answer) -> None:
        channel: Any = effect.to
        if self.durability is Durability.fsync:
            channel.leave(frames.pack_answer(effect.answer, now()))  # at once: several threads answer on one stream
        else:
            self._answers.append((channel, effect.answer))

    def _wake(self, effect: rules.Wake) -> None:
        subscriber = self.subscribers.get(effect.reader)  # type: ignore[call-overload]
        if subscriber is not None:
            subscriber.wake()

    def _cannot_read(self, effect: rules.CannotRead) -> None:
        channel: Any = effect.reader
        channel.leave(protocol.pack(protocol.ReadFailed(effect.name, protocol.Failure.of(effect.error))))

    def _log_stopped(self, effect: rules.Stopped) -> None:
        log.error("the log stopped", reason=str(effect.error))
        self._stopped.set()

    def _log_reopened(self, effect: rules.Reopened) -> None:
        """Who reads the files must map them anew: their streams end, and they come again."""
        log.warning("the log is open again", directory=str(self.directory))
        for subscriber in self.subscribers.values():
            subscriber.map_anew()

    # --- threads ----------------------------------------------------------------------------------

    def _sync_all(self) -> None:
        while True:
            self._wants_sync.acquire()
            with self.lock:
                if self.closing:
                    return
                if self.rules.failure is None:
                    self._sync()

    def _sync(self) -> None:
        sync = self.rules.begin_sync()
        try:
            self.rules.log.flush(sync.ends)
        except LogStopped as error:
            self.rules.sync_failed(error)
        else:
            self.rules.synced(sync)

    def _reopen(self) -> None:
        """Wait for the log to stop; then try to open it again, until it is open."""
        while not self.closing:
            self._stopped.wait()
            self._stopped.clear()
            while not self.closing and (due := self.rules.next_deadline()) is not None:
                # No longer than that at a time: its clock may jump.
                self._closed.wait(min(max(0, due - now()), rules.REOPEN_US) / 1e6)
                with self.lock:
                    if not self.closing:
                        self.rules.tick(now())

    # --- streams --------------------------------------------------------------------------------

    def opened(self, purpose: str, channel: Channel) -> Received:
        """Streams for appends and grants, and streams for subscriptions."""
        if purpose != "subscribe":
            return partial(self._write, channel)
        subscriber = Subscriber(channel, _Cursors(self, channel), self.home)
        with self.lock:
            self.subscribers[channel] = subscriber
        return subscriber.received

    def closed(self, purpose: str, channel: Channel, problem: ProtocolError | None) -> None:
        """A client is gone."""
        if problem is not None:
            log.error("stream refused", process="broker", purpose=purpose, problem=str(problem))
        with self.lock:
            subscriber = self.subscribers.pop(channel, None)
            self.rules.gone(channel)
        if subscriber is not None:
            subscriber.close()

    def _write(self, channel: Channel, header: FrameHeader, bodies: Sequence[pa.Buffer]) -> None:
        if not isinstance(header, (protocol.Grant, protocol.Append)):
            raise protocol.unexpected(header, protocol.Grant, protocol.Append)
        _sleep_until(min(header.sent_at, now()) + self.delay_us if self.delay_us else 0)
        topic, partition = header.topic, header.partition
        if isinstance(header, protocol.Grant):
            with self.lock:
                self.rules.grant(channel, topic, partition, header.service, header.incarnation, header.code)
                answers = self._taken_answers()
            _send(answers)
            return
        if topic not in self.topics:
            raise InputError(f"there is no topic {topic!r}: expected one of {sorted(self.topics)}")
        entry = frames.unpack_append(bodies, self.topics[topic].schema)
        with self.lock:
            self.rules.append(channel, topic, partition, entry)
            self.appended[position_name(topic, partition)].count(entry.header.rows, entry.message.size)
            answers = self._taken_answers()
        _send(answers)

    def _taken_answers(self) -> list[tuple[Channel, BrokerAnswer]]:
        """The answers to what was asked on this very stream, whose thread may wait for its peer to read them.

        At level ``fsync`` there are none: there the thread that syncs answers, too, and the order must stay.
        """
        answers, self._answers = self._answers, []
        return answers

    # --- for any Flight client --------------------------------------------------------------------

    def fetch(self, ticket: bytes) -> pa.RecordBatchReader:
        """``topic/partition/offset``: everything from there to the watermark. Or a snapshot, by its name."""
        if ticket.startswith(snapshot_transfer.TICKET):
            return snapshot_transfer.answer(self._snapshot(ticket))
        topic, partition, offset = self._asked_for(ticket.decode(errors="replace"))

        def batches() -> Any:
            at = offset
            while found := self.read(topic, partition, at):
                yield from (entry.batch for entry in found)
                at = found[-1].header.end

        return pa.RecordBatchReader.from_batches(self.topics[topic].schema, batches())

    def read(self, topic: str, partition: int, offset: int) -> list[LogBatch]:
        """Whole batches from ``offset``."""
        with self.lock:
            if self.closing:  # this end may not be the log's
                name = position_name(topic, partition)
                raise LogStopped(f"the broker is closing: read on from {name}/{offset} when there is one again")
            return self.rules.log.read(topic, partition, offset, DELIVERY_BYTES)

    def offers(self) -> list[Offer]:
        """Every partition with its offsets."""

        def offered(log: Log) -> list[Offer]:
            return [
                Offer(self.cluster_id, name, number, topic.schema, log.start(name, number), log.watermark(name, number))
                for name, topic in sorted(self.topics.items())
                for number in range(topic.partitions)
            ]

        return self._guarded(offered)

    def _snapshot(self, ticket: bytes) -> Snapshot | None:
        """The newest one that the log goes on from. While no log is open nobody can tell, and it raises why."""
        found = snapshot_transfer.load(self.directory, ticket, self.cluster_id) if self.home is not None else None
        return found if found is not None and self._guarded(lambda log: goes_on(log, found.header)) else None

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

    def _guarded(self, call: Callable[[Log], Result]) -> Result:
        with self.lock:
            if self.closing:
                raise LogStopped("the broker is closing: ask again when there is one")
            return self.rules.using(call)

    # --- the control plane ------------------------------------------------------------------------

    def usage(self) -> dict[str, float]:
        """See :meth:`Process.usage`; the CPU of taking snapshots is the broker's."""
        used = super().usage()
        return {**used, "cpu_s": used["cpu_s"] + (self.housekeeping.cpu_s if self.housekeeping is not None else 0.0)}

    def ends(self) -> dict[str, int]:
        """The watermark of every partition; :class:`~eventmesh.errors.LogStopped` while nothing can be appended."""
        with self.lock:
            return self.rules.ends()

    def status(self) -> dict[str, Any]:
        """``ends``, as :meth:`ends`, and ``stopped``: why the log has stopped, None while it is open."""
        with self.lock:
            stopped = "the broker is closing" if self.closing else self.rules.failure
            return {"ends": {} if stopped else self.rules.ends(), "stopped": None if stopped is None else str(stopped)}

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
        """Stop serving, and close the log; no fault holds that up. Harmless to repeat."""
        self.heal()
        self.publish_no_more()
        with self.lock:
            if not self.closing:
                self.closing = True
                self._close_log()
        for wake in (self._closed.set, self._stopped.set, self._wants_sync.release):
            wake()
        if self.housekeeping is not None:
            self.housekeeping.close()
        self.listener.end()

    def _close_log(self) -> None:
        if self.rules.failure is None:
            self.rules.log.close()
        else:
            self.storage.close()


class _Cursors:
    """What the rules know of one subscriber (:class:`~eventmesh.runtime.process.subscribers.Cursors`)."""

    def __init__(self, member: BrokerMember, channel: Channel) -> None:
        self._member, self._channel = member, channel

    def subscribe(self, name: str, offset: int) -> None:
        """``topic/partition`` from ``offset`` on."""
        with self._member.lock:
            self._member.rules.subscribe(self._channel, name, offset)

    def unsubscribe(self, name: str) -> None:
        """No more of it."""
        with self._member.lock:
            self._member.rules.unsubscribe(self._channel, name)

    def take(self) -> tuple[str, list[LogBatch]] | None:
        """The next batches of one partition."""
        with self._member.lock:
            return None if self._member.closing else self._member.rules.take(self._channel, DELIVERY_BYTES)


def _send(answers: list[tuple[Channel, BrokerAnswer]]) -> None:
    for channel, answer in answers:
        channel.send(frames.pack_answer(answer, now()))


def _home(directory: Path) -> protocol.Home:
    """Where the files are, and the manifest's device and inode: who sees the same file is on this node."""
    found = (directory / MANIFEST).stat()
    return protocol.Home(str(directory.resolve()), (found.st_dev, found.st_ino))


def _sleep_until(due: int) -> None:
    wait = due - now()
    if due and wait > 0:
        threading.Event().wait(wait / 1e6)

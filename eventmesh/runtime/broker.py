"""What a broker decides: who may append, when an append is acknowledged, who reads on from where.

One for both runtimes, and without I/O but the log's. Its driver calls it with what came in, one call at a time, and
carries out the effects that each call leaves, in their order. At level ``fsync`` it says that it wants a sync; the
driver has it name what that covers (:meth:`Broker.begin_sync`), syncs, and says that it is done, or that the disk
failed. A log that stopped is opened again from :meth:`Broker.tick`, as soon as the disk lets it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from typing import Protocol, TypeVar

import msgspec

from eventmesh.errors import EventmeshError, LogStopped, MayHaveHappened, StorageFull
from eventmesh.log.batch import LogBatch
from eventmesh.log.store import Durability, Log
from eventmesh.progress import position_name, split_position
from eventmesh.runtime.effects import Appended, AppendFailed, BrokerAnswer, Granted, GrantFailed

#: A driver's own handle of the stream that something came by: answers go back there, batches go out there.
Stream = Hashable
Result = TypeVar("Result")
#: Bytes of batches that one delivery to a subscriber carries, about.
DELIVERY_BYTES = 1 << 20
#: Microseconds between two attempts to open a log that has stopped.
REOPEN_US = 500_000


class Answer(msgspec.Struct, frozen=True):
    """Send this to who asked on ``to``; answers of one stream in the order in which they are left."""

    to: Stream
    answer: BrokerAnswer


class Wake(msgspec.Struct, frozen=True):
    """There is something to read for the subscriber on ``reader``: let it read, or :meth:`Broker.take` for it."""

    reader: Stream


class CannotRead(msgspec.Struct, frozen=True):
    """The subscriber on ``reader`` cannot read ``name`` on; it has no cursor there any more."""

    reader: Stream
    name: str
    error: EventmeshError


class WantSync(msgspec.Struct, frozen=True):
    """Appends wait for a sync: begin one as soon as none is under way."""


class Stopped(msgspec.Struct, frozen=True):
    """The disk failed, and nothing is granted or appended until :class:`Reopened`. :meth:`Broker.tick` sees to it."""

    error: LogStopped


class Reopened(msgspec.Struct, frozen=True):
    """The log is open again. Who reads its files must map them anew: end the streams of those that do."""


BrokerEffect = Answer | Wake | CannotRead | WantSync | Stopped | Reopened


class Sync(msgspec.Struct, frozen=True):
    """A sync under way: the ends by ``topic/partition`` that it covers (rule 23), of the log opened ``opening``-th."""

    ends: Mapping[str, int]
    opening: int


class Acknowledgement(Protocol):
    """When an append is acknowledged (promise P1)."""

    def end(self, log: Log, topic: str, partition: int) -> int:
        """Appends that end here or below are acknowledged."""


class WhenWritten:
    """Levels ``memory`` and ``os``: once the log has it."""

    def end(self, log: Log, topic: str, partition: int) -> int:
        """See :class:`Acknowledgement`."""
        return log.end(topic, partition)


class WhenSynced:
    """Level ``fsync``: once a sync covers it, which is what the watermark says there (rule 9)."""

    def end(self, log: Log, topic: str, partition: int) -> int:
        """See :class:`Acknowledgement`."""
        return log.watermark(topic, partition)


ACKNOWLEDGEMENTS: Mapping[Durability, Acknowledgement] = {
    Durability.memory: WhenWritten(), Durability.os: WhenWritten(), Durability.fsync: WhenSynced(),
}  # fmt: skip


class Waiting(msgspec.Struct, frozen=True):
    """The answer to an append, once its end is covered; a refusal, which has none, only waits for its turn."""

    to: Stream
    answer: Appended | AppendFailed
    end: int | None = None


def _stopped(error: Exception) -> LogStopped:
    """Why there is no log; ``__cause__`` is what opening it came upon, such as a damaged file."""
    if isinstance(error, LogStopped):
        return error
    stopped = LogStopped(f"the log cannot be opened: {error}")
    stopped.__cause__ = error
    return stopped


class Broker:
    """The rules of grants, appends, acknowledgements, syncs and cursors, around one log.

    ``open_log`` opens it, the first time too: what it raises then, but for a disk that fails, goes to the caller.
    ``emit`` is called in the middle of a call, and may not call back. ``failure`` is why the log stopped.
    """

    def __init__(
        self, open_log: Callable[[], Log], acknowledgement: Acknowledgement, *,
        clock: Callable[[], int], emit: Callable[[BrokerEffect], None],
    ) -> None:  # fmt: skip
        self._open_log, self._acknowledgement, self._clock, self._emit = open_log, acknowledgement, clock, emit
        self._log: Log | None = None
        self._openings = 0
        self.failure: LogStopped | None = None
        self._reopen_at: int | None = None
        self._waiting: dict[str, deque[Waiting]] = {}
        self._sync_wanted = False  # or under way
        self._shown: dict[str, int] = {}  # the watermarks that readers were woken for
        self._cursors: dict[Stream, dict[str, int]] = {}
        self._behind: dict[Stream, dict[str, None]] = {}  # partitions that may have more than the cursor has seen
        try:
            self._open()
        except (LogStopped, StorageFull) as error:
            self._stop(_stopped(error))

    @property
    def log(self) -> Log:
        """The open log; raises why there is none (:class:`~eventmesh.errors.LogStopped`)."""
        if self._log is None:
            assert self.failure is not None
            raise self.failure
        return self._log

    def using(self, call: Callable[[Log], Result]) -> Result:
        """What ``call`` does with the open log; raises why there is none, also where the disk fails it."""
        try:
            return call(self.log)
        except LogStopped as error:
            self._note(error)
            raise

    # --- grants and appends -----------------------------------------------------------------------

    def grant(
        self, origin: Stream, topic: str, partition: int, service: str, incarnation: str, code: str = ""
    ) -> None:  # fmt: skip
        """``incarnation`` of ``service``, which runs ``code``, asks for the next epoch of a partition (rule 6)."""
        try:
            grant = self.log.grant(topic, partition, service, incarnation, code)
        except EventmeshError as error:
            self._note(error)
            self._emit(Answer(origin, GrantFailed(partition, error)))
            return
        self._grown(topic, partition)  # the record of a grant is synced, and with it whatever lies before it
        self._emit(Answer(origin, Granted(partition, grant.epoch, grant.end)))

    def append(self, origin: Stream, topic: str, partition: int, entry: LogBatch) -> None:
        """An append, which is answered once it is acknowledged; a refusal never overtakes what came before it."""
        epoch, name = entry.header.epoch, position_name(topic, partition)
        try:
            end = self.log.append(topic, partition, entry)
        except EventmeshError as error:
            self._note(error)
            refused = AppendFailed(partition, epoch, error)
            if (queue := self._waiting.get(name)) is not None:
                queue.append(Waiting(origin, refused))
            else:
                self._emit(Answer(origin, refused))
            return
        self._waiting.setdefault(name, deque()).append(Waiting(origin, Appended(partition, epoch, end), end))
        self._grown(topic, partition)

    def _grown(self, topic: str, partition: int) -> None:
        """Tell readers what is shown, and writers what is acknowledged; ask for a sync where some of it waits."""
        name, log = position_name(topic, partition), self._log
        queue, covered = self._waiting.get(name), -1
        if log is not None:
            covered = self._acknowledgement.end(log, topic, partition)
            # Subscribers first: a ring takes a tenth of the time of a frame, and what they read is shown already.
            self._wake(name, log.watermark(topic, partition))
        while queue and (queue[0].end is None or queue[0].end <= covered):
            ready = queue.popleft()
            self._emit(Answer(ready.to, ready.answer))
        if queue is not None and not queue:
            del self._waiting[name]
        self._want_sync()

    def _want_sync(self) -> None:
        if self._waiting and not self._sync_wanted:
            self._sync_wanted = True
            self._emit(WantSync())

    # --- syncs ------------------------------------------------------------------------------------

    def begin_sync(self) -> Sync:
        """What a sync that begins now will cover (rule 23). The driver flushes the log up to these ends."""
        return Sync(self.log.owed(), self._openings)

    def synced(self, sync: Sync) -> None:
        """It is done: what it covers is shown and acknowledged, what came meanwhile waits for the next one."""
        if sync.opening != self._openings or self._log is None:
            return  # of a log that has stopped since
        self._sync_wanted = False
        self._log.show(sync.ends)
        # All that wait: retention syncs partitions of its own accord.
        for name in dict.fromkeys([*sync.ends, *self._waiting]):
            self._grown(*split_position(name))

    def sync_failed(self, error: LogStopped) -> None:
        """The disk failed (rule 9): what was to be covered may be lost or not, and the log has stopped."""
        self._note(error)

    # --- a log that stops -------------------------------------------------------------------------

    def _note(self, error: EventmeshError) -> None:
        if isinstance(error, LogStopped) and self.failure is None:
            self._stop(error)

    def _stop(self, error: LogStopped) -> None:
        self._log, self.failure = None, error
        self._reopen_at = self._clock() + REOPEN_US
        waiting, self._waiting = self._waiting, {}
        self._sync_wanted = False
        for queue in waiting.values():
            for each in queue:
                self._emit(Answer(each.to, self._unsure(each.answer, error)))
        self._emit(Stopped(error))

    def _unsure(self, answer: Appended | AppendFailed, error: LogStopped) -> AppendFailed:
        """What is said of an append that waited for the sync; one that was refused did not happen, as before."""
        if isinstance(answer, AppendFailed):
            return answer
        return AppendFailed(answer.partition, answer.epoch, MayHaveHappened(f"the sync failed: {error}"))

    def tick(self, now: int) -> None:
        """Time has passed: a log that has stopped is opened again, or stays as it is until the next attempt."""
        if self._reopen_at is None or now < self._reopen_at:
            return
        try:
            self._open()
        except (EventmeshError, OSError) as error:
            self._reopen_at = now + REOPEN_US
            self.failure = _stopped(error)
            return
        self._emit(Reopened())
        for reader, cursors in self._cursors.items():
            self._behind[reader] = dict.fromkeys(cursors)
            self._emit(Wake(reader))

    def _open(self) -> None:
        self._log = self._open_log()
        self._openings += 1
        self.failure, self._reopen_at = None, None

    def next_deadline(self) -> int | None:
        """When :meth:`tick` wants to be called next."""
        return self._reopen_at

    # --- readers ----------------------------------------------------------------------------------

    def subscribe(self, reader: Stream, name: str, offset: int) -> None:
        """``topic/partition`` from ``offset`` on; replaces an earlier one of that reader and partition."""
        self._cursors.setdefault(reader, {})[name] = offset
        self._behind.setdefault(reader, {})[name] = None
        self._emit(Wake(reader))

    def unsubscribe(self, reader: Stream, name: str) -> None:
        """No more of ``topic/partition``."""
        self._cursors.get(reader, {}).pop(name, None)
        self._behind.get(reader, {}).pop(name, None)

    def gone(self, stream: Stream) -> None:
        """The stream has ended, and with it all subscriptions that came by it."""
        self._cursors.pop(stream, None)
        self._behind.pop(stream, None)

    def take(self, reader: Stream, max_bytes: int) -> tuple[str, list[LogBatch]] | None:
        """The next batches of one partition that ``reader`` is behind with, and its cursor moves; None: it has all."""
        behind, log = self._behind.get(reader), self._log
        while behind and log is not None:
            name = next(iter(behind))
            cursor = self._cursors[reader][name]
            try:
                found = log.read(*split_position(name), cursor, max_bytes)
            except EventmeshError as error:
                self.unsubscribe(reader, name)
                self._emit(CannotRead(reader, name, error))
                continue
            del behind[name]
            if found:
                self._cursors[reader][name] = found[-1].header.end
                behind[name] = None  # there may be more: after the others
                return name, found
        return None

    def _wake(self, name: str, shown: int) -> None:
        if self._shown.get(name) == shown:
            return
        self._shown[name] = shown
        for reader, cursors in self._cursors.items():
            if name in cursors:
                self._behind[reader][name] = None
                self._emit(Wake(reader))

    # --- for people -------------------------------------------------------------------------------

    def ends(self) -> dict[str, int]:
        """The watermark of every partition; :class:`~eventmesh.errors.LogStopped` while there is no log."""
        log = self.log
        return {
            position_name(topic.name, partition): log.watermark(topic.name, partition)
            for topic in log.topics.values()
            for partition in range(topic.partitions)
        }

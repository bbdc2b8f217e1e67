"""A client that appends rows to a partition which it owns: Kafka's producer, for programs that are no service.

It is granted an epoch, encodes each batch once, and keeps a bounded number of appends in flight; answers come in
order. It does not reconnect: after a lost stream its owner makes another, which folds the log to know what was kept.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
import pyarrow as pa

from eventmesh.errors import AskTimeout, EventmeshError, PeerLost
from eventmesh.log.batch import Header, LogBatch
from eventmesh.log.topic import Topic
from eventmesh.runtime.effects import Appended, AppendFailed, BrokerAnswer, Granted, GrantFailed
from eventmesh.runtime.process.backbone import Backbone, BrokerBackbone, Callbacks, Writer
from eventmesh.runtime.process.reactor import now
from eventmesh.runtime.wire.channel import OPEN, Access

#: Appends that may be unacknowledged at a time; what comes then waits for the oldest.
IN_FLIGHT_MAX = 64
GRANT_S = 10.0


#: Makes a backbone, not started, that connects once.
ConnectOnce = Callable[[Writer, Callbacks], Backbone]


class Producer:
    """Appends to ``topic``/``partition`` as ``incarnation`` of the topic's owner, on the backbone that it ``connect``s.

    An older incarnation is fenced by this one. Raises what the broker says to the grant:
    :class:`~eventmesh.errors.NotOwner`, :class:`~eventmesh.errors.LogStopped`; and
    :class:`~eventmesh.errors.PeerLost` where nobody is there.
    """

    def __init__(
        self,
        connect: ConnectOnce,
        topic: Topic,
        incarnation: str,
        *,
        partition: int = 0,
        in_flight_max: int = IN_FLIGHT_MAX,
        clock: Callable[[], int] = now,
    ) -> None:
        self.topic, self.partition, self.incarnation = topic, partition, incarnation
        self._clock = clock
        self._room = threading.Semaphore(in_flight_max)
        self._waiting: deque[Future[int]] = deque()
        self._failed: EventmeshError | None = None  # no append after it could follow
        self._lock = threading.Lock()
        self._granted: Future[Granted] = Future()
        writer = Writer(topic.name, topic.owner, incarnation)
        self._backbone = connect(writer, Callbacks(answered=self._answered, lost=self._lost))
        try:
            self._backbone.start()
            grant = self._ask_for_grant()
        except BaseException:
            self._backbone.close()
            raise
        self.epoch, self.end, self._number = grant.epoch, grant.end, 0

    @classmethod
    def at(
        cls,
        address: str,
        topic: Topic,
        incarnation: str,
        *,
        in_flight_max: int = IN_FLIGHT_MAX,
        access: Access = OPEN,
        local: bool = True,
    ) -> Producer:
        """One at the broker at ``address``; ``local`` False goes over Flight."""

        def connect(writer: Writer, callbacks: Callbacks) -> Backbone:
            return BrokerBackbone(lambda: address, callbacks, writer=writer, access=access, local=local, once=True)

        return cls(connect, topic, incarnation, in_flight_max=in_flight_max)

    def _ask_for_grant(self) -> Granted:
        self._backbone.grant(self.partition)
        try:
            return self._granted.result(GRANT_S)
        except TimeoutError as error:
            raise AskTimeout(
                f"no grant of {self.topic.name}/{self.partition} within {GRANT_S:g} s: the broker is stopped, or the "
                f"machine too busy. Ask again under the same incarnation"
            ) from error

    def append(self, rows: pa.RecordBatch) -> Future[int]:
        """Append rows of the topic's schema as one batch; the future has the end offset once it is acknowledged.

        Waits while too many are in flight. A column ``sequence`` is filled in here, since it is the offsets. The future
        raises what the broker says, and so do all that were in flight behind it: they did not happen either. Of a lost
        stream it raises :class:`~eventmesh.errors.PeerLost`: it may have happened. One thread appends at a time.
        """
        self._room.acquire()
        answer: Future[int] = Future()
        answer.add_done_callback(lambda _: self._room.release())
        if self.topic.enveloped:
            place = rows.schema.get_field_index("sequence")
            offsets = pa.array(np.arange(self.end, self.end + rows.num_rows), pa.int64())
            rows = rows.set_column(place, rows.schema.field(place), offsets)
        header = Header(
            "facts", self.end, rows.num_rows, self.epoch, self._number, self.topic.owner, self.incarnation,
            self._clock(), version=self.topic.version,
        )  # fmt: skip
        entry = LogBatch.encode(header, rows)
        with self._lock:
            if self._failed is not None:
                answer.set_exception(self._failed)
                return answer
            self._waiting.append(answer)
        self.end, self._number = header.end, self._number + 1
        self._backbone.append(self.partition, entry)
        return answer

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until all that was appended is acknowledged; raises as the last future would."""
        with self._lock:
            last = self._waiting[-1] if self._waiting else None
        if last is not None:
            last.result(timeout_s)
        elif self._failed is not None:
            raise self._failed

    def _answered(self, answer: BrokerAnswer, sent_at: int) -> None:
        match answer:
            case Granted():
                self._granted.set_result(answer)
            case GrantFailed():
                self._granted.set_exception(answer.error)
            case AppendFailed():
                self._fail(answer.error)
            case Appended():
                with self._lock:
                    oldest = self._waiting.popleft() if self._waiting else None
                if oldest is not None:
                    oldest.set_result(answer.end)

    def _lost(self, why: EventmeshError) -> None:
        lost = PeerLost(f"appends to {self.topic.name}/{self.partition} may be kept, their stream is over: {why}")
        if not self._granted.done():
            self._granted.set_exception(lost)
        self._fail(lost)

    def _fail(self, error: EventmeshError) -> None:
        with self._lock:
            self._failed = self._failed or error
            waiting, self._waiting = list(self._waiting), deque()
        for answer in waiting:
            answer.set_exception(error)

    def close(self) -> None:
        """End the stream; what is not acknowledged by then may have happened."""
        self._backbone.close()
        self._fail(PeerLost(f"the producer of {self.topic.name}/{self.partition} was closed"))

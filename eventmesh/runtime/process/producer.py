"""A client that appends rows to a partition which it owns: Kafka's producer, for programs that are no service.

It is granted an epoch, encodes each batch once, and keeps a bounded number of appends in flight; answers come in
order. It does not reconnect: after a lost stream its owner makes another, which folds the log to know what was kept.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import get_args

import numpy as np
import pyarrow as pa

from eventmesh.errors import AskTimeout, EventmeshError, PeerLost
from eventmesh.log.batch import Header, LogBatch
from eventmesh.log.topic import Topic
from eventmesh.runtime.process.reactor import now
from eventmesh.runtime.wire import frames, protocol
from eventmesh.runtime.wire.channel import OPEN, Access
from eventmesh.runtime.wire.connection import Connection
from eventmesh.runtime.wire.protocol import FrameHeader

#: Appends that may be unacknowledged at a time; what comes then waits for the oldest.
IN_FLIGHT_MAX = 64
GRANT_S = 10.0


class Producer:
    """Appends to ``topic``/``partition`` at the broker at ``address``, as ``incarnation`` of the topic's owner.

    An older incarnation is fenced by this one. Raises what the broker says to the grant:
    :class:`~eventmesh.errors.NotOwner`, :class:`~eventmesh.errors.LogStopped`; and
    :class:`~eventmesh.errors.PeerLost` where nobody is there. ``local`` False goes over Flight.
    """

    def __init__(
        self,
        address: str,
        topic: Topic,
        incarnation: str,
        *,
        partition: int = 0,
        in_flight_max: int = IN_FLIGHT_MAX,
        access: Access = OPEN,
        local: bool = True,
        clock: Callable[[], int] = now,
    ) -> None:
        self.topic, self.partition, self.incarnation = topic, partition, incarnation
        self._clock = clock
        self._room = threading.Semaphore(in_flight_max)
        self._waiting: deque[Future[int]] = deque()
        self._failed: EventmeshError | None = None  # no append after it could follow
        self._lock = threading.Lock()
        self._granted: Future[protocol.Granted] = Future()
        self._connection = Connection(address, "write", self._answered, self._lost, access, local=local)
        try:
            grant = self._ask_for_grant()
        except BaseException:
            self._connection.close()
            raise
        self.epoch, self.end, self._number = grant.epoch, grant.end, 0

    def _ask_for_grant(self) -> protocol.Granted:
        asked = protocol.Grant(self.topic.name, self.partition, self.topic.owner, self.incarnation, self._clock())
        self._connection.channel.send(protocol.pack(asked))
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
            self._clock(),
        )  # fmt: skip
        entry = LogBatch.encode(header, rows)
        with self._lock:
            if self._failed is not None:
                answer.set_exception(self._failed)
                return answer
            self._waiting.append(answer)
        self.end, self._number = header.end, self._number + 1
        if not self._connection.channel.send(frames.pack_append(self.topic.name, self.partition, entry, header.time)):
            self._lost(PeerLost("nothing can be sent on it"))
        return answer

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until all that was appended is acknowledged; raises as the last future would."""
        with self._lock:
            last = self._waiting[-1] if self._waiting else None
        if last is not None:
            last.result(timeout_s)
        elif self._failed is not None:
            raise self._failed

    def _answered(self, header: FrameHeader, bodies: Sequence[pa.Buffer]) -> None:
        match header:
            case protocol.Granted():
                self._granted.set_result(header)
            case protocol.GrantFailed():
                self._granted.set_exception(header.failure.error())
            case protocol.AppendFailed():
                self._fail(header.failure.error())
            case protocol.Appended():
                with self._lock:
                    answer = self._waiting.popleft() if self._waiting else None
                if answer is not None:
                    answer.set_result(header.end)
            case _:
                raise protocol.unexpected(header, *get_args(protocol.BrokerAnswer))

    def _lost(self, why: PeerLost) -> None:
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
        self._connection.close()
        self._fail(PeerLost(f"the producer of {self.topic.name}/{self.partition} was closed"))

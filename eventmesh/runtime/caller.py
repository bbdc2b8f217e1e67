"""A caller: sends requests when they are due, repeats what was not answered, keeps its own history. No I/O.

Open loop: each request has an intended time, and latency counts from it, whether or not the caller was
late itself. As fast as possible: all are intended at once, and at most ``window`` are open. A request
is repeated under its own id until an answer is final, so a lost answer is never a lost request.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from eventmesh.errors import Throttled
from eventmesh.history import CALLERS
from eventmesh.log.topic import Topic, partition_for
from eventmesh.messages import MessageType
from eventmesh.runtime.contract import Address, AskMessage, Effect, ReplyMessage, Row, SendAsk

NEVER = -1


@dataclass(frozen=True)
class Requests:
    """What a caller will ask, in order. ``at`` is the intended time of each, microseconds after the start."""

    commands: Sequence[str]
    keys: Sequence[str]
    rows: Sequence[Row]
    at: np.ndarray  # int64, shape (n,), not decreasing

    def __len__(self) -> int:
        return len(self.commands)


class Caller:
    """One source of load."""

    def __init__(
        self,
        name: str,
        requests: Requests,
        *,
        messages: Mapping[str, MessageType],
        owned: Mapping[str, Topic],
        clock: Callable[[], int],
        emit: Callable[[Effect], None],
        window: int = 1_000_000,
        batch_rows_max: int = 500,
        patience: int = 5_000_000,
        backoff: int = 50_000,
    ) -> None:
        self.name, self.requests, self.messages, self.owned = name, requests, messages, owned
        self.clock, self.emit = clock, emit
        self.window, self.batch_rows_max, self.patience, self.backoff = window, batch_rows_max, patience, backoff
        count = len(requests)
        self.intended, self.sent, self.accepted, self.completed = (np.full(count, NEVER, np.int64) for _ in range(4))
        self.attempts, self.throttled = np.zeros(count, np.int32), np.zeros(count, np.int32)
        self.outcomes: list[str | None] = [None] * count
        self.reasons: list[str | None] = [None] * count
        self.started_at = NEVER
        self.next = 0
        self.open_requests = 0
        self._again: deque[int] = deque()
        self._messages: dict[str, list[int]] = {}  # ask id -> requests, by row
        self._due: list[tuple[int, str]] = []
        self._wake: list[tuple[int, int]] = []
        self._count = 0

    def start(self) -> None:
        """Time zero of the schedule is now."""
        self.started_at = self.clock()
        self.intended = self.started_at + self.requests.at
        self.tick(self.started_at)

    @property
    def done(self) -> bool:
        """Every request has its outcome."""
        return self.next == len(self.requests) and self.open_requests == 0

    def tick(self, now: int) -> None:
        """Send what is due, repeat what is overdue."""
        self._repeat_overdue(now)
        due: list[int] = []
        while self._again:
            due.append(self._again.popleft())
        while self.next < len(self.requests) and self.open_requests < self.window and self.intended[self.next] <= now:
            due.append(self.next)
            self.sent[self.next] = now
            self.open_requests += 1
            self.next += 1
        if due:
            self._send(due, now)

    def _repeat_overdue(self, now: int) -> None:
        while self._due and self._due[0][0] <= now:
            _, ask = heapq.heappop(self._due)
            for request in self._messages.pop(ask, ()):
                if self.completed[request] == NEVER:
                    self._again.append(request)
        while self._wake and self._wake[0][0] <= now:
            self._again.append(heapq.heappop(self._wake)[1])

    def _send(self, due: list[int], now: int) -> None:
        groups: dict[tuple[str, int], list[int]] = {}
        for request in due:
            command = self.requests.commands[request]
            topic = self.owned[self.messages[command].service]
            partition = partition_for(self.requests.keys[request], topic.partitions)
            groups.setdefault((command, partition), []).append(request)
        for (command, partition), members in groups.items():
            for start in range(0, len(members), self.batch_rows_max):
                self._send_message(command, partition, members[start : start + self.batch_rows_max], now)

    def _send_message(self, command: str, partition: int, members: list[int], now: int) -> None:
        self._count += 1
        ask = f"{self.name}:{self._count}"
        self._messages[ask] = members
        heapq.heappush(self._due, (now + self.patience, ask))
        self.attempts[members] += 1
        ids = [f"{self.name}:{command}:{request}" for request in members]
        rows = [self.requests.rows[request] for request in members]
        message = AskMessage(ask, command, ids, rows, self.name)
        self.emit(SendAsk(Address(self.messages[command].service, partition), message))

    def replied(self, reply: ReplyMessage) -> None:
        """An answer to some of the requests of one message."""
        members = self._messages.get(reply.ask)
        if members is None:
            return
        now = self.clock()
        requests = [members[index] for index in reply.indexes]
        if reply.error is not None:
            self._come_back(requests, now, isinstance(reply.error, Throttled), str(reply.error), reply.error.definite)
            return
        for request, row in zip(requests, reply.rows, strict=True):
            if self.accepted[request] == NEVER:
                self.accepted[request] = now
            if reply.final and self.completed[request] == NEVER:
                self._complete(request, now, row.get("outcome"), row.get("reason"))

    def _come_back(self, requests: list[int], now: int, throttled: bool, reason: str, definite: bool) -> None:
        for request in requests:
            if self.completed[request] != NEVER:
                continue
            if definite and not throttled:
                self._complete(request, now, "refused", reason)
                continue
            self.throttled[request] += throttled
            heapq.heappush(self._wake, (now + self.backoff, request))

    def _complete(self, request: int, now: int, outcome: str | None, reason: str | None) -> None:
        self.completed[request] = now
        self.outcomes[request], self.reasons[request] = outcome, reason
        self.open_requests -= 1

    def peer_lost(self) -> None:
        """The connection broke: everything open is asked again, under the same ids."""
        now = self.clock()
        for members in self._messages.values():
            for request in members:
                if self.completed[request] == NEVER:
                    heapq.heappush(self._wake, (now + self.backoff, request))
        self._messages.clear()
        self._due.clear()

    def next_deadline(self) -> int | None:
        """When :meth:`tick` wants to be called next."""
        if self.started_at == NEVER:
            return None
        times = [heap[0][0] for heap in (self._due, self._wake) if heap]
        if self.next < len(self.requests) and self.open_requests < self.window:
            times.append(int(self.intended[self.next]))
        return min(times, default=None)

    def table(self) -> pa.Table:
        """The history, in the schema of :data:`eventmesh.history.CALLERS`."""

        def times(values: np.ndarray) -> pa.Array:
            return pa.array(values, pa.int64(), mask=values == NEVER)

        count = len(self.requests)
        columns = [
            pa.array(np.arange(count, dtype=np.int64)),
            pa.array(self.requests.commands, pa.string()),
            pa.array(self.requests.keys, pa.string()),
            *(times(values) for values in (self.intended, self.sent, self.accepted, self.completed)),
            pa.array(self.outcomes, pa.string()),
            pa.array(self.reasons, pa.string()),
            pa.array(self.attempts),
            pa.array(self.throttled),
        ]
        return pa.Table.from_arrays(columns, schema=CALLERS)


@dataclass(frozen=True)
class WorkloadOptions:
    """What an application's ``workload(options)`` is made from.

    ``rate`` is requests per second, None as fast as possible. Without an ``input`` (and its ``mapping``)
    ``orders`` are generated from ``seed``, with ``generate`` as further arguments of the generator.
    """

    seed: int = 0
    orders: int = 1_000
    input: Path | None = None
    mapping: Path | None = None
    rate: float | None = None
    stock_fraction: float = 1.0
    generate: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Workload:
    """What a run asks: first the seeding, stage by stage and each to its end, then the load.

    ``window`` bounds the open requests of the load; ``summary`` is the report's ``import`` section.
    """

    seeding: Sequence[Requests]
    load: Requests
    window: int = 1_000_000
    summary: Mapping[str, Any] | None = None
    write_refused: Callable[[Path], None] | None = None  # writes the rows of the input that were refused

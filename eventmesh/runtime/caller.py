"""A caller: sends requests when they are due, repeats what was not answered, keeps its own history. No I/O.

Open loop: each request has an intended time, and latency counts from it, whether or not the caller was
late itself. As fast as possible: all are intended at once, and at most ``window`` are open. A request
is repeated under its own id until an answer is final, so a lost answer is never a lost request. What it
asks and was told stands in its :class:`~eventmesh.runtime.journal.Journal`; a caller whose process was
killed goes on from there.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping

import google_crc32c
import numpy as np
import pyarrow as pa

from eventmesh.declared import MessageType
from eventmesh.errors import EventmeshError, Throttled
from eventmesh.history import CALLERS
from eventmesh.log.evolution import fitted
from eventmesh.log.topic import Topic, partitions_for
from eventmesh.messages import Columns, fingerprints
from eventmesh.runtime.effects import Address, AskMessage, Effect, ReplyMessage, SendAsk
from eventmesh.runtime.journal import NEVER, Journal
from eventmesh.workload import Requests

#: Open requests at most where nothing else is said: no bound for an open loop.
WINDOW = 1_000_000
#: Microseconds between two looks at the schedule where more than :data:`CROWD` requests fall due in between:
#: they are sent together. The wait counts as latency like any other, since that is taken from the intended time.
TICK = 2_000
CROWD = 4
DOUBLINGS_MAX, PATIENCE_DOUBLINGS_MAX = 20, 3
#: The reason of a request that ended without an outcome.
GIVEN_UP = "given up: the mesh has nothing left to do, and no outcome came"


class Caller:
    """One source of load.

    ``journal`` is one of the same name and requests (``DataDirectoryError`` otherwise); without it there is one in
    memory. ``window`` is the journal's, unless it is named. Times are microseconds.
    """

    def __init__(
        self,
        name: str,
        requests: Requests,
        *,
        messages: Mapping[str, MessageType],
        owned: Mapping[str, Topic],
        clock: Callable[[], int],
        emit: Callable[[Effect], None],
        window: int | None = None,
        journal: Journal | None = None,
        batch_rows_max: int = 500,
        patience: int = 5_000_000,
        backoff: int = 50_000,
        backoff_max: int = 2_000_000,
        seed: int = 0,
    ) -> None:
        self.name, self.requests, self.messages = name, requests, messages
        self.clock, self.emit = clock, emit
        self.journal = journal or Journal.in_memory(name, requests, window or WINDOW)
        self.journal.check(name, requests)
        self.window = window or self.journal.window
        self.batch_rows_max, self.patience, self.seed = batch_rows_max, patience, seed
        self.backoff, self.backoff_max = backoff, backoff_max
        self.sent, self.accepted, self.completed = self.journal.sent, self.journal.accepted, self.journal.completed
        self.attempts, self.throttled = self.journal.attempts, self.journal.throttled
        self.intended = np.full(len(requests), NEVER, np.int64)
        self.life = 0
        self.next = 0
        self.open_requests = 0
        self._targets, self._target = _targets(requests, messages, owned)
        self._questions = {
            command: fitted(requests.payload, messages[command].question) for command in set(requests.commands)
        }
        self._ticked_at = NEVER
        self._again: list[int] = []
        self._messages: dict[str, tuple[int, list[int]]] = {}  # ask id -> its number, requests by row
        # The number of the message that each request was last sent in; NEVER while it waits to be sent again. So it is
        # at most one message that a request is repeated for, however many were sent.
        self._sent_in = np.full(len(requests), NEVER, np.int64)
        self._repeats = np.zeros(len(requests), np.int64)  # for want of an answer
        self._due: list[tuple[int, str]] = []
        self._wake: list[tuple[int, int]] = []
        self._count = 0

    def start(self) -> None:
        """Time zero of the schedule is now."""
        assert self.journal.lives == 0, f"{self.name} has begun already: resume it"
        self.resume()

    def resume(self) -> None:
        """Go on where an earlier life was killed; the first begins.

        What was sent and has no outcome is asked again at once under its own id, what fell due meanwhile is sent late.
        """
        now = self.clock()
        self.life = self.journal.begin_life(now)
        self._dice = np.random.default_rng([self.seed, google_crc32c.value(self.name.encode()), self.life])
        self.intended = self.journal.started_at + self.requests.at
        self.next = self.journal.next
        self._again = np.flatnonzero(self.completed[: self.next] == NEVER).tolist()
        self.open_requests = len(self._again)
        self.tick(now)

    @property
    def outcomes(self) -> list[str | None]:
        """The outcome of each request, None where there is none yet."""
        outcomes: list[str | None] = self.journal.words.texts(self.journal.outcomes).to_pylist()
        return outcomes

    @property
    def done(self) -> bool:
        """Every request has its outcome."""
        return self.next == len(self.requests) and self.open_requests == 0

    def tick(self, now: int) -> None:
        """Send what is due, repeat what is overdue."""
        self._ticked_at = now
        self._repeat_overdue(now)
        last = int(np.searchsorted(self.intended, now, side="right"))
        last = max(self.next, min(last, self.next + self.window - self.open_requests))
        due = [*self._again, *range(self.next, last)]
        self._again.clear()
        self.sent[self.next : last] = now  # in the journal before anything leaves
        self.open_requests += last - self.next
        self.next = last
        if due:
            self._send(np.array(due), now)

    def _repeat_overdue(self, now: int) -> None:
        while self._due and self._due[0][0] <= now:
            overdue = self._unanswered(*self._messages.pop(heapq.heappop(self._due)[1], (0, [])))
            self._repeats[overdue] += 1
            self._again += overdue
        while self._wake and self._wake[0][0] <= now:
            self._again.append(heapq.heappop(self._wake)[1])

    def _unanswered(self, number: int, requests: list[int]) -> list[int]:
        """Those of a message that have no outcome, and were sent in no later one."""
        return [one for one in requests if self._sent_in[one] == number and self.completed[one] == NEVER]

    def _send(self, due: np.ndarray, now: int) -> None:
        targets = self._target[due]
        for target in np.unique(targets):
            members = due[targets == target]
            command, partition = self._targets[target]
            for start in range(0, len(members), self.batch_rows_max):
                self._send_message(command, partition, members[start : start + self.batch_rows_max], now)

    def _send_message(self, command: str, partition: int, members: np.ndarray, now: int) -> None:
        self._count += 1
        ask = f"{self.name}:{self.life}:{self._count}"  # never one of an earlier life, whose answers may still come
        requests = members.tolist()
        self._messages[ask] = self._count, requests
        self._sent_in[members] = self._count
        # Who does not answer may have too much to do: twice the patience each time, so that repeats do not add to it.
        patience = self.patience << min(int(self._repeats[members].max()), PATIENCE_DOUBLINGS_MAX)
        heapq.heappush(self._due, (now + patience, ask))
        self.attempts[members] += 1
        ids = [f"{self.name}:{command}:{request}" for request in requests]
        questions = _rows(self._questions[command], members)
        message = AskMessage(ask, command, ids, Columns(questions), self.name)
        self.emit(SendAsk(Address(self.messages[command].service, partition), message))

    def replied(self, reply: ReplyMessage) -> None:
        """An answer to some of the requests of one message."""
        number, members = self._messages.get(reply.ask, (0, []))
        if not members:
            return
        now = self.clock()
        requests = [members[index] for index in reply.indexes]
        if reply.error is not None:
            self._failed(self._unanswered(number, requests), now, reply.error)
            return
        accepted = self.accepted[requests]
        self.accepted[requests] = np.where(accepted == NEVER, now, accepted)
        if reply.final:
            for request, row in zip(requests, reply.rows, strict=True):
                if self.completed[request] == NEVER:
                    self._complete(request, now, row.get("outcome"), row.get("reason"), bool(row.get("repeated")))

    def _failed(self, requests: list[int], now: int, error: EventmeshError) -> None:
        if isinstance(error, Throttled):
            self.throttled[requests] += 1
            self._come_back(requests, now)
        elif error.definite:
            for request in requests:
                self._complete(request, now, "refused", str(error))
        else:
            self._come_back(requests, now)

    def _come_back(self, requests: list[int], now: int) -> None:
        """Ask again after a while, twice as long for each time a request was throttled; not all at the same time.

        Exponential backoff with jitter, as in AWS's *Exponential Backoff and Jitter* (Brooker, 2015).
        """
        doubled = np.clip(self.throttled[requests] - 1, 0, DOUBLINGS_MAX)
        spans = np.minimum(self.backoff << doubled.astype(np.int64), self.backoff_max)
        at = now + (spans * (0.5 + self._dice.random(len(requests)))).astype(np.int64)
        at += -at % TICK  # those of one tick share a message
        self._sent_in[requests] = NEVER
        for when, request in zip(at.tolist(), requests, strict=True):
            heapq.heappush(self._wake, (when, request))

    def _complete(
        self, request: int, now: int, outcome: str | None, reason: str | None, repeated: bool = False
    ) -> None:
        journal = self.journal
        codes = journal.words.code(outcome), journal.words.code(reason)
        journal.outcomes[request], journal.reasons[request] = codes
        journal.repeated[request] = repeated
        self.completed[request] = now  # last: from here on the request is never asked again
        self.open_requests -= 1

    def peer_lost(self) -> None:
        """The connection broke: everything open is asked again, under the same ids."""
        open_requests = [one for message in self._messages.values() for one in self._unanswered(*message)]
        self._messages.clear()
        self._due.clear()
        self._come_back(open_requests, self.clock())

    def give_up(self) -> None:
        """Whoever waits for an outcome waits in vain: what was sent and has none ends without one."""
        for request in np.flatnonzero(self.completed[: self.next] == NEVER).tolist():
            self._complete(request, self.clock(), None, GIVEN_UP)

    def next_deadline(self) -> int | None:
        """When :meth:`tick` wants to be called next."""
        if self.life == 0:
            return None
        times = [heap[0][0] for heap in (self._due, self._wake) if heap]
        if self.next < len(self.requests) and self.open_requests < self.window:
            times.append(self._next_look())
        return min(times, default=None)

    def _next_look(self) -> int:
        due, later = int(self.intended[self.next]), self._ticked_at + TICK
        crowded = self.next + CROWD < len(self.requests) and self.intended[self.next + CROWD] <= later
        return max(due, later) if crowded else due

    def table(self) -> pa.Table:
        """The history, in the schema of :data:`eventmesh.history.CALLERS`."""

        def times(values: np.ndarray) -> pa.Array:
            return pa.array(values, pa.int64(), mask=values == NEVER)

        count = len(self.requests)
        words, given_up = self.journal.words, self.journal.words.known(GIVEN_UP)
        undone = (self.completed == NEVER) | ((self.journal.outcomes == NEVER) & (self.journal.reasons == given_up))
        columns = [
            pa.array(np.arange(count, dtype=np.int64)),
            pa.array(self.requests.commands, pa.string()),
            pa.array(self.requests.keys, pa.string()),
            *(times(values) for values in (self.intended, self.sent, self.accepted)),
            times(np.where(undone, NEVER, self.completed)),
            words.texts(self.journal.outcomes),
            words.texts(self.journal.reasons),
            pa.array(self.attempts),
            pa.array(self.throttled),
            pa.array(self.journal.repeated.astype(bool), mask=undone),
            pa.array(self._contents(), pa.string()),
        ]
        return pa.Table.from_arrays(columns, schema=CALLERS)

    def _contents(self) -> list[str | None]:
        """The fingerprint of each request; None where its name alone says what it asks."""
        contents: list[str | None] = [None] * len(self.requests)
        commands = np.array(self.requests.commands, object)
        for command, questions in self._questions.items():
            if names := self.messages[command].content:
                places = np.flatnonzero(commands == command)
                asked = Columns(questions.take(pa.array(places)))
                for place, content in zip(places.tolist(), fingerprints(asked, names), strict=True):
                    contents[place] = content
        return contents


def _targets(
    requests: Requests, messages: Mapping[str, MessageType], owned: Mapping[str, Topic]
) -> tuple[list[tuple[str, int]], np.ndarray]:
    """Every (command, partition) that is asked, and the number of each request's: int64, shape (n,)."""
    targets: list[tuple[str, int]] = []
    target = np.zeros(len(requests), np.int64)
    commands, keys = np.array(requests.commands, object), pa.array(requests.keys, pa.string())
    for command in sorted(set(requests.commands)):
        topic = owned[messages[command].service]
        places = np.flatnonzero(commands == command)
        target[places] = partitions_for(keys.take(pa.array(places)), topic.partitions) + len(targets)
        targets += [(command, partition) for partition in range(topic.partitions)]
    return targets, target


def _rows(batch: pa.RecordBatch, places: np.ndarray) -> pa.RecordBatch:
    """These rows, as a slice where they follow each other: nothing is copied then."""
    first, count = int(places[0]), len(places)
    return batch.slice(first, count) if (np.diff(places) == 1).all() else batch.take(pa.array(places))

"""What a task has asked and not yet heard: deadlines, repeats with backoff, answers in any order.

Every repeat goes out under the same ids. When attempts end, the asker is told *may have happened*;
only an answer that says so is a definite no.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from eventmesh.configuration import suggestion
from eventmesh.declared import MessageType
from eventmesh.errors import AskTimeout, BoundaryCrossed, EventmeshError, Throttled
from eventmesh.log.topic import Topic, partition_for
from eventmesh.messages import Columns
from eventmesh.runtime.effects import Address, AskMessage, ReplyMessage, Row, SendAsk
from eventmesh.runtime.limits import Counters, Limits
from eventmesh.runtime.pending import Pending
from eventmesh.service import UNTIL_ANSWERED
from eventmesh.values import DoesNotFit


@dataclass(slots=True)
class OpenAsk:
    """One question (or the part of it that one partition answers) until all its rows are answered."""

    to: Address
    message: AskMessage
    attempts_left: int
    places: list[tuple[Gathering, int]]  # where each answer row belongs
    answered: set[int] = field(default_factory=set)
    repeats: int = 0
    due_at: int = 0


@dataclass(slots=True)
class Gathering:
    """The whole answer, gathered from the partitions asked."""

    pending: Pending
    rows: list[Row | None]
    missing: int


@dataclass
class Asks:
    """The open questions of one task."""

    sender: str
    messages: Mapping[str, MessageType]
    owned: Mapping[str, Topic]  # service -> the topic it owns
    allowed: Collection[str]  # the services that the mesh file lets it ask
    limits: Limits
    clock: Callable[[], int]
    emit: Callable[[SendAsk], None]
    counters: Counters
    incarnation: str = ""
    batching: bool = False
    _waiting: dict[tuple[Address, str, int], tuple[list[Row], list[tuple[Gathering, int]]]] = field(
        default_factory=dict
    )
    _open: dict[str, OpenAsk] = field(default_factory=dict)
    _due: list[tuple[int, str]] = field(default_factory=list)
    _count: int = 0

    def query(self, name: str, rows: list[Row], attempts: int | None = None) -> Pending:
        """Ask each row of the partition that its key names; the answer has one row per question row."""
        kind = self.kind(name)
        rows = kind.question_shape.all_whole(rows, name)
        topic = self.owned[kind.service]
        gathering = Gathering(Pending(), [None] * len(rows), len(rows))
        places: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            partition = 0 if kind.key is None else partition_for(str(row[kind.key]), topic.partitions)
            places.setdefault(partition, []).append(index)
        for partition, indexes in places.items():
            to, asked = Address(kind.service, partition), [rows[i] for i in indexes]
            batch = self._waiting.setdefault((to, name, attempts or UNTIL_ANSWERED), ([], []))
            batch[0].extend(asked)
            batch[1].extend((gathering, i) for i in indexes)
        if not self.batching:
            self.flush()
        if not rows:
            gathering.pending.resolve([])
        return gathering.pending

    def command(
        self, story: str, name: str, row: Row, attempts: int, partition: int | None, part: str, sent: set[str]
    ) -> Pending:
        """Send one command under the id that it has in this ``story``: the same whenever it is sent again.

        ``sent`` are the ids that this conversation has sent. ``TypeError`` for a second one of the same: the receiver
        would take it for a repeat of the first.
        """
        kind = self.kind(name)
        row = kind.question_shape.whole(row, name)
        if partition is None:
            assert kind.key is not None, f"{name} has no key: name the partition"
            partition = partition_for(str(row[kind.key]), self.owned[kind.service].partitions)
        gathering = Gathering(Pending(), [None], 1)
        identity = f"{self.sender}:{name}:{story}:{partition}" + (f":{part}" if part else "")
        if identity in sent:
            named = f"a second time as part {part!r}" if part else "twice"
            raise TypeError(f"one conversation sends {name} {named}: name each of them, command(..., part='tip')")
        sent.add(identity)
        self._send(Address(kind.service, partition), name, [identity], [row], attempts, [(gathering, 0)])
        return gathering.pending

    def kind(self, name: str) -> MessageType:
        """What is asked. Nothing is sent where it raises ``DoesNotFit`` or ``BoundaryCrossed``."""
        if name not in self.messages:
            raise DoesNotFit(f"{name} is no command or query of the application. {suggestion(name, self.messages)}")
        kind = self.messages[name]
        if kind.service not in self.allowed:
            raise BoundaryCrossed(
                f"{self.sender} may not send {name} to {kind.service}: by the mesh file it may ask "
                f"{', '.join(sorted(self.allowed))}. Add {kind.service} to the asks of its service, within one context"
            )
        return kind

    def flush(self) -> None:
        """Send the queries that wait; where queries are batched, those of a step are one message per partition."""
        waiting, self._waiting = self._waiting, {}
        for (to, name, attempts), (rows, places) in waiting.items():
            self._send(to, name, [], rows, attempts, places)

    def _send(
        self,
        to: Address,
        name: str,
        ids: list[str],
        rows: list[Row],
        attempts: int,
        places: list[tuple[Gathering, int]],
    ) -> None:
        self._count += 1
        ask_id = f"{self.sender}:{self.incarnation}:{self._count}"
        message = AskMessage(ask_id, name, ids, Columns(rows=rows), self.sender)
        ask = OpenAsk(to, message, attempts - 1, places)
        self._open[ask_id] = ask
        self._emit(ask, self.limits.attempt_timeout)

    def _emit(self, ask: OpenAsk, patience: int) -> None:
        self.counters.asks_sent += 1
        self._schedule(ask, patience)
        self.emit(SendAsk(ask.to, ask.message))

    def _schedule(self, ask: OpenAsk, patience: int) -> None:
        ask.due_at = self.clock() + patience
        heapq.heappush(self._due, (ask.due_at, ask.message.id))

    def _backoff(self, ask: OpenAsk) -> int:
        return min(self.limits.backoff << min(ask.repeats, 10), self.limits.backoff_max)

    def replied(self, reply: ReplyMessage) -> None:
        """Take an answer; one that nobody waits for any more is dropped."""
        ask = self._open.get(reply.ask)
        if ask is None or not reply.final:
            return
        if isinstance(reply.error, Throttled) or (reply.error is not None and not reply.error.definite):
            self._schedule(ask, self._backoff(ask))
            return
        if reply.error is not None:
            self._fail(ask, reply.error)
            return
        for index, row in zip(reply.indexes, reply.rows, strict=True):
            if index not in ask.answered:
                ask.answered.add(index)
                self._fill(ask, *ask.places[index], row)
        if len(ask.answered) == len(ask.places):
            self._close(ask)

    def _fill(self, ask: OpenAsk, gathering: Gathering, place: int, row: Row) -> None:
        gathering.rows[place] = row
        gathering.missing -= 1
        if gathering.missing == 0:
            gathering.pending.resolve(gathering.rows[0] if ask.message.ids else gathering.rows)

    def _fail(self, ask: OpenAsk, error: EventmeshError) -> None:
        self._close(ask)
        for pending in {id(gathering): gathering.pending for gathering, _ in ask.places}.values():
            if not pending.resolved:
                pending.resolve(None, error)

    def _close(self, ask: OpenAsk) -> None:
        self._open.pop(ask.message.id, None)

    def next_deadline(self) -> int | None:
        """When :meth:`tick` wants to be called next."""
        while self._due and not self._current(*self._due[0]):
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def _current(self, due_at: int, ask_id: str) -> bool:
        ask = self._open.get(ask_id)
        return ask is not None and ask.due_at == due_at

    def tick(self, now: int) -> None:
        """Repeat what is overdue, give up where attempts ended."""
        while (due := self.next_deadline()) is not None and due <= now:
            _, ask_id = heapq.heappop(self._due)
            ask = self._open[ask_id]
            if ask.attempts_left <= 0:
                waited = f"{ask.repeats + 1} attempts of {self.limits.attempt_timeout / 1e6:g} s"
                error = AskTimeout(f"{ask.to.service}/{ask.to.partition} did not answer {ask.message.name} in {waited}")
                self._fail(ask, error)
                continue
            ask.attempts_left -= 1
            ask.repeats += 1
            self.counters.asks_retried += 1
            self._emit(ask, self.limits.attempt_timeout + self._backoff(ask))

    def lost(self, service: str) -> None:
        """The connection to ``service`` broke: what is open there is asked again after a backoff, or sooner.

        What waits already is not put off: while a service is away each new ask finds that out, and if each put off all
        that came before it, none would ever be repeated, nor given up.
        """
        for ask in self._open.values():
            if ask.to.service == service and ask.due_at > self.clock() + self._backoff(ask):
                self._schedule(ask, self._backoff(ask))

    def clear(self) -> None:
        """Forget all open questions: their conversations run again after the fold."""
        self._open.clear()
        self._waiting.clear()
        self._due.clear()

    def __len__(self) -> int:
        return len(self._open)

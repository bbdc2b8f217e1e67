"""What a task has asked and not yet heard: attempts by the policies of the mesh file, answers in any order.

Every repeat goes out under the same ids. When attempts end, the asker is told *may have happened*; a definite no is an
answer that says so, or a policy that let nothing out where nothing can have gone out before. What its rule asks *until
it is answered* no policy ends: it is held back, and goes out in the end.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

from eventmesh.configuration import suggestion
from eventmesh.declared import MessageType
from eventmesh.errors import (
    AskTimeout,
    BoundaryCrossed,
    BulkheadFull,
    CircuitOpen,
    EventmeshError,
    Throttled,
)
from eventmesh.log.topic import Topic, partition_for
from eventmesh.messages import Columns
from eventmesh.runtime.ask_policy import Bulkhead, Guard, Guards, question_of
from eventmesh.runtime.effects import Address, AskMessage, ReplyMessage, Row, SendAsk
from eventmesh.runtime.limits import Counters
from eventmesh.runtime.open_ask import Gathering, OpenAsk
from eventmesh.runtime.pending import Pending
from eventmesh.service import UNTIL_ANSWERED
from eventmesh.values import DoesNotFit

#: What the id of a hedge has after that of the ask.
HEDGE = ":hedge"


@dataclass
class Asks:
    """The open questions of one task. ``guards`` are those of its process; ``seed`` is of the dice for jitter."""

    sender: str
    messages: Mapping[str, MessageType]
    owned: Mapping[str, Topic]  # service -> the topic it owns
    allowed: Collection[str]  # the services that the mesh file lets it ask
    guards: Guards
    clock: Callable[[], int]
    emit: Callable[[SendAsk], None]
    counters: Counters
    incarnation: str = ""
    batching: bool = False
    seed: int = 0
    _waiting: dict[tuple[Address, str, int], tuple[list[Row], list[tuple[Gathering, int]]]] = field(
        default_factory=dict
    )
    _open: dict[str, OpenAsk] = field(default_factory=dict)
    _due: list[tuple[int, str]] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        self._dice = Random(f"asks of {self.sender} in {self.incarnation} of {self.seed}")

    # --- asking -----------------------------------------------------------------------------------

    def query(self, name: str, rows: list[Row], attempts: int | None = None) -> Pending:
        """Ask each row of the partition that its key names; the answer has one row per question row."""
        kind = self.kind(name)
        rows = kind.question_shape.all_whole(rows, name)
        guard = self.guards.of(kind)
        attempts = self._attempts(kind, guard, attempts or UNTIL_ANSWERED)
        gathering = Gathering.of(len(rows))
        unknown = self._not_kept(kind, guard, rows, gathering)
        for to, indexes in self._by_partition(kind, rows, unknown):
            batch = self._waiting.setdefault((to, name, attempts), ([], []))
            batch[0].extend(rows[i] for i in indexes)
            batch[1].extend((gathering, i) for i in indexes)
        if not self.batching:
            self.flush()
        if not gathering.missing:
            gathering.pending.resolve(gathering.rows)
        return gathering.pending

    def _by_partition(
        self, kind: MessageType, rows: list[Row], indexes: Iterable[int]
    ) -> Iterator[tuple[Address, list[int]]]:
        partitions = self.owned[kind.service].partitions
        places: dict[int, list[int]] = {}
        for index in indexes:
            partition = 0 if kind.key is None else partition_for(str(rows[index][kind.key]), partitions)
            places.setdefault(partition, []).append(index)
        for partition, each in places.items():
            yield Address(kind.service, partition), each

    def _not_kept(self, kind: MessageType, guard: Guard, rows: list[Row], gathering: Gathering) -> Iterable[int]:
        """The rows that no answer is kept for; those that are known are filled in, and the stale ones asked again."""
        cache, counts, now = guard.cache, guard.counts, self.clock()
        if cache is None:
            return range(len(rows))
        unknown, again = [], []
        for index, row in enumerate(rows):
            question = question_of(kind, row)
            found = cache.find(question, now)
            if found is None:
                counts.cache_misses += 1
                unknown.append(index)
                continue
            answer, state = found
            gathering.fill(index, answer)
            counts.cache_hits += state == "fresh"
            counts.cache_stale += state == "stale"
            if state == "stale" and cache.asks_again(question):
                again.append(index)
        nobody = Gathering.of(len(rows))
        for to, indexes in self._by_partition(kind, rows, again):
            self._send(to, kind, guard, [], [rows[i] for i in indexes], 1, [(nobody, i) for i in indexes])
        return unknown

    def command(
        self,
        story: str,
        name: str,
        row: Row,
        attempts: int,
        partition: int | None,
        part: str,
        sent: set[str],
        *,
        unsent: bool = False,
    ) -> Pending:
        """Send one command under the id that it has in this ``story``: the same whenever it is sent again.

        ``sent`` are the ids that this conversation has sent. ``TypeError`` for a second one of the same: the receiver
        would take it for a repeat of the first. ``unsent``: no life of this conversation before can have sent it.
        """
        kind = self.kind(name)
        row = kind.question_shape.whole(row, name)
        guard = self.guards.of(kind)
        attempts = self._attempts(kind, guard, attempts)
        if partition is None:
            assert kind.key is not None, f"{name} has no key: name the partition"
            partition = partition_for(str(row[kind.key]), self.owned[kind.service].partitions)
        gathering = Gathering.of(1)
        identity = f"{self.sender}:{name}:{story}:{partition}" + (f":{part}" if part else "")
        if identity in sent:
            named = f"a second time as part {part!r}" if part else "twice"
            raise TypeError(f"one conversation sends {name} {named}: name each of them, command(..., part='tip')")
        sent.add(identity)
        to = Address(kind.service, partition)
        self._send(to, kind, guard, [identity], [row], attempts, [(gathering, 0)], unsent=unsent)
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

    def _attempts(self, kind: MessageType, guard: Guard, attempts: int) -> int:
        """How many there are: those of the mesh file in place of the rule's, but where that asks until answered."""
        if attempts < UNTIL_ANSWERED:
            return guard.retry.attempts or attempts
        if guard.ends:
            problem = f"{self.sender} asks {kind.name} until it is answered, and the mesh file says {guard.ends} of it"
            raise TypeError(f"{problem}. Pass attempts where it is asked, or take that out of its policy")
        return attempts

    def flush(self) -> None:
        """Send the queries that wait; where queries are batched, those of a step are one message per partition."""
        waiting, self._waiting = self._waiting, {}
        for (to, name, attempts), (rows, places) in waiting.items():
            kind = self.messages[name]
            self._send(to, kind, self.guards.of(kind), [], rows, attempts, places)

    # --- sending ----------------------------------------------------------------------------------

    def _send(
        self,
        to: Address,
        kind: MessageType,
        guard: Guard,
        ids: list[str],
        rows: list[Row],
        attempts: int,
        places: list[tuple[Gathering, int]],
        *,
        unsent: bool = True,
    ) -> None:
        self._count += 1
        ask_id = f"{self.sender}:{self.incarnation}:{self._count}"
        message = AskMessage(ask_id, kind.name, ids, Columns(rows=rows), self.sender)
        persists = attempts >= UNTIL_ANSWERED
        ask = OpenAsk(to, message, guard, attempts - 1, places, persists, unsent)
        if guard.cache is not None:
            ask.questions = [question_of(kind, row) for row in rows]
        if guard.retry.deadline is not None and not persists:
            ask.deadline_at = self.clock() + guard.retry.deadline
        self._open[ask_id] = ask
        self._enter(ask)

    def _enter(self, ask: OpenAsk) -> None:
        """An attempt, if the bulkhead has a place for the ask."""
        bulkhead, counts, name = ask.guard.bulkhead, ask.guard.counts, ask.message.id
        if bulkhead is None or bulkhead.enter(name):
            self._attempt(ask)
            return
        is_new = not bulkhead.waits(name)
        if not bulkhead.wait(name, partial(self._entered, ask), in_any_case=ask.persists):
            counts.bulkhead_full += 1
            self._not_let_out(ask, self._no_place(ask, bulkhead))
            return
        counts.bulkhead_queued += is_new
        if ask.persists:
            ask.due_at = None  # until there is a place
        else:
            self._not_let_out(ask, self._no_place(ask, bulkhead), self.clock() + ask.guard.retry.timeout)

    def _no_place(self, ask: OpenAsk, bulkhead: Bulkhead) -> BulkheadFull:
        limit = f"{bulkhead.in_flight_max} asks are on their way and {bulkhead.queued} wait for a place"
        return BulkheadFull(f"{self._named(ask)} was not sent: {limit}; ask again later")

    def _entered(self, ask: OpenAsk) -> None:
        """There is a place now. Another task may have made it, in whose step nothing may be decided here."""
        ask.then, ask.due_at = "begin", self.clock()
        self._wake(ask)

    def _attempt(self, ask: OpenAsk) -> None:
        breaker, now = ask.guard.breaker, self.clock()
        turn = 0 if breaker is None else breaker.let_out(now)
        if turn is not None:
            self._emit(ask, turn)
        elif breaker is not None:
            ask.guard.counts.circuit_not_permitted += 1
            error = CircuitOpen(f"{self._named(ask)} was not sent: its circuit is {breaker.state}; ask again later")
            self._not_let_out(ask, error, breaker.half_open_at if ask.persists else 0)

    def _not_let_out(self, ask: OpenAsk, error: EventmeshError, not_before: int = 0) -> None:
        """A definite no where nothing can have gone out, told in a step of its own. All others try again later."""
        now = self.clock()
        if ask.unsent and not ask.persists:
            ask.then, ask.due_at = "tell", max(now, not_before)
        else:
            pause = ask.guard.retry.pause(ask.repeats, self._dice)
            ask.then, ask.due_at = "repeat", max(now + pause, not_before)
        ask.refusal = error
        self._wake(ask)

    def _emit(self, ask: OpenAsk, turn: int) -> None:
        """Send an attempt; ``turn`` is the breaker's."""
        now, guard = self.clock(), ask.guard
        retry = guard.retry
        if ask.asked_at is None:
            ask.asked_at = now
        else:
            self.counters.asks_retried += 1
            guard.counts.repeats += 1
        ask.unsent, ask.then, ask.refusal = False, "repeat", None
        ask.due_at = now + retry.timeout + retry.pause_after_timeout(ask.repeats, self._dice)
        if guard.breaker is not None:
            ask.over_at = now + retry.timeout
        if guard.hedge_after is not None:
            ask.hedge_at = now + guard.hedge_after
        self._wake(ask)
        self._fly(ask, turn, ask.message)

    def _fly(self, ask: OpenAsk, turn: int, message: AskMessage) -> None:
        self.counters.asks_sent += 1
        ask.guard.counts.attempts += 1
        ask.flying.append(turn)
        self.emit(SendAsk(ask.to, message))

    def _hedge(self, ask: OpenAsk) -> None:
        """Another message for the same attempt, unless its circuit is open."""
        breaker = ask.guard.breaker
        turn = 0 if breaker is None else breaker.let_out(self.clock())
        if turn is None:
            return
        ask.guard.counts.hedges_sent += 1
        hedge = replace(ask.message, id=ask.message.id + HEDGE)
        self._open[hedge.id] = ask
        self._fly(ask, turn, hedge)

    # --- answers ----------------------------------------------------------------------------------

    def replied(self, reply: ReplyMessage) -> None:
        """Take an answer; one that nobody waits for any more is dropped."""
        ask = self._open.get(reply.ask)
        if ask is None or not reply.final:
            return
        if isinstance(reply.error, Throttled) or (reply.error is not None and not reply.error.definite):
            self._failed(ask, ask.flying[:1])
            del ask.flying[:1]
            ask.hedge_at, ask.over_at = None, ask.over_at if ask.flying else None
            self._later(ask)
            return
        self._answered(ask, hedged=reply.ask != ask.message.id)
        if reply.error is not None:
            self._fail(ask, reply.error)
            return
        new = dict(zip(reply.indexes, reply.rows, strict=True))
        if ask.answered:
            new = {index: row for index, row in new.items() if index not in ask.answered}
        ask.answered.update(new)
        if len(ask.answered) == len(ask.places):
            self._close(ask)  # before anybody goes on, and asks more
        for index, row in new.items():
            self._fill(ask, index, row)

    def _answered(self, ask: OpenAsk, *, hedged: bool) -> None:
        """The service is there, whatever it said."""
        turns, breaker = ask.lands(), ask.guard.breaker
        if turns and hedged:
            ask.guard.counts.hedges_won += 1
        if turns and breaker is not None:
            breaker.succeeded(turns.pop(-1 if hedged else 0), self.clock())
            self._given_back(ask, turns)

    @staticmethod
    def _given_back(ask: OpenAsk, turns: Iterable[int]) -> None:
        """Nobody waits for what comes of these attempts."""
        if ask.guard.breaker is not None:
            for turn in turns:
                ask.guard.breaker.given_back(turn)

    def _failed(self, ask: OpenAsk, turns: Iterable[int]) -> None:
        """Attempts of these turns had no answer that says anything."""
        breaker = ask.guard.breaker
        if breaker is not None:
            for turn in turns:
                ask.guard.counts.circuit_opened += breaker.failed(turn, self.clock())

    def _fill(self, ask: OpenAsk, index: int, row: Row) -> None:
        gathering, place = ask.places[index]
        if ask.guard.cache is not None and ask.asked_at is not None:
            ask.guard.cache.keep(ask.questions[index], row, ask.asked_at)
        gathering.fill(place, row)
        if gathering.missing == 0:
            gathering.pending.resolve(gathering.rows[0] if ask.message.ids else gathering.rows)

    def _fail(self, ask: OpenAsk, error: EventmeshError) -> None:
        self._close(ask)
        for pending in {id(gathering): gathering.pending for gathering, _ in ask.places}.values():
            if not pending.resolved:
                pending.resolve(None, error)

    def _close(self, ask: OpenAsk) -> None:
        guard = ask.guard
        self._open.pop(ask.message.id, None)
        if guard.hedge_after is not None:
            self._open.pop(ask.message.id + HEDGE, None)
        if ask.flying:
            self._given_back(ask, ask.lands())
        if guard.cache is not None:
            for question in ask.questions:
                guard.cache.asked_again(question)
        if guard.bulkhead is not None:
            guard.bulkhead.leave(ask.message.id)

    def _named(self, ask: OpenAsk) -> str:
        return f"{ask.message.name} to {ask.to.service}/{ask.to.partition}"

    # --- time -------------------------------------------------------------------------------------

    def _wake(self, ask: OpenAsk) -> None:
        """See to it that :meth:`tick` looks at the ask in time."""
        at = ask.wakes_at
        if at is not None:
            heapq.heappush(self._due, (at, ask.message.id))

    def _later(self, ask: OpenAsk) -> None:
        """What waits is asked again after a pause."""
        ask.due_at = self.clock() + ask.guard.retry.pause(ask.repeats, self._dice)
        self._wake(ask)

    def next_deadline(self) -> int | None:
        """When :meth:`tick` wants to be called next."""
        while self._due and not self._current(*self._due[0]):
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def _current(self, at: int, ask_id: str) -> bool:
        ask = self._open.get(ask_id)
        return ask is not None and ask.wakes_at == at

    def tick(self, now: int) -> None:
        """Repeat what is overdue, give up where attempts ended."""
        while (due := self.next_deadline()) is not None and due <= now:
            _, ask_id = heapq.heappop(self._due)
            self._look_at(self._open[ask_id], now)

    def _look_at(self, ask: OpenAsk, now: int) -> None:
        """Do what is due of one ask."""
        if ask.deadline_at is not None and ask.deadline_at <= now:
            self._give_up(ask)
            return
        if ask.over_at is not None and ask.over_at <= now:
            self._time_out(ask)
        if ask.hedge_at is not None and ask.hedge_at <= now:
            ask.hedge_at = None
            self._hedge(ask)
        if ask.due_at is not None and ask.due_at <= now:
            self._go_on(ask)
        else:
            self._wake(ask)

    def _time_out(self, ask: OpenAsk) -> None:
        """The attempts on their way have had their time."""
        turns = ask.lands()
        ask.guard.counts.timeouts += len(turns)
        self._failed(ask, turns)

    def _go_on(self, ask: OpenAsk) -> None:
        """What an ask waited for has come, or its time is over."""
        self._time_out(ask)
        if ask.then == "begin":
            self._attempt(ask)
        elif ask.then == "tell" and ask.refusal is not None:
            self._fail(ask, ask.refusal)
        elif ask.attempts_left <= 0 and not ask.persists:
            self._give_up(ask)
        else:
            ask.attempts_left -= 1
            ask.repeats += 1
            self._enter(ask)

    def _give_up(self, ask: OpenAsk) -> None:
        """Unknown, unless it has waited for a place all the time and was never sent."""
        named, counts, retry = self._named(ask), ask.guard.counts, ask.guard.retry
        if ask.unsent:
            counts.bulkhead_full += 1
            self._fail(ask, BulkheadFull(f"{named} was not sent: it found no place in time; ask again later"))
            return
        counts.given_up += 1
        tries = f"{ask.repeats + 1} attempts of {retry.timeout / 1e6:g} s"
        if retry.deadline is not None and ask.deadline_at is not None and ask.deadline_at <= self.clock():
            tries += f", within {retry.deadline / 1e6:g} s"
        who = f"{ask.to.service}/{ask.to.partition}"
        said = "" if ask.refusal is None else f" ({ask.refusal}; it may have been sent before)"
        self._fail(ask, AskTimeout(f"{who} did not answer {ask.message.name} in {tries}{said}"))

    def lost(self, service: str, partitions: Collection[int] | None = None) -> None:
        """The connection to ``service`` broke: what is open there is asked again after a pause, or sooner.

        What waits already is not put off: while a service is away each new ask finds that out, and if each put off all
        that came before it, none would ever be repeated, nor given up. ``partitions`` are those of the process that is
        gone: only attempts to them have failed; None: all.
        """
        for ask in list(self._open.values()):
            if ask.to.service != service or not ask.flying or ask.due_at is None:
                continue
            turns, before = ask.lands(), ask.due_at
            if partitions is None or ask.to.partition in partitions:
                self._failed(ask, turns)
            else:
                self._given_back(ask, turns)
            self._later(ask)
            ask.due_at = min(ask.due_at, before)
            self._wake(ask)

    def clear(self) -> None:
        """Forget all open questions: their conversations run again after the fold."""
        for ask in list(self._open.values()):
            self._close(ask)
        self._open.clear()
        self._waiting.clear()
        self._due.clear()

    def __len__(self) -> int:
        return len({id(ask) for ask in self._open.values()})

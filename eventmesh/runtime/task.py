"""One partition of one service: fold, decide, append, answer. No I/O, no clock of its own.

A task is granted an epoch, folds its own partition up to the granted end, waits until its views have
reached the vector it finds there, and then decides. Its state runs ahead of what is acknowledged by at
most ``appends_in_flight_max`` appends; replies wait for the append that they rest on (rule 2). When an
append is refused or its fate unknown, everything ahead is thrown away and folded again under a new
epoch (rule 5). A fenced task never asks again (rule 6).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from eventmesh.errors import DidNotHappen, EventmeshError, Fenced, NotOwner, RecordTooLarge, Throttled
from eventmesh.log.batch import Header, LogBatch
from eventmesh.log.topic import Topic
from eventmesh.messages import Columns, MessageType
from eventmesh.progress import Progress, position_name
from eventmesh.runtime.asks import Asks
from eventmesh.runtime.contract import (
    Append,
    AskMessage,
    Counters,
    Effect,
    Exit,
    Limits,
    ReplyMessage,
    RequestGrant,
    Row,
    SendReply,
    Subscribe,
    Unsubscribe,
)
from eventmesh.runtime.conversation import Conversation, Key, Pending
from eventmesh.runtime.facts import FactBatch
from eventmesh.service import Service, read_only
from eventmesh.views import View

Phase = Literal["stopped", "granting", "folding", "catching-up", "live", "dead"]
REFUSED = "InputRefused"
CHUNK_ROWS = 64
Caller = tuple[Any, str, int]  # origin, ask id, row index


@dataclass(slots=True)
class Held:
    """Inputs that wait for each other: what each part said, and the positions they hold open."""

    parts: dict[int, Any] = field(default_factory=dict)
    positions: list[tuple[str, int]] = field(default_factory=list)


@dataclass(slots=True)
class Release:
    """What may be told once an append is acknowledged."""

    replies: dict[tuple[Any, str, bool], tuple[list[int], list[Row]]] = field(default_factory=dict)
    errors: list[SendReply] = field(default_factory=list)
    recorded: list[Pending] = field(default_factory=list)
    answers: list[SendReply] = field(default_factory=list)

    def reply(self, caller: Caller, row: Row, final: bool) -> None:
        """Add one answer row, combined with others for the same message."""
        origin, ask, index = caller
        indexes, rows = self.replies.setdefault((origin, ask, final), ([], []))
        indexes.append(index)
        rows.append(row)

    def effects(self) -> Iterable[SendReply]:
        """Everything to send."""
        for (origin, ask, final), (indexes, rows) in self.replies.items():
            yield SendReply(origin, ReplyMessage(ask, indexes, rows, final))
        yield from self.errors
        yield from self.answers

    def __bool__(self) -> bool:
        return bool(self.replies or self.errors or self.recorded or self.answers)


@dataclass(slots=True)
class InFlight:
    """An append whose fate is not known yet."""

    end: int
    release: Release
    first_input: tuple[str, int] | None


class _FoldAgain(Exception):
    """Half a decision was folded when a rule broke: nothing ahead of the log can be kept."""


class Task:
    """One (service, partition). The runtime calls what happened; effects come out of ``emit``."""

    def __init__(
        self,
        service: Service,
        topic: Topic,
        *,
        inputs: Sequence[str],
        messages: Mapping[str, MessageType],
        owned: Mapping[str, Topic],
        incarnation: str,
        limits: Limits,
        clock: Callable[[], int],
        emit: Callable[[Effect], None],
        counters: Counters,
    ) -> None:
        self.service, self.topic, self.partition = service, topic, service.place.partition
        self.inputs, self.messages = tuple(inputs), messages
        self.incarnation, self.limits, self.clock, self.emit = incarnation, limits, clock, emit
        self.counters = counters
        self.name = position_name(topic.name, self.partition)
        self.views: list[View] = list({id(view): view for view in service.views.values()}.values())
        self.phase: Phase = "stopped"
        self.asks = Asks(
            self.name,
            messages,
            owned,
            limits,
            clock,
            emit,
            self._resolve,
            Pending,
            counters,
            incarnation,
            service.batches_queries,
        )
        self.refused_inputs: dict[tuple[str, int], str] = {}
        self._input_rows_max = CHUNK_ROWS
        self._facts_max = limits.batch_rows_max
        self._wake_at: int | None = None
        self._unanswered: dict[tuple[Any, str], tuple[AskMessage, set[int]]] = {}
        self._clear()

    def _clear(self) -> None:
        """Forget everything that the log can tell again."""
        self.state = self.service.initial()
        self.read_only_state = read_only(self.state)
        self.progress = Progress()
        self.epoch = -1
        self.end = 0
        self.append_number = 0
        self.facts = FactBatch(self.topic, self.service.name)
        self.in_flight: deque[InFlight] = deque()
        self.held: dict[str, Held] = {}
        self.watchers: dict[str, list[Caller]] = {}
        self.conversations: dict[Key, Conversation] = {}
        self.commands: deque[tuple[Any, AskMessage, list[int]]] = deque()
        self.queue: deque[tuple[str, LogBatch, int]] = deque()
        self.received: dict[str, int] = {}
        self.queued_rows = 0
        self.queued_command_rows = 0
        self._release = Release()
        self._required: dict[str, int] = {}
        self._inputs_since_append = 0
        self._first_input: tuple[str, int] | None = None
        self._held_now: set[int] = set()
        self._position: tuple[str, int] | None = None
        self._cause = self._causation = ""
        self._correlation: str | None = None
        self._caller: Caller | None = None
        self._ordinal = 0
        self.asks.clear()

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Ask for an epoch; the fold follows when it is granted."""
        self._wake_at = None
        self.phase = "granting"
        self.emit(RequestGrant(self.partition))

    def granted(self, epoch: int, end: int) -> None:
        """The epoch is ours: fold exactly to ``end``."""
        if self.phase != "granting":
            return
        self.epoch, self.end = epoch, end
        self.phase = "folding"
        self.emit(Subscribe(self.topic.name, self.partition, 0))

    def grant_failed(self, error: EventmeshError) -> None:
        """No epoch: fenced and foreign tasks end, others try again."""
        if isinstance(error, (Fenced, NotOwner)):
            self._die(str(error))
        elif self.phase == "granting":
            self._sleep_then_start()

    def _sleep_then_start(self) -> None:
        self.phase = "stopped"
        self._wake_at = self.clock() + self.limits.refold_delay

    def _die(self, reason: str) -> None:
        self.phase = "dead"
        self._abandon_conversations()
        self.emit(Exit(self.partition, reason))

    def _abandon_conversations(self) -> None:
        for conversation in self.conversations.values():
            if conversation.coroutine is not None:
                conversation.coroutine.close()

    def refold(self) -> None:
        """Throw away what is ahead of the log and fold it again, under a new epoch."""
        self.counters.refolds += 1
        self._abandon_conversations()
        self._clear()
        for (origin, _), (message, indexes) in self._unanswered.items():
            self.commands.append((origin, message, sorted(indexes)))
            self.queued_command_rows += len(indexes)
        self._sleep_then_start()

    # --- the fold -----------------------------------------------------------------------------

    def deliver(self, name: str, entry: LogBatch) -> None:
        """Rows of a partition, in order: our own to fold, or an input to decide on."""
        if name == self.name and self.phase == "folding":
            self._fold(entry)
        elif self.phase == "live" and name in self.inputs and entry.header.end > self.received.get(name, 0):
            self.received[name] = entry.header.end
            self.queue.append((name, entry, 0))
            self.queued_rows += entry.header.rows

    def _fold(self, entry: LogBatch) -> None:
        header = entry.header
        if header.base >= self.end:
            return
        if header.kind == "facts":
            evolve, state = self.service.evolve, self.state
            for fact in _rows(Columns(entry.batch), ("type", "sequence", "time", *self.service.fold)):
                if fact["type"] != REFUSED:
                    evolve(state, fact)
        if header.kind in ("facts", "progressed"):
            self.progress = Progress.from_json(header.progress)
            self._required = dict(header.progress.get("views", {}))
        if header.end >= self.end:
            self.emit(Unsubscribe(self.topic.name, self.partition))
            self.phase = "catching-up"
            self.views_moved()

    def views_moved(self) -> None:
        """Nothing is decided until every view has reached the vector (rule 1)."""
        if self.phase != "catching-up":
            return
        for name, offset in self._required.items():
            view = next((view for view in self.views if name.rpartition("/")[0] in view.topics), None)
            if view is not None and view.next.get(name, 0) < offset:
                return
        self._go_live()

    def _go_live(self) -> None:
        self.phase = "live"
        for name in self.inputs:
            topic, _, partition = name.rpartition("/")
            self.received[name] = self.progress.next.get(name, 0)
            self.emit(Subscribe(topic, int(partition), self.received[name]))
        for kind, rule in self.service.resume.items():
            for key in list(self.service.unfinished(self.state)):
                cause = f"{self.name}/epoch/{self.epoch}/{kind}/{key}"
                self._start(rule, (kind, key), {"key": key}, cause, key, cause)
        self.step()

    # --- what comes in ------------------------------------------------------------------------

    def command(self, origin: Any, message: AskMessage) -> None:
        """A command from a caller; answered when what it led to is acknowledged."""
        if self.phase == "dead" or self.queued_command_rows + len(message.rows) > self.limits.asks_queued_rows_max:
            error = Throttled(f"{self.name} has {self.queued_command_rows} commands waiting; come back later")
            self.emit(SendReply(origin, ReplyMessage(message.id, range(len(message.rows)), (), True, error)))
            return
        indexes = list(range(len(message.rows)))
        self._unanswered[(origin, message.id)] = (message, set(indexes))
        self.commands.append((origin, message, indexes))
        self.queued_command_rows += len(indexes)
        self.step()

    def query(self, origin: Any, message: AskMessage) -> None:
        """Answer from the state, which the handler cannot change; sent when that state is acknowledged."""
        if self.phase != "live":
            error = Throttled(f"{self.name} is {self.phase}; ask again")
            self.emit(SendReply(origin, ReplyMessage(message.id, range(len(message.rows)), (), True, error)))
            return
        self.counters.queries_answered += 1
        reply = SendReply(origin, self._query_answer(message))
        if self.facts:
            self._release.answers.append(reply)
        elif self.in_flight:
            self.in_flight[-1].release.answers.append(reply)
        else:
            self.emit(reply)

    def _query_answer(self, message: AskMessage) -> ReplyMessage:
        """A handler that breaks, by trying to change the state for instance, is the asker's definite no."""
        try:
            answer = self.service.queries[message.name]
            rows = [answer(self.read_only_state, row) for row in message.rows]
        except Exception as defect:
            error = DidNotHappen(f"{self.name} cannot answer {message.name}: {type(defect).__name__}: {defect}")
            return ReplyMessage(message.id, range(len(message.rows)), (), True, error)
        return ReplyMessage(message.id, range(len(rows)), rows)

    def replied(self, reply: ReplyMessage) -> None:
        """An answer to something we asked."""
        self._or_fold_again(lambda: self.asks.replied(reply))
        self.asks.flush()
        self.step()

    def origin_lost(self, origin: Any) -> None:
        """A caller's connection broke: nobody is left to tell; the caller asks again on a new one."""
        for key in [key for key in self._unanswered if key[0] == origin]:
            del self._unanswered[key]

    def tick(self, now: int) -> None:
        """Time has passed."""
        if self._wake_at is not None and now >= self._wake_at:
            self.start()
        self._or_fold_again(lambda: self.asks.tick(now))
        self.step()

    def next_deadline(self) -> int | None:
        """When :meth:`tick` wants to be called next, in microseconds, or None."""
        return min((at for at in (self._wake_at, self.asks.next_deadline()) if at is not None), default=None)

    def appended(self, epoch: int, end: int) -> None:
        """The oldest append in flight is acknowledged."""
        if epoch != self.epoch or not self.in_flight:
            return
        done = self.in_flight.popleft()
        assert done.end == end, f"{self.name}: acknowledged up to {end}, expected {done.end}"
        self._or_fold_again(lambda: self._tell(done.release))
        self.step()

    def append_failed(self, epoch: int, error: EventmeshError) -> None:
        """The oldest append in flight was refused, or nobody knows: fold again, or end."""
        if epoch != self.epoch or self.phase == "dead":
            return
        if isinstance(error, (Fenced, NotOwner)):
            self._die(str(error))
            return
        if isinstance(error, RecordTooLarge):
            self._shrink(error)
        self.refold()

    def _shrink(self, error: RecordTooLarge) -> None:
        """Append fewer facts at a time; what is too large alone becomes a refusal."""
        first = self.in_flight[0].first_input if self.in_flight else None
        if self._input_rows_max == 1 and first is not None:
            self.refused_inputs[first] = str(error)
        self._facts_max = max(1, self._facts_max // 4)
        self._input_rows_max = 1 if self._facts_max == 1 else self._input_rows_max

    def _tell(self, release: Release) -> None:
        for effect in release.effects():
            self._answered(effect.origin, effect.reply)
            self.emit(effect)
        for pending in release.recorded:
            self._resolve(pending, None, None)

    def _answered(self, origin: Any, reply: ReplyMessage) -> None:
        unanswered = self._unanswered.get((origin, reply.ask))
        if unanswered is not None and reply.final:
            unanswered[1].difference_update(reply.indexes)
            if not unanswered[1]:
                del self._unanswered[(origin, reply.ask)]

    # --- deciding -----------------------------------------------------------------------------

    def _or_fold_again(self, go_on: Callable[[], None]) -> None:
        try:
            go_on()
        except _FoldAgain:
            self.refold()

    def step(self) -> None:
        """Decide on what is there and append it, as long as appends may fly."""
        try:
            while self.phase == "live" and len(self.in_flight) < self.limits.appends_in_flight_max:
                self._decide_waiting()
                self.asks.flush()
                if not self._submit():
                    return
        except _FoldAgain:
            self.refold()

    def _decide_waiting(self) -> None:
        full = self._facts_max
        while len(self.facts) < full and len(self.conversations) < self.limits.conversations_max:
            if self.commands:
                self._decide_commands(*self.commands.popleft())
            elif self.queue:
                self._decide_input()
            else:
                return

    def _decide_commands(self, origin: Any, message: AskMessage, indexes: list[int]) -> None:
        self.queued_command_rows -= len(indexes)
        kind = self.messages[message.name]
        key_column = kind.story or kind.key or ""
        for index in indexes:
            identity = message.ids[index] if message.ids else f"{message.id}:{index}"
            row = {**message.rows[index], "type": message.name, "id": identity}
            key = str(row.get(key_column, ""))
            row.setdefault("correlationid", key)
            self._position = None
            self._caller = (origin, message.id, index)
            self._run_rule(message.name, row, identity, key)
        self._caller = None

    def _decide_input(self) -> None:
        name, entry, start = self.queue.popleft()
        base, rows = entry.header.base, entry.header.rows
        stop = min(start + self._input_rows_max, rows)
        if stop < rows:
            self.queue.appendleft((name, entry, stop))
        self.queued_rows -= stop - start
        if entry.header.kind != "facts":
            self.progress.done(name, base + start, base + stop)
            return
        self._decide_rows(name, base, columns_of(entry), start, stop)
        self._mark_done(name, base + start, base + stop)

    def _decide_rows(self, name: str, base: int, columns: Columns, start: int, stop: int) -> None:
        wanted = {"type", "id", "correlationid", *self.service.reads}
        lists = [(column, columns[column]) for column in wanted if columns.has(column)]
        rules, is_done = self.service.rules, self.progress.is_done
        types = columns["type"]
        for index in range(start, stop):
            kind = types[index]
            if kind not in rules or is_done(name, base + index):
                continue
            row = {column: values[index] for column, values in lists}
            self._position = (name, base + index)
            if self._first_input is None:
                self._first_input = self._position
            self._run_rule(kind, row, f"{name}/{base + index}", row["correlationid"])
        self._position = None
        self.counters.inputs += stop - start
        self._inputs_since_append += stop - start

    def _mark_done(self, name: str, start: int, stop: int) -> None:
        at = start
        for offset in sorted(self._held_now):
            self.progress.done(name, at, offset)
            at = offset + 1
        self.progress.done(name, at, stop)
        self._held_now.clear()

    def _run_rule(self, kind: str, row: Row, cause: str, key: str | None) -> None:
        service = self.service
        self._cause, self._causation, self._correlation, self._ordinal = cause, row["id"], row["correlationid"], 0
        if self._position in self.refused_inputs:
            self._refuse(self.refused_inputs[self._position])
            return
        rule = service.rules.get(kind)
        if rule is None:
            self._reply_error(DidNotHappen(f"{service.name} has no rule for {kind} in this wiring"))
            return
        if kind in service.waiting_rules:
            self._start(rule, (kind, key or cause), row, cause, row["correlationid"], row["id"])
            return
        before = len(self.facts)
        try:
            answer = rule(service, self.state, row, self)
        except EventmeshError as refusal:
            self._reply_error(refusal)
        except Exception as defect:
            self._poison(defect, before)
        else:
            if self._caller is not None and answer is not None:
                self._release.reply(self._caller, answer, not answer.pop("more", False))

    def _reply_error(self, error: EventmeshError) -> None:
        if self._caller is not None:
            origin, ask, index = self._caller
            self._release.errors.append(SendReply(origin, ReplyMessage(ask, [index], (), True, error)))

    def _poison(self, defect: Exception, facts_before: int) -> None:
        """An input that makes a rule raise becomes a fact, and the partition goes on (rule 16)."""
        if len(self.facts) > facts_before:
            self._discard(self._position, defect)
        self._refuse(f"{type(defect).__name__}: {defect}")

    def _discard(self, position: tuple[str, int] | None, defect: Exception) -> NoReturn:
        """An input decided half: none of it may stay, and when it comes again it is refused."""
        if position is None:
            raise defect  # a command: the caller is told nothing, the process ends
        self.refused_inputs[position] = f"{type(defect).__name__}: {defect}"
        raise _FoldAgain

    def _refuse(self, reason: str) -> None:
        self.counters.inputs_refused += 1
        position = "" if self._position is None else f"{self._position[0]}/{self._position[1]}"
        self.facts.add(
            self._identity(),
            REFUSED,
            self._correlation,
            self._causation,
            {"position": position, "reason": reason},
            self.end,
            self.clock(),
        )
        self._reply_error(DidNotHappen(f"refused: {reason}"))

    def _identity(self) -> str:
        self._ordinal += 1
        return self._numbered(self._cause, self._ordinal - 1)

    def _numbered(self, cause: str, ordinal: int) -> str:
        """Cause plus ordinal. Partitions that decide on the same input interleave their ordinals: ids stay unique."""
        return f"{cause}#{ordinal * self.topic.partitions + self.partition}"

    # --- what a rule may do (service.Outcome) ---------------------------------------------------

    def fact(self, kind: str, **payload: Any) -> None:
        """Decide a fact: folded at once, appended with the batch."""
        self._fact(self._identity(), kind, self._correlation, self._causation, payload)

    def _fact(self, identity: str, kind: str, correlation: str | None, causation: str, payload: Row) -> None:
        fact = self.facts.add(identity, kind, correlation, causation, payload, self.end, self.clock())
        self.service.evolve(self.state, fact)

    def gather(self, key: str, part: int, value: Any) -> Mapping[int, Any]:
        """Hold this input open under ``key``; all parts so far, by part, the repeats of one counted once."""
        held = self.held.get(key)
        if held is None:
            held = self.held[key] = Held()
        held.parts.setdefault(part, value)
        if self._position is not None:
            held.positions.append(self._position)
            self._held_now.add(self._position[1])
        return held.parts

    def gathered(self, key: str) -> None:
        """What was held under ``key`` is decided."""
        held = self.held.pop(key, None)
        if held is None:
            return
        current = self._position[0] if self._position is not None else None
        for name, offset in held.positions:
            if name == current and offset in self._held_now:
                self._held_now.discard(offset)
            else:
                self.progress.done(name, offset, offset + 1)

    @property
    def watched(self) -> int:
        """How many keys callers watch."""
        return len(self.watchers)

    def watch(self, key: str) -> None:
        """This caller also hears what :meth:`tell` says of ``key``."""
        if self._caller is not None:
            self.watchers.setdefault(key, []).append(self._caller)

    def tell(self, key: str, **answer: Any) -> None:
        """A final reply to the watchers of ``key``."""
        for caller in self.watchers.pop(key, ()):
            self._release.reply(caller, answer, True)

    # --- conversations ------------------------------------------------------------------------

    def _start(
        self, rule: Callable[..., Any], key: Key, row: Row, cause: str, correlation: str | None, causation: str
    ) -> None:
        running = self.conversations.get(key)
        if running is not None:
            if self._caller is not None:
                running.callers.append(self._caller)
            return  # an input that repeats an open one yields nothing of its own
        conversation = Conversation(self, key, cause, correlation, causation)
        if self._caller is not None:
            conversation.callers.append(self._caller)
        if self._position is not None:
            conversation.position = self._position
            self._held_now.add(self._position[1])
        self.conversations[key] = conversation
        conversation.coroutine = rule(self.service, row, conversation)
        self._advance(conversation)

    def _advance(self, conversation: Conversation) -> None:
        assert conversation.coroutine is not None
        before = len(self.facts)
        try:
            pending = conversation.coroutine.send(None)
        except StopIteration as end:
            self._finish(conversation, end.value)
        except EventmeshError as error:
            self._fail(conversation, error)
        except Exception as defect:
            if len(self.facts) > before:
                self._discard(conversation.position, defect)
            self._refuse_conversation(conversation, f"{type(defect).__name__}: {defect}")
        else:
            pending.waiter = conversation

    def _refuse_conversation(self, conversation: Conversation, reason: str) -> None:
        position, self._position = self._position, conversation.position
        self._cause, self._ordinal = conversation.cause, conversation.ordinal
        self._correlation, self._causation = conversation.correlation, conversation.causation
        caller, self._caller = self._caller, None
        self._refuse(reason)
        self._position, self._caller = position, caller
        self._fail(conversation, DidNotHappen(f"refused: {reason}"))

    def _fail(self, conversation: Conversation, error: EventmeshError) -> None:
        for origin, ask, index in conversation.callers:
            self._release.errors.append(SendReply(origin, ReplyMessage(ask, [index], (), True, error)))
        conversation.callers.clear()
        self._finish(conversation, None)

    def _finish(self, conversation: Conversation, answer: Row | None) -> None:
        del self.conversations[conversation.key]
        if answer is not None:
            self.reply_callers(conversation, answer)
        if conversation.position is not None:
            name, offset = conversation.position
            if self._position is not None and self._position[0] == name and offset in self._held_now:
                self._held_now.discard(offset)
            else:
                self.progress.done(name, offset, offset + 1)
            self._inputs_since_append += 1
        for pending in conversation.joined:
            self._resolve(pending, answer, None)

    def reply_callers(self, conversation: Conversation, answer: Row) -> None:
        """Answer all callers of a conversation, once."""
        for caller in conversation.callers:
            self._release.reply(caller, answer, True)
        conversation.callers.clear()

    def record(self, conversation: Conversation, kind: str, payload: Row) -> Pending:
        """A conversation's fact; resolved when acknowledged."""
        identity = self._numbered(conversation.cause, conversation.ordinal)
        conversation.ordinal += 1
        self._fact(identity, kind, conversation.correlation, conversation.causation, payload)
        pending = Pending()
        self._release.recorded.append(pending)
        return pending

    def join(self, key: Key) -> Pending:
        """Resolved when the conversation under ``key`` ends."""
        pending = Pending()
        running = self.conversations.get(key)
        if running is None:
            pending.resolved = True
        else:
            running.joined.append(pending)
        return pending

    def _resolve(self, pending: Pending, value: object, error: Exception | None) -> None:
        pending.resolved, pending.value = True, value
        pending.error = error  # type: ignore[assignment]
        waiter, pending.waiter = pending.waiter, None
        if waiter is not None and waiter.key in self.conversations:
            self._advance(waiter)

    # --- appending ----------------------------------------------------------------------------

    def _submit(self) -> bool:
        """Append what was decided; False when there was nothing to append."""
        if self.phase != "live":
            return False
        vector_alone = not self.facts and self._inputs_since_append >= self.limits.inputs_without_fact_max
        if not self.facts and not vector_alone:
            self._release_without_append()
            return False
        progress = self.progress.to_json()
        if self.views:
            progress["views"] = {name: offset for view in self.views for name, offset in sorted(view.next.items())}
        now = self.clock()
        batch = self.facts.to_batch(self.end) if self.facts else self.facts.progressed(self.name, self.end, now)
        header = Header(
            "facts" if self.facts else "progressed",
            self.end,
            batch.num_rows,
            self.epoch,
            self.append_number,
            self.service.name,
            self.incarnation,
            now,
            progress,
        )
        entry = LogBatch.encode(header, batch)
        self.end = header.end
        self.append_number += 1
        self.in_flight.append(InFlight(header.end, self._release, self._first_input))
        self.counters.facts += len(self.facts)
        self.counters.appends += 1
        self.counters.bytes_appended += entry.message.size
        self.facts.clear()
        self._release, self._first_input, self._inputs_since_append = Release(), None, 0
        self.emit(Append(self.partition, entry))
        return True

    def _release_without_append(self) -> None:
        if not self._release:
            return
        release, self._release = self._release, Release()
        if self.in_flight:
            _merge(self.in_flight[-1].release, release)
        else:
            self._tell(release)

    @property
    def idle(self) -> bool:
        """Live, with nothing queued, open or in flight."""
        return self.phase == "live" and not (
            self.queue or self.commands or self.in_flight or self.conversations or self.facts or self.held
        )


def _merge(into: Release, release: Release) -> None:
    for (origin, ask, final), (indexes, rows) in release.replies.items():
        for index, row in zip(indexes, rows, strict=True):
            into.reply((origin, ask, index), row, final)
    into.errors.extend(release.errors)
    into.recorded.extend(release.recorded)
    into.answers.extend(release.answers)


def columns_of(entry: LogBatch) -> Columns:
    """The batch as columns, decoded once for all readers in this process."""
    columns = entry.__dict__.get("columns")
    if columns is None:
        columns = entry.__dict__["columns"] = Columns(entry.batch)
    return columns


def _rows(columns: Columns, names: tuple[str, ...]) -> Iterable[Row]:
    for values in columns.rows(*names):
        yield dict(zip(names, values, strict=True))

"""One partition of one service: fold, decide, append, answer. No I/O, no clock of its own.

A task is granted an epoch, folds its own partition up to the granted end, from its newest snapshot on if there is
one, waits until its views have reached the vector it finds there, and then decides. Its state runs ahead of what is
acknowledged by at most ``appends_in_flight_max`` appends; replies wait for the append that they rest on (rule 2). When
an append is refused or its fate unknown, everything ahead is thrown away and folded again under a new epoch (rule 5).
A fenced task never asks again (rule 6).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from eventmesh.declared import MessageType, all_made, row_of
from eventmesh.errors import DidNotHappen, EventmeshError, Fenced, NotOwner, PeerLost, RecordTooLarge, Throttled
from eventmesh.history import StateDump
from eventmesh.log.batch import Header, LogBatch
from eventmesh.log.partition import progressed
from eventmesh.log.topic import Topic
from eventmesh.progress import Progress, position_name
from eventmesh.runtime.ask_policy import Guards
from eventmesh.runtime.asks import Asks
from eventmesh.runtime.conversation import Conversations
from eventmesh.runtime.decider import Decider, FoldAgain, describe
from eventmesh.runtime.effects import (
    Append,
    AskMessage,
    Effect,
    Exit,
    ReplyMessage,
    RequestGrant,
    SendReply,
    Subscribe,
    Unsubscribe,
)
from eventmesh.runtime.incoming import Incoming, commands
from eventmesh.runtime.limits import Counters, Limits
from eventmesh.runtime.outcome import RuleOutcome
from eventmesh.runtime.partition_state import PartitionState
from eventmesh.runtime.release import Release
from eventmesh.runtime.snapshots import LoadSnapshot, no_snapshots, state_name
from eventmesh.service import Service, by_name
from eventmesh.states import digest
from eventmesh.views import View

Phase = Literal["stopped", "granting", "folding", "catching-up", "live", "dead"]
#: Inputs that are decided together at most.
INPUT_ROWS_MAX = 1_000


@dataclass(slots=True)
class InFlight:
    """An append whose fate is not known yet. ``first_cause``: the first input that it decided."""

    end: int
    release: Release
    first_cause: str | None


#: Microseconds between two questions where the inputs end, which take the broker's time: timers that are due meanwhile
#: happen together.
EXPIRY_EVERY = 20_000
#: Gives the log's ends by ``topic/partition``; raises :class:`~eventmesh.errors.PeerLost` where nobody can tell.
Ends = Callable[[], Mapping[str, int]]


def no_ends() -> Mapping[str, int]:
    """Nobody can tell."""
    raise PeerLost("nobody knows where the log ends")


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
        allowed: Collection[str],
        incarnation: str,
        limits: Limits,
        guards: Guards,
        clock: Callable[[], int],
        emit: Callable[[Effect], None],
        counters: Counters,
        snapshots: LoadSnapshot = no_snapshots,
        ends: Ends = no_ends,
    ) -> None:
        self.service, self.topic, self.partition = service, topic, service.place.partition
        self.inputs, self.messages, self.queries = tuple(inputs), messages, by_name(service.queries)
        self.incarnation, self.limits, self.clock, self.emit = incarnation, limits, clock, emit
        self.counters, self.snapshots, self.ends = counters, snapshots, ends
        self.name = position_name(topic.name, self.partition)
        self.views: list[View] = list({id(view): view for view in service.views.values()}.values())
        self.phase: Phase = "stopped"
        self.own = PartitionState(service, topic, clock=clock, counters=counters)
        self.outcome = RuleOutcome(self.own, messages)
        self.decider = Decider(self.own, self.outcome)
        self.asks = Asks(
            self.name, messages, owned, allowed, guards, clock, emit, counters, incarnation,
            batching=service.batches_queries, seed=service.place.seed,
        )  # fmt: skip
        self.conversations = Conversations(self.own, self.decider, self.asks)
        self._input_rows_max = INPUT_ROWS_MAX
        self._facts_max = limits.batch_rows_max
        self._wake_at: int | None = None
        self._unanswered: dict[tuple[Any, str], tuple[AskMessage, set[int]]] = {}
        self._clear()

    def _clear(self) -> None:
        """Forget everything that the log can tell again."""
        self.own.clear()
        self.outcome.clear()
        self.epoch = -1
        self.append_number = 0
        self.in_flight: deque[InFlight] = deque()
        self.commands: deque[tuple[Any, AskMessage, list[int]]] = deque()
        self.queue: deque[tuple[str, LogBatch, int]] = deque()
        self.received: dict[str, int] = {}
        self.queued_rows = 0
        self.queued_command_rows = 0
        self.asks.clear()
        self._expiry: tuple[int, dict[str, int]] | None = None  # when inputs ended where, for what was due by then
        self._ends_at: int | None = None  # when to ask for those ends again, at the earliest

    @property
    def progress(self) -> Progress:
        """How far the inputs are decided."""
        return self.own.progress

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
        try:
            snapshot = self.snapshots(state_name(self.topic.name, self.partition))
        except PeerLost as error:
            self.grant_failed(error)
            return
        self.epoch, self.own.end = epoch, end
        start = 0 if snapshot is None else self.own.restore(snapshot)
        if start > end:
            self._die(f"{self.name} has grown to {start} since epoch {epoch} was granted at {end}")
        elif start == end:
            self._folded()
        else:
            self.phase = "folding"
            self.emit(Subscribe(self.topic.name, self.partition, start))

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
        self.conversations.abandon()
        self.emit(Exit(self.partition, reason))

    def refold(self) -> None:
        """Throw away what is ahead of the log and fold it again, under a new epoch."""
        self.counters.refolds += 1
        self.conversations.abandon()
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
            self.counters.inputs_queued_rows_max = max(self.counters.inputs_queued_rows_max, self.queued_rows)

    def _fold(self, entry: LogBatch) -> None:
        header = entry.header
        if header.base >= self.own.end:
            return
        self.own.fold(entry)
        self.counters.rows_folded += header.rows
        if header.end >= self.own.end:
            self.emit(Unsubscribe(self.topic.name, self.partition))
            self._folded()

    def _folded(self) -> None:
        self.phase = "catching-up"
        self.views_moved()

    def views_moved(self) -> None:
        """Nothing is decided until every view has reached the vector (rule 1)."""
        if self.phase != "catching-up":
            return
        for name, offset in self.own.views_required.items():
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
        self._or_fold_again(self._carry_on)
        self.step()

    def _carry_on(self) -> None:
        for kind, rule in self.service.resume.items():
            for key in list(self.service.unfinished(self.own.state)):
                cause, refusal = f"{self.name}/epoch/{self.epoch}/{kind}/{key}", f"{self.name}/{kind}/{key}"
                self.conversations.carry_on(rule, kind, key, cause=cause, refusal=refusal)

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
        most = max(self.counters.commands_queued_rows_max, self.queued_command_rows)
        self.counters.commands_queued_rows_max = most
        self.step()

    def query(self, origin: Any, message: AskMessage) -> None:
        """Answer from the state, which the handler cannot change; sent when that state is acknowledged."""
        if self.phase != "live":
            error = Throttled(f"{self.name} is {self.phase}; ask again")
            self.emit(SendReply(origin, ReplyMessage(message.id, range(len(message.rows)), (), True, error)))
            return
        self.counters.queries_answered += 1
        reply = SendReply(origin, self._query_answer(message))
        if self.own.new_facts:
            self.own.release.answers.append(reply)
        elif self.in_flight:
            self.in_flight[-1].release.answers.append(reply)
        else:
            self.emit(reply)

    def _query_answer(self, message: AskMessage) -> ReplyMessage:
        """A handler that breaks, by trying to change the state for instance, is the asker's definite no."""
        state, kind = self.own.read_only_state, self.messages[message.name]
        what = f"the answer to {message.name}"
        try:
            answer = self.queries[message.name]
            questions = all_made(kind.asked, message.rows.__getitem__, len(message.rows))
            answers = [answer(state, question) for question in questions]
            rows = kind.answer_shape.all_whole([row_of(each, kind.told, what) for each in answers], what)
        except Exception as defect:
            error = DidNotHappen(f"{self.name} cannot answer {message.name}: {describe(defect)}")
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
        deadlines = (self._wake_at, self.asks.next_deadline(), self._timer_deadline())
        return min((at for at in deadlines if at is not None), default=None)

    def _timer_deadline(self) -> int | None:
        """When the next timer is due; None while those that are due wait for what comes by itself."""
        if self.phase != "live" or self._expiry is not None or self._has_more_to_do:
            return None
        due_at = self.own.timers.next_due()
        return due_at if due_at is None or self._ends_at is None else max(due_at, self._ends_at)

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
        first = self.in_flight[0].first_cause if self.in_flight else None
        if self._input_rows_max == 1 and first is not None:
            self.decider.refused_inputs[first] = str(error)
        self._facts_max = max(1, self._facts_max // 4)
        self._input_rows_max = max(1, self._input_rows_max // 4) if self._facts_max > 1 else 1

    def _tell(self, release: Release) -> None:
        for effect in release.effects():
            self._answered(effect.origin, effect.reply)
            self.emit(effect)
        for cause in release.refused:
            self.decider.refused_inputs.pop(cause, None)
        for pending in release.recorded:
            pending.resolve(None)

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
        except FoldAgain:
            self.refold()

    def step(self) -> None:
        """Decide on what is there and append it, as long as appends may fly."""
        try:
            while self.phase == "live" and len(self.in_flight) < self.limits.appends_in_flight_max:
                self._decide_waiting()
                self._expire()
                self.asks.flush()
                if not self._submit():
                    return
        except FoldAgain:
            self.refold()

    def _decide_waiting(self) -> None:
        full = self._facts_max
        while len(self.own.new_facts) < full and len(self.conversations) < self.limits.conversations_max:
            if self.commands:
                self._decide_commands(*self.commands.popleft())
            elif self.queue:
                self._decide_input()
            else:
                return

    def _expire(self) -> None:
        """Have the timers that are due happen, once all is decided that lay in the log when they were (rule 17)."""
        if self._has_more_to_do:
            return
        if not self.own.timers.due(self.clock()):
            self._expiry = None  # whatever was due is cancelled
            return
        if self._expiry is None and not self._ask_for_ends():
            return
        assert self._expiry is not None
        asked_at, ends = self._expiry
        if any(self.received.get(name, 0) < end for name, end in ends.items()):
            return
        self._expiry = None
        for timer in self.own.timers.due(asked_at):
            self.own.expire(timer)
            self.conversations.expired(timer)

    @property
    def _has_more_to_do(self) -> bool:
        return bool(self.queue or self.commands or self.in_flight or self.own.new_facts)

    def _ask_for_ends(self) -> bool:
        if self._ends_at is not None and self.clock() < self._ends_at:
            return False
        asked_at = self.clock()
        try:
            ends = self.ends()
        except PeerLost:
            self._ends_at = asked_at + self.limits.refold_delay
            return False
        self._ends_at = asked_at + EXPIRY_EVERY
        self._expiry = asked_at, {name: ends[name] for name in self.inputs}
        return True

    def _decide_commands(self, origin: Any, message: AskMessage, indexes: list[int]) -> None:
        now, later = indexes[: self._rows_max], indexes[self._rows_max :]
        if later:
            self.commands.appendleft((origin, message, later))
        self.queued_command_rows -= len(now)
        kind = self.messages[message.name]
        self._decide(commands(origin, message, now, kind))

    def _decide_input(self) -> None:
        name, entry, start = self.queue.popleft()
        header = entry.header
        stop = min(start + self._rows_max, header.rows)
        if stop < header.rows:
            self.queue.appendleft((name, entry, stop))
        self.queued_rows -= stop - start
        if header.kind == "facts":
            self.own.decide_facts(name, entry, start, stop, self._decide)
        else:
            self.progress.done(name, header.follows if start == 0 else header.base + start, header.base + stop)

    @property
    def _rows_max(self) -> int:
        """How many inputs to decide at once: conversations are bounded in number."""
        if not self.service.waiting_rules:
            return self._input_rows_max
        return min(self._input_rows_max, self.limits.conversations_max - len(self.conversations))

    def _decide(self, incoming: Incoming) -> None:
        kind = incoming.inputs.kind
        rule = self.service.rules.get(kind)
        if rule is None:
            error = DidNotHappen(f"{self.service.name} has no rule for {kind} in this wiring")
            for caller in incoming.callers:
                self.own.release.error(caller, error)
        elif kind in self.service.waiting_rules:
            self.conversations.start_all(rule, incoming)
        else:
            self.decider.decide(incoming)

    # --- appending ----------------------------------------------------------------------------

    def _submit(self) -> bool:
        """Append what was decided; False when there was nothing to append."""
        if self.phase != "live":
            return False
        own = self.own
        vector_alone = own.inputs_since_append >= self.limits.inputs_without_fact_max
        if not own.new_facts and not vector_alone and not own.timers.changes:
            self._release_without_append()
            return False
        entry = self._next_append()
        own.end = entry.header.end
        self.append_number += 1
        self.counters.facts += len(own.new_facts)
        self.counters.appends += 1
        self.counters.bytes_appended += entry.message.size
        first_cause = own.first_cause
        self.in_flight.append(InFlight(entry.header.end, own.appended(), first_cause))
        self.emit(Append(self.partition, entry))
        return True

    def _next_append(self) -> LogBatch:
        """What was decided, or else the vector alone, under the header that names the end it expects."""
        facts, end, now = self.own.new_facts, self.own.end, self.own.stamp()
        progress = self.progress.to_json()
        if changes := self.own.timers.take_changes():
            progress["timers"] = changes
        if self.views:
            progress["views"] = {name: offset for view in self.views for name, offset in sorted(view.next.items())}
        if not facts:
            return progressed(
                self.topic, self.partition, base=end, epoch=self.epoch, append=self.append_number,
                incarnation=self.incarnation, time=now, progress=progress,
            )  # fmt: skip
        header = Header(
            "facts", end, len(facts), self.epoch, self.append_number, self.service.name, self.incarnation, now,
            progress, self.topic.version,
        )  # fmt: skip
        return LogBatch.encode(header, facts.to_batch(end))

    def _release_without_append(self) -> None:
        release = self.own.release
        if not release:
            return
        self.own.release = Release()
        if self.in_flight:
            self.in_flight[-1].release.merge(release)
        else:
            self._tell(release)

    def dump(self) -> StateDump | None:
        """The state, for the audit; None where it is ahead of the log, or not of a kind that can be written down."""
        if not self.idle:
            return None
        try:
            found = digest(self.own.state)
            return StateDump(
                self.service.name, self.partition, self.own.end, found, self.clock(), self.own.timers.listed()
            )
        except TypeError:
            return None

    @property
    def idle(self) -> bool:
        """Live, with nothing queued, open or in flight. Open timers are not waited for."""
        return self.phase == "live" and not (
            self.queue
            or self.commands
            or self.in_flight
            or self.conversations.at_work
            or self.own.new_facts
            or self.outcome.held
        )

"""Coroutine handlers without an event loop: a conversation is advanced when what it awaits has come.

The only awaitables are those of the mesh. A conversation is never stored: after a restart the fold
shows which are open, and they run again under the same ids (rule 3).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Coroutine, Iterable
from functools import partial
from typing import Any

from eventmesh.declared import (
    A,
    Answer,
    Command,
    Fact,
    Named,
    Query,
    answered,
    checked_row,
    name_of,
    row_of,
)
from eventmesh.errors import NOT_SENT, BoundaryCrossed, DidNotHappen, EventmeshError, KeyReused, MayHaveHappened
from eventmesh.runtime.asks import Asks
from eventmesh.runtime.decider import Decider, FoldAgain, describe
from eventmesh.runtime.effects import Row
from eventmesh.runtime.incoming import Incoming, Position
from eventmesh.runtime.partition_state import PartitionState
from eventmesh.runtime.pending import TOO_LATE, Answered, InTime, Pending
from eventmesh.runtime.release import ReplyTo
from eventmesh.runtime.timers import Key as TimerKey
from eventmesh.runtime.timers import Timer, of_conversation, timer_id
from eventmesh.service import Rule
from eventmesh.values import DoesNotFit

Key = tuple[str, str]


class Conversation:
    """One running handler: the ``talk`` that it is given, and what is needed to drive it.

    ``key`` is (name of the rule's trigger, key value): one conversation at a time per key. Repeats of the command that
    it began with, ``begun_by``, join it (any command of its name, where None); other commands wait for its end.
    ``resumed``: its end is found again from the fold after a restart; ``again``: it has been, so that an earlier life
    of it may have sent whatever it sends.
    ``refusal`` is what it is refused as, should its rule break: its cause, or what does not change with the epoch where
    the fold showed it open.
    """

    def __init__(
        self, among: Conversations, key: Key, cause: str, story: str, causation: str, *, resumed: bool, again: bool
    ) -> None:
        self.among, self.key, self.again = among, key, again
        self.cause, self.story, self.causation, self.resumed = cause, story, causation, resumed
        self.begun_by: str | None = cause
        self.refusal = cause
        self.ordinal = 0
        self.first_record: Pending | None = None
        self.position: Position | None = None  # the input held open until the end
        self.callers: list[ReplyTo] = []
        self.joined: list[tuple[Conversation, Pending]] = []  # who waits for its end
        self.joining: Conversation | None = None  # for whose end it waits
        self.sent: set[str] = set()  # the ids of its commands
        self.asleep = False  # it waits for a time
        self.timers = 0  # how many it has set that write a fact
        self.coroutine: Coroutine[Pending, None, Any] | None = None

    @property
    def state(self) -> Any:
        """The service's state as of now."""
        return self.among.own.state

    def record(self, fact: Fact) -> Awaitable[None]:
        """Append a fact; returns once it is acknowledged."""
        return self.among.record(self, fact)

    def ask(self, queries: Iterable[Query[A]], *, attempts: int | None = None) -> Awaitable[list[A]]:
        """Ask; an answer for each question, each asked of the partition that its key says."""
        asked = list(queries)
        if not asked:
            return Answered(Pending.of([]), list)
        name = type(asked[0]).__name__
        kind = self.among.asks.kind(name)
        pending = self.among.asks.query(name, [row_of(each, kind.asked, name) for each in asked], attempts)
        return Answered(pending, lambda rows: [answered(kind.told, row) for row in rows])

    def command(
        self, command: Command[A], *, attempts: int = 4, partition: int | None = None, part: str = ""
    ) -> Awaitable[A]:
        """Command; the same conversation sends the same command to the same partition under one id, and part of it.

        The id names what the conversation began with; where the fold shows it open after a restart, its key, which is
        still known then.
        """
        story, name = self.key[1] if self.resumed else self.cause, type(command).__name__
        asks = self.among.asks
        kind = asks.kind(name)
        row = row_of(command, kind.asked, name)
        unsent = self._sends_first
        pending = asks.command(story, name, row, attempts, partition, part, self.sent, unsent=unsent)
        return Answered(pending, lambda row: answered(kind.told, row))

    @property
    def _sends_first(self) -> bool:
        """Whether what it sends now cannot have gone out before: it wrote its first fact in this life.

        An input takes effect once (P4), so no earlier life wrote that fact, and a command follows from a fact (rule 3).
        What follows from no fact, or from one that was found in the fold, an earlier life may have sent.
        """
        return not self.again and self.first_record is not None and self.first_record.resolved

    def after(self, delay_s: float, fact: Fact, *, name: str | None = None) -> None:
        """Have a fact happen later."""
        self.among.set_timer(self, delay_s, fact, self.story if name is None else name)

    def cancel(self, kind: Named, name: str) -> None:
        """Have it not happen."""
        self.among.own.timers.end((name_of(kind), name))

    def until(self, delay_s: float, awaited: Any = None, *, name: str = "") -> Awaitable[Any]:
        """Wait so long, or for something at most so long."""
        pending, read = awaited, None
        if isinstance(awaited, Answered):
            pending, read = awaited.pending, awaited.read
        until = self.among.until(self, delay_s, Pending() if pending is None else pending, name)
        return Answered(until, lambda value: None if value is TOO_LATE or read is None else read(value))

    def join(self, command: Named, key: str) -> Awaitable[None]:
        """Wait for the end of another conversation of this service; returns at once where there is none."""
        return self.among.join(self, (name_of(command), key))

    def reply(self, answer: Answer) -> None:
        """Answer the callers now and go on; what was recorded before must have been awaited."""
        self.among.reply(self, answer)


def _of_the_whole(error: EventmeshError) -> EventmeshError:
    """What is told to who began a conversation that ends with ``error``.

    One ask was not sent; what the conversation did before that, in this life or in an earlier one, may have happened.
    """
    return MayHaveHappened(f"not finished: {error}") if isinstance(error, NOT_SENT) else error


class Conversations:
    """The running conversations of one task."""

    def __init__(self, own: PartitionState, decider: Decider, asks: Asks) -> None:
        self.own, self.decider, self.asks = own, decider, asks
        self.running: dict[Key, Conversation] = {}
        self.waiting: dict[Key, deque[tuple[Rule, Incoming]]] = {}  # commands, each by itself, for the end of another
        self.broken: dict[str, str] = {}  # carried on and broken half way, by refusal: why
        self._until: dict[TimerKey, InTime] = {}  # what waits for a time

    def __len__(self) -> int:
        return len(self.running) + sum(map(len, self.waiting.values()))

    @property
    def at_work(self) -> int:
        """How many there are that wait for more than a time."""
        return len(self) - sum(conversation.asleep for conversation in self.running.values())

    def abandon(self) -> None:
        """Forget all of them: those that the fold shows open run again."""
        for conversation in self.running.values():
            if conversation.coroutine is not None:
                conversation.coroutine.close()
        self.running.clear()
        self.waiting.clear()
        self._until.clear()

    def start_all(self, rule: Rule, incoming: Incoming) -> None:
        """Begin a conversation for each input, or join the one that it repeats."""
        incoming = self.own.not_refused(incoming)
        for row in range(len(incoming)):
            if not self.decider.refused_again(incoming, row):
                self._start(rule, incoming, row)

    def _start(self, rule: Rule, incoming: Incoming, number: int) -> None:
        inputs, cause, caller = incoming.inputs, incoming.cause(number), incoming.caller(number)
        key = (inputs.kind, inputs.stories[number] or cause)
        running = self.running.get(key)
        if running is not None:
            if caller is None:
                return  # a fact that repeats an open one yields nothing of its own
            if running.begun_by in (None, cause):
                running.callers.append(caller)
            else:
                self.waiting.setdefault(key, deque()).append((rule, incoming.part(number, number + 1)))
            return
        resumed = inputs.kind in self.own.service.resume
        story = inputs.stories[number]
        conversation = Conversation(self, key, cause, story, inputs.ids[number], resumed=resumed, again=False)
        if caller is not None:
            conversation.callers.append(caller)
        conversation.position = incoming.position(number)
        if conversation.position is not None:
            self.own.hold(conversation.position)
        self._run(conversation, rule, inputs.one(number))

    def _start_waiting(self, key: Key) -> None:
        """Begin what waited for the end that was; a loop, since each may end at once."""
        waiting = self.waiting.pop(key, None)
        while waiting:
            rule, incoming = waiting.popleft()
            self._start(rule, incoming, 0)
            if key in self.running:
                break
        if waiting:
            self.waiting[key] = waiting

    def carry_on(self, rule: Rule, kind: str, key: str, *, cause: str, refusal: str) -> None:
        """Begin again, after a restart, the conversation that the fold shows open under ``key``.

        One that broke half way in this process is refused instead, and left alone once that is on record.
        """
        conversation = Conversation(self, (kind, key), cause, key, cause, resumed=True, again=True)
        conversation.refusal = refusal
        conversation.begun_by = self.own.service.begun_by(self.own.state, key)
        reason = self.broken.get(refusal)
        if reason is None:
            self._run(conversation, rule, key)
        else:
            self.running[conversation.key] = conversation
            self._refuse(conversation, reason)

    def _run(self, conversation: Conversation, rule: Rule, begun_with: Any) -> None:
        self.running[conversation.key] = conversation
        conversation.coroutine = rule(self.own.service, begun_with, conversation)
        self.advance(conversation)

    def advance(self, conversation: Conversation) -> None:
        """Go on until it awaits something that has not come yet, or ends."""
        before = len(self.own.new_facts)
        try:
            ended, awaited = self._send(conversation)
        except Exception as defect:
            if isinstance(defect, EventmeshError) and self._is_the_callers(conversation, defect):
                self._fail(conversation, _of_the_whole(defect))
                return
            if len(self.own.new_facts) > before:
                self._discard(conversation, defect)
            self._refuse(conversation, describe(defect))
        else:
            if ended:
                self._finish(conversation, awaited)
            else:
                conversation.asleep = isinstance(awaited, InTime)
                awaited.then = partial(self._go_on, conversation)

    @staticmethod
    def _is_the_callers(conversation: Conversation, error: EventmeshError) -> bool:
        """Whether an error goes to who waits, who may ask again. What a fact began has nobody to ask again."""
        return conversation.position is None and not isinstance(error, (BoundaryCrossed, KeyReused))

    def _send(self, conversation: Conversation) -> tuple[bool, Any]:
        """Whether it has ended, with the answer that it returned, or with what it awaits."""
        assert conversation.coroutine is not None
        try:
            return False, conversation.coroutine.send(None)
        except StopIteration as end:
            return True, None if end.value is None else self._whole(conversation, end.value)

    def _whole(self, conversation: Conversation, answer: Answer) -> Row:
        command = conversation.key[0]
        if command not in self.asks.messages:
            raise DoesNotFit(f"{answer!r} is an answer, and the fact {command} began this: nobody would hear it")
        return checked_row(answer, self.asks.messages[command].told, f"the answer to {command}")

    def _go_on(self, conversation: Conversation) -> None:
        """What it awaited has come; nothing is left of one that was abandoned meanwhile."""
        if self.running.get(conversation.key) is conversation:
            self.advance(conversation)

    def _discard(self, conversation: Conversation, defect: Exception) -> None:
        if conversation.refusal == conversation.cause:
            self.decider.discard(conversation.cause, defect)
        self.broken[conversation.refusal] = describe(defect)
        raise FoldAgain from defect

    def _refuse(self, conversation: Conversation, reason: str) -> None:
        if conversation.refusal not in self.own.refusals:
            self.own.record_refusal(
                conversation.refusal, conversation.position, conversation.story, conversation.causation, reason, None,
                conversation.ordinal,
            )  # fmt: skip
        self._fail(conversation, DidNotHappen(f"refused: {reason}"))

    def _fail(self, conversation: Conversation, error: EventmeshError) -> None:
        for caller in conversation.callers:
            self.own.release.error(caller, error)
        conversation.callers.clear()
        self._finish(conversation, None)

    def _finish(self, conversation: Conversation, answer: Row | None) -> None:
        del self.running[conversation.key]
        self.own.timers.end_all(of_conversation(*conversation.key))
        if answer is not None:
            self._reply(conversation, answer)
        if conversation.position is not None:
            self.own.let_go(conversation.position)
            self.own.inputs_since_append += 1
        for waiting, pending in conversation.joined:
            waiting.joining = None
            pending.resolve(None)
        self._start_waiting(conversation.key)

    def reply(self, conversation: Conversation, answer: Answer) -> None:
        """Answer all callers of a conversation, which goes on."""
        self._reply(conversation, self._whole(conversation, answer))

    def _reply(self, conversation: Conversation, answer: Row) -> None:
        for caller in conversation.callers:
            self.own.release.reply(caller, answer, True)
        conversation.callers.clear()

    def record(self, conversation: Conversation, fact: Fact) -> Pending:
        """A conversation's fact; resolved when acknowledged.

        ``TypeError`` for a second one where a restart would begin anew: its id would be that of the first.
        """
        if conversation.ordinal and not conversation.resumed and conversation.position is None:
            raise TypeError(f"{conversation.key[0]} records twice: name in Trigger.resume what carries it on")
        ordinal, conversation.ordinal = conversation.ordinal, conversation.ordinal + 1
        self.own.add_fact(conversation.cause, ordinal, conversation.story, conversation.causation, fact)
        pending = Pending()
        self.own.release.recorded.append(pending)
        conversation.first_record = conversation.first_record or pending
        return pending

    def set_timer(self, conversation: Conversation, delay_s: float, fact: Fact, name: str) -> None:
        """Have a conversation's fact happen later. Its id is one that no fact of the conversation has."""
        cause, causation = conversation.cause, conversation.causation
        conversation.timers += 1
        identity = f"{self.own.fact_id(cause, 0)}:{conversation.timers}"
        self.own.set_timer(fact, delay_s, name, identity, conversation.story, causation)

    def until(self, conversation: Conversation, delay_s: float, awaited: Pending, name: str) -> Pending:
        """Resolved as ``awaited`` is, or with :data:`TOO_LATE` when the time has come, whichever is first.

        The time stands in the log: one that was set before a restart goes on, and what had come then has come.
        """
        key = (of_conversation(*conversation.key), name)
        timers = self.own.timers
        if key in timers.passed:
            return Pending.of(TOO_LATE)
        if key not in timers.open:
            cause, causation = conversation.cause, conversation.causation
            due_at, identity = self.own.due_after(delay_s), f"{self.own.fact_id(cause, 0)}:{name}"
            timers.set(Timer(*key, due_at, timer_id(identity, due_at), conversation.story, causation))
        pending = self._until[key] = InTime.waiting_for(awaited, lambda: self._came(key))
        return pending

    def _came(self, key: TimerKey) -> None:
        self._until.pop(key, None)
        self.own.timers.end(key)

    def expired(self, timer: Timer) -> None:
        """Its time is written down: who waits for it goes on once that is acknowledged."""
        pending = self._until.pop(timer.key, None)
        if pending is not None:
            pending.late = True
            self.own.release.recorded.append(pending)

    def join(self, conversation: Conversation, key: Key) -> Pending:
        """Resolved when the conversation under ``key`` ends. ``RuntimeError`` if that waits for this one."""
        pending = Pending()
        running = awaited = self.running.get(key)
        while awaited is not None:
            if awaited is conversation:
                raise RuntimeError(f"{' '.join(conversation.key)} would wait for its own end: it joins {' '.join(key)}")
            awaited = awaited.joining
        if running is None:
            pending.resolve(None)
        else:
            conversation.joining = running
            running.joined.append((conversation, pending))
        return pending

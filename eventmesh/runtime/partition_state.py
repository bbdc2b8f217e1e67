"""The state of one partition, and what is decided ahead of its log. No I/O, and no rule is called here.

What is decided is folded at once, so that of two buyers in one batch the second finds the shelf empty, and waits here
until it is appended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from eventmesh.declared import Fact, Facts
from eventmesh.errors import DidNotHappen
from eventmesh.log.batch import LogBatch
from eventmesh.log.topic import Topic
from eventmesh.messages import OWN_FACTS, REFUSED
from eventmesh.progress import Progress, position_name
from eventmesh.runtime.facts import FactBatch
from eventmesh.runtime.incoming import Incoming, Position, facts
from eventmesh.runtime.limits import Counters
from eventmesh.runtime.release import Release, ReplyTo
from eventmesh.runtime.snapshots import Snapshot, SnapshotHeader, decode_state, encode_state, state_fold, state_name
from eventmesh.runtime.timers import Timer, Timers, timer_id
from eventmesh.service import Service, read_only

#: A hundred years: a longer delay is taken for a mistake of its unit.
DELAY_S_MAX = 100 * 365 * 24 * 3_600.0
#: Refused commands that are remembered, so that a repeat is told the same; the oldest are forgotten.
REFUSALS_MAX = 10_000


class PartitionState:
    """The fold of a partition's own facts, those of them that are not appended yet, and how far its inputs are decided.

    ``release`` is what may be told once those facts are acknowledged.
    """

    def __init__(self, service: Service, topic: Topic, *, clock: Callable[[], int], counters: Counters) -> None:
        self.service, self.topic, self.partition = service, topic, service.place.partition
        self.clock, self.counters, self.declared = clock, counters, service.place.declared
        self.clear()

    def clear(self) -> None:
        """Forget everything that the log can tell again."""
        self.state = self.service.initial()
        self.read_only_state = read_only(self.state)
        self.timers = Timers()
        self.last_time = 0  # of the newest fact or append, in microseconds
        self.progress = Progress()
        self.views_required: dict[str, int] = {}  # how far the views had got when the newest append was decided
        self.end = 0  # the offset of the next fact to append
        self.new_facts = FactBatch(self.topic, self.service.name, self.declared)
        self.release = Release()
        self.refusals: dict[str, str] = {}  # of commands, by their ids: what the record says
        self.first_cause: str | None = None  # the first input decided since the last append
        self.inputs_since_append = 0
        self._current = ""  # the partition whose inputs are being decided
        self._open: set[int] = set()  # offsets of it that stay open

    # --- from the log ---------------------------------------------------------------------------

    def fold(self, entry: LogBatch) -> None:
        """Fold a batch of our own topic that was appended before this incarnation began."""
        header = entry.header
        if header.kind == "facts":
            columns = entry.columns
            if not OWN_FACTS.isdisjoint(columns["type"]):
                for kind, identity, position, reason in columns.rows("type", "id", "position", "reason"):
                    if kind == REFUSED and not position:
                        self._remember_refusal(identity.rpartition("#")[0], reason)
                columns = columns.without(OWN_FACTS)
            self.service.evolve(self.state, Facts.of(columns, self.declared))
        self.last_time = max(self.last_time, header.time)
        if header.kind in ("facts", "progressed"):
            self._stand_at(header.progress)
            self.timers.fold(header.progress)

    def stamp(self) -> int:
        """The time of what is decided now: the clock's, and never less than that of what was decided before."""
        self.last_time = max(self.last_time, self.clock())
        return self.last_time

    def _stand_at(self, vector: Mapping[str, Any]) -> None:
        self.progress = Progress.from_json(vector)
        self.views_required = dict(vector.get("views", {}))

    def snapshot(self, cluster_id: str, end: int, epoch: int) -> Snapshot:
        """What was folded up to ``end``, of which the newest append was at ``epoch``."""
        header = SnapshotHeader(
            state_name(self.topic.name, self.partition), cluster_id, state_fold(type(self.service)),
            {position_name(self.topic.name, self.partition): end}, self.clock(), epoch=epoch,
            progress={**self.progress.to_json(), "views": self.views_required}, refusals=self.refusals,
            timers=self.timers.to_json(),
        )  # fmt: skip
        return Snapshot(header, encode_state(self.state))

    def restore(self, snapshot: Snapshot) -> int:
        """Stand where the snapshot was taken; the next offset to fold.

        0, and nothing done, where the fold is another, or the state has become one that this snapshot does not hold.
        """
        header = snapshot.header
        if header.fold != state_fold(type(self.service)):
            return 0
        try:
            state = decode_state(self.service, snapshot.body)
        except msgspec.DecodeError:
            return 0
        self.state = state
        self.read_only_state = read_only(self.state)
        self.refusals = dict(header.refusals)
        self.timers.restore(header.timers)
        self._stand_at(header.progress)
        return header.next[position_name(self.topic.name, self.partition)]

    # --- inputs ---------------------------------------------------------------------------------

    def decide_facts(
        self, name: str, entry: LogBatch, start: int, stop: int, decide: Callable[[Incoming], None]
    ) -> None:
        """Have rows ``start`` up to ``stop`` of a batch of ``name`` decided; what is held open then is not done."""
        base, progress = entry.header.base, self.progress
        is_done = progress.is_done if progress.any_done(name, base + start) else None
        self._current = name
        self._open.clear()
        for incoming in facts(
            name, entry, start, stop, kinds=self.service.rules, is_done=is_done, declared=self.declared
        ):
            decide(incoming)
        at = base + start
        for offset in sorted(self._open):
            progress.done(name, at, offset)
            at = offset + 1
        progress.done(name, at, base + stop)
        self._open.clear()
        self._current = ""
        self.counters.inputs += stop - start
        self.inputs_since_append += stop - start

    def hold(self, position: Position) -> None:
        """This input, of the batch that is being decided, waits for something: the vector stays behind it."""
        assert position[0] == self._current, f"{position} is not of {self._current}, which is being decided"
        self._open.add(position[1])

    def let_go(self, position: Position) -> None:
        """What a held input waited for has come."""
        name, offset = position
        if name == self._current and offset in self._open:
            self._open.discard(offset)
        else:
            self.progress.done(name, offset, offset + 1)

    # --- facts ----------------------------------------------------------------------------------

    def add_facts(
        self, facts: Sequence[Fact], ids: list[str], stories: list[str | None], causations: list[str]
    ) -> None:
        """Fold new facts, one item per list, and keep them for the next append.

        :class:`~eventmesh.values.DoesNotFit`, and nothing done, for a value that its column does not take.
        """
        self.service.evolve(self.state, self.new_facts.add(facts, ids, stories, causations, self.end, self.stamp()))

    def add_fact(self, cause: str, ordinal: int, story: str | None, causation: str, fact: Fact) -> None:
        """Fold one new fact, and keep it."""
        self.add_facts([fact], [self.fact_id(cause, ordinal)], [story], [causation])

    # --- timers ---------------------------------------------------------------------------------

    def set_timer(self, fact: Fact, delay_s: float, name: str, identity: str, story: str | None, cause: str) -> None:
        """Have ``fact`` written after ``delay_s``, unless a timer of its class and ``name`` is set or ended before.

        ``identity`` names what decides it. :class:`~eventmesh.values.DoesNotFit` as for a fact.
        """
        self.new_facts.check(fact)
        kind, columns, due_at = type(fact).__name__, msgspec.to_builtins(fact), self.due_after(delay_s)
        self.timers.set(Timer(kind, name, due_at, timer_id(identity, due_at), story, cause, columns))

    def due_after(self, delay_s: float) -> int:
        """When it will be so many seconds later, in microseconds. ``ValueError`` for a delay that is none."""
        if not 0 <= delay_s < DELAY_S_MAX:  # nor NaN
            raise ValueError(f"a delay of {delay_s} s: expected 0 to {DELAY_S_MAX:.0f}")
        return self.stamp() + round(delay_s * 1e6)

    def expire(self, timer: Timer) -> None:
        """The time of an open timer has come: write what was to happen then."""
        self.timers.passes(timer.key)
        if timer.is_of_conversation:
            self.new_facts.add_due(timer.id, timer.story, timer.cause, timer.name, self.end, self.stamp())
        elif timer.kind in self.declared.facts:
            fact = msgspec.convert(timer.fact, self.declared.facts[timer.kind])
            self.add_facts([fact], [timer.id], [timer.story], [timer.cause])
        else:
            reason = f"a timer was set for {timer.kind}, which the application no longer declares"
            self.new_facts.add_refusal(timer.id, timer.story, timer.cause, "", reason, self.end, self.stamp())

    def fact_id(self, cause: str, ordinal: int) -> str:
        """Cause plus ordinal. Partitions that decide on the same input interleave their ordinals: ids stay unique."""
        return f"{cause}#{ordinal * self.topic.partitions + self.partition}"

    def appended(self) -> Release:
        """What was new is on its way to the log: begin the next batch. Returns what may be told afterwards."""
        release, self.release = self.release, Release()
        self.new_facts.clear()
        self.first_cause, self.inputs_since_append = None, 0
        return release

    # --- refusals -------------------------------------------------------------------------------

    def refuse_input(self, incoming: Incoming, row: int, reason: str) -> None:
        """Refuse one of what came in, on record."""
        inputs, position, caller = incoming.inputs, incoming.position(row), incoming.caller(row)
        self.record_refusal(incoming.cause(row), position, inputs.stories[row], inputs.ids[row], reason, caller)

    def record_refusal(
        self,
        cause: str,
        position: Position | None,
        story: str | None,
        causation: str,
        reason: str,
        caller: ReplyTo | None,
        ordinal: int = 0,
    ) -> None:
        """A fact that this input is refused, and a definite no to its caller. Services do not fold it."""
        self.counters.inputs_refused += 1
        where = "" if position is None else f"{position[0]}/{position[1]}"
        identity = self.fact_id(cause, ordinal)
        self.new_facts.add_refusal(identity, story, causation, where, reason, self.end, self.stamp())
        if position is None:
            self._remember_refusal(cause, reason)
        if caller is not None:
            self.release.error(caller, DidNotHappen(f"refused: {reason}"))

    def _remember_refusal(self, identity: str, reason: str) -> None:
        self.refusals[identity] = reason
        if len(self.refusals) > REFUSALS_MAX:
            del self.refusals[next(iter(self.refusals))]

    def not_refused(self, incoming: Incoming) -> Incoming:
        """The commands that the record does not say were refused; to the others it is said again."""
        if not incoming.callers or not self.refusals:
            return incoming
        known = [row for row, identity in enumerate(incoming.inputs.ids) if identity in self.refusals]
        for row in known:
            reason = self.refusals[incoming.inputs.ids[row]]
            self.release.error(incoming.callers[row], DidNotHappen(f"refused: {reason}"))
        return incoming.without(known)

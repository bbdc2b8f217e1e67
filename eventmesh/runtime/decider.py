"""The state of one partition, and what is decided ahead of its log. No I/O.

Rules are called with runs of inputs of one kind. What they decide is folded at once, so that of two
buyers in one batch the second finds the shelf empty, and waits here until it is appended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eventmesh.errors import DidNotHappen, EventmeshError
from eventmesh.log.batch import LogBatch
from eventmesh.log.topic import Topic
from eventmesh.messages import Columns
from eventmesh.progress import Progress, position_name
from eventmesh.runtime.effects import AskMessage, Row
from eventmesh.runtime.facts import FactBatch
from eventmesh.runtime.limits import Counters
from eventmesh.runtime.release import Release, ReplyTo
from eventmesh.runtime.snapshots import Snapshot, SnapshotHeader, decode_state, encode_state, state_fold, state_name
from eventmesh.service import Inputs, Service, at_places, read_only

REFUSED = "InputRefused"
#: Refused commands that are remembered, so that a repeat is told the same; the oldest are forgotten.
REFUSALS_MAX = 10_000
#: Inputs decided one by one after a rule broke in the middle of a run.
CAREFUL_ROWS = 4_000
Position = tuple[str, int]  # topic/partition, offset


class FoldAgain(Exception):
    """Half a decision was folded when a rule broke: nothing ahead of the log can be kept."""


@dataclass(frozen=True, slots=True)
class Run:
    """Inputs of one kind on their way to a rule: facts of ``source`` at ``offsets``, or the commands of ``callers``."""

    inputs: Inputs
    source: str = ""
    offsets: Sequence[int] = ()
    callers: Sequence[ReplyTo] = ()

    def __len__(self) -> int:
        return len(self.inputs)

    def cause(self, row: int) -> str:
        """What the facts that follow from an input are named after: its position, or the command's id."""
        return f"{self.source}/{self.offsets[row]}" if self.source else self.inputs.ids[row]

    def position(self, row: int) -> Position | None:
        """Where an input lies; None for a command."""
        return (self.source, self.offsets[row]) if self.source else None

    def caller(self, row: int) -> ReplyTo | None:
        """Who waits for the answer to a command; None for a fact."""
        return self.callers[row] if self.callers else None

    def without(self, rows: Sequence[int]) -> Run:
        """All but these commands."""
        if not rows:
            return self
        left = sorted(set(range(len(self))) - set(rows))
        return Run(self.inputs.only(left), callers=[self.callers[row] for row in left])

    def part(self, start: int, stop: int) -> Run:
        """Some of the inputs."""
        return Run(self.inputs.part(start, stop), self.source, self.offsets[start:stop], self.callers[start:stop])


@dataclass(slots=True)
class Held:
    """Inputs that wait for each other: what each part said, and the positions they hold open."""

    parts: dict[int, Any] = field(default_factory=dict)
    positions: list[Position] = field(default_factory=list)


class Decider:
    """Folds, decides, and holds what is to be appended; the :class:`~eventmesh.service.Outcome` of its rules."""

    def __init__(self, service: Service, topic: Topic, *, clock: Callable[[], int], counters: Counters) -> None:
        self.service, self.topic, self.partition = service, topic, service.place.partition
        self.clock, self.counters = clock, counters
        # By cause: decided half, and not to be decided again. Each stays until its refusal is acknowledged: another
        # input that is decided half before that takes the refusal with it.
        self.refused_inputs: dict[str, str] = {}
        self._careful_rows = 0
        self.clear()

    def clear(self) -> None:
        """Forget everything that the log can tell again."""
        self.state = self.service.initial()
        self.read_only_state = read_only(self.state)
        self.progress = Progress()
        self.views_required: dict[str, int] = {}  # how far the views had got when the newest append was decided
        self.end = 0  # the offset of the next fact to append
        self.new_facts = FactBatch(self.topic, self.service.name)
        self.release = Release()
        self.refusals: dict[str, str] = {}  # of commands, by their ids: what the record says
        self.held: dict[str, Held] = {}
        self.watchers: dict[str, list[ReplyTo]] = {}
        self.first_cause: str | None = None  # the first input decided since the last append
        self.inputs_since_append = 0
        self._current = ""  # the partition whose inputs are being decided
        self._open: set[int] = set()  # offsets of it that stay open
        self._run = Run(Inputs("", Columns(), (), (), ()))
        self._ordinals: dict[int, int] = {}
        self._decided = 0  # counts whatever a rule does, so that it is known whether a broken one had begun

    def fold(self, entry: LogBatch) -> None:
        """Fold a batch of our own topic that was appended before this incarnation began."""
        header = entry.header
        if header.kind == "facts":
            columns = entry.columns
            if REFUSED in columns["type"]:
                for kind, identity, position, reason in columns.rows("type", "id", "position", "reason"):
                    if kind == REFUSED and not position:
                        self._remember_refusal(identity.rpartition("#")[0], reason)
                columns = columns.without(REFUSED)
            self.service.evolve(self.state, columns)
        if header.kind in ("facts", "progressed"):
            self._stand_at(header.progress)

    def _stand_at(self, vector: Mapping[str, Any]) -> None:
        self.progress = Progress.from_json(vector)
        self.views_required = dict(vector.get("views", {}))

    def snapshot(self, cluster_id: str, end: int, epoch: int) -> Snapshot:
        """What was folded up to ``end``, of which the newest append was at ``epoch``."""
        header = SnapshotHeader(
            state_name(self.topic.name, self.partition), cluster_id, state_fold(self.service),
            {position_name(self.topic.name, self.partition): end}, self.clock(), epoch=epoch,
            progress={**self.progress.to_json(), "views": self.views_required}, refusals=self.refusals,
        )  # fmt: skip
        return Snapshot(header, encode_state(self.state))

    def restore(self, snapshot: Snapshot) -> int:
        """Stand where the snapshot was taken; the next offset to fold. 0, and nothing done, if the fold is another."""
        header = snapshot.header
        if header.fold != state_fold(self.service):
            return 0
        self.state = decode_state(self.service, snapshot.body)
        self.read_only_state = read_only(self.state)
        self.refusals = dict(header.refusals)
        self._stand_at(header.progress)
        return header.next[position_name(self.topic.name, self.partition)]

    # --- deciding -------------------------------------------------------------------------------

    def decide_facts(self, name: str, entry: LogBatch, start: int, stop: int, decide: Callable[[Run], None]) -> None:
        """Decide on rows ``start`` up to ``stop`` of a batch of ``name``, run by run; what stays open is not done."""
        base = entry.header.base
        self._current = name
        self._open.clear()
        for run in self._runs(name, entry, start, stop):
            decide(run)
        at = base + start
        for offset in sorted(self._open):
            self.progress.done(name, at, offset)
            at = offset + 1
        self.progress.done(name, at, base + stop)
        self._open.clear()
        self._current = ""
        self.counters.inputs += stop - start
        self.inputs_since_append += stop - start

    def _runs(self, name: str, entry: LogBatch, start: int, stop: int) -> Iterator[Run]:
        base, types, rules = entry.header.base, entry.columns["type"], self.service.rules
        is_done = self.progress.is_done if self.progress.any_done(name, base + start) else None
        kind, places = "", list[int]()
        for place in range(start, stop):
            if types[place] not in rules or (is_done is not None and is_done(name, base + place)):
                continue
            if types[place] != kind and places:
                yield _run(name, entry, kind, places)
                places = []
            kind = types[place]
            places.append(place)
        if places:
            yield _run(name, entry, kind, places)

    def decide(self, run: Run) -> None:
        """Call the rule of a run; inputs that break it become facts, and the others are decided (rule 16)."""
        run = self.not_refused(run)
        if not len(run):
            return
        if self.first_cause is None:
            self.first_cause = run.cause(0)
        if self._careful_rows > 0 or self.refused_inputs:
            for row in range(len(run)):
                self._decide_carefully(run.part(row, row + 1))
        else:
            self._decide(run)

    def not_refused(self, run: Run) -> Run:
        """The commands that the record does not say were refused; to the others it is said again."""
        if not run.callers or not self.refusals:
            return run
        known = [row for row, identity in enumerate(run.inputs.ids) if identity in self.refusals]
        for row in known:
            self.release.error(run.callers[row], DidNotHappen(f"refused: {self.refusals[run.inputs.ids[row]]}"))
        return run.without(known)

    def _remember_refusal(self, identity: str, reason: str) -> None:
        self.refusals[identity] = reason
        if len(self.refusals) > REFUSALS_MAX:
            del self.refusals[next(iter(self.refusals))]

    def _decide_carefully(self, run: Run) -> None:
        self._careful_rows -= 1
        if not self.refused_again(run, 0):
            self._decide(run)

    def _decide(self, run: Run) -> None:
        self._run, self._ordinals = run, {}
        before = self._decided
        try:
            self.service.rules[run.inputs.kind](self.service, self.state, run.inputs, self)
        except Exception as defect:
            self._isolate(run, defect, half_done=self._decided != before)

    def _isolate(self, run: Run, defect: Exception, *, half_done: bool) -> None:
        """Find the inputs that break the rule by bisection; nothing of a decision made half may stay."""
        if len(run) > 1 and half_done:
            self._careful_rows = CAREFUL_ROWS
            raise FoldAgain from defect
        if len(run) > 1:
            middle = len(run) // 2
            self._decide(run.part(0, middle))
            self._decide(run.part(middle, len(run)))
            return
        if half_done:
            self.discard(run.cause(0), defect)
        self.refuse_input(run, 0, describe(defect))

    def discard(self, cause: str, defect: Exception) -> None:
        """An input decided half: when it comes again it is refused. Raises :class:`FoldAgain`."""
        self.refused_inputs[cause] = describe(defect)
        raise FoldAgain from defect

    def refused_again(self, run: Run, row: int) -> bool:
        """Whether this input was decided half before: it is refused, then."""
        cause = run.cause(row)
        reason = self.refused_inputs.get(cause)
        if reason is None:
            return False
        self.refuse_input(run, row, reason)
        self.release.refused.append(cause)
        return True

    def refuse_input(self, run: Run, row: int, reason: str) -> None:
        """An input of a run is refused on record."""
        self.record_refusal(
            run.cause(row), run.position(row), run.inputs.stories[row], run.inputs.ids[row], reason, run.caller(row)
        )

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
        """A fact that this input is refused, and a definite no to its caller."""
        self.counters.inputs_refused += 1
        where = "" if position is None else f"{position[0]}/{position[1]}"
        payload = {"position": [where], "reason": [reason]}
        self._add([REFUSED], [self._numbered(cause, ordinal)], [story], [causation], payload)
        if position is None:
            self._remember_refusal(cause, reason)
        if caller is not None:
            self.release.error(caller, DidNotHappen(f"refused: {reason}"))

    def record(
        self, cause: str, ordinal: int, story: str | None, causation: str, kind: str, payload: Mapping[str, Any]
    ) -> None:
        """A fact that no rule's run is behind: a conversation's."""
        columns = {name: [value] for name, value in payload.items()}
        self._fold_new([kind], [self._numbered(cause, ordinal)], [story], [causation], columns)

    def _add(
        self, kinds: list[str], ids: list[str], stories: list[str | None], causations: list[str], payload: Row
    ) -> Any:
        return self.new_facts.add(kinds, ids, stories, causations, payload, self.end, self.clock())

    def _fold_new(
        self, kinds: list[str], ids: list[str], stories: list[str | None], causations: list[str], payload: Row
    ) -> None:
        columns = self._add(kinds, ids, stories, causations, payload)
        self._decided += 1
        self.service.evolve(self.state, columns)

    def _numbered(self, cause: str, ordinal: int) -> str:
        """Cause plus ordinal. Partitions that decide on the same input interleave their ordinals: ids stay unique."""
        return f"{cause}#{ordinal * self.topic.partitions + self.partition}"

    def _next_id(self, row: int) -> str:
        ordinal = self._ordinals.get(row, 0)
        self._ordinals[row] = ordinal + 1
        return self._numbered(self._run.cause(row), ordinal)

    # --- inputs that stay open --------------------------------------------------------------------

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

    # --- what a rule may do (service.Outcome) ---------------------------------------------------

    @property
    def asked(self) -> bool:
        """Whether callers wait for answers."""
        return bool(self._run.callers)

    def facts(self, kind: str | Sequence[str], rows: Sequence[int], **columns: list[Any]) -> None:
        """Decide facts: folded at once, appended with the batch."""
        if not rows:
            return
        inputs = self._run.inputs
        kinds = [kind] * len(rows) if isinstance(kind, str) else list(kind)
        ids = [self._next_id(row) for row in rows]
        stories, causes = inputs.stories, inputs.ids
        self._fold_new(kinds, ids, [stories[row] for row in rows], [causes[row] for row in rows], columns)

    def fact(self, row: int, kind: str, **payload: Any) -> None:
        """Decide one fact."""
        self.facts(kind, (row,), **{name: [value] for name, value in payload.items()})

    def gather(self, row: int, key: str, part: int, value: Any) -> Mapping[int, Any]:
        """Hold this input open under ``key``; all parts so far, by part, the repeats of one counted once."""
        self._decided += 1
        held = self.held.get(key)
        if held is None:
            held = self.held[key] = Held()
        held.parts.setdefault(part, value)
        position = self._run.position(row)
        if position is not None:
            held.positions.append(position)
            self.hold(position)
        return held.parts

    def gathered(self, key: str) -> None:
        """What was held under ``key`` is decided."""
        held = self.held.pop(key, None)
        if held is None:
            return
        self._decided += 1
        for position in held.positions:
            self.let_go(position)

    def answer(self, row: int, answer: Row, *, more: bool = False) -> None:
        """An answer to one command."""
        self._decided += 1
        if self._run.callers:
            self.release.reply(self._run.callers[row], answer, not more)

    def refuse(self, row: int, error: EventmeshError, *, on_record: bool = False) -> None:
        """A definite no to one command."""
        self._decided += 1
        if on_record:
            self.refuse_input(self._run, row, str(error))
        elif self._run.callers:
            self.release.error(self._run.callers[row], error)

    @property
    def watched(self) -> int:
        """How many keys callers watch."""
        return len(self.watchers)

    def watch(self, row: int, key: str) -> None:
        """This caller also hears what :meth:`tell` says of ``key``."""
        self._decided += 1
        if self._run.callers:
            self.watchers.setdefault(key, []).append(self._run.callers[row])

    def tell(self, key: str, **answer: Any) -> None:
        """A final reply to the watchers of ``key``."""
        self._decided += 1
        for caller in self.watchers.pop(key, ()):
            self.release.reply(caller, answer, True)

    # --- to the log -------------------------------------------------------------------------------

    def appended(self) -> Release:
        """What was new is on its way to the log: begin the next batch. Returns what may be told afterwards."""
        release, self.release = self.release, Release()
        self.new_facts.clear()
        self.first_cause, self.inputs_since_append = None, 0
        return release


def commands(origin: Any, message: AskMessage, indexes: Sequence[int], story: str) -> Run:
    """Rows of a command message as a run; ``story`` is the column that becomes the correlation id."""
    ids = [message.ids[index] if message.ids else f"{message.id}:{index}" for index in indexes]
    stories = message.rows[story] if story else [""] * len(message.rows)
    places = range(len(indexes)) if len(indexes) == len(message.rows) else indexes
    inputs = Inputs(message.name, message.rows, places, ids, [str(stories[index]) for index in indexes])
    return Run(inputs, callers=[(origin, message.id, index) for index in indexes])


def _run(name: str, entry: LogBatch, kind: str, places: list[int]) -> Run:
    first, last = places[0], places[-1]
    chosen: range | list[int] = range(first, last + 1) if last - first + 1 == len(places) else places
    base, columns = entry.header.base, entry.columns
    ids, stories = at_places(columns["id"], chosen), at_places(columns["correlationid"], chosen)
    return Run(Inputs(kind, columns, chosen, ids, stories), name, [base + place for place in places])


def describe(defect: Exception) -> str:
    """A broken rule's error, for the record."""
    return f"{type(defect).__name__}: {defect}"

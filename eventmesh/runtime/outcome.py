"""What a rule may do with what came in: decide facts, hold inputs open, answer, refuse, tell who watches. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eventmesh.declared import Answer, Fact, MessageType, Named, checked_row, name_of
from eventmesh.errors import EventmeshError
from eventmesh.messages import Columns
from eventmesh.runtime.effects import Row
from eventmesh.runtime.incoming import Incoming, Position
from eventmesh.runtime.partition_state import PartitionState
from eventmesh.runtime.release import ReplyTo
from eventmesh.service import Inputs, Outcome
from eventmesh.values import DoesNotFit


@dataclass(slots=True)
class Held:
    """Inputs that wait for each other: what each part said, and the positions they hold open."""

    parts: dict[int, Any] = field(default_factory=dict)
    positions: list[Position] = field(default_factory=list)


class RuleOutcome:
    """The :class:`~eventmesh.service.Outcome` of a partition's rules; ``held`` and the watchers last from call to call.

    All of it becomes part of ``own``, the partition's state. ``messages`` says which columns an answer has.
    """

    def __init__(self, own: PartitionState, messages: Mapping[str, MessageType]) -> None:
        self.own, self.messages = own, messages
        self.clear()

    def clear(self) -> None:
        """Forget what was held and who watched: the inputs and the callers come again."""
        self.held: dict[str, Held] = {}
        self._watchers: dict[str, list[tuple[ReplyTo, str]]] = {}
        self._steps = 0
        self.begin(Incoming(Inputs("", None, Columns(), (), (), ())))

    def begin(self, incoming: Incoming) -> None:
        """From now on a rule decides on these."""
        self._incoming = incoming
        self._ordinals: dict[int, int] = {}

    @property
    def done(self) -> int:
        """Grows with whatever a rule does, so that it is known whether one that broke had begun."""
        return self._steps + len(self.own.new_facts)

    # --- service.Outcome ------------------------------------------------------------------------

    @property
    def asked(self) -> bool:
        """Whether callers wait for answers."""
        return bool(self._incoming.callers)

    def only(self, rows: Sequence[int]) -> tuple[Inputs[Any], Outcome]:
        """Some of the inputs, and what may be done with them."""
        return self._incoming.inputs._only(rows), PartOutcome(self, rows)

    def facts(self, rows: Sequence[int], facts: Sequence[Fact]) -> None:
        """Decide facts: folded at once, appended with the batch."""
        if len(rows) != len(facts):
            raise DoesNotFit(f"{len(facts)} facts for {len(rows)} rows: name the row of the input that led to each")
        if not facts:
            return
        inputs = self._incoming.inputs
        ids = [self._next_id(row) for row in rows]
        stories, causes = inputs.stories, inputs.ids
        self.own.add_facts(facts, ids, [stories[row] for row in rows], [causes[row] for row in rows])

    def _next_id(self, row: int) -> str:
        ordinal = self._ordinals.get(row, 0)
        self._ordinals[row] = ordinal + 1
        return self.own.fact_id(self._incoming.cause(row), ordinal)

    def fact(self, row: int, fact: Fact) -> None:
        """Decide one fact."""
        self.facts((row,), (fact,))

    def after(self, row: int, delay_s: float, fact: Fact, *, name: str | None = None) -> None:
        """Have a fact happen later."""
        inputs = self._incoming.inputs
        story, cause, identity = inputs.stories[row], inputs.ids[row], self._next_id(row)
        self.own.set_timer(fact, delay_s, story if name is None else name, identity, story, cause)
        self._steps += 1

    def cancel(self, kind: Named, name: str) -> None:
        """Have it not happen."""
        self.own.timers.end((name_of(kind), name))
        self._steps += 1

    def gather(self, row: int, key: str, part: int, value: Any) -> Mapping[int, Any]:
        """Hold this input open under ``key``; all parts so far, by part, the repeats of one counted once."""
        self._steps += 1
        held = self.held.get(key)
        if held is None:
            held = self.held[key] = Held()
        held.parts.setdefault(part, value)
        position = self._incoming.position(row)
        if position is not None:
            held.positions.append(position)
            self.own.hold(position)
        return held.parts

    def gathered(self, key: str) -> None:
        """What was held under ``key`` is decided."""
        held = self.held.pop(key, None)
        if held is None:
            return
        self._steps += 1
        for position in held.positions:
            self.own.let_go(position)

    def answer(self, row: int, answer: Answer, *, more: bool = False) -> None:
        """An answer to one command."""
        if self._incoming.callers:
            whole = self._whole(answer, self._incoming.inputs.kind)
            self._steps += 1
            self.own.release.reply(self._incoming.callers[row], whole, not more)

    def _whole(self, answer: Answer, command: str) -> Row:
        return checked_row(answer, self.messages[command].told, f"the answer to {command}")

    def refuse(self, row: int, error: EventmeshError, *, on_record: bool = False) -> None:
        """A definite no to one command."""
        self._steps += 1
        if on_record:
            self.own.refuse_input(self._incoming, row, str(error))
        elif self._incoming.callers:
            self.own.release.error(self._incoming.callers[row], error)

    @property
    def watched(self) -> int:
        """How many keys callers watch."""
        return len(self._watchers)

    def watch(self, row: int, key: str) -> None:
        """This caller also hears what :meth:`tell` says of ``key``."""
        self._steps += 1
        if self._incoming.callers:
            self._watchers.setdefault(key, []).append((self._incoming.callers[row], self._incoming.inputs.kind))

    def tell(self, key: str, answer: Answer) -> None:
        """A final reply to the watchers of ``key``."""
        told = [(caller, self._whole(answer, command)) for caller, command in self._watchers.get(key, ())]
        self._steps += 1
        self._watchers.pop(key, None)
        for caller, whole in told:
            self.own.release.reply(caller, whole, True)


class PartOutcome:
    """The :class:`~eventmesh.service.Outcome` of some of the inputs: their first is row 0, and stays what it was."""

    def __init__(self, whole: RuleOutcome, rows: Sequence[int]) -> None:
        self._whole, self._rows = whole, list(rows)

    @property
    def asked(self) -> bool:
        """Whether callers wait for answers."""
        return self._whole.asked

    def only(self, rows: Sequence[int]) -> tuple[Inputs[Any], Outcome]:
        """Some of these again."""
        return self._whole.only([self._rows[row] for row in rows])

    def facts(self, rows: Sequence[int], facts: Sequence[Fact]) -> None:
        """Decide facts."""
        self._whole.facts([self._rows[row] for row in rows], facts)

    def fact(self, row: int, fact: Fact) -> None:
        """Decide one fact."""
        self._whole.fact(self._rows[row], fact)

    def after(self, row: int, delay_s: float, fact: Fact, *, name: str | None = None) -> None:
        """Have a fact happen later."""
        self._whole.after(self._rows[row], delay_s, fact, name=name)

    def cancel(self, kind: Named, name: str) -> None:
        """Have it not happen."""
        self._whole.cancel(kind, name)

    def gather(self, row: int, key: str, part: int, value: Any) -> Mapping[int, Any]:
        """Hold this input open."""
        return self._whole.gather(self._rows[row], key, part, value)

    def gathered(self, key: str) -> None:
        """What was held under ``key`` is decided."""
        self._whole.gathered(key)

    def answer(self, row: int, answer: Answer, *, more: bool = False) -> None:
        """An answer to one command."""
        self._whole.answer(self._rows[row], answer, more=more)

    def refuse(self, row: int, error: EventmeshError, *, on_record: bool = False) -> None:
        """A definite no to one command."""
        self._whole.refuse(self._rows[row], error, on_record=on_record)

    @property
    def watched(self) -> int:
        """How many keys callers watch."""
        return self._whole.watched

    def watch(self, row: int, key: str) -> None:
        """This caller also hears what :meth:`tell` says of ``key``."""
        self._whole.watch(self._rows[row], key)

    def tell(self, key: str, answer: Answer) -> None:
        """A final reply to the watchers of ``key``."""
        self._whole.tell(key, answer)

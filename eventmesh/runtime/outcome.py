"""What a rule may do with what came in: decide facts, hold inputs open, answer, refuse, tell who watches. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eventmesh.errors import EventmeshError
from eventmesh.messages import Columns, MessageType
from eventmesh.runtime.effects import Row
from eventmesh.runtime.incoming import Incoming, Position
from eventmesh.runtime.partition_state import PartitionState
from eventmesh.runtime.release import ReplyTo
from eventmesh.service import Inputs


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
        self.begin(Incoming(Inputs("", Columns(), (), (), ())))

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

    def facts(self, kind: str | Sequence[str], rows: Sequence[int], **columns: list[Any]) -> None:
        """Decide facts: folded at once, appended with the batch."""
        if not rows:
            return
        inputs = self._incoming.inputs
        kinds = [kind] * len(rows) if isinstance(kind, str) else list(kind)
        ids = [self._next_id(row) for row in rows]
        stories, causes = inputs.stories, inputs.ids
        self.own.add_facts(kinds, ids, [stories[row] for row in rows], [causes[row] for row in rows], columns)

    def _next_id(self, row: int) -> str:
        ordinal = self._ordinals.get(row, 0)
        self._ordinals[row] = ordinal + 1
        return self.own.fact_id(self._incoming.cause(row), ordinal)

    def fact(self, row: int, kind: str, **payload: Any) -> None:
        """Decide one fact."""
        self.facts(kind, (row,), **{name: [value] for name, value in payload.items()})

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

    def answer(self, row: int, answer: Row, *, more: bool = False) -> None:
        """An answer to one command."""
        if self._incoming.callers:
            whole = self._whole(answer, self._incoming.inputs.kind)
            self._steps += 1
            self.own.release.reply(self._incoming.callers[row], whole, not more)

    def _whole(self, answer: Row, command: str) -> Row:
        return self.messages[command].told.whole(answer, f"the answer to {command}")

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

    def tell(self, key: str, **answer: Any) -> None:
        """A final reply to the watchers of ``key``."""
        told = [(caller, self._whole(answer, command)) for caller, command in self._watchers.get(key, ())]
        self._steps += 1
        self._watchers.pop(key, None)
        for caller, whole in told:
            self.own.release.reply(caller, whole, True)

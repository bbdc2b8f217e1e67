"""What comes in, on its way to a rule: facts of a partition, or commands of callers."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eventmesh.declared import Declared, MessageType
from eventmesh.log.batch import LogBatch
from eventmesh.runtime.effects import AskMessage
from eventmesh.runtime.release import ReplyTo
from eventmesh.service import Inputs, at_places

Position = tuple[str, int]  # topic/partition, offset


@dataclass(frozen=True, slots=True)
class Incoming:
    """Inputs of one kind: facts of ``source`` at ``offsets``, or commands of ``callers``."""

    inputs: Inputs[Any]
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

    def without(self, rows: Sequence[int]) -> Incoming:
        """All but these commands."""
        if not rows:
            return self
        left = sorted(set(range(len(self))) - set(rows))
        return Incoming(self.inputs._only(left), callers=[self.callers[row] for row in left])

    def part(self, start: int, stop: int) -> Incoming:
        """Some of the inputs."""
        return Incoming(self.inputs._part(start, stop), self.source, self.offsets[start:stop], self.callers[start:stop])


def commands(origin: Any, message: AskMessage, indexes: Sequence[int], kind: MessageType) -> Incoming:
    """Some rows of a command message."""
    story = kind.story or kind.key
    ids = [message.ids[index] if message.ids else f"{message.id}:{index}" for index in indexes]
    stories = message.rows[story] if story else [""] * len(message.rows)
    places = range(len(indexes)) if len(indexes) == len(message.rows) else indexes
    inputs = Inputs[Any](
        message.name, kind.asked, message.rows, places, ids, [str(stories[index]) for index in indexes]
    )
    return Incoming(inputs, callers=[(origin, message.id, index) for index in indexes])


def facts(
    name: str,
    entry: LogBatch,
    start: int,
    stop: int,
    *,
    kinds: Container[str],
    is_done: Callable[[str, int], bool] | None,
    declared: Declared,
) -> Iterator[Incoming]:
    """Rows ``start`` up to ``stop`` of a batch of ``topic/partition``: what follows each other in one kind is together.

    Other kinds than these, and offsets that are done already, are left out.
    """
    base, types = entry.header.base, entry.columns["type"]
    kind, places = "", list[int]()
    for place in range(start, stop):
        if types[place] not in kinds or (is_done is not None and is_done(name, base + place)):
            continue
        if types[place] != kind and places:
            yield _at(name, entry, kind, declared, places)
            places = []
        kind = types[place]
        places.append(place)
    if places:
        yield _at(name, entry, kind, declared, places)


def _at(name: str, entry: LogBatch, kind: str, declared: Declared, places: list[int]) -> Incoming:
    first, last = places[0], places[-1]
    chosen: range | list[int] = range(first, last + 1) if last - first + 1 == len(places) else places
    base, columns = entry.header.base, entry.columns
    ids, stories = at_places(columns["id"], chosen), at_places(columns["correlationid"], chosen)
    inputs = Inputs[Any](kind, declared.class_of(kind), columns, chosen, ids, stories)
    return Incoming(inputs, name, [base + place for place in places])

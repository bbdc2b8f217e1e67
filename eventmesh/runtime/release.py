"""What may be told once an append is acknowledged: nobody hears of what the log may still refuse (rule 2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from eventmesh.errors import EventmeshError
from eventmesh.runtime.effects import ReplyMessage, Row, SendReply
from eventmesh.runtime.pending import Pending

ReplyTo = tuple[Any, str, int]  # where an answer goes: origin, ask id, row index


@dataclass(slots=True)
class Release:
    """Replies, errors, answers to queries and awaited records that rest on one append.

    ``refused`` are the causes of inputs that were decided half before, and whose refusal is on record with it.
    """

    replies: dict[tuple[Any, str, bool], tuple[list[int], list[Row]]] = field(default_factory=dict)
    errors: list[SendReply] = field(default_factory=list)
    recorded: list[Pending] = field(default_factory=list)
    answers: list[SendReply] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def reply(self, to: ReplyTo, row: Row, final: bool) -> None:
        """Add one answer row, combined with others for the same message."""
        origin, ask, index = to
        message = origin, ask, final
        answered = self.replies.get(message)
        if answered is None:
            answered = self.replies[message] = ([], [])
        answered[0].append(index)
        answered[1].append(row)

    def error(self, to: ReplyTo, error: EventmeshError) -> None:
        """Add an error as the answer to one row."""
        origin, ask, index = to
        self.errors.append(SendReply(origin, ReplyMessage(ask, [index], (), True, error)))

    def effects(self) -> Iterable[SendReply]:
        """Everything to send."""
        for (origin, ask, final), (indexes, rows) in self.replies.items():
            yield SendReply(origin, ReplyMessage(ask, indexes, rows, final))
        yield from self.errors
        yield from self.answers

    def merge(self, other: Release) -> None:
        """Tell what ``other`` tells, too."""
        for (origin, ask, final), (indexes, rows) in other.replies.items():
            for index, row in zip(indexes, rows, strict=True):
                self.reply((origin, ask, index), row, final)
        self.errors.extend(other.errors)
        self.recorded.extend(other.recorded)
        self.answers.extend(other.answers)
        self.refused.extend(other.refused)

    def __bool__(self) -> bool:
        return bool(self.replies or self.errors or self.recorded or self.answers)

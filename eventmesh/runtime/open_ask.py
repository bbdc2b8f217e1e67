"""One question that is open, and the whole answer that it is a part of. Who decides about it is
:class:`~eventmesh.runtime.asks.Asks`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from eventmesh.errors import EventmeshError
from eventmesh.runtime.ask_policy import Guard
from eventmesh.runtime.effects import Address, AskMessage, Row
from eventmesh.runtime.pending import Pending


@dataclass(slots=True)
class OpenAsk:
    """One question (or the part of it that one partition answers) until all its rows are answered.

    ``persists``: its rule asks until it is answered. ``unsent``: nothing can have gone out under its ids. ``flying``
    has the breaker's turn of each attempt that is on its way. The times are when something is to be done: ``due_at``
    what ``then`` says, ``over_at`` count the attempt as failed, ``hedge_at`` send another message, ``deadline_at`` give
    it up.
    """

    to: Address
    message: AskMessage
    guard: Guard
    attempts_left: int
    places: list[tuple[Gathering, int]]  # where each answer row belongs
    persists: bool
    unsent: bool
    questions: Sequence[Hashable] = ()  # of its rows, where answers are kept
    answered: set[int] = field(default_factory=set)
    repeats: int = 0
    asked_at: int | None = None
    flying: list[int] = field(default_factory=list)
    refusal: EventmeshError | None = None
    then: Literal["begin", "repeat", "tell"] = "repeat"
    due_at: int | None = None
    over_at: int | None = None
    hedge_at: int | None = None
    deadline_at: int | None = None

    @property
    def wakes_at(self) -> int | None:
        """When the first of all that is to be done."""
        first = self.due_at
        for at in (self.over_at, self.hedge_at, self.deadline_at):
            if at is not None and (first is None or at < first):
                first = at
        return first

    def lands(self) -> list[int]:
        """No attempt is on its way any more; the turns of those that were."""
        turns, self.flying = self.flying, []
        self.over_at = self.hedge_at = None
        return turns


@dataclass(slots=True)
class Gathering:
    """The whole answer, gathered from the partitions asked."""

    pending: Pending
    rows: list[Row | None]
    missing: int

    @classmethod
    def of(cls, count: int) -> Gathering:
        """Of so many rows, none of which has come."""
        return cls(Pending(), [None] * count, count)

    def fill(self, place: int, row: Row) -> None:
        """A row has come."""
        self.rows[place] = row
        self.missing -= 1

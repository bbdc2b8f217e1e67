"""One asker on a virtual clock: what it sends, by the policies of a mesh file, and what is answered. Milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventmesh.declared import Answer, Command, Declared, Query
from eventmesh.errors import EventmeshError
from eventmesh.log.topic import Topic
from eventmesh.messages import topic_schema
from eventmesh.policies import AskPolicy, policy_of
from eventmesh.runtime.ask_policy import Guards
from eventmesh.runtime.asks import Asks
from eventmesh.runtime.effects import ReplyMessage, SendAsk
from eventmesh.runtime.limits import AskCounts, Counters, Limits
from eventmesh.runtime.pending import Pending
from eventmesh.service import UNTIL_ANSWERED

MS = 1_000


class Told(Answer):
    """What is answered."""

    name: str
    version: int | None = None


class Look(Query[Told], service="there", key="name"):
    """A question."""

    name: str


class Find(Query[Told], service="there", key="name"):
    """Another."""

    name: str


class Take(Command[Told], service="there", key="name"):
    """A command."""

    name: str


class Undo(Command[Told], service="there", key="name"):
    """What takes it back."""

    name: str


MESSAGES = Declared(Look, Find, Take, Undo).messages


class Asking:
    """A task of ``here`` that asks ``there``; ``policies`` are sections as a mesh file has them.

    What it was told by its policies stands in ``counts``. Another task of the same process is :meth:`beside`.
    """

    def __init__(self, policies: dict[str, Any] | None = None, *, partitions: int = 1, seed: int = 0) -> None:
        sections = {name: AskPolicy.model_validate(each) for name, each in (policies or {}).items()}
        self.now = 0
        self.counters = Counters()
        self.guards = Guards(lambda kind: policy_of(sections, kind), Limits(), self.counters)
        self._there = Topic("there", "there", "name", partitions, topic_schema([]))
        self._number, self._seed = 0, seed
        self._begin()

    def _begin(self) -> None:
        self.sent: list[tuple[int, SendAsk]] = []
        self.asks = Asks(
            f"here/{self._number}", MESSAGES, {"there": self._there}, {"there"}, self.guards, lambda: self.now * MS,
            lambda effect: self.sent.append((self.now, effect)), self.counters, f"life{self._number}", seed=self._seed,
        )  # fmt: skip

    def beside(self) -> Asking:
        """A task that shares guards and counters, with a clock of its own."""
        other = object.__new__(Asking)
        vars(other).update(vars(self))
        other._number = self._number + 1
        other._begin()
        return other

    def counts(self, name: str) -> AskCounts:
        """Of one message."""
        return self.counters.asks[name]

    # --- asking -------------------------------------------------------------------------------------

    def look(self, *names: str, query: str = "Look", attempts: int | None = 4) -> Pending:
        return self.asks.query(query, [{"name": name} for name in names], attempts)

    def take(
        self, story: str, *, command: str = "Take", attempts: int = 4, unsent: bool = True, insists: bool = False
    ) -> Pending:
        attempts = UNTIL_ANSWERED if insists else attempts
        return self.asks.command(story, command, {"name": "a"}, attempts, None, "", set(), unsent=unsent)

    # --- what goes on -------------------------------------------------------------------------------

    def pass_ms(self, milliseconds: int) -> None:
        """Time passes, tick by tick."""
        end = self.now + milliseconds
        while (due := self.asks.next_deadline()) is not None and due <= end * MS:
            self.now = max(self.now, -(-due // MS))
            self.asks.tick(self.now * MS)
        self.now = end

    @property
    def times(self) -> list[int]:
        """When each message was sent."""
        return [at for at, _ in self.sent]

    def answer(self, number: int = -1, *, version: int = 0, error: EventmeshError | None = None) -> None:
        """The message that was sent as this one is answered."""
        message = self.sent[number][1].message
        rows = [] if error is not None else [{"name": name, "version": version} for name in message.rows["name"]]
        self.asks.replied(ReplyMessage(message.id, range(len(message.rows)), rows, True, error))


def versions(pending: Pending) -> Sequence[int]:
    """What a query was answered."""
    assert pending.resolved
    assert pending.error is None, pending.error
    return [row["version"] for row in pending.value]

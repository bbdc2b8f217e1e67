"""Coroutine handlers without an event loop: a conversation is advanced when what it awaits has come.

The only awaitables are those of the mesh. A conversation is never stored: after a restart the fold
shows which are open, and they run again under the same ids (rule 3).
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator, Iterable
from typing import TYPE_CHECKING, Any

from eventmesh.errors import EventmeshError
from eventmesh.runtime.contract import Row

if TYPE_CHECKING:
    from eventmesh.runtime.task import Task

Key = tuple[str, str]


class Pending:
    """Something awaited: resolved once with a value or an error, then its conversation goes on."""

    __slots__ = ("error", "resolved", "value", "waiter")

    def __init__(self) -> None:
        self.resolved = False
        self.value: Any = None
        self.error: EventmeshError | None = None
        self.waiter: Conversation | None = None

    def __await__(self) -> Generator[Pending, None, Any]:
        if not self.resolved:
            yield self
        if self.error is not None:
            raise self.error
        return self.value


class Conversation:
    """One running handler: the ``talk`` that it is given, and what the task needs to drive it.

    ``key`` is (name of the rule's trigger, key value): one conversation at a time per key, later
    callers of the same command join it.
    """

    def __init__(self, task: Task, key: Key, cause: str, correlation: str | None, causation: str) -> None:
        self.task, self.key = task, key
        self.cause, self.correlation, self.causation = cause, correlation, causation
        self.ordinal = 0
        self.position: tuple[str, int] | None = None  # the input held open until the end
        self.callers: list[tuple[Any, str, int]] = []  # (origin, ask, row index)
        self.joined: list[Pending] = []
        self.coroutine: Coroutine[Pending, None, Any] | None = None

    @property
    def state(self) -> Any:
        """The service's state as of now."""
        return self.task.state

    def record(self, kind: str, **payload: Any) -> Awaitable[None]:
        """Append a fact; returns once it is acknowledged."""
        return self.task.record(self, kind, payload)

    def ask(self, query: str, rows: Iterable[Row], *, attempts: int | None = None) -> Awaitable[list[Row]]:
        """Ask; one answer row per question row, each asked of the partition that its key says."""
        return self.task.asks.query(query, list(rows), attempts)

    def command(self, name: str, row: Row, *, attempts: int = 4, partition: int | None = None) -> Awaitable[Row]:
        """Command; the same conversation sends the same command to the same partition under one id."""
        return self.task.asks.command(self, name, row, attempts, partition)

    def join(self, name: str, key: str) -> Awaitable[Any]:
        """Wait for the end of another conversation of this service; returns at once where there is none."""
        return self.task.join((name, key))

    def reply(self, **answer: Any) -> None:
        """Answer the callers now and go on; what was recorded before must have been awaited."""
        self.task.reply_callers(self, answer)

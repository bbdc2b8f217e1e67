"""Something awaited that has not come yet: an answer, an acknowledgement, the end of a conversation."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Pending:
    """Resolved once, with a value or an error; whoever awaits it goes on then, by ``then``."""

    __slots__ = ("error", "resolved", "then", "value")

    def __init__(self) -> None:
        self.resolved = False
        self.value: Any = None
        self.error: Exception | None = None
        self.then: Callable[[], None] | None = None

    @classmethod
    def of(cls, value: object) -> Pending:
        """Something that is there already."""
        pending = cls()
        pending.resolve(value)
        return pending

    def __await__(self) -> Generator[Pending, None, Any]:
        if not self.resolved:
            yield self
        if self.error is not None:
            raise self.error
        return self.value

    def resolve(self, value: object, error: Exception | None = None) -> None:
        """It has come: an ``await`` returns ``value`` from now on, or raises ``error``."""
        self.resolved, self.value, self.error = True, value, error
        then, self.then = self.then, None
        if then is not None:
            then()


class Answered(Generic[T]):
    """An answer awaited: the rows that come are read as what the asker knows."""

    __slots__ = ("pending", "read")

    def __init__(self, pending: Pending, read: Callable[[Any], T]) -> None:
        self.pending, self.read = pending, read

    def __await__(self) -> Generator[Pending, None, T]:
        return self.read((yield from self.pending.__await__()))


#: What is awaited with a time by which it must come is resolved with this where the time came first.
TOO_LATE = object()


class InTime(Pending):
    """Something awaited until a time. It is ``late`` once the time is written down: then it is :data:`TOO_LATE`."""

    __slots__ = ("late",)

    def __init__(self) -> None:
        super().__init__()
        self.late = False

    def resolve(self, value: object, error: Exception | None = None) -> None:
        """See :class:`Pending`; what comes too late does not count."""
        super().resolve(TOO_LATE if self.late else value, None if self.late else error)

    @classmethod
    def waiting_for(cls, awaited: Pending, came: Callable[[], None]) -> InTime:
        """Resolved as ``awaited`` is, if that comes first: then ``came`` is called."""
        pending = cls()

        def arrived() -> None:
            if not pending.late:
                came()
                pending.resolve(awaited.value, awaited.error)

        if awaited.resolved:
            arrived()
        else:
            awaited.then = arrived
        return pending

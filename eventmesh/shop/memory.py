"""The bounded memory of what is finished: answers repeats until no deadline can still be open (rule 12).

A key is forgotten once it is older than the memory's span, and :data:`KEPT_MIN` younger ones are known: a shop with few
orders a day remembers them for long. Folds drive it, never a clock, so that folding again remembers and forgets the
same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from eventmesh.errors import KeyReused
from eventmesh.messages import unlike
from eventmesh.shop.facts import CONTENT

_IN_WORDS = {"customer_id": "another customer", "lines": "other lines"}
#: So many keys of a partition are remembered whatever their age: some 20 MB.
KEPT_MIN = 50_000


@dataclass(slots=True)
class Finished:
    """Key to (status, time of the last fact in microseconds), oldest first."""

    known: dict[str, tuple[str, int]] = field(default_factory=dict)

    def remember(self, key: str, status: str, time: int, memory_us: int) -> None:
        """Remember ``key`` from ``time`` on, and forget what is older than ``memory_us``."""
        self.known.pop(key, None)
        self.known[key] = (status, time)
        _forget(self.known, lambda oldest: oldest[1] < time - memory_us)

    def status(self, key: str) -> str | None:
        """The status remembered of ``key``."""
        found = self.known.get(key)
        return None if found is None else found[0]

    def __contains__(self, key: str) -> bool:
        return key in self.known

    def __len__(self) -> int:
        return len(self.known)


class Asked(NamedTuple):
    """What was asked under a key, and by which command, which may be repeated. ``time`` is of its fact."""

    content: str
    command: str
    time: int

    @classmethod
    def of_fact(cls, identity: str, content: str, time: int) -> Asked:
        """What the fact of this id wrote down: the id begins with that of its cause."""
        return cls(content, identity.rpartition("#")[0], time)

    def repeated_by(self, command: str, content: str, name: str) -> bool:
        """Whether ``command`` asks the same again; False where it is the one that asked first.

        Raises:
            KeyReused: it asks for something else under the same name, such as ``order 1001``.
        """
        if command == self.command:
            return False
        found = " and ".join(_IN_WORDS[column] for column in unlike(self.content, content, CONTENT))
        if found:
            raise KeyReused(f"{name} was asked for before, with {found}. Nothing was done now; use an id of its own")
        return True


@dataclass(slots=True)
class Requested:
    """Key to what was asked under it, oldest first: idempotency keys, each with its fingerprint."""

    known: dict[str, Asked] = field(default_factory=dict)
    forgotten: int = 0  # keys that were known once

    def remember(self, key: str, asked: Asked, memory_us: int) -> None:
        """Remember ``key``, and forget what is older than ``memory_us``; what was asked first stays."""
        self.known.setdefault(key, asked)
        self.forgotten += _forget(self.known, lambda oldest: oldest.time < asked.time - memory_us)

    def get(self, key: str) -> Asked | None:
        """What was asked under ``key``."""
        return self.known.get(key)


def _forget(known: dict[str, Any], old: Callable[[Any], bool]) -> int:
    """Forget what is old beyond what is kept anyway; how many keys."""
    count = 0
    while len(known) > KEPT_MIN and old(known[oldest := next(iter(known))]):
        del known[oldest]
        count += 1
    return count

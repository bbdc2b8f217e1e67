"""The timers of one partition: what is to happen when a time has come, unless something else comes first. No I/O.

A timer is set and ended by records that ride with the appends of its owner (rule 17): they stand in the vector of a
batch, under ``timers``. So what is open follows from the owner's topic, and stands in snapshots beside the state.
When a timer is due, its owner appends what was to happen as a fact, which is an input of its own.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

#: What tells the open timers of a partition apart: the class of its fact, or the conversation that waits
#: (:func:`of_conversation`), and a name.
Key = tuple[str, str]
#: Timers of conversations that were due are remembered so many; the oldest are forgotten.
PASSED_MAX = 10_000
_UNTIL = "until:"


def of_conversation(trigger: str, key: str) -> str:
    """The kind of the timers of a conversation: what it began with, and its key."""
    return f"{_UNTIL}{trigger}:{key}"


class Timer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One timer. ``due_at`` is in microseconds since 1970: the time of the append that sets it, and its delay.

    ``fact`` has the columns of the fact that is to happen, as JSON has them; ``id``, ``story`` and ``cause`` are its
    id, its correlation id and the id of what caused it.
    """

    kind: str
    name: str
    due_at: int
    id: str
    story: str | None = None
    cause: str = ""
    fact: dict[str, Any] = {}

    @property
    def key(self) -> Key:
        """What it is known by."""
        return (self.kind, self.name)

    @property
    def is_of_conversation(self) -> bool:
        """Whether a conversation waits for it; else a fact is written then."""
        return self.kind.startswith(_UNTIL)


def timer_id(identity: str, due_at: int) -> str:
    """The id of what happens then: by what decided it, and the time, since it may be decided again later."""
    return f"timer:{identity}@{due_at}#0"


class _Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """A timer that is set, in the place of an open one of its key; one that is due; or the end of either."""

    set: Timer | None = None
    due: Key | None = None
    end: Key | None = None


class Timers:
    """The open timers, and those of conversations that were due: these are kept until their conversation has ended.

    ``changes`` are those that no append has carried yet.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all that the log can tell again."""
        self.open: dict[Key, Timer] = {}
        self.passed: dict[Key, None] = {}
        self.changes: list[_Change] = []
        self._due: list[tuple[int, Key]] = []
        self._of_conversations: dict[str, set[str]] = {}  # kind -> names

    def set(self, timer: Timer) -> None:
        """Open a timer; an open one of its key is no more."""
        self._change(_Change(set=timer))

    def end(self, key: Key) -> None:
        """There is no timer of this key any more. Harmless where there was none."""
        if key in self.open or key in self.passed:
            self._change(_Change(end=key))

    def end_all(self, kind: str) -> None:
        """There is none of this conversation any more."""
        for name in sorted(self._of_conversations.get(kind, ())):
            self.end((kind, name))

    def passes(self, key: Key) -> None:
        """The time of an open one has come."""
        self._change(_Change(due=key))

    def _change(self, change: _Change) -> None:
        self.changes.append(change)
        self._apply(change)

    def _apply(self, change: _Change) -> None:
        if change.set is not None:
            self._open(change.set)
        elif change.due is not None:
            self.open.pop(change.due, None)
            if change.due[0].startswith(_UNTIL):
                self._remember(change.due)
        elif change.end is not None:
            self.open.pop(change.end, None)
            self._forget(change.end)

    def _open(self, timer: Timer) -> None:
        self.open[timer.key] = timer
        if timer.is_of_conversation:
            self._of_conversations.setdefault(timer.kind, set()).add(timer.name)
        heapq.heappush(self._due, (timer.due_at, timer.key))

    def _remember(self, key: Key) -> None:
        self.passed[key] = None
        self._of_conversations.setdefault(key[0], set()).add(key[1])
        if len(self.passed) > PASSED_MAX:
            self._forget(next(iter(self.passed)))

    def _forget(self, key: Key) -> None:
        self.passed.pop(key, None)
        names = self._of_conversations.get(key[0], set())
        names.discard(key[1])
        if not names:
            self._of_conversations.pop(key[0], None)

    def due(self, now: int) -> list[Timer]:
        """The open ones whose time has come, in its order."""
        following = self.next_due()
        if following is None or following > now:
            return []
        found = [timer for timer in self.open.values() if timer.due_at <= now]
        return sorted(found, key=lambda timer: (timer.due_at, timer.key))

    def next_due(self) -> int | None:
        """When the next one is due; None where none is open."""
        while self._due:
            due_at, key = self._due[0]
            timer = self.open.get(key)
            if timer is not None and timer.due_at == due_at:
                return due_at
            heapq.heappop(self._due)  # ended, or set again
        return None

    # --- in the log -----------------------------------------------------------------------------

    def take_changes(self) -> list[Any]:
        """What the next append carries, as JSON has it."""
        changes, self.changes = self.changes, []
        found: list[Any] = msgspec.to_builtins(changes)
        return found

    def fold(self, vector: Mapping[str, Any]) -> None:
        """What an append has carried."""
        if "timers" in vector:
            for change in msgspec.convert(vector["timers"], list[_Change]):
                self._apply(change)

    def to_json(self) -> dict[str, Any]:
        """As it stands in a snapshot; nothing where there is none."""
        if not self.open and not self.passed:
            return {}
        timers = sorted(self.open.values(), key=lambda timer: timer.key)
        return {"open": msgspec.to_builtins(timers), "passed": [list(key) for key in self.passed]}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """The reverse of :meth:`to_json`."""
        self.clear()
        for timer in msgspec.convert(kept.get("open", []), list[Timer]):
            self._open(timer)
        for kind, name in kept.get("passed", []):
            self._remember((str(kind), str(name)))

    def counted(self) -> dict[str, int]:
        """How many are open, by the class of their fact, or by what the conversation that waits began with."""
        return Counter(_shown(kind) for kind, _ in self.open)

    def listed(self) -> list[tuple[str, str, int]]:
        """What is open, as :class:`~eventmesh.history.StateDump` has it."""
        return sorted((_shown(timer.kind), timer.name, timer.due_at) for timer in self.open.values())


def _shown(kind: str) -> str:
    return kind.removeprefix(_UNTIL).partition(":")[0]

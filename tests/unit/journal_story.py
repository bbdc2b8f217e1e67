"""A caller, a service that says all there is to say, and a death at any instruction of the caller's code.

The death is an exception out of a trace function, before the instruction of that number: nothing of the caller
runs afterwards, and only the files of its journal are left.
"""

from __future__ import annotations

import heapq
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pyarrow as pa

from eventmesh.declared import Answer, Command, Declared
from eventmesh.errors import DidNotHappen, PeerLost, Throttled
from eventmesh.log.topic import Topic
from eventmesh.runtime import caller as caller_module
from eventmesh.runtime import journal as journal_module
from eventmesh.runtime.caller import Caller
from eventmesh.runtime.effects import Effect, ReplyMessage, SendAsk
from eventmesh.runtime.journal import Journal
from eventmesh.workload import Requests

START = 1_700_000_000_000_000
WATCHED = {caller_module.__file__, journal_module.__file__}


class Said(Answer):
    """What the desk says."""

    outcome: str
    reason: str | None = None


class Lend(Command[Said], service="desk", key="book", public=True):
    """A reader wants a book."""

    book: str
    days: int


class GiveBack(Command[Said], service="desk", key="book", public=True):
    """A reader brings one back."""

    book: str


MESSAGES = Declared(Lend, GiveBack).messages
OWNED = {"desk": Topic("loans", "desk", "book", 2, pa.schema([]))}


def requests(number: int, every: int = 700) -> Requests:
    """``number`` requests of two kinds, ``every`` so many microseconds."""
    asked = [Lend(f"book-{place}", place) if place % 3 else GiveBack(f"book-{place}") for place in range(number)]
    return Requests.of(asked, np.arange(number, dtype=np.int64) * every)


def caller(asked: Requests, clock: Callable[[], int], emit: Callable[[Effect], None], **more: Any) -> Caller:
    """A caller of these requests."""
    return Caller("load", asked, messages=MESSAGES, owned=OWNED, clock=clock, emit=emit, patience=20_000, **more)


class Killed(BaseException):
    """The process is gone."""


@contextmanager
def dying(instruction: int | None, inside: str | None = None) -> Iterator[None]:
    """Die before the instruction of this number, counted over the code of caller and journal; None: live on.

    ``inside``: only the instructions of functions of this name count.
    """
    left, before = instruction, sys.gettrace()

    def step(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if event == "opcode" and left is not None:
            left -= 1
            if left <= 0:
                raise Killed
        return step

    def enter(frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        # Between taking the folder's lock and keeping it a death would leak it here, as no real one does.
        if code.co_filename not in WATCHED or code is Journal.open.__func__.__code__:  # type: ignore[attr-defined]
            return None
        if inside is not None and code.co_name != inside:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return step

    sys.settrace(enter if instruction is not None else before)
    try:
        yield
    finally:
        sys.settrace(before)


def is_repeat(identity: str) -> bool:
    """What the desk says of a command by its id: one in three was lent before."""
    return int(identity.rpartition(":")[2]) % 3 == 0


@dataclass
class Desk:
    """What the caller asks: it loses, throttles, refuses, accepts and answers, as the dice fall; and remembers ids.

    Answers to the asks of an earlier life reach the next one.
    """

    dice: random.Random
    now: int = START
    decided: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    asks: list[str] = field(default_factory=list)
    asked: dict[str, int] = field(default_factory=dict)  # command id -> how often
    _events: list[tuple[int, int, ReplyMessage]] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)

    def clock(self) -> int:
        """Virtual microseconds."""
        return self.now

    def take(self, effect: Effect) -> None:
        """A message that has left the caller: it arrives, or it does not."""
        assert isinstance(effect, SendAsk)
        message = effect.message
        self.asks.append(message.id)
        for identity in message.ids:
            self.asked[identity] = self.asked.get(identity, 0) + 1
        fate = self.dice.random()
        rows = list(range(len(message.ids)))
        if fate < 0.15:
            self._say(ReplyMessage(message.id, rows, (), True, Throttled("the desk is busy")))
        elif fate < 0.25:
            self._say(ReplyMessage(message.id, rows, (), True, PeerLost("the line went dead")))
        elif fate < 0.9:
            self._decide(message.id, list(message.ids))

    def _decide(self, ask: str, identities: list[str]) -> None:
        rows = list(range(len(identities)))
        for identity in identities:
            number = int(identity.rpartition(":")[2])
            refused = f"number {number} is not lent" if number % 5 == 4 else None
            self.decided.setdefault(identity, ("refused" if refused else f"shelf {number % 2}", refused))
        no = [row for row in rows if self.decided[identities[row]][1] is not None]
        yes = [row for row in rows if row not in no]
        for row in no:
            self._say(ReplyMessage(ask, [row], (), True, DidNotHappen(str(self.decided[identities[row]][1]))))
        answers = [
            {"outcome": self.decided[identities[row]][0], "reason": None, "repeated": is_repeat(identities[row])}
            for row in yes
        ]
        if self.dice.random() < 0.5:
            self._say(ReplyMessage(ask, yes, [{"outcome": "accepted", "reason": None}] * len(yes), False))
        if self.dice.random() < 0.8:
            self._say(ReplyMessage(ask, yes, answers))

    def _say(self, reply: ReplyMessage) -> None:
        when = self.now + self.dice.randrange(100, 9_000)
        heapq.heappush(self._events, (when, next(self._numbers), reply))

    def serve(self, asking: Caller, effects: list[Effect]) -> None:
        """Go on until the caller is done, or dies."""
        while not asking.done:
            while effects:
                self.take(effects.pop(0))
            deadline = asking.next_deadline()
            if self._events and (deadline is None or self._events[0][0] <= deadline):
                self.now, _, reply = heapq.heappop(self._events)
                asking.replied(reply)
            else:
                assert deadline is not None, "nothing will ever happen again"
                self.now = max(self.now, deadline)
                asking.tick(self.now)


def facts(journal: Journal) -> list[dict[str, Any]]:
    """What the journal says of each request."""
    columns = {
        name: getattr(journal, name).tolist() for name in ("sent", "accepted", "completed", "attempts", "repeated")
    }
    columns["outcome"] = journal.words.texts(journal.outcomes).to_pylist()
    columns["reason"] = journal.words.texts(journal.reasons).to_pylist()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def life(desk: Desk, folder: Path, death: int | None, inside: str | None = None) -> Caller | None:
    """One life over the journal in ``folder``: the caller that is done, or None if it died."""
    effects: list[Effect] = []
    journal = None
    try:
        with dying(death, inside):
            journal = Journal.open(folder)
            assert journal is not None
            living = caller(journal.requests, desk.clock, effects.append, journal=journal)
            living.resume()
            desk.serve(living, effects)
        return living
    except Killed:
        for effect in effects:
            if desk.dice.random() < 0.5:
                desk.take(effect)  # it had left already
        return None
    finally:
        if journal is not None:
            journal.close()  # the descriptors that the system closes for the dead

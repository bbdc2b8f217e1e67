"""Ask policies at work: retry, cache, hedge, circuit breaker, bulkhead. Decisions only: no I/O, no clock, no dice.

What a mesh file says of them is :mod:`eventmesh.policies`; :class:`~eventmesh.runtime.asks.Asks` asks by them. The
tasks of one process share what is here, as the threads of a process do elsewhere. Times are microseconds of the
process's own clock.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from eventmesh import policies
from eventmesh.declared import MessageType
from eventmesh.policies import ENDING, Policy, microseconds
from eventmesh.runtime.effects import Row
from eventmesh.runtime.limits import AskCounts, Counters, Limits

#: A pause of the greatest factor has reached its bound by then, and does not overflow.
DOUBLINGS_MAX = 64


@dataclass(frozen=True, slots=True)
class Retry:
    """How often something is asked, how long an attempt lasts, and the pauses between attempts.

    ``attempts`` None: as many as the rule says. ``eager``: after a timeout the first repeat goes out at once, which is
    so where a mesh file says nothing of pauses: the attempt has lasted long enough.
    """

    attempts: int | None
    timeout: int
    deadline: int | None
    first: int
    factor: float
    longest: int
    jitter: float
    eager: bool

    @classmethod
    def of(cls, policy: Policy, limits: Limits) -> Retry:
        """What a policy says; for the rest, the process's own limits."""
        timeout = limits.attempt_timeout if policy.timeout_ms is None else microseconds(policy.timeout_ms)
        deadline = None if policy.deadline_ms is None else microseconds(policy.deadline_ms)
        backoff = policy.backoff
        if backoff is None:
            return cls(
                policy.attempts, timeout, deadline, limits.backoff, 2.0, limits.backoff_max, jitter=0.0, eager=True
            )
        first, longest = microseconds(backoff.first_ms), microseconds(backoff.max_ms)
        return cls(policy.attempts, timeout, deadline, first, backoff.factor, longest, backoff.jitter, eager=False)

    def pause(self, repeats: int, dice: Random) -> int:
        """Before the next repeat, when there were so many.

        Jitter spreads it evenly around its length, as resilience4j's randomized wait does.
        """
        pause = min(self.first * self.factor ** min(repeats, DOUBLINGS_MAX), self.longest)
        if self.jitter:
            pause *= 1 + self.jitter * (2 * dice.random() - 1)
        return int(pause)

    def pause_after_timeout(self, repeats: int, dice: Random) -> int:
        """The same where the attempt before has had all its time."""
        return 0 if self.eager and repeats == 0 else self.pause(repeats, dice)


# --- cache ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer, and when it was asked for: what its owner has changed since then it does not know."""

    answer: Row
    asked_at: int


class Cache:
    """Answers by question. An answer is *fresh* for ``ttl``, and *stale* for as long again as ``stale`` says.

    Whoever finds a stale one uses it and asks again, one at a time for each question (RFC 5861).
    """

    def __init__(self, ttl: int, stale: int, entries_max: int) -> None:
        self.ttl, self.stale, self.entries_max = ttl, stale, entries_max
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()  # the one that was used longest ago first
        self._asked_again: set[Hashable] = set()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, question: Hashable, now: int) -> tuple[Row, Literal["fresh", "stale"]] | None:
        """An answer that may still be used; None where there is none."""
        kept = self._kept.get(question)
        if kept is None:
            return None
        age = now - kept.asked_at
        if age > self.ttl + self.stale:
            del self._kept[question]
            return None
        self._kept.move_to_end(question)
        return dict(kept.answer), "fresh" if age <= self.ttl else "stale"

    def keep(self, question: Hashable, answer: Row, asked_at: int) -> None:
        """An answer came. One that was asked for later stays."""
        known = self._kept.get(question)
        if known is not None and known.asked_at > asked_at:
            return
        self._kept[question] = Kept(dict(answer), asked_at)
        self._kept.move_to_end(question)
        if len(self._kept) > self.entries_max:
            self._kept.popitem(last=False)

    def asks_again(self, question: Hashable) -> bool:
        """Whether nobody is asking for a fresh answer yet: who hears True does, until :meth:`asked_again`."""
        if question in self._asked_again:
            return False
        self._asked_again.add(question)
        return True

    def asked_again(self, question: Hashable) -> None:
        """It was asked again, with an answer or without."""
        self._asked_again.discard(question)


def question_of(kind: MessageType, row: Mapping[str, Any]) -> Hashable:
    """A question as a key: its columns in the order of the schema."""
    return tuple([_frozen(row[name]) for name in kind.question.names])


def _frozen(value: Any) -> Hashable:
    if isinstance(value, list | tuple):
        return tuple([_frozen(each) for each in value])
    if isinstance(value, dict):
        return tuple(sorted((name, _frozen(each)) for name, each in value.items()))
    frozen: Hashable = value
    return frozen


# --- circuit breaker --------------------------------------------------------------------------------


class CircuitBreaker:
    """Closed, open, half-open: resilience4j's states, on the calls that it has let out.

    Whoever is let out gets the number of the breaker's turn, and gives it back with what came of the call: what was
    sent in an earlier turn says nothing of this one.
    """

    def __init__(
        self, *, consecutive: int | None, rate: float, window: int, least: int, open_for: int, trials: int
    ) -> None:
        self.consecutive, self.rate, self.window, self.least = consecutive, rate, window, least
        self.open_for, self.trials = open_for, trials
        self.half_open_at = 0  # where it is open
        self._turn = 0
        self._begin("closed")

    @classmethod
    def of(cls, said: policies.CircuitBreaker) -> CircuitBreaker:
        """A closed one, as a mesh file describes it."""
        return cls(
            consecutive=said.consecutive_failures, rate=said.failure_rate_threshold or 0.0,
            window=said.sliding_window_size or 1, least=said.minimum_number_of_calls or 1,
            open_for=microseconds(said.wait_duration_in_open_state_ms),
            trials=said.permitted_number_of_calls_in_half_open_state,
        )  # fmt: skip

    def let_out(self, now: int) -> int | None:
        """The number of this turn, for a call that may go out; None for one that may not."""
        if self.state == "open" and now >= self.half_open_at:
            self._begin("half-open")
        if self.state == "open":
            return None
        if self.state == "half-open":
            if self._let_out + len(self._failed) >= self.trials:
                return None
            self._let_out += 1
        return self._turn

    def succeeded(self, turn: int, now: int) -> None:
        """A call of that turn was answered."""
        if turn == self._turn:
            self._note(failed=False, now=now)

    def failed(self, turn: int, now: int) -> bool:
        """A call of that turn was not answered, or not with anything; whether the circuit has opened by that."""
        if turn != self._turn:
            return False
        self._note(failed=True, now=now)
        return self.state == "open"

    def given_back(self, turn: int) -> None:
        """Nobody waits any more for what comes of a call of that turn."""
        if turn == self._turn and self.state == "half-open":
            self._let_out -= 1

    def _begin(self, state: Literal["closed", "open", "half-open"]) -> None:
        self.state = state
        self._turn += 1
        self._failed = deque[bool](maxlen=self.trials if state == "half-open" else self.window)  # the last calls
        self._failures = 0  # among them; in a row where those are counted
        self._let_out = 0  # trials on their way

    def _note(self, *, failed: bool, now: int) -> None:
        if self.state == "half-open":
            self._let_out -= 1
        if self.consecutive is not None:
            self._failures = self._failures + 1 if failed else 0
        elif len(self._failed) == self._failed.maxlen:
            self._failures += failed - self._failed[0]
        else:
            self._failures += failed
        self._failed.append(failed)
        if self._must_open():
            self._begin("open")
            self.half_open_at = now + self.open_for
        elif self.state == "half-open" and len(self._failed) == self.trials:
            self._begin("closed")

    def _must_open(self) -> bool:
        half_open, calls = self.state == "half-open", len(self._failed)
        if self.consecutive is not None:
            return self._failures >= (1 if half_open else self.consecutive)
        return calls >= (self.trials if half_open else self.least) and 100 * self._failures >= self.rate * calls


# --- bulkhead ---------------------------------------------------------------------------------------


class Bulkhead:
    """Places for asks that are on their way, and a queue for those that wait for one. An ask goes by its id."""

    def __init__(self, in_flight_max: int, queued_max: int) -> None:
        self.in_flight_max, self.queued_max = in_flight_max, queued_max
        self._inside: set[str] = set()
        self._queue: dict[str, Callable[[], None]] = {}  # in the order in which they came

    @property
    def full(self) -> bool:
        """Whether the next one has to wait."""
        return len(self._inside) >= self.in_flight_max

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._queue)

    def enter(self, ask: str) -> bool:
        """Whether it has a place: it has one already, or there is one."""
        if ask not in self._inside and self.full:
            return False
        self._inside.add(ask)
        return True

    def waits(self, ask: str) -> bool:
        """Whether it waits for a place."""
        return ask in self._queue

    def wait(self, ask: str, entered: Callable[[], None], *, in_any_case: bool = False) -> bool:
        """Whether it may wait for a place; ``entered`` is called when it has one. It must only take note of it.

        What must get through waits ``in_any_case``: as many as there are conversations, which are bounded.
        """
        if ask not in self._queue and len(self._queue) >= self.queued_max and not in_any_case:
            return False
        self._queue[ask] = entered
        return True

    def leave(self, ask: str) -> None:
        """It is over, wherever it stood."""
        self._queue.pop(ask, None)
        self._inside.discard(ask)
        while self._queue and not self.full:
            first = next(iter(self._queue))
            self._inside.add(first)
            self._queue.pop(first)()


# --- all of them, of one process ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Guard:
    """What stands between a rule that asks one message and the service that answers. None: there is no such thing.

    ``ends`` is what the message's own section says that ends an ask without an answer, as it stands there.
    """

    retry: Retry
    ends: str
    hedge_after: int | None
    cache: Cache | None
    breaker: CircuitBreaker | None
    bulkhead: Bulkhead | None
    counts: AskCounts


class Guards:
    """The guards of one process, by message; each is made when it is first asked for.

    A breaker or a bulkhead of the default section is one for each service that is asked, one of a message its own.
    """

    def __init__(self, policy_of: Callable[[MessageType], Policy], limits: Limits, counters: Counters) -> None:
        self._policy_of, self._limits, self._counters = policy_of, limits, counters
        self._guards: dict[str, Guard] = {}
        self._breakers: dict[tuple[str, str], CircuitBreaker] = {}
        self._bulkheads: dict[tuple[str, str], Bulkhead] = {}

    @classmethod
    def plain(cls, limits: Limits, counters: Counters) -> Guards:
        """Where no mesh file says anything."""
        return cls(lambda kind: Policy(), limits, counters)

    def of(self, kind: MessageType) -> Guard:
        """That of one message."""
        guard = self._guards.get(kind.name)
        if guard is None:
            guard = self._guards[kind.name] = self._made(kind, self._policy_of(kind))
        return guard

    def _made(self, kind: MessageType, policy: Policy) -> Guard:
        cache, hedge, breaker, bulkhead = policy.cache, policy.hedge, policy.circuit_breaker, policy.bulkhead
        ends = [f"{key}: {getattr(policy, key):g}" for key in ENDING if policy.stands.get(key) == kind.name]
        return Guard(
            Retry.of(policy, self._limits),
            ", ".join(ends),
            None if hedge is None else microseconds(hedge.after_ms),
            None if cache is None else Cache(
                microseconds(cache.ttl_ms), microseconds(cache.stale_while_revalidate_ms), cache.entries_max
            ),
            None if breaker is None else self._breakers.setdefault(
                (policy.stands["circuit_breaker"], kind.service), CircuitBreaker.of(breaker)
            ),
            None if bulkhead is None else self._bulkheads.setdefault(
                (policy.stands["bulkhead"], kind.service), Bulkhead(bulkhead.in_flight_max, bulkhead.queued_max)
            ),
            self._counters.asks.setdefault(kind.name, AskCounts()),
        )  # fmt: skip

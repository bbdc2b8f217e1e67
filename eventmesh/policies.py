"""Ask policies as a mesh file says them: of each service that asks, by the message that it sends, with a default.

What they do is :mod:`eventmesh.runtime.ask_policy`. The words are resilience4j's where it has one: *circuit breaker*
with its states closed, open and half-open, *bulkhead*. The cache's are those of RFC 5861, *stale-while-revalidate*.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from eventmesh.configuration import describe, dotted, mistake, no_effect, suggestion
from eventmesh.declared import MessageType
from eventmesh.errors import ConfigurationError

#: The section that holds for whatever has none of its own, or not this key in it.
DEFAULT = "default"
#: Milliseconds: a day. Whoever waits for longer waits for a human.
MS_MAX = 86_400_000.0
#: What holds where a mesh file says nothing, in milliseconds.
TIMEOUT_MS, BACKOFF_MS, BACKOFF_MAX_MS = 5_000, 50, 2_000
#: Keys for which a command has no use: it is no harmless question.
OF_QUERIES = ("cache", "hedge")
#: Keys that end an ask without an answer: of what is asked until it is answered nothing follows from them.
ENDING = ("attempts", "deadline_ms")
_WINDOW = ("failure_rate_threshold", "sliding_window_size", "minimum_number_of_calls")
_RATE, _CALLS = 50.0, 100  # resilience4j's defaults


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


class Backoff(_Section):
    """The pause before each repeat: ``first_ms``, then ``factor`` times as long each time, up to ``max_ms``."""

    first_ms: float = Field(BACKOFF_MS, gt=0, le=MS_MAX, description="The pause before the first repeat.")
    factor: float = Field(2.0, ge=1, le=10, description="Each pause is so many times the one before.")
    max_ms: float = Field(BACKOFF_MAX_MS, gt=0, le=MS_MAX, description="No pause is longer, but for its jitter.")
    jitter: float = Field(
        0.0, ge=0, le=1, description="0.5 spreads each pause evenly from half of it to one and a half of it."
    )

    @model_validator(mode="after")
    def _grows(self) -> Backoff:
        if self.max_ms < self.first_ms:
            problem = f"the longest pause, {self.max_ms:g} ms, is below the first, {self.first_ms:g} ms"
            raise mistake(problem, f"Write max_ms: {self.first_ms:g} or more", "max_ms")
        return self


class Cache(_Section):
    """Answers of a query that are used again, by question. Each counts from the moment when it was asked for."""

    ttl_ms: float = Field(gt=0, le=MS_MAX, description="So long an answer is fresh.")
    stale_while_revalidate_ms: float = Field(
        0.0, ge=0, le=MS_MAX, description="So long after that it is still used, while it is asked for again."
    )
    entries_max: int = Field(10_000, ge=1, le=1_000_000, description="The answer that was used longest ago goes first.")

    @property
    def age_max_us(self) -> int:
        """No answer is used that was asked for longer ago, microseconds."""
        return microseconds(self.ttl_ms) + microseconds(self.stale_while_revalidate_ms)


class Hedge(_Section):
    """A second message for one question, when the first has no answer yet. The first answer wins."""

    after_ms: float = Field(gt=0, le=MS_MAX, description="So long after the first message the second is sent.")


class CircuitBreaker(_Section):
    """Closed, it counts attempts that fail; open, nothing is sent; half-open, a few attempts decide.

    It opens by the share of failures among the last calls, or else by failures in a row.
    """

    failure_rate_threshold: float | None = Field(
        None, gt=0, le=100, description=f"Percent of failed calls from which it opens; {_RATE:g} if not given."
    )
    sliding_window_size: int | None = Field(
        None, ge=1, le=100_000, description=f"The rate is that of so many last calls; {_CALLS} if not given."
    )
    minimum_number_of_calls: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description=f"Among fewer calls there is no rate; {_CALLS}, or the window, if not given.",
    )
    consecutive_failures: int | None = Field(
        None, ge=1, le=100_000, description="It opens after so many failures in a row; in place of a rate."
    )
    wait_duration_in_open_state_ms: float = Field(
        60_000, gt=0, le=MS_MAX, description="So long it stays open before it is half-open."
    )
    permitted_number_of_calls_in_half_open_state: int = Field(
        10, ge=1, le=10_000, description="So many attempts decide whether it closes or opens again."
    )

    @model_validator(mode="before")
    @classmethod
    def _one_way_to_open(cls, section: Any) -> Any:
        """A rate unless failures in a row are counted; its defaults are written out, since only then they hold."""
        if not isinstance(section, Mapping):
            return section
        known = {key: value for key, value in section.items() if value is not None}
        if "consecutive_failures" in known:
            for key in _WINDOW:
                if key in known:
                    problem = f"does nothing beside consecutive_failures, found {describe(known[key])}"
                    raise no_effect(problem, f"Leave {key} out, or consecutive_failures", key)
            return known
        known.setdefault("failure_rate_threshold", _RATE)
        window = known.setdefault("sliding_window_size", _CALLS)
        known.setdefault("minimum_number_of_calls", min(_CALLS, window) if isinstance(window, int) else _CALLS)
        return known

    @model_validator(mode="after")
    def _can_open(self) -> CircuitBreaker:
        window, least = self.sliding_window_size, self.minimum_number_of_calls
        if window is not None and least is not None and least > window:
            problem = f"the window holds {window} calls, so there are never {least}: it would never open"
            raise mistake(problem, f"Write minimum_number_of_calls: {window} or less", "minimum_number_of_calls")
        return self

    @model_serializer(mode="plain")
    def _written(self) -> dict[str, Any]:
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


class Bulkhead(_Section):
    """How many asks of one process are on their way at a time, and how many may wait for a place."""

    in_flight_max: int = Field(ge=1, le=100_000, description="Asks on their way at a time.")
    queued_max: int = Field(0, ge=0, le=100_000, description="Asks that wait for a place; one more is refused.")


class AskPolicy(_Section):
    """What holds for the asks of one message, or of all that have no section of their own. null takes a default away.

    A key that a message's section does not have is the default's.
    """

    attempts: int | None = Field(
        None, ge=1, le=1_000, description="Messages that are sent for one ask, at most; the rule's number if not given."
    )
    timeout_ms: float | None = Field(
        None, gt=0, le=MS_MAX, description=f"An attempt without an answer is over then; {TIMEOUT_MS} if not given."
    )
    backoff: Backoff | None = Field(None, description="The pauses before repeats.")
    deadline_ms: float | None = Field(
        None, gt=0, le=MS_MAX, description="The whole ask is over then, whatever attempts are left."
    )
    cache: Cache | None = Field(None, description="Answers that are used again; of queries only.")
    hedge: Hedge | None = Field(None, description="A second message when the first is late; of queries only.")
    circuit_breaker: CircuitBreaker | None = Field(None, description="Stop asking who does not answer, for a while.")
    bulkhead: Bulkhead | None = Field(None, description="Bound the asks that are on their way at a time.")

    @model_serializer(mode="plain")
    def _written(self) -> dict[str, Any]:
        """What was said, and no more: a key that is not there is the default section's, null takes it away."""
        values = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        return {name: value.model_dump() if isinstance(value, BaseModel) else value for name, value in values.items()}


#: The sections of one service, by message, with :data:`DEFAULT`.
Sections = Mapping[str, AskPolicy]


@dataclass(frozen=True)
class Policy:
    """What holds for one message, its own section and the default's together. None: nothing was said.

    ``stands`` names the section of each key. What a process shares between messages, a breaker and a bulkhead, it
    shares between those that have it from one section and ask one service.
    """

    attempts: int | None = None
    timeout_ms: float | None = None
    backoff: Backoff | None = None
    deadline_ms: float | None = None
    cache: Cache | None = None
    hedge: Hedge | None = None
    circuit_breaker: CircuitBreaker | None = None
    bulkhead: Bulkhead | None = None
    stands: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def policy_of(sections: Sections, message: MessageType) -> Policy:
    """What holds for this message."""
    values, stands = {}, {}
    for key in AskPolicy.model_fields:
        name = _section_of(sections, message, key)
        value = None if name is None else getattr(sections[name], key)
        if name is not None and value is not None:
            values[key], stands[key] = value, name
    return Policy(**values, stands=stands)


def _section_of(sections: Sections, message: MessageType, key: str) -> str | None:
    """The section that says what ``key`` is for this message."""
    own, default = sections.get(message.name), sections.get(DEFAULT)
    if own is not None and key in own.model_fields_set:
        return message.name
    if default is not None and key in default.model_fields_set and may_have(message, key):
        return DEFAULT
    return None


def may_have(message: MessageType, key: str) -> bool:
    """Whether a message has any use for ``key``."""
    return message.kind == "query" or key not in OF_QUERIES


def microseconds(milliseconds: float) -> int:
    """At least one."""
    return max(1, round(milliseconds * 1_000)) if milliseconds else 0


@dataclass(frozen=True)
class Check:
    """Holds the sections of ``asker`` against what its rules send in ``wiring``.

    ``sends`` are the messages, ``until_answered`` the names of those that its rules ask until they are answered;
    ``known`` has all messages of the application.
    """

    asker: str
    sections: Sections
    wiring: str
    sends: Mapping[str, MessageType]
    until_answered: Sequence[str]
    known: Mapping[str, MessageType]
    file: str = ""

    def all(self) -> None:
        """Raises :class:`ConfigurationError` for the first mistake."""
        for name, section in self.sections.items():
            if name != DEFAULT:
                self._is_sent(name)
            if not section.model_fields_set:
                raise self._error((name,), "does nothing: it says nothing", "Leave it out")
        for name, section in self.sections.items():
            if name == DEFAULT:
                self._default(section)
            else:
                self._own(self.sends[name], section)
        for message in self.sends.values():
            self._fits_together(message)

    def _is_sent(self, name: str) -> None:
        if name in self.sends:
            return
        problem = f"does nothing: in wiring {self.wiring!r} {self.asker} never sends {name!r}"
        if name not in self.known:
            problem = f"unknown message {name!r}"
        raise self._error((name,), problem, suggestion(name, [DEFAULT, *self.sends]))

    def _own(self, message: MessageType, section: AskPolicy) -> None:
        for key in self._keys(section):
            value, way = getattr(section, key), (message.name, key)
            if not may_have(message, key):
                problem = f"{message.name} is a command, and only a query is harmless to answer or ask so"
                queries = [name for name, each in self.sends.items() if each.kind == "query"]
                hint = f"Leave it out. Queries that {self.asker} sends: {', '.join(sorted(queries)) or 'none'}"
                raise self._error(way, problem, hint)
            if value is None and not self._takes_away(message, key):
                raise self._error(way, "does nothing: the default section does not have it", "Leave it out")
            if value is not None and (why := self._no_use(message, key)):
                raise self._error(way, f"does nothing: {why}", "Leave it out")

    def _no_use(self, message: MessageType, key: str) -> str:
        """Why nothing follows from ``key`` for this message, where that is so."""
        persists = message.name in self.until_answered
        if key in ENDING and persists:
            return f"in wiring {self.wiring!r} {self.asker} asks {message.name} until it is answered"
        if key == "backoff" and not persists and policy_of(self.sections, message).attempts == 1:
            return "with attempts: 1 nothing is repeated"
        return ""

    def _takes_away(self, message: MessageType, key: str) -> bool:
        default = self.sections.get(DEFAULT)
        return default is not None and getattr(default, key) is not None and may_have(message, key)

    def _default(self, section: AskPolicy) -> None:
        for key in self._keys(section):
            if getattr(section, key) is None:
                raise self._error((DEFAULT, key), "does nothing: null takes a default away", "Leave it out")
            if not any(self._follows(message, key) for message in self.sends.values()):
                problem = f"does nothing: none of what {self.asker} sends in wiring {self.wiring!r} takes it"
                raise self._error((DEFAULT, key), problem, "Leave it out, or write it under the name of a message")

    def _follows(self, message: MessageType, key: str) -> bool:
        return _section_of(self.sections, message, key) == DEFAULT and not self._no_use(message, key)

    def _fits_together(self, message: MessageType) -> None:
        policy = policy_of(self.sections, message)
        timeout = TIMEOUT_MS if policy.timeout_ms is None else policy.timeout_ms
        if policy.hedge is not None and policy.hedge.after_ms >= timeout:
            problem = f"the attempt is over before that, after {timeout:g} ms: the second message is never sent"
            of_hedge = (policy.stands["hedge"], "hedge", "after_ms")
            raise self._error(of_hedge, problem, f"Write after_ms below {timeout:g}, or a longer timeout_ms")
        if policy.deadline_ms is not None and policy.deadline_ms < timeout and message.name not in self.until_answered:
            problem = f"found {policy.deadline_ms:g}, and one attempt takes up to {timeout:g} ms"
            way = (policy.stands["deadline_ms"], "deadline_ms")
            raise self._error(way, problem, f"Write deadline_ms: {timeout:g} or more, or a shorter timeout_ms")

    @staticmethod
    def _keys(section: AskPolicy) -> Iterator[str]:
        return (key for key in AskPolicy.model_fields if key in section.model_fields_set)

    def _error(self, way: tuple[str, ...], problem: str, hint: str) -> ConfigurationError:
        path = dotted(way, f"services.{self.asker}.policies")
        return ConfigurationError(problem, file=self.file, path=path, hint=hint)

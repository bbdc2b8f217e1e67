"""What a service is: what it owns, how it decides, how it folds, what it answers.

A service is Chassaing's *decider*: ``decide(state, what came in) -> facts`` and ``evolve(state, facts)``,
both over batches, columns in and columns out. Its state is the fold of its own facts and nothing else.
Rules say *what* a service decides; a wiring says what triggers each rule, so that the same rule serves
an event in one wiring and a command in another.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from types import FunctionType, MappingProxyType, MethodType
from typing import Any, Protocol

from eventmesh.errors import EventmeshError
from eventmesh.log.topic import Topic, partition_for
from eventmesh.messages import Columns
from eventmesh.views import View

Row = dict[str, Any]
#: Attempts of what must be answered, however long it takes: a query, which is harmless to repeat, or an undoing.
UNTIL_ANSWERED = 1_000_000


@dataclass(frozen=True)
class Place:
    """Where an instance of a service stands: its partition, the whole mesh's topics, its options."""

    service: str
    partition: int
    topics: Mapping[str, Topic]
    options: Any
    seed: int

    def partition_of(self, topic: str, key: str) -> int:
        """The partition that ``key`` has in ``topic``."""
        return partition_for(key, self.topics[topic].partitions)


class Inputs:
    """A run of inputs of one kind, in order: what a rule decides on. Columns come as lists, one item per input.

    ``kind`` is the type of the facts, or the name of the commands. ``ids`` are the messages' own ids,
    ``stories`` the correlation ids. Lists are shared: a rule reads them and leaves them as they are.
    """

    __slots__ = ("_columns", "_places", "ids", "kind", "stories")

    def __init__(
        self, kind: str, columns: Columns, places: range | Sequence[int], ids: Sequence[str], stories: Sequence[str]
    ) -> None:
        self.kind, self._columns, self._places = kind, columns, places
        self.ids, self.stories = ids, stories

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, name: str) -> list[Any]:
        return at_places(self._columns[name], self._places)

    def rows(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Inputs as tuples: the number of the input in this run, then the named columns."""
        return zip(range(len(self)), *(self[name] for name in names), strict=True)

    def first(self, name: str) -> dict[Any, int]:
        """Each value of a column (or ``id``), in order, with the first input that has it: repeats are left out."""
        found: dict[Any, int] = {}
        for number, value in enumerate(self.ids if name == "id" else self[name]):
            found.setdefault(value, number)
        return found

    def row(self, number: int) -> InputRow:
        """One input as a mapping of its columns, which are decoded when asked for."""
        return InputRow(self._columns, self._places[number])

    def _only(self, numbers: Sequence[int]) -> Inputs:
        """The inputs of these numbers, as a run of their own: a rule gets it from :meth:`Outcome.only`."""
        ids, stories = [self.ids[number] for number in numbers], [self.stories[number] for number in numbers]
        return Inputs(self.kind, self._columns, [self._places[number] for number in numbers], ids, stories)

    def _part(self, start: int, stop: int) -> Inputs:
        """The inputs from ``start`` up to ``stop``, as a run of their own."""
        return Inputs(
            self.kind, self._columns, self._places[start:stop], self.ids[start:stop], self.stories[start:stop]
        )


class InputRow(Mapping[str, Any]):
    """One input, for a rule that takes one at a time."""

    __slots__ = ("_columns", "_place")

    def __init__(self, columns: Columns, place: int) -> None:
        self._columns, self._place = columns, place

    def __getitem__(self, name: str) -> Any:
        return self._columns[name][self._place]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns.names)

    def __len__(self) -> int:
        return len(self._columns.names)


def at_places(column: list[Any], places: range | Sequence[int]) -> list[Any]:
    """The items of a list at these places; a range costs one slice."""
    if isinstance(places, range):
        whole = places.start == 0 and places.stop == len(column)
        return column if whole else column[places.start : places.stop]
    return [column[place] for place in places]


class Outcome(Protocol):
    """What a rule may do with the run of inputs that it was given; ``row`` is the number of an input in the run."""

    @property
    def asked(self) -> bool:
        """Whether callers wait for answers: the inputs are commands."""

    def only(self, rows: Sequence[int]) -> tuple[Inputs, Outcome]:
        """Some of the inputs as a run of their own, and what another rule may do with it: cause and story stay theirs.

        ``self.lend(state, *out.only([0, 2]))``.
        """

    def facts(self, kind: str | Sequence[str], rows: Sequence[int], **columns: list[Any]) -> None:
        """Decide facts, in order: of one kind or one kind each, caused by ``rows``, with one list per payload column.

        They are folded at once, so that the state which the rule reads next has them.
        """

    def fact(self, row: int, kind: str, **payload: Any) -> None:
        """Decide one fact: :meth:`facts` where the next input's decision depends on this one's."""

    def gather(self, row: int, key: str, part: int, value: Any) -> Mapping[int, Any]:
        """Keep this input open under ``key`` until :meth:`gathered`; returns all parts held, by part."""

    def gathered(self, key: str) -> None:
        """The inputs held under ``key`` have become a fact, or no longer matter."""

    def answer(self, row: int, answer: Row, *, more: bool = False) -> None:
        """Answer the command once everything decided so far is acknowledged; ``more``: a final answer follows."""

    def refuse(self, row: int, error: EventmeshError, *, on_record: bool = False) -> None:
        """Tell the caller of this command that nothing happened, such as :class:`~eventmesh.errors.Throttled`.

        ``on_record``: for good. It is a fact before the caller hears of it, and whoever repeats the command hears it
        again; so it is the only thing that the rule decides for this input.
        """

    @property
    def watched(self) -> int:
        """How many keys callers watch."""

    def watch(self, row: int, key: str) -> None:
        """The caller of this command also wants what :meth:`tell` will say of ``key``."""

    def tell(self, key: str, **answer: Any) -> None:
        """Send a further, final reply to the callers that watch ``key``."""


class Talk(Protocol):
    """What a coroutine handler may await: the mesh's awaitables and nothing else."""

    @property
    def state(self) -> Any:
        """The service's state as of now; what was read before an ``await`` must be read again."""

    @property
    def cause(self) -> str:
        """The id of the command, or the position of the fact, that began the conversation."""

    def ask(self, query: str, rows: Iterable[Row], *, attempts: int | None = None) -> Awaitable[list[Row]]:
        """Send a query; one answer row per question row. Asked until answered, or AskTimeout when ``attempts`` end."""

    def command(
        self, name: str, row: Row, *, attempts: int = 4, partition: int | None = None, part: str = ""
    ) -> Awaitable[Row]:
        """Send a command under an id that does not change over retries and restarts.

        ``part`` names each of several commands of one name that a conversation sends to one partition: "food", "tip".
        ``TypeError`` for a second one of the same name and part: the receiver would take it for a repeat.
        """

    def record(self, kind: str, **payload: Any) -> Awaitable[None]:
        """Append a fact; returns once it is acknowledged."""

    def join(self, name: str, key: str) -> Awaitable[Any]:
        """Wait for the end of this service's conversation that command ``name`` began for ``key``, if it is open.

        ``RuntimeError`` if that one waits for this one, or is this one.
        """

    def reply(self, **answer: Any) -> None:
        """Answer the callers now and go on; what the answer rests on must have been awaited."""


#: ``rule(service, state, inputs, outcome)``, or ``async rule(service, row, talk)`` for one input at a time.
Rule = Callable[..., Any]
#: Names, or how they follow from the service's options.
Named = Sequence[str] | Callable[[Any], Iterable[str]]


@dataclass(frozen=True)
class Trigger:
    """The part of a wiring that concerns one service.

    ``rules`` maps a fact's type or a command's name to what it triggers: ``rule(service, state, inputs, outcome)``,
    or ``async rule(service, row, talk)`` where the service must wait for another's answer. Of those there is one
    conversation at a time per name and story: a repeat of the command joins it, another command of the same story waits
    for its end. A rule that raises :class:`~eventmesh.errors.KeyReused` refuses its input on record.
    After a restart ``resume`` starts, for every key of :meth:`Service.unfinished`, the rule that carries on the
    conversation which that command had begun, so that a caller who repeats the command joins it; its row is
    ``{"key": key}``.
    ``reads`` names the views that the rules look into, ``sends`` the commands and queries that they send: a mesh file
    that lacks what they need is refused (:mod:`eventmesh.needs`).
    """

    rules: Mapping[str, Rule] = field(default_factory=dict)
    resume: Mapping[str, Rule] = field(default_factory=dict)
    reads: Named = ()
    sends: Named = ()


class Service:
    """Base of all services.

    ``queries`` maps a query's name to ``answer(state, row) -> row``; the state given to it cannot be
    changed (promise P6). Snapshots keep the state: it is of the type that :meth:`initial` says it returns, made of
    dataclasses, named tuples, mappings, lists, tuples, sets and scalars.
    """

    name: str = ""
    #: Raise it when ``evolve``, or the type of the state, changes: snapshots of another version are not gone on with.
    state_version: int = 1
    queries: Mapping[str, Callable[[Any, Row], Row]] = MappingProxyType({})

    def __init__(self, place: Place, trigger: Trigger, views: Mapping[str, View]) -> None:
        self.place, self.views, self.resume = place, views, trigger.resume
        self.rules = dict(trigger.rules)
        self.waiting_rules = {name for name, rule in self.rules.items() if inspect.iscoroutinefunction(rule)}

    @property
    def batches_queries(self) -> bool:
        """Whether the queries of one step travel together, one message per partition asked."""
        return False

    def initial(self) -> Any:
        """The state before any fact."""
        raise TypeError(f"{type(self).__name__} does not say what its initial state is")

    def evolve(self, state: Any, facts: Columns) -> None:
        """Fold own facts (``id``, ``type``, ``sequence``, ``time``, and the payload columns) into ``state``.

        It decides nothing.
        """
        raise TypeError(f"{type(self).__name__} does not say how it folds facts")

    def unfinished(self, state: Any) -> Iterable[str]:
        """Keys whose conversation the fold shows open (rule 3)."""
        return ()

    def begun_by(self, state: Any, key: str) -> str | None:
        """The id of the command that began what the fold shows open under ``key``; None: any of that name joins it."""
        return None


class ReadOnly:
    """A state that can be looked at and not changed: mappings become proxies, attributes refuse to be set."""

    __slots__ = ("_target",)

    def __init__(self, target: Any) -> None:
        object.__setattr__(self, "_target", target)

    def __getattr__(self, name: str) -> Any:
        value = getattr(object.__getattribute__(self, "_target"), name)
        if isinstance(value, MethodType):
            return MethodType(value.__func__, self)  # the method, too, sees only what cannot be changed
        return read_only(value)

    def __setattr__(self, name: str, value: Any) -> None:
        raise TypeError(f"a query cannot set {name!r}: queries change nothing (P6)")


class ReadOnlyMap(Mapping[Any, Any]):
    """A dict seen through :func:`read_only`, value by value."""

    __slots__ = ("_target",)

    def __init__(self, target: Mapping[Any, Any]) -> None:
        self._target = target

    def __getitem__(self, key: Any) -> Any:
        return read_only(self._target[key])

    def __getattr__(self, name: str) -> Any:
        method = getattr(type(self._target), name)
        if isinstance(method, FunctionType):  # of a dict with methods of its own
            return MethodType(method, self)
        raise TypeError(f"a query cannot call {name!r}: queries change nothing (P6)")

    def __iter__(self) -> Iterator[Any]:
        return iter(self._target)

    def __len__(self) -> int:
        return len(self._target)


def read_only(value: Any) -> Any:
    """``value`` if nothing in it can be changed, else a proxy that refuses changes."""
    if isinstance(value, dict):
        return ReadOnlyMap(value)
    if isinstance(value, (list, set, deque)):
        return tuple(read_only(item) for item in value)
    if type(value) is tuple:
        return tuple(read_only(item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return ReadOnly(value)
    return value

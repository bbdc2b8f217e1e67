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
from typing import Any, Generic, Protocol, TypeVar, overload

from eventmesh.declared import (
    A,
    Answer,
    Command,
    Declared,
    Fact,
    Facts,
    Named,
    Query,
    all_made,
    made,
    name_of,
)
from eventmesh.errors import EventmeshError
from eventmesh.log.topic import Topic, partition_for
from eventmesh.messages import Columns
from eventmesh.views import View

M = TypeVar("M")  # what a run of inputs consists of
T = TypeVar("T")

Row = dict[str, Any]
#: Attempts of what must be answered, however long it takes: a query, which is harmless to repeat, or an undoing.
UNTIL_ANSWERED = 1_000_000


@dataclass(frozen=True)
class Place:
    """Where an instance of a service stands: its partition, the whole mesh's topics, its options.

    ``declared`` is what its application declares.
    """

    service: str
    partition: int
    topics: Mapping[str, Topic]
    options: Any
    seed: int
    declared: Declared

    def partition_of(self, topic: str, key: str) -> int:
        """The partition that ``key`` has in ``topic``."""
        return partition_for(key, self.topics[topic].partitions)


class Inputs(Generic[M]):
    """A run of inputs of one kind, in order: what a rule decides on, ``Inputs[Borrow]`` or ``Inputs[Lent | Refused]``.

    They come one by one (:meth:`each`), or as columns: lists with one item per input. ``kind`` is the type of the
    facts, or the name of the commands, ``cls`` its class. ``ids`` are the messages' own ids, ``stories`` the
    correlation ids. Lists are shared: a rule reads them and leaves them as they are.
    """

    __slots__ = ("_columns", "_places", "cls", "ids", "kind", "stories")

    def __init__(
        self,
        kind: str,
        cls: type[Any] | None,
        columns: Columns,
        places: range | Sequence[int],
        ids: Sequence[str],
        stories: Sequence[str],
    ) -> None:
        self.kind, self.cls, self._columns, self._places = kind, cls, columns, places
        self.ids, self.stories = ids, stories

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, name: str) -> list[Any]:
        return at_places(self._columns[name], self._places)

    def each(self) -> Iterator[tuple[int, M]]:
        """Inputs one by one: the number of the input in this run, and an instance of its class."""
        assert self.cls is not None, f"{self.kind} is not declared"
        return enumerate(all_made(self.cls, self.__getitem__, len(self)))

    def one(self, number: int) -> M:
        """One input, as an instance of its class."""
        assert self.cls is not None, f"{self.kind} is not declared"
        place, columns = self._places[number], self._columns
        found: M = made(self.cls, [columns[name][place] for name in self.cls.__struct_fields__])
        return found

    def rows(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Inputs as tuples: the number of the input in this run, then the named columns."""
        return zip(range(len(self)), *(self[name] for name in names), strict=True)

    def first(self, name: str) -> dict[Any, int]:
        """Each value of a column (or ``id``), in order, with the first input that has it: repeats are left out."""
        found: dict[Any, int] = {}
        for number, value in enumerate(self.ids if name == "id" else self[name]):
            found.setdefault(value, number)
        return found

    def _only(self, numbers: Sequence[int]) -> Inputs[M]:
        """The inputs of these numbers, as a run of their own: a rule gets it from :meth:`Outcome.only`."""
        ids, stories = [self.ids[number] for number in numbers], [self.stories[number] for number in numbers]
        return Inputs(self.kind, self.cls, self._columns, [self._places[number] for number in numbers], ids, stories)

    def _part(self, start: int, stop: int) -> Inputs[M]:
        """The inputs from ``start`` up to ``stop``, as a run of their own."""
        places, ids, stories = self._places[start:stop], self.ids[start:stop], self.stories[start:stop]
        return Inputs(self.kind, self.cls, self._columns, places, ids, stories)


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

    def only(self, rows: Sequence[int]) -> tuple[Inputs[Any], Outcome]:
        """Some of the inputs as a run of their own, and what another rule may do with it: cause and story stay theirs.

        ``self.lend(state, *out.only([0, 2]))``.
        """

    def facts(self, rows: Sequence[int], facts: Sequence[Fact]) -> None:
        """Decide facts, in order, each caused by the input of its row.

        They are folded at once, so that the state which the rule reads next has them. Of many at a time each costs a
        tenth of what it costs by itself. :class:`~eventmesh.values.DoesNotFit`, and nothing done, where a value does
        not fit its column, or a fact is of a topic that the service does not own.
        """

    def fact(self, row: int, fact: Fact) -> None:
        """Decide one fact: :meth:`facts` where the next input's decision depends on this one's."""

    def after(self, row: int, delay_s: float, fact: Fact, *, name: str | None = None) -> None:
        """Have ``fact`` happen in ``delay_s`` seconds, unless it is cancelled before: a timer.

        It is a fact of the service's own topic; the wiring's rule for it decides then. Of one class and ``name``, the
        story of the input where none is given, one timer is open at a time: a later one takes its place. What lies in
        the log when the time comes is decided first. Timers outlive crashes.
        """

    def cancel(self, kind: Named, name: str) -> None:
        """Cancel the open timer of this class of fact and name; harmless where there is none."""

    def gather(self, row: int, key: str, part: int, value: Any) -> Mapping[int, Any]:
        """Keep this input open under ``key`` until :meth:`gathered`; returns all parts held, by part."""

    def gathered(self, key: str) -> None:
        """The inputs held under ``key`` have become a fact, or no longer matter."""

    def answer(self, row: int, answer: Answer, *, more: bool = False) -> None:
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

    def tell(self, key: str, answer: Answer) -> None:
        """Send a further, final reply to the callers that watch ``key``."""


class Talk(Protocol):
    """What a coroutine handler may await: the mesh's awaitables and nothing else."""

    @property
    def state(self) -> Any:
        """The service's state as of now; what was read before an ``await`` must be read again."""

    @property
    def cause(self) -> str:
        """The id of the command, or the position of the fact, that began the conversation."""

    def ask(self, queries: Iterable[Query[A]], *, attempts: int | None = None) -> Awaitable[list[A]]:
        """Send queries of one class; an answer for each. Asked until answered, or AskTimeout when ``attempts`` end.

        An ask policy of the mesh file may answer it from a cache. Where ``attempts`` is a number, it may say another
        one, and it may send nothing (``CircuitOpen``, ``BulkheadFull``).
        """

    def command(
        self, command: Command[A], *, attempts: int = 4, partition: int | None = None, part: str = ""
    ) -> Awaitable[A]:
        """Send a command under an id that does not change over retries and restarts; attempts and errors as of ask.


        ``part`` names each of several commands of one name that a conversation sends to one partition: "food", "tip".
        ``TypeError`` for a second one of the same name and part: the receiver would take it for a repeat.
        """

    def record(self, fact: Fact) -> Awaitable[None]:
        """Append a fact; returns once it is acknowledged."""

    def after(self, delay_s: float, fact: Fact, *, name: str | None = None) -> None:
        """Have ``fact`` happen in ``delay_s`` seconds, unless it is cancelled: as :meth:`Outcome.after`."""

    def cancel(self, kind: Named, name: str) -> None:
        """Cancel the open timer of this class of fact and name; harmless where there is none."""

    @overload
    def until(self, delay_s: float, *, name: str = "") -> Awaitable[None]: ...

    @overload
    def until(self, delay_s: float, awaited: Awaitable[T], *, name: str = "") -> Awaitable[T | None]: ...

    def until(self, delay_s: float, awaited: Any = None, *, name: str = "") -> Awaitable[Any]:
        """Wait ``delay_s`` seconds, or for ``awaited`` at most so long: None if the time came first.

        ``awaited`` is what :meth:`ask`, :meth:`command` or :meth:`record` gave. The time counts from the first call,
        whatever dies meanwhile; ``name`` tells several of one conversation apart.
        """

    def join(self, command: Named, key: str) -> Awaitable[None]:
        """Wait for the end of this service's conversation that ``command`` began for ``key``, if it is open.

        ``RuntimeError`` if that one waits for this one, or is this one.
        """

    def reply(self, answer: Answer) -> None:
        """Answer the callers now and go on; what the answer rests on must have been awaited."""


#: ``rule(service, state, inputs, outcome)``, or ``async rule(service, input, talk)`` for one input at a time.
Rule = Callable[..., Any]
#: Names or classes, or how they follow from the service's options.
Names = Sequence[Named] | Callable[[Any], Iterable[Named]]


@dataclass(frozen=True)
class Trigger:
    """The part of a wiring that concerns one service.

    ``rules`` maps a fact or a command, by its class or its name, to what it triggers:
    ``rule(service, state, inputs, outcome)``, or ``async rule(service, input, talk)``, with an instance of the class,
    where the service must wait for another's answer. Of those there is one
    conversation at a time per name and story: a repeat of the command joins it, another command of the same story waits
    for its end. A rule that raises :class:`~eventmesh.errors.KeyReused` refuses its input on record.
    After a restart ``resume`` starts, for every key of :meth:`Service.unfinished`, the rule that carries on the
    conversation which that command had begun, ``async rule(service, key, talk)``, so that a caller who repeats the
    command joins it.
    ``reads`` names the views that the rules look into, ``sends`` the commands and queries that they send: a mesh file
    that lacks what they need is refused (:mod:`eventmesh.needs`). ``until_answered`` names those of them that the rules
    always send with :data:`UNTIL_ANSWERED`: no policy of the mesh file ends them, and one that would is refused.
    """

    rules: Mapping[Any, Rule] = field(default_factory=dict)
    resume: Mapping[Any, Rule] = field(default_factory=dict)
    reads: Names = ()
    sends: Names = ()
    until_answered: Names = ()

    def __post_init__(self) -> None:
        """From here on both are by name."""
        object.__setattr__(self, "rules", by_name(self.rules))
        object.__setattr__(self, "resume", by_name(self.resume))


def by_name(rules: Mapping[Any, Any]) -> dict[str, Any]:
    """What is keyed by classes or by names, keyed by names."""
    return {name_of(declared): rule for declared, rule in rules.items()}


class Service:
    """Base of all services.

    ``queries`` maps a query, by its class or its name, to ``answer(state, question) -> answer``; the state given to it
    cannot be changed (promise P6). Snapshots keep the state: it is of the type that :meth:`initial` says it returns,
    made of dataclasses, named tuples, mappings, lists, tuples, sets and scalars.
    """

    name: str = ""
    #: Raise it when ``evolve``, or the type of the state, changes: snapshots of another version are not gone on with.
    state_version: int = 1
    queries: Mapping[Any, Callable[[Any, Any], Answer]] = MappingProxyType({})

    def __init__(self, place: Place, trigger: Trigger, views: Mapping[str, View]) -> None:
        self.place, self.views, self.resume = place, views, trigger.resume
        self.rules = dict(trigger.rules)
        self.waiting_rules = {name for name, rule in self.rules.items() if inspect.iscoroutinefunction(rule)}

    @classmethod
    def hears_itself(cls, options: Any) -> bool:
        """Whether it reads its own facts, where the wiring has a rule for one of them: such as what a timer writes."""
        return True

    @property
    def batches_queries(self) -> bool:
        """Whether the queries of one step travel together, one message per partition asked."""
        return False

    def initial(self) -> Any:
        """The state before any fact."""
        raise TypeError(f"{type(self).__name__} does not say what its initial state is")

    def evolve(self, state: Any, facts: Facts) -> None:
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

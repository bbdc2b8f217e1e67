"""Facts, commands and queries: each is declared once, as a class whose fields are its columns.

    class LoanGranted(Fact, topic="loans"):
        loan_id: str
        book: str

    class LoanAnswer(Answer):
        loan_id: str
        outcome: str
        reason: str | None = None

    class Borrow(Command[LoanAnswer], service="desk", key="loan_id", public=True):
        loan_id: str
        book: str
        days: int

The schemas of topics and messages, what values fit, JSON Schema and AsyncAPI come out of that (:class:`Declared`). A
class is a ``msgspec.Struct``: an editor and a type checker know its fields, and it cannot be changed once it is made.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType, NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    TypeVar,
    Union,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import pyarrow as pa
from msgspec import Meta, Struct, StructMeta, structs

from eventmesh.messages import ENVELOPE, OWN_FACTS, REFUSAL, REFUSED, TIMESTAMP, Columns, topic_schema
from eventmesh.values import DoesNotFit, Shape

#: Whole numbers of other widths than ``int``, which is an ``int64``.
Int8 = Annotated[int, Meta(ge=-(2**7), le=2**7 - 1), pa.int8()]
Int16 = Annotated[int, Meta(ge=-(2**15), le=2**15 - 1), pa.int16()]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1), pa.int32()]
#: A moment, as microseconds since 1970 in UTC.
Timestamp = Annotated[int, Meta(description="microseconds since 1970, UTC"), TIMESTAMP]

_TYPES: Mapping[Any, pa.DataType] = {
    str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), bytes: pa.binary(),
}  # fmt: skip
_COMMON = frozenset(field.name for field in (*ENVELOPE, *REFUSAL))
_ENVELOPE = frozenset(field.name for field in ENVELOPE)
A = TypeVar("A", bound="Answer")
D = TypeVar("D", bound="_Message")


class _Declaring(StructMeta):
    """Takes what a class says besides its columns: ``topic=``, ``service=``, ``key=`` and so on."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **said: Any) -> Any:
        takes = next((base.__takes__ for base in bases if hasattr(base, "__takes__")), ())
        own = {key: said.pop(key) for key in takes if key in said}
        try:
            cls = super().__new__(mcls, name, bases, namespace, **said)
        except TypeError as error:
            raise TypeError(f"{name}: {error}; it takes {', '.join(takes) or 'nothing but columns'}") from error
        for key, value in own.items():
            setattr(cls, f"__{key}__", value)
        answers = [base for base in namespace.get("__orig_bases__", ()) if isinstance(get_origin(base), _Declaring)]
        if answers:
            setattr(cls, "__answer__", get_args(answers[0])[0])  # noqa: B010 - no attribute of the metaclass
        return cls


@dataclass_transform(frozen_default=True)
class _Message(Struct, frozen=True, metaclass=_Declaring):
    """What the four kinds of class have in common."""

    __takes__: ClassVar[tuple[str, ...]] = ()
    if TYPE_CHECKING:

        def __init_subclass__(cls, **said: Any) -> None: ...


class Fact(_Message, frozen=True):
    """An event: a past-tense fact on ``topic``. Subclasses name their topic and have columns."""

    __takes__ = ("topic",)
    __topic__: ClassVar[str] = ""


class InputRefused(Fact, frozen=True):
    """An input of a topic's owner that broke its rule (rule 16), on any topic: the framework alone writes it.

    Its story is that of the input. ``position`` is where that lies, ``topic/partition/offset``, empty for a command.
    """

    position: str
    reason: str


class Answer(_Message, frozen=True):
    """What a command or a query is answered with."""


class Command(_Message, Generic[A], frozen=True):
    """A command to ``service``, which expects an answer.

    ``key`` is the column that says which partition of the service is asked; without it whoever sends it names the
    partition. ``story`` is the column that becomes the correlation id of what follows; the key, if none is named.
    ``content`` are the columns that say what is asked under the story's name: with other values in them it is another
    request (:func:`eventmesh.messages.fingerprint`). ``public``: callers from outside may send it; else services alone.
    """

    __takes__ = ("service", "key", "story", "content", "public")
    __service__: ClassVar[str] = ""
    __key__: ClassVar[str | None] = None
    __story__: ClassVar[str | None] = None
    __content__: ClassVar[tuple[str, ...]] = ()
    __public__: ClassVar[bool] = False
    __answer__: ClassVar[type[Answer]]


class Query(_Message, Generic[A], frozen=True):
    """A question of ``service``, which changes nothing. ``key`` and ``public`` as for a :class:`Command`."""

    __takes__ = ("service", "key", "public")
    __service__: ClassVar[str] = ""
    __key__: ClassVar[str | None] = None
    __public__: ClassVar[bool] = False
    __answer__: ClassVar[type[Answer]]


#: Something declared, by its class or by its name.
Named = str | type[_Message]


def name_of(declared: Named) -> str:
    """The name under which something declared stands in the log, in wirings and in errors."""
    return declared if isinstance(declared, str) else declared.__name__


# --- columns ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Field:
    """One column: its Arrow type as files have it, in which all is nullable, and as values are held against it."""

    name: str
    stored: pa.DataType
    exact: pa.Field
    made_of: Callable[[Any], Any] | None  # a named tuple's ``_make``, of a list of them


@cache
def fields(cls: type[_Message]) -> tuple[_Field, ...]:
    """The columns of a class. ``TypeError`` for an annotation that no column has."""
    try:
        hints = get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise TypeError(f"the columns of {cls.__name__} cannot be read: {error}") from error
    return tuple(_field(cls, name, hints[name]) for name in cls.__struct_fields__)


def _field(cls: type, name: str, hint: Any) -> _Field:
    where = f"{cls.__name__}.{name}"
    kind, nullable = _without_none(hint)
    return _Field(name, _arrow(kind, where, exact=False), pa.field(name, _arrow(kind, where, exact=True), nullable),
                  _maker(kind))  # fmt: skip


def _without_none(hint: Any) -> tuple[Any, bool]:
    """An annotation less its None, and whether it had one."""
    if get_origin(hint) not in (Union, UnionType):
        return hint, False
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return (kinds[0] if len(kinds) == 1 else hint), len(kinds) < len(get_args(hint))


def _arrow(kind: Any, where: str, *, exact: bool) -> pa.DataType:
    """The Arrow type of an annotation; ``exact``: with what may not be None marked within."""
    if get_origin(kind) is Annotated:
        found = next((each for each in kind.__metadata__ if isinstance(each, pa.DataType)), None)
        return _arrow(get_args(kind)[0], where, exact=exact) if found is None else found
    if kind in _TYPES:
        return _TYPES[kind]
    if get_origin(kind) is list:
        item, nullable = _without_none(get_args(kind)[0])
        if _is_named_tuple(item):
            return pa.list_(_struct(item, where, exact=exact))
        inner = _arrow(item, where, exact=exact)
        return pa.list_(pa.field("item", inner, nullable or not exact)) if exact else pa.list_(inner)
    shown = getattr(kind, "__name__", str(kind))
    raise TypeError(
        f"{where} is a {shown}, which no column has. Write str, int, float, bool, bytes, Int32, Timestamp, "
        "Annotated[int, pa.uint8()], a list of them or of a NamedTuple, each with or without | None"
    )


def _struct(kind: Any, where: str, *, exact: bool) -> pa.DataType:
    parts = []
    for name, hint in get_type_hints(kind, include_extras=True).items():
        item, nullable = _without_none(hint)
        parts.append(pa.field(name, _arrow(item, f"{where}[].{name}", exact=exact), nullable or not exact))
    return pa.struct(parts)


def _is_named_tuple(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def _maker(kind: Any) -> Callable[[Any], Any] | None:
    if get_origin(kind) is not list or not _is_named_tuple(_without_none(get_args(kind)[0])[0]):
        return None
    return cast("Callable[[Any], Any]", _without_none(get_args(kind)[0])[0]._make)


def stored_schema(cls: type[_Message]) -> pa.Schema:
    """The columns as Arrow carries them, all nullable."""
    return pa.schema([pa.field(field.name, field.stored) for field in fields(cls)])


def has_key(cls: type[_Message], key: str) -> bool:
    """Whether a class has this column, and it is never None."""
    return any(field.name == key and not field.exact.nullable for field in fields(cls))


@cache
def shape(cls: type[_Message]) -> Shape:
    """Which values the columns take; None only where the annotation has it."""
    return Shape(field.exact for field in fields(cls))


@cache
def _makers(cls: type[_Message]) -> Sequence[tuple[int, Callable[[Any], Any]]]:
    return [(place, field.made_of) for place, field in enumerate(fields(cls)) if field.made_of is not None]


def made(cls: type[D], values: Iterable[Any]) -> D:
    """An instance of the values of its columns, in their order, as Arrow gives them back."""
    makers = _makers(cls)
    if makers:
        values = list(values)
        for place, make in makers:
            if values[place] is not None:
                values[place] = list(map(make, values[place]))
    return cls(*values)


def all_made(cls: type[D], columns: Callable[[str], Sequence[Any]], count: int) -> Iterator[D]:
    """An instance per row; ``columns`` gives a column's values by its name."""
    names = cls.__struct_fields__
    if not names:
        return iter([cls() for _ in range(count)])
    return (made(cls, values) for values in zip(*map(columns, names), strict=True))


def row_of(message: Any, expected: type[_Message], what: str) -> dict[str, Any]:
    """An instance as a row: its columns by name. :class:`~eventmesh.values.DoesNotFit` for what is of another class.

    ``what`` is whose it is, such as "the answer to Borrow".
    """
    if type(message) is not expected:
        found = f"a {type(message).__name__}" if isinstance(message, Struct) else repr(message)
        raise DoesNotFit(f"{what} is {found}, expected a {expected.__name__}")
    return structs.asdict(message)


def checked_row(message: Any, expected: type[_Message], what: str) -> dict[str, Any]:
    """:func:`row_of`, of which every value fits."""
    return shape(expected).whole(row_of(message, expected, what), what)


def answered(told: type[Answer], row: Mapping[str, Any]) -> Any:
    """An answer as it came, as an instance."""
    return made(told, [row[name] for name in told.__struct_fields__])


@dataclass(frozen=True)
class MessageType:
    """A command or a query, as the runtimes use what its class says (:class:`Command`).

    ``question`` and ``answer`` are the columns of the message and of its reply as Arrow carries them, all nullable.
    """

    name: str
    kind: Literal["command", "query"]
    asked: type[_Message]
    told: type[Answer]
    service: str
    key: str | None
    story: str | None
    content: tuple[str, ...]
    public: bool

    @cached_property
    def question(self) -> pa.Schema:
        """The columns of the message."""
        return stored_schema(self.asked)

    @cached_property
    def answer(self) -> pa.Schema:
        """The columns of its reply."""
        return stored_schema(self.told)

    @cached_property
    def question_shape(self) -> Shape:
        """What the columns of the message take."""
        return shape(self.asked)

    @cached_property
    def answer_shape(self) -> Shape:
        """What the columns of its reply take."""
        return shape(self.told)


# --- all that an application declares -----------------------------------------------------------------


class Declared:
    """What an application declares: ``topics`` has the classes of fact by topic, ``messages`` commands and queries.

    ``facts`` has the classes of fact by name, ``schemas`` the wide schema of each topic (rule 15).
    """

    def __init__(self, *sources: ModuleType | type[_Message]) -> None:
        """Of classes, and of all classes that modules define. ``TypeError`` for two of one name, or an unfit one."""
        self.facts: dict[str, type[Fact]] = {}
        self.topics: dict[str, list[type[Fact]]] = {}
        self.messages: dict[str, MessageType] = {}
        for source in sources:
            for cls in _classes_in(source) if isinstance(source, ModuleType) else [source]:
                self._take(cls)
        self.schemas = {topic: _wide(topic, kinds) for topic, kinds in self.topics.items()}

    def _take(self, cls: type[_Message]) -> None:
        name = cls.__name__
        if name in self.facts or name in self.messages or name in OWN_FACTS:
            raise TypeError(f"{name} is declared twice: facts, commands and queries have names of their own")
        if issubclass(cls, Fact):
            self._take_fact(cls)
        elif issubclass(cls, (Command, Query)):
            self.messages[name] = _message(cls)

    def _take_fact(self, cls: type[Fact]) -> None:
        if not cls.__topic__:
            raise TypeError(f'{cls.__name__} names no topic: write class {cls.__name__}(Fact, topic="...")')
        for field in fields(cls):
            if field.name in _ENVELOPE:
                raise TypeError(f"{cls.__name__} has a column {field.name!r}, which every fact has in its envelope")
        self.facts[cls.__name__] = cls
        self.topics.setdefault(cls.__topic__, []).append(cls)

    def kinds(self) -> dict[str, list[str]]:
        """The types of fact by topic."""
        return {topic: [cls.__name__ for cls in classes] for topic, classes in self.topics.items()}

    def class_of(self, name: str) -> type[_Message] | None:
        """The class of a fact, command or query; None for what is not declared, such as a record of the framework."""
        if name == REFUSED:
            return InputRefused
        message = self.messages.get(name)
        return self.facts.get(name) if message is None else message.asked


#: For what folds and decides without an application, as tests do.
NOTHING_DECLARED = Declared()


def _classes_in(module: ModuleType) -> Iterator[type[_Message]]:
    """The classes that a module defines, in its order; what it imports is its neighbour's."""
    for found in vars(module).values():
        if inspect.isclass(found) and issubclass(found, _Message) and found.__module__ == module.__name__:
            yield found


def _wide(topic: str, kinds: Sequence[type[Fact]]) -> pa.Schema:
    """Every column of the topic's facts once; of two facts with one column both give it the same type."""
    columns: dict[str, tuple[pa.DataType, str]] = {}
    for cls in kinds:
        for field in fields(cls):
            kind, first = columns.setdefault(field.name, (field.stored, cls.__name__))
            if kind != field.stored:
                raise TypeError(
                    f"{cls.__name__}.{field.name} is of type {field.stored}, and {first}.{field.name} of {kind}: "
                    f"a column of {topic} has one type"
                )
    common = {field.name: field.type for field in REFUSAL}
    for name in common.keys() & columns.keys():
        if columns[name][0] != common[name]:
            raise TypeError(f"{columns[name][1]}.{name} is of type {columns[name][0]}, expected {common[name]}")
    return topic_schema(pa.field(name, kind) for name, (kind, _) in columns.items() if name not in _COMMON)


def _message(cls: Any) -> MessageType:
    """What the framework knows of a command or a query. ``TypeError`` where its class says something unfit."""
    name = cls.__name__
    kind: Literal["command", "query"] = "command" if issubclass(cls, Command) else "query"
    answer = getattr(cls, "__answer__", None)
    if not (isinstance(answer, type) and issubclass(answer, Answer)):
        raise TypeError(f"{name} has no answer: write class {name}({kind.title()}[YourAnswer], service=...)")
    if not cls.__service__:
        raise TypeError(f'{name} names no service: write class {name}(..., service="...")')
    story = getattr(cls, "__story__", None)
    content = tuple(getattr(cls, "__content__", ()))
    for column in (cls.__key__, story, *content):
        if column is not None and column not in cls.__struct_fields__:
            raise TypeError(f"{name} has no column {column!r}: it has {', '.join(cls.__struct_fields__) or 'none'}")
    fields(cls), fields(answer)
    return MessageType(name, kind, cls, answer, cls.__service__, cls.__key__, story, content, cls.__public__)


class Facts(Columns):
    """Facts as ``evolve`` folds them: columns, or one instance after the other (:meth:`each`)."""

    __slots__ = ("_declared",)
    _declared: Declared

    @classmethod
    def of(cls, columns: Columns, declared: Declared) -> Facts:
        """The same rows, and their classes."""
        made = cls.__new__(cls)
        made._batch, made._rows, made._lists, made.count = columns._batch, columns._rows, columns._lists, columns.count
        made._declared = declared
        return made

    def each(self) -> Iterator[Fact]:
        """The facts one by one, as instances of their classes."""
        facts, kinds = self._declared.facts, self["type"]
        if len(set(kinds)) == 1:
            yield from all_made(facts[kinds[0]], self.__getitem__, len(self))
            return
        for place, kind in enumerate(kinds):
            cls = facts[kind]
            yield made(cls, [self[name][place] for name in cls.__struct_fields__])

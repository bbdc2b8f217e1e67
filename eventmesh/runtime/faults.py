"""What may go wrong in a mesh, described once, as data.

A fault says *what* goes wrong, *where*, and for how long; it expires by itself. *When* stands beside it: a
:class:`Planned` fault has a moment, which is an offset, a time, or a range that one of the two is drawn from. Files of
experiments and of the fuzzer hold these models as JSON or YAML. A runtime carries out the kinds that :data:`FAULTS`
says it has, and refuses the others before anything starts.

The words are those of Toxiproxy (``latency``, ``bandwidth``, ``toxicity``), Chaos Mesh (``source``, ``target``,
``direction``) and Chaos Toolkit. On a link the order of a stream stays, whatever happens to it (rule 24 in
``docs/promises.md``); what is lost, doubled or overtaken are whole asks and replies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Protocol, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, model_validator

from eventmesh.errors import ConfigurationError
from eventmesh.mesh import Mesh
from eventmesh.progress import split_position

Runtime = Literal["simulated", "on_ray"]
#: The process that writes the log.
BROKER = "broker"
#: Whichever caller brings the load at the time.
GENERATOR = "generator"
#: Where the broker and all services run.
MACHINE = "machine"
#: Every process that the other side of a link does not name.
OTHERS = "*"

ProcessName = Annotated[str, Field(pattern=r"^[\w.-]+(/\d+)?$")]
#: A process, all processes of a service, or :data:`OTHERS`.
EndName = Annotated[str, Field(pattern=r"^(\*|[\w.-]+(/\d+)?)$")]
PartitionName = Annotated[str, Field(pattern=r"^[\w.-]+/\d+$")]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]


def _as_group(given: Any) -> Any:
    return (given,) if isinstance(given, str) else given


#: One side of a link; a name alone is a group of one.
Group = Annotated[tuple[EndName, ...], BeforeValidator(_as_group), Field(min_length=1)]


class Dice(Protocol):
    """The part of ``random.Random`` that is needed."""

    def randint(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A number from ``low`` to ``high``."""
        ...


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


# --- moments ------------------------------------------------------------------------------------------


class AtOffset(_Data):
    """As soon as ``partition`` (``topic/number``) shows this offset."""

    kind: Literal["at-offset"] = "at-offset"
    partition: PartitionName
    offset: int = Field(ge=0)


class AtTime(_Data):
    """So many seconds after the load began."""

    kind: Literal["at-time"] = "at-time"
    seconds: float = Field(ge=0, allow_inf_nan=False)


class WithinOffsets(_Data):
    """At an offset of ``partition`` that is drawn from the seed, between these two."""

    kind: Literal["within-offsets"] = "within-offsets"
    partition: PartitionName
    offsets: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]

    @model_validator(mode="after")
    def _in_order(self) -> WithinOffsets:
        _rising("offsets", self.offsets)
        return self


class WithinTime(_Data):
    """At a time that is drawn from the seed, between these two, in seconds after the load began."""

    kind: Literal["within-time"] = "within-time"
    seconds: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]

    @model_validator(mode="after")
    def _in_order(self) -> WithinTime:
        _rising("seconds", self.seconds)
        return self


def _rising(name: str, span: tuple[float, float]) -> None:
    if span[0] > span[1]:
        raise ValueError(f"{name} goes from {span[0]:g} to {span[1]:g}: write the lower one first")


FixedMoment = AtOffset | AtTime
Moment = Annotated[AtOffset | AtTime | WithinOffsets | WithinTime, Field(discriminator="kind")]


def fixed(moment: Moment, dice: Dice) -> FixedMoment:
    """The moment itself, or the one that the dice draw from its range."""
    match moment:
        case WithinOffsets(partition=partition, offsets=(low, high)):
            return AtOffset(partition=partition, offset=dice.randint(low, high))
        case WithinTime(seconds=(low, high)):
            return AtTime(seconds=dice.uniform(low, high))
        case AtOffset() | AtTime():
            return moment


# --- faults -------------------------------------------------------------------------------------------


class _Fault(_Data):
    """``lasts_s`` is None where a fault is over at once. Subclasses say on which runtimes they exist."""

    runtimes: ClassVar[tuple[Runtime, ...]] = ("simulated",)

    @property
    def duration_s(self) -> float | None:
        """Seconds until it is over by itself; None for what is over at once."""
        return getattr(self, "lasts_s", None)

    def processes(self) -> Iterator[str]:
        """The names of single processes in it."""
        yield from ()

    def ends(self) -> Iterator[str]:
        """The names in it that may stand for several processes."""
        yield from ()

    def topics_named(self) -> Iterator[str]:
        """The topics, or partitions of topics, in it."""
        yield from ()


class _OfProcess(_Fault):
    runtimes: ClassVar[tuple[Runtime, ...]] = ("simulated", "on_ray")
    process: ProcessName

    def processes(self) -> Iterator[str]:
        """See :class:`_Fault`."""
        yield self.process


class Kill(_OfProcess):
    """A process is killed (SIGKILL), and started again; `machine` is the broker and all services at once."""

    kind: Literal["kill"] = "kill"


class Freeze(_OfProcess):
    """A process stands still (SIGSTOP) and loses nothing; then it goes on with what has come meanwhile."""

    kind: Literal["freeze"] = "freeze"
    lasts_s: Seconds


class End(_OfProcess):
    """A process ends as when it is told to, and is started again when the time is over."""

    kind: Literal["end"] = "end"
    lasts_s: Seconds


class ClockJump(_OfProcess):
    """The clock of a process jumps, forth or back, and is put right when the time is over."""

    kind: Literal["clock-jump"] = "clock-jump"
    by_ms: int
    lasts_s: Seconds

    @model_validator(mode="after")
    def _jumps(self) -> ClockJump:
        if self.by_ms == 0:
            raise ValueError("by_ms is 0: a clock that jumps by nothing is no fault")
        return self


class _Between(_Fault):
    """What goes from ``source`` to ``target``, what comes back (``from``), or both."""

    runtimes: ClassVar[tuple[Runtime, ...]] = ("simulated", "on_ray")
    source: Group
    target: Group
    direction: Literal["to", "from", "both"] = "both"

    def ends(self) -> Iterator[str]:
        """See :class:`_Fault`."""
        yield from (*self.source, *self.target)

    @model_validator(mode="after")
    def _two_sides(self) -> _Between:
        if OTHERS in self.source and OTHERS in self.target:
            raise ValueError("source and target are both '*': one side must name who the others are not")
        return self


class _OnLink(_Between):
    """``toxicity`` is the share of the connections that are hit."""

    toxicity: Share = 1.0


class Latency(_OnLink):
    """Messages come later by `latency_ms`, give or take `jitter_ms`; with `topics` only what is read of these."""

    kind: Literal["latency"] = "latency"
    latency_ms: float = Field(ge=0, allow_inf_nan=False)
    jitter_ms: float = Field(default=0, ge=0, allow_inf_nan=False)
    topics: tuple[str, ...] = ()  # each is a stream of its own then, and may fall behind the others
    lasts_s: Seconds

    def topics_named(self) -> Iterator[str]:
        """See :class:`_Fault`."""
        yield from self.topics


class Bandwidth(_OnLink):
    """A connection carries no more than `rate_kb_per_s` in each direction that is hit."""

    kind: Literal["bandwidth"] = "bandwidth"
    rate_kb_per_s: float = Field(gt=0, allow_inf_nan=False)
    lasts_s: Seconds


class Stall(_OnLink):
    """Nothing arrives until it is over, then all of it does, in its order."""

    kind: Literal["stall"] = "stall"
    lasts_s: Seconds


class Cut(_OnLink):
    """Nothing arrives; the connection breaks when it is over or sooner, and no other can be made meanwhile."""

    kind: Literal["cut"] = "cut"
    lasts_s: Seconds


class Reset(_OnLink):
    """The connection breaks at once, with all that is under way on it; both sides are told, and may make another."""

    kind: Literal["reset"] = "reset"


class Split(_Fault):
    """Two groups of processes cannot reach each other: every connection between them is cut, both ways."""

    runtimes: ClassVar[tuple[Runtime, ...]] = ("simulated", "on_ray")
    kind: Literal["split"] = "split"
    groups: tuple[Group, Group]
    lasts_s: Seconds

    def ends(self) -> Iterator[str]:
        """See :class:`_Fault`."""
        yield from (*self.groups[0], *self.groups[1])

    @model_validator(mode="after")
    def _two_sides(self) -> Split:
        if OTHERS in self.groups[0] and OTHERS in self.groups[1]:
            raise ValueError("both groups are '*': one of them must name who the others are not")
        return self


class _OfAsks(_Between):
    """Hits that ``share`` of the commands, queries and replies between services and callers."""

    share: Share
    lasts_s: Seconds


class _Later(_OfAsks):
    delay_ms: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]

    @model_validator(mode="after")
    def _in_order(self) -> _Later:
        _rising("delay_ms", self.delay_ms)
        return self


class Loss(_OfAsks):
    """A share of the asks and replies never comes; who asked must ask again."""

    kind: Literal["loss"] = "loss"


class Duplication(_Later):
    """A share of the asks and replies comes a second time, within `delay_ms` after the first."""

    kind: Literal["duplication"] = "duplication"


class Reordering(_Later):
    """A share of the asks and replies comes later by `delay_ms`, and is overtaken by what was sent after it."""

    kind: Literal["reordering"] = "reordering"


class _OfDisk(_Fault):
    """``disk`` is whose disk it is; the broker alone has one that others depend on."""

    runtimes: ClassVar[tuple[Runtime, ...]] = ("simulated", "on_ray")
    disk: Literal["broker"] = "broker"


class SlowDisk(_OfDisk):
    """Each sync takes longer by `extra_ms`."""

    kind: Literal["slow-disk"] = "slow-disk"
    extra_ms: float = Field(gt=0, allow_inf_nan=False)
    lasts_s: Seconds


class FullDisk(_OfDisk):
    """There is no room: each write is refused, whole."""

    kind: Literal["full-disk"] = "full-disk"
    lasts_s: Seconds


class FailingSyncs(_OfDisk):
    """Each sync fails, and nobody knows what of it is on the disk."""

    kind: Literal["failing-syncs"] = "failing-syncs"
    lasts_s: Seconds


class TornWrite(_OfDisk):
    """The process dies in the middle of a write, after `after_bytes` more bytes; the file ends in half a batch."""

    kind: Literal["torn-write"] = "torn-write"
    after_bytes: int = Field(ge=0)


class FlippedBit(_OfDisk):
    """One bit of a segment rots: of the one that is written to (`active`), or of one before it (`closed`)."""

    kind: Literal["flipped-bit"] = "flipped-bit"
    partition: PartitionName
    segment: Literal["active", "closed"] = "active"

    def topics_named(self) -> Iterator[str]:
        """See :class:`_Fault`."""
        yield self.partition


class LostUnsynced(_OfDisk):
    """The machine of the process dies: what was not synced is lost, or torn."""

    runtimes: ClassVar[tuple[Runtime, ...]] = ("simulated",)
    kind: Literal["lost-unsynced"] = "lost-unsynced"


Fault = Annotated[
    Kill | Freeze | End | ClockJump
    | Latency | Bandwidth | Stall | Cut | Reset | Split
    | Loss | Duplication | Reordering
    | SlowDisk | FullDisk | FailingSyncs | TornWrite | FlippedBit | LostUnsynced,
    Field(discriminator="kind"),
]  # fmt: skip

#: What happens to a disk.
DiskFault = SlowDisk | FullDisk | FailingSyncs | TornWrite | FlippedBit | LostUnsynced
#: Every kind of fault by its name.
FAULTS: dict[str, type[_Fault]] = {
    model.model_fields["kind"].default: model for model in get_args(get_args(Fault)[0])
}  # fmt: skip
#: What processes suffer, links, asks, and disks: the chapters of the table.
PLACES: dict[str, type[_Fault]] = {
    "a process": _OfProcess, "a link": _OnLink, "asks and replies": _OfAsks, "a disk": _OfDisk,
}  # fmt: skip


class Planned(_Data):
    """A fault and its moment."""

    moment: Moment
    fault: Fault


PLAN: TypeAdapter[tuple[Planned, ...]] = TypeAdapter(tuple[Planned, ...], config=ConfigDict(defer_build=True))


@dataclass
class Struck:
    """What a fault has done so far: when it began and ended, and what shows that it happened.

    Times are microseconds on the runtime's clock; ``ended_us`` is None while it lasts. ``shows`` counts what came of
    it ("messages lost", "lives"), and grows while it lasts.
    """

    fault: Fault
    at_us: int
    ended_us: int | None = None
    shows: Counter[str] = field(default_factory=Counter)
    details: dict[str, str] = field(default_factory=dict)

    @property
    def happened(self) -> bool:
        """Whether anything shows it."""
        return any(self.shows.values())

    def overlapped(self, first_us: int, last_us: int) -> bool:
        """Whether it was there at some time between these two."""
        return self.at_us <= last_us and (self.ended_us is None or self.ended_us >= first_us)


@dataclass(eq=False)
class Lasting:
    """A fault that is not over, and what ends it."""

    struck: Struck
    undo: Callable[[], None]


# --- what is refused ----------------------------------------------------------------------------------


def refusals(faults: Iterable[Fault | Planned], mesh: Mesh, runtime: Runtime, callers: Iterable[str] = ()) -> list[str]:
    """Why faults cannot be carried out on this mesh and runtime, a sentence each; ``callers`` are those by name."""
    return [sentence for each in faults for sentence in _refused(each, mesh, runtime, tuple(callers))]


def check(faults: Iterable[Fault | Planned], mesh: Mesh, runtime: Runtime, callers: Iterable[str] = ()) -> None:
    """:class:`~eventmesh.errors.ConfigurationError` with every sentence of :func:`refusals`."""
    if found := refusals(faults, mesh, runtime, callers):
        raise ConfigurationError("\n".join(found))


def _refused(given: Fault | Planned, mesh: Mesh, runtime: Runtime, callers: tuple[str, ...]) -> Iterator[str]:
    fault = given.fault if isinstance(given, Planned) else given
    if runtime not in fault.runtimes:
        others = " and ".join(sorted(fault.runtimes))
        yield f"{fault.kind} does not exist on the runtime {runtime}, only on {others}"
    single = process_names(mesh)
    known = {*single, MACHINE, GENERATOR, *callers}
    for name in fault.processes():
        if name not in known:
            yield f"{fault.kind}: there is no process {name!r}. There are {', '.join(sorted(known))}"
        elif name == MACHINE and not isinstance(fault, Kill):
            yield f"{fault.kind} is of one process, not of a whole machine. Name one of {', '.join(sorted(single))}"
    groups = {*single, *mesh.services, GENERATOR, OTHERS, *callers}
    for name in fault.ends():
        if name not in groups:
            yield f"{fault.kind}: nothing is called {name!r}. A side of a link is one of {', '.join(sorted(groups))}"
    partitions = [*fault.topics_named()]
    if isinstance(given, Planned) and isinstance(given.moment, AtOffset | WithinOffsets):
        partitions.append(given.moment.partition)
    for name in partitions:
        yield from _unknown_partition(fault.kind, name, mesh)


def level_refusals(faults: Iterable[Fault], durability: str, runtime: Runtime) -> list[str]:
    """Why faults cannot be carried out at this level of durability, a sentence each."""
    return [sentence for each in faults for sentence in _refused_by_level(each, durability, runtime)]


def _refused_by_level(fault: Fault, durability: str, runtime: Runtime) -> Iterator[str]:
    in_memory = durability == "memory"
    if in_memory and isinstance(fault, DiskFault):
        yield f"{fault.kind}: at level memory there is no disk, only memory"
    elif isinstance(fault, SlowDisk) and durability != "fsync":
        yield f"{fault.kind}: at level {durability} nothing waits for a sync"
    elif in_memory and runtime == "on_ray" and isinstance(fault, Kill | End) and fault.process in (MACHINE, BROKER):
        yield f"{fault.kind}: at level memory a broker that is gone is not started again"


def process_names(mesh: Mesh) -> list[str]:
    """The broker and every process of a service, by name."""
    instances = [f"{name}/{number}" for name, section in mesh.services.items() for number in range(section.instances)]
    return [BROKER, *instances]


def process_name(service: str, number: int = 0) -> str:
    """What faults call the ``number``-th process of a service, or the broker or the generator."""
    return service if service in (BROKER, GENERATOR) else f"{service}/{number}"


def _unknown_partition(kind: str, name: str, mesh: Mesh) -> Iterator[str]:
    topics = mesh.topics()
    topic, number = split_position(name) if "/" in name else (name, 0)
    if topic not in topics:
        yield f"{kind}: there is no topic {topic!r}. There are {', '.join(sorted(topics))}"
    elif number >= topics[topic].partitions:
        yield f"{kind}: {topic} has partitions 0 to {topics[topic].partitions - 1}, not {number}"


# --- who is hit ---------------------------------------------------------------------------------------

#: What happens between two processes.
LinkFault = Latency | Bandwidth | Stall | Cut | Reset | Split | Loss | Duplication | Reordering


def between(fault: LinkFault, sender: str, to: str, generator: str = "") -> bool:
    """Whether a fault is on the way from one process to another, each called ``service/number``.

    ``generator`` is what the process is called that brings the load, where it has a name of its own.
    """
    source, target = ((name, _alias(name, generator)) for name in (sender, to))
    if isinstance(fault, Split):
        one, other = fault.groups
        return _joins(one, other, source, target) or _joins(one, other, target, source)
    there, back = fault.direction != "from", fault.direction != "to"
    return (there and _joins(fault.source, fault.target, source, target)) or (
        back and _joins(fault.source, fault.target, target, source)
    )


def _alias(name: str, generator: str) -> str:
    """What stands for several processes, and for this one, too."""
    return GENERATOR if name == generator else name.rpartition("/")[0]


def _joins(source: Group, target: Group, one: tuple[str, str], other: tuple[str, str]) -> bool:
    return _among(one, source, target) and _among(other, target, source)


def _among(names: tuple[str, str], group: Group, opposite: Group) -> bool:
    return any(name in group for name in names) or (OTHERS in group and not any(name in opposite for name in names))

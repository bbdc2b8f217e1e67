"""The processes of a simulated mesh: the parts that decide, with virtual time, network and disk around them.

They carry out what those parts leave to be done, and decide nothing themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from eventmesh.errors import EventmeshError, LogStopped, PeerLost
from eventmesh.log.batch import LogBatch
from eventmesh.log.simulated_storage import ProcessDied
from eventmesh.log.store import Log
from eventmesh.mesh import Mesh
from eventmesh.progress import position_name, split_position
from eventmesh.runtime import broker as rules
from eventmesh.runtime.broker import DELIVERY_BYTES
from eventmesh.runtime.caller import Caller
from eventmesh.runtime.effects import (
    Append,
    Appended,
    AppendFailed,
    AskMessage,
    Effect,
    Exit,
    Granted,
    GrantFailed,
    ReplyMessage,
    RequestGrant,
    SendAsk,
    SendReply,
    Subscribe,
    Unsubscribe,
)
from eventmesh.runtime.instance import Instance
from eventmesh.runtime.journal import Journal
from eventmesh.runtime.limits import Limits
from eventmesh.runtime.simulated.network import Message, Network, Origin, Process, Speeds
from eventmesh.runtime.simulated.world import World
from eventmesh.runtime.snapshots import LoadSnapshot
from eventmesh.runtime.task import Ends

#: The broker's life and the number of the connection to it.
Connection = tuple[int, int]
#: Microseconds until somebody who cannot reach the broker learns of it.
UNREACHED = 1_000
#: Microseconds from a connection to the broker that broke, or could not be made, to the next attempt.
RECONNECT = (2_000, 10_000)


# --- what is sent beside effects and answers ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """A command or query for one partition of a service."""

    partition: int
    message: AskMessage


@dataclass(frozen=True, slots=True)
class Delivery:
    """A batch of a partition that is subscribed to."""

    name: str
    entry: LogBatch


@dataclass(frozen=True, slots=True)
class CannotRead:
    """A partition that is subscribed to cannot be read on."""

    error: EventmeshError


@dataclass(frozen=True, slots=True)
class BrokerUp:
    """There is a connection to the broker, which is in its ``life``."""

    life: int


@dataclass(frozen=True, slots=True)
class BrokerLost:
    """A connection to the broker broke."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class PeerGone:
    """The connection to a life of another process broke."""

    gone: Origin


class Surroundings(Protocol):
    """What processes need of the simulation that they are in."""

    mesh: Mesh
    network: Network
    broker: BrokerProcess

    def process(self, name: str) -> Process:
        """The process of this name."""

    def host(self, service: str, partition: int) -> ServiceProcess:
        """The process that has this partition of a service."""

    def fenced(self, process: ServiceProcess) -> None:
        """An incarnation ends for good; whoever supervises the instance starts the next."""


# --- services and callers -----------------------------------------------------------------------------


class Asker(Process):
    """What services and callers share: a machine that decides, and the effects that it leaves."""

    def __init__(self, name: str, world: World, speeds: Speeds, around: Surroundings) -> None:
        super().__init__(name, world, speeds)
        self.around = around
        self.effects: list[Effect] = []

    def begin_life(self) -> None:
        """See :class:`Process`."""
        super().begin_life()
        self.effects = []

    def inside(self, call: Callable[[], None]) -> None:
        """Run a call of the machine, and carry out what it leaves to be done."""
        call()
        self.carry_out()

    def carry_out(self) -> None:
        """Do what was left to be done."""
        while self.effects and self.alive:
            effects, self.effects[:] = list(self.effects), []
            for effect in effects:
                if not self.alive:
                    return
                self.effect(effect)
        if self.alive:
            self.set_timer()

    def effect(self, effect: Effect) -> None:
        """Carry out one of them."""
        assert isinstance(effect, SendAsk), f"{self.name} cannot carry out {effect}"
        to = self.around.host(effect.to.service, effect.to.partition)
        network = self.around.network
        if to.alive and network.reaches(self, to):
            asked = Asked(effect.to.partition, effect.message)
            network.send(self, to, asked, rows=len(effect.message.rows), whole=True)
        else:
            gone = (*to.identity, network.connection(self.name, to.name))
            network.tell(self, PeerGone(gone), self.speeds.notice)


class ServiceProcess(Asker):
    """A service instance. ``connected`` is the connection that it has to the broker."""

    def __init__(
        self, service: str, number: int, world: World, speeds: Speeds, around: Surroundings, *,
        limits: Limits, snapshots: LoadSnapshot, ends: Ends,
    ) -> None:  # fmt: skip
        super().__init__(f"{service}/{number}", world, speeds, around)
        self.service, self.number = service, number
        self._limits, self._snapshots, self._ends = limits, snapshots, ends
        self.instance: Instance | None = None
        self.connected: Connection | None = None
        self._asked_on: dict[int, Connection | None] = {}  # partition -> the connection that its last request went by

    def start(self) -> None:
        """Begin an incarnation."""
        self.begin_life()
        self.connected, self._asked_on = None, {}
        self.instance = Instance(
            self.around.mesh, self.service, self.number, incarnation=f"{self.name}.{self.life}", clock=self.clock,
            emit=self.effects.append, limits=self._limits, seed=self.world.seed, snapshots=self._snapshots,
            ends=self._ends,
        )  # fmt: skip
        if self.around.broker.alive:
            self._connect(self.around.broker.life)

    def end_life(self) -> None:
        """See :class:`Process`."""
        super().end_life()
        self.instance = None

    def take(self, message: Message) -> None:
        """See :class:`Process`."""
        assert self.instance is not None
        self._take(self.instance, message)
        self.carry_out()

    def _take(self, instance: Instance, message: Message) -> None:
        match message.content:
            case Delivery() if self.connected not in (None, message.sender[1:]):
                return  # of an earlier connection: nobody reads its stream any more
            case Delivery(name, entry):
                instance.deliver(*split_position(name), entry)
            case Granted() | GrantFailed() | Appended() | AppendFailed():
                instance.answered(message.content)
            case Asked(partition, asked):
                instance.received(message.sender, partition, asked)
            case ReplyMessage():
                instance.replied(message.content)
            case CannotRead(error):
                raise error  # for a human to decide: the run cannot go on
            case BrokerUp(life):
                self._connect(life)
            case BrokerLost(connection):
                self._lost(instance, connection)
                self._connect_later(connection[0])
            case PeerGone(gone):
                self._peer_gone(instance, gone)

    @staticmethod
    def _peer_gone(instance: Instance, gone: Origin) -> None:
        service, _, number = gone[0].rpartition("/")
        if service:  # else it is a caller
            instance.peer_lost(service, int(number))
        instance.origin_lost(gone)

    def _connect(self, life: int) -> None:
        """A connection to this life of the broker; the one before is given up first."""
        instance, broker, network = self.instance, self.around.broker, self.around.network
        assert instance is not None
        if not broker.alive or broker.life != life:
            return  # it has died again
        if self.connected is not None:
            self._lost(instance, self.connected)
        if not network.reaches(self, broker):
            self._connect_later(life)
            return
        self.connected = (life, network.connection(self.name, broker.name))
        try:
            instance.broker_up()
        except PeerLost:
            self.connected = None  # it has died meanwhile, or its log has stopped: on the next connection, again
        self.carry_out()

    def _connect_later(self, life: int) -> None:
        """Again after a while; a broker in its next life says so itself."""
        broker = self.around.broker
        if broker.alive and broker.life == life and self.connected is None:
            self.later(RECONNECT, lambda: self._connect_again(life), f"reconnect {self.name}")

    def _connect_again(self, life: int) -> None:
        if self.connected is None:
            self._connect(life)

    def _lost(self, instance: Instance, connection: Connection) -> None:
        if self.connected != connection:
            return
        self.connected = None
        instance.broker_lost([number for number, asked_on in self._asked_on.items() if asked_on != connection])

    def effect(self, effect: Effect) -> None:
        """See :class:`Asker`."""
        match effect:
            case SendReply(origin, reply):
                to = self.around.process(origin[0])
                rows = len(reply.indexes)
                self.around.network.send(self, to, reply, rows=rows, life=origin[1], by=origin[2], whole=True)
            case RequestGrant() | Append():
                self._write(effect)
            case Subscribe() | Unsubscribe():
                self._to_broker(effect)
            case Exit():
                self.around.fenced(self)
            case _:
                super().effect(effect)

    def _write(self, effect: RequestGrant | Append) -> None:
        self._asked_on[effect.partition] = self.connected
        rows = effect.entry.header.rows if isinstance(effect, Append) else 1
        if self._to_broker(effect, rows):
            return
        error = PeerLost("the broker is away")
        answer: GrantFailed | AppendFailed = (
            AppendFailed(effect.partition, effect.entry.header.epoch, error) if isinstance(effect, Append)
            else GrantFailed(effect.partition, error)
        )  # fmt: skip
        self.around.network.tell(self, answer, (UNREACHED, UNREACHED))

    def _to_broker(self, effect: RequestGrant | Append | Subscribe | Unsubscribe, rows: int = 1) -> bool:
        if self.connected is None:
            return False
        life, number = self.connected
        self.around.network.send(self, self.around.broker, effect, rows=rows, life=life, by=number)
        return True

    def next_deadline(self) -> int | None:
        """See :class:`Process`."""
        return self.instance.next_deadline() if self.instance is not None else None

    def tick(self) -> None:
        """See :class:`Process`."""
        assert self.instance is not None
        self.instance.tick(self.clock())
        self.carry_out()


class CallerProcess(Asker):
    """A source of load with its journal. While it is down, ``caller`` is the one that died."""

    def __init__(self, journal: Journal, world: World, speeds: Speeds, around: Surroundings) -> None:
        super().__init__(journal.name, world, speeds, around)
        self.journal = journal
        self.caller: Caller | None = None

    def start(self) -> None:
        """Begin, or go on from the journal."""
        self.journal.settle()
        self.begin_life()
        mesh = self.around.mesh
        caller = self.caller = Caller(
            self.name, self.journal.requests, messages=mesh.application.DECLARED.messages,
            owned={topic.owner: topic for topic in mesh.topics().values()}, clock=self.clock,
            emit=self.effects.append, journal=self.journal, seed=self.world.seed,
        )  # fmt: skip
        self.inside(caller.resume)

    def take(self, message: Message) -> None:
        """See :class:`Process`."""
        assert self.caller is not None
        match message.content:
            case ReplyMessage():
                self.caller.replied(message.content)
            case PeerGone(gone) if self._talks_to(gone[0].rpartition("/")[0]):
                self.caller.peer_lost()
        self.carry_out()

    def _talks_to(self, service: str) -> bool:
        assert self.caller is not None
        messages = self.caller.messages
        return any(messages[command].service == service for command in set(self.caller.requests.commands))

    def next_deadline(self) -> int | None:
        """See :class:`Process`."""
        return self.caller.next_deadline() if self.caller is not None else None

    def tick(self) -> None:
        """See :class:`Process`."""
        assert self.caller is not None
        self.caller.tick(self.clock())
        self.carry_out()


# --- the broker ---------------------------------------------------------------------------------------


class BrokerProcess(Process):
    """The log's process: drives :class:`~eventmesh.runtime.broker.Broker` with virtual time and a simulated disk."""

    def __init__(
        self, world: World, speeds: Speeds, around: Surroundings, *, open_log: Callable[[], Log],
        acknowledgement: rules.Acknowledgement, died: Callable[[], None], reopened: Callable[[], None],
        appended: Callable[[int], None], moved: Callable[[], None], slowed: Callable[[], int],
    ) -> None:  # fmt: skip
        super().__init__("broker", world, speeds)
        self.around, self._open_log, self._acknowledgement = around, open_log, acknowledgement
        self._died, self._reopened, self._appended = died, reopened, appended
        self._moved, self._slowed = moved, slowed
        self.rules: rules.Broker | None = None
        self._owned = {topic.owner: topic.name for topic in around.mesh.topics().values()}
        self._effects: list[rules.BrokerEffect] = []

    def start(self) -> None:
        """Open the log."""
        self.begin_life()
        self._effects = []
        self.attempt(self._open)

    def _open(self) -> None:
        self.rules = rules.Broker(self._open_log, self._acknowledgement, clock=self.clock, emit=self._effects.append)

    def end_life(self) -> None:
        """See :class:`Process`."""
        super().end_life()
        self.rules = None

    @property
    def log(self) -> Log | None:
        """The open log, if it is up and its disk works."""
        return None if self.rules is None or self.rules.failure is not None else self.rules.log

    def take(self, message: Message) -> None:
        """See :class:`Process`."""
        broker = self.rules
        assert broker is not None
        self.attempt(lambda: self._take(broker, message))

    def _take(self, broker: rules.Broker, message: Message) -> None:
        sender, content = message.sender, message.content
        match content:
            case RequestGrant(partition):  # also of a life that has ended meanwhile: the broker cannot know
                service = sender[0].rpartition("/")[0]
                incarnation, code = f"{sender[0]}.{sender[1]}", self.around.mesh.code
                broker.grant(sender, self._owned[service], partition, service, incarnation, code)
            case Append(partition, entry):
                broker.append(sender, self._owned[entry.header.writer], partition, entry)
                self._appended(entry.header.rows)
            case Subscribe(other, partition, offset):
                broker.subscribe(sender, position_name(other, partition), offset)
            case Unsubscribe(other, partition):
                broker.unsubscribe(sender, position_name(other, partition))
            case PeerGone(gone):
                broker.gone(gone)

    def attempt(self, call: Callable[[], None]) -> None:
        """Run what uses the disk, in whose midst the process may die."""
        try:
            call()
        except ProcessDied:
            self._died()
            return
        self._carry_out()
        self._moved()

    def _carry_out(self) -> None:
        while self._effects and self.alive:
            effects, self._effects[:] = list(self._effects), []
            for effect in effects:
                self._effect(effect)
        if self.alive:
            self.set_timer()

    def _effect(self, effect: rules.BrokerEffect) -> None:
        match effect:
            case rules.Answer(to, answer):
                self._send(to, answer)
            case rules.Wake(reader):
                self._deliver(reader)
            case rules.CannotRead(reader, _, error):
                self._send(reader, CannotRead(error))
            case rules.WantSync():
                self._sync()
            case rules.Reopened():
                self._reopened()

    def _send(self, to: Any, content: Any, rows: int = 1) -> None:
        name, life, number = to
        stream = split_position(content.name)[0] if isinstance(content, Delivery) else ""
        network, receiver = self.around.network, self.around.process(name)
        network.send(self, receiver, content, rows=rows, life=life, by=number, stream=stream)

    def _deliver(self, reader: Any) -> None:
        broker = self.rules
        while broker is not None and (found := broker.take(reader, DELIVERY_BYTES)) is not None:
            name, entries = found
            for entry in entries:
                self._send(reader, Delivery(name, entry), entry.header.rows)

    def _sync(self) -> None:
        """The disk takes what there is now; that it has is known a while later, and more may have come by then."""
        broker = self.rules
        assert broker is not None
        sync = broker.begin_sync()

        def flush() -> None:
            try:
                broker.log.flush(sync.ends)
            except LogStopped as error:
                broker.sync_failed(error)
                return
            self.later(self.speeds.sync + self._slowed(), lambda: self.attempt(lambda: broker.synced(sync)))

        self.attempt(flush)

    def next_deadline(self) -> int | None:
        """See :class:`Process`."""
        return self.rules.next_deadline() if self.rules is not None else None

    def tick(self) -> None:
        """See :class:`Process`."""
        broker = self.rules
        assert broker is not None
        self.attempt(lambda: broker.tick(self.clock()))

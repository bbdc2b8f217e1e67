"""Carries out faults on a simulation: each at its moment, for as long as it lasts, with dice of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from eventmesh.errors import ConfigurationError, LogStopped, StorageFull
from eventmesh.log.segment import batches_on_disk
from eventmesh.log.simulated_storage import SimulatedStorage
from eventmesh.log.storage import MemoryStorage
from eventmesh.log.topic import Topic
from eventmesh.mesh import Mesh
from eventmesh.progress import split_position
from eventmesh.runtime import faults
from eventmesh.runtime.faults import (
    GENERATOR,
    MACHINE,
    AtOffset,
    AtTime,
    ClockJump,
    Cut,
    DiskFault,
    End,
    FailingSyncs,
    Fault,
    FixedMoment,
    FlippedBit,
    Freeze,
    FullDisk,
    Kill,
    Lasting,
    LinkFault,
    LostUnsynced,
    Planned,
    Reset,
    SlowDisk,
    Split,
    Struck,
    TornWrite,
)
from eventmesh.runtime.simulated.links import MS, OnLink
from eventmesh.runtime.simulated.network import Network, Process
from eventmesh.runtime.simulated.processes import BrokerProcess
from eventmesh.runtime.simulated.world import World

SECOND = 1_000_000


class Struckable(Protocol):
    """What faults need of the simulation that they strike."""

    mesh: Mesh
    world: World
    network: Network
    broker: BrokerProcess
    storage: MemoryStorage
    topics: dict[str, Topic]

    def processes(self) -> list[Process]:
        """All there are."""

    def process(self, name: str) -> Process:
        """The process of this name."""

    def kill(self, process: Process) -> None:
        """Kill it; it starts again after a while."""

    def kill_broker(self, *, machine: bool = False) -> None:
        """Kill the broker, or its machine."""

    def end_process(self, process: Process, *, machine: bool = False) -> None:
        """It is dead, and nobody starts it again yet."""

    def start_process(self, process: Process) -> None:
        """It begins its next life."""

    def connected(self, one: Process, other: Process) -> bool:
        """Whether there is a connection between the two."""

    def end_connection(self, one: Process, other: Process, because: OnLink) -> None:
        """Their connection breaks, and both are told."""


class Strikes:
    """The faults of a simulation. ``generator`` is the caller that brings the load at present."""

    def __init__(self, simulation: Struckable) -> None:
        self._simulation, self.world = simulation, simulation.world
        self.generator = ""
        self._lasting: list[Lasting] = []
        self._names: Counter[str] = Counter()
        self._frozen: Counter[tuple[str, int]] = Counter()  # by how many faults a life is frozen
        self._awaited: list[tuple[AtOffset, Callable[[], None]]] = []
        if isinstance(simulation.storage, SimulatedStorage):
            simulation.storage.noticed = self._noticed

    @property
    def lasting(self) -> bool:
        """Whether a fault is not over."""
        return bool(self._lasting)

    # --- when -------------------------------------------------------------------------------------

    def arrange(self, plan: Iterable[Planned], callers: Iterable[str] = ()) -> list[Struck]:
        """See :meth:`Simulation.arrange <eventmesh.runtime.simulated.simulation.Simulation.arrange>`."""
        plan = list(plan)
        self._check(plan, callers)
        done: list[Struck] = []
        for each in plan:
            # The same fault at the same moment has the same dice, whatever else is in the plan.
            name = self._name(each.model_dump_json())
            moment = faults.fixed(each.moment, self.world.dice(f"moment of {name}"))
            self.when(moment, partial(self._strike_into, done, each.fault, name))
        return done

    def when(self, moment: FixedMoment, action: Callable[[], None]) -> None:
        """See :meth:`Simulation.when <eventmesh.runtime.simulated.simulation.Simulation.when>`."""
        if isinstance(moment, AtTime):
            self.world.after(round(moment.seconds * SECOND), action)
        else:
            self._awaited.append((moment, action))
            self.look()

    def look(self) -> None:
        """See whether an offset that is waited for is there."""
        log = self._simulation.broker.log if self._awaited else None
        if log is None:
            return
        ready = [
            each for each in self._awaited if log.watermark(*split_position(each[0].partition)) >= each[0].offset
        ]  # fmt: skip
        for each in ready:
            self._awaited.remove(each)
            self.world.after(0, each[1])  # not in the midst of what the broker is doing

    def _strike_into(self, done: list[Struck], fault: Fault, name: str) -> None:
        done.append(self._strike(fault, name))

    def _name(self, what: str) -> str:
        """What the dice of a fault are called; a second one just like it has others."""
        self._names[what] += 1
        return f"{what} #{self._names[what]}"

    def strike(self, fault: Fault) -> Struck:
        """See :meth:`Simulation.strike <eventmesh.runtime.simulated.simulation.Simulation.strike>`."""
        self._check([fault])
        return self._strike(fault, self._name(fault.model_dump_json()))

    def _check(self, given: list[Fault] | list[Planned], callers: Iterable[str] = ()) -> None:
        simulation, callers = self._simulation, list(callers)
        known = [*callers, *(process.name for process in simulation.processes())]
        found = faults.refusals(given, simulation.mesh, "simulated", known)
        wanted = [each.fault if isinstance(each, Planned) else each for each in given]
        found += faults.level_refusals(wanted, simulation.mesh.log.durability, "simulated")
        for fault in wanted:
            if GENERATOR in (*fault.processes(), *fault.ends()) and not (self.generator or callers):
                found.append(f"{fault.kind}: nobody brings a load yet, so that nobody is the {GENERATOR}")
        if found:
            raise ConfigurationError("\n".join(found))

    # --- begin and end ------------------------------------------------------------------------------

    def _strike(self, fault: Fault, name: str) -> Struck:
        struck = Struck(fault, self.world.now)
        undo = self._begin(fault, struck, name)
        if undo is None:
            struck.ended_us = self.world.now
            return struck
        lasting = Lasting(struck, undo)
        self._lasting.append(lasting)
        if fault.duration_s is not None:
            self.world.after(round(fault.duration_s * SECOND), partial(self._end, lasting))
        self.disk_changed()
        return struck

    def _end(self, lasting: Lasting) -> None:
        if lasting in self._lasting:
            self._lasting.remove(lasting)
            lasting.struck.ended_us = self.world.now
            lasting.undo()
            self.disk_changed()

    def heal(self) -> None:
        """See :meth:`Simulation.heal <eventmesh.runtime.simulated.simulation.Simulation.heal>`."""
        for lasting in list(self._lasting):
            self._end(lasting)

    def _begin(self, fault: Fault, struck: Struck, name: str) -> Callable[[], None] | None:
        """Do it, and say what undoes it; None for what is over, or did nothing."""
        match fault:
            case Kill() if fault.process == MACHINE:
                self._kill_all(struck)
            case Kill():
                self._kill(self._process(fault.process), struck)
            case LostUnsynced():
                self._kill(self._simulation.broker, struck, machine=True)
            case FlippedBit():
                self._flip(fault, struck, name)
            case Freeze():
                return self._freeze(self._process(fault.process), struck)
            case End():
                return self._end_cleanly(self._process(fault.process), struck)
            case ClockJump():
                return self._jump(self._process(fault.process), fault.by_ms * MS, struck)
            case SlowDisk() | FullDisk() | FailingSyncs() | TornWrite():
                return self._of_disk(fault)
            case _:
                return self._of_link(fault, struck, name)
        return None

    # --- processes ----------------------------------------------------------------------------------

    def _process(self, name: str) -> Process:
        return self._simulation.process(self.generator if name == GENERATOR else name)

    def _jump(self, process: Process, by: int, struck: Struck) -> Callable[[], None]:
        struck.shows["clocks off"] += 1
        process.jump(by)
        return partial(process.jump, -by)

    def _kill(self, process: Process, struck: Struck, *, machine: bool = False) -> None:
        if not process.alive:
            return
        self._note_lives(process, struck)
        if process is self._simulation.broker:
            self._simulation.kill_broker(machine=machine)
        else:
            self._simulation.kill(process)

    def _kill_all(self, struck: Struck) -> None:
        callers = {process.name for process in self._simulation.processes()} - set(
            faults.process_names(self._simulation.mesh)
        )
        for process in self._simulation.processes():
            if process.name not in callers:
                self._kill(process, struck, machine=True)

    def _note_lives(self, process: Process, struck: Struck) -> None:
        """Write down that a life ends, and when the next one begins."""
        struck.shows["lives ended"] += 1
        struck.details[f"{process.name} before"] = str(process.life)

        def started() -> None:
            struck.shows["lives begun"] += 1
            struck.details[f"{process.name} after"] = str(process.life)
            struck.ended_us = self.world.now

        process.when_started.append(started)

    def _freeze(self, process: Process, struck: Struck) -> Callable[[], None] | None:
        if not process.alive:
            return None
        frozen = process.identity
        self._frozen[frozen] += 1
        process.freeze()
        struck.shows["processes frozen"] += 1

        def thaw() -> None:
            self._frozen[frozen] -= 1
            if process.identity == frozen and not self._frozen[frozen]:
                struck.shows["messages that waited"] += process.waiting
                process.thaw()

        return thaw

    def _end_cleanly(self, process: Process, struck: Struck) -> Callable[[], None] | None:
        if not process.alive:
            return None
        self._note_lives(process, struck)
        life, broker = process.life, self._simulation.broker
        if process is broker:
            self._close_log(struck)
        if process.alive:  # a disk can kill it in the midst of that
            self._simulation.end_process(process)

        def start() -> None:
            if not process.alive and process.life == life:
                self._simulation.start_process(process)

        return start

    def _close_log(self, struck: Struck) -> None:
        broker = self._simulation.broker
        log = broker.log

        def close() -> None:
            assert log is not None
            try:
                log.close()
            except (LogStopped, StorageFull) as error:
                struck.details["log"] = f"not closed: {error}"

        if log is not None:
            broker.attempt(close)

    # --- links --------------------------------------------------------------------------------------

    def _of_link(self, fault: LinkFault, struck: Struck, name: str) -> Callable[[], None] | None:
        simulation = self._simulation
        on = OnLink(struck, self.world, f"fault {name}", self.generator)
        if isinstance(fault, Reset):
            for one, other in self._connected(on):
                self._break(on, one, other)
            return None
        links = simulation.network.links
        if not isinstance(fault, Cut | Split):
            links.begin(on)
            return partial(links.end, on)
        lasts = round(fault.lasts_s * SECOND)
        for one, other in self._connected(on):
            on.open.add((one.identity, other.identity))
            sooner = round(self.world.draw(f"{on.named} breaks {one.name} {other.name}") * lasts)
            self.world.after(sooner, partial(self._break_open, on, one, other, one.identity, other.identity))
        links.begin(on)

        def over() -> None:
            for lives in sorted(on.open):
                one, other = (simulation.process(life[0]) for life in lives)
                self._break_open(on, one, other, *lives)
            links.end(on)

        return over

    def _connected(self, on: OnLink) -> list[tuple[Process, Process]]:
        """The connections that it hits."""
        simulation = self._simulation
        living = [each for each in simulation.processes() if each.alive]
        return [
            (one, other)
            for place, one in enumerate(living)
            for other in living[place + 1 :]
            if (on.between(one.name, other.name) or on.between(other.name, one.name))
            and simulation.connected(one, other)
            and on.hits_between(one.name, other.name)
        ]

    def _break(self, on: OnLink, one: Process, other: Process) -> None:
        on.count("connections broken")
        self._simulation.end_connection(one, other, on)

    def _break_open(
        self, on: OnLink, one: Process, other: Process, life: tuple[str, int], other_life: tuple[str, int]
    ) -> None:
        """A cut ends this connection, if it is still there."""
        if (life, other_life) not in on.open:
            return
        on.open.remove((life, other_life))
        if one.alive and other.alive and (one.identity, other.identity) == (life, other_life):
            self._break(on, one, other)

    # --- disks --------------------------------------------------------------------------------------

    @property
    def _disk(self) -> SimulatedStorage:
        disk = self._simulation.storage
        assert isinstance(disk, SimulatedStorage)
        return disk

    def _of_disk(self, fault: SlowDisk | FullDisk | FailingSyncs | TornWrite) -> Callable[[], None] | None:
        if not isinstance(fault, TornWrite):
            return lambda: None  # disk_changed sees what is left
        if not self._simulation.broker.alive:
            return None
        self._disk.die_after = fault.after_bytes

        def spare() -> None:
            self._disk.die_after = None

        return spare

    def disk_changed(self) -> None:
        """Set the disk's switches as the faults say that are in force."""
        if isinstance(self._simulation.storage, SimulatedStorage):
            self._disk.full = bool(self._of(FullDisk))
            self._disk.fail_sync = bool(self._of(FailingSyncs))

    def _of(self, *kinds: type[DiskFault]) -> list[Lasting]:
        return [each for each in self._lasting if isinstance(each.struck.fault, kinds)]

    def _noticed(self, what: str) -> None:
        for each in self._of(FailingSyncs if what == "syncs failed" else FullDisk):
            each.struck.shows[what] += 1

    def slowed(self) -> int:
        """Microseconds by which a sync that begins now takes longer."""
        slow = self._of(SlowDisk)
        for each in slow:
            each.struck.shows["syncs slowed"] += 1
        return sum(round(each.struck.fault.extra_ms * MS) for each in slow if isinstance(each.struck.fault, SlowDisk))

    def died_writing(self) -> None:
        """The broker has died in the middle of a write: that is the end of a torn write."""
        for lasting in self._of(TornWrite):
            self._lasting.remove(lasting)
            self._note_lives(self._simulation.broker, lasting.struck)
            lasting.struck.shows["writes torn"] += 1

    def _flip(self, fault: FlippedBit, struck: Struck, name: str) -> None:
        found = batches_on_disk(self._disk, fault.partition, closed=fault.segment == "closed")
        if found is None:
            return  # nothing is in it yet
        path, batches = found
        dice = self.world.dice(f"fault {name}")
        at = dice.choice(batches)
        self._disk.flip(path, at, dice.randint(0, 7))
        struck.shows["bits flipped"] += 1
        struck.details |= {"file": path, "byte": str(at)}

"""A whole mesh in one thread on a virtual clock, with a seeded network and disk, and processes that can be killed.

It drives the same broker, tasks and callers as the runtime on Ray; only what surrounds them is its own. Where a process
died, the other side of each of its connections learns that it broke. Every choice is drawn from the seed: it names a
history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import pyarrow as pa

from eventmesh.errors import LogStopped, PeerLost, StorageFull
from eventmesh.history import CALLERS, Dumps, History
from eventmesh.log.manifest import read_manifest
from eventmesh.log.simulated_storage import SimulatedStorage
from eventmesh.log.storage import MemoryStorage
from eventmesh.log.store import Durability, Log, LogReader
from eventmesh.mesh import Mesh
from eventmesh.runtime.broker import ACKNOWLEDGEMENTS
from eventmesh.runtime.faults import Fault, FixedMoment, Planned, Struck
from eventmesh.runtime.journal import Journal
from eventmesh.runtime.limits import Limits
from eventmesh.runtime.simulated.links import OnLink
from eventmesh.runtime.simulated.network import Network, Process, Speeds
from eventmesh.runtime.simulated.processes import (
    BrokerLost,
    BrokerProcess,
    BrokerUp,
    CallerProcess,
    PeerGone,
    ServiceProcess,
)
from eventmesh.runtime.simulated.strikes import Strikes
from eventmesh.runtime.simulated.world import START, World
from eventmesh.runtime.snapshots import FOLDER, Floors, Snapshot, SnapshotStore
from eventmesh.runtime.snapshotter import Snapshotter
from eventmesh.workload import Requests

CLUSTER = "simulated"
#: Microseconds from the append that makes snapshots due until they are taken.
SNAPSHOT_DELAY = (1_000, 30_000)
#: Microseconds that no stream of a simulation is late.
GRACE = 100_000


class Simulation:
    """Runs ``mesh`` from ``seed``. It has a :class:`World`, a :class:`Network` and a disk, the ``storage``.

    It can go on with the ``storage`` of another one, or of a mesh on Ray, at the time ``now``; ``lives_before`` is more
    than the lives that any process had there, since no incarnation may be called as one before it.
    """

    #: What carries its messages; a subclass may have another one.
    network_of: type[Network] = Network

    def __init__(
        self, mesh: Mesh, *, seed: int, speeds: Speeds | None = None, limits: Limits | None = None,
        storage: MemoryStorage | None = None, now: int = START, lives_before: int = 0,
    ) -> None:  # fmt: skip
        self.seed, self.speeds = seed, speeds or Speeds()
        self.world = World(seed, now)
        self.network = self.network_of(self.world, self.speeds)
        self.durability = Durability(mesh.log.durability)
        self.storage = storage or (
            MemoryStorage() if self.durability is Durability.memory else SimulatedStorage(self.world.dice("disk"))
        )
        stored = read_manifest(self.storage)
        self.mesh = mesh = mesh if stored is None else mesh.on_log(stored.topics)
        self.topics = mesh.topics()
        self.snapshots = SnapshotStore(self.storage, FOLDER)
        self.floors = Floors(mesh, self.snapshots.header, grace_us=GRACE)
        self.deaths = 0
        self._rows_appended = 0  # since it was last looked whether snapshots are due
        self.broker = BrokerProcess(
            self.world, self.speeds, self, open_log=self.open_log, acknowledgement=ACKNOWLEDGEMENTS[self.durability],
            died=self._died, reopened=self._reconnect, appended=self._count_rows,
            moved=lambda: self.strikes.look(), slowed=lambda: self.strikes.slowed(),
        )  # fmt: skip
        self.hosts = {
            (service, number): ServiceProcess(
                service,
                number,
                self.world,
                self.speeds,
                self,
                limits=limits or Limits(),
                snapshots=self._snapshot,
                ends=self._ends,
            )
            for service, section in mesh.services.items()
            for number in range(section.instances)
        }
        self._named: dict[str, Process] = {host.name: host for host in self.hosts.values()}
        self.clients: dict[str, CallerProcess] = {}
        self.strikes: Strikes = Strikes(self)
        self.start_broker()
        for host in self.hosts.values():
            host.life = lives_before
            host.start()

    def process(self, name: str) -> Process:
        """The process of this name."""
        return self.broker if name == self.broker.name else self._named[name]

    def host(self, service: str, partition: int) -> ServiceProcess:
        """The process that has this partition of a service."""
        return self.hosts[service, self.mesh.instance_of(service, partition)]

    def open_log(self) -> Log:
        """Open the log that lies on the disk."""
        return Log.open(
            self.storage, self.topics, durability=self.durability, cluster_id=CLUSTER, node="simulated",
            clock=self.broker.clock,
        )  # fmt: skip

    # --- faults ---------------------------------------------------------------------------------

    def strike(self, fault: Fault) -> Struck:
        """Do it now; what comes back says what came of it, and goes on doing so while it lasts.

        :class:`~eventmesh.errors.ConfigurationError` where it does not fit this mesh; nothing is done then.
        """
        return self.strikes.strike(fault)

    def arrange(self, plan: Iterable[Planned], callers: Iterable[str] = ()) -> list[Struck]:
        """Do each at its moment, times counted from now; the list grows as they strike.

        ``callers`` are those that a plan may name and that are yet to come. Errors as those of :meth:`strike`, for all
        of them before anything is done.
        """
        return self.strikes.arrange(plan, callers)

    def when(self, moment: FixedMoment, action: Callable[[], None]) -> None:
        """Call ``action`` at the moment; times are counted from now."""
        self.strikes.when(moment, action)

    def heal(self) -> None:
        """End every fault that lasts. Harmless where there is none."""
        self.strikes.heal()

    # --- deaths ---------------------------------------------------------------------------------

    def start_broker(self) -> None:
        """Open the log; whoever waits for the broker connects again."""
        self._rows_appended = 0
        self.broker.start()
        self._reconnect()

    def _reconnect(self) -> None:
        """Every service connects anew: to the broker's next life, or to map the files of a log opened again anew."""
        for host in self._living_hosts():
            self.network.tell(host, BrokerUp(self.broker.life), self.speeds.notice)

    def _living_hosts(self) -> list[ServiceProcess]:
        return [host for host in self.hosts.values() if host.alive]

    def kill(self, process: Process) -> None:
        """Kill a process; it starts again after a while."""
        if process is self.broker:
            self.kill_broker()
        elif process.alive:
            self.end_process(process)
            self.world.after(self.speeds.restart, lambda: self.start_process(process), f"restart {process.name}")

    def kill_broker(self, *, machine: bool = False) -> None:
        """Kill the broker's process, or its machine; it opens the log again after a while."""
        if self.broker.alive:
            self.end_process(self.broker, machine=machine)
            self.world.after(self.speeds.restart, self.start_broker, "restart broker")

    def fenced(self, process: ServiceProcess) -> None:
        """An incarnation ends for good; whoever supervises the instance starts the next."""
        self.kill(process)

    def _died(self) -> None:
        """The broker was killed in the middle of a write."""
        self.strikes.died_writing()
        self.kill_broker()

    def end_process(self, process: Process, *, machine: bool = False) -> None:
        """A living process is dead, and nobody starts it again yet; ``machine`` tells how the broker's disk took it."""
        self.deaths += 1
        gone = process.identity
        process.end_life()
        if process is not self.broker:
            self._tell_of(gone, but=process)
            return
        if isinstance(self.storage, SimulatedStorage):
            if machine:
                self.storage.crash_machine()
            else:
                self.storage.restart_process()
            self.strikes.disk_changed()
        for host in self._living_hosts():
            connection = (gone[1], self.network.connection(host.name, process.name))
            self.network.tell(host, BrokerLost(connection), self.speeds.notice)

    def start_process(self, process: Process) -> None:
        """A process that is down begins its next life."""
        if process is self.broker:
            self.start_broker()
        else:
            assert isinstance(process, (ServiceProcess, CallerProcess))
            process.start()

    def _tell_of(self, gone: tuple[str, int], *, but: Process) -> None:
        for other in (*self.hosts.values(), *self.clients.values(), self.broker):
            if other is not but and other.alive:
                lost = PeerGone((*gone, self.network.connection(gone[0], other.name)))
                self.network.tell(other, lost, self.speeds.notice)

    def connected(self, one: Process, other: Process) -> bool:
        """Whether there is a connection between two processes; to the broker, also one that carries nothing yet."""
        for service, broker in ((one, other), (other, one)):
            if broker is self.broker and isinstance(service, ServiceProcess):
                return service.connected == (broker.life, self.network.connection(service.name, broker.name))
        return self.network.connected(one, other)

    def end_connection(self, one: Process, other: Process, because: OnLink) -> None:
        """The connection between two living processes breaks, and both are told."""
        number = self.network.connection(one.name, other.name)
        self.network.end_connection(one, other, because)
        for process, gone in ((one, other), (other, one)):
            lost: BrokerLost | PeerGone = (
                BrokerLost((gone.life, number)) if gone is self.broker else PeerGone((*gone.identity, number))
            )
            self.network.tell(process, lost, self.speeds.notice, f"{because.named} told {process.name}")

    def processes(self) -> list[Process]:
        """All there are: the broker, services, callers."""
        return [self.broker, *self._named.values()]

    # --- snapshots and retention ------------------------------------------------------------------

    def _snapshot(self, name: str) -> Snapshot | None:
        if not self.snapshots.size(name):
            return None
        if self.broker.log is None:
            raise PeerLost("the broker is away")
        return self.snapshots.get(name, self.broker.log, CLUSTER)

    def _ends(self) -> Mapping[str, int]:
        if self.broker.rules is None or self.broker.log is None:
            raise PeerLost("the broker is away")
        return self.broker.rules.ends()

    def _count_rows(self, rows: int) -> None:
        due = self.mesh.log.snapshot_rows
        self._rows_appended += rows
        if due is not None and self._rows_appended >= due and self.mesh.keeps_snapshots:
            self._rows_appended = 0
            self.world.after(SNAPSHOT_DELAY, lambda: self.broker.attempt(partial(self._keep_house, due)), "snapshots")

    def _keep_house(self, rows: int) -> None:
        """Take snapshots, then let retention delete what no restart would read."""
        broker = self.broker.rules
        if broker is None or broker.failure is not None or self.broker.frozen:
            return  # next time
        snapshotter = Snapshotter(
            self.mesh, LogReader.of(self.storage), self.snapshots, cluster_id=CLUSTER, rows=rows,
            clock=self.world.clock,
        )  # fmt: skip
        try:
            snapshotter.take_due()
            floors = self.floors.at(self.world.now)
            broker.using(lambda log: log.retain(self.world.now, floors))
        except (LogStopped, OSError, StorageFull):
            return  # the snapshots before stand, and the broker opens a log that stopped again

    # --- runs -----------------------------------------------------------------------------------

    def call(self, name: str, requests: Requests, *, window: int = 1_000_000) -> CallerProcess:
        """Start a caller; it is done when ``client.caller.done``."""
        return self.resume(Journal.in_memory(name, requests, window))

    def resume(self, journal: Journal) -> CallerProcess:
        """Start a caller that goes on from its journal."""
        client = self.clients[journal.name] = CallerProcess(journal, self.world, self.speeds, self)
        self._named[journal.name] = client
        self.strikes.generator = client.name
        client.start()
        return client

    def quiet(self) -> bool:
        """Every process is up, idle, and has read all there is of what it reads."""
        # Asked after every event: the newest caller is the one that is at work.
        for client in reversed(self.clients.values()):
            if client.caller is not None and not client.caller.done:
                return False
        return self.services_quiet()

    def services_quiet(self) -> bool:
        """As :meth:`quiet`, whatever callers still wait for."""
        if self.broker.rules is None or self.broker.log is None:
            return False
        ends = self.broker.rules.ends()
        return all(host.instance is not None and host.instance.caught_up(ends) for host in self.hosts.values())

    def run_until(self, done: Callable[[], bool], *, seconds: float = 600.0) -> None:
        """Advance until ``done``; :class:`Deadlock` after ``seconds`` of virtual time."""
        self.world.run_until(done, seconds=seconds, describe=self.describe)

    def drain(self, *, seconds: float = 600.0) -> None:
        """Advance until everything is quiet."""
        self.run_until(self.quiet, seconds=seconds)

    def history(self, callers: Iterable[str] | None = None) -> History:
        """What was seen, for the audit."""
        names = list(self.clients) if callers is None else list(callers)
        tables = [client.caller.table() for name in names if (client := self.clients[name]).caller is not None]
        seen = Dumps.all(host.instance.dump() for host in self.hosts.values() if host.instance is not None)
        callers = pa.concat_tables(tables) if tables else CALLERS.empty_table()
        return History(callers, seen.views, self.quiet(), states=seen.states)

    def describe(self) -> str:
        """Where everybody stands, for a failed run."""
        broker = "down" if self.broker.rules is None else self.broker.rules.failure or "up"
        lines = [f"broker: {broker}"]
        for host in self.hosts.values():
            if host.instance is None:
                lines.append(f"{host.name}: down")
                continue
            for task in host.instance.tasks.values():
                lines.append(
                    f"{task.name}: {task.phase}, epoch {task.epoch}, in flight {len(task.in_flight)}, queued "
                    f"{task.queued_rows}, commands {len(task.commands)}, held {len(task.outcome.held)}, conversations "
                    f"{sorted(task.conversations.running)[:3]}, open asks {len(task.asks)}, next {task.progress.next}"
                )
        for client in self.clients.values():
            if client.caller is not None:
                lines.append(f"{client.name}: {client.caller.next} sent, {client.caller.open_requests} open")
        return "\n".join(lines)

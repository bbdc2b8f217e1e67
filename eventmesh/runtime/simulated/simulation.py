"""A whole mesh in one thread on a virtual clock, with a seeded network and disk and crashes at any step.

It drives the same tasks, log and callers as the runtime on Ray; only the edges are its own. Where a
process died, the other side of each of its connections learns that it broke.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from eventmesh.errors import AppendRefused, EventmeshError, LogStopped, PeerLost, StorageFull
from eventmesh.history import CALLERS, History, ViewDump
from eventmesh.log.simulated_storage import ProcessDied, SimulatedStorage
from eventmesh.log.storage import MemoryStorage
from eventmesh.log.store import Durability, Log, LogReader
from eventmesh.mesh import Mesh
from eventmesh.progress import position_name
from eventmesh.runtime.caller import Caller
from eventmesh.runtime.contract import (
    Address,
    Append,
    AskMessage,
    Effect,
    Exit,
    Limits,
    ReplyMessage,
    RequestGrant,
    SendAsk,
    SendReply,
    Subscribe,
    Unsubscribe,
)
from eventmesh.runtime.instance import Instance
from eventmesh.runtime.journal import Journal
from eventmesh.runtime.simulated.network import Network, Process, Speeds
from eventmesh.runtime.snapshots import FOLDER, Floors, Snapshot, SnapshotStore
from eventmesh.runtime.snapshotter import Snapshotter
from eventmesh.workload import Requests

BROKER, CLUSTER = "broker", "simulated"
#: Microseconds from the append that makes snapshots due until they are taken.
SNAPSHOT_DELAY = (1_000, 30_000)
#: Microseconds that no stream of a simulation is late.
GRACE = 100_000


@dataclass
class Host(Process):
    """A service instance and what it left to do."""

    instance: Instance | None = None
    began: bool = False  # it has found the broker, and begun to read
    effects: list[Effect] = field(default_factory=list)


@dataclass
class Client(Process):
    """A caller and what it left to do. While it is down, ``caller`` is the one that died: of it the journal counts."""

    caller: Caller | None = None
    journal: Journal | None = None
    effects: list[Effect] = field(default_factory=list)


@dataclass
class Broker(Process):
    """The log's process: cursors of who reads what, and acknowledgements that wait for a sync."""

    log: Log | None = None
    cursors: dict[tuple[str, str, int], int] = field(default_factory=dict)
    unsynced: list[Callable[[], None]] = field(default_factory=list)
    sync_scheduled: bool = False
    rows_appended: int = 0  # since it last looked whether snapshots are due


class Simulation(Network):
    """Runs ``mesh`` from ``seed``. Every choice is drawn from it: a seed names a history."""

    def __init__(self, mesh: Mesh, *, seed: int, speeds: Speeds | None = None, limits: Limits | None = None) -> None:
        super().__init__(seed, speeds or Speeds())
        self.mesh, self.limits = mesh, limits or Limits()
        self.topics = mesh.topics()
        self.owned = {topic.owner: topic for topic in self.topics.values()}
        durability = Durability(mesh.log.durability)
        self.storage = MemoryStorage() if durability is Durability.memory else SimulatedStorage(self.random)
        self.durability = durability
        self.snapshots = SnapshotStore(self.storage, FOLDER)
        self.floors = Floors(mesh, self.snapshots.head, grace_us=GRACE)
        self.broker = Broker(BROKER)
        self.hosts = {
            (service, number): Host(f"{service}/{number}")
            for service, section in mesh.services.items()
            for number in range(section.instances)
        }
        self.clients: dict[str, Client] = {}
        self.crashes = 0
        self.start_broker()
        for host in self.hosts.values():
            self.start_host(host)

    # --- processes ------------------------------------------------------------------------------

    def start_broker(self) -> None:
        """Open the log; whoever waits for it connects again."""
        broker = self.broker
        broker.life, broker.alive, broker.busy_until = broker.life + 1, True, self.now
        broker.inbox.clear()
        broker.cursors, broker.unsynced, broker.sync_scheduled = {}, [], False
        broker.rows_appended = 0
        broker.log = Log.open(
            self.storage,
            self.topics,
            durability=self.durability,
            cluster_id=CLUSTER,
            node="simulated",
            clock=self.clock,
        )
        for host in self.hosts.values():
            self.after(self.speeds.notice, lambda host=host, life=host.life: self._reconnect(host, life))  # type: ignore[misc]

    def _reconnect(self, host: Host, life: int) -> None:
        if host.alive and host.life == life and host.instance is not None:
            self._inside(host, host.instance.subscribe_again if host.began else lambda: self._begin(host))

    def start_host(self, host: Host) -> None:
        """Start an incarnation of a service instance."""
        service, _, number = host.name.rpartition("/")
        host.life, host.alive, host.effects, host.timer_at = host.life + 1, True, [], None
        host.busy_until = self.now
        host.inbox.clear()
        host.instance = Instance(
            self.mesh,
            service,
            int(number),
            incarnation=f"{host.name}.{host.life}",
            clock=self.clock,
            emit=host.effects.append,
            limits=self.limits,
            seed=self.seed,
            snapshots=self._snapshot,
        )
        host.began = False
        self._inside(host, lambda: self._begin(host))

    def _begin(self, host: Host) -> None:
        assert host.instance is not None
        with suppress(PeerLost):  # the broker is away: again when it is back
            host.instance.start()
            host.began = True

    def _snapshot(self, name: str) -> Snapshot | None:
        if not self.snapshots.size(name):
            return None
        if self.broker.log is None:
            raise PeerLost("the broker is away")
        return self.snapshots.get(name, self.broker.log, CLUSTER)

    def crash_host(self, host: Host) -> None:
        """Kill a service's process; it starts again after a while."""
        if not host.alive:
            return
        self.crashes += 1
        host.alive, host.instance = False, None
        for other in self._peers(host):
            self.after(self.speeds.notice, lambda other=other: self._notice(other, host.name))  # type: ignore[misc]
        self.after(self.speeds.restart, lambda: self.start_host(host))

    def crash_broker(self, *, machine: bool = False) -> None:
        """Kill the broker's process, or its machine; it opens the log again after a while."""
        if not self.broker.alive:
            return
        self.crashes += 1
        self.broker.alive, self.broker.log = False, None
        if isinstance(self.storage, SimulatedStorage):
            if machine:
                self.storage.crash_machine()
            else:
                self.storage.restart_process()
        for host in self.hosts.values():
            self.after(self.speeds.notice, lambda host=host, life=host.life: self._broker_lost(host, life))  # type: ignore[misc]
        self.after(self.speeds.restart, self.start_broker)

    def crash_client(self, client: Client) -> None:
        """Kill a caller's process; after a while it goes on from its journal."""
        if not client.alive:
            return
        self.crashes += 1
        client.alive, origin = False, (client.name, client.life)
        for host in self.hosts.values():
            self.after(self.speeds.notice, lambda host=host, life=host.life: self._origin_lost(host, life, origin))  # type: ignore[misc]
        self.after(self.speeds.restart, lambda: self._start_client(client))

    def _origin_lost(self, host: Host, life: int, origin: tuple[str, int]) -> None:
        if host.life == life and host.instance is not None:
            host.instance.origin_lost(origin)

    def _start_client(self, client: Client) -> None:
        journal = client.journal
        assert journal is not None
        journal.settle()
        client.life, client.alive, client.effects, client.timer_at = client.life + 1, True, [], None
        client.busy_until = self.now
        client.inbox.clear()
        client.caller = Caller(
            client.name,
            journal.requests,
            messages=self.mesh.application.MESSAGES,
            owned=self.owned,
            clock=self.clock,
            emit=client.effects.append,
            journal=journal,
            seed=self.seed,
        )
        self._inside(client, client.caller.resume)

    def _peers(self, gone: Process) -> Iterable[Process]:
        return [process for process in (*self.hosts.values(), *self.clients.values()) if process is not gone]

    def _notice(self, process: Process, name: str) -> None:
        service = name.rpartition("/")[0]
        if isinstance(process, Host) and process.instance is not None:
            process.instance.peer_lost(service)
            process.instance.origin_lost(name)
            self._carry_out(process)
        elif isinstance(process, Client) and process.alive and self._talks_to(process.caller, service):
            assert process.caller is not None
            process.caller.peer_lost()
            self._carry_out(process)

    def _talks_to(self, caller: Caller | None, service: str) -> bool:
        return caller is not None and any(
            caller.messages[command].service == service for command in set(caller.requests.commands)
        )

    def _broker_lost(self, host: Host, life: int) -> None:
        if host.life != life or host.instance is None:
            return
        error = PeerLost("the broker's connection broke")
        for partition, task in host.instance.tasks.items():
            if task.in_flight:
                host.instance.append_failed(partition, task.epoch, error)
            elif task.phase == "granting":
                host.instance.grant_failed(partition, error)
        self._carry_out(host)

    # --- effects ---------------------------------------------------------------------------------

    def _inside(self, process: Host | Client, call: Callable[[], None]) -> None:
        call()
        self._carry_out(process)

    def _carry_out(self, process: Host | Client) -> None:
        effects, process.effects[:] = list(process.effects), []
        for effect in effects:
            if not process.alive:
                return
            self._effect(process, effect)
        self._set_timer(process)

    def _set_timer(self, process: Host | Client) -> None:
        machine: Any = process.instance if isinstance(process, Host) else process.caller
        deadline = machine.next_deadline() if machine is not None else None
        if deadline is None or (process.timer_at is not None and process.timer_at <= deadline):
            return
        process.timer_at = deadline
        life = process.life

        def fire() -> None:
            if not process.alive or process.life != life or process.timer_at != deadline:
                return
            process.timer_at = None
            machine.tick(self.now)
            self._carry_out(process)

        self.at(deadline, fire)

    def _effect(self, process: Host | Client, effect: Effect) -> None:
        if isinstance(effect, SendAsk):
            self._send_ask(process, effect.to, effect.message)
        elif isinstance(effect, SendReply):
            self._send_reply(process, effect.origin, effect.reply)
        elif isinstance(process, Host):
            self._log_effect(process, effect)

    def _log_effect(self, host: Host, effect: Effect) -> None:
        broker, life = self.broker, host.life
        if isinstance(effect, RequestGrant):
            if not broker.alive:
                instance = host.instance
                assert instance is not None
                self.after(
                    1_000,
                    lambda: self._alive(
                        host, instance, lambda: instance.grant_failed(effect.partition, PeerLost("the broker is away"))
                    ),
                )
                return
            self.send(host, broker, lambda: self._grant(host, life, effect.partition))
        elif isinstance(effect, Append):
            self._append_or_lose(host, effect)
        elif isinstance(effect, Subscribe):
            if broker.alive:
                self.send(host, broker, lambda: self._subscribe(host, life, effect))
        elif isinstance(effect, Unsubscribe):
            if broker.alive:
                self.send(host, broker, lambda: self._cursor_gone(host, life, effect))
        elif isinstance(effect, Exit):
            self.crash_host(host)  # this incarnation ends for good; whoever supervises the instance starts the next

    def _alive(self, host: Host, instance: Instance, call: Callable[[], None]) -> None:
        if host.alive and host.instance is instance:
            call()
            self._carry_out(host)

    def _answer(self, host: Host, life: int, call: Callable[[Instance], None], rows: int = 1) -> None:
        instance = host.instance
        if instance is not None and host.life == life:
            self.send(self.broker, host, lambda: self._inside(host, lambda: call(instance)), rows=rows)

    # --- the broker -----------------------------------------------------------------------------

    def _grant(self, host: Host, life: int, partition: int) -> None:
        """Also to a life that has ended meanwhile: the broker cannot know."""
        log, topic = self.broker.log, self.owned[host.name.rpartition("/")[0]]
        if log is None:
            return
        try:
            grant = log.grant(topic.name, partition, topic.owner, f"{host.name}.{life}")
        except (ProcessDied, LogStopped):
            self.crash_broker()  # a log that stopped must be opened again (rule 9)
            return
        except EventmeshError as error:
            self._answer(host, life, lambda instance, error=error: instance.grant_failed(partition, error))  # type: ignore[misc]
            return
        self._answer(host, life, lambda instance: instance.granted(partition, grant.epoch, grant.end))
        self._push(topic.name, partition)

    def _append_or_lose(self, host: Host, effect: Append) -> None:
        instance = host.instance
        assert instance is not None
        if self.broker.alive:
            life = host.life
            self.send(host, self.broker, lambda: self._append(host, life, effect), rows=effect.entry.header.rows)
            return
        error = PeerLost("the broker is away")
        self.after(
            1_000,
            lambda: self._alive(
                host, instance, lambda: instance.append_failed(effect.partition, effect.entry.header.epoch, error)
            ),
        )

    def _append(self, host: Host, life: int, effect: Append) -> None:
        log, header = self.broker.log, effect.entry.header
        if log is None:
            return
        topic = self.owned[header.writer]
        try:
            end = log.append(topic.name, effect.partition, effect.entry)
        except (ProcessDied, LogStopped):
            self.crash_broker()
            return
        except AppendRefused as error:
            self._answer(
                host,
                life,
                lambda instance, error=error: instance.append_failed(  # type: ignore[misc]
                    effect.partition, header.epoch, error
                ),
            )
            return

        self._count_rows(header.rows)

        def acknowledge() -> None:
            self._answer(host, life, lambda instance: instance.appended(effect.partition, header.epoch, end))
            self._push(topic.name, effect.partition)

        if self.durability is Durability.fsync:
            self._acknowledge_after_sync(acknowledge)
        else:
            acknowledge()

    def _count_rows(self, rows: int) -> None:
        broker, due = self.broker, self.mesh.log.snapshot_rows
        broker.rows_appended += rows
        if due is not None and broker.rows_appended >= due and self.mesh.keeps_snapshots:
            broker.rows_appended = 0
            self.after(SNAPSHOT_DELAY, self._take_snapshots)

    def _take_snapshots(self) -> None:
        """Then let retention delete what no restart would read."""
        log, rows = self.broker.log, self.mesh.log.snapshot_rows
        if log is None or rows is None:
            return
        reader = LogReader.of(self.storage)
        snapshotter = Snapshotter(
            self.mesh, reader, self.snapshots, cluster_id=CLUSTER, rows=rows, clock=self.clock
        )  # fmt: skip
        try:
            snapshotter.take_due()
            log.retain(self.now, self.floors.at(self.now))
        except (ProcessDied, LogStopped):
            self.crash_broker()
        except (OSError, StorageFull):
            return  # the snapshots before stand; the broker finds out by itself what the disk is like

    def _acknowledge_after_sync(self, acknowledge: Callable[[], None]) -> None:
        broker, life = self.broker, self.broker.life
        broker.unsynced.append(acknowledge)
        if broker.sync_scheduled:
            return
        broker.sync_scheduled = True

        def sync() -> None:
            if not broker.alive or broker.life != life or broker.log is None:
                return
            broker.sync_scheduled = False
            waiting, broker.unsynced = broker.unsynced, []
            try:
                broker.log.sync()
            except (ProcessDied, EventmeshError):
                self.crash_broker()  # a failed sync is never retried: stop, and open again (rule 9)
                return
            for ready in waiting:
                ready()

        self.after(self.speeds.sync, sync)

    def _subscribe(self, host: Host, life: int, effect: Subscribe) -> None:
        if host.life != life:
            return
        self.broker.cursors[(host.name, effect.topic, effect.partition)] = effect.offset
        self._push(effect.topic, effect.partition)

    def _cursor_gone(self, host: Host, life: int, effect: Unsubscribe) -> None:
        if host.life == life:
            self.broker.cursors.pop((host.name, effect.topic, effect.partition), None)

    def _push(self, topic: str, partition: int) -> None:
        log = self.broker.log
        if log is None:
            return
        for (name, wanted, number), cursor in list(self.broker.cursors.items()):
            if (wanted, number) != (topic, partition):
                continue
            service, _, instance_number = name.rpartition("/")
            host = self.hosts[(service, int(instance_number))]
            for entry in log.read(topic, partition, cursor, 1 << 30):
                self.broker.cursors[(name, topic, partition)] = entry.header.end
                self._answer(
                    host,
                    host.life,
                    lambda instance, entry=entry: instance.deliver(topic, partition, entry),  # type: ignore[misc]
                    rows=entry.header.rows,
                )

    # --- asks and replies -------------------------------------------------------------------------

    def _send_ask(self, sender: Process, to: Address, message: AskMessage) -> None:
        host = self.hosts[(to.service, self.mesh.instance_of(to.service, to.partition))]
        if not host.alive:
            self.after(self.speeds.notice, lambda: self._notice(sender, host.name))
            return
        origin = (sender.name, sender.life)

        def arrive() -> None:
            assert host.instance is not None
            host.instance.received(origin, to.partition, message)
            self._carry_out(host)

        self.send(sender, host, arrive, rows=len(message.rows))

    def _send_reply(self, sender: Process, origin: tuple[str, int], reply: ReplyMessage) -> None:
        name, life = origin
        service, _, number = name.rpartition("/")
        process: Any = self.clients.get(name) or self.hosts[(service, int(number))]
        if not process.alive or process.life != life:
            return

        def arrive() -> None:
            machine: Any = process.instance if isinstance(process, Host) else process.caller
            machine.replied(reply)
            self._carry_out(process)

        self.send(sender, process, arrive, rows=len(reply.indexes))

    # --- runs -----------------------------------------------------------------------------------

    def call(self, name: str, requests: Requests, *, window: int = 1_000_000) -> Client:
        """Start a caller; it is done when ``client.caller.done``."""
        client = self.clients[name] = Client(name, journal=Journal.in_memory(name, requests, window))
        self._start_client(client)
        return client

    def quiet(self) -> bool:
        """Every process is up, idle, and has read all there is of what it reads."""
        log = self.broker.log
        if log is None or any(client.caller is not None and not client.caller.done for client in self.clients.values()):
            return False
        ends = {
            position_name(topic.name, partition): log.watermark(topic.name, partition)
            for topic in self.topics.values()
            for partition in range(topic.partitions)
        }
        return all(self._caught_up(host, ends) for host in self.hosts.values())

    def _caught_up(self, host: Host, ends: dict[str, int]) -> bool:
        if not host.alive or host.instance is None:
            return False
        instance = host.instance
        return all(instance.delivered.get(name) == ends[name] for name in instance.delivered) and all(
            task.idle and all(task.progress.next.get(name, 0) == ends[name] for name in task.inputs)
            for task in instance.tasks.values()
        )

    def drain(self, *, seconds: float = 600.0) -> None:
        """Advance until everything is quiet."""
        self.run_until(self.quiet, seconds=seconds)

    def history(self, callers: Iterable[str] | None = None) -> History:
        """What was seen, for the audit."""
        names = list(self.clients) if callers is None else list(callers)
        tables = [client.caller.table() for name in names if (client := self.clients[name]).caller is not None]
        views = [
            ViewDump(service, number, name, dict(view.next), view.rows())
            for (service, number), host in self.hosts.items()
            if host.instance is not None
            for name, view in host.instance.views.items()
        ]
        return History(pa.concat_tables(tables) if tables else CALLERS.empty_table(), views, self.quiet())

    def describe(self) -> str:
        """Where everybody stands, for a failed run."""
        lines = [f"broker: {'up' if self.broker.alive else 'down'}"]
        for host in self.hosts.values():
            if host.instance is None:
                lines.append(f"{host.name}: down")
                continue
            for task in host.instance.tasks.values():
                lines.append(
                    f"{task.name}: {task.phase}, epoch {task.epoch}, in flight {len(task.in_flight)}, queued "
                    f"{task.queued_rows}, commands {len(task.commands)}, held {len(task.decider.held)}, conversations "
                    f"{sorted(task.conversations.running)[:3]}, open asks {len(task.asks)}, next {task.progress.next}"
                )
        for client in self.clients.values():
            if client.caller is not None:
                lines.append(f"{client.name}: {client.caller.next} sent, {client.caller.open_requests} open")
        return "\n".join(lines)

"""One process of a service: the tasks of its partitions, and the views they share. No I/O.

It reads each partition once for all that want it, from the lowest position any of them needs; who has
had a batch already skips it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping
from typing import Any

from eventmesh.errors import DidNotHappen, PeerLost
from eventmesh.history import Dumps, ViewDump
from eventmesh.log.batch import LogBatch
from eventmesh.mesh import Mesh
from eventmesh.progress import position_name, split_position
from eventmesh.runtime.ask_policy import Guards
from eventmesh.runtime.effects import (
    Appended,
    AppendFailed,
    AskMessage,
    BrokerAnswer,
    Effect,
    Granted,
    GrantFailed,
    ReplyMessage,
    SendReply,
    Subscribe,
    Unsubscribe,
)
from eventmesh.runtime.limits import Counters, Limits
from eventmesh.runtime.snapshots import LoadSnapshot, no_snapshots, restore_view, view_fold, view_name
from eventmesh.runtime.task import Ends, Task, no_ends
from eventmesh.service import Place, Trigger
from eventmesh.views import View

VIEWS = -1  # the reader number of the views, beside the partitions of the tasks


class Instance:
    """The tasks of one instance. ``emit`` must queue effects, never carry them out inside the call."""

    def __init__(
        self,
        mesh: Mesh,
        service: str,
        number: int,
        *,
        incarnation: str,
        clock: Callable[[], int],
        emit: Callable[[Effect], None],
        limits: Limits | None = None,
        seed: int = 0,
        snapshots: LoadSnapshot = no_snapshots,
        ends: Ends = no_ends,
    ) -> None:
        self.snapshots = snapshots
        self.mesh, self.service_name, self.number, self.clock, self.emit = mesh, service, number, clock, emit
        self.limits = limits or Limits()
        self.counters = Counters()
        self.delivered: dict[str, int] = {}
        self._readers: dict[str, set[int]] = {}
        self._began = False
        application = mesh.application
        self.messages = application.DECLARED.messages
        self.topics = mesh.topics()
        self.views: dict[str, View] = {name: mesh.view(service, name) for name in mesh.services[service].views}
        trigger = application.WIRINGS[mesh.wiring].get(service, Trigger())
        owned = {topic.owner: topic for topic in self.topics.values()}
        self.topic = owned[service]
        guards = Guards(lambda kind: mesh.policy(service, kind), self.limits, self.counters)
        self.tasks: dict[int, Task] = {}
        for partition in range(self.topic.partitions):
            if mesh.instance_of(service, partition) != number:
                continue
            place = Place(service, partition, self.topics, mesh.options[service], seed, application.DECLARED)
            self.tasks[partition] = Task(
                application.SERVICES[service](place, trigger, self.views),
                self.topic,
                inputs=mesh.inputs_of(service, partition),
                messages=application.DECLARED.messages,
                owned=owned,
                allowed=mesh.asked_by(service),
                incarnation=incarnation,
                limits=self.limits,
                guards=guards,
                clock=clock,
                emit=self._emitter(partition),
                counters=self.counters,
                snapshots=snapshots,
                ends=ends,
            )

    def _emitter(self, partition: int) -> Callable[[Effect], None]:
        def emit(effect: Effect) -> None:
            if isinstance(effect, Subscribe):
                self._want(effect, partition)
            elif isinstance(effect, Unsubscribe):
                self._leave(effect, partition)
            else:
                self.emit(effect)

        return emit

    # --- reading --------------------------------------------------------------------------------

    def start(self) -> None:
        """Subscribe the views, from their newest snapshots on, then let every task ask for its epoch.

        :class:`~eventmesh.errors.PeerLost` where nobody can tell whether there are snapshots: begin again.
        """
        found = {name: self.snapshots(view_name(self.service_name, name)) for name in self.views}
        for name, view in self.views.items():
            snapshot = found[name]
            if snapshot is not None and snapshot.header.fold == view_fold(view):
                restore_view(view, snapshot, {topic: self.topics[topic].schema for topic in view.topics})
            for topic in view.topics:
                for partition in range(self.topics[topic].partitions):
                    offset = view.next.get(position_name(topic, partition), 0)
                    self._want(Subscribe(topic, partition, offset), VIEWS)
        for task in self.tasks.values():
            task.start()

    def _want(self, effect: Subscribe, reader: int) -> None:
        name = position_name(effect.topic, effect.partition)
        readers = self._readers.setdefault(name, set())
        if not readers or effect.offset < self.delivered[name]:
            self.delivered[name] = effect.offset
            self.emit(effect)
        readers.add(reader)

    def _leave(self, effect: Unsubscribe, reader: int) -> None:
        name = position_name(effect.topic, effect.partition)
        readers = self._readers.get(name, set())
        readers.discard(reader)
        if not readers:
            self.delivered.pop(name, None)
            self.emit(effect)

    def subscribe_again(self) -> None:
        """The connection to the broker is new: ask for everything from where it broke off."""
        for name, readers in self._readers.items():
            if readers:
                topic, partition = split_position(name)
                self.emit(Subscribe(topic, partition, self.delivered[name]))

    def deliver(self, topic: str, partition: int, entry: LogBatch) -> None:
        """A batch of a subscribed partition; what does not follow the last one delivered is ignored."""
        name = position_name(topic, partition)
        header = entry.header
        if name not in self.delivered or header.follows > self.delivered[name]:
            return
        self.delivered[name] = max(self.delivered[name], header.end)
        self._apply_to_views(topic, partition, entry)
        for task in self.tasks.values():
            task.deliver(name, entry)
        # Only now: a task that steps here sees this batch in every view and queue of the instance.
        for task in self.tasks.values():
            task.views_moved()
            task.step()

    def _apply_to_views(self, topic: str, partition: int, entry: LogBatch) -> None:
        for view in self.views.values():
            if topic not in view.topics:
                continue
            view.fold(topic, partition, entry)
            if entry.header.kind == "facts":
                self.counters.sample_staleness(self.clock() - entry.header.time)

    @property
    def queued_rows(self) -> int:
        """Input rows waiting in all tasks: a runtime stops reading above ``inputs_queued_rows_max``."""
        return max((task.queued_rows for task in self.tasks.values()), default=0)

    # --- asking and answering -------------------------------------------------------------------

    def received(self, origin: Any, partition: int, message: AskMessage) -> None:
        """A command or query that came in for one of our partitions."""
        task = self.tasks.get(partition)
        kind = self.messages.get(message.name)
        if task is None or kind is None or kind.service != self.service_name:
            error = DidNotHappen(f"{self.service_name}/{partition} does not answer {message.name} here")
            self.emit(SendReply(origin, ReplyMessage(message.id, range(len(message.rows)), (), True, error)))
        elif kind.kind == "query":
            task.query(origin, message)
        else:
            task.command(origin, message)

    def replied(self, reply: ReplyMessage) -> None:
        """An answer to what one of our tasks asked."""
        asker = reply.ask.partition(":")[0]
        _, partition = split_position(asker)
        self.tasks[partition].replied(reply)

    def peer_lost(self, service: str, number: int) -> None:
        """The connection to an instance of another service broke."""
        owns = any(topic.owner == service for topic in self.topics.values())
        partitions = range(self.mesh.partitions_of(service)) if owns else ()
        there = [each for each in partitions if self.mesh.instance_of(service, each) == number]
        for task in self.tasks.values():
            task.asks.lost(service, there)

    def origin_lost(self, origin: Any) -> None:
        """A caller's connection broke."""
        for task in self.tasks.values():
            task.origin_lost(origin)

    # --- the broker -----------------------------------------------------------------------------

    def broker_up(self) -> None:
        """There is a connection to the broker: begin to read, or go on from where the last one broke off.

        :class:`~eventmesh.errors.PeerLost` where it broke meanwhile: it is called again with the next one.
        """
        if self._began:
            self.subscribe_again()
        else:
            self.start()
            self._began = True

    def broker_lost(self, asked_again: Container[int] = ()) -> None:
        """A connection to the broker broke: what was asked on it may have happened.

        ``asked_again`` are the partitions that have asked on a newer one since: two grants would fence one another.
        """
        error = PeerLost("the connection to the broker broke")
        for partition, task in self.tasks.items():
            if partition in asked_again:
                continue
            if task.in_flight:
                task.append_failed(task.epoch, error)
            elif task.phase == "granting":
                task.grant_failed(error)

    def answered(self, answer: BrokerAnswer) -> None:
        """The broker's answer to a :class:`~eventmesh.runtime.effects.RequestGrant` or ``Append``."""
        task = self.tasks[answer.partition]
        match answer:
            case Granted():
                task.granted(answer.epoch, answer.end)
            case GrantFailed():
                task.grant_failed(answer.error)
            case Appended():
                task.appended(answer.epoch, answer.end)
            case AppendFailed():
                task.append_failed(answer.epoch, answer.error)

    # --- what it is like ------------------------------------------------------------------------

    def caught_up(self, ends: Mapping[str, int]) -> bool:
        """Whether it has read and decided all there is up to these ends, by ``topic/partition``, and does nothing."""
        return all(at == ends[name] for name, at in self.delivered.items()) and all(
            task.idle and all(task.progress.next.get(name, 0) == ends[name] for name in task.inputs)
            for task in self.tasks.values()
        )

    def dump(self) -> Dumps:
        """Every view as it stands, and the state of every partition that is at rest and can be written down."""
        views = [
            ViewDump(self.service_name, self.number, name, dict(view.next), view.rows())
            for name, view in self.views.items()
        ]
        return Dumps(views, [dump for task in self.tasks.values() if (dump := task.dump()) is not None])

    def tick(self, now: int) -> None:
        """Time has passed."""
        for task in self.tasks.values():
            task.tick(now)

    def next_deadline(self) -> int | None:
        """When :meth:`tick` wants to be called next."""
        deadlines = (task.next_deadline() for task in self.tasks.values())
        return min((at for at in deadlines if at is not None), default=None)

    def status(self) -> Mapping[str, Any]:
        """What ``eventmesh status`` and the lab want to know; plain JSON types."""
        return {
            "service": self.service_name,
            "instance": self.number,
            "idle": all(task.idle for task in self.tasks.values()),
            "live": all(task.phase == "live" for task in self.tasks.values()),
            "phases": {task.name: task.phase for task in self.tasks.values()},
            "epochs": {task.name: task.epoch for task in self.tasks.values()},
            "progress": {task.name: dict(task.progress.next) for task in self.tasks.values()},
            "inputs": {task.name: list(task.inputs) for task in self.tasks.values()},
            "delivered": dict(self.delivered),
            "views": {
                name: {"rows": len(view), "next": dict(view.next), "applied_time": view.applied_time}
                for name, view in self.views.items()
            },
            "timers": dict(sum((Counter(task.own.timers.counted()) for task in self.tasks.values()), Counter())),
            "next_timer_at": min(
                (at for task in self.tasks.values() if (at := task.own.timers.next_due()) is not None), default=None
            ),
            "counters": dict(self.counters.to_json()),
        }

"""A process of the mesh that is not the broker: connections, and the effects that go out on them.

:class:`ServiceMember` hosts an instance, :class:`CallerMember` a caller. Both are plain classes; the
actors around them are in :mod:`~eventmesh.runtime.on_ray.cluster`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from eventmesh.errors import EventmeshError, InputError, PeerLost
from eventmesh.history import ViewDump
from eventmesh.mesh import Mesh
from eventmesh.progress import position_name
from eventmesh.runtime.caller import Caller, Requests
from eventmesh.runtime.contract import (
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
from eventmesh.runtime.on_ray import frames
from eventmesh.runtime.on_ray.flight import Channel, Connection, Listener, Received
from eventmesh.runtime.on_ray.process import Process
from eventmesh.runtime.on_ray.reactor import Reactor, now

#: (service, instance) -> Flight address; the broker's is under ("broker", 0).
Peer = tuple[str, int]
Directory = Mapping[Peer, str]
BROKER: Peer = ("broker", 0)


class Member(Process):
    """What services and callers share: a reactor, and asks to other services."""

    def __init__(self, mesh: Mesh, name: str, rtt_ms: float) -> None:
        super().__init__()
        self.mesh, self.name = mesh, name
        self.messages = mesh.application.MESSAGES
        self.reactor = Reactor(name, int(rtt_ms * 500), self.carry_out, self.after_step)
        self.directory: Directory = {}
        self._peers: dict[Peer, Connection] = {}
        self._lock = threading.Lock()

    def carry_out(self, effects: Sequence[Effect]) -> None:
        """Do what the machine left to be done in one step; on the reactor's thread.

        What goes to one process travels in one frame.
        """
        asks: dict[Peer, list[tuple[int, AskMessage]]] = {}
        for effect in effects:
            if isinstance(effect, SendAsk):
                peer = (effect.to.service, self.mesh.instance_of(effect.to.service, effect.to.partition))
                asks.setdefault(peer, []).append((effect.to.partition, effect.message))
            else:
                self.carry_out_one(effect)
        for peer, messages in asks.items():
            self._ask(peer, messages)

    def carry_out_one(self, effect: Effect) -> None:
        """Anything but asks."""
        raise TypeError(f"{self.name} cannot carry out {effect}")

    def _ask(self, peer: Peer, messages: Sequence[tuple[int, AskMessage]]) -> None:
        try:
            connection = self._peers.get(peer) or self._connect(peer)
        except PeerLost:
            self.reactor.post(lambda: self.peer_lost(peer))
            return
        if not connection.channel.send(frames.pack_asks(messages, self.messages, now())):
            self._peers.pop(peer, None)
            self.reactor.post(lambda: self.peer_lost(peer))

    def _connect(self, peer: Peer) -> Connection:
        if peer not in self.directory:
            raise PeerLost(f"{peer[0]}/{peer[1]} is not up")
        connection = Connection(
            self.directory[peer], self.name, self._reply_received, lambda: self._connection_lost(peer)
        )
        self._peers[peer] = connection
        return connection

    def _connection_lost(self, peer: Peer) -> None:
        def forget() -> None:
            self._peers.pop(peer, None)
            self.peer_lost(peer)

        self.reactor.post(forget)

    def _reply_received(self, frame: pa.Buffer) -> None:
        header, bodies = frames.unpack(frame)
        replies = frames.unpack_replies(header, bodies, self.messages)

        def take() -> None:
            for reply in replies:
                self.replied(reply)

        self.reactor.post(take, header["sent_at"])

    def after_step(self) -> None:
        """Everything that had come in is dealt with."""

    def replied(self, reply: Any) -> None:
        """An answer arrived."""
        raise TypeError(f"{self.name} asks nothing")

    def peer_lost(self, peer: Peer) -> None:
        """A connection broke, or could not be made."""
        raise TypeError(f"{self.name} asks nothing")

    def close(self) -> None:
        """Stop the thread and end all streams."""
        self.reactor.stop()
        for connection in list(self._peers.values()):
            connection.close()


class ServiceMember(Member):
    """A service instance with its listener and its two streams to the broker."""

    def __init__(
        self,
        mesh: Mesh,
        service: str,
        number: int,
        incarnation: str,
        *,
        rtt_ms: float,
        seed: int,
        limits: Limits | None,
    ) -> None:
        super().__init__(mesh, f"{service}/{number}", rtt_ms)
        self.incarnation = incarnation
        self.instance = Instance(
            mesh,
            service,
            number,
            incarnation=incarnation,
            clock=now,
            emit=self.reactor.effects.append,
            limits=limits,
            seed=seed,
        )
        self.schemas = {name: topic.schema for name, topic in self.instance.topics.items()}
        self.exited: str | None = None
        self._room = threading.Event()
        self._room.set()
        self._writing: Connection | None = None
        self._subscribing: Connection | None = None
        self._askers: dict[int, tuple[Channel, set[str]]] = {}
        self.listener = Listener(self)

    def address(self) -> str:
        """Where it is asked."""
        return self.listener.address

    def start(self, directory: Directory) -> None:
        """Connect, take epochs, fold, go live."""
        self.directory = directory
        self._connect_to_broker()
        self.reactor.start(self.instance)
        self.reactor.post(self.instance.start)

    def _connect_to_broker(self) -> None:
        address = self.directory[BROKER]
        self._writing = Connection(address, "write", self._write_answered, self._broker_lost)
        self._subscribing = Connection(address, "subscribe", self._entries_received, self._broker_lost)

    # --- what comes in --------------------------------------------------------------------------

    def _write_answered(self, frame: pa.Buffer) -> None:
        header, _ = frames.unpack(frame)
        partition, instance = header["partition"], self.instance
        error = frames.unpack_error(header["error"]) if "error" in header else None
        answer: Callable[[], None]
        if header["kind"] == "granted":
            if error is not None:
                answer = lambda: instance.grant_failed(partition, error)  # noqa: E731
            else:
                answer = lambda: instance.granted(partition, header["epoch"], header["end"])  # noqa: E731
        elif error is not None:
            answer = lambda: instance.append_failed(partition, header["epoch"], error)  # noqa: E731
        else:
            answer = lambda: instance.appended(partition, header["epoch"], header["end"])  # noqa: E731
        self.reactor.post(answer, header["sent_at"])

    def _entries_received(self, frame: pa.Buffer) -> None:
        self._room.wait()
        header, bodies = frames.unpack(frame)
        entries = frames.unpack_entries(header, bodies, self.schemas)

        def deliver() -> None:
            for topic, partition, entry in entries:
                self.instance.deliver(topic, partition, entry)

        self.reactor.post(deliver, header["sent_at"])

    def after_step(self) -> None:
        """Stop reading while more waits than the limit allows (promise P8)."""
        if self.instance.queued_rows > self.instance.limits.inputs_queued_rows_max:
            self._room.clear()
        else:
            self._room.set()

    def _broker_lost(self) -> None:
        def lost() -> None:
            for partition, task in self.instance.tasks.items():
                error = PeerLost("the connection to the broker broke")
                if task.in_flight:
                    self.instance.append_failed(partition, task.epoch, error)
                elif task.phase == "granting":
                    self.instance.grant_failed(partition, error)

        self.reactor.post(lost)

    # --- being asked (flight.Serving) -------------------------------------------------------------

    def opened(self, purpose: str, channel: Channel) -> Received:
        """A caller or service connects; its name is the purpose."""
        names: set[str] = set()
        self._askers[id(channel)] = (channel, names)

        def received(frame: pa.Buffer) -> None:
            header, bodies = frames.unpack(frame)
            asks = frames.unpack_asks(header, bodies, self.messages)
            names.update(header["bodies"])

            def take() -> None:
                for partition, message in asks:
                    self.instance.received((id(channel), message.name), partition, message)

            self.reactor.post(take, header["sent_at"])

        return received

    def closed(self, purpose: str, channel: Channel) -> None:
        """An asker is gone."""
        _, names = self._askers.pop(id(channel))

        def lost() -> None:
            for name in names:
                self.instance.origin_lost((id(channel), name))

        self.reactor.post(lost)

    def fetch(self, ticket: bytes) -> pa.RecordBatchReader:
        """Services serve no partitions."""
        raise InputError(f"{self.name} serves no partitions: ask the broker for {ticket.decode()!r}")

    def replied(self, reply: Any) -> None:
        """An answer to one of our tasks."""
        self.instance.replied(reply)

    def peer_lost(self, peer: Peer) -> None:
        """Another service is gone."""
        self.instance.peer_lost(peer[0])

    # --- what goes out --------------------------------------------------------------------------

    def carry_out(self, effects: Sequence[Effect]) -> None:
        """Replies go back where the questions came from, in one frame each way."""
        replies: dict[int, list[tuple[str, ReplyMessage]]] = {}
        others = []
        for effect in effects:
            if isinstance(effect, SendReply):
                channel_id, name = effect.origin
                replies.setdefault(channel_id, []).append((name, effect.reply))
            else:
                others.append(effect)
        super().carry_out(others)
        for channel_id, messages in replies.items():
            if channel_id in self._askers:
                self._askers[channel_id][0].send(frames.pack_replies(messages, self.messages, now()))

    def carry_out_one(self, effect: Effect) -> None:
        """Grants, appends and subscriptions go to the broker."""
        if isinstance(effect, Append):
            self._write(frames.pack_append(self.instance.topic.name, effect.partition, effect.entry, now()))
        elif isinstance(effect, RequestGrant):
            self._request_grant(effect.partition)
        elif isinstance(effect, (Subscribe, Unsubscribe)):
            self._subscribe(effect)
        elif isinstance(effect, Exit):
            self.exited = effect.reason
        else:
            super().carry_out_one(effect)

    def _request_grant(self, partition: int) -> None:
        header = {
            "kind": "grant",
            "topic": self.instance.topic.name,
            "partition": partition,
            "service": self.instance.service_name,
            "incarnation": self.incarnation,
            "sent_at": now(),
        }
        self._write(frames.pack(header))

    def _write(self, frame: pa.Buffer) -> None:
        assert self._writing is not None
        if not self._writing.channel.send(frame):
            self._broker_lost()

    def _subscribe(self, effect: Subscribe | Unsubscribe) -> None:
        assert self._subscribing is not None
        name = position_name(effect.topic, effect.partition)
        header = {"kind": "unsubscribe", "name": name}
        if isinstance(effect, Subscribe):
            header = {"kind": "subscribe", "name": name, "offset": effect.offset}  # type: ignore[dict-item]
        self._subscribing.channel.send(frames.pack(header))

    # --- the control plane ------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """See :meth:`Instance.status`."""
        status: dict[str, Any] = dict(self.reactor.call(self.instance.status))
        return {
            **status,
            "exited": self.exited,
            "failure": repr(self.reactor.failure) if self.reactor.failure else None,
        }

    def views(self) -> list[ViewDump]:
        """Every view as it stands."""

        def dump() -> list[ViewDump]:
            instance = self.instance
            return [
                ViewDump(instance.service_name, instance.number, name, dict(view.next), view.rows())
                for name, view in instance.views.items()
            ]

        dumped: list[ViewDump] = self.reactor.call(dump)
        return dumped

    def staleness(self) -> list[int]:
        """Samples of how old what was decided on was, in microseconds, since the last call."""

        def take() -> list[int]:
            samples, self.instance.counters.staleness_us = self.instance.counters.staleness_us, []
            return samples

        taken: list[int] = self.reactor.call(take)
        return taken

    def close(self) -> None:
        """Stop, and end all streams."""
        super().close()
        self._room.set()
        for connection in (self._writing, self._subscribing):
            if connection is not None:
                connection.close()
        self.listener.shutdown()


class CallerMember(Member):
    """A source of load."""

    def __init__(self, mesh: Mesh, name: str, *, rtt_ms: float) -> None:
        super().__init__(mesh, name, rtt_ms)
        self.rtt_ms = rtt_ms
        self.owned = {topic.owner: topic for topic in mesh.topics().values()}
        self.caller: Caller | None = None
        self._done = threading.Event()

    def connect(self, directory: Directory) -> None:
        """Where everybody is."""
        self.directory = directory

    def start(self, name: str, requests: Requests, window: int) -> None:
        """Begin to send; one workload at a time, each under a name of its own."""
        if self.caller is not None:
            self.reactor.stop()
            self.reactor = Reactor(self.name, int(self.rtt_ms * 500), self.carry_out, self.after_step)
        self._done.clear()
        self.caller = Caller(
            name,
            requests,
            messages=self.messages,
            owned=self.owned,
            clock=now,
            emit=self.reactor.effects.append,
            window=window,
        )
        self.reactor.start(self.caller)
        self.reactor.post(self.caller.start)

    def replied(self, reply: Any) -> None:
        """An answer to one of our requests."""
        assert self.caller is not None
        self.caller.replied(reply)

    def peer_lost(self, peer: Peer) -> None:
        """The gateway is gone, for now."""
        assert self.caller is not None
        self.caller.peer_lost()

    def after_step(self) -> None:
        """Tell who waits for the end."""
        if self.caller is not None and self.caller.done:
            self._done.set()

    def progress(self, wait_s: float) -> dict[str, Any]:
        """How many requests were sent and have their outcome; at the end, or after ``wait_s``."""
        caller = self.caller
        assert caller is not None
        self._done.wait(wait_s)
        if self.reactor.failure is not None:
            raise EventmeshError(f"{self.name} failed: {self.reactor.failure!r}")
        return {"sent": caller.next, "open": caller.open_requests, "total": len(caller.requests), "done": caller.done}

    def table(self) -> pa.Table:
        """The history."""
        assert self.caller is not None
        return self.reactor.call(self.caller.table)

"""A service instance in a process of its own: its listener, its link to the broker, and what its tasks leave to do."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from eventmesh.errors import EventmeshError, InputError, PeerLost, ProtocolError, Throttled
from eventmesh.history import Dumps
from eventmesh.mesh import Mesh
from eventmesh.runtime.effects import (
    Append,
    AskMessage,
    BrokerAnswer,
    Effect,
    Exit,
    ReplyMessage,
    RequestGrant,
    SendReply,
    Subscribe,
    Unsubscribe,
)
from eventmesh.runtime.instance import Instance
from eventmesh.runtime.limits import Limits
from eventmesh.runtime.process import metrics
from eventmesh.runtime.process.actor_log import log
from eventmesh.runtime.process.backbone import Backbone, BrokerBackbone, Callbacks, Writer
from eventmesh.runtime.process.directory import BROKER, Directory, Peer
from eventmesh.runtime.process.intake import Intake
from eventmesh.runtime.process.member import Member
from eventmesh.runtime.process.reactor import now
from eventmesh.runtime.process.subscription import Entry
from eventmesh.runtime.snapshots import Snapshot, no_snapshots
from eventmesh.runtime.wire import frames, protocol
from eventmesh.runtime.wire.channel import Channel, Received
from eventmesh.runtime.wire.connection import Listener
from eventmesh.runtime.wire.discovery import Offer
from eventmesh.runtime.wire.protocol import FrameHeader

#: What a process exits with when a later incarnation holds its partition.
FENCED = 3


class ServiceMember(Member):
    """A service instance. With ``local`` False it goes over Flight for everything, wherever it runs."""

    def __init__(
        self,
        mesh: Mesh,
        service: str,
        number: int,
        directory: Directory,
        *,
        rtt_ms: float,
        seed: int,
        limits: Limits | None,
        local: bool,
        registries: metrics.Registries | None = None,
    ) -> None:
        super().__init__(mesh, f"{service}/{number}", directory, rtt_ms, local=local, registries=registries)
        self.incarnation = f"{self.name}.{uuid.uuid4().hex[:12]}"
        self.instance = Instance(
            mesh,
            service,
            number,
            incarnation=self.incarnation,
            clock=now,
            emit=self.reactor.effects.append,
            limits=limits,
            seed=seed,
            snapshots=self._snapshot if mesh.keeps_snapshots else no_snapshots,
            ends=lambda: self._backbone.ends(),
        )
        self.unreadable: EventmeshError | None = None
        self._delivered = Intake(self.instance.limits.inputs_queued_rows_max)
        self._asked = Intake(self.instance.limits.asks_queued_rows_max)
        self._askers: dict[int, tuple[Channel, set[str]]] = {}
        self._answered = metrics.Answered()
        self.listener = Listener(self, directory.access, self.link_faults)
        self.reactor.start(self.instance)
        self._backbone: Backbone = BrokerBackbone(
            lambda: directory.address(BROKER),
            Callbacks(
                up=self._broker_up, lost=lambda why: self._broker_lost(), answered=self._broker_answered,
                delivered=self._deliver, cannot_read=self._cannot_read,
                refused=lambda problem: self.note_refusal("broker", problem),
            ),
            topics=self.instance.topics,
            writer=Writer(self.instance.topic.name, service, self.incarnation, mesh.code),
            access=directory.access, local=local, link_faults=self.link_faults,
        )  # fmt: skip
        self._backbone.start()
        self.publish(directory.mesh, self.readings)

    def address(self) -> str:
        """Where it is asked."""
        return self.listener.address

    # --- the broker -----------------------------------------------------------------------------

    def _snapshot(self, name: str) -> Snapshot | None:
        return self._backbone.snapshot(name)

    def _broker_up(self) -> None:
        def up() -> None:
            try:
                self.instance.broker_up()
            except PeerLost as error:
                self._backbone.renew(error)  # on a new connection, again

        self.reactor.post(up)

    def _broker_lost(self) -> None:
        # Looked at when its turn has come: what was asked on the next connection by then is not concerned.
        self.reactor.post(lambda: self.instance.broker_lost(self._backbone.asked_now()))

    def _broker_answered(self, answer: BrokerAnswer, sent_at: int) -> None:
        self.reactor.post(lambda: self.instance.answered(answer), sent_at)

    def _cannot_read(self, error: EventmeshError) -> None:
        """A partition cannot be read on: that is for a human to decide, so the instance stops and says why."""

        def stop() -> None:
            raise error

        self.unreadable = error
        self.reactor.post(stop)

    # --- what comes in --------------------------------------------------------------------------

    def _deliver(self, entries: Sequence[Entry], sent_at: int) -> None:
        rows = sum(entry.header.rows for _, _, entry in entries)
        self._delivered.wait_and_enter(rows)

        def deliver() -> None:
            for topic, partition, entry in entries:
                self.instance.deliver(topic, partition, entry)
            self._delivered.leave(rows, self.instance.queued_rows)

        self.reactor.post(deliver, sent_at)

    def after_step(self) -> None:
        """Reading goes on as soon as no more waits than the limit allows (promise P8)."""
        self._delivered.queued(self.instance.queued_rows)

    # --- being asked (flight.Serving) -------------------------------------------------------------

    def opened(self, purpose: str, channel: Channel) -> Received:
        """A caller or service connects; its name is the purpose."""
        names: set[str] = set()
        self._askers[id(channel)] = (channel, names)

        def received(header: FrameHeader, bodies: Sequence[pa.Buffer]) -> None:
            if not isinstance(header, protocol.Asks):
                raise protocol.unexpected(header, protocol.Asks)
            asks = frames.unpack_asks(header, bodies, self.messages)
            names.update(header.messages)
            taken: list[tuple[int, AskMessage]] = []
            refused: list[AskMessage] = []
            for partition, message in asks:
                if self._asked.enter(len(message.rows)):
                    taken.append((partition, message))
                else:
                    refused.append(message)
            if refused:
                self._throttle(channel, refused)

            def take() -> None:
                self._asked.leave(sum(len(message.rows) for _, message in taken))
                for partition, message in taken:
                    self.instance.received((id(channel), message.name), partition, message)

            self.reactor.post(take, header.sent_at, at_once=True)

        return received

    def _throttle(self, channel: Channel, messages: Sequence[AskMessage]) -> None:
        """Refuse at the door: the reactor is too far behind to do it itself."""
        error = Throttled(f"{self.name} has {self._asked.waiting} rows of asks waiting; come back later")
        replies = [(each.name, ReplyMessage(each.id, range(len(each.rows)), (), True, error)) for each in messages]
        channel.send(frames.pack_replies(replies, self.messages, now()))

    def closed(self, purpose: str, channel: Channel, problem: ProtocolError | None) -> None:
        """An asker is gone."""
        self.note_refusal(purpose, problem)
        _, names = self._askers.pop(id(channel))

        def lost() -> None:
            for name in names:
                self.instance.origin_lost((id(channel), name))

        self.reactor.post(lost)

    def fetch(self, ticket: bytes) -> pa.RecordBatchReader:
        """Services serve no partitions."""
        raise InputError(f"{self.name} serves no partitions: ask the broker for {ticket.decode(errors='replace')!r}")

    def offers(self) -> Sequence[Offer]:
        """None."""
        return ()

    def replied(self, reply: Any) -> None:
        """An answer to one of our tasks."""
        self.instance.replied(reply)

    def peer_lost(self, peer: Peer) -> None:
        """Another service is gone."""
        self.instance.peer_lost(*peer)

    # --- what goes out --------------------------------------------------------------------------

    def carry_out(self, effects: Sequence[Effect]) -> None:
        """Replies go back where the questions came from, in one frame each way."""
        replies: dict[int, list[tuple[str, ReplyMessage]]] = {}
        others = []
        for effect in effects:
            if isinstance(effect, SendReply):
                channel_id, name = effect.origin
                replies.setdefault(channel_id, []).append((name, effect.reply))
                self._answered.count(effect.reply)
            else:
                others.append(effect)
        super().carry_out(others)
        for channel_id, messages in replies.items():
            if channel_id in self._askers:
                self._askers[channel_id][0].leave(frames.pack_replies(messages, self.messages, now()))

    def carry_out_one(self, effect: Effect) -> None:
        """Grants, appends and subscriptions go to the broker."""
        if isinstance(effect, Append):
            self._backbone.append(effect.partition, effect.entry)
        elif isinstance(effect, RequestGrant):
            self._backbone.grant(effect.partition)
        elif isinstance(effect, Subscribe):
            self._backbone.subscribe(effect.topic, effect.partition, effect.offset)
        elif isinstance(effect, Unsubscribe):
            self._backbone.unsubscribe(effect.topic, effect.partition)
        elif isinstance(effect, Exit):
            self._exit(effect.reason)
        else:
            super().carry_out_one(effect)

    def _exit(self, reason: str) -> None:
        """This incarnation ends for good (rule 6); if it is one that Ray knows, the next one is started."""
        log.warning("exit", process=self.name, incarnation=self.incarnation, reason=reason)
        os._exit(FENCED)  # at once, whatever the other threads are doing: it has no right to say anything more

    # --- the control plane ------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """See :meth:`Instance.status`."""
        status: dict[str, Any] = dict(self.reactor.call(self.instance.status))
        counters = self.instance.counters
        return {
            **status,
            "queues": {
                "delivered_rows_max": self._delivered.most,
                "asked_rows_max": self._asked.most,
                "inputs_queued_rows_max": counters.inputs_queued_rows_max,
                "commands_queued_rows_max": counters.commands_queued_rows_max,
            },
            "answered_rows": self._answered.rows,
            "throttled_rows": self._answered.throttled + self._asked.refused,
            "unreached": self._backbone.unreached,
            "pid": self.pid(),
            "incarnation": self.incarnation,
            "failure": str(self.unreadable or repr(self.reactor.failure)) if self.reactor.failure else None,
        }

    def readings(self) -> Iterable[metrics.Reading]:
        """What Prometheus is told."""
        return metrics.of_service(self.status(), self.directory.ends(), now())

    def dump(self) -> Dumps:
        """Every view and state as it stands."""
        dumped: Dumps = self.reactor.call(self.instance.dump)
        return dumped

    def caught_up(self, ends: Mapping[str, int]) -> bool:
        """See :meth:`Instance.caught_up`."""
        return bool(self.reactor.call(lambda: self.instance.caught_up(ends)))

    def staleness(self) -> list[int]:
        """Samples of how old what was decided on was, in microseconds, since the last call."""

        def take() -> list[int]:
            samples, self.instance.counters.staleness_us = self.instance.counters.staleness_us, []
            return samples

        taken: list[int] = self.reactor.call(take)
        return taken

    def close(self) -> None:
        """Stop, and end all streams."""
        self.publish_no_more()
        super().close()
        self._delivered.close()
        self._backbone.close()
        self.listener.end()

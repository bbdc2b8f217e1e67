"""A process of the mesh that is not the broker: links to others, and the effects that go out on them.

It is complete once it is made: what it needs it finds through the directory, again and again, so that Ray can start it
anew at any time. Its kinds are in :mod:`~eventmesh.runtime.process.service_member` and
:mod:`~eventmesh.runtime.process.caller_member`; the actors around them in :mod:`~eventmesh.runtime.on_ray.cluster`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from eventmesh.errors import PeerLost, ProtocolError
from eventmesh.mesh import Mesh
from eventmesh.runtime.effects import AskMessage, Effect, ReplyMessage, SendAsk
from eventmesh.runtime.process.actor_log import log
from eventmesh.runtime.process.directory import Directory, Peer, peer_name
from eventmesh.runtime.process.metrics import Registries
from eventmesh.runtime.process.reactor import Reactor, now
from eventmesh.runtime.process.vitals import Process
from eventmesh.runtime.wire import frames, protocol
from eventmesh.runtime.wire.connection import Connection
from eventmesh.runtime.wire.link import Link
from eventmesh.runtime.wire.protocol import FrameHeader

#: An ask or a reply.
Whole = TypeVar("Whole")


class Member(Process):
    """What services and callers share: a reactor, and asks to other services. With ``local`` False all of them, and all
    that comes from the broker, go over Flight, wherever the others run.
    """

    def __init__(
        self, mesh: Mesh, name: str, directory: Directory, rtt_ms: float, *,
        local: bool = True, registries: Registries | None = None,
    ) -> None:  # fmt: skip
        super().__init__(registries, name)
        self.local = local
        self.mesh, self.name, self.directory, self.rtt_ms = mesh, name, directory, rtt_ms
        self.messages = mesh.application.DECLARED.messages
        self.reactor = self.make_reactor()
        self._links: dict[Peer, Link[Connection]] = {}

    def make_reactor(self) -> Reactor:
        """A thread for a machine; a member has one at a time."""
        return Reactor(self.name, int(self.rtt_ms * 500), self.carry_out, self.after_step)

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
            if self.link_faults.on_asks:
                messages = self._spared(self.name, peer_name(peer), messages, partial(self._ask_late, peer))
            if messages:
                self._ask(peer, messages)

    def _ask(self, peer: Peer, messages: Sequence[tuple[int, AskMessage]]) -> None:
        link = self._links.get(peer) or self._link(peer)
        if not link.send(frames.pack_asks(messages, self.messages, now())):
            self._lost(peer)

    def _ask_late(self, peer: Peer, messages: Sequence[tuple[int, AskMessage]]) -> None:
        self.reactor.post(lambda: self._ask(peer, messages))

    def _spared(
        self, sender: str, to: str, messages: Sequence[Whole], late: Callable[[list[Whole]], None]
    ) -> list[Whole]:
        """Those that go on now; by the faults in force others are ``late``, or lost, or go on once more."""
        at_once = []
        for message in messages:
            for wait_s in self.link_faults.of_whole(sender, to):
                if wait_s:
                    self.strikes.later(wait_s, partial(late, [message]))
                else:
                    at_once.append(message)
        return at_once

    def carry_out_one(self, effect: Effect) -> None:
        """Anything but asks."""
        raise TypeError(f"{self.name} cannot carry out {effect}")

    def _link(self, peer: Peer) -> Link[Connection]:
        def connect(lost: Callable[[PeerLost], None]) -> Connection:
            address = self.directory.address(peer)
            access = self.directory.access
            return Connection(
                address, self.name, partial(self._reply_received, peer_name(peer)), lost, access, local=self.local,
                link_faults=self.link_faults, peer=peer_name(peer),
            )  # fmt: skip

        link = self._links[peer] = Link(
            peer_name(peer), connect, up=lambda connection: None, down=lambda why: self._lost(peer),
            refused=lambda problem: self.note_refusal(peer_name(peer), problem),
        )  # fmt: skip
        link.start()
        return link

    def _lost(self, peer: Peer) -> None:
        self.reactor.post(lambda: self.peer_lost(peer))

    def note_refusal(self, peer: str, problem: ProtocolError | None) -> None:
        """Tell the process's log of a stream that ended since one side could not take what the other sent."""
        if problem is not None:
            log.error("stream refused", process=self.name, peer=peer, problem=str(problem))

    def _reply_received(self, peer: str, header: FrameHeader, bodies: Sequence[pa.Buffer]) -> None:
        if not isinstance(header, protocol.Replies):
            raise protocol.unexpected(header, protocol.Replies)
        replies = frames.unpack_replies(header, bodies, self.messages)
        if self.link_faults.on_asks:
            replies = self._spared(peer, self.name, replies, partial(self._take, header.sent_at))
        if replies:
            self._take(header.sent_at, replies)

    def _take(self, sent_at: int, replies: Sequence[ReplyMessage]) -> None:
        def take() -> None:
            for reply in replies:
                self.replied(reply)

        self.reactor.post(take, sent_at, at_once=True)

    def after_step(self) -> None:
        """Everything that had come in is dealt with."""

    def replied(self, reply: Any) -> None:
        """An answer arrived."""
        raise TypeError(f"{self.name} asks nothing")

    def peer_lost(self, peer: Peer) -> None:
        """A link broke, or could not be made: what was asked there may have happened."""
        raise TypeError(f"{self.name} asks nothing")

    def close(self) -> None:
        """Stop the thread and end all streams; no fault holds that up."""
        self.heal()
        self.reactor.stop()
        for link in list(self._links.values()):
            link.close()

"""A source of load in a process of its own."""

from __future__ import annotations

import threading
from typing import Any

import pyarrow as pa

from eventmesh.errors import EventmeshError
from eventmesh.mesh import Mesh
from eventmesh.runtime.caller import Caller, Requests
from eventmesh.runtime.on_ray.directory import GENERATOR, Directory, Peer, actor_name
from eventmesh.runtime.on_ray.member import Member
from eventmesh.runtime.on_ray.reactor import now


class CallerMember(Member):
    """A source of load."""

    def __init__(self, mesh: Mesh, directory: Directory, *, rtt_ms: float) -> None:
        super().__init__(mesh, actor_name(GENERATOR), directory, rtt_ms)
        self.owned = {topic.owner: topic for topic in mesh.topics().values()}
        self.caller: Caller | None = None
        self._done = threading.Event()

    def start(self, name: str, requests: Requests, window: int) -> None:
        """Begin to send; one workload at a time, each under a name of its own."""
        if self.caller is not None:
            self.reactor.stop()
            self.reactor = self.make_reactor()
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

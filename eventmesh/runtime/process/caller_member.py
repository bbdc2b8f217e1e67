"""A source of load in a process of its own. What it asks and was told is in a journal: its death loses nothing."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa

from eventmesh.errors import EventmeshError
from eventmesh.mesh import Mesh
from eventmesh.runtime.caller import Caller
from eventmesh.runtime.journal import Journal
from eventmesh.runtime.process.directory import GENERATOR, Directory, Peer, peer_name
from eventmesh.runtime.process.member import Member
from eventmesh.runtime.process.reactor import now
from eventmesh.workload import Requests


class CallerMember(Member):
    """A source of load. ``folder`` holds the journal of one workload at a time; one that lies there is gone on with."""

    def __init__(self, mesh: Mesh, directory: Directory, folder: Path, *, rtt_ms: float, seed: int) -> None:
        super().__init__(mesh, peer_name(GENERATOR), directory, rtt_ms)
        self.owned = {topic.owner: topic for topic in mesh.topics().values()}
        self.folder, self.seed = folder, seed
        self.caller: Caller | None = None
        self._done = threading.Event()
        for journal in self._journals():
            self._begin(journal)

    def _journals(self) -> list[Journal]:
        found = [Journal.open(path) for path in sorted(self.folder.glob("*"))]
        return [journal for journal in found if journal is not None]

    def start(self, name: str, requests: Requests, window: int) -> None:
        """Begin to send; one workload at a time, each under a name of its own. To say it twice changes nothing."""
        if self.caller is not None:
            if self.caller.name == name:
                return
            self.reactor.stop()
            self.reactor = self.make_reactor()
            self.caller.journal.close()
            self.caller = None
        shutil.rmtree(self.folder, ignore_errors=True)
        self._done.clear()
        self._begin(Journal.create(self.folder / name, name, requests, window))

    def _begin(self, journal: Journal) -> None:
        self.caller = caller = Caller(
            journal.name, journal.requests, messages=self.messages, owned=self.owned, clock=now,
            emit=self.reactor.effects.append, journal=journal, seed=self.seed,
        )  # fmt: skip
        self.reactor.start(caller)
        self.reactor.post(caller.resume)

    def replied(self, reply: Any) -> None:
        """An answer to one of our requests."""
        assert self.caller is not None
        self.caller.replied(reply)

    def peer_lost(self, peer: Peer) -> None:
        """The service that is asked is gone, for now."""
        assert self.caller is not None
        self.caller.peer_lost()

    def after_step(self) -> None:
        """Tell who waits for the end."""
        if self.caller is not None and self.caller.done:
            self._done.set()

    def begun(self) -> str | None:
        """The name of the workload that it has, finished or not; None where it has none."""
        return self.caller.name if self.caller is not None else None

    def progress(self, wait_s: float) -> dict[str, Any]:
        """How many requests were sent and have their outcome; at the end, or after ``wait_s``."""
        caller = self.caller
        assert caller is not None
        self._done.wait(wait_s)
        if self.reactor.failure is not None:
            raise EventmeshError(f"{self.name} failed: {self.reactor.failure!r}")
        return {"sent": caller.next, "open": caller.open_requests, "total": len(caller.requests), "done": caller.done}

    def give_up(self) -> None:
        """See :meth:`Caller.give_up`."""
        assert self.caller is not None
        self.reactor.call(self.caller.give_up)

    def table(self) -> pa.Table:
        """The history."""
        assert self.caller is not None
        return self.reactor.call(self.caller.table)

    def close(self) -> None:
        """Stop. The journal stays: whoever starts here again goes on with it."""
        super().close()
        if self.caller is not None:
            self.caller.journal.close()

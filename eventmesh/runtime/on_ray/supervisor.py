"""Keeps the processes of a mesh alive: who does not answer within its lease is killed, and Ray starts it again.

Ray itself sees when a process has died and starts it anew; a process that is stopped, or hangs, it takes for alive.
So each process is asked who it is again and again, on a thread of its own that long calls do not hold up.
A mesh that lives as long as a command has its supervisor there; one that stays has it in an actor, which also keeps
the list of what puts the mesh right again after a fault.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray

from eventmesh.errors import PeerLost
from eventmesh.runtime.on_ray import strikes
from eventmesh.runtime.on_ray.directory import RayDirectory
from eventmesh.runtime.process.actor_log import log
from eventmesh.runtime.process.directory import Peer, peer_name
from eventmesh.runtime.process.undos import Undo, Undos, send
from eventmesh.runtime.process.vitals import Process, numbered_by

#: Seconds without an answer after which a process is given up. Two busy cores delay an answer by tenths of a second.
LEASE_S = 5.0
#: Looks per lease: a stopped process is noticed within a lease and a fraction.
LOOKS = 10


@dataclass
class Watched:
    """What is known of one process: the question that it owes an answer to, and who answered last.

    ``process`` is that one where its number holds here.
    """

    actor: Any
    asked: Any = None
    asked_at: float = 0.0
    identity: tuple[str, int] | None = None
    process: psutil.Process | None = None
    lives: int = 0  # how many processes have answered under this name
    owes: bool = False  # it has answered before, if only to the supervisor before this one

    @property
    def silent_s(self) -> float:
        """Seconds since it was asked what it has not answered yet."""
        return 0.0 if self.asked is None else time.monotonic() - self.asked_at

    def is_gone(self) -> None:
        """It died, or was killed: whoever answers next is another one."""
        self.asked, self.identity, self.process, self.owes = None, None, None, False

    def answered(self, identity: tuple[str, int]) -> None:
        """It answered."""
        if self.identity != identity:
            where, pid = identity
            self.process = psutil.Process(pid) if where == numbered_by() else None
            self.lives += 1
            self.owes = True
            self.identity = identity  # last: who sees another process sees that it was started again


class Supervisor:
    """Watches ``actors`` until :meth:`close`. ``follows`` another one, which they had answered.

    ``beside`` is called whenever it has looked at all of them.
    """

    def __init__(
        self, actors: Mapping[Peer, Any], *,
        lease_s: float = LEASE_S, follows: bool = False, beside: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        self.lease_s, self._beside = lease_s, beside
        self._watched = {peer: Watched(actor, owes=follows) for peer, actor in actors.items()}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._thread.start()

    def pids(self) -> dict[Peer, int | None]:
        """The process of each, as it answered last; None while none has."""
        return {peer: each.identity[1] if each.identity else None for peer, each in self._watched.items()}

    def restarts(self) -> dict[Peer, int]:
        """How often each has been started again."""
        return {peer: max(0, each.lives - 1) for peer, each in self._watched.items()}

    def end(self, timeout_s: float) -> None:
        """Every process is told to end: kill those that do not within ``timeout_s``, such as stopped ones."""
        processes = [each.process for each in self._watched.values() if each.process is not None]
        _, alive = psutil.wait_procs(processes, timeout=timeout_s)
        for process in alive:
            send(process, signal.SIGKILL)  # a stopped one dies of this, too

    def _watch(self) -> None:
        while not self._closing.wait(self.lease_s / LOOKS):
            for peer, each in self._watched.items():
                self._look(peer, each)
            self._beside()

    def _look(self, peer: Peer, each: Watched) -> None:
        if each.asked is None:
            each.asked = each.actor.identity.options(concurrency_group="lease").remote()
            each.asked_at = time.monotonic()
            return
        answered, _ = ray.wait([each.asked], timeout=0)
        if answered:
            self._answered(each)
        elif each.owes and each.silent_s > self.lease_s:
            # Only one that has answered before: a process that is still starting owes nothing yet.
            log.warning("lease expired", process=peer_name(peer), identity=each.identity, lease_s=self.lease_s)
            self._give_up(each)

    def _answered(self, each: Watched) -> None:
        asked, each.asked = each.asked, None
        try:
            each.answered(ray.get(asked, timeout=self.lease_s))
        except (ray.exceptions.RayError, psutil.NoSuchProcess):
            each.is_gone()  # Ray starts it again

    def _give_up(self, each: Watched) -> None:
        if each.process is not None:
            send(each.process, signal.SIGKILL)
        else:
            ray.kill(each.actor, no_restart=False)  # nobody knows its number here: Ray's own way, which takes 5 s
        each.is_gone()

    def close(self) -> None:
        """Watch no longer."""
        self._closing.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5)


def _found(directory: RayDirectory, peer: Peer) -> Any:
    """None where it is gone for good: it found other files of its application than were checked."""
    try:
        return directory.actor(peer)
    except PeerLost:
        return None


class SupervisorProcess(Process):
    """The supervisor of a mesh that stays: it finds the processes by their names, whichever of them Ray made anew."""

    def __init__(
        self, directory: RayDirectory, peers: Sequence[Peer], lease_s: float = LEASE_S, *, undos: Path
    ) -> None:  # fmt: skip
        super().__init__()
        actors = {peer: actor for peer in peers if (actor := _found(directory, peer)) is not None}
        follows = ray.get_runtime_context().was_current_actor_reconstructed
        self._undos = Undos(undos, lambda: strikes.heal(actors))
        self._supervisor = Supervisor(actors, lease_s=lease_s, follows=follows, beside=self._undos.look)

    def note(self, fault: str, runner: str, undo: Undo) -> None:
        """See :meth:`Undos.note <eventmesh.runtime.process.undos.Undos.note>`."""
        self._undos.note(fault, runner, undo)

    def renew(self, runner: str) -> None:
        """See :meth:`Undos.renew <eventmesh.runtime.process.undos.Undos.renew>`."""
        self._undos.renew(runner)

    def forget(self, fault: str) -> None:
        """See :meth:`Undos.forget <eventmesh.runtime.process.undos.Undos.forget>`."""
        self._undos.forget(fault)

    def undo(self) -> list[str]:
        """See :meth:`Undos.carry_out <eventmesh.runtime.process.undos.Undos.carry_out>`."""
        return self._undos.carry_out()

    def watched(self) -> dict[Peer, dict[str, Any]]:
        """Of each process ``pid``, and ``restarts`` since this supervisor began."""
        pids, restarts = self._supervisor.pids(), self._supervisor.restarts()
        return {peer: {"pid": pids[peer], "restarts": restarts[peer]} for peer in pids}

    def close(self) -> None:
        """Watch no longer: the mesh is being ended."""
        self._supervisor.close()

    def end(self, timeout_s: float) -> None:
        """See :meth:`Supervisor.end`."""
        self._supervisor.end(timeout_s)

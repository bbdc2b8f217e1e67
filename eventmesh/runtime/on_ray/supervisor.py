"""Keeps the processes of a mesh alive: who does not answer within its lease is killed, and Ray starts it again.

Ray itself sees when a process has died and starts it anew; a process that is stopped, or hangs, it takes for alive.
So each process is asked for its number again and again, on a thread of its own that long calls do not hold up.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import ray
import structlog

from eventmesh.runtime.on_ray.directory import Peer, actor_name

log = structlog.get_logger()

#: Seconds without an answer after which a process is given up. Two busy cores delay an answer by tenths of a second.
LEASE_S = 5.0
#: Looks per lease: a stopped process is noticed within a lease and a fraction.
LOOKS = 10


@dataclass
class Watched:
    """What is known of one process: the question that it owes an answer to, and the process that answered last."""

    actor: Any
    asked: Any = None
    asked_at: float = 0.0
    process: psutil.Process | None = None
    lives: int = 0  # how many processes have answered under this name


class Supervisor:
    """Watches ``actors`` until :meth:`close`. ``kill`` ends a process that is given up: on this machine by default."""

    def __init__(
        self,
        actors: Mapping[Peer, Any],
        *,
        lease_s: float = LEASE_S,
        kill: Callable[[psutil.Process], None] | None = None,
    ) -> None:
        self.lease_s = lease_s
        self._watched = {peer: Watched(actor) for peer, actor in actors.items()}
        self._kill = kill or _kill
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._thread.start()

    def pids(self) -> dict[Peer, int | None]:
        """The process of each, as it answered last; None while none has."""
        return {peer: each.process.pid if each.process else None for peer, each in self._watched.items()}

    def restarts(self) -> dict[Peer, int]:
        """How often each has been started again."""
        return {peer: max(0, each.lives - 1) for peer, each in self._watched.items()}

    def end(self, timeout_s: float) -> None:
        """Every process is told to end: kill those that do not within ``timeout_s``, such as stopped ones."""
        processes = [each.process for each in self._watched.values() if each.process is not None]
        _, alive = psutil.wait_procs(processes, timeout=timeout_s)
        for process in alive:
            self._kill(process)

    def _watch(self) -> None:
        while not self._closing.wait(self.lease_s / LOOKS):
            for peer, each in self._watched.items():
                self._look(peer, each)

    def _look(self, peer: Peer, each: Watched) -> None:
        if each.asked is None:
            each.asked = each.actor.pid.options(concurrency_group="lease").remote()
            each.asked_at = time.monotonic()
            return
        answered, _ = ray.wait([each.asked], timeout=0)
        if answered:
            self._answered(each)
        elif each.process is not None and time.monotonic() - each.asked_at > self.lease_s:
            # Only one that has answered before: a process that is still starting owes nothing yet.
            log.warning("lease expired", process=actor_name(peer), pid=each.process.pid, lease_s=self.lease_s)
            self._kill(each.process)
            each.process, each.asked = None, None

    def _answered(self, each: Watched) -> None:
        asked, each.asked = each.asked, None
        try:
            pid = ray.get(asked, timeout=self.lease_s)
            if each.process is None or each.process.pid != pid:
                each.process = psutil.Process(pid)
                each.lives += 1
        except (ray.exceptions.RayError, psutil.NoSuchProcess):
            each.process = None  # it died: Ray starts it again

    def close(self) -> None:
        """Watch no longer."""
        self._closing.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5)


def _kill(process: psutil.Process) -> None:
    """End it whatever it is doing; a stopped process dies of this, too."""
    try:
        if process.is_running():  # and is the same: a number may have been given to another one meanwhile
            os.kill(process.pid, signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        log.info("gone already", pid=process.pid)

"""Ray's own restart of an actor that does nothing: what any recovery on Ray takes at least."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import psutil
import ray

from eventmesh.errors import EnvironmentUnavailable


class BareActor:
    """Says which process it is, and nothing else."""

    def pid(self) -> int:
        """The process's number."""
        return os.getpid()


def start(count: int, timeout_s: float = 60.0) -> None:
    """Start so many bare actors, and wait until all have answered. Ray must be up; they end with it."""
    declare: Any = ray.remote
    actors = [declare(num_cpus=0)(BareActor).remote() for _ in range(count)]
    ray.get([actor.pid.remote() for actor in actors], timeout=timeout_s)


def restart_s(timeout_s: float = 60.0) -> float:
    """Seconds from ``kill -9`` of a bare actor until a call of it is answered by its next process. Ray must be up.

    :class:`~eventmesh.errors.EnvironmentUnavailable` if none answers within ``timeout_s``.
    """
    declare: Any = ray.remote
    actor = declare(num_cpus=0, max_restarts=-1)(BareActor).remote()
    try:
        process = psutil.Process(ray.get(actor.pid.remote(), timeout=timeout_s))
        begun = time.monotonic()
        os.kill(process.pid, signal.SIGKILL)
        psutil.wait_procs([process], timeout=timeout_s)
        _answered(actor, begun + timeout_s)
        return time.monotonic() - begun
    except ray.exceptions.GetTimeoutError as error:
        raise EnvironmentUnavailable(
            f"Ray did not start a bare actor within {timeout_s:g} s: the machine is too busy, or short of memory. Try "
            f"again when it is idle"
        ) from error
    finally:
        ray.kill(actor)


def _answered(actor: Any, deadline: float) -> None:
    """Ask until it answers; Ray refuses calls while the process is being started again."""
    while True:
        try:
            ray.get(actor.pid.remote(), timeout=max(0.0, deadline - time.monotonic()))
        except ray.exceptions.ActorUnavailableError:
            continue
        return

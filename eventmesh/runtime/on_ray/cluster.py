"""The control plane: an embedded Ray, and a mesh on it from start to drain to stop."""

from __future__ import annotations

import logging
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from eventmesh.errors import EnvironmentUnavailable, EventmeshError
from eventmesh.history import History
from eventmesh.log.partition import Durability
from eventmesh.mesh import Mesh
from eventmesh.runtime.contract import Limits
from eventmesh.runtime.on_ray.broker import Broker
from eventmesh.runtime.on_ray.caller_member import CallerMember
from eventmesh.runtime.on_ray.directory import BROKER, GENERATOR, Directory, Peer, actor_name
from eventmesh.runtime.on_ray.service_member import ServiceMember
from eventmesh.runtime.on_ray.supervisor import LEASE_S, Supervisor
from eventmesh.runtime.requests import Requests

#: Seconds that a call of the control plane may take; starting a process on a busy machine is the slowest.
CALL_TIMEOUT_S = 60.0
POLL_S = 0.02
#: Seconds that processes have to close in an orderly way.
CLOSING_S = 10.0
#: Seconds that Ray has to end what it was told to kill.
ENDING_S = 3.0
#: Seconds between two looks at how far a load has come.
PROGRESS_S = 0.5
OBJECT_STORE_BYTES = 100 << 20
#: Ray starts this many worker processes at once, ahead of the actors that will live in them: a broker,
#: seven services and a generator.
PROCESSES = 9


@contextmanager
def embedded_ray() -> Iterator[None]:
    """A Ray of our own on this machine, gone at the end; :class:`EnvironmentUnavailable` if it does not start.

    Its folder, with its sockets and its processes' logs, goes with it.
    """
    with tempfile.TemporaryDirectory(prefix="eventmesh-", ignore_cleanup_errors=True) as folder:
        _start_ray(folder)
        try:
            yield
        finally:
            ray.shutdown()


def _start_ray(folder: str) -> None:
    try:
        ray.init(
            address="local",
            num_cpus=PROCESSES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            object_store_memory=OBJECT_STORE_BYTES,
            namespace="eventmesh",
            _temp_dir=folder,
        )
    except (RuntimeError, OSError, ConnectionError, ValueError) as error:
        raise EnvironmentUnavailable(f"Ray did not start on this machine: {error}") from error


def _actor(kind: type, peer: Peer, namespace: str, *, restarts: bool) -> Any:
    """Ray's actor class of a plain class. No CPU is reserved: the machine's cores are shared by choice.

    A process that has died is started again by Ray, from its constructor; calls are never repeated.
    """
    declare: Any = ray.remote  # its declaration does not know of concurrency groups
    return declare(num_cpus=0, concurrency_groups={"lease": 1})(kind).options(
        name=actor_name(peer), namespace=namespace, max_restarts=-1 if restarts else 0
    )


@dataclass
class Roles:
    """What each role of the mesh has used: CPU seconds, private megabytes, and bytes appended by all."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)
    bytes_appended: int = 0


@dataclass(frozen=True)
class Measured:
    """What one load did to a mesh: the callers' history, what each role used, samples of staleness in us.

    ``seconds`` is from the first intended time to the last outcome.
    """

    callers: pa.Table
    cpu_s: Mapping[str, float]
    memory_mb: Mapping[str, float]
    bytes_moved: int
    staleness_us: list[int]
    seconds: float


class MeshOnRay:
    """A running mesh. Use as a context manager: leaving it ends every process of it.

    ``directory`` holds the log; at level ``memory`` it is written there when :meth:`history` is asked for.
    """

    def __init__(
        self,
        mesh: Mesh,
        directory: Path,
        *,
        rtt_ms: float = 0.0,
        seed: int = 0,
        limits: Limits | None = None,
        local: bool = True,
        lease_s: float = LEASE_S,
    ) -> None:
        self.mesh, self.rtt_ms, self.seed = mesh, rtt_ms, seed
        self.log_directory = directory
        namespace = f"eventmesh-{uuid.uuid4().hex[:12]}"
        self.directory = Directory(namespace)
        # A log in memory dies with its process: another one in its place would have lost what was acknowledged.
        kept = mesh.log.durability != Durability.memory
        self.broker = _actor(Broker, BROKER, namespace, restarts=kept).remote(
            mesh.topics(), directory, mesh.log.durability, uuid.uuid4().hex, int(rtt_ms * 500)
        )
        self.services: dict[Peer, Any] = {
            (service, number): _actor(ServiceMember, (service, number), namespace, restarts=True).remote(
                mesh, service, number, self.directory, rtt_ms=rtt_ms, seed=seed, limits=limits, local=local
            )
            for service, section in mesh.services.items()
            for number in range(section.instances)
        }
        self.generator = _actor(CallerMember, GENERATOR, namespace, restarts=True).remote(
            mesh, self.directory, directory.with_name("generator"), rtt_ms=rtt_ms, seed=seed
        )
        actors = {BROKER: self.broker, **self.services, GENERATOR: self.generator}
        self.supervisor = Supervisor(actors, lease_s=lease_s)
        self._baseline = Roles()

    def __enter__(self) -> MeshOnRay:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> None:
        self._wait(self.live, "every service to go live")

    def live(self) -> bool:
        """Whether every service decides."""
        return all(status["live"] for status in self.statuses())

    # --- running --------------------------------------------------------------------------------

    def call(
        self,
        name: str,
        requests: Requests,
        *,
        window: int = 1_000_000,
        progress: Callable[[Mapping[str, Any]], None] | None = None,
        timeout_s: float = 600.0,
    ) -> Any:
        """Run one source of load to its end; returns its history table."""
        caller = self.generator
        self._eventually(lambda: caller.start.remote(name, requests, window), f"{name} to begin")

        def done() -> bool:
            state = _get(caller.progress.remote(PROGRESS_S))
            self.check()
            if progress is not None:
                progress(state)
            return bool(state["done"])

        self._wait(done, f"{name} to have every outcome", timeout_s)
        return self._eventually(caller.table.remote, f"the history of {name}")

    def seed_with(
        self, stages: Sequence[Requests], progress: Callable[[str, Mapping[str, Any]], None] | None = None
    ) -> None:
        """Run the seeding, stage by stage and each to its end, and drain; ``progress`` is told the stage's command."""
        for number, stage in enumerate(stages):
            told = partial(progress, stage.commands[0]) if progress is not None else None
            self.call(f"seeding-{number}", stage, progress=told)
        self.drain()

    def measure(
        self,
        name: str,
        requests: Requests,
        *,
        window: int = 1_000_000,
        progress: Callable[[Mapping[str, Any]], None] | None = None,
        timeout_s: float = 600.0,
    ) -> Measured:
        """Run a load to its end and drain; what it did, and what every role used for it."""
        self.mark()
        self.staleness()
        callers = self.call(name, requests, window=window, progress=progress, timeout_s=timeout_s)
        self.drain()
        used = self.usage()
        seconds = (pc.max(callers["completed_at"]).as_py() - pc.min(callers["intended_at"]).as_py()) / 1e6
        return Measured(callers, used.cpu_s, used.memory_mb, used.bytes_appended, self.staleness(), seconds)

    def drain(self, timeout_s: float = 120.0) -> None:
        """Wait until every service has read and decided all there is."""
        self._wait(self.quiet, "the mesh to be quiet", timeout_s)

    def quiet(self) -> bool:
        """Whether every service is idle at the end of all it reads."""
        before = _get(self.broker.ends.remote())
        statuses = self.statuses()
        if before != _get(self.broker.ends.remote()):
            return False
        return all(
            status["idle"]
            and all(before[name] == at for name, at in status["delivered"].items())
            and all(
                before[name] == progress.get(name, 0)
                for partition, progress in status["progress"].items()
                for name in status["inputs"][partition]
            )
            for status in statuses
        )

    def check(self) -> None:
        """Raise what ended a process of the mesh, or stopped its log."""
        _get(self.broker.ends.remote())
        self.statuses()

    def statuses(self) -> list[dict[str, Any]]:
        """Of every service instance."""
        statuses: list[dict[str, Any]] = _get([service.status.remote() for service in self.services.values()])
        for status in statuses:
            if status["failure"]:
                raise EventmeshError(f"{status['service']}/{status['instance']}: {status['failure']}")
        return statuses

    def history(self, callers: Any) -> History:
        """What was seen, for the audit, which finds the log in its directory."""
        _get(self.broker.save.remote(self.log_directory))
        views = _get([service.views.remote() for service in self.services.values()])
        return History(callers, [dump for dumps in views for dump in dumps], self.quiet())

    def _wait(self, done: Callable[[], bool], what: str, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Until ``done``; a process that is being started again only makes it take longer."""
        deadline, reason = time.monotonic() + timeout_s, ""
        while True:
            try:
                if done():
                    return
            except ProcessDown as error:
                reason = f": {error}"
            if time.monotonic() > deadline:
                raise EnvironmentUnavailable(f"waited {timeout_s:g} s for {what}{reason}\n{self._positions()}")
            time.sleep(POLL_S)

    def _eventually(self, call: Callable[[], Any], what: str) -> Any:
        """What a call that is harmless to repeat returns; made again while the process is being started again."""
        answer: list[Any] = []

        def ask() -> bool:
            answer[:] = [_get(call())]
            return True

        self._wait(ask, what)
        return answer[0]

    def _positions(self) -> str:
        lines = []
        for (service, number), actor in self.services.items():
            try:
                lines.append(f"{service}/{number}: {_get(actor.status.remote())}")
            except EnvironmentUnavailable as error:
                lines.append(f"{service}/{number}: {error}")
        return "\n".join(lines)

    # --- what it used ---------------------------------------------------------------------------

    def usage(self) -> Roles:
        """CPU and memory by role since the last :meth:`mark`."""
        used = self._usage_now()
        before = self._baseline
        return Roles(
            # A process that was started again counts from its own beginning.
            {role: max(0.0, value - before.cpu_s.get(role, 0.0)) for role, value in used.cpu_s.items()},
            used.memory_mb,
            used.bytes_appended - before.bytes_appended,
        )

    def staleness(self) -> list[int]:
        """Samples since the last call of how old the views were that decisions were made on, in microseconds."""
        samples = _get([service.staleness.remote() for service in self.services.values()])
        return [sample for each in samples for sample in each]

    def mark(self) -> None:
        """Count CPU from now on."""
        self._baseline = self._usage_now()

    def _usage_now(self) -> Roles:
        services = ((service, actor) for (service, _), actor in self.services.items())
        actors = [("broker", self.broker), *services, ("generator", self.generator)]
        roles = Roles()
        for (role, _), used in zip(actors, _get([actor.usage.remote() for _, actor in actors]), strict=True):
            roles.cpu_s[role] = roles.cpu_s.get(role, 0.0) + used["cpu_s"]
            roles.memory_mb[role] = roles.memory_mb.get(role, 0.0) + used["private_mb"]
        roles.bytes_appended = sum(status["counters"]["bytes_appended"] for status in self.statuses())
        return roles

    def pids(self) -> list[int]:
        """The processes of this mesh."""
        found: list[int] = _get([actor.pid.remote() for actor in [self.broker, *self.services.values()]])
        return found

    # --- the end --------------------------------------------------------------------------------

    def stop(self) -> None:
        """End every process: asked to first, then killed, also those that are stopped."""
        self.supervisor.close()
        actors = [self.generator, *self.services.values(), self.broker]
        closing = [actor.close.remote() for actor in actors]
        ray.wait(closing, num_returns=len(closing), timeout=CLOSING_S)
        for actor in actors:
            ray.kill(actor)
        self.supervisor.end(ENDING_S)


class ProcessDown(EnvironmentUnavailable):
    """A process of the mesh has died; Ray is starting it again."""


def _get(what: Any) -> Any:
    try:
        return ray.get(what, timeout=CALL_TIMEOUT_S)
    except ray.exceptions.RayTaskError as error:
        cause: Exception = error.as_instanceof_cause()  # type: ignore[no-untyped-call]
        if isinstance(error.cause, EventmeshError):
            raise error.cause from None
        raise cause from None
    except ray.exceptions.ActorUnavailableError as error:
        raise ProcessDown(f"a process of the mesh is being started again: {error}") from error
    except ray.exceptions.RayActorError as error:
        raise EnvironmentUnavailable(f"a process of the mesh died: {error}") from error
    except ray.exceptions.GetTimeoutError as error:
        raise EnvironmentUnavailable(f"a process of the mesh did not answer within {CALL_TIMEOUT_S:g} s") from error

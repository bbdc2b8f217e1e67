"""A mesh that runs on Ray, whoever started it: load, wait, and what the audit wants to know."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from eventmesh.errors import EventmeshError
from eventmesh.history import Dumps, History
from eventmesh.mesh import Mesh
from eventmesh.runtime.faults import Fault, FixedMoment, Struck
from eventmesh.runtime.on_ray.actors import Actors
from eventmesh.runtime.on_ray.calls import CALL_TIMEOUT_S, answered, eventually, get, wait_until
from eventmesh.runtime.on_ray.strikes import KeepsUndos, Strikes
from eventmesh.runtime.process.directory import peer_name
from eventmesh.runtime.process.moments import Moments
from eventmesh.runtime.process.reactor import now
from eventmesh.runtime.running import AskMarks, Progress, Standstill, Usage, timer_is_due
from eventmesh.runtime.waiting import NO_LOG, explained
from eventmesh.workload import Requests

#: Seconds between two looks at how far a load has come.
PROGRESS_S = 0.5
#: Seconds that all services together have to say why they are not ready.
EXPLAINING_S = 5.0


class RayMesh:
    """The processes of ``mesh``, whose log lies in ``log_directory``.

    See :class:`~eventmesh.runtime.running.RunningMesh`.
    """

    virtual = False

    def __init__(
        self, mesh: Mesh, actors: Actors, log_directory: Path, undos: KeepsUndos | None = None
    ) -> None:  # fmt: skip
        self.mesh, self.actors, self.log_directory = mesh, actors, log_directory
        self.strikes = Strikes(mesh, actors, undos)
        self.moments = Moments(log_directory)
        self._baseline = Usage()
        self._ask_marks = AskMarks()

    def wait_until_live(self) -> None:
        """Until every service decides."""
        self._until(self.live, "every service to go live")

    def live(self) -> bool:
        """Whether every service decides."""
        return all(status["live"] for status in self.statuses())

    def _until(self, done: Callable[[], bool], what: str, timeout_s: float = CALL_TIMEOUT_S) -> None:
        wait_until(done, what, timeout_s, explain=self._explained)

    # --- faults ---------------------------------------------------------------------------------

    def strike(self, fault: Fault) -> Struck:
        """Do it now; what comes back says what came of it, and goes on doing so while it lasts, a moment late.

        :class:`~eventmesh.errors.ConfigurationError` where it does not fit this mesh; nothing is done then. A process
        that is frozen for longer than the supervisor's lease is killed.
        """
        return self.strikes.strike(fault)

    def ends(self) -> Mapping[str, int]:
        """See :class:`~eventmesh.runtime.running.RunningMesh`."""
        ends: Mapping[str, int] = eventually(self.actors.broker.ends.remote, "the broker")
        return ends

    def when(self, moment: FixedMoment, action: Callable[[], None]) -> None:
        """Have ``action`` called at the moment, by a thread of this process; times are counted from now."""
        self.moments.when(moment, action)

    def heal(self) -> None:
        """End every fault that lasts, and wait for no moment any more. Harmless where there is none."""
        self.moments.close()
        self.strikes.heal()

    # --- running --------------------------------------------------------------------------------

    def call(
        self,
        name: str,
        requests: Requests,
        *,
        window: int = 1_000_000,
        progress: Progress | None = None,
        timeout_s: float = 600.0,
    ) -> pa.Table:
        """Run one source of load to its end; returns its history table."""
        caller = self.actors.generator
        eventually(lambda: caller.start.remote(name, requests, window), f"{name} to begin")

        look = self.looking()

        def done() -> bool:
            state = look()
            self.check()
            if progress is not None:
                progress(state)
            return bool(state["done"])

        self._until(done, f"{name} to have every outcome", timeout_s)
        return eventually(caller.table.remote, f"the history of {name}")

    def looking(self) -> Callable[[], Mapping[str, Any]]:
        """Looks how far the generator's load has come, and gives up what waits in vain."""
        generator = self.actors.generator
        standstill = Standstill(time.monotonic, self._is_at_rest, self.ends)

        def look() -> Mapping[str, Any]:
            state: Mapping[str, Any] = get(generator.progress.remote(PROGRESS_S))
            if standstill.is_reached(state["sent"], state["open"]):
                get(generator.give_up.remote())
            return state

        return look

    def _is_at_rest(self) -> bool:
        """Whether nothing will happen by itself."""
        return not self.strikes.lasting and self.quiet() and not timer_is_due(self.statuses(), now())

    def drain(self, timeout_s: float = 120.0) -> None:
        """Wait until every service has read and decided all there is."""
        self._until(self.quiet, "the mesh to be quiet", timeout_s)

    def quiet(self) -> bool:
        """Whether every service is idle at the end of all it reads."""
        log = get(self.actors.broker.status.remote())
        if log["stopped"] is not None:
            return False
        self.check()
        caught_up = get([service.caught_up.remote(log["ends"]) for service in self.actors.services.values()])
        return all(caught_up) and log == get(self.actors.broker.status.remote())

    def check(self) -> None:
        """Raise what ended a process of the mesh."""
        self.statuses()

    def statuses(self) -> list[Mapping[str, Any]]:
        """Of every service instance."""
        statuses: list[Mapping[str, Any]] = get([service.status.remote() for service in self.actors.services.values()])
        for status in statuses:
            if status["failure"]:
                raise EventmeshError(
                    f"{status['service']}/{status['instance']} stopped: {status['failure']}. Where that is an "
                    f"error of a rule, its traceback is in the log of the process. The facts are kept: mend what is "
                    f"named, end the mesh and start it again"
                )
        return statuses

    def history(self, callers: Any) -> History:
        """What was seen, for the audit."""
        self.save_log(self.log_directory)
        seen = Dumps.all(get([service.dump.remote() for service in self.actors.services.values()]))
        return History(callers, seen.views, self.quiet(), states=seen.states)

    def save_log(self, directory: Path) -> None:
        """At level ``memory``; at others it is there."""
        get(self.actors.broker.save.remote(directory))

    def _explained(self) -> str:
        asked = {peer_name(peer): actor.status.remote() for peer, actor in self.actors.services.items()}
        log = self.actors.broker.status.remote()
        silent = "its process does not answer: it was not started, has died, or is stopped"
        answers = answered({**asked, "broker": log}, EXPLAINING_S)
        return explained({name: answers.get(name, silent) for name in asked}, answers.get("broker") or NO_LOG)

    # --- what it used ---------------------------------------------------------------------------

    def usage(self) -> Usage:
        """CPU and memory by role since the last :meth:`mark`."""
        used = self._usage_now()
        before = self._baseline
        return Usage(
            # A process that was started again counts from its own beginning.
            {role: max(0.0, value - before.cpu_s.get(role, 0.0)) for role, value in used.cpu_s.items()},
            used.memory_mb,
            used.bytes_appended - before.bytes_appended,
            self._ask_marks.since(self.statuses()),
        )

    def staleness(self) -> list[int]:
        """Samples since the last call of how old the views were that decisions were made on, in microseconds."""
        samples = get([service.staleness.remote() for service in self.actors.services.values()])
        return [sample for each in samples for sample in each]

    def mark(self) -> None:
        """Count CPU, and what came of asks, from now on."""
        self._baseline = self._usage_now()
        self._ask_marks.mark(self.statuses())

    def _usage_now(self) -> Usage:
        services = ((service, actor) for (service, _), actor in self.actors.services.items())
        actors = [("broker", self.actors.broker), *services, ("generator", self.actors.generator)]
        roles = Usage()
        for (role, _), used in zip(actors, get([actor.usage.remote() for _, actor in actors]), strict=True):
            roles.cpu_s[role] = roles.cpu_s.get(role, 0.0) + used["cpu_s"]
            roles.memory_mb[role] = roles.memory_mb.get(role, 0.0) + used["private_mb"]
        roles.bytes_appended = sum(status["counters"]["bytes_appended"] for status in self.statuses())
        return roles

    def pids(self) -> list[int]:
        """The processes of this mesh."""
        found: list[int] = get([actor.pid.remote() for actor in [self.actors.broker, *self.actors.services.values()]])
        return found

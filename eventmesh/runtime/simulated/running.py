"""A simulated mesh as the lab runs one: see :class:`~eventmesh.runtime.running.RunningMesh`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from eventmesh.errors import EnvironmentUnavailable
from eventmesh.history import History
from eventmesh.mesh import Mesh
from eventmesh.runtime.faults import Fault, FixedMoment, Struck
from eventmesh.runtime.instance import Instance
from eventmesh.runtime.limits import Limits
from eventmesh.runtime.running import AskMarks, Progress, Standstill, Usage, timer_is_due
from eventmesh.runtime.simulated.network import Speeds
from eventmesh.runtime.simulated.simulation import Simulation
from eventmesh.runtime.simulated.world import Deadlock
from eventmesh.workload import Requests

#: Requests that have their outcome between two looks at how far a load has come.
REPORT_EVERY = 50
SECOND = 1_000_000
#: A load that waits for one timer after the other has so many times its patience.
TIMERS_WAITED_FOR = 100
#: Virtual seconds that a broker has to be up again.
BROKER_S = 60.0


class SimulatedMesh:
    """``mesh`` from ``seed``, in this thread; ``rtt_ms`` is added to the way between any two processes and back.

    ``rows_per_s`` is how many rows a process takes per second, by service, where it is not as fast as the others. Its
    services go live while somebody waits for something: time passes only then.
    """

    virtual = True

    def __init__(
        self, mesh: Mesh, *, seed: int = 0, rtt_ms: float = 0.0, limits: Limits | None = None,
        rows_per_s: Mapping[str, float] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        one_way, there = int(rtt_ms * 500), Speeds().network
        self.simulation = Simulation(
            mesh, seed=seed, speeds=Speeds(network=(there[0] + one_way, there[1] + one_way)), limits=limits
        )
        self.mesh = self.simulation.mesh
        for (service, _), host in self.simulation.hosts.items():
            if service in rows_per_s:
                host.speeds = replace(host.speeds, row=round(SECOND / rows_per_s[service]))
        self._appended_before = 0
        self._ask_marks = AskMarks()

    def call(
        self, name: str, requests: Requests, *,
        window: int = 1_000_000, progress: Progress | None = None, timeout_s: float = 600.0,
    ) -> pa.Table:  # fmt: skip
        """See :class:`RunningMesh`; ``timeout_s`` is virtual."""
        client = self.simulation.call(name, requests, window=window)
        told = -REPORT_EVERY
        simulation = self.simulation
        standstill = Standstill(lambda: simulation.world.now / SECOND, self._is_at_rest, self.ends)

        def done() -> bool:
            nonlocal told
            caller = client.caller
            assert caller is not None
            if standstill.is_reached(caller.next, caller.open_requests):
                caller.give_up()
            ended = caller.next - caller.open_requests
            if progress is not None and (ended >= told + REPORT_EVERY or (caller.done and ended > told)):
                told = ended
                progress(
                    {"sent": caller.next, "open": caller.open_requests, "total": len(requests), "done": caller.done}
                )
            return caller.done

        self._until(done, timeout_s)
        assert client.caller is not None
        return client.caller.table()

    def _is_at_rest(self) -> bool:
        """Whether nothing will happen by itself."""
        simulation = self.simulation
        return not (simulation.strikes.lasting or self._timer_is_due()) and simulation.services_quiet()

    def _timer_is_due(self) -> bool:
        return timer_is_due([instance.status() for instance in self._instances()], self.simulation.world.now)

    def drain(self, timeout_s: float = 120.0) -> None:
        """See :class:`RunningMesh`; ``timeout_s`` is virtual."""
        self._until(self.simulation.quiet, timeout_s)

    def _until(self, done: Callable[[], bool], timeout_s: float) -> None:
        """As on Ray, what is not done in time is an error of its own kind; it says where everybody stands.

        A timer that is due before long is waited for, some more times: virtual time costs nothing.
        """
        for _ in range(TIMERS_WAITED_FOR):
            try:
                self.simulation.run_until(done, seconds=timeout_s)
                return
            except Deadlock as error:
                late = error
                if not self._timer_is_due():
                    break
        raise EnvironmentUnavailable(f"waited {timeout_s:g} s of virtual time: {late}") from late

    def mark(self) -> None:
        """See :class:`RunningMesh`."""
        self._appended_before = self._appended()
        self._ask_marks.mark(self.statuses())

    def usage(self) -> Usage:
        """See :class:`RunningMesh`: no CPU and no memory, since time is virtual."""
        asks = self._ask_marks.since(self.statuses())
        return Usage(bytes_appended=self._appended() - self._appended_before, asks=asks)

    def _appended(self) -> int:
        return sum(instance.counters.bytes_appended for instance in self._instances())

    def _instances(self) -> list[Instance]:
        return [host.instance for host in self.simulation.hosts.values() if host.instance is not None]

    def staleness(self) -> list[int]:
        """See :class:`RunningMesh`; virtual microseconds."""
        samples: list[int] = []
        for instance in self._instances():
            samples += instance.counters.staleness_us
            instance.counters.staleness_us = []
        return samples

    def statuses(self) -> list[Mapping[str, Any]]:
        """See :class:`RunningMesh`."""
        return [instance.status() for instance in self._instances()]

    def ends(self) -> Mapping[str, int]:
        """See :class:`RunningMesh`."""
        broker = self.simulation.broker
        self._until(lambda: broker.log is not None, BROKER_S)
        assert broker.rules is not None
        return broker.rules.ends()

    def when(self, moment: FixedMoment, action: Callable[[], None]) -> None:
        """See :class:`RunningMesh`: the virtual clock waits."""
        self.simulation.when(moment, action)

    def strike(self, fault: Fault) -> Struck:
        """See :class:`RunningMesh`."""
        return self.simulation.strike(fault)

    def heal(self) -> None:
        """See :class:`RunningMesh`."""
        self.simulation.heal()

    def history(self, callers: pa.Table) -> History:
        """See :class:`RunningMesh`."""
        seen = self.simulation.history([])
        return replace(seen, callers=callers)

    def save_log(self, directory: Path) -> None:
        """See :class:`RunningMesh`."""
        self.simulation.storage.save(directory)

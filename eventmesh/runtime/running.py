"""A running mesh, whatever runs it: what the lab, the benchmarks, the commands and the tests may do with one.

Both runtimes have one: :class:`~eventmesh.runtime.simulated.running.SimulatedMesh` on a virtual clock, and
:class:`~eventmesh.runtime.on_ray.running.RayMesh` on Ray's actors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from eventmesh.errors import ConfigurationError
from eventmesh.history import History
from eventmesh.mesh import Mesh
from eventmesh.runtime.faults import Fault, FixedMoment, Struck
from eventmesh.workload import Requests

#: Told how far a load has come: ``sent``, ``open``, ``total``, ``done``.
Progress = Callable[[Mapping[str, Any]], None]
#: Seconds between two looks at a mesh in which nothing moves. Two such spans are longer than the time after which a
#: caller asks again, however often it did: an answer that was lost comes then.
STANDSTILL_S = 25.0
#: A mesh in which a timer is due within so many seconds may go on by itself: it is waited for.
TIMER_S = 600.0


#: What came of asks: by asker and message, each count of :class:`~eventmesh.runtime.limits.AskCounts` by its name.
AskedBy = Mapping[tuple[str, str], Mapping[str, int]]


@dataclass
class Usage:
    """What each role of the mesh has used: CPU seconds, private megabytes, and bytes appended by all.

    On a virtual clock nobody knows the first two: both are empty there. ``asks`` are those of the processes that are
    there now: one that was killed took its counts along.
    """

    cpu_s: dict[str, float] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)
    bytes_appended: int = 0
    asks: AskedBy = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What one load did to a mesh: the callers' history, what each role used, samples of staleness in us.

    ``seconds`` is from the first intended time to the last outcome, on the mesh's own clock.
    """

    callers: pa.Table
    cpu_s: Mapping[str, float]
    memory_mb: Mapping[str, float]
    bytes_moved: int
    staleness_us: list[int]
    seconds: float
    asks: AskedBy = field(default_factory=dict)


class AskMarks:
    """What the instances of a mesh had counted of their asks when a mark was set."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, int, str], Mapping[str, int]] = {}

    def mark(self, statuses: Iterable[Mapping[str, Any]]) -> None:
        """Count from now on."""
        self._before = dict(_ask_counts(statuses))

    def since(self, statuses: Iterable[Mapping[str, Any]]) -> AskedBy:
        """What came since the mark; of a process that was started after it, all that it has counted."""
        found: dict[tuple[str, str], dict[str, int]] = {}
        for (service, number, message), counts in _ask_counts(statuses):
            before = self._before.get((service, number, message), {})
            began_again = any(count < before.get(name, 0) for name, count in counts.items())
            total = found.setdefault((service, message), dict.fromkeys(counts, 0))
            for name, count in counts.items():
                total[name] += count if began_again else count - before.get(name, 0)
        return {key: counts for key, counts in sorted(found.items()) if any(counts.values())}


def _ask_counts(statuses: Iterable[Mapping[str, Any]]) -> Iterator[tuple[tuple[str, int, str], Mapping[str, int]]]:
    for status in statuses:
        for message, counts in status["counters"]["asks"].items():
            yield (status["service"], status["instance"], message), counts


class Standstill:
    """Sees that a load comes to no end: callers wait, and the mesh has nothing left to do that would answer them.

    So it is where an input that an outcome hangs on was refused. Nothing is written then and nobody hears an outcome,
    while every service has decided all there is, no fault lasts, and no timer is due soon (:func:`timer_is_due`).
    """

    def __init__(
        self, now_s: Callable[[], float], at_rest: Callable[[], bool], ends: Callable[[], Mapping[str, int]]
    ) -> None:
        self._now_s, self._at_rest, self._ends = now_s, at_rest, ends
        self._seen: tuple[int, int] | None = None
        self._written: Mapping[str, int] | None = None
        self._since = 0.0

    def is_reached(self, sent: int, waiting: int) -> bool:
        """Whether nothing has moved for :data:`STANDSTILL_S`; ``sent`` and ``waiting`` are the callers' requests."""
        now_s = self._now_s()
        if (sent, waiting) != self._seen:
            self._seen, self._since, self._written = (sent, waiting), now_s, None
        if not waiting or now_s - self._since < STANDSTILL_S or not self._at_rest():
            return False
        before, self._written, self._since = self._written, dict(self._ends()), now_s
        return before == self._written


def timer_is_due(statuses: Sequence[Mapping[str, Any]], now: int, within_s: float = TIMER_S) -> bool:
    """Whether some timer is due within so many seconds of ``now``, which is in microseconds; by services' statuses."""
    moments = [status["next_timer_at"] for status in statuses if status["next_timer_at"] is not None]
    return any(at - now <= within_s * 1e6 for at in moments)


class RunningMesh(Protocol):
    """A mesh whose services all decide. ``virtual``: its times are of a virtual clock."""

    mesh: Mesh
    virtual: bool

    def call(
        self, name: str, requests: Requests, *,
        window: int = 1_000_000, progress: Progress | None = None, timeout_s: float = 600.0,
    ) -> pa.Table:  # fmt: skip
        """Run one source of load to its end; its history table (:data:`eventmesh.history.CALLERS`).

        Requests that wait in vain (:class:`Standstill`) end without an outcome.

        :class:`~eventmesh.errors.EnvironmentUnavailable` where it is not done within ``timeout_s``.
        """

    def drain(self, timeout_s: float = 120.0) -> None:
        """Wait until every service has read and decided all there is; errors as those of :meth:`call`."""

    def mark(self) -> None:
        """Count what is used from now on."""

    def usage(self) -> Usage:
        """What was used since :meth:`mark`."""

    def staleness(self) -> list[int]:
        """Samples since the last call of how old the views were that decisions were made on, in microseconds."""

    def statuses(self) -> list[Mapping[str, Any]]:
        """What each service instance says of itself (:meth:`~eventmesh.runtime.instance.Instance.status`)."""

    def ends(self) -> Mapping[str, int]:
        """Where every ``topic/partition`` of the log ends."""

    def when(self, moment: FixedMoment, action: Callable[[], None]) -> None:
        """Have ``action`` called at the moment; times are counted from now. Never, where it does not come."""

    def strike(self, fault: Fault) -> Struck:
        """Make a fault now. What comes back says what came of it, and goes on doing so while it lasts.

        :class:`~eventmesh.errors.ConfigurationError` where it does not fit this mesh or runtime; nothing is done then.
        """

    def heal(self) -> None:
        """End every fault that lasts. Harmless where there is none, and twice."""

    def history(self, callers: pa.Table) -> History:
        """What was seen, for the audit."""

    def save_log(self, directory: Path) -> None:
        """See to it that the log lies in ``directory``, for the audit."""


def check_public(mesh: Mesh, requests: Requests) -> None:
    """Callers come from outside. Raises :class:`ConfigurationError` for what only services may send."""
    messages = mesh.application.DECLARED.messages
    for name in sorted(set(requests.commands)):
        if not messages[name].public:
            problem = f"callers may not send {name} to {messages[name].service}: it is not public"
            hint = f"Write class {name}(..., public=True), or ask for something else"
            raise ConfigurationError(problem, path="application", hint=hint)


def seed_with(
    running: RunningMesh, stages: Sequence[Requests], progress: Callable[[str, Mapping[str, Any]], None] | None = None,
    *, name: str = "seeding",
) -> None:  # fmt: skip
    """Run the seeding, stage by stage and each to its end, and drain; ``progress`` is told the stage's command.

    Raises :class:`ConfigurationError` as :func:`check_public` does.
    """
    for stage in stages:
        check_public(running.mesh, stage)
    for number, stage in enumerate(stages):
        told = partial(progress, stage.commands[0]) if progress is not None else None
        running.call(f"{name}-{number}", stage, progress=told)
    running.drain()


def measure_load(
    running: RunningMesh, name: str, requests: Requests, *,
    window: int = 1_000_000, progress: Progress | None = None, timeout_s: float = 600.0, drain_s: float = 120.0,
    ended: Callable[[], object] = lambda: None,
) -> Measured:  # fmt: skip
    """Run a load to its end and drain; what it did, and what every role used for it.

    ``ended`` is called when the load is at its end, before the mesh is drained. Raises :class:`ConfigurationError` as
    :func:`check_public` does.
    """
    check_public(running.mesh, requests)
    running.mark()
    running.staleness()
    callers = running.call(name, requests, window=window, progress=progress, timeout_s=timeout_s)
    ended()
    running.drain(drain_s)
    used = running.usage()
    begun, ended_at = pc.min(callers["intended_at"]).as_py(), pc.max(callers["completed_at"]).as_py()
    seconds = 0.0 if ended_at is None else (ended_at - begun) / 1e6
    moved, staleness = used.bytes_appended, running.staleness()
    return Measured(callers, used.cpu_s, used.memory_mb, moved, staleness, seconds, used.asks)

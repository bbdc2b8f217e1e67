"""What the processes of a mesh tell Prometheus: rates, ends, lag, and the age of views.

Nothing here is on the way of a message. A thread of each process reads every few seconds what the process counts
anyway, and sets it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from eventmesh.errors import EventmeshError, Throttled
from eventmesh.progress import split_position
from eventmesh.runtime.effects import ReplyMessage
from eventmesh.runtime.process.actor_log import log
from eventmesh.views import age_ms

#: Seconds between two publications; Ray exports what was set every ten.
INTERVAL_S = 5.0
PARTITION = ("topic", "partition")
INSTANCE = ("service", "instance")


@dataclass(frozen=True)
class Metric:
    """What a figure is, and the tags beside ``mesh`` that tell one series of it from another."""

    description: str
    tags: tuple[str, ...]


#: By name. What ends with ``_total`` is counted from the start of the process, all else is as it stands.
METRICS = {
    "eventmesh_appended_rows_total": Metric("rows appended by services", PARTITION),
    "eventmesh_appended_bytes_total": Metric("bytes of appended batches", PARTITION),
    "eventmesh_end_offset": Metric("the offset behind the last row that readers may see", PARTITION),
    "eventmesh_decided_inputs_total": Metric("input rows and command rows decided", INSTANCE),
    "eventmesh_decided_facts_total": Metric("facts decided", INSTANCE),
    "eventmesh_refused_inputs_total": Metric("inputs that broke a rule and were refused on record", INSTANCE),
    "eventmesh_answered_rows_total": Metric("rows of commands and queries answered for good", INSTANCE),
    "eventmesh_throttled_rows_total": Metric("rows of commands and queries told to come later", INSTANCE),
    "eventmesh_counted_asks_total": Metric(
        "attempts of asks, and what policies did: repeats, cache_hits, circuit_not_permitted",
        (*INSTANCE, "message", "count"),
    ),
    "eventmesh_lag_rows": Metric("rows of an input that are not decided yet", (*INSTANCE, *PARTITION)),
    "eventmesh_view_age_ms": Metric("age of a view that lags; 0 where it lacks nothing", (*INSTANCE, "view")),
}


@dataclass(frozen=True, slots=True)
class Reading:
    """A figure as it stands: for a counter all since the process began."""

    name: str
    tags: Mapping[str, str]
    value: float


class Registry(Protocol):
    """Where figures go."""

    def add(self, name: str, tags: Mapping[str, str], more: float) -> None:
        """A counter has grown by ``more``, which is above 0."""

    def set(self, name: str, tags: Mapping[str, str], value: float) -> None:
        """A gauge stands at ``value``."""


#: The registry for a mesh of that name, in the process that asks.
Registries = Callable[[str], Registry]


class Publisher:
    """Sets what ``read`` finds, now and whenever :data:`INTERVAL_S` have passed, until :meth:`close`.

    Who cannot be read, such as a log that has stopped, has no figures this time.
    """

    def __init__(self, read: Callable[[], Iterable[Reading]], registry: Registry) -> None:
        self.published = 0  # how often
        self._read, self._registry = read, registry
        self._counted: dict[tuple[str, tuple[str, ...]], float] = {}
        self._closing = threading.Event()

    def start(self) -> None:
        """Begin, on a thread of its own."""
        threading.Thread(target=self.run, name="metrics", daemon=True).start()

    def run(self) -> None:
        """Publish until :meth:`close`."""
        while not self._closing.is_set():
            try:
                self.publish()
            except (EventmeshError, TimeoutError) as error:
                log.debug("no figures", reason=str(error))
            self._closing.wait(INTERVAL_S)

    def publish(self) -> None:
        """Set everything once."""
        for reading in self._read():
            if reading.name.endswith("_total"):
                self._count(reading)
            else:
                self._registry.set(reading.name, reading.tags, reading.value)
        self.published += 1

    def _count(self, reading: Reading) -> None:
        series = (reading.name, tuple(reading.tags.values()))
        more = reading.value - self._counted.get(series, 0)
        if more > 0:
            self._counted[series] = reading.value
            self._registry.add(reading.name, reading.tags, more)

    def close(self) -> None:
        """Set nothing more."""
        self._closing.set()


# --- what processes say of themselves --------------------------------------------------------------


@dataclass(slots=True)
class Appended:
    """What was appended to a partition since the broker's process began."""

    rows: int = 0
    bytes: int = 0

    def count(self, rows: int, size: int) -> None:
        """A batch of ``size`` bytes was appended."""
        self.rows += rows
        self.bytes += size


@dataclass(slots=True)
class Answered:
    """Rows of commands and queries that had their last answer: one that says something, or that they came too early."""

    rows: int = 0
    throttled: int = 0

    def count(self, reply: ReplyMessage) -> None:
        """It was sent."""
        if isinstance(reply.error, Throttled):
            self.throttled += len(reply.indexes)
        elif reply.final:
            self.rows += len(reply.indexes)


def of_broker(ends: Mapping[str, int], appended: Mapping[str, Appended]) -> Iterator[Reading]:
    """Figures of a log, with ends and appends by ``topic/partition``."""
    for position, end in ends.items():
        tags = _partition(position)
        yield Reading("eventmesh_end_offset", tags, end)
        if (grown := appended.get(position)) is not None:
            yield Reading("eventmesh_appended_rows_total", tags, grown.rows)
            yield Reading("eventmesh_appended_bytes_total", tags, grown.bytes)


def of_service(status: Mapping[str, Any], ends: Mapping[str, int], now: int) -> Iterator[Reading]:
    """Figures of a service instance from its status and the log's ends; ``now`` in microseconds.

    Where the ends are not known, lag and age are not either.
    """
    tags = {"service": status["service"], "instance": str(status["instance"])}
    for name, value in (
        ("eventmesh_decided_inputs_total", status["counters"]["inputs"]),
        ("eventmesh_decided_facts_total", status["counters"]["facts"]),
        ("eventmesh_refused_inputs_total", status["counters"]["inputs_refused"]),
        ("eventmesh_answered_rows_total", status["answered_rows"]),
        ("eventmesh_throttled_rows_total", status["throttled_rows"]),
    ):
        yield Reading(name, tags, value)
    for message, counts in status["counters"]["asks"].items():
        for count, value in counts.items():
            yield Reading("eventmesh_counted_asks_total", {**tags, "message": message, "count": count}, value)
    if not ends:
        return
    for position, lag in _lags(status, ends).items():
        yield Reading("eventmesh_lag_rows", {**tags, **_partition(position)}, lag)
    for view, found in status["views"].items():
        yield Reading(
            "eventmesh_view_age_ms", {**tags, "view": view}, age_ms(found["next"], found["applied_time"], ends, now)
        )


def _lags(status: Mapping[str, Any], ends: Mapping[str, int]) -> dict[str, int]:
    """Of each input, that of the task which is the furthest behind."""
    lags: dict[str, int] = {}
    for task, inputs in status["inputs"].items():
        for position in inputs:
            behind = ends[position] - status["progress"][task].get(position, 0)
            lags[position] = max(behind, lags.get(position, 0))
    return lags


def _partition(position: str) -> dict[str, str]:
    topic, partition = split_position(position)
    return {"topic": topic, "partition": str(partition)}

"""Given three times the load that a mesh can carry, then it says so, no queue outgrows its limit, and it recovers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from eventmesh import mesh as meshes
from eventmesh.audit.audit import audit
from eventmesh.lab.simulated_run import SimulatedRun
from eventmesh.log.store import LogReader
from eventmesh.mesh import Mesh
from eventmesh.runtime.limits import Limits
from eventmesh.runtime.simulated.network import Speeds
from eventmesh.runtime.simulated.processes import ServiceProcess
from eventmesh.runtime.simulated.simulation import Simulation
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from eventmesh.workload import Requests
from tests.simulation.scenario import shop

#: Each append waits for a sync of 3.5 ms, and 20 orders may be open in each of the gateway's two partitions: that is
#: what bounds the service, at some 500 orders a second. Saying no costs next to nothing.
SLOW_DISK = Speeds(sync=3_500)
OPEN_ORDERS_MAX = 20
LIMITS = Limits(asks_queued_rows_max=10)
WITHOUT = 1 << 30
CAPACITY = 500.0
OVERLOAD_S, CALM_ORDERS, CALM_RATE = 0.6, 60, 100.0


class Watched(Simulation):
    """Notes the greatest length of each queue, after every step of every process."""

    def __init__(self, mesh: Mesh, **how: Any) -> None:
        self.peaks: Counter[str] = Counter()
        super().__init__(mesh, **how)
        for host in self.hosts.values():
            vars(host)["carry_out"] = partial(self._watched, host, host.carry_out)

    def _watched(self, host: ServiceProcess, carry_out: Callable[[], None]) -> None:
        for task in host.instance.tasks.values() if host.instance is not None else ():
            self._note("commands", task.queued_command_rows)
            self._note("inputs", task.queued_rows)
            self._note("appends", len(task.in_flight))
            self._note("conversations", len(task.conversations))
            if task.service.name == "gateway":
                self._note("open orders", task.outcome.watched)
        carry_out()

    def _note(self, queue: str, length: int) -> None:
        self.peaks[queue] = max(self.peaks[queue], length)


def mesh(open_orders_max: int) -> Mesh:
    """The shop, whose gateway keeps so many orders open."""
    document = shop("views", "fsync", 0, False).resolved()
    document["services"]["gateway"]["open_orders_max"] = open_orders_max
    return meshes.parse(document)


def orders(number: int, rate: float, seed: int) -> Requests:
    return of_history(generate(number, seed=seed, **TRAITS), rate=rate).load


TRAITS = {"products": 100, "customers": 20, "lines_per_order": 1}


class Story:
    """The mesh in calm, then overloaded, then in calm again; each with callers of its own."""

    def __init__(self, limits: Limits, open_orders_max: int) -> None:
        self.simulation = Watched(mesh(open_orders_max), seed=1, speeds=SLOW_DISK, limits=limits)
        for number, stage in enumerate(of_history(generate(5_000, seed=1, **TRAITS)).seeding):
            self.simulation.call(f"seeding-{number}", stage)
            self.simulation.drain()
        self.simulation.peaks.clear()
        self.before = self.load("before", orders(CALM_ORDERS, CALM_RATE, 2))
        self.overload = self.load("overload", orders(int(3 * CAPACITY * OVERLOAD_S), 3 * CAPACITY, 1))
        self.after = self.load("after", orders(CALM_ORDERS, CALM_RATE, 3))

    def load(self, name: str, asked: Requests) -> pa.Table:
        """The records of a caller that asked all this, when everything is quiet again."""
        keys = [f"{name}-{key}" for key in asked.keys]
        place = asked.payload.schema.get_field_index("order_id")
        payload = asked.payload.set_column(place, "order_id", pa.array(keys))
        client = self.simulation.call(name, Requests(asked.commands, keys, payload, asked.at))
        self.simulation.drain()
        assert client.caller is not None
        return client.caller.table()


@lru_cache
def story(limits: Limits = LIMITS, open_orders_max: int = OPEN_ORDERS_MAX) -> Story:
    return Story(limits, open_orders_max)


def latency_ms(table: pa.Table) -> np.ndarray:
    return (table["completed_at"].to_numpy() - table["intended_at"].to_numpy()) / 1e3


def seconds(table: pa.Table) -> float:
    return float(table["completed_at"].to_numpy().max() - table["intended_at"].to_numpy().min()) / 1e6


def beyond(peaks: Counter[str]) -> set[str]:
    """The queues that outgrew their limits."""
    limits = {
        "commands": LIMITS.asks_queued_rows_max,
        "inputs": LIMITS.inputs_queued_rows_max,
        "appends": LIMITS.appends_in_flight_max,
        "conversations": LIMITS.conversations_max,
        "open orders": OPEN_ORDERS_MAX,
    }
    return {queue for queue, limit in limits.items() if peaks[queue] > limit}


def test_the_load_is_three_times_what_the_mesh_can_carry() -> None:
    overload = story().overload
    carried = len(overload) / seconds(overload)
    assert 0.6 * CAPACITY < carried < 1.2 * CAPACITY
    assert sum(story().before["throttled"].to_pylist()) == 0, "in calm nobody is sent away"


def test_callers_are_told_and_come_back_until_each_order_ends_right() -> None:
    told = story().overload["throttled"].to_numpy()
    assert np.count_nonzero(told) > len(told) / 3
    assert set(story().overload["outcome"].to_pylist()) == {"confirmed"}
    simulation = story().simulation
    done = SimulatedRun(
        simulation, simulation.history(["before", "overload", "after"]), LogReader.of(simulation.storage)
    )
    assert audit(simulation.mesh, done.reader, done.history).describe() == "audit: valid"


def test_no_queue_outgrows_its_limit() -> None:
    assert beyond(story().simulation.peaks) == set()
    assert story().simulation.peaks["open orders"] == OPEN_ORDERS_MAX, "the limit was reached"


@pytest.mark.parametrize(
    ("limits", "open_orders_max", "outgrown"),
    [
        (LIMITS, WITHOUT, "open orders"),
        (Limits(asks_queued_rows_max=WITHOUT), OPEN_ORDERS_MAX, "commands"),
    ],
    ids=["the gateway takes all orders", "a task queues all commands"],
)
def test_where_a_limit_is_ignored_its_queue_outgrows_it(limits: Limits, open_orders_max: int, outgrown: str) -> None:
    assert beyond(story(limits, open_orders_max).simulation.peaks) == {outgrown}


def test_those_who_come_back_do_not_come_back_together() -> None:
    """With 50 ms for everybody and every time it was more than fifty rounds.

    See docs/decisions/0026-callers-back-off.md.
    """
    throttled = story().overload["throttled"].to_numpy()
    assert throttled.max() <= 8, "six doublings of 50 ms are 3 s"
    assert throttled.mean() < 5


def test_when_the_load_ends_service_is_what_it_was_before() -> None:
    assert sum(story().after["throttled"].to_pylist()) == 0
    assert np.percentile(latency_ms(story().after), 99) < 1.2 * np.percentile(latency_ms(story().before), 99)

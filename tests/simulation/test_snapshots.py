"""Given snapshots, then a restart reads the tail alone, retention deletes the rest, and nobody can tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from eventmesh.lab.simulated_run import Crashes, SimulatedRun
from eventmesh.progress import position_name
from tests.simulation.scenario import WIRINGS, DiskFaults, Scenario, drawn

DEATHS = Scenario(orders=60, crashes=Crashes(10, broker_share=0.2), snapshot_rows=5)


def kept_briefly(wiring: str, durability: str, seed: int, *, machine_share: float = 0.0) -> Scenario:
    """A scenario in which facts are kept for 20 ms, unless somebody needs them."""
    drew = drawn(wiring, durability, seed)
    crashes = replace(drew.crashes, machine_share=machine_share)
    return replace(
        drew, snapshot_rows=5 + seed % 11, retention_ms=20, disk=DiskFaults(), orders=60, crashes=crashes, rate=100.0
    )  # fmt: skip


def starts(run: SimulatedRun) -> dict[str, int]:
    return {
        position_name(topic.name, number): run.reader.start(topic.name, number)
        for topic in run.simulation.topics.values()
        for number in range(topic.partitions)
    }


def seen(run: SimulatedRun) -> list[Any]:
    return [run.simulation.world.now, run.history.callers.to_pylist(), run.history.views]


@pytest.mark.parametrize("wiring", WIRINGS)
def test_what_retention_deletes_nobody_misses(wiring: str) -> None:
    deleted: set[str] = set()
    for seed in range(2):
        briefly = kept_briefly(wiring, "os", seed)
        short, long = briefly.run(seed), replace(briefly, retention_ms=-1).run(seed)
        # Nothing but what was deleted tells the two apart, so they are one history as long as nobody misses it.
        assert seen(short) == seen(long), f"seed {seed}"
        assert long.audit().describe() == "audit: valid", f"seed {seed}"
        checks = short.audit().checks
        assert {checks[name].verdict for name in ("A1", "A2", "A4", "A5", "A7")} == {"valid"}
        deleted |= {name for name, start in starts(short).items() if start}
        assert not any(starts(long).values())
    assert {"orders/0", "orders/1", "stock/0", "stock/1"} <= deleted


@pytest.mark.parametrize("wiring", WIRINGS)
def test_nor_when_machines_die(wiring: str) -> None:
    deleted: set[str] = set()
    for seed in range(2):
        run = kept_briefly(wiring, "fsync", seed, machine_share=0.7).run(seed)
        told = run.history.callers.to_pylist()
        assert {row["outcome"] for row in told} <= {"confirmed", "rejected", "cancelled", "recorded"}, f"seed {seed}"
        deleted |= {name for name, start in starts(run).items() if start}
    assert {"orders/0", "orders/1", "stock/0", "stock/1"} <= deleted


def test_a_restart_folds_the_tail_alone() -> None:
    def folded(snapshot_rows: int | None) -> int:
        runs = [replace(DEATHS, snapshot_rows=snapshot_rows).run(seed) for seed in range(2)]
        assert all(run.audit().verdict == "valid" for run in runs)
        hosts = [host for run in runs for host in run.simulation.hosts.values()]
        return sum(host.instance.counters.rows_folded for host in hosts if host.instance is not None)

    assert folded(5) < folded(None) / 2

"""Given processes, disks and machines that die at any step, when the mesh is drained, then every audit is valid."""

from __future__ import annotations

import pytest

from eventmesh.log.store import LogReader
from eventmesh.runtime.faults import Kill, LostUnsynced
from eventmesh.runtime.simulated.simulation import Simulation
from tests.simulation.scenario import WIRINGS, drawn, problem, shop

#: 3 wirings × 2 levels × 3 chunks × 5 seeds: 90 histories, each with its own orders, deaths, network and disk. The
#: benchmark ``simulation`` and ``eventmesh fuzz`` go on from there.
CHUNKS = 3
SEEDS_PER_CHUNK = 5


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("durability", ["os", "fsync"])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_whatever_dies_every_order_ends_right(wiring: str, durability: str, chunk: int) -> None:
    seeds = range(chunk * SEEDS_PER_CHUNK, (chunk + 1) * SEEDS_PER_CHUNK)
    assert not [found for seed in seeds if (found := problem(drawn(wiring, durability, seed), seed))]


@pytest.mark.parametrize("wiring", WIRINGS)
def test_a_seed_names_one_history(wiring: str) -> None:
    first, second = (drawn(wiring, "fsync", 7).run(7) for _ in range(2))
    assert first.simulation.world.now == second.simulation.world.now
    assert first.history.callers.equals(second.history.callers)
    assert [first.reader.table("orders", 0), first.reader.table("stock", 1)] == [
        second.reader.table("orders", 0),
        second.reader.table("stock", 1),
    ]


def test_the_deaths_really_happen() -> None:
    runs = [drawn("views", "fsync", seed).run(seed) for seed in range(6)]
    assert all(run.simulation.deaths >= 3 for run in runs), "some fall on who is down already, some come after the end"
    assert max(run.simulation.broker.life for run in runs) >= 3, "the log was opened again, more than once"
    refolds = [
        host.instance.counters.refolds for run in runs for host in run.simulation.hosts.values() if host.instance
    ]
    assert sum(refolds) > 0, "somebody folded again under a new epoch"


def test_the_generator_really_dies_in_the_middle_of_its_work() -> None:
    runs = [drawn("views", "os", seed).run(seed) for seed in (1, 4, 7)]
    clients = [run.simulation.clients["load"] for run in runs]
    assert max(client.life for client in clients) >= 3, "one went on from its journal, more than once"
    asked_again = [row for run in runs for row in run.history.callers.to_pylist() if row["attempts"] > 1]
    assert asked_again, "it had open requests when it died"
    assert all(run.audit().verdict == "valid" for run in runs)


def test_after_the_machine_has_died_a_restart_folds_past_the_gap_in_the_log() -> None:
    simulation = Simulation(shop("views", "os", 0, False), seed=1)
    simulation.drain()
    assert simulation.broker.log is not None
    simulation.broker.log.sync()  # nothing is lost: what was given out and never written is all that is missing
    simulation.strike(LostUnsynced())
    simulation.drain()
    killed = simulation.strike(Kill(process="inventory/0"))
    simulation.drain()
    kinds = [entry.header.kind for entry in LogReader.of(simulation.storage).batches("stock", 0)]
    assert kinds == ["granted", "truncated", "granted"]
    assert killed.shows["lives begun"] == 1

"""Given meals for which too few couriers come, and processes that die, then each ends once and in time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from eventmesh import mesh as meshes
from eventmesh.lab.simulated_run import Crashes, SimulatedRun, run_simulated
from eventmesh.mesh import Mesh
from tests.commands.conftest import Run, eventmesh, no_ray, state
from tests.delivery.workload import MealOptions, workload

__all__ = ["eventmesh", "no_ray", "state"]

HERE = Path(__file__).parent
WIRINGS = ("told", "asked")


def delivery(wiring: str, search_s: float = 0.05, **log: object) -> Mesh:
    """The mesh of a wiring, in which a courier must be found in this time."""
    document = meshes.load(HERE / f"{wiring}.yaml").resolved()
    document["log"] |= log
    for service in ("app", "couriers"):
        document["services"][service]["search_s"] = search_s
    return meshes.parse(document)


def outcomes(run: SimulatedRun) -> Counter[str]:
    """What guests were told."""
    callers = run.history.callers.select(["command", "outcome"]).to_pylist()
    return Counter(row["outcome"] for row in callers if row["command"] == "OrderMeal")


@pytest.mark.parametrize("wiring", WIRINGS)
def test_who_finds_no_courier_in_time_has_the_money_back(wiring: str) -> None:
    run = run_simulated(delivery(wiring), workload(MealOptions(meals=60, rate=500.0)), seed=1)
    audit = run.audit()
    assert audit.verdict == "valid", audit.describe()
    assert {"D11", "M1", "M2"} <= {name for name, check in audit.checks.items() if check.examined}
    assert outcomes(run) == {"delivered": 45, "failed": 15}


@pytest.mark.parametrize("wiring", WIRINGS)
def test_whatever_dies_each_meal_ends_once(wiring: str) -> None:
    for seed in range(4):
        mesh = delivery(wiring, snapshot_rows=30)
        deaths = Crashes(8, broker_share=0.3).drawn(mesh, seed)
        run = run_simulated(mesh, workload(MealOptions(seed=seed, meals=60, rate=500.0)), seed=seed, faults=deaths)
        audit = run.audit()
        assert audit.verdict == "valid", f"seed {seed}: {audit.describe()}"
        assert sum(outcomes(run).values()) == 60


@pytest.mark.parametrize("wiring", WIRINGS)
def test_ten_minutes_are_waited_for_on_a_virtual_clock(eventmesh: Run, wiring: str) -> None:
    few = ("--meals", 9, "--couriers", 1, "--late", 1)
    ended = eventmesh("run", HERE / f"{wiring}.yaml", "--runtime", "simulated", *few)
    assert ended.code == 0, ended.err
    assert "failed 3" in ended.out


def test_a_check_names_what_timers_write(eventmesh: Run) -> None:
    checked = eventmesh("check", HERE / "told.yaml")
    assert (checked.code, checked.err) == (0, "")
    assert "couriers: SearchTimedOut" in checked.out


@pytest.mark.parametrize("wiring", WIRINGS)
def test_it_is_fuzzed(eventmesh: Run, wiring: str) -> None:
    ended = eventmesh("fuzz", HERE / f"{wiring}.yaml", "--seeds", 3, "--jobs", 1)
    assert ended.code == 0, ended.out
    assert "0 findings" in ended.out

"""Given either wiring, then its runs are right: also those in which processes die. Simulated, so it takes seconds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from eventmesh.lab.run import prepare
from eventmesh.lab.simulated_run import Crashes, SimulatedRun, run_simulated

HERE = Path(__file__).parent
WIRINGS = ["told", "asked"]


def run(wiring: str, *, crashes: int = 0, seed: int = 1, **options: int) -> SimulatedRun:
    """One run on a virtual clock; ``crashes`` processes are killed, at times that follow from the seed."""
    ready = prepare(HERE / f"{wiring}.yaml", options, seed=seed, rate=400.0)
    return run_simulated(ready.mesh, ready.workload, seed=seed, faults=Crashes(crashes).drawn(ready.mesh, seed))


def outcomes(done: SimulatedRun) -> Counter[str]:
    """How many callers were told what."""
    return Counter(done.history.callers["outcome"].to_pylist())


@pytest.mark.parametrize("wiring", WIRINGS)
def test_a_run_is_right_and_has_both_outcomes(wiring: str) -> None:
    """Half of the hours that are wanted are there."""
    done = run(wiring, repairs=60)
    assert done.audit().verdict == "valid", done.audit().describe()
    assert set(outcomes(done)) == {"promised", "declined"}


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("seed", range(3))
def test_a_run_is_right_whoever_dies(wiring: str, seed: int) -> None:
    """No repair is lost, and no day is overbooked."""
    done = run(wiring, crashes=6, seed=seed, repairs=40)
    assert done.audit().verdict == "valid", done.audit().describe()
    assert outcomes(done).total() == 40


@pytest.mark.parametrize("wiring", WIRINGS)
def test_without_hours_every_repair_is_declined(wiring: str) -> None:
    """Here the rules of the business are tested: the simulation is as good as a call of them, and crashes."""
    assert outcomes(run(wiring, repairs=20, hours=0)) == {"declined": 20}


@pytest.mark.parametrize("wiring", WIRINGS)
def test_with_enough_hours_every_repair_is_promised(wiring: str) -> None:
    """Nobody needs more than four hours, and ten come for a day."""
    assert outcomes(run(wiring, repairs=20, hours=40)) == {"promised": 20}

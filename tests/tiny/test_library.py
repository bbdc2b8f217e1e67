"""Given the second application and processes that die, then every loan is answered once and the audit is valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventmesh import mesh as meshes
from eventmesh.lab.simulated_run import Crashes, run_simulated
from eventmesh.runtime.caller import WorkloadOptions
from tests.tiny import workload


@pytest.mark.parametrize("wiring", ["events", "asking"])
@pytest.mark.parametrize("durability", ["os", "fsync"])
def test_whatever_dies_every_loan_is_answered_once(wiring: str, durability: str) -> None:
    document = meshes.load(Path(__file__).parent / "mesh.yaml").resolved()
    document["wiring"], document["log"]["durability"] = wiring, durability
    mesh = meshes.parse(document)
    machines = 0.5 if durability == "fsync" else 0.0
    for seed in range(8):
        loans = workload(WorkloadOptions(seed=seed, orders=40, rate=600.0))
        run = run_simulated(mesh, loans, seed=seed, crashes=Crashes(8, broker_share=0.3, machine_share=machines))
        audit = run.audit()
        assert audit.verdict == "valid", f"seed {seed}: {audit.describe()}"
        outcomes = run.history.callers["outcome"].to_pylist()
        assert set(outcomes) <= {"granted", "declined"}, f"seed {seed}"
        copies = [run.reader.table("copies", number).to_pylist() for number in (0, 1)]
        lent = [fact["loan_id"] for facts in copies for fact in facts if fact["type"] == "CopyLent"]
        assert len(lent) == len(set(lent)) == outcomes.count("granted"), f"seed {seed}"

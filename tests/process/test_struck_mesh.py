"""Given a mesh under load, when a fault strikes a link, the disk or the clock, then it is seen to have happened, every
loan is answered once, and the audit is valid.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from eventmesh.runtime.caller import Caller
from eventmesh.runtime.faults import (
    Bandwidth,
    ClockJump,
    Cut,
    FailingSyncs,
    Fault,
    FullDisk,
    Latency,
    Reset,
    SlowDisk,
    Split,
    Stall,
)
from eventmesh.runtime.process import caller_member
from tests.process.whole_mesh import LIMITS, WholeMesh, shown
from tests.tiny import workload
from tests.tiny.test_library import library
from tests.tiny.workload import LoanOptions

LASTS_S = 0.6
ALL = {"source": "*", "target": ("desk", "broker")}
FAULTS: dict[str, Fault] = {
    "latency": Latency(**ALL, latency_ms=20, jitter_ms=10, lasts_s=LASTS_S),
    "latency of a topic": Latency(source="broker", target="*", latency_ms=50, topics=("copies",), lasts_s=LASTS_S),
    "bandwidth": Bandwidth(**ALL, rate_kb_per_s=50, lasts_s=LASTS_S),
    "stall": Stall(**ALL, lasts_s=LASTS_S),
    "some stall": Stall(**ALL, toxicity=0.5, lasts_s=LASTS_S),
    "cut": Cut(**ALL, lasts_s=LASTS_S),
    "cut one way": Cut(source="desk", target="broker", direction="to", lasts_s=LASTS_S),
    "reset": Reset(**ALL),
    "split": Split(groups=(("broker", "shelf"), ("*",)), lasts_s=LASTS_S),
    "slow disk": SlowDisk(extra_ms=30, lasts_s=LASTS_S),
    "full disk": FullDisk(lasts_s=LASTS_S),
    "failing syncs": FailingSyncs(lasts_s=LASTS_S),
    "a clock ahead": ClockJump(process="desk/0", by_ms=60_000, lasts_s=LASTS_S),
    "a clock behind": ClockJump(process="desk/0", by_ms=-60_000, lasts_s=LASTS_S),
}


@pytest.fixture(params=[True, False], ids=["unix", "flight"])
def mesh(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WholeMesh]:
    monkeypatch.setattr(caller_member, "Caller", partial(Caller, patience=LIMITS.attempt_timeout))
    made = WholeMesh(library("asking", "fsync"), tmp_path, local=request.param)
    yield made
    made.close()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_whatever_strikes_every_loan_is_answered_once(mesh: WholeMesh, fault: Fault) -> None:
    loans = workload(LoanOptions(seed=5, loans=120, rate=300.0))
    tables = [mesh.call(f"seeding-{number}", stage) for number, stage in enumerate(loans.seeding)]
    struck = mesh.strike(fault)
    tables.append(mesh.call("load", loans.load))
    mesh.heal()
    assert set(tables[-1]["outcome"].to_pylist()) <= {"granted", "declined"}
    assert sum(shown(struck).values()) > 0, "nothing shows that it happened"
    assert all(each.ended_us is not None for each in struck)
    audit = mesh.audit(pa.concat_tables(tables))
    assert audit.verdict == "valid", audit.describe()


def test_a_mesh_ends_whatever_strikes_it(mesh: WholeMesh) -> None:
    struck = mesh.strike(Stall(**ALL, lasts_s=600))
    mesh.broker.strike(SlowDisk(extra_ms=600_000, lasts_s=600))
    mesh.close()
    assert all(each.ended_us is not None for each in struck)

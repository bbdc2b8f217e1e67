"""Given services that ask each other, when asks and replies are lost, doubled or overtaken, then who asked asks again,
every loan is answered once, and the audit is valid.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from eventmesh.runtime.caller import Caller
from eventmesh.runtime.faults import Duplication, Fault, Loss, Reordering
from eventmesh.runtime.process import caller_member
from tests.process.whole_mesh import LIMITS, WholeMesh, shown
from tests.tiny import workload
from tests.tiny.test_library import library
from tests.tiny.workload import LoanOptions

LONG_S = 600.0
LOANS = 40
KINDS = [
    (Loss, {"share": 0.15}, "messages lost"),
    (Duplication, {"share": 0.5, "delay_ms": (0, 50)}, "messages doubled"),
    (Reordering, {"share": 0.3, "delay_ms": (5, 60)}, "messages overtaken"),
]


@pytest.fixture(params=[True, False], ids=["unix", "flight"])
def mesh(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WholeMesh]:
    monkeypatch.setattr(caller_member, "Caller", partial(Caller, patience=LIMITS.attempt_timeout))
    made = WholeMesh(library("asking"), tmp_path, local=request.param)
    yield made
    made.close()


def lend(mesh: WholeMesh, *faults: Fault) -> list[int]:
    """Run loans with these faults in force, and audit them; how often each fault showed."""
    loans = workload(LoanOptions(seed=3, loans=LOANS, rate=400.0))
    tables = [mesh.call(f"seeding-{number}", stage) for number, stage in enumerate(loans.seeding)]
    struck = [mesh.strike(fault) for fault in faults]
    tables.append(mesh.call("load", loans.load))
    mesh.heal()
    assert set(tables[-1]["outcome"].to_pylist()) <= {"granted", "declined"}
    audit = mesh.audit(pa.concat_tables(tables))
    assert audit.verdict == "valid", audit.describe()
    return [sum(shown(each).values()) for each in struck]


@pytest.mark.parametrize(("kind", "facts", "what"), KINDS, ids=[kind.__name__ for kind, _, _ in KINDS])
def test_whatever_becomes_of_asks_and_replies_every_loan_is_answered_once(
    mesh: WholeMesh, kind: type[Any], facts: dict[str, Any], what: str
) -> None:
    among = [("desk", "shelf"), ("generator", "desk")]
    faults = [kind(source=source, target=target, lasts_s=LONG_S, **facts) for source, target in among]
    asked, called = lend(mesh, *faults)
    assert asked > 0
    assert called > 0


@pytest.mark.parametrize("direction", ["to", "from"])
def test_who_hears_nothing_asks_again_and_is_answered_when_it_is_over(mesh: WholeMesh, direction: Any) -> None:
    lost = Loss(source="desk", target="shelf", share=1.0, direction=direction, lasts_s=0.7)
    (seen,) = lend(mesh, lost)
    assert seen > 0
    retried = sum(member.instance.counters.asks_retried for member in mesh.services.values())
    assert retried > 0


def test_appends_answers_of_the_broker_and_deliveries_are_never_lost(mesh: WholeMesh) -> None:
    (seen,) = lend(mesh, Loss(source="broker", target="*", share=1.0, lasts_s=LONG_S))
    assert seen == 0

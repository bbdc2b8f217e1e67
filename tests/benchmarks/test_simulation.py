"""Given a few seeds, then each is simulated with its crashes, audited and counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.simulation import SimulatedSeeds
from eventmesh.report import record
from eventmesh.report.progress_bar import silent
from eventmesh.report.record import AuditRecord, Run
from tests.benchmarks.conftest import small
from tests.unit.run_story import INVALID, VALID


def measured(folder: Path, said: list[str], **changes: object) -> Run:
    settings = {"orders": 20, "seeds": 2, "repetitions": 2, "crashes": 4, "processes": 1, **changes}
    return small("simulation", **settings).run(folder, seed=11, report=silent, say=said.append)


def test_seeds_are_counted_with_their_crashes_and_outcomes(tmp_path: Path, said: list[str]) -> None:
    run = measured(tmp_path, said)
    assert (run.status, run.verdict) == ("complete", "valid")
    assert run.outcomes["seeds"] == 4
    assert run.outcomes["confirmed"] == 80
    assert run.outcomes["crashes"] > 0
    assert [line.partition(":")[0] for line in said] == [f"seed {number}" for number in (11, 12, 13, 14)]
    whole, without_audit = run.figures
    assert (whole.target, len(whole.samples), len(without_audit.samples)) == (">=200", 2, 2)
    assert all(more > less for more, less in zip(without_audit.samples, whole.samples, strict=True))
    assert run.faults
    assert record.read(tmp_path) == run


def test_two_processes_find_what_one_finds(tmp_path: Path, said: list[str]) -> None:
    one, two = (measured(tmp_path / str(n), said, processes=n, repetitions=1) for n in (1, 2))
    assert (one.outcomes, one.verdict) == (two.outcomes, two.verdict)


def test_without_crashes_no_fault_is_told(tmp_path: Path, said: list[str]) -> None:
    run = measured(tmp_path, said, crashes=0, seeds=1, repetitions=1)
    assert run.faults == []
    assert run.outcomes["crashes"] == 0


def test_an_invalid_seed_is_named_and_the_run_has_no_speed(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = iter([VALID, INVALID, VALID, VALID])
    monkeypatch.setattr(AuditRecord, "of", lambda audit: next(verdicts))
    run = measured(tmp_path, said)
    assert run.verdict == "invalid"
    assert run.figures == []
    assert run.audit is not None
    assert run.audit.checks["E2"].examples == ["seed 12: order <o-17>: captured 2,400 twice"]
    assert "seed 12: order" in (tmp_path / "report.html").read_text()


def test_what_it_repeats_is_described() -> None:
    benchmark = small("simulation")
    assert isinstance(benchmark, SimulatedSeeds)
    assert benchmark.describe() == ["views: 40 seeds of 200 orders, 8 deaths each, 2 processes x 5"]

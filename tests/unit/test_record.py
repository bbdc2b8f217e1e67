"""Given a run, then run.json holds it by the agreed names, and reads back the same."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from eventmesh.audit.verdict import Audit, CheckResult, Verdict
from eventmesh.errors import InputError
from eventmesh.report import measure, record
from eventmesh.report.record import AuditRecord, Run, Spread
from eventmesh.report.versions import versions
from tests.unit.run_story import INVALID, VALID, axes, callers, point, run

AGREED = {
    "schema", "name", "seed", "commit", "machine", "versions", "config", "durability", "runtime",
    "started_at", "status", "warmup_s", "first_look", "faults", "verdict", "words", "import", "import_told", "outcomes",
    "refusals", "machine_use", "audit", "points", "agreements",
    "figures", "experiment", "asks", "timers", "inputs_refused",
}  # fmt: skip
AGREED_OF_A_POINT = {
    "wiring", "join", "axis", "repetitions", "offered_per_s", "accepted_per_s", "completed_per_s",
    "accepted_latency_ms", "completed_latency_ms", "staleness_ms", "cpu_s_per_1000_requests", "memory_mb",
    "bytes_moved", "generator_lag_ms_p99", "saturated", "audit",
}  # fmt: skip


@pytest.fixture(scope="module")
def told() -> Run:
    imported = {"rows": 9, "orders": 4, "lines": 7, "returns": 1, "refused": {"no quantity": 1}}
    figure = measure.figure("speed-up", [2.0, 3.0, 2.5], "x", target=">2")
    return run([point("views", "view", axes())], figures=[figure], imported=imported, outcomes={"confirmed": 4})


def test_the_file_has_the_agreed_names(told: Run) -> None:
    document = json.loads(told.model_dump_json())
    assert document.keys() == AGREED
    assert document["schema"] == "eventmesh.run/1"
    found = document["points"][0]
    assert found.keys() >= AGREED_OF_A_POINT
    assert found["completed_latency_ms"].keys() == {"p50", "p90", "p99", "p999", "max"}
    assert found["completed_latency_ms"]["p99"].keys() == {"median", "low", "high"}
    assert found["audit"]["checks"]["A1"].items() >= {"verdict": "valid", "examined": 243, "violations": 0}.items()
    assert document["figures"][0].keys() >= {"name", "value", "low", "high", "unit", "target", "predicted", "met"}
    assert document["figures"][0]["samples"] == [2.0, 3.0, 2.5]


def test_every_median_can_be_worked_out_again_from_the_samples(told: Run) -> None:
    found = told.points[0]
    assert Spread.of(sample.completed_per_s for sample in found.samples) == found.completed_per_s
    assert {role: Spread.of(s.memory_mb[role] for s in found.samples) for role in found.memory_mb} == found.memory_mb


def test_a_written_run_reads_back_the_same_with_its_records_beside_it(told: Run, tmp_path: Path) -> None:
    table = callers(np.arange(100) * 10_000, np.full(100, 3.0))
    name = record.slug("views", "view", axes(), 0)
    view = measure.window(table, primary="PlaceOrder")
    record.write(tmp_path / "deep" / "run", told, {name: table}, measure.histograms(name, view))
    folder = tmp_path / "deep" / "run"
    assert record.read(folder) == told
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "configuration.yaml", f"latency/{name}-accepted.hgrm", f"latency/{name}-completed.hgrm",
        f"records/{name}.arrow", "run.json",
    ]  # fmt: skip
    with pa.memory_map(str(folder / "records" / f"{name}.arrow")) as mapped:
        assert pa.ipc.open_file(mapped).read_all() == table


@pytest.mark.parametrize("change", [{"schema": "eventmesh.run/2"}, {"surprise": 1}, {"verdict": "fine"}])
def test_a_file_of_another_form_is_refused_by_name(told: Run, tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / "run.json").write_text(json.dumps(json.loads(told.model_dump_json()) | change))
    with pytest.raises(InputError, match=r"run\.json: .+ a run of the form eventmesh\.run/1.+`eventmesh runs list`"):
        record.read(tmp_path)


def test_a_folder_without_a_run_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run is recorded here"):
        record.read(tmp_path)


def test_no_figure_is_nan() -> None:
    with pytest.raises(ValidationError, match="finite"):
        Spread.of([float("nan")])


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [
        (["valid", "unknown", "invalid"], "invalid"),
        (["valid", "unknown"], "unknown"),
        (["valid"], "valid"),
        ([], "unknown"),
    ],
)
def test_the_worst_verdict_counts(verdicts: list[Verdict], worst: Verdict) -> None:
    assert record.worst(verdicts) == worst


def test_an_audit_is_taken_over_and_those_of_repetitions_are_added_up() -> None:
    bad = CheckResult("E2", "charged once", "invalid", 10, 2, ["order o-1: twice"])
    written = AuditRecord.of(Audit({"E2": bad}))
    assert written.checks["E2"].violations == 2
    assert written.verdict == "invalid"
    both = AuditRecord.together([written, VALID, INVALID])
    assert both.verdict == "invalid"
    assert both.checks["A1"].verdict == "valid"
    assert (both.checks["E2"].examined, both.checks["E2"].violations) == (10_010, 5)


def test_a_begun_run_is_aborted_and_unknown_until_it_says_otherwise(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    begun = record.start("demo", seed=1, config={"wiring": "views"}, source=tmp_path, now=now, durability="os")
    assert (begun.status, begun.verdict, begun.commit, begun.durability) == ("aborted", "unknown", "unknown", "os")
    assert int(begun.machine["cores"]) >= 1
    assert begun.versions["pyarrow"] == pa.__version__
    assert versions(["no-such-library"])["no-such-library"] == "absent"


def test_the_commit_is_that_of_the_files_and_says_when_they_differ(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        named = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *named, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "first")
    clean = record.commit(tmp_path)
    (tmp_path / "file").write_text("two")
    assert len(clean) == 12
    assert record.commit(tmp_path) == f"{clean}-dirty"
    (tmp_path / ".venv" / "eventmesh").mkdir(parents=True)
    (tmp_path / ".venv" / "eventmesh" / "file").touch()
    assert record.commit(tmp_path / ".venv" / "eventmesh") == "unknown", "that repository is somebody else's"


def test_a_records_name_is_a_safe_file_name() -> None:
    assert record.slug("views", "view", {"rtt_ms": 0.5, "a/b": 1}, 2) == "views-view-rtt_ms=0.5-a_b=1-r2"

"""Given the simulated runtime in place of Ray, then a replay is audited and its wirings are compared order by order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.replay import Play, Replayed
from eventmesh.audit.evidence import Evidence
from eventmesh.lab.simulated_run import run_simulated
from eventmesh.mesh import Mesh
from eventmesh.report import record, targets
from eventmesh.report.progress_bar import Report, silent
from eventmesh.report.record import Run
from eventmesh.shop.checks import outcomes, totals
from eventmesh.workload import Workload
from tests.benchmarks.conftest import small

TRAITS = {
    "orders": 40, "lines_mean": 3.0, "lines_max": 20, "products": 30, "zipf": 0.6, "customers": 10,
    "guest_permille": 72, "return_permille": 100,
}  # fmt: skip
MAPPING = Path(__file__).parents[2] / "configs" / "mappings" / "online-retail.yaml"


def simulated(mesh: Mesh, work: Workload, folder: Path, seed: int, report: Report) -> Replayed:
    """The same replay in virtual time; request takes ten times as long."""
    done = run_simulated(mesh, work, seed=seed)
    evidence = Evidence(mesh, done.reader, done.history)
    callers = done.history.callers
    seconds = 100.0 + seed if mesh.wiring == "request" else 10.0 + seed
    return Replayed(mesh.wiring, seconds, 2.0, callers, done.audit(), totals(evidence), outcomes(evidence))


@contextmanager
def on_simulation() -> Iterator[Play]:
    yield simulated


def forgetful(mesh: Mesh, work: Workload, folder: Path, seed: int, report: Report) -> Replayed:
    """A runtime that loses one order of the request wiring."""
    found = simulated(mesh, work, folder, seed, report)
    return replace(found, ends=found.ends.slice(1)) if mesh.wiring == "request" else found


@contextmanager
def on_forgetful() -> Iterator[Play]:
    yield forgetful


def measured(folder: Path, **changes: Any) -> Run:
    settings = {"runtime": on_simulation, "generated": TRAITS, "repetitions": 2, **changes}
    return small("replay", **settings).run(folder, seed=3, report=silent, say=lambda line: None)


def test_every_wiring_is_replayed_audited_and_ends_alike(tmp_path: Path) -> None:
    run = measured(tmp_path)
    assert (run.status, run.verdict) == ("complete", "valid")
    assert run.audit is not None
    assert run.audit.checks["E9"].examined == 6 * 40, "every order of every replay, compared with the first"
    assert run.outcomes["confirmed"] == 40
    assert run.imported is not None
    assert run.outcomes["confirmed_value_minor_units"] == run.imported["value_minor_units"]
    figures = {figure.name: figure for figure in run.figures}
    for wiring, seconds, met in (("views", [13, 14], True), ("hybrid", [13, 14], True), ("request", [103, 104], False)):
        figure = figures[f"first request to last outcome in {wiring}"]
        assert (figure.samples, figure.met, figure.target) == (seconds, met, "<60")
        assert figures[f"confirmed orders in {wiring}"].samples == [40, 40]
        assert figures[f"value of the confirmed orders in {wiring}"].value == run.imported["value_minor_units"]
    assert targets.named(run).startswith("Target missed: first request to last outcome in request: 104 s (wanted < 60)")


def test_replays_leave_records_and_distributions(tmp_path: Path) -> None:
    measured(tmp_path, repetitions=1)
    names = {f"{wiring}-replay-r0" for wiring in ("views", "hybrid", "request")}
    assert {path.stem for path in (tmp_path / "records").iterdir()} == names
    kinds = {f"{name}-{kind}" for name in names for kind in ("accepted", "completed")}
    assert {path.stem for path in (tmp_path / "latency").iterdir()} == kinds
    assert record.read(tmp_path).status == "complete"


def test_wirings_that_end_differently_make_the_run_invalid_and_take_the_speed_away(tmp_path: Path) -> None:
    run = measured(tmp_path, runtime=on_forgetful)
    assert run.verdict == "invalid"
    assert run.audit is not None
    assert run.audit.checks["E9"].violations == 2
    figures = {figure.name: figure for figure in run.figures}
    assert figures["first request to last outcome in request"].value is None
    assert figures["confirmed orders in request"].samples == [40, 40], "counts are shown"
    assert figures["first request to last outcome in views"].value is not None


def test_a_file_of_real_orders_is_replayed_and_its_refused_rows_are_kept(tmp_path: Path) -> None:
    rows = ["InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"]
    rows += [f"{number},A{number % 3},x,2,2011-01-0{number} 10:00:00,1.25,c{number},France" for number in range(1, 6)]
    rows += ["6,A1,x,0,2011-01-06 10:00:00,1.25,c6,France"]
    (tmp_path / "orders.csv").write_text("\n".join(rows) + "\n")
    given = {"input": str(tmp_path / "orders.csv"), "mapping": str(MAPPING), "wirings": ["views"], "repetitions": 1}
    assert small("replay", **given).describe() == [f"views: 5 orders of {given['input']} as fast as possible x 1"]
    run = measured(tmp_path / "run", **given)
    assert run.imported is not None
    assert (run.imported["orders"], run.imported["value_minor_units"]) == (5, 1_250)
    assert sum(run.imported["refused"].values()) == 1
    assert (run.outcomes["confirmed"], run.outcomes["confirmed_value_minor_units"]) == (5, 1_250)
    assert len((tmp_path / "run" / "refused.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize("wiring", ["views", "hybrid", "request"])
def test_any_single_wiring_can_be_replayed(wiring: str, tmp_path: Path) -> None:
    assert measured(tmp_path, wirings=[wiring], repetitions=1).verdict == "valid"

"""Given a file of orders that comes again, then a run says what it did, apart from what had been done before."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from eventmesh import mesh as meshes
from eventmesh.history import CALLERS, History
from eventmesh.lab import run as runs
from eventmesh.lab import standing_record, standing_runs
from eventmesh.lab.run import begin, conclude, count_outcomes, load_mesh
from eventmesh.lab.terminal import Screen
from eventmesh.log.storage import MemoryStorage
from eventmesh.report import measure, record
from eventmesh.report.progress_bar import silent
from eventmesh.runtime.simulated.running import SimulatedMesh
from eventmesh.shop.workloads import of_history
from tests.commands.conftest import Run
from tests.commands.small_run import CONFIGS, write_log
from tests.simulation.scenario import shop
from tests.simulation.standing_story import Asked, Standing, history

FILE = (Asked("1001"), Asked("1002"))
OTHER = (Asked("1001", (("B", 7, 900),), "c2"), Asked("1003"))


def concluded(folder: Path, mesh: Standing, rows: list[dict[str, Any]], *asked: Asked) -> record.Run:
    """What ``run --name`` leaves of the last run on the mesh."""
    workload = of_history(history(*asked))
    folder.mkdir()
    begun = begin("shop", mesh.simulation.mesh, workload, folder, seed=0)
    storage = mesh.simulation.storage
    assert isinstance(storage, MemoryStorage)
    write_log(folder / "log", storage)
    callers = pa.Table.from_pylist(rows, CALLERS)
    measured: Any = SimpleNamespace(callers=callers, cpu_s={}, seconds=2.0, asks={})
    seen = mesh.done.history
    return conclude(begun, mesh.simulation.mesh, workload, measured, seen, folder, report=silent, shared_log=True)


def test_what_a_run_did_is_counted_apart_from_what_had_been_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mesh = Standing(shop("views", "os", 0, False))
    runs = [(asked, mesh.run(*asked)) for asked in (FILE, FILE, OTHER)]
    found = [concluded(tmp_path / str(number), mesh, rows, *asked) for number, (asked, rows) in enumerate(runs)]
    assert [run.outcomes for run in found] == [{"confirmed": 2}, {"repeated": 2}, {"refused": 1, "confirmed": 1}]
    assert [run.figures[1].value for run in found] == [1.0, 0.0, 0.5], "requests of its own, per second"
    assert [run.verdict for run in found] == ["valid"] * 3
    assert [(tmp_path / str(number) / "latency").exists() for number in range(3)] == [True, False, True]
    Screen().run(found[2], tmp_path)
    said = capsys.readouterr().out
    assert "  outcomes: refused 1, confirmed 1\n" in said
    assert "  refused: PlaceOrder 1001: idempotency key reused: order 1001 was asked for before, with another" in said


def test_seeding_is_named_by_what_it_is_for_and_the_load_by_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    names = []

    def seeded(running: Any, stages: Any, progress: Any, *, name: str) -> None:
        names.append(name)

    def loaded(running: Any, name: str, load: Any, **more: Any) -> None:
        names.append(name)

    monkeypatch.setattr(runs, "seed_with", seeded)
    monkeypatch.setattr(runs, "measure_load", loaded)
    running = SimulatedMesh(meshes.load(CONFIGS / "meshes" / "views.yaml"))
    for number, asked in enumerate([FILE, FILE, FILE[:1], OTHER[1:], (Asked("1004"),)], 1):
        load_mesh(running, of_history(history(*asked)), silent, prefix=f"run-{number}-")
    assert names[1::2] == [f"run-{number}-load" for number in range(1, 6)]
    assert names[0] == names[2], "the same orders"
    assert len(set(names[::2])) == 4, "1003 and 1004 need the same, and are two orders"
    load_mesh(running, replace(of_history(history(*FILE)), seeding_name=None), silent, prefix="run-9-")
    assert names[-2] == "run-9-seeding", "an application that does not say what its seeding is for"


def test_repeats_are_no_work_done() -> None:
    rows = [
        {"command": "PlaceOrder", "outcome": outcome, "repeated": repeated}
        for outcome, repeated in [
            ("confirmed", False), ("confirmed", True), ("rejected", False), ("refused", False), (None, None),
            ("confirmed", None),
        ]
    ]  # fmt: skip
    callers = pa.Table.from_pylist(rows, CALLERS)
    assert measure.work_done(callers) == 3
    assert count_outcomes(callers) == {"confirmed": 2, "repeated": 1, "rejected": 1, "refused": 1, "unanswered": 1}


def test_what_callers_of_an_earlier_version_were_told_is_still_read(tmp_path: Path) -> None:
    old = CALLERS.empty_table().drop_columns(["repeated", "content"])
    row = {"request": 0, "command": "PlaceOrder", "key": "1001", "outcome": "confirmed", "attempts": 1}
    old = pa.concat_tables([old, pa.Table.from_pylist([row], old.schema)])
    record.write_table(tmp_path / "run-1.arrow", old)
    told = standing_runs.all_callers([tmp_path / "run-1.arrow"])
    assert told.schema == CALLERS
    assert of_history(history(*FILE), asked=told).seeding[-1].payload.to_pylist() == [{"sku": "A", "quantity": 1}]
    History(old, [], True).write(tmp_path)
    assert History.read(tmp_path).callers.schema == CALLERS
    assert standing_runs.all_callers([]).num_rows == 0


def test_of_what_was_refused_or_is_another_kind_of_request_everything_is_brought_in() -> None:
    def told(command: str, outcome: str | None) -> pa.Table:
        return pa.Table.from_pylist([{"command": command, "key": "1001", "outcome": outcome}], CALLERS)

    for earlier, units in {("PlaceOrder", "refused"): 2, ("PlaceOrder", None): 2, ("RequestReturn", "recorded"): 2,
                           ("PlaceOrder", "rejected"): 1, ("PlaceOrder", "cancelled"): 1}.items():  # fmt: skip
        workload = of_history(history(*FILE), asked=told(*earlier))
        assert workload.seeding[-1].payload["quantity"].to_pylist() == [units], earlier
        assert len(workload.load) == 2
    assert of_history(history(*FILE, *FILE)).seeding[-1].payload["quantity"].to_pylist() == [2]
    known = pa.concat_tables([told("PlaceOrder", "confirmed"), told("PlaceOrder", "confirmed")])
    assert of_history(history(FILE[0]), asked=known).seeding == []


@pytest.mark.parametrize(("told", "seeding"), [("confirmed", 3), ("refused", 5)])
def test_a_dry_run_counts_what_would_be_brought_in(
    eventmesh: Run, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, told: str, seeding: int
) -> None:
    """The mesh knows the order of one product, or has refused it; the other order is new."""
    folder = tmp_path_factory.mktemp("up")
    monkeypatch.setenv(standing_record.STATE_VARIABLE, str(folder))
    data = folder / "data"
    up = standing_record.Standing(name="shop", data=data, ray="", since=datetime(2026, 3, 1, tzinfo=UTC))
    (folder / "shop.json").write_text(up.model_dump_json(by_alias=True))
    row = {"command": "PlaceOrder", "key": "1", "outcome": told, "attempts": 1}
    record.write_table(data / "callers" / "run-1.arrow", pa.Table.from_pylist([row], CALLERS))
    (data / "mesh.yaml").write_text((CONFIGS / "meshes" / "views.yaml").read_text())
    sales = ["InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"]
    sales += [f"{n},A{n},x,1,2011-01-04 10:00:00,1.25,c1,France" for n in (1, 2)]
    (folder / "sales.csv").write_text("\n".join(sales) + "\n")
    mapping = CONFIGS / "mappings" / "online-retail.yaml"
    words = ["--input", folder / "sales.csv", "--mapping", mapping, "--dry-run", "--json"]
    summary = json.loads(eventmesh("run", "--name", "shop", *words).out)
    assert (summary["requests"], summary["seeding"]) == (2, seeding)

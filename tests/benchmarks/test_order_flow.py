"""Given meshes of a known capacity, then the steps of load find it, and records and reports say so."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import order_flow
from benchmarks.load_steps import Loaded, LoadSettings, Subject
from eventmesh.report import conclusions, headline, record, report
from eventmesh.report.progress_bar import silent
from eventmesh.report.record import AuditRecord, MachineUse, Run
from eventmesh.shop.order_history import OrderHistory
from tests.benchmarks.conftest import small
from tests.unit.run_story import INVALID, VALID, axes, callers, point

STEPS = [100, 200, 400, 800]


@dataclass(frozen=True)
class Made:
    """A load's traces, as a mesh on Ray leaves them."""

    callers: pa.Table
    staleness_us: list[int] = field(default_factory=lambda: [900, 1_100])
    cpu_s: Mapping[str, float] = field(default_factory=lambda: {"orders": 0.5, "generator": 0.1})
    memory_mb: Mapping[str, float] = field(default_factory=lambda: {"orders": 120.0})
    bytes_moved: int = 1_000


@dataclass
class MadeUp:
    """Answers 20 ms after an order is due up to ``capacity`` orders/s, and above it as late as the backlog makes it."""

    capacity: float
    audit: AuditRecord = VALID
    cold_ms: float = 0.0  # latency more for what is due within the first second
    stop_at: int | None = None
    disturbed: tuple[int, ...] = ()  # meshes beside which other programs took half of the machine
    seen: list[tuple[float, int]] = field(default_factory=list)  # load and seed of each mesh

    def __call__(
        self, subject: Subject, steps: Mapping[float, OrderHistory], settings: LoadSettings, folder: Path, seed: int
    ) -> Loaded:
        assert folder.is_dir()
        ((offered, orders),) = steps.items()
        if len(self.seen) == self.stop_at:
            raise KeyboardInterrupt
        self.seen.append((offered, seed))
        due = np.arange(orders.requests.num_rows) * 1e6 / offered
        behind = max(0.0, 1 - self.capacity / offered)
        latency = 20 + behind * due / 1_000 + np.where(due < 1e6, self.cold_ms, 0)
        use = MachineUse(others=0.5 * (len(self.seen) - 1 in self.disturbed), stolen=0)
        made = Made(callers(due, latency, accepted_ms=np.full(len(due), 3.0)))
        return Loaded([made], self.audit, [use])  # type: ignore[list-item]


def measured(mesh: MadeUp, folder: Path, **changes: Any) -> Run:
    settings = {"offered_per_s": STEPS, "window_s": 2, "warmup_s": 1, "repetitions": 2, **changes}
    benchmark = small("order-flow", runtime=lambda: nullcontext(mesh), **settings)
    return benchmark.run(folder, seed=7, report=silent, say=lambda line: None)


def sentence(run: Run) -> str:
    return headline.of_run(run, conclusions.of_run(run)).sentence


def test_the_greatest_step_that_was_held_is_found_and_none_beyond_the_first_that_was_not(tmp_path: Path) -> None:
    mesh = MadeUp(capacity=250)
    run = measured(mesh, tmp_path)
    assert mesh.seen == [(load, seed) for load in (100, 200, 400) for seed in (7, 8)]
    figure = run.figures[0]
    assert figure.name == "completed orders/s at p99 < 1 s"
    assert figure.samples == pytest.approx([200, 200], rel=0.01)
    assert figure.met is False
    assert (run.status, run.verdict) == ("complete", "valid")
    assert sentence(run) == "Views (local view) held 200 but not 400 orders/s, with a completed p99 below 1 s."


def test_a_target_that_is_reached_is_met(tmp_path: Path) -> None:
    run = measured(MadeUp(capacity=1_000), tmp_path, target=">=750")
    assert run.figures[0].met is True
    assert "held at least 800 orders/s" in sentence(run)


def test_the_capacity_of_a_mesh_that_holds_not_even_the_smallest_step_is_not_measured(tmp_path: Path) -> None:
    run = measured(MadeUp(capacity=20), tmp_path)
    assert [point.axis["offered_per_s"] for point in run.points] == [100]
    assert (run.figures[0].value, run.figures[0].met) == (None, None)


def test_what_is_slow_within_the_warm_up_only_counts_for_nothing(tmp_path: Path) -> None:
    run = measured(MadeUp(capacity=1_000, cold_ms=900), tmp_path)
    assert "held at least 800 orders/s" in sentence(run)
    latency = run.points[0].completed_latency_ms
    assert latency is not None
    assert latency.max.high == pytest.approx(20, rel=0.01)


def test_a_fast_wrong_mesh_has_no_figure(tmp_path: Path) -> None:
    run = measured(MadeUp(capacity=1_000, audit=INVALID), tmp_path)
    assert run.verdict == "invalid"
    assert (run.figures[0].value, run.figures[0].met) == (None, None)
    assert "invalid" in sentence(run)


def test_a_disturbed_try_is_made_up_for_by_another_before_the_next_load_is_decided_on(tmp_path: Path) -> None:
    mesh = MadeUp(capacity=250, disturbed=(1, 4, 5, 6, 7))
    run = measured(mesh, tmp_path)
    assert [load for load, _ in mesh.seen] == [100] * 3 + [200] * 4 + [400] * 3, "as often again, and no more"
    assert [point.disturbed_repetitions for point in run.points] == [1, 3, 1]
    assert run.figures[0].samples == pytest.approx([100, 100], rel=0.01), "200 was tried undisturbed once"


def test_every_repetition_leaves_records_and_both_distributions_and_no_log(tmp_path: Path) -> None:
    run = measured(MadeUp(capacity=250), tmp_path)
    names = {record.slug("views", "view", point.axis, number) for point in run.points for number in range(2)}
    assert {path.stem for path in (tmp_path / "records").iterdir()} == names
    kinds = {f"{name}-{kind}" for name in names for kind in ("accepted", "completed")}
    assert {path.stem for path in (tmp_path / "latency").iterdir()} == kinds
    held = (tmp_path / "latency" / "views-view-offered_per_s=200-r0-completed.hgrm").read_text()
    assert float(held.split("Mean    =")[1].split(",")[0]) == pytest.approx(20, rel=0.01), "milliseconds"
    assert not (tmp_path / "work").exists()
    assert record.read(tmp_path) == run
    assert (tmp_path / "report.html").read_text() == report.render(run)


@pytest.mark.parametrize(("stop_at", "repetitions"), [(0, []), (3, [2, 1])])
def test_what_was_measured_is_kept_when_it_is_stopped(stop_at: int, repetitions: list[int], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        measured(MadeUp(capacity=1_000, stop_at=stop_at), tmp_path)
    kept = record.read(tmp_path)
    assert kept.status == "aborted"
    assert (tmp_path / "report.html").is_file()
    assert [point.repetitions for point in kept.points] == repetitions
    assert not (tmp_path / "work").exists()


def test_repetitions_that_measured_the_generator_give_no_figure() -> None:
    late, sound = (
        [each for load in (50, 100) for each in point("views", "view", axes(load=load), lag_ms=lag).samples]
        for lag in (5, 0.02)
    )
    assert order_flow.completed_at_capacity(late) == []
    both = [*sound[:3], *late[3:]]
    assert order_flow.completed_at_capacity(both) == [each.completed_per_s for each in sound[:3]]

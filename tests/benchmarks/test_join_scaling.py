"""Given ways of known capacities, then each is measured in turns on meshes of its own, within the time there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import catalog
from benchmarks.benchmark import Benchmark
from benchmarks.join_scaling import JoinScaling
from benchmarks.load_steps import Loaded, LoadSettings, Subject
from eventmesh.report import conclusions, headline
from eventmesh.report.progress_bar import silent
from eventmesh.report.record import MachineUse, Run
from eventmesh.shop.order_history import OrderHistory
from tests.benchmarks.conftest import FILES, small
from tests.benchmarks.test_order_flow import Made
from tests.unit.run_story import VALID, callers

WAYS = [{"mesh": "views", "join": "view"}, {"mesh": "hybrid", "join": "batched"}]
JOINED = ["customers", "prices", "stock"]
BUSY = MachineUse(others=0.48, stolen=0.0)


@dataclass
class MadeUp:
    """Answers as fast as its wiring does up to what it holds, and above as late as the backlog makes it."""

    holds: Mapping[str, float]
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    mesh_s: float = 0.0  # how long a mesh takes, by a clock of its own
    busy: Callable[[int], bool] = lambda number: False
    now: float = 0.0
    meshes: list[tuple[str, float, list[str], bool]] = field(default_factory=list)

    def __call__(
        self, subject: Subject, steps: Mapping[float, OrderHistory], settings: LoadSettings, folder: Path, seed: int
    ) -> Loaded:
        orders, wiring = subject.mesh.resolved()["services"]["orders"], subject.mesh.wiring
        use = BUSY if self.busy(len(self.meshes)) else MachineUse(others=0.01, stolen=0.0)
        self.meshes.append((wiring, subject.rtt_ms, orders["joins"], orders["batched"]))
        self.now += self.mesh_s
        loads: list[Any] = []
        for offered, asked in steps.items():
            due = np.arange(asked.requests.num_rows) * 1e6 / offered
            behind = max(0.0, 1 - self.holds[wiring] / offered)
            slow = 10 if use is BUSY else 1  # whatever is measured meanwhile is wrong
            minute = 1 + seed % 7 / 100  # the machine is not the same in every turn
            loads.append(Made(callers(due, self.latency_ms.get(wiring, 20) * minute * slow + behind * due / 1_000)))
            if behind:
                break
        return Loaded(loads, VALID, [use] * len(loads))

    def clock(self) -> float:
        return self.now


def measured(made_up: MadeUp, folder: Path, **changes: Any) -> Run:
    settings = {
        "ways": WAYS, "joined_services": [3], "rtt_ms": [1], "offered_per_s": [50, 200, 800], "window_s": 3,
        "warmup_s": 1, "repetitions": 2, **changes,
    }  # fmt: skip
    benchmark = small("join-scaling", runtime=lambda: nullcontext(made_up), **settings)
    assert isinstance(benchmark, JoinScaling)
    benchmark.clock = made_up.clock
    return benchmark.run(folder, seed=1, report=silent, say=lambda line: None)


def sentence(run: Run) -> str:
    return headline.of_run(run, conclusions.of_run(run)).sentence


def test_each_way_climbs_until_it_saturates_and_the_ways_take_turns_forwards_and_backwards(tmp_path: Path) -> None:
    holds = {"views": 200, "hybrid": 50}
    made_up = MadeUp(holds)
    run = measured(made_up, tmp_path, repetitions=3)
    views, hybrid = ("views", 1, JOINED, False), ("hybrid", 1, JOINED, True)
    assert made_up.meshes == [views, hybrid, hybrid, views, views, hybrid]
    found = conclusions.of_run(run).capacities
    assert {way.wiring: getattr(each, "held", None) for (_, way), each in found.items()} == holds
    assert len(run.points) == 3 + 2, "each way stops at its first saturated step"
    assert run.figures[0].met is True, "Little's law, of what is not saturated"


def test_a_disturbed_turn_is_made_up_for_by_another_of_all_its_ways(tmp_path: Path) -> None:
    made_up = MadeUp({"views": 1_000, "hybrid": 1_000}, busy=lambda number: number == 1)
    run = measured(made_up, tmp_path)
    assert len(made_up.meshes) == 3 * 2
    point = run.points[-1]
    assert {point.wiring: point.disturbed_repetitions for point in run.points} == {"views": 0, "hybrid": 1}
    assert [each.disturbed for each in point.samples] == ["other programs used 48 % of the machine", None, None]
    assert point.completed_latency_ms is not None
    assert point.completed_latency_ms.p99.high < 25, "what was measured beside other programs is in no figure"


def test_only_the_scenario_that_was_disturbed_is_measured_again(tmp_path: Path) -> None:
    made_up = MadeUp({"views": 1_000, "hybrid": 1_000}, busy=lambda number: number == 0)
    measured(made_up, tmp_path, rtt_ms=[0, 1], repetitions=1)
    assert [rtt for _, rtt, _, _ in made_up.meshes] == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize(("budget", "meshes"), [(50, 4), (60, 6), (79, 6), (80, 8), (1_000, 10), (15, 1)])
def test_no_turn_is_begun_that_would_not_be_done_in_time(budget: float, meshes: int, tmp_path: Path) -> None:
    made_up = MadeUp({"views": 1_000, "hybrid": 1_000}, mesh_s=10)
    run = measured(made_up, tmp_path, repetitions=5, time_budget_s=budget)
    assert len(made_up.meshes) == meshes
    assert made_up.now <= budget
    assert run.status == "complete"


def test_where_other_programs_are_busy_throughout_the_time_is_used_and_nothing_is_concluded(tmp_path: Path) -> None:
    made_up = MadeUp({"views": 1_000, "hybrid": 20}, mesh_s=10, busy=lambda number: True)
    run = measured(made_up, tmp_path, repetitions=3, time_budget_s=100)
    assert len(made_up.meshes) == 10
    assert sentence(run) == (
        "No conclusion: other programs used 48 % of this machine or more during every repetition. "
        "Close them and run again."
    )
    assert "disturbed: other programs used 48 % of the machine" in (tmp_path / "report.html").read_text()


def first_look(made_up: MadeUp, folder: Path) -> Run:
    quick = catalog.load(FILES, "join-scaling", quick=True)
    assert isinstance(quick, JoinScaling)
    look = JoinScaling(
        quick.settings, quick=True, meshes=quick.meshes, runtime=lambda: nullcontext(made_up), clock=made_up.clock
    )
    return look.run(folder, seed=1, report=silent, say=lambda line: None)


def test_a_first_look_keeps_its_time_concludes_at_its_loads_and_says_what_would_decide(tmp_path: Path) -> None:
    made_up = MadeUp(
        {"views": 5_000, "hybrid": 2_000, "request": 100}, {"views": 50, "hybrid": 75, "request": 25}, mesh_s=17
    )
    run = first_look(made_up, tmp_path)
    assert len(made_up.meshes) == 4 * 3
    assert made_up.now <= 225
    found = conclusions.of_run(run)
    assert found.capacities == {}
    assert sentence(run).startswith("Listening completed orders 1.4")
    assert "times as fast as asking (batched queries) at 300 orders/s" in sentence(run)
    assert {each.way.wiring: each.kept for each in found.kept_up if each.load == 300} == {
        "views": True, "hybrid": True, "request": False,
    }  # fmt: skip
    for text in ((tmp_path / "report.html").read_text(), (tmp_path / "summary.md").read_text()):
        assert "first look" in text
        assert "eventmesh bench run join-scaling" in text


def test_what_is_said_of_the_full_benchmark_is_so() -> None:
    def settings(benchmark: Benchmark) -> Any:
        return benchmark.settings  # type: ignore[attr-defined]

    full, quick = (catalog.load(FILES, "join-scaling", quick=each) for each in (False, True))
    assert isinstance(full, JoinScaling)
    look = settings(quick).first_look
    assert look.decides == f"eventmesh bench run {full.name}"
    assert look.minutes == pytest.approx(full.minutes(), rel=0.15)
    assert full.minutes() * 60 < settings(full).time_budget_s
    assert settings(full).first_look is None
    assert settings(quick).time_budget_s <= 4 * 60, "five minutes, and one of them is for the set-up"

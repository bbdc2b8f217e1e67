"""Given trials whose ends are made up, then valid runs are counted, times told, and what is wrong has no time."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.recovery_trials import OnRay, Overload, Resume, Resumed, _stages
from eventmesh.audit.verdict import Audit, CheckResult, Verdict
from eventmesh.errors import ConfigurationError, EnvironmentUnavailable
from eventmesh.lab.overload import Overloaded, Schedule, normal_after_s
from eventmesh.lab.recovery import Death, Recovery, Survived
from eventmesh.mesh import Mesh
from eventmesh.report import record
from eventmesh.report.progress_bar import silent
from eventmesh.report.record import Figure, Run
from eventmesh.workload import Workload
from tests.benchmarks.conftest import small
from tests.unit.run_story import callers

VICTIMS = [
    {"service": "orders", "how": "SIGKILL", "watched": "orders"},
    {"service": "generator", "how": "SIGKILL", "watched": None},
]
KILLS = {
    "victims": VICTIMS, "topic": "orders", "offsets": [10, 90], "orders": 20, "rate": 100, "products": 5, "lease_s": 2,
}  # fmt: skip
RESUME = {
    "facts": 1_001, "window": 40, "victims": ["orders", "broker"], "rate": 50, "orders": 10, "products": 5,
    "repetitions": 3, "bare_restarts": 1, "patience_s": 9, "audited": False, "target": "<5",
}  # fmt: skip
OVERLOAD = {
    "held_per_s": 100, "times": 3, "surge_s": 1, "calm_share": 0.5, "calm_s": 2, "objective_s": 1, "products": 5,
    "open_orders_max": 10, "asks_queued_rows_max": 10, "inputs_queued_rows_max": 10, "repetitions": 2,
}  # fmt: skip


def audit(verdict: Verdict) -> Audit:
    return Audit({"E1": CheckResult("E1", "acknowledged is kept", verdict, 20, int(verdict == "invalid"), [])})


@dataclass
class MadeUp:
    """Survives within a tenth of a second per run so far, resumes after 8 s, is overloaded for half a second more."""

    verdicts: dict[int, Verdict] = field(default_factory=dict)  # of the n-th run; valid, where it is not named
    stuck: set[int] = field(default_factory=set)
    overloaded: Verdict = "valid"
    deaths: list[tuple[int, Death]] = field(default_factory=list)
    folders: set[Path] = field(default_factory=set)

    def survive(
        self, mesh: Mesh, workload: Workload, death: Death, folder: Path, *, seed: int, lease_s: float
    ) -> Survived:
        assert folder.is_dir()
        self.folders.add(folder)
        number = len(self.deaths)
        self.deaths.append((seed, death))
        if number in self.stuck:
            raise EnvironmentUnavailable("waited 60 s for a fact")
        recovery = Recovery(death, 1, death.moment.offset, 10, 11, (number + 1) / 10, 1)
        return Survived(recovery, audit(self.verdicts.get(number, "valid")))

    def resume(self, mesh: Mesh, part: Resume, folder: Path, *, seed: int) -> list[Resumed]:
        return [Resumed(victim, part.facts, 8.0 + seed, 2.0, None) for victim in part.victims]

    def overload(self, mesh: Mesh, part: Overload, folder: Path, *, seed: int) -> Overloaded:
        due = part.schedule.at()
        late = due < part.schedule.surge_us * 1.5
        found = callers(due, np.where(late, 3_000.0, 20.0))
        found = found.set_column(found.schema.names.index("throttled"), "throttled", [np.int32(late & (due % 2 == 0))])
        names = ("commands_queued_rows_max", "asked_rows_max", "inputs_queued_rows_max", "delivered_rows_max")
        queues = {f"gateway/{n}": {name: 9 + n for name in names} for n in range(2)}
        return Overloaded(found, callers(due, np.full(len(due), 20.0)), queues, {"orders": 50.0}, {"orders": 60.0},
                          audit(self.overloaded))  # fmt: skip


def measured(ground: MadeUp, folder: Path, said: list[str] | None = None, **changes: Any) -> Run:
    parts = {"kills": KILLS, "resume": RESUME, "overload": OVERLOAD, "repetitions": 3, **changes}
    benchmark = small("recovery", runtime=lambda: nullcontext(ground), **parts)
    return benchmark.run(folder, seed=0, report=silent, say=(said if said is not None else []).append)


def figures(run: Run) -> dict[str, Figure]:
    return {figure.name: figure for figure in run.figures}


def test_each_victim_dies_in_every_run_at_offsets_that_the_seed_draws(tmp_path: Path) -> None:
    ground, again = MadeUp(), MadeUp()
    run = measured(ground, tmp_path / "a", resume=None, overload=None)
    measured(again, tmp_path / "b", resume=None, overload=None)
    assert ground.deaths == again.deaths, "the same seeds, the same deaths"
    assert [(seed, death.fault.process) for seed, death in ground.deaths] == [
        (seed, victim) for seed in range(3) for victim in ("orders/0", "generator")
    ]
    offsets = [death.moment.offset for _, death in ground.deaths]
    assert len(set(offsets)) > 3
    assert all(10 <= offset <= 90 for offset in offsets)
    found = figures(run)
    assert found["valid runs, orders killed"].met is True
    assert found["until work goes on, orders killed"].samples == pytest.approx([0.1, 0.3, 0.5])
    assert found["until work goes on, generator killed"].value == pytest.approx(0.4)
    assert (run.verdict, run.outcomes) == ("valid", {"runs with a fault": 6, "valid runs": 6})
    assert not any(folder.exists() for folder in ground.folders), "logs are large"
    assert record.read(tmp_path / "a") == run


def test_a_victim_with_an_invalid_run_is_counted_and_has_no_time(tmp_path: Path) -> None:
    run = measured(MadeUp(verdicts={2: "invalid"}), tmp_path, resume=None, overload=None)
    found = figures(run)
    assert run.verdict == "invalid"
    assert (found["valid runs, orders killed"].value, found["valid runs, orders killed"].met) == (2, False)
    assert found["until work goes on, orders killed"].value is None
    assert found["until work goes on, generator killed"].value is not None
    assert run.outcomes["invalid runs"] == 1


def test_a_run_that_never_ends_is_counted_and_the_others_go_on(tmp_path: Path, said: list[str]) -> None:
    run = measured(MadeUp(stuck={0}), tmp_path, said, resume=None, overload=None)
    assert len(said) == 6
    assert said[0].endswith("waited 60 s for a fact")
    assert (run.status, run.verdict) == ("complete", "unknown")
    assert figures(run)["valid runs, orders killed"].value == 2
    assert run.outcomes["unknown runs"] == 1


def test_what_a_bare_actor_takes_is_no_fault_of_the_mesh(tmp_path: Path) -> None:
    found = figures(measured(MadeUp(), tmp_path, kills=None))
    behind = "orders killed behind 1,001 facts, not audited"
    assert found[f"until effects resume, {behind}"].samples == [8, 9, 10]
    beyond = found[f"the same beyond Ray's restart of a bare actor, {behind}"]
    assert (beyond.samples, beyond.target, beyond.met) == ([6, 7, 8], "<5", False)


def test_overload_is_told_by_who_was_throttled_and_when_all_was_as_before(tmp_path: Path) -> None:
    run = measured(MadeUp(), tmp_path, kills=None, resume=None)
    found = figures(run)
    assert found["orders throttled at 300 orders/s"].value == pytest.approx(0.67, abs=0.01)
    assert found["until normal service after 300 orders/s"].value == pytest.approx(0.5, abs=0.02)
    assert found["orders throttled afterwards"].met is True
    assert found["private memory of orders after"].value == 60
    commands = found["most commands waiting in a task, in any service"]
    assert (commands.value, commands.target, commands.met) == (10, "<=10", True)
    assert found["most asks waiting in an inbox, in any service"].value == 10
    assert {path.stem for path in (tmp_path / "records").iterdir()} >= {"overload-r1", "overload-afterwards-r0"}


def test_a_wrong_overload_has_no_figure(tmp_path: Path) -> None:
    run = measured(MadeUp(overloaded="invalid"), tmp_path, kills=None, resume=None)
    assert run.verdict == "invalid"
    assert all(figure.value is None for figure in run.figures)


def test_service_that_is_late_to_the_very_end_is_not_normal() -> None:
    schedule = Schedule(10, 10.0, 10, 10.0)
    late = np.full(20, 20.0)
    assert normal_after_s(callers(schedule.at(), late), schedule, 1.0) == 0
    late[15] = 1_500
    assert normal_after_s(callers(schedule.at(), late), schedule, 1.0) == pytest.approx(0.6)
    late[19] = np.nan
    assert normal_after_s(callers(schedule.at(), late), schedule, 1.0) is None


def test_there_is_stock_for_the_filling_and_for_every_load() -> None:
    filling, *loads = _stages(Resume(**RESUME), seed=1)
    assert [len(each.load) for each in (filling, *loads)] == [251, 10, 10]
    restocked = next(stage for stage in filling.seeding if stage.commands[0] == "Restock")
    stock = dict(zip(restocked.keys, restocked.payload.column("quantity").to_pylist(), strict=True))
    for each in (filling, *loads):
        for lines in each.load.payload.column("lines").to_pylist():
            for line in lines:
                stock[line["sku"]] -= line["quantity"]
    assert set(stock.values()) == {0}


def test_a_fault_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="SIGKILL"):
        small("recovery", kills={**KILLS, "victims": [{**VICTIMS[0], "how": "SIGHUP"}]})


def test_what_it_does_is_described() -> None:
    assert small("recovery").describe() == [
        *(f"{victim} at an offset of orders from 50 to 1000, 600 orders at 200/s x 20" for victim in (
            "orders killed", "broker killed", "generator killed", "orders stopped", "broker stopped")),
        "orders and broker killed behind 1,000,000 facts x 3",
        "12,000 orders/s for 5 s x 3",
    ]  # fmt: skip
    assert OnRay.survive.__doc__

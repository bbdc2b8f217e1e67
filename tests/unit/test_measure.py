"""Given callers' records made by hand, then throughput, latency, saturation and the laws are as worked out by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmesh.report import measure, predictions, repetitions, ways
from eventmesh.report.measure import Window
from eventmesh.report.record import MachineUse, Repetition
from tests.unit.run_story import INVALID, VALID, axes, callers, repetition

START = 1_700_000_000_000_000


def due(count: int, per_s: float) -> np.ndarray:
    return START + (np.arange(count) * (1e6 / per_s)).astype(np.int64)


def cut(table: pa.Table, warmup_s: float = 0.0, window_s: float | None = None, closed: bool = False) -> Window:
    return measure.window(table, primary="PlaceOrder", warmup_s=warmup_s, window_s=window_s, closed=closed)


def measured(table: pa.Table, **more: object) -> Repetition:
    given = {"primary": "PlaceOrder", "wiring": "views", "join": "view", "axis": axes(), "audit": VALID}
    return measure.point(table, **(given | more))  # type: ignore[arg-type]


def test_a_steady_load_is_neither_lost_nor_invented() -> None:
    found = measured(callers(due(1_000, 100), np.full(1_000, 20.0), accepted_ms=np.full(1_000, 2.0)), warmup_s=2)
    assert found.offered_per_s == pytest.approx(100, rel=0.001)
    assert found.accepted_per_s == pytest.approx(100, rel=0.002)
    assert found.completed_per_s == pytest.approx(100, rel=0.003)
    assert found.counts.offered == found.counts.completed == 800
    assert found.accepted_latency_ms is not None
    assert found.accepted_latency_ms.p50 == pytest.approx(2, rel=0.002)
    assert found.completed_latency_ms is not None
    assert found.completed_latency_ms.max == pytest.approx(20, rel=0.002)
    assert not found.saturated


def test_the_warm_up_is_cut_by_the_intended_time() -> None:
    latency = np.where(np.arange(1_000) < 200, 500.0, 5.0)
    cold, warm = (measured(callers(due(1_000, 100), latency), warmup_s=warmup) for warmup in (0, 2))
    assert cold.completed_latency_ms is not None
    assert cold.completed_latency_ms.max == pytest.approx(500, rel=0.002)
    assert warm.completed_latency_ms is not None
    assert warm.completed_latency_ms.max == pytest.approx(5, rel=0.002)


def test_other_commands_are_no_orders() -> None:
    table = callers(due(100, 100), np.full(100, 5.0))
    renamed = table.set_column(1, "command", pa.array(["PlaceOrder"] * 60 + ["RequestReturn"] * 40))
    assert measured(renamed).counts.offered == 60
    with pytest.raises(ValueError, match="hold no CancelOrder"):
        measured(table, primary="CancelOrder")


def test_latency_counts_from_the_intended_time_also_when_the_generator_was_late() -> None:
    found = measured(callers(due(500, 100), np.full(500, 40.0), lag_ms=30))
    assert found.completed_latency_ms is not None
    assert found.completed_latency_ms.p50 == pytest.approx(40, rel=0.002)
    assert found.generator_lag_ms_p99 == pytest.approx(30)


def test_a_stall_shows_in_the_mean_as_the_open_loop_law_predicts() -> None:
    at = due(30_000, 1_000)
    into_run = (at - START) / 1e6
    stalled = np.where(into_run < 15, (15 - into_run) * 1_000, 0) + 50
    view = cut(callers(at, stalled))
    mean_s = float(view.latencies(view.completed).mean()) / 1e6
    assert mean_s == pytest.approx(predictions.stall_mean_open_s(15, 30, 0.05), rel=0.01)


def test_an_order_without_an_answer_stays_in_the_distribution_with_the_time_it_was_seen_waiting() -> None:
    latency = np.full(1_000, 5.0)
    latency[100:150] = np.nan
    found = measured(callers(due(1_000, 100), latency, accepted_ms=np.full(1_000, 1.0)))
    assert found.counts.unanswered == 50
    assert found.completed_latency_ms is not None
    assert found.completed_latency_ms.p99 > 8_000
    assert found.accepted_latency_ms is not None
    assert found.accepted_latency_ms.max < 2


def test_a_refused_order_is_no_fast_completion() -> None:
    latency = np.where(np.arange(1_000) % 10 == 0, 0.1, 50.0)
    table = callers(due(1_000, 100), latency)
    refused = ["refused" if index % 10 == 0 else "confirmed" for index in range(1_000)]
    found = measured(table.set_column(7, "outcome", pa.array(refused)))
    assert found.counts.refused == 100
    assert found.counts.completed == 900
    assert found.completed_latency_ms is not None
    assert found.completed_latency_ms.p50 == pytest.approx(50, rel=0.002)
    assert found.saturated, "a tenth of the load was turned away"


@pytest.mark.parametrize(("share", "saturated"), [(0.90, True), (0.97, False)])
def test_saturated_where_too_few_complete_within_the_window(share: float, saturated: bool) -> None:
    at = due(1_000, 100)
    late = np.where(np.arange(1_000) < share * 1_000, 5.0, 60_000.0)
    assert measured(callers(at, late[np.random.default_rng(1).permutation(1_000)])).saturated is saturated


@pytest.mark.parametrize(
    ("growth", "saturated"),
    [(0.03, True), (0.002, False)],
    ids=["three seconds of backlog in a hundred", "a drift below what a backlog makes"],
)
def test_saturated_where_latency_climbs_with_the_backlog(growth: float, saturated: bool) -> None:
    at = due(2_000, 100)
    found = measured(callers(at, 5 + growth * (at - START) / 1_000))
    assert found.completed_per_s > measure.COMPLETED_SHARE_MIN * found.offered_per_s
    assert found.saturated is saturated


@pytest.mark.parametrize(("stop_ms", "saturated"), [(150, False), (1_000, True)])
def test_a_moment_in_which_the_machine_stops_is_no_backlog(stop_ms: float, saturated: bool) -> None:
    at = due(900, 300)
    into_ms = (at - START) / 1_000
    steady = 20 + np.arange(900) / 900  # it rises from third to third, as it does in half of all windows
    waiting = np.where((into_ms > 2_000) & (into_ms < 2_000 + stop_ms), 2_000 + stop_ms - into_ms, 0)
    assert measure.grows(cut(callers(at, steady + waiting))) is saturated


def test_one_partition_of_four_that_falls_behind_is_a_backlog() -> None:
    at = due(2_000, 100)
    behind = np.where(np.arange(2_000) % 4 == 0, 0.05 * (at - START) / 1_000, 0)
    assert measured(callers(at, 5 + behind + np.arange(2_000) / 1_000)).saturated


def test_a_hump_in_the_middle_is_no_growth() -> None:
    third = np.arange(2_000) // 667
    assert not measured(callers(due(2_000, 100), np.choose(third, [5.0, 900.0, 400.0]))).saturated


def test_a_closed_loop_counts_from_sending_and_is_saturated_by_nature() -> None:
    table = callers(np.full(100, START), np.arange(100) * 10.0 + 10)
    sent = pa.array(START + np.arange(100) * 10_000)
    found = measured(table.set_column(4, "sent_at", sent), closed=True)
    assert found.saturated
    assert found.generator_lag_ms_p99 == 0
    assert found.completed_latency_ms is not None
    assert found.completed_latency_ms.p50 == pytest.approx(10, rel=0.002)
    assert found.completed_per_s == pytest.approx(100, rel=0.02)
    with pytest.raises(ValueError, match="nothing of PlaceOrder is left"):
        measured(table)


def test_nothing_is_measured_where_the_warm_up_takes_it_all() -> None:
    with pytest.raises(ValueError, match="warm-up of 60 s"):
        measured(callers(due(100, 100), np.full(100, 5.0)), warmup_s=60)


@given(st.integers(0, 2**32 - 1), st.floats(20, 400))
def test_little_holds_for_any_steady_load(seed: int, mean_ms: float) -> None:
    dice = np.random.default_rng(seed)
    at = START + np.cumsum(dice.exponential(1e6 / 100, 4_000)).astype(np.int64)
    found = measure.little(cut(callers(at, dice.exponential(mean_ms, 4_000)), warmup_s=5))
    assert found.measured == pytest.approx(found.predicted, rel=0.1)


def test_little_fails_where_records_lose_completions() -> None:
    latency = np.full(4_000, 100.0)
    latency[::4] = np.nan
    found = measure.little(cut(callers(due(4_000, 100), latency), warmup_s=5))
    assert found.measured > 2 * found.predicted


@given(st.lists(st.integers(1, 10_000_000), min_size=1, max_size=300))
def test_percentiles_are_those_of_the_values_within_the_histograms_precision(values: list[int]) -> None:
    found = measure.percentiles(values)
    assert found is not None
    ordered = sorted(values)
    assert found.p50 * 1_000 == pytest.approx(ordered[int(np.ceil(len(values) / 2)) - 1], rel=0.001, abs=1)
    assert found.max * 1_000 == pytest.approx(ordered[-1], rel=0.001, abs=1)


def test_no_values_have_no_percentiles() -> None:
    assert measure.percentiles([]) is None
    assert measure.hgrm([]) == ""


def test_the_distribution_is_written_in_milliseconds_deviation_included() -> None:
    text = measure.hgrm([1_000] * 50 + [3_000] * 50)
    assert text.splitlines()[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    assert float(text.split("Mean    =")[1].split(",")[0]) == pytest.approx(2, rel=0.002)
    assert float(text.split("StdDeviation   =")[1].split("]")[0]) == pytest.approx(1, rel=0.002)


def test_cpu_is_per_thousand_completed_orders_of_the_window() -> None:
    found = measured(callers(due(500, 100), np.full(500, 1.0)), cpu_s={"orders": 0.25})
    assert found.cpu_s_per_1000_requests["orders"] == pytest.approx(0.5, rel=0.01)
    nothing = measured(callers(due(500, 100), np.full(500, np.nan)), cpu_s={"orders": 0.25})
    assert nothing.cpu_s_per_1000_requests == {}
    assert nothing.completed_latency_ms is None


def with_latency(p99_ms: float, lag_ms: float = 0.0) -> Repetition:
    return measured(callers(due(500, 100), np.full(500, p99_ms), lag_ms=lag_ms))


def test_repetitions_become_median_low_and_high() -> None:
    point = repetitions.summarise([with_latency(each) for each in (30.0, 10.0, 20.0)])
    assert point.completed_latency_ms is not None
    spread = point.completed_latency_ms.p99
    assert [spread.low, spread.median, spread.high] == pytest.approx([10, 20, 30], rel=0.002)
    assert point.repetitions == len(point.samples) == 3
    assert point.counts.offered == 1_500


def test_repetitions_of_different_points_are_not_thrown_together() -> None:
    with pytest.raises(ValueError, match="different points"):
        repetitions.summarise([repetition("views", "view", axes(load=load), 0) for load in (50, 100)])


@pytest.mark.parametrize(("lag_ms", "void"), [(2.5, True), (1.5, False)])
def test_a_point_is_void_where_the_generator_was_late_by_more_than_a_tenth_of_its_p99(
    lag_ms: float, void: bool
) -> None:
    point = repetitions.summarise([with_latency(20, lag_ms) for _ in range(3)])
    assert (point.void is not None) is void


def test_one_late_repetition_of_three_does_not_void_the_point() -> None:
    assert repetitions.summarise([with_latency(20, lag) for lag in (9.0, 0.1, 0.1)]).void is None


def test_one_invalid_repetition_takes_the_points_performance_away() -> None:
    kinds = [VALID, INVALID, VALID]
    point = repetitions.summarise([repetition("views", "view", axes(), i, audit=kind) for i, kind in enumerate(kinds)])
    assert point.audit.verdict == "invalid"
    assert point.audit.checks["E2"].violations == 3
    assert point.completed_latency_ms is None
    assert point.completed_per_s is None
    assert point.accepted_per_s is None
    assert point.samples == []
    assert point.memory_mb == {}
    assert point.counts.offered > 0


@pytest.mark.parametrize(
    ("target", "met"),
    [("<1000", True), ("<500", False), ("<=500", True), (">= 2", True), (">500", False), ("==500", True)],
)
def test_a_figure_is_judged_by_its_target(target: str, met: bool) -> None:
    assert measure.figure("x", [400, 500, 900], "ms", target=target).met is met


def test_a_threshold_of_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match="no threshold"):
        measure.figure("x", [1], "ms", target="around 5")


def test_a_prediction_is_met_within_its_tolerance_and_no_samples_are_no_verdict() -> None:
    assert measure.figure("x", [108], "s", predicted=100, tolerance=0.1).met is True
    assert measure.figure("x", [112], "s", predicted=100, tolerance=0.1).met is False
    assert measure.figure("x", [], "s", target="<1").met is None


def quiet_and_disturbed(*p99_ms: float) -> list[Repetition]:
    """The first of them quiet, all others beside programs that took half of the machine."""
    uses = [MachineUse(others=0.5 * (number > 0), stolen=0) for number in range(len(p99_ms))]
    return [
        measured(callers(due(500, 100), np.full(500, p99)), machine_use=use, turn=number)
        for number, (p99, use) in enumerate(zip(p99_ms, uses, strict=True))
    ]


def test_a_disturbed_repetition_takes_part_in_no_figure_and_is_kept_with_its_reason() -> None:
    point = repetitions.summarise(quiet_and_disturbed(10, 500, 900))
    assert point.completed_latency_ms is not None
    assert point.completed_latency_ms.p99.high == pytest.approx(10, rel=0.002)
    assert (point.repetitions, point.disturbed_repetitions, point.disturbed) == (3, 2, None)
    assert [each.disturbed for each in point.samples] == [None, *["other programs used 50 % of the machine"] * 2]


def test_a_point_whose_repetitions_were_all_disturbed_shows_them_and_is_not_believed() -> None:
    point = repetitions.summarise(quiet_and_disturbed(10, 500, 900)[1:])
    assert point.completed_latency_ms is not None
    assert point.disturbed == "other programs used 50 % of the machine"
    assert not ways.believable(point)

"""Given the reference values that can be worked out by hand, then the formulas give them."""

from __future__ import annotations

import math

import pytest

from eventmesh.report import predictions


def test_little_multiplies_throughput_and_latency() -> None:
    assert predictions.little(200, 0.05) == pytest.approx(10)


def test_a_stall_of_half_the_run_weighs_on_an_open_loop_and_hides_from_a_closed_one() -> None:
    assert predictions.stall_mean_open_s(15, 30, 0.05) == pytest.approx(3.8)
    assert predictions.stall_mean_closed_s(15, 30, 0.05) == pytest.approx(30.05 / 301)
    assert predictions.stall_mean_closed_s(0, 30, 0.05) == pytest.approx(predictions.stall_mean_open_s(0, 30, 0.05))


@pytest.mark.parametrize(("updates", "lag", "stale"), [(1, 0.1, 0.0952), (0.01, 0.1, 0.001), (0, 5, 0), (100, 10, 1)])
def test_the_share_of_stale_reads(updates: float, lag: float, stale: float) -> None:
    assert predictions.stale_probability(updates, lag) == pytest.approx(stale, abs=5e-5)


def test_at_the_crossover_asking_and_listening_cost_the_same_and_above_it_listening_is_cheaper() -> None:
    replicas, applied, remote, local = 3, 2e-6, 5e-4, 1e-6
    updates = 40.0
    reads = updates * predictions.crossover_reads_per_update(replicas, applied, remote, local)
    assert predictions.remote_cost(reads, remote) == pytest.approx(
        predictions.local_cost(reads, updates, replicas, applied, local)
    )
    for factor, local_wins in ((1.1, True), (0.9, False)):
        asked = predictions.remote_cost(reads * factor, remote)
        listened = predictions.local_cost(reads * factor, updates, replicas, applied, local)
        assert (listened < asked) is local_wins


def test_where_asking_costs_no_more_than_looking_up_listening_never_wins() -> None:
    assert predictions.crossover_reads_per_update(1, 1e-6, 1e-6, 1e-6) == math.inf

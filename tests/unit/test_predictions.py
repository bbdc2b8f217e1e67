"""Given the reference values that can be worked out by hand, then the formulas give them."""

from __future__ import annotations

import pytest

from eventmesh.report import predictions


def test_little_multiplies_throughput_and_latency() -> None:
    assert predictions.little(200, 0.05) == pytest.approx(10)


def test_a_stall_of_half_the_run_weighs_on_an_open_loop_and_hides_from_a_closed_one() -> None:
    assert predictions.stall_mean_open_s(15, 30, 0.05) == pytest.approx(3.8)
    assert predictions.stall_mean_closed_s(15, 30, 0.05) == pytest.approx(30.05 / 301)
    assert predictions.stall_mean_closed_s(0, 30, 0.05) == pytest.approx(predictions.stall_mean_open_s(0, 30, 0.05))

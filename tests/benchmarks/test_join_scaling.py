"""Given ways of known capacities, then the sweep measures each setting of each repetition on a mesh of its own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from benchmarks.load_steps import Loaded, LoadSettings, Subject
from eventmesh.lab import conclusions
from eventmesh.lab.progress_bar import silent
from eventmesh.shop.order_history import OrderHistory
from tests.benchmarks.conftest import small
from tests.benchmarks.test_order_flow import Made
from tests.unit.run_story import VALID, callers

WAYS = [{"mesh": "views", "join": "view"}, {"mesh": "hybrid", "join": "batched"}]
HOLDS = {"views": 200, "hybrid": 50}


def test_each_way_climbs_until_it_saturates_and_the_ways_take_turns(tmp_path: Path) -> None:
    meshes: list[tuple[str, float, list[str], bool]] = []

    def made_up(
        subject: Subject, steps: Mapping[float, OrderHistory], settings: LoadSettings, folder: Path, seed: int
    ) -> Loaded:
        orders = subject.mesh.resolved()["services"]["orders"]
        meshes.append((subject.mesh.wiring, subject.rtt_ms, orders["joins"], orders["batched"]))
        loads = []
        for offered, asked in steps.items():
            due = np.arange(asked.requests.num_rows) * 1e6 / offered
            behind = max(0.0, 1 - HOLDS[subject.mesh.wiring] / offered)
            loads.append(Made(callers(due, 20 + behind * due / 1_000)))
            if behind:
                break
        return Loaded(loads, VALID)  # type: ignore[arg-type]

    benchmark = small(
        "join-scaling", runtime=lambda: nullcontext(made_up), ways=WAYS, joined_services=[3], rtt_ms=[1],
        offered_per_s=[50, 200, 800], window_s=3, warmup_s=1, repetitions=2,
    )  # fmt: skip
    run = benchmark.run(tmp_path, seed=1, report=silent, say=lambda line: None)
    joined = ["customers", "prices", "stock"]
    assert meshes == [("views", 1, joined, False), ("hybrid", 1, joined, True)] * 2
    found = conclusions.of_run(run).capacities
    assert {way.wiring: getattr(each, "held", None) for (_, way), each in found.items()} == HOLDS
    assert len(run.points) == 3 + 2, "each way stops at its first saturated step"
    assert run.figures[0].met is True, "Little's law, of what is not saturated"

"""Given what each process has counted of its asks, then a load's own counts are what came since its mark."""

from __future__ import annotations

from typing import Any

from eventmesh.runtime.running import AskMarks


def status(service: str, instance: int, **asks: dict[str, int]) -> dict[str, Any]:
    return {"service": service, "instance": instance, "counters": {"asks": asks}}


def test_what_came_before_the_mark_does_not_count_and_instances_add_up() -> None:
    marks = AskMarks()
    marks.mark([status("orders", 0, Look={"attempts": 5, "repeats": 1}), status("orders", 1, Look={"attempts": 2})])
    now = [
        status("orders", 0, Look={"attempts": 9, "repeats": 1}, Take={"attempts": 3, "repeats": 0}),
        status("orders", 1, Look={"attempts": 3, "repeats": 2}),
        status("gateway", 0, Take={"attempts": 1, "repeats": 0}),
    ]
    assert marks.since(now) == {
        ("gateway", "Take"): {"attempts": 1, "repeats": 0},
        ("orders", "Look"): {"attempts": 5, "repeats": 2},
        ("orders", "Take"): {"attempts": 3, "repeats": 0},
    }


def test_a_process_that_began_again_counts_whole_and_what_was_not_asked_is_left_out() -> None:
    marks = AskMarks()
    marks.mark([status("orders", 0, Look={"attempts": 5, "repeats": 1}, Take={"attempts": 4, "repeats": 0})])
    now = [status("orders", 0, Look={"attempts": 6, "repeats": 0}, Take={"attempts": 4, "repeats": 0})]
    assert marks.since(now) == {("orders", "Look"): {"attempts": 6, "repeats": 0}}

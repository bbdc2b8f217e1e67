"""Given a mesh that is not ready, then it is said who is not, in which phase, and why."""

from __future__ import annotations

from typing import Any

import pytest

from eventmesh.runtime.task import Phase
from eventmesh.runtime.waiting import NO_LOG, PHASES, explained


def status(**more: Any) -> dict[str, Any]:
    return {
        "idle": True, "phases": {"orders/0": "live", "orders/1": "live"}, "progress": {"orders/0": {"stock/0": 7}},
        "inputs": {"orders/0": ["stock/0"]}, "unreached": None, **more,
    }  # fmt: skip


def test_every_phase_but_the_last_has_words() -> None:
    assert {*PHASES, "live"} == set(Phase.__args__)


def test_who_waits_for_the_same_is_named_together() -> None:
    granting = status(phases={"orders/0": "live", "orders/1": "granting"})
    said = explained({"orders/0": granting, "payments/0": granting, "gateway/0": status()}, NO_LOG)
    assert said == "orders/0, payments/0: waits for the broker to grant it its partition"


def test_why_the_broker_cannot_be_reached_is_said() -> None:
    stopped = status(phases={"orders/0": "stopped"}, unreached="broker/0 is not up")
    assert explained({"orders/0": stopped}, NO_LOG) == "orders/0: has no connection to the broker (broker/0 is not up)"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (status(), "every service is ready"),
        (status(idle=False), "orders/0: waits for an answer, or for its own facts to be acknowledged"),
        (status(progress={"orders/0": {"stock/0": 6}}), "orders/0: has not decided all of stock/0"),
        (status(progress={"orders/0": {}}), "orders/0: has not decided all of stock/0"),
        ("its process does not answer", "orders/0: its process does not answer"),
    ],
)
def test_what_is_still_to_be_done(found: Any, said: str) -> None:
    assert explained({"orders/0": found}, {"ends": {"stock/0": 7}, "stopped": None}) == said


def test_a_log_that_stopped_is_the_reason_whatever_services_say() -> None:
    said = explained({"orders/0": status()}, {"ends": {}, "stopped": "the disk failed"})
    assert said == "broker: the disk failed. It opens the log again as soon as the disk lets it"

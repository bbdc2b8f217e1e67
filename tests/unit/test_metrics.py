"""Given what a process counts, then Prometheus is told just that, under the field's own words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from eventmesh.errors import LogStopped, MayHaveHappened, Throttled
from eventmesh.runtime.effects import ReplyMessage
from eventmesh.runtime.process import metrics
from eventmesh.runtime.process.metrics import METRICS, Answered, Appended, Publisher, Reading, of_broker, of_service
from eventmesh.runtime.process.vitals import Process

SECOND = 1_000_000
ENDS = {"orders/0": 100, "stock/0": 40, "stock/1": 60}


class Written:
    """A registry that remembers: counters added up, gauges as they were set last."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = {}

    def add(self, name: str, tags: Mapping[str, str], more: float) -> None:
        assert more > 0, "Ray refuses a counter that does not grow"
        self.values[self._series(name, tags)] = self.values.get(self._series(name, tags), 0) + more

    def set(self, name: str, tags: Mapping[str, str], value: float) -> None:
        self.values[self._series(name, tags)] = value

    def _series(self, name: str, tags: Mapping[str, str]) -> tuple[str, ...]:
        assert tuple(tags) == METRICS[name].tags, f"{name} has other tags"
        return (name.removeprefix("eventmesh_"), *tags.values())


def written(*readings: Reading) -> dict[tuple[str, ...], float]:
    registry = Written()
    Publisher(lambda: readings, registry).publish()
    return registry.values


def status(**changed: Any) -> dict[str, Any]:
    """Of an instance with two tasks that listen to the same stock, and one view of it."""
    return {
        "service": "orders",
        "instance": 1,
        "counters": {
            "inputs": 9,
            "facts": 7,
            "inputs_refused": 1,
            "asks": {"StockBySku": {"attempts": 3, "repeats": 0}},
        },
        "answered_rows": 5,
        "throttled_rows": 2,
        "inputs": {"orders/1": ["stock/0", "stock/1"], "orders/3": ["stock/1"]},
        "progress": {"orders/1": {"stock/0": 40, "stock/1": 55}, "orders/3": {}},
        "views": {"stock": {"rows": 3, "next": {"stock/0": 40, "stock/1": 59}, "applied_time": 8 * SECOND}},
    } | changed


def test_a_broker_tells_ends_and_what_was_appended_in_its_life() -> None:
    appended = Appended()
    appended.count(3, 700)
    appended.count(1, 400)
    assert written(*of_broker({"orders/0": 100, "orders/1": 0}, {"orders/0": appended})) == {
        ("end_offset", "orders", "0"): 100,
        ("end_offset", "orders", "1"): 0,
        ("appended_rows_total", "orders", "0"): 4,
        ("appended_bytes_total", "orders", "0"): 1_100,
    }


def test_a_service_tells_what_it_decided_and_how_far_it_is_behind() -> None:
    assert written(*of_service(status(), ENDS, now=10 * SECOND)) == {
        ("decided_inputs_total", "orders", "1"): 9,
        ("decided_facts_total", "orders", "1"): 7,
        ("refused_inputs_total", "orders", "1"): 1,
        ("answered_rows_total", "orders", "1"): 5,
        ("throttled_rows_total", "orders", "1"): 2,
        ("counted_asks_total", "orders", "1", "StockBySku", "attempts"): 3,
        ("lag_rows", "orders", "1", "stock", "0"): 0,
        ("lag_rows", "orders", "1", "stock", "1"): 60,
        ("view_age_ms", "orders", "1", "stock"): 2_000,
    }


def test_a_view_that_has_seen_everything_is_not_old_however_long_nothing_came() -> None:
    view = {"rows": 3, "next": {"stock/0": 40, "stock/1": 60}, "applied_time": 8 * SECOND}
    found = written(*of_service(status(views={"stock": view}), ENDS, now=900 * SECOND))
    assert found["view_age_ms", "orders", "1", "stock"] == 0


def test_without_the_broker_nobody_claims_a_lag() -> None:
    found = written(*of_service(status(), {}, now=10 * SECOND))
    assert {series[0] for series in found} & {"lag_rows", "view_age_ms"} == set()
    assert ("decided_facts_total", "orders", "1") in found


def test_counters_grow_by_what_came_since_they_were_read_last() -> None:
    registry, total, tags = Written(), [3.0], {"service": "a", "instance": "0"}
    publisher = Publisher(lambda: [Reading("eventmesh_decided_facts_total", tags, total[0])], registry)
    for total[0] in (3, 3, 10):
        publisher.publish()
    assert registry.values == {("decided_facts_total", "a", "0"): 10}
    assert publisher.published == 3


def test_answers_are_counted_once_and_apart_from_what_came_too_early() -> None:
    answered = Answered()
    for reply in (
        ReplyMessage("ask-1", range(3), [{}] * 3, False),  # accepted: another one will come
        ReplyMessage("ask-1", range(3), [{}] * 3, True),
        ReplyMessage("ask-2", range(2), (), True, MayHaveHappened("perhaps")),
        ReplyMessage("ask-3", range(5), (), True, Throttled("later")),
    ):
        answered.count(reply)
    assert (answered.rows, answered.throttled) == (5, 5)


def test_who_cannot_be_read_now_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "INTERVAL_S", 0.0)
    asked = 0

    def read() -> list[Reading]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise LogStopped("the disk is full")
        publisher.close()
        return [Reading("eventmesh_end_offset", {"topic": "orders", "partition": "0"}, 5)]

    registry = Written()
    publisher = Publisher(read, registry)
    publisher.run()
    assert registry.values == {("end_offset", "orders", "0"): 5}


def test_a_process_without_a_registry_publishes_nothing() -> None:
    process = Process()
    process.publish("shop", list)
    assert process.published() == 0
    process.publish_no_more()


@pytest.mark.parametrize("name", METRICS)
def test_a_name_says_its_unit_last(name: str) -> None:
    assert re.fullmatch(r"eventmesh_[a-z_]+_(rows|bytes|inputs|facts|asks|offset|ms)(_total)?", name)


def test_one_module_knows_of_rays_metrics() -> None:
    sources = Path(metrics.__file__).parents[2].rglob("*.py")
    assert [path.name for path in sources if "ray.util.metrics" in path.read_text()] == ["ray_metrics.py"]

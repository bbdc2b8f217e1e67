"""Given a mesh that is run simulated, then a seed names one run, and nothing is said of real time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eventmesh.log.store import open_read_only
from tests.commands.conftest import Run

ASKED = ("--orders", "40", "--rate", "200", "--runtime", "simulated")


def recorded(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def written(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Every record of the log."""
    reader = open_read_only(folder / "log")
    try:
        return {
            f"{name}/{number}": reader.table(name, number).to_pylist()
            for name, topic in reader.topics.items()
            for number in range(topic.partitions)
        }
    finally:
        reader.close()


@pytest.mark.parametrize("mesh", ["views", "hybrid", "request"])
def test_a_run_says_what_virtual_time_can_say_and_nothing_else(eventmesh: Run, tmp_path: Path, mesh: str) -> None:
    ended = eventmesh("run", mesh, *ASKED, "-o", "run")
    assert ended.code == 0, ended
    assert "audit valid, simulated from seed 0 on a virtual clock" in ended.out
    assert "virtual time from the first request to the last outcome" in ended.out
    run = recorded(tmp_path / "run")
    assert (run["runtime"], run["verdict"], run["status"]) == ("simulated", "valid", "complete")
    assert run["outcomes"]["confirmed"] == 40
    assert [figure["name"] for figure in run["figures"]] == [
        "virtual time from the first request to the last outcome"
    ], "neither CPU nor throughput"


def test_what_is_recorded_can_be_looked_at_like_any_other_run(eventmesh: Run) -> None:
    eventmesh("run", "views", *ASKED, "-o", "run")
    assert "OrderConfirmed" in eventmesh("trace", "G00000001", "--run", "run").out
    assert (
        "valid" in eventmesh("log", "verify", "--run", "run").out
        or eventmesh("log", "verify", "--run", "run").code == 0
    )


def test_a_seed_names_one_run_to_the_byte(eventmesh: Run, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        assert eventmesh("run", "views", *ASKED, "--seed", "7", "-o", folder).code == 0
    assert eventmesh("run", "views", *ASKED, "--seed", "8", "-o", "other").code == 0
    assert written(tmp_path / "one") == written(tmp_path / "two")
    assert written(tmp_path / "one") != written(tmp_path / "other")
    records = "records/load.arrow"
    assert (tmp_path / "one" / records).read_bytes() == (tmp_path / "two" / records).read_bytes()


def test_a_round_trip_between_processes_takes_virtual_time(eventmesh: Run, tmp_path: Path) -> None:
    spans = {}
    for rtt in ("0", "50"):
        assert eventmesh("run", "request", *ASKED, "--rtt-ms", rtt, "-o", f"rtt-{rtt}").code == 0
        spans[rtt] = recorded(tmp_path / f"rtt-{rtt}")["figures"][0]["value"]
    assert spans["50"] > spans["0"] + 0.1, "an order asks several services, one after the other"


def test_another_runtime_is_refused(eventmesh: Run) -> None:
    refused = eventmesh("run", "views", "--runtime", "kafka")
    assert refused.code == 2
    assert "simulated" in refused.err

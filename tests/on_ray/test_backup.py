"""The story of a mesh that is backed up under load, lost, restored and gone on with, as a user types it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pyarrow.flight as flight
import pytest

from tests.on_ray.terminal import Terminal, opened, still_running

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with opened() as here:
        yield here


def rows(status: dict[str, Any], topic: str) -> int:
    return sum(each["end"] for each in status["partitions"] if each["partition"].startswith(f"{topic}/"))


def test_a_backup_taken_under_load_is_a_mesh_that_goes_on(terminal: Terminal) -> None:
    terminal.ok("up", "views")
    terminal.ok("run", "--name", "shop", "--orders", "100", "-o", "first")
    begun = terminal.until(lambda status: status["flight"] is not None)
    with terminal.begin("run", "--name", "shop", "--orders", "1200", "--rate", "100", "-o", "second", "--json") as load:
        terminal.until(lambda status: rows(status, "orders") > rows(begun, "orders") + 100)
        said = json.loads(terminal.ok("backup", "shop.tar.zst", "--json"))
        assert (said["runs"], said["under_way"]) == (1, ["run-2-load"]), "in the middle of the second run"
        out, err = load.communicate(timeout=120)
    assert load.returncode == 0, err
    assert json.loads(out)["verdict"] == "valid", "the mesh that was copied has not noticed"

    address = terminal.until(lambda status: status["flight"] is not None)["flight"]
    with flight.connect(address) as client:
        found = {tuple(word.decode() for word in each.descriptor.path): each for each in client.list_flights()}
        orders = found["orders", "0"]
        assert client.do_get(orders.endpoints[0].ticket).read_all().num_rows == orders.total_records > 0

    record = json.loads((terminal.folder / "state" / "shop.json").read_text())
    pids = [each["pid"] for each in begun["processes"] if each["pid"]]
    os.killpg(record["head_pid"], signal.SIGKILL)
    assert still_running([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]) == []
    terminal.ok("down")
    assert "not an empty folder" in terminal.refused("restore", "shop.tar.zst", code=2)
    terminal.ok("restore", "shop.tar.zst", "--data", "restored")
    terminal.ok("up", "--data", "restored")
    third = json.loads(terminal.ok("run", "--name", "shop", "--orders", "50", "-o", "third", "--json"))
    assert (third["verdict"], third["outcomes"]) == ("valid", {"confirmed": 50})
    callers = sorted(path.name for path in (terminal.folder / "restored" / "callers").glob("*.arrow"))
    assert callers == ["run-1.arrow", "run-2.arrow", "run-3.arrow"], "the second run went on, and came to its end"
    assert terminal.ok("trace", "R2-00001200", "--name", "shop").startswith("R2-00001200, first fact at")
    terminal.ok("log", "verify", "--name", "shop")
    terminal.ok("down")

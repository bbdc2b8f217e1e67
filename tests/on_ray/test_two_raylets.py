"""Given a cluster of two nodes, then the log stays where it was started, and services are on both and told alike."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from tests.on_ray.terminal import ROOT, SOON_S, Terminal, opened

pytestmark = pytest.mark.timeout(300)
PROGRAM = ROOT / "tests" / "on_ray" / "two_raylets.py"
#: Ray takes up to half a minute to give up a node that does not answer. Less than this kills the living on two cores.
NOTICED_SOON = {
    f"RAY_health_check_{name}": value
    for name, value in (
        ("initial_delay_ms", "500"), ("period_ms", "300"), ("timeout_ms", "1000"), ("failure_threshold", "5"),
    )
}  # fmt: skip
BOUND = {"broker/0", "generator/0", "supervisor/0"}


@dataclass(frozen=True)
class Cluster:
    """Two raylets on this machine, the head's ``first``, and a terminal of whoever joins them."""

    terminal: Terminal
    address: str
    first: int
    second: int

    def raylet_of(self, status: dict[str, Any]) -> dict[str, int]:
        """Which raylet has started each process of a mesh."""
        return {each["name"]: psutil.Process(each["pid"]).ppid() for each in status["processes"]}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with opened() as terminal:
        # Both nodes stay on loopback: the tests open nothing to the network.
        terminal.environment = {
            **terminal.environment, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(terminal.folder / "token"), **NOTICED_SOON,
        }  # fmt: skip
        with terminal.python(str(PROGRAM)) as nodes:
            assert nodes.stdin is not None
            assert nodes.stdout is not None
            line = nodes.stdout.readline()
            assert line, nodes.communicate()
            told = json.loads(line)
            children = psutil.Process(nodes.pid).children(recursive=True)
            yield Cluster(terminal, told["address"], *told["raylets"])
            nodes.stdin.close()
        _, alive = psutil.wait_procs(children, timeout=SOON_S)
        assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def pids(status: dict[str, Any]) -> dict[str, int]:
    return {each["name"]: each["pid"] for each in status["processes"]}


def live_elsewhere(status: dict[str, Any], before: dict[str, int]) -> bool:
    """Everything is live, and what is named in ``before`` is another process by now."""
    live = all(each["state"] == "live" and each["pid"] for each in status["processes"])
    return live and all(pids(status)[name] != pid for name, pid in before.items())


def test_the_log_stays_on_its_node_and_services_are_wherever_there_is_one(cluster: Cluster) -> None:
    terminal, mesh = cluster.terminal, str(ROOT / "configs" / "meshes" / "views.yaml")
    terminal.ok("up", mesh, "--address", cluster.address, "--token-file", "token")
    before = terminal.until(lambda status: live_elsewhere(status, {}))
    placed = cluster.raylet_of(before)
    assert {name: placed[name] for name in BOUND} == dict.fromkeys(BOUND, cluster.first)
    assert {raylet for name, raylet in placed.items() if name not in BOUND} == {cluster.first, cluster.second}

    # Who is bound comes back where its files are.
    bound = {name: pid for name, pid in pids(before).items() if name in BOUND}
    for pid in bound.values():
        os.kill(pid, signal.SIGKILL)
    after = terminal.until(lambda status: live_elsewhere(status, bound))
    assert cluster.raylet_of(after) == placed

    run = json.loads(terminal.ok("run", "--name", "shop", "--orders", "100", "-o", "run", "--json"))
    assert (run["verdict"], run["outcomes"]) == ("valid", {"confirmed": 100})

    # What was on a node that is gone goes on where there is one.
    moved = {name: pid for name, pid in pids(after).items() if placed[name] == cluster.second}
    os.kill(cluster.second, signal.SIGKILL)
    gathered = terminal.until(lambda status: live_elsewhere(status, moved))
    assert set(cluster.raylet_of(gathered).values()) == {cluster.first}
    run = json.loads(terminal.ok("run", "--name", "shop", "--orders", "50", "-o", "again", "--json"))
    assert (run["verdict"], run["outcomes"]) == ("valid", {"confirmed": 50})

    living = [psutil.Process(pid) for pid in pids(gathered).values()]
    assert terminal.ok("down").startswith("shop is down; its data is in")
    _, alive = psutil.wait_procs(living, timeout=SOON_S)
    assert alive == []
    assert psutil.pid_exists(cluster.first), "the cluster is not ours to end"

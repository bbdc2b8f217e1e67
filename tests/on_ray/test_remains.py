"""Given a Ray of our own, when the command that it belongs to is killed, then nothing of it is left.

Nothing here starts Ray: its processes are made up.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from eventmesh.runtime.on_ray import remains
from tests.on_ray.terminal import still_running

OWNER = """
import pathlib, sys
from eventmesh.runtime.on_ray.remains import ended_with_us
with ended_with_us(pathlib.Path(sys.argv[1])):
    print("within", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "ray"
    made.mkdir()
    return made


@pytest.fixture
def processes(folder: Path) -> Iterator[list[psutil.Process]]:
    """One that names the folder, and two that are named for what they work on: one of this Ray, one of another."""
    agent = "exec -a ray::Agent cat >"
    made = [
        subprocess.Popen(["bash", "-c", words], stdin=subprocess.PIPE)
        for words in (f": {folder}; read x", f"{agent} {folder}/log", f"{agent} /dev/null")
    ]
    found = [psutil.Process(each.pid) for each in made]
    while any(each.cmdline() != ["ray::Agent"] for each in found[1:]):
        psutil.wait_procs(found, timeout=0.01)  # until both have their names
    yield found
    for each in made:
        each.kill()
        each.communicate()


def owner(folder: Path) -> subprocess.Popen[str]:
    begun = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert begun.stdout is not None
    assert begun.stdout.readline() == "within\n"
    return begun


def waiting_beside(folder: Path) -> list[psutil.Process]:
    words = {str(folder), remains.__file__}
    return [each for each in psutil.process_iter(["cmdline"]) if words <= set(each.info["cmdline"] or [])]


def test_who_is_killed_leaves_nothing_of_its_ray(folder: Path, processes: list[psutil.Process]) -> None:
    of_it, of_another = processes[:2], processes[2]
    with owner(folder) as killed:
        waiting = waiting_beside(folder)
        killed.kill()
    assert still_running([*of_it, *waiting]) == []
    assert not folder.exists()
    assert len(waiting) == 1
    assert of_another.status() != psutil.STATUS_ZOMBIE


def test_who_ends_in_order_has_seen_to_it_itself(folder: Path, processes: list[psutil.Process]) -> None:
    with owner(folder) as ended:
        waiting = waiting_beside(folder)
        ended.communicate()
    assert still_running(waiting) == []
    assert len(waiting) == 1
    assert folder.exists()
    assert all(each.status() != psutil.STATUS_ZOMBIE for each in processes)

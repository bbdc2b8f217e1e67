"""Commands that start Ray, as a user runs them: what is left when they are interrupted, and when the disk is full."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose name leaves room for the name of a socket in it."""
    with tempfile.TemporaryDirectory(prefix="em-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(short_folder: Path) -> Iterator[Start]:
    """``eventmesh ARGUMENTS`` in a process group of its own, as a terminal starts it; what is left of it is killed."""
    begun: list[subprocess.Popen[str]] = []

    def one(*arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "TMPDIR": str(short_folder)}
        begun.append(subprocess.Popen(
            [sys.executable, str(ROOT / "cli.py"), *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        ))  # fmt: skip
        return begun[-1]

    yield one
    for process in begun:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(line: str, process: subprocess.Popen[str]) -> list[str]:
    """Read stderr up to the line that begins so."""
    assert process.stderr is not None
    seen = []
    for said in process.stderr:
        seen.append(said)
        if said.startswith(line):
            return seen
    pytest.fail(f"{line!r} was never said: {seen}")


def test_given_ctrl_c_in_the_middle_of_a_run_then_nothing_is_left_running_or_lying_about(
    start: Start, short_folder: Path, tmp_path: Path
) -> None:
    shared = set(os.listdir("/dev/shm"))
    output = tmp_path / "run"
    run = start("run", "configs/meshes/views.yaml", "--orders", "30000", "--rate", "100", "-o", str(output))
    wait_for("orders", run)
    children = psutil.Process(run.pid).children(recursive=True)
    assert len(children) > 8, "a broker, seven services and a generator"
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    # Behind the line that was waited for: nothing of Ray's, and no traceback.
    assert [line for line in errors.splitlines() if not line.startswith("orders")] == ["eventmesh: stopped"]
    _, alive = psutil.wait_procs(children, timeout=30)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    assert list(short_folder.iterdir()) == [], "Ray's folder with its sockets"
    assert set(os.listdir("/dev/shm")) <= shared
    assert json.loads((output / "run.json").read_text())["status"] == "aborted"


def test_given_the_disk_has_no_room_then_what_is_refused_goes_on_when_there_is_room(
    start: Start, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    run = start("run", "configs/meshes/views.yaml", "--orders", "1500", "-o", str(output), "--json")
    wait_for("seeding Restock", run)
    broker = broker_of(run)
    # No file of this process may grow beyond what the largest one has now: an append fails as on a full disk.
    full = max(path.stat().st_size for path in (output / "log").rglob("*.arrow"))
    _, hard = resource.prlimit(broker, resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
    wait_for("orders", run)
    resource.prlimit(broker, resource.RLIMIT_FSIZE, (hard, hard))
    answer, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    assert json.loads(answer)["outcomes"]["confirmed"] == 1500


def broker_of(run: subprocess.Popen[str]) -> int:
    """The process number of the broker's actor."""
    children = psutil.Process(run.pid).children(recursive=True)
    (broker,) = [process.pid for process in children if "Broker" in "".join(process.cmdline())]
    return broker

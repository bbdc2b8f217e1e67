"""A mesh on a machine as people have them: behind a proxy, with files of the user's own about, two terminals open.

One story, since each start of Ray takes seconds: started twice at once, loaded, ended in the middle of that load, up
again, and then Ray's own files are cleaned away.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.on_ray.terminal import ROOT, SOON_S, Terminal, opened, still_running

pytestmark = pytest.mark.timeout(300)
MESH = str(ROOT / "configs/meshes/views.yaml")
PROXY = "http://127.0.0.1:9"  # nobody answers there


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with opened() as here:
        proxies = {name: PROXY for each in ("http_proxy", "https_proxy", "all_proxy") for name in (each, each.upper())}
        here.environment = {**here.environment, **proxies, "no_proxy": "localhost"}
        for library in ("calendar", "yaml", "numpy"):
            (here.folder / f"{library}.py").write_text(f"raise RuntimeError('this {library} is not the library')\n")
        yield here


def record_of(terminal: Terminal, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((terminal.folder / "state" / f"{name}.json").read_text())
    return found


def outcomes(terminal: Terminal, orders: int) -> tuple[str, dict[str, int]]:
    run = json.loads(terminal.ok("run", "--name", "shop", "--orders", str(orders), "--json"))
    return run["verdict"], run["outcomes"]


def lines_until(said: Any, beginning: str) -> str:
    for line in said:
        if line.startswith(beginning):
            return str(line)
    pytest.fail(f"{beginning!r} was never said")


def test_a_mesh_on_a_machine_as_people_have_them(terminal: Terminal) -> None:
    with terminal.begin("up", MESH) as one, terminal.begin("up", MESH) as other:
        ended = [(command.communicate(timeout=120), command.returncode) for command in (one, other)]
    (said, code), ((_, refused), refused_code) = sorted(ended, key=lambda each: each[1])
    assert (code, refused_code) == (0, 2), ended
    assert said[0].startswith("shop is up")
    assert "a mesh called 'shop' is" in refused
    assert len(record_of(terminal, "shop")["id"]) == 32, "the record is that of the one that is up"
    assert outcomes(terminal, 20) == ("valid", {"confirmed": 20})

    assert "a mesh that is up runs on Ray" in terminal.refused(
        "run", "--name", "shop", "--runtime", "simulated", "--orders", "1", code=2
    )

    # Ended in the middle of a load: the load goes on when it is up again, and no number is given out twice.
    with terminal.begin("run", "--name", "shop", "--orders", "2000", "--rate", "100") as run:
        lines_until(run.stderr, "orders")
        down = terminal.ok("down")
        _, cut_off = run.communicate(timeout=SOON_S)
    assert run.returncode == 6
    assert "of the 2,000 orders of run 2 have their outcome; the rest go on when the mesh is up again" in down
    assert "run 2 was cut off, since 'shop' is no longer up" in cut_off
    assert "Ray has ended, and every process of the mesh with it" in cut_off
    assert "Traceback" not in cut_off
    again = terminal.type("up")
    assert again.returncode == 0, again
    assert "orders of run 2 have their outcome" in again.stderr
    assert outcomes(terminal, 10) == ("valid", {"confirmed": 10})

    # Interrupted, while the mesh stays: said in a line, and waited for by the next run.
    with terminal.begin("run", "--name", "shop", "--orders", "200", "--rate", "100") as run:
        lines_until(run.stderr, "orders")
        run.send_signal(signal.SIGTERM)
        _, interrupted = run.communicate(timeout=SOON_S)
    assert run.returncode == 143
    assert interrupted.splitlines()[-1] == "eventmesh: stopped by SIGTERM"
    assert "run 4 was cut off; 'shop' goes on with its orders, and the next run waits for them" in interrupted
    assert outcomes(terminal, 10) == ("valid", {"confirmed": 10})
    assert terminal.ok("trace", "R5-00000001", "--name", "shop").startswith("R5-00000001, first fact at")

    # Somebody cleans up temporary files.
    standing = record_of(terminal, "shop")
    head = psutil.Process(standing["head_pid"])
    processes = [head, *head.children(recursive=True)]
    for path in Path(standing["head_folder"]).iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for words in (["status"], ["run", "--name", "shop", "--orders", "1"]):
        unreachable = terminal.refused(*words, code=6)
        assert "nothing can reach them" in unreachable
        assert "eventmesh down --name shop" in unreachable
    assert "is up since" in terminal.refused("up", code=2)
    assert terminal.ok("down").startswith("shop is down; its data is in")
    assert still_running(processes) == []
    left = [path.name for path in terminal.folder.iterdir() if path.name.startswith("eventmesh-")]
    assert left == [], "Ray's folder, or what it said"

"""Given two applications of one name, then Ray's workers run the one that the command checked, or nothing starts; and
the next version of an application goes on with what the one before it left.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from eventmesh.log.store import open_read_only
from tests.on_ray.terminal import Terminal, opened
from tests.process.test_handed import MESH, ROOT, application

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The current folder, which has an application of that name as well."""
    (application(tmp_path / "here", "of the current folder") / "mesh.yaml").write_text(MESH)
    return tmp_path / "here"


def command(here: Path, first: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """In the current folder, which stands on the path behind another one."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [first, here]))}
    return subprocess.run(
        [sys.executable, *words], cwd=here, env=environment, capture_output=True, text=True, timeout=150, check=False
    )


def test_workers_run_the_application_that_the_command_checked(tmp_path: Path, here: Path) -> None:
    first = application(tmp_path / "first", "first on the path")
    says = f"import sys; sys.path.append({str(ROOT)!r}); from eventmesh import mesh; print(mesh.load('mesh.yaml').code)"
    checked = command(here, first, "-P", "-c", says)
    assert checked.returncode == 0, checked.stderr
    ended = command(here, first, str(ROOT / "cli.py"), "run", "mesh.yaml", "--loans", "20", "-o", "run", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["verdict"] == "valid"
    with closing(open_read_only(here / "run" / "log")) as reader:
        headers = [entry.header for number in (0, 1) for entry in reader.batches("loans", number)]
    assert {header.control["code"] for header in headers if header.kind == "granted"} == {checked.stdout.strip()}


def test_nothing_starts_where_a_worker_finds_another_one(tmp_path: Path, here: Path) -> None:
    """It is another one whenever it is imported: what the command noted is not what a worker finds."""
    first = application(tmp_path / "first", "first on the path")
    file = first / "borrowed" / "__init__.py"
    with file.open("a") as written:
        written.write("with open(__file__, 'a') as file:\n    file.write('# imported once more\\n')\n")
    ended = command(here, first, str(ROOT / "cli.py"), "run", "mesh.yaml", "--loans", "20", "-o", "run")
    assert ended.returncode == 6, ended.stderr
    place = first / "borrowed"
    assert (
        f"eventmesh: this process found the application 'borrowed' in {place}, and not as it was checked in {place}: "
        f"__init__.py is another. End the mesh and start it again"
    ) in ended.stderr
    assert json.loads((here / "run" / "run.json").read_text())["status"] == "aborted"


# --- a mesh that stays ------------------------------------------------------------------------------------

GROWN = """
from copy import copy

import pyarrow as pa

DECLARED = copy(DECLARED)
noted = DECLARED.schemas["loans"].append(pa.field("note", pa.string()))
DECLARED.schemas = {**DECLARED.schemas, "loans": noted}
"""


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """With an application of its own in a folder beside the current one."""
    with opened() as here:
        place = application(here.folder / "elsewhere", "of this test")
        (here.folder / "mesh.yaml").write_text(MESH)
        here.environment = {**here.environment, "PYTHONPATH": os.pathsep.join(map(str, [place, ROOT]))}
        yield here


def pid_of(status: dict[str, Any], name: str) -> int:
    return int(next(each["pid"] for each in status["processes"] if each["name"] == name))


def state_of(status: dict[str, Any], name: str) -> str:
    return str(next(each["state"] for each in status["processes"] if each["name"] == name))


def test_an_edited_application_is_the_next_version_of_a_mesh_that_is_up(terminal: Terminal) -> None:
    terminal.ok("up", "mesh.yaml")
    terminal.ok("run", "--name", "shop", "--loans", "20", "-o", "first")
    desk = pid_of(terminal.until(lambda status: state_of(status, "desk/0") == "live"), "desk/0")

    with (terminal.folder / "elsewhere" / "borrowed" / "__init__.py").open("a") as file:
        file.write(GROWN)
    said = terminal.refused("run", "--name", "shop", "--loans", "20", "-o", "second", code=6)
    assert "'shop' does not run the application that is found here" in said
    os.kill(desk, signal.SIGKILL)
    terminal.until(lambda status: state_of(status, "desk/0") == "down")

    terminal.ok("down")
    started = terminal.type("up", "mesh.yaml")
    assert started.returncode == 0, started.stderr
    assert "loans: version 2 of its columns: note (string)" in started.stderr
    third = json.loads(terminal.ok("run", "--name", "shop", "--loans", "20", "-o", "third", "--json"))
    assert third["verdict"] == "valid"
    listed = json.loads(terminal.ok("log", "topics", "--name", "shop", "--json"))
    assert {each["topic"]: each["version"] for each in listed} == {"loans": 2, "copies": 1}
    terminal.ok("down")

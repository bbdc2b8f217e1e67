"""Given processes of their own, then each imports the application that was checked, or says what it found instead.

What stands here in place of a worker of Ray's is a process that looks for modules elsewhere first, as a worker does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from eventmesh import mesh as meshes
from eventmesh.errors import PeerLost
from eventmesh.runtime.on_ray import actors, driver
from eventmesh.runtime.on_ray.calls import refused_to_start
from eventmesh.runtime.process.directory import Peer
from eventmesh.runtime.process.handed import follow, search_path

ROOT = Path(__file__).parents[2]
STANDARD = [
    "/usr/lib/python311.zip", sysconfig.get_path("stdlib"), "/usr/lib/python3.11/lib-dynload",
    "/opt/venv/lib/python3.11/site-packages",
]  # fmt: skip
#: An application that is the library, but for what it says it is.
APPLICATION = """
from tests.tiny import *
from tests.tiny import DECLARED, OPTIONS, SERVICES, VIEWS, WIRINGS
from pydantic import BaseModel

WHICH = {which!r}

class Options(BaseModel):
    pass

OPTIONS = dict.fromkeys(OPTIONS, Options)
"""
MESH = (ROOT / "tests" / "tiny" / "mesh.yaml").read_text().replace("tests.tiny", "borrowed")
CHECK = """
import pickle, sys
from pathlib import Path
from eventmesh import mesh as meshes
from eventmesh.runtime.process.handed import Handed

mesh = meshes.load("mesh.yaml")
print(mesh.application.WHICH)
Path(sys.argv[1]).write_bytes(pickle.dumps([Handed(mesh, mesh.sources)]))
"""
WORK = """
import pickle, sys
from pathlib import Path

[mesh] = pickle.loads(Path(sys.argv[1]).read_bytes())
print(mesh.application.WHICH, mesh.application.__file__, sys.path[:2])
"""


def application(folder: Path, which: str) -> Path:
    (folder / "borrowed").mkdir(parents=True)
    (folder / "borrowed" / "__init__.py").write_text(APPLICATION.format(which=which))
    return folder


def run(program: str, folder: Path, path: list[Path], *words: Path) -> subprocess.CompletedProcess[str]:
    """In ``folder``, with these places to look for modules in first."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT])), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", program, *map(str, words)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The current folder, which has an application of that name as well."""
    (application(tmp_path / "here", "of the current folder") / "mesh.yaml").write_text(MESH)
    return tmp_path / "here"


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """Where the command finds its application first."""
    return application(tmp_path / "first", "first on the path")


@pytest.fixture
def handed(tmp_path: Path, here: Path, first: Path) -> Path:
    """What the command hands on, having checked the one that is first on its path."""
    checked = run(CHECK, here, [first, here], tmp_path / "handed")
    assert (checked.returncode, checked.stdout) == (0, "first on the path\n"), checked.stderr
    return tmp_path / "handed"


def test_a_worker_that_looks_into_the_current_folder_first_runs_what_was_checked(
    handed: Path, here: Path, first: Path
) -> None:
    worked = run(WORK, here, [here], handed)
    assert worked.returncode == 0, worked.stderr
    assert worked.stdout.startswith(f"first on the path {first / 'borrowed' / '__init__.py'} ['{first}', '{here}']")


def test_an_application_outside_the_current_folder_is_found(tmp_path: Path, handed: Path, first: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    worked = run(WORK, tmp_path / "elsewhere", [], handed)
    assert worked.returncode == 0, worked.stderr
    assert worked.stdout.startswith("first on the path")


def test_a_worker_where_the_files_are_others_does_not_start_and_says_so(handed: Path, here: Path, first: Path) -> None:
    (first / "borrowed" / "__init__.py").write_text(APPLICATION.format(which="edited since"))
    worked = run(WORK, here, [here], handed)
    assert worked.returncode != 0
    assert "edited since" not in worked.stdout
    said = refused_to_start(worked.stderr)
    place = first / "borrowed"
    assert said is not None
    assert said.startswith(
        f"this process found the application 'borrowed' in {place}, and not as it was checked in {place}: "
        f"__init__.py is another. End the mesh and start it again"
    )
    assert said in worked.stdout, "its own log says it as well"


def test_a_worker_that_finds_only_another_one_of_that_name_says_where(handed: Path, here: Path, first: Path) -> None:
    """As on a node that has the application somewhere else."""
    shutil.move(first, first.with_name("away"))
    said = refused_to_start(run(WORK, here, [here], handed).stderr)
    assert said is not None
    assert f"found the application 'borrowed' in {here / 'borrowed'}, and not as it was checked in {first}" in said


def test_a_worker_that_finds_none_says_so(handed: Path, here: Path, first: Path) -> None:
    for folder in (first, here):
        shutil.rmtree(folder / "borrowed")
    said = refused_to_start(run(WORK, here, [here], handed).stderr)
    assert said is not None
    assert said.startswith(f"this process cannot import the application 'borrowed', which was checked in {first}")
    assert "ModuleNotFoundError: No module named 'borrowed'" in said


# --- what Ray is told -----------------------------------------------------------------------------------


def test_ray_s_workers_look_where_the_command_does_in_its_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["/first", "", "/first", *STANDARD, "/edited"])
    config = driver._with_code_of_ours()
    config._py_driver_sys_path.extend([str(tmp_path / "script"), str(tmp_path)])  # as Ray's driver does
    looked: list[str] = []
    for folder in config._py_driver_sys_path:
        looked.insert(0, folder)  # as Ray's worker does
    assert looked == ["/first", str(tmp_path)]


def test_places_of_the_interpreter_are_each_machine_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/first", *STANDARD, "/edited"])
    handed = search_path()
    assert handed == (("/first",), ("/edited",))
    monkeypatch.setattr(
        sys, "path", ["/of the worker", "/edited", "/opt/other/lib/python3.11", "/opt/other/site-packages"]
    )
    follow(handed)
    assert sys.path == [
        "/first", "/of the worker", "/opt/other/lib/python3.11", "/opt/other/site-packages", "/edited",
    ]  # fmt: skip


def test_of_this_process_none_is_left_out_but_those() -> None:
    before, behind = search_path()
    left_out = [each for each in sys.path if {each, os.path.abspath(each)}.isdisjoint({*before, *behind})]
    assert str(ROOT) in before
    assert all("python3" in each or "python" in Path(each).name for each in left_out), left_out


@pytest.mark.parametrize(
    "said",
    [
        "The actor died because of an error raised in its creation task, ray::desk/0:ServiceMember.__init__() (pid=7)\n"
        "  At least one of the input arguments for this task could not be computed:\n"
        "ray.exceptions.RaySystemError: System error: this process found another one\n"
        "traceback: Traceback (most recent call last):\n  in opened\n"
        "eventmesh.sources.OtherSources: this process found another one",
        "Traceback (most recent call last):\nOtherSources: this process found another one",
    ],
)
def test_what_ray_keeps_of_a_refusal_is_told_as_the_sentence_that_it_was(said: str) -> None:
    assert refused_to_start(said) == "this process found another one"


@dataclass
class WithoutDesk:
    """What Ray knows of a mesh whose desk found other files when it was started again."""

    def actor(self, peer: Peer) -> str:
        if peer[0] == "desk":
            raise PeerLost("there is no desk/0")
        return f"the handle of {peer[0]}"


def test_a_mesh_that_has_lost_a_process_for_good_can_be_looked_at_and_ended_but_not_loaded() -> None:
    mesh, directory = meshes.load(ROOT / "tests" / "tiny" / "mesh.yaml"), cast(Any, WithoutDesk())
    with pytest.raises(PeerLost, match="there is no desk/0"):
        actors.find(mesh, directory)
    found = actors.find(mesh, directory, whole=False)
    assert list(found.all) == [("generator", 0), ("shelf", 0), ("broker", 0)], "in the order in which they are to close"
    assert list(found.services) == [("desk", 0), ("shelf", 0)], "and it is known who should be there"


def test_any_other_death_is_no_refusal() -> None:
    assert refused_to_start("The actor died unexpectedly before finishing this task.\nValueError: OtherSources") is None

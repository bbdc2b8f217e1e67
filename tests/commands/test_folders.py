"""Given a folder that will not do, then the command says which one and why, and touches nothing in it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eventmesh.errors import DataDirectoryError
from eventmesh.log.storage import FileStorage
from tests.commands.conftest import Run
from tests.commands.small_run import CONFIGS

MESH = CONFIGS / "meshes" / "views.yaml"
READING = [["log", "topics"], ["log", "read", "orders"], ["log", "verify"], ["trace", "G00000001"]]
reading = pytest.mark.parametrize("command", READING, ids=" ".join)


@pytest.mark.parametrize("command", [["run", MESH], ["run", MESH, "--dry-run"], ["bench", "run", "join-scaling", "-n"]])
def test_an_output_folder_that_is_not_empty(eventmesh: Run, tmp_path: Path, command: list[object]) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    eventmesh(*command, "-o", folder).must_have_refused(folder, "not an empty folder", "Name another with --output")
    eventmesh(*command, "-o", folder / "notes.txt").must_have_refused(folder / "notes.txt", "not an empty folder")
    assert (folder / "notes.txt").read_text() == "mine"


def test_an_output_folder_is_refused_before_anything_is_read(eventmesh: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()
    words = ("run", MESH, "--input", "nowhere.csv", "--mapping", "nowhere.yaml", "-o", "out")
    eventmesh(*words).must_have_refused("out is not an empty folder")


def test_a_folder_that_cannot_be_made(eventmesh: Run, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    ended = eventmesh("run", MESH, "--orders", "1")
    ended.must_have_refused("runs/views-", "cannot be made", "Not a directory", "--output", code=6)
    ended = eventmesh("run", MESH, "--orders", "1", "-o", "runs/below")
    ended.must_have_refused("runs/below", "cannot be made", "--output", code=6)


@reading
def test_no_run_yet(eventmesh: Run, command: list[str]) -> None:
    eventmesh(*command).must_have_refused("no run under runs yet", "eventmesh run views")


@reading
def test_a_folder_that_is_no_run(eventmesh: Run, tmp_path: Path, own_run: Path, command: list[str]) -> None:
    own_run.rename(tmp_path / "own-2")
    (tmp_path / "runs").mkdir()
    (tmp_path / "own-2").rename(tmp_path / "runs" / "views-1")
    (tmp_path / "runs" / "join-scaling-1").mkdir()
    (tmp_path / "runs" / "latest").symlink_to("join-scaling-1")
    eventmesh(*command).must_have_refused("runs/latest holds no log", "a benchmark keeps none", "Runs: runs/views-1;")
    eventmesh(*command, "--run", "runs/view-1").must_have_refused("does not exist", "Did you mean runs/views-1?")
    assert eventmesh(*command, "--run", "runs/views-1").code == 0


@reading
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            '{"format_version": 1}',
            ["format version 1, this program reads 2 and 3", "the program that wrote it"],
        ),
        ('{"format_version": 3}', ["manifest.json is damaged", "Restore it from a copy"]),
        ("{", ["manifest.json is damaged", "Restore it from a copy"]),
        (None, ["it has no manifest"]),
    ],
)
def test_a_data_directory_of_another_kind(
    eventmesh: Run, own_run: Path, command: list[str], content: str | None, said: list[str]
) -> None:
    manifest = own_run / "log" / "manifest.json"
    assert json.loads(manifest.read_text())["format_version"] == 3
    manifest.unlink()
    if content is not None:
        manifest.write_text(content)
    eventmesh(*command, "--run", own_run).must_have_refused(own_run / "log", *said, code=6)


@reading
def test_a_data_directory_with_missing_files(eventmesh: Run, own_run: Path, command: list[str]) -> None:
    watermark = own_run / "log" / "orders" / "0" / "watermark"
    watermark.unlink()
    ended = eventmesh(*command, "--run", own_run)
    ended.must_have_refused(watermark, "cannot be read (No such file or directory)", "Restore it from a copy", code=6)


@contextmanager
def held(directory: Path) -> Iterator[int]:
    """Another process that holds the directory as a broker does; its id."""
    program = (
        "import sys; from eventmesh.log.storage import FileStorage\n"
        "storage = FileStorage(sys.argv[1]); print('held', flush=True); sys.stdin.read(); storage.close()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == "held\n"
        yield holder.pid


def test_a_data_directory_in_use_is_read_but_not_written(eventmesh: Run, own_run: Path) -> None:
    with held(own_run / "log") as holder:
        for command in READING:
            assert eventmesh(*command, "--run", own_run).code == 0
        with pytest.raises(DataDirectoryError, match=f"in use by process {holder}. Stop it, or name another") as caught:
            FileStorage(own_run / "log")
        assert caught.value.exit_code == 6
        eventmesh("run", MESH, "-o", own_run).must_have_refused(own_run, "not an empty folder")

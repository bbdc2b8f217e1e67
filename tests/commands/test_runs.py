"""Given folders of runs, then they go when a user says so, and nothing goes with them that is no run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from eventmesh.errors import InputError
from eventmesh.lab import pruning
from eventmesh.lab.pruning import older_than
from eventmesh.lab.run import new_folder, point_latest, writing
from eventmesh.lab.terminal import _size
from tests.commands.conftest import Run
from tests.commands.test_folders import held

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """``make(name, days=3)``: a run that started so long ago, with a log of a hundred bytes."""

    def run(name: str, *, days: float = 0.0, **fields: Any) -> Path:
        folder = tmp_path / "runs" / name
        (folder / "log" / "orders").mkdir(parents=True)
        (folder / "log" / "orders" / "data").write_bytes(b"x" * 100)
        started_at = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        record = {"schema": "eventmesh.run/1", "started_at": started_at, "status": "complete", "verdict": "valid"}
        (folder / "run.json").write_text(json.dumps({**record, **fields}))
        return folder

    return run


@pytest.fixture
def five(make: Make, tmp_path: Path) -> Path:
    """Runs of today, and of 2, 4, 6 and 8 days ago; ``latest`` is today's."""
    for days in (0, 2, 4, 6, 8):
        make(f"views-{days}", days=days)
    (tmp_path / "runs" / "latest").symlink_to("views-0")
    return tmp_path / "runs"


def names(runs: Path) -> list[str]:
    return sorted(path.name for path in runs.iterdir())


def test_the_runs_are_listed_the_oldest_first(eventmesh: Run, five: Path) -> None:
    (five / "notes").mkdir()
    ended = eventmesh("runs", "list")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    runs = [f"runs/views-{days}" for days in (8, 6, 4, 2, 0)]
    assert [line.split()[0] for line in lines] == [*runs, "runs/notes"]
    assert re.fullmatch(r"runs/views-8  [-\d]{10} \d\d:\d\d  complete, audit valid, 2\d\d B", lines[0])
    assert lines[-1] == "runs/notes  0 B; left alone: no run: run.json is missing"
    rows = json.loads(eventmesh("runs", "list", "--json").out)
    size = 100 + (five / "views-8" / "run.json").stat().st_size
    assert (rows[0]["run"], rows[0]["bytes"], rows[0]["left alone"]) == ("runs/views-8", size, None)


def test_no_runs_yet(eventmesh: Run) -> None:
    assert eventmesh("runs", "list").out == "no runs yet\n"
    ended = eventmesh("runs", "prune", "--keep", 1)
    assert (ended.code, ended.out, ended.made) == (0, "deleted 0 runs, 0 B; 0 kept\n", [])


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["--keep", "2"], [0, 2]),
        (["--keep", "5"], [0, 2, 4, 6, 8]),
        (["--keep", "99"], [0, 2, 4, 6, 8]),
        (["--keep", "0"], []),
        (["--older-than", "5d"], [0, 2, 4]),
        (["--older-than", "100h"], [0, 2, 4]),
        (["--older-than", "1w"], [0, 2, 4, 6]),
        (["--older-than", "1m"], [0]),
    ],
)
def test_what_was_named_goes_and_the_rest_stays(eventmesh: Run, five: Path, words: list[str], left: list[int]) -> None:
    expected = sorted([*(f"views-{days}" for days in left), *(["latest"] if left else [])])
    before = names(five)
    tried = eventmesh("runs", "prune", *words, "-n", "--json")
    assert (tried.code, names(five)) == (0, before)
    done = eventmesh("runs", "prune", *words, "--json")
    assert (done.code, done.err, names(five)) == (0, "", expected)
    assert json.loads(done.out) == {**json.loads(tried.out), "dry_run": False}
    assert len(json.loads(done.out)["deleted"]) == 5 - len(left)
    assert not left or (five / "latest").resolve().name == "views-0"


def test_it_says_what_goes_with_its_size(eventmesh: Run, five: Path) -> None:
    tried, done = eventmesh("runs", "prune", "--keep", 4, "-n").out, eventmesh("runs", "prune", "--keep", 4).out
    assert tried == done.replace("deleted", "would delete")
    assert done.splitlines()[0].startswith("deleted runs/views-8, 2")
    assert done.splitlines()[-1].startswith("deleted 1 run, 2")
    assert done.endswith("; 4 kept\n")


def test_latest_points_at_the_newest_that_is_left(eventmesh: Run, five: Path) -> None:
    (five / "latest").unlink()
    (five / "latest").symlink_to("views-8")
    eventmesh("runs", "prune", "--keep", 3)
    assert (five / "latest").readlink() == Path("views-0")


def test_the_log_of_a_mesh_that_is_up_survives(eventmesh: Run, make: Make, tmp_path: Path) -> None:
    (tmp_path / "data" / "log").mkdir(parents=True)
    (tmp_path / "data" / "log" / "manifest.json").write_text("x" * 10_000)
    run = make("shop-1", days=3)
    shutil.rmtree(run / "log")
    (run / "log").symlink_to(tmp_path / "data" / "log")
    ended = eventmesh("runs", "prune", "--older-than", "1d", "--json")
    assert json.loads(ended.out)["bytes"] < 1_000, "what the link points at does not count"
    assert not run.exists()
    assert (tmp_path / "data" / "log" / "manifest.json").read_text() == "x" * 10_000


@pytest.mark.parametrize("target", ["folder", "run"])
def test_a_link_among_the_runs_is_none(eventmesh: Run, make: Make, tmp_path: Path, target: str) -> None:
    elsewhere = make("views-1", days=9).rename(tmp_path / "elsewhere")
    (tmp_path / "runs" / "linked").symlink_to(elsewhere if target == "run" else tmp_path)
    ended = eventmesh("runs", "prune", "--keep", 0)
    assert ended.out == "deleted 0 runs, 0 B; 0 kept\n"
    assert names(tmp_path / "runs") == ["linked"]
    assert (elsewhere / "log" / "orders" / "data").exists()


def test_what_is_no_run_is_left_alone(eventmesh: Run, make: Make, tmp_path: Path) -> None:
    (make("no-record", days=9) / "run.json").unlink()
    (make("damaged", days=9) / "run.json").write_text("{")
    make("another", days=9, schema="eventmesh.run/9")
    make("no-time", days=9, started_at="yesterday")
    make("no-zone", days=9, started_at="2020-01-01T00:00:00")
    (make("a-mesh", days=9) / "callers").mkdir()
    (tmp_path / "runs" / "notes.txt").write_text("mine")
    before = names(tmp_path / "runs")
    ended = eventmesh("runs", "prune", "--keep", 0)
    assert (ended.code, names(tmp_path / "runs")) == (0, before)
    assert "left alone: runs/no-record, no run: run.json is missing" in ended.out
    assert "left alone: runs/a-mesh, it holds the data of a mesh" in ended.out
    assert "deleted 0 runs, 0 B; 1 kept" in ended.out


def test_a_run_that_is_being_written_is_left_alone(eventmesh: Run, make: Make, tmp_path: Path) -> None:
    run = make("views-1", days=9, status="aborted")
    with writing(run):
        assert "left alone: runs/views-1, it is being written" in eventmesh("runs", "prune", "--keep", 0).out
        assert run.exists()
    eventmesh("runs", "prune", "--keep", 0)
    assert not run.exists()


def test_a_run_whose_log_is_open_is_left_alone(eventmesh: Run, make: Make) -> None:
    run = make("views-1", days=9)
    with held(run / "log"):
        assert "left alone: runs/views-1, its log is open" in eventmesh("runs", "prune", "--keep", 0).out
    eventmesh("runs", "prune", "--keep", 0)
    assert not run.exists()


def test_a_run_that_came_into_use_since_it_was_listed_stays(five: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = pruning.chosen

    def late(*arguments: Any, **options: Any) -> Any:
        found = chosen(*arguments, **options)
        (found[0].path / "callers").mkdir()
        return found

    monkeypatch.setattr(pruning, "chosen", late)
    said = pruning.prune(five, keep=3, older=None, now=datetime.now(UTC), dry_run=False)
    assert [each["run"].rpartition("/")[2] for each in said["deleted"]] == ["views-6"]
    assert (five / "views-8").exists()


def test_what_an_interrupted_prune_has_left_goes(eventmesh: Run, five: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", interrupted)
        assert eventmesh("runs", "prune", "--keep", 4).code == 130
    assert ".views-8.pruned" in names(five)
    assert len(json.loads(eventmesh("runs", "list", "--json").out)) == 4
    assert "4 kept" in eventmesh("runs", "prune", "--keep", 4).out
    assert names(five) == ["latest", "views-0", "views-2", "views-4", "views-6"]


def test_what_cannot_be_deleted(eventmesh: Run, five: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refused)
    ended = eventmesh("runs", "prune", "--keep", 4)
    assert (ended.code, ended.out) == (6, "")
    assert "runs/.views-8.pruned: cannot be deleted (Permission denied)" in ended.err


NO_AGES = ("", "7", "d", "-7d", "0d", "7.5d", "7y", "7dd", "7 days", "1e9d", "9999999d", "\u0663d")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say which runs may go"),
        (["--keep", "1", "--older-than", "7d"], "say which runs may go"),
        *((["--older-than", age], "expected a number and one of m, h, d, w, such as 7d") for age in NO_AGES),
    ],
)
def test_nonsense_is_refused(eventmesh: Run, five: Path, words: list[str], said: str) -> None:
    before = names(five)
    for more in ([], ["-n"]):
        eventmesh("runs", "prune", *words, *more).must_have_refused(said)
    assert names(five) == before


@pytest.mark.parametrize("keep", ["-1", "many", "1.5"])
def test_a_number_that_is_none(eventmesh: Run, five: Path, keep: str) -> None:
    before = names(five)
    ended = eventmesh("runs", "prune", "--keep", keep)
    assert (ended.code, ended.out, names(five)) == (2, "", before)
    assert "Invalid value for '--keep'" in ended.err


def test_ages() -> None:
    minutes = [older_than(text).total_seconds() / 60 for text in ("30m", "12h", "7d", "2w")]
    assert minutes == [30, 720, 10_080, 20_160]
    assert older_than("999999w").days > 0
    with pytest.raises(InputError):
        older_than("7D")


def test_a_run_that_begins_now_points_latest_at_itself_again(five: Path) -> None:
    folder = new_folder(five, "views")
    assert (five / "latest").resolve() == folder
    point_latest(five / "views-0")
    assert (five / "latest").resolve().name == "views-0"


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1 kB"), (12_345, "12.3 kB"), (999_999, "1 MB"), (5 * 10**9, "5 GB"),
     (123_456 * 10**9, "123,456 GB")],
)  # fmt: skip
def test_sizes_are_read_in_their_unit(size: int, said: str) -> None:
    assert _size(size) == said

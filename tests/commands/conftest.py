"""Commands as a user runs them: words in; an exit code, two streams and perhaps new files out. None starts Ray."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import cli
from eventmesh.lab.known import STATE_VARIABLE
from tests.commands.small_run import write_run
from tests.unit.conftest import no_ray

__all__ = ["no_ray"]


@dataclass(frozen=True)
class Ended:
    """How a command ended, and the files and folders that were not there before."""

    code: int
    out: str
    err: str
    made: list[str]

    def must_have_refused(self, *said: object, code: int = 2) -> None:
        """One message on stderr that says all of this, and nothing done."""
        assert self.code == code, self
        assert self.out == ""
        assert self.err.startswith("eventmesh: ")
        assert self.err.count("\n") == 1, self.err
        assert [str(each) for each in said if str(each) not in self.err] == [], self.err
        assert self.made == []


Run = Callable[..., Ended]


@pytest.fixture
def eventmesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Ended:
        before = set(tmp_path.rglob("*"))
        monkeypatch.setattr(sys, "argv", ["eventmesh", *map(str, words)])
        code: object = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
        assert isinstance(code, int)
        made = sorted(str(path) for path in set(tmp_path.rglob("*")) - before)
        return Ended(code, *capsys.readouterr(), made)

    return run


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No record of the user's own is looked at."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv(STATE_VARIABLE, str(folder))
    return folder


def stands(state: Path, name: str, data: Path) -> None:
    """Record a mesh that is up under that name, whose Ray nobody answers for."""
    record = {"schema": "eventmesh.standing/1", "name": name, "data": str(data), "ray": "127.0.0.1:1"}
    (state / f"{name}.json").write_text(json.dumps({**record, "since": "2026-01-01T00:00:00Z"}))


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, which no test may change."""
    return write_run(tmp_path_factory.mktemp("small") / "run")


@pytest.fixture
def own_run(small_run: Path, tmp_path: Path) -> Path:
    """The same run, for a test to spoil."""
    return Path(shutil.copytree(small_run, tmp_path / "own"))

"""A terminal in which a test types commands as a user does, with records and Ray's files of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from eventmesh.runtime.on_ray.remains import has_ended

ROOT = Path(__file__).resolve().parents[2]
SOON_S = 60.0


class Terminal:
    """Types commands in ``folder``, which also has the records, Ray's files, and a token.

    ``environment`` is added to that of the tests, for commands alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment: Mapping[str, str] = {"TMPDIR": str(folder), "EVENTMESH_STATE": str(folder / "state")}
        (folder / "token").write_text("a-token-of-this-test-alone\n")

    def begin(self, *words: str) -> subprocess.Popen[str]:
        return self.python(str(ROOT / "cli.py"), *words)

    def python(self, *words: str) -> subprocess.Popen[str]:
        """Begin any program of Python's."""
        return subprocess.Popen(
            [sys.executable, *words], cwd=self.folder, env={**os.environ, **self.environment}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def type(self, *words: str) -> subprocess.CompletedProcess[str]:
        with self.begin(*words) as command:
            out, err = command.communicate(timeout=180)
            return subprocess.CompletedProcess(words, command.returncode, out, err)

    def ok(self, *words: str) -> str:
        ended = self.type(*words)
        assert ended.returncode == 0, ended
        assert "Traceback" not in ended.stderr
        return ended.stdout

    def refused(self, *words: str, code: int) -> str:
        ended = self.type(*words)
        assert (ended.returncode, ended.stdout) == (code, ""), ended
        assert "Traceback" not in ended.stderr
        return ended.stderr

    def topics(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.ok("log", "topics", "--name", "shop", "--json"))
        return found

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Watch the mesh until this holds."""
        deadline = time.monotonic() + SOON_S
        with self.begin("status", "--watch", "--json") as watching:
            assert watching.stdout is not None
            for line in watching.stdout:
                found: dict[str, Any] = json.loads(line)
                if holds(found):
                    watching.send_signal(signal.SIGINT)
                    assert (watching.wait(SOON_S), watching.stderr and watching.stderr.read()) == (0, "")
                    return found
                assert time.monotonic() < deadline, found
        pytest.fail("the watch ended by itself")


def still_running(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended within :data:`SOON_S`. One that nobody has collected yet has ended."""
    deadline, running = time.monotonic() + SOON_S, list(processes)
    while running and time.monotonic() < deadline:
        running = [process for process in running if not has_ended(process)]
        psutil.wait_procs(running, timeout=0.1)
    return running


@contextmanager
def opened() -> Iterator[Terminal]:
    """A terminal; what is still up when it is closed is ended."""
    # A short name leaves room for the names of Ray's sockets in it.
    with tempfile.TemporaryDirectory(prefix="em-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        here = Terminal(Path(folder))
        yield here
        if list((here.folder / "state").glob("*.json")):
            here.type("down")

"""Given the command as a process of its own, then it ends as the shell expects: by exit code, signal or closed pipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.commands.small_run import CONFIGS

COMMAND = [sys.executable, str(CONFIGS.parent / "cli.py")]
MESH = CONFIGS / "meshes" / "views.yaml"
MAPPING = CONFIGS / "mappings" / "online-retail.yaml"


def test_a_mistake_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    ended = subprocess.run([*COMMAND, "describe", "nowhere.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert (
        ended.stderr == f"eventmesh: nowhere.yaml: no such file. No YAML file is in {Path()}. "
        "Meshes that ship, by name: hybrid, request, views\n"
    )


def test_ctrl_c_stops_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    # The command waits for its input at the other end of this pipe: that it has opened it says how far it is.
    os.mkfifo(tmp_path / "sales.csv")
    words = ["run", str(MESH), "--input", "sales.csv", "--mapping", str(MAPPING)]
    process = subprocess.Popen(
        [*COMMAND, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with (tmp_path / "sales.csv").open("wb"):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "eventmesh: stopped\n")
    assert [path.name for path in tmp_path.iterdir()] == ["sales.csv"]


def test_a_reader_that_has_seen_enough_is_no_error_message(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        ended = subprocess.run([*COMMAND, "describe", str(MESH)], cwd=tmp_path, stdout=closed, stderr=subprocess.PIPE)
    assert ended.stderr == b""

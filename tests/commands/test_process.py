"""Given the command as a process of its own, then it ends as the shell expects: by exit code, signal or closed pipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

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


@contextmanager
def waiting(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A command that waits for its input at the other end of a pipe: that it has opened it says how far it is."""
    os.mkfifo(folder / "sales.csv")
    words = ["run", str(MESH), "--input", "sales.csv", "--mapping", str(MAPPING)]
    process = subprocess.Popen(
        [*COMMAND, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with (folder / "sales.csv").open("wb"):
        yield process


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "stopped"),
        (signal.SIGTERM, 143, "stopped by SIGTERM"),
        (signal.SIGHUP, 129, "stopped by SIGHUP"),
    ],
)
def test_who_wants_it_to_end_is_obeyed_at_once_and_nothing_is_left(
    tmp_path: Path, number: signal.Signals, code: int, said: str
) -> None:
    with waiting(tmp_path) as process:
        process.send_signal(number)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (code, "", f"eventmesh: {said}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["sales.csv"]


# The command's own entry, with one command put in: it says that it is there, and what it does stands in the test.
STUB = """
import sys, threading, queue, time
import cli
@cli.app.command()
def stub() -> None:
    {body}
sys.argv = ["eventmesh", "stub"]
cli.main()
"""


@contextmanager
def stub(body: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    code = STUB.format(body=textwrap.indent(textwrap.dedent(body), "    ").strip())
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    with subprocess.Popen([sys.executable, "-c", code], cwd=CONFIGS.parent, **given) as process:
        try:
            yield process
        finally:
            process.kill()  # of one that has ended, nothing


def test_a_second_signal_skips_the_cleaning_up() -> None:
    with stub("""
        try:
            print("there", flush=True)
            threading.Event().wait()
        finally:
            print("cleaning up", flush=True)
            threading.Event().wait()
    """) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "cleaning up\n"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
        assert (process.returncode, out, err.count("\n")) == (143, "", 1)
        assert err.startswith("eventmesh: stopped at once")


def test_a_signal_that_is_ignored_stays_so() -> None:
    with stub(
        """
        print("there", flush=True)
        sys.stdin.read()
        """,
        stdin=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGHUP)
        assert process.communicate("") == ("", "")
        assert process.returncode == 0


def test_who_waits_for_what_comes_ends_when_nobody_reads_any_more() -> None:
    with stub("""
        from eventmesh.lab import shell
        with shell.while_read():
            print("there", flush=True)
            queue.Queue().get()
    """) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_broken_connection_elsewhere_is_no_reader_that_has_gone() -> None:
    with stub("""
        import os, signal
        from eventmesh.lab import shell
        with shell.while_read():
            os.kill(os.getpid(), signal.SIGPIPE)
            print("still there")
    """) as process:
        assert process.communicate() == ("still there\n", "")


def test_a_fault_of_ours_is_one_line_and_a_file_that_says_where(tmp_path: Path) -> None:
    with stub("raise RuntimeError('no one thought of this')", env={**os.environ, "TMPDIR": str(tmp_path)}) as process:
        out, err = process.communicate()
        assert (process.returncode, out, err.count("\n")) == (1, "", 1)
        assert err.startswith(
            "eventmesh: this is a fault of eventmesh, not of yours (RuntimeError: no one thought of this)"
        )
        [kept] = tmp_path.iterdir()
        assert str(kept) in err
        assert "Traceback" in kept.read_text()
        assert "eventmesh stub" in kept.read_text()


@pytest.mark.parametrize("words", [["demo"], ["demo", "--json"], ["--help"]])
def test_results_that_cannot_be_written_are_one_message(tmp_path: Path, words: list[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        ended = subprocess.run([*COMMAND, *words], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr.count("\n")) == (6, 1), ended.stderr
    assert ended.stderr.startswith("eventmesh: the results cannot be written to standard output (No space left")
    with open("/dev/full", "w") as full:
        assert subprocess.run([*COMMAND, *words], cwd=tmp_path, stdout=full, stderr=full).returncode == 6


@pytest.mark.parametrize("words", [["demo"], ["demo", "--json"], ["run", str(MESH)], ["nothing"]])
def test_with_standard_output_closed_nothing_begins(tmp_path: Path, words: list[str]) -> None:
    shell = ["sh", "-c", 'exec "$@" >&-', "sh"]
    ended = subprocess.run([*shell, *COMMAND, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr.count("\n")) == (6, 1), ended.stderr
    assert ended.stderr.startswith("eventmesh: standard output is closed")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("words", "code"), [(["demo"], 0), (["describe", "nowhere.yaml"], 2), (["nothing"], 2)])
def test_with_standard_error_closed_the_exit_code_tells(tmp_path: Path, words: list[str], code: int) -> None:
    shell = ["sh", "-c", 'exec "$@" 2>&- <&-', "sh"]
    ended = subprocess.run([*shell, *COMMAND, *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert (ended.returncode, bool(ended.stdout)) == (code, code == 0)


def test_a_connection_that_breaks_is_no_reader_that_has_seen_enough(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with stub("raise BrokenPipeError(32, 'Broken pipe')", env=environment) as process:
        _, err = process.communicate()
        assert (process.returncode, err.startswith("eventmesh: this is a fault of eventmesh")) == (1, True)


def test_a_disk_that_is_full_is_not_taken_for_standard_output() -> None:
    with stub("raise OSError(28, 'No space left on device', 'runs/a')") as process:
        _, err = process.communicate()
        assert (process.returncode, err.startswith("eventmesh: runs/a: No space left on device")) == (6, True)


def test_too_little_memory_is_no_fault_of_ours() -> None:
    with stub("raise MemoryError") as process:
        _, err = process.communicate()
        assert (process.returncode, err.startswith("eventmesh: there is not enough memory for this")) == (6, True)


@pytest.mark.parametrize("stream", ["/dev/full", "a pipe that nobody reads"])
def test_what_nobody_can_be_told_stops_no_command(stream: str) -> None:
    body = """
        from rich.console import Console
        from eventmesh.lab import shell
        for number in range(3):
            Console(file=sys.stderr).print("so far", number)
            shell.say("so far")
        print("done")
    """
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as unread, open("/dev/full", "wb") as full:
        given = full if stream == "/dev/full" else unread
        with stub(body, stderr=given) as process:
            assert process.communicate() == ("done\n", None)
            assert process.returncode == 0


@pytest.mark.parametrize("stream", [0, 2])
def test_no_file_takes_the_place_of_a_stream_that_is_closed(stream: int) -> None:
    with stub("print(open('cli.py').fileno() > 2)", preexec_fn=lambda: os.close(stream)) as process:
        assert process.communicate()[0] == "True\n"


ASCII = {"PYTHONIOENCODING": "ascii"}
PLAIN_C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("words", "environment"),
    [(["demo"], ASCII), (["demo"], PLAIN_C), (["describe", str(MESH)], ASCII), (["trace", "Zoë→"], ASCII)],
)
def test_where_there_is_only_ascii_all_is_ascii(tmp_path: Path, words: list[str], environment: dict[str, str]) -> None:
    environment = {**os.environ, **environment}
    ended = subprocess.run([*COMMAND, *words], cwd=tmp_path, capture_output=True, env=environment)
    assert (ended.stdout + ended.stderr).isascii()
    assert ended.returncode == (2 if words[0] == "trace" else 0), ended.stderr
    assert words != ["demo"] or b"-> gateway: PlaceOrder" in ended.stdout


def test_a_reader_that_has_seen_enough_is_no_error_message(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        ended = subprocess.run([*COMMAND, "describe", str(MESH)], cwd=tmp_path, stdout=closed, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize("words", [["demo"], ["--help"]])
def test_nor_is_it_another_exit_code(tmp_path: Path, words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        ended = subprocess.run([*COMMAND, *words], cwd=tmp_path, stdout=closed, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (0, b"")

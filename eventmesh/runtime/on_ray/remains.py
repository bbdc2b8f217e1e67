"""Ends what is left of a Ray of our own, by its folder, also when the command that it belongs to has been killed.

Run as a program it waits until its parent says that all is in order, or is gone without a word. It is a file that
imports little, since a process of it runs beside every Ray that lives as long as a command.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

#: Seconds that processes may take to end.
ENDING_S = 15.0
POLL_S = 0.05
#: What the parent says when nothing is left to be done.
ALL_IN_ORDER = b"."


def end(folder: Path, session: int | None = None) -> None:
    """Kill every process that belongs to the Ray in ``folder``, or to ``session``, and remove the folder.

    Harmless to repeat. Nothing is asked of Ray, which may be out of reach.
    """
    deadline, killed = time.monotonic() + ENDING_S, set[psutil.Process]()
    while time.monotonic() < deadline:
        found = _processes(folder, session)
        # Ray's own first, lest they start again what is killed after them: their numbers are the lowest.
        for process in sorted(found, key=lambda each: each.pid):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        # One that is dying has no command line any more, and its files still open.
        killed = {process for process in killed | found if not has_ended(process)}
        if not killed:
            break
        psutil.wait_procs(killed, timeout=POLL_S)
    shutil.rmtree(folder, ignore_errors=True)


def _processes(folder: Path, session: int | None) -> set[psutil.Process]:
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
            if process.pid != os.getpid() and _belongs(process, folder, session):
                found |= {process, *process.children(recursive=True)}
    return found


def _belongs(process: psutil.Process, folder: Path, session: int | None) -> bool:
    """Whether it names the folder, or is named for what it works on (``ray::``) and is in the session or the folder."""
    words = " ".join(process.cmdline())
    is_rays = "ray::" in words and (os.getsid(process.pid) == session or _writes_below(folder, process.pid))
    return str(folder) in words or is_rays


def _writes_below(folder: Path, pid: int) -> bool:
    """Whether it has a file of the folder open, one that was deleted since included; where Linux tells."""
    try:
        return any(os.readlink(each).startswith(f"{folder}/") for each in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def has_ended(process: psutil.Process) -> bool:
    """Whether it is gone. One that nobody has collected yet has ended."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@contextmanager
def ended_with_us(folder: Path) -> Iterator[None]:
    """Whatever becomes of this process meanwhile, the Ray in ``folder`` does not outlive it."""
    waiting = subprocess.Popen(
        [sys.executable, "-P", __file__, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,  # Ctrl-C is for who is at work
    )  # fmt: skip
    try:
        yield
    finally:
        with suppress(BrokenPipeError):  # somebody has killed it
            waiting.communicate(ALL_IN_ORDER)


def main() -> None:
    """Wait beside the Ray in the folder that is named."""
    if sys.stdin.buffer.read() != ALL_IN_ORDER:
        end(Path(sys.argv[1]))


if __name__ == "__main__":
    main()

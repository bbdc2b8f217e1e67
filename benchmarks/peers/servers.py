"""Servers on loopback, gone with their measurement: programs, and functions in processes of their own."""

from __future__ import annotations

import importlib.util
import multiprocessing
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

LOOPBACK = "127.0.0.1"
#: Seconds that a server may take until it serves, or to say its last word.
STARTING_S = 60.0
ENDING_S = 10.0


@dataclass
class Served:
    """Where a server is and, once it has ended, what it said last."""

    address: str
    last: Any = None


@contextmanager
def in_process(serve: Callable[..., None], *arguments: Any) -> Iterator[Served]:
    """``serve(*arguments, told)`` in a process: it sends its address, waits until it ends, and sends a last word."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(*arguments, there), daemon=True)
    process.start()
    there.close()  # so that its death is heard
    try:
        served = Served(_hear(here, serve))
        yield served
        here.send("end")
        served.last = _hear(here, serve)
    finally:
        here.close()
        process.join(ENDING_S)
        process.kill()
        process.join()


def _hear(here: Any, serve: Callable[..., None]) -> Any:
    try:
        if here.poll(STARTING_S):
            return here.recv()
        problem = f"said nothing for {STARTING_S:g} s"
    except EOFError:
        problem = "ended by itself; its reason stands above"
    raise RuntimeError(f"{serve.__module__}.{serve.__name__} {problem}")


def wait_for_end(told: Any) -> None:
    """In the process that serves: until its measurement is over, or whoever measures is gone."""
    with suppress(EOFError):
        told.recv()


def last_word(told: Any, word: Any = None) -> None:
    """In the process that serves: what it has to say at the end, if anybody still listens."""
    with suppress(OSError):
        told.send(word)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        return int(free.getsockname()[1])


@contextmanager
def program(command: Sequence[str], port: int) -> Iterator[str]:
    """A program that listens on ``port``; its address once it does."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield f"{LOOPBACK}:{port}"
    finally:
        process.terminate()
        process.wait(ENDING_S)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTING_S
    while True:
        try:
            return socket.create_connection((LOOPBACK, port), timeout=1.0).close()
        except OSError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise
            time.sleep(0.02)


def packages_missing(*packages: str) -> str | None:
    """What of Python's packages is not installed, and how it is."""
    missing = [each for each in packages if importlib.util.find_spec(each) is None]
    if not missing:
        return None
    return f"{', '.join(missing)} {'are' if len(missing) > 1 else 'is'} not installed (pip install {' '.join(missing)})"

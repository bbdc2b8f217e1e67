"""What puts a mesh right again after a fault, written down before the fault is made.

Whoever makes faults may end in the middle of them, killed for instance. So the list is kept by somebody else, the
supervisor of a mesh that stays, on its disk. Who is silent for a lease while undos of its own are on the list has
ended: they are carried out then. All that is on it is carried out whenever anybody heals the mesh.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec
import psutil

from eventmesh.errors import ConfigurationError, EnvironmentUnavailable
from eventmesh.runtime.process.actor_log import log
from eventmesh.runtime.process.vitals import numbered_by

SCHEMA: Literal["eventmesh.undos/1"] = "eventmesh.undos/1"
#: Seconds without a word after which who made a fault has ended.
LEASE_S = 5.0
#: Two readings of when a process was started may differ by that many seconds.
STARTED_S = 1.0


class Heal(msgspec.Struct, frozen=True, tag="heal"):
    """Every process ends the faults that it does to itself."""


class Thaw(msgspec.Struct, frozen=True, tag="thaw"):
    """A process that was stopped goes on: number ``pid`` where ``numbered_by`` gives numbers, started at ``started``.

    ``started`` is in seconds since 1970. Whoever else has that number by then is left alone.
    """

    numbered_by: str
    pid: int
    started: float


Undo = Heal | Thaw


class Noted(msgspec.Struct, frozen=True):
    """An undo on the list, of the fault called ``fault``, which ``runner`` makes."""

    fault: str
    runner: str
    undo: Undo


class List(msgspec.Struct, frozen=True):
    """The list as it lies on the disk."""

    undos: list[Noted]
    schema: Literal["eventmesh.undos/1"] = SCHEMA


class Undos:
    """The list, in ``file``. ``heal`` has every process end the faults that it does to itself.

    A list that lies there already is gone on with: each runner on it has a lease from now on.
    """

    def __init__(
        self, file: Path, heal: Callable[[], object], *,
        lease_s: float = LEASE_S, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._file, self._heal, self._lease_s, self._clock = file, heal, lease_s, clock
        self._lock = threading.Lock()
        self._noted = {each.fault: each for each in self._read()}
        self._heard = {each.runner: clock() for each in self._noted.values()}

    def note(self, fault: str, runner: str, undo: Undo) -> None:
        """Put it on the list; the fault is made when this has returned.

        :class:`~eventmesh.errors.ConfigurationError` for a process that cannot be reached from here, and
        :class:`~eventmesh.errors.EnvironmentUnavailable` where it cannot be written.
        """
        if isinstance(undo, Thaw) and undo.numbered_by != numbered_by():
            raise ConfigurationError(
                "freeze: the process runs on another machine than the mesh's supervisor, which could not thaw it. "
                "Freeze one that runs where `eventmesh up` was typed"
            )
        with self._lock:
            noted = {**self._noted, fault: Noted(fault, runner, undo)}
            try:
                self._write(noted)
            except OSError as error:
                raise EnvironmentUnavailable(
                    f"{self._file} cannot be written ({error.strerror}), so that nobody could undo the fault. It is "
                    f"not made"
                ) from error
            self._noted, self._heard[runner] = noted, self._clock()

    def renew(self, runner: str) -> None:
        """It is there."""
        with self._lock:
            self._heard[runner] = self._clock()

    def forget(self, fault: str) -> None:
        """The fault is over."""
        with self._lock:
            if fault in self._noted:
                self._cross_out([fault])

    def look(self) -> list[str]:
        """Carry out the undos of those who are silent for a lease; the faults."""
        with self._lock:
            late = self._clock() - self._lease_s
            return self._carry_out([each for each in self._noted.values() if self._heard[each.runner] < late])

    def carry_out(self) -> list[str]:
        """Carry out all there are; the faults."""
        with self._lock:
            return self._carry_out(list(self._noted.values()))

    def _carry_out(self, noted: list[Noted]) -> list[str]:
        if any(isinstance(each.undo, Heal) for each in noted):
            self._heal()
        for each in noted:
            if isinstance(each.undo, Thaw):
                thaw(each.undo)
            log.warning("undone", fault=each.fault, runner=each.runner)
        faults = [each.fault for each in noted]
        if faults:
            self._cross_out(faults)
        return faults

    def _cross_out(self, faults: list[str]) -> None:
        """Where it cannot be written, who keeps the list next undoes them again, which is harmless."""
        for each in faults:
            del self._noted[each]
        try:
            self._write(self._noted)
        except OSError as error:
            log.warning("the list of undos is out of date", file=str(self._file), problem=str(error))

    def _read(self) -> list[Noted]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=List).undos
        except FileNotFoundError:
            return []
        except msgspec.DecodeError as error:  # written by another version: what it names has ended with its mesh
            log.warning("a list of undos is passed over", file=str(self._file), problem=str(error))
            return []

    def _write(self, noted: Mapping[str, Noted]) -> None:
        """Its machine's death ends all that is on it, so that it need not be synced."""
        fresh = self._file.with_name(f"{self._file.name}.temporary")
        fresh.write_bytes(msgspec.json.encode(List(list(noted.values()))))
        fresh.replace(self._file)


def thaw(undo: Thaw) -> None:
    """Let the process go on, if it is there still."""
    process = process_of(undo.pid, undo.started) if undo.numbered_by == numbered_by() else None
    if process is None:
        log.info("gone already", pid=undo.pid)
    else:
        send(process, signal.SIGCONT)


def process_of(pid: int, started: float) -> psutil.Process | None:
    """The process of this number, if it is the one that was started then."""
    try:
        process = psutil.Process(pid)
        return process if abs(process.create_time() - started) < STARTED_S else None
    except psutil.NoSuchProcess:
        return None


def send(process: psutil.Process, what: signal.Signals) -> bool:
    """Send it a signal; False where the process is gone, whoever has its number now."""
    try:
        if process.is_running():
            os.kill(process.pid, what)
            return True
    except (psutil.NoSuchProcess, ProcessLookupError):
        log.info("gone already", pid=process.pid)
    return False

"""What the machine did beside us while something was measured, and from when on that spoils a figure.

Ours are this process and all its descendants, those of an embedded Ray included. What others used is what the whole
machine was busy with, less what ours used; in a container the machine is its host. It is watched where there is a
``/proc/stat`` to read, which is on Linux.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from eventmesh.report.record import MachineUse
from eventmesh.report.wording import percent

#: A repetition is disturbed from this share on: of the machine's capacity that others took, or of the time under
#: memory pressure. What others take a mesh cannot have, so a tenth moves its capacity by a tenth, which is less than
#: the finest step of the loads; a desktop that is left alone takes a twentieth or less.
DISTURBED_FROM = 0.1
#: How often our processes are looked at. One that lives for less is known from what its parent waited for.
LOOK_S = 1.0
_PRESSURE = Path("/proc/pressure/memory")


def disturbed(use: MachineUse | None) -> str | None:
    """Why a repetition cannot be believed, in words; None where it can, or where nobody watched."""
    if use is None:
        return None
    if use.others + use.stolen > DISTURBED_FROM:
        host = f", its host took {percent(use.stolen)}" if use.stolen > DISTURBED_FROM / 2 else ""
        return f"other programs used {percent(use.others)} of the machine{host}"
    if (use.memory_pressure or 0.0) > DISTURBED_FROM:
        return f"for {percent(use.memory_pressure or 0.0)} of the time something waited for memory"
    return None


@dataclass(frozen=True)
class Reading:
    """Seconds since the machine started: of all its cores together, busy for somebody, stolen by the host.

    ``waited_s``: in which something waited for memory; None where the kernel does not tell.
    """

    total_s: float
    busy_s: float
    stolen_s: float
    waited_s: float | None


@dataclass(frozen=True)
class Spent:
    """CPU seconds of a process up to now: its own, and those of its children that ended and were waited for."""

    own_s: float
    children_s: float
    parent: int  # its number


@dataclass
class Account:
    """What our processes used since the first look.

    A process that ended between two looks is known by what it had used at the last one. If its parent waited for it,
    the parent's ``children_s`` grew by all it ever used, so this is taken off again, and what remains of the growth
    was used by children that no look has seen. A parent that does not wait (Ray's raylet) has no such growth.
    """

    first: dict[tuple[int, float], Spent] = field(default_factory=dict)
    last: dict[tuple[int, float], Spent] = field(default_factory=dict)
    alive: set[tuple[int, float]] = field(default_factory=set)

    def look(self, found: Mapping[tuple[int, float], Spent]) -> None:
        """Take in what is alive now, by number and time of birth: numbers are given out again.

        What only a later look finds was born in between: a process becomes ours in no other way.
        """
        for identity, spent in found.items():
            self.first.setdefault(identity, Spent(0.0, 0.0, spent.parent) if self.last else spent)
        self.last |= found
        self.alive = set(found)

    def used_s(self) -> float:
        """CPU seconds of all of them."""
        own = sum(spent.own_s - self.first[identity].own_s for identity, spent in self.last.items())
        return own + sum(self._unseen_s(identity) for identity in self.last)

    def _unseen_s(self, identity: tuple[int, float]) -> float:
        ended = (
            spent.own_s + spent.children_s
            for other, spent in self.last.items()
            if other not in self.alive and spent.parent == identity[0]
        )
        return max(0.0, self.last[identity].children_s - self.first[identity].children_s - sum(ended))


class Watch:
    """What the machine does while this is entered; ``use`` is there afterwards, None where it cannot be watched."""

    def __init__(self) -> None:
        self.use: MachineUse | None = None
        self.account = Account()
        self._me = psutil.Process()
        self._known: set[psutil.Process] = set()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._look_now_and_then, name="machine-watch", daemon=True)

    def __enter__(self) -> Watch:
        self._look()
        self._before = read()
        if self._before is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if self._before is not None:
            self._thread.join()
            after = read()
            self._look()
            self.use = between(self._before, after, self.account.used_s()) if after is not None else None

    def _look_now_and_then(self) -> None:
        while not self._left.wait(LOOK_S):
            self._look()

    def _look(self) -> None:
        # What was ours stays ours, also when its parent ended and it was given to another.
        # Its number may be another's by now, whose time is none of ours.
        self._known = {each for each in self._known if each.is_running()}
        self._known |= {self._me, *self._me.children(recursive=True)}
        found = {}
        for process in self._known:
            with suppress(psutil.Error):  # it ended, or may not be looked at
                found[process.pid, process.create_time()] = self._spent(process)
        self.account.look(found)

    def _spent(self, process: psutil.Process) -> Spent:
        with process.oneshot():
            times = process.cpu_times()
            return Spent(times.user + times.system, times.children_user + times.children_system, process.ppid())


def read() -> Reading | None:
    """Of this machine; None where it does not tell. Interrupts are nobody's: much of them is our own traffic."""
    if not psutil.LINUX:
        return None
    try:
        times = psutil.cpu_times()
    except OSError:
        return None
    everything = times.user + times.nice + times.system + times.idle + times.iowait + times.irq + times.softirq
    return Reading(
        everything + times.steal, times.user + times.nice + times.system, times.steal, _waited_for_memory_s()
    )


def between(before: Reading, after: Reading, ours_s: float) -> MachineUse | None:
    """The shares of the time between two readings; None where no time passed."""
    total = after.total_s - before.total_s
    if total <= 0:
        return None
    cores = psutil.cpu_count() or 1
    waited = None
    if before.waited_s is not None and after.waited_s is not None:
        waited = min(1.0, max(0.0, after.waited_s - before.waited_s) / (total / cores))
    return MachineUse(
        others=max(0.0, after.busy_s - before.busy_s - ours_s) / total,
        stolen=max(0.0, after.stolen_s - before.stolen_s) / total,
        memory_pressure=waited,
    )


def _waited_for_memory_s() -> float | None:
    try:
        found = re.search(r"^some .*total=(\d+)", _PRESSURE.read_text(), re.MULTILINE)
    except OSError:  # a kernel without it, or one that has it switched off
        return None
    return int(found[1]) / 1e6 if found else None

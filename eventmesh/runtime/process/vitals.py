"""What every process of a mesh has in common: who it is, what it has used, faults that strike it, and a garbage
collector that keeps out of the way.
"""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

from eventmesh.log.storage import machine_id
from eventmesh.runtime.faults import Fault, Struck
from eventmesh.runtime.process.metrics import Publisher, Reading, Registries
from eventmesh.runtime.process.strikes import Strikes, unshifted
from eventmesh.runtime.wire.faulty import LinkFaults

#: For the processes that a process starts: they look for modules where this one does, not in the working directory, in
#: which a ``yaml.py`` that lies there by chance would take a library's place.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}
#: Python's own thresholds (700, 10, 10) look through every living object again after each quarter that is
#: added: with hundreds of thousands of orders in memory that took a fifth of the gateway's time. State holds no
#: cycles, so what is left to find is little.
GC_THRESHOLDS = (50_000, 20, 100)

# What is frozen is not collected when the interpreter ends either: libraries with objects of their own then complain.
atexit.register(gc.unfreeze)

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NUMBERS = Path("/proc/self/ns/pid")


def numbered_by() -> str:
    """A name for what gives processes their numbers: this start of the machine, or a container on it.

    Not the machine's id, which may be a part of an image: all its containers then have one, and numbers of their own.
    """
    if _BOOT.exists() and _NUMBERS.is_symlink():
        return f"{_BOOT.read_text().strip()} {_NUMBERS.readlink()}"
    return machine_id()


class Life(NamedTuple):
    """One life of a process: ``pid`` where ``numbered_by`` gives numbers, ``started`` in seconds since 1970.

    All three together are of no other process. ``began_us`` is when it had read its code and began to work, in
    microseconds since 1970 on the machine's clock.
    """

    numbered_by: str
    pid: int
    started: float
    began_us: int


class Process:
    """Base of every process, which is called ``name`` in the mesh.

    ``registries`` says where its figures go; without it nobody wants them.
    """

    def __init__(self, registries: Registries | None = None, name: str = "") -> None:
        self._registries = registries
        self._publisher: Publisher | None = None
        self.link_faults = LinkFaults(name)
        self.strikes = Strikes(lambda: self.close(), link_faults=self.link_faults)
        self._began_us = unshifted()
        gc.collect()
        gc.freeze()  # what was imported stays for good
        gc.set_threshold(*GC_THRESHOLDS)

    def publish(self, mesh: str, read: Callable[[], Iterable[Reading]]) -> None:
        """Tell Prometheus what ``read`` finds from now on, every few seconds."""
        if self._registries is not None:
            self._publisher = Publisher(read, self._registries(mesh))
            self._publisher.start()

    def publish_no_more(self) -> None:
        """What is read may be gone."""
        if self._publisher is not None:
            self._publisher.close()

    def published(self) -> int:
        """How often that was done so far."""
        return 0 if self._publisher is None else self._publisher.published

    def pid(self) -> int:
        """The process's number on its machine."""
        return os.getpid()

    def identity(self) -> tuple[str, int]:
        """Its number, and where that holds: what it answers to whoever watches its lease."""
        return numbered_by(), os.getpid()

    def life(self) -> Life:
        """Which life of it this is."""
        return Life(*self.identity(), psutil.Process().create_time(), self._began_us)

    def strike(self, fault: Fault, name: str = "") -> Struck:
        """See :meth:`Strikes.strike <eventmesh.runtime.process.strikes.Strikes.strike>`."""
        return self.strikes.strike(fault, name)

    def heal(self) -> None:
        """End every fault that lasts in this process. Harmless where there is none."""
        self.strikes.heal()

    def came_of(self, name: str) -> tuple[Life, Struck | None]:
        """Which life of it this is, and what came so far of the fault of this name; None where it knows of none."""
        return self.life(), self.strikes.came_of(name)

    def close(self) -> None:
        """End in an orderly way."""

    def usage(self) -> dict[str, float]:
        """``cpu_s`` since the process began, ``memory_mb`` resident, ``private_mb`` not shared with other processes."""
        process = psutil.Process()
        times, memory = process.cpu_times(), process.memory_full_info()
        return {
            "cpu_s": times.user + times.system,
            "memory_mb": memory.rss / 1e6,
            "private_mb": memory.uss / 1e6,
        }

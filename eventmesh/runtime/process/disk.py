"""Carries out faults on the broker's disk."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from eventmesh.log.faulty_storage import FaultyStorage, flip
from eventmesh.log.segment import batches_on_disk
from eventmesh.runtime.faults import DiskFault, FailingSyncs, FlippedBit, FullDisk, SlowDisk, Struck, TornWrite
from eventmesh.runtime.process.actor_log import log

#: What shows that a fault happened.
_SHOWN: dict[str, type[DiskFault]] = {
    "syncs slowed": SlowDisk, "writes refused": FullDisk, "syncs failed": FailingSyncs, "writes torn": TornWrite,
}  # fmt: skip


def die() -> None:
    """End this process at once, as ``kill -9`` does."""
    log.warning("a fault has this process die in the middle of a write")
    os.kill(os.getpid(), signal.SIGKILL)


class Disk:
    """The faults on ``storage``, which keeps the log in ``directory``."""

    def __init__(self, storage: FaultyStorage, directory: Path) -> None:
        self._storage, self._directory = storage, directory
        self._lasting: list[Struck] = []
        self._extra_s, self._changed = 0.0, threading.Condition()
        storage.noticed, storage.before_sync = self._noticed, self._take_longer

    def begin(self, struck: Struck, name: str) -> Callable[[], None] | None:
        """Do it, and say what undoes it; None for what is over. ``name`` is what its dice are called."""
        if isinstance(struck.fault, FlippedBit):
            self._flip(struck.fault, struck, random.Random(name))
            return None
        if isinstance(struck.fault, TornWrite):
            self._storage.die_after = struck.fault.after_bytes
        self._lasting.append(struck)
        self._set()

        def undo() -> None:
            self._lasting.remove(struck)
            self._set()

        return undo

    def _set(self) -> None:
        """The switches, as the faults say that are in force."""
        storage, lasting = self._storage, [each.fault for each in self._lasting]
        storage.full = any(isinstance(fault, FullDisk) for fault in lasting)
        storage.fail_sync = any(isinstance(fault, FailingSyncs) for fault in lasting)
        if not any(isinstance(fault, TornWrite) for fault in lasting):
            storage.die_after = None
        with self._changed:
            self._extra_s = sum(fault.extra_ms for fault in lasting if isinstance(fault, SlowDisk)) / 1_000
            self._changed.notify_all()

    def _take_longer(self) -> None:
        """Hold a sync up; when less is to be waited for from now on, no longer."""
        extra_s = self._extra_s
        if not extra_s:
            return
        self._noticed("syncs slowed")
        with self._changed:
            self._changed.wait_for(lambda: self._extra_s < extra_s, extra_s)

    def _noticed(self, what: str) -> None:
        for each in list(self._lasting):
            if isinstance(each.fault, _SHOWN[what]):
                each.shows[what] += 1

    def _flip(self, fault: FlippedBit, struck: Struck, dice: random.Random) -> None:
        found = batches_on_disk(self._storage, fault.partition, closed=fault.segment == "closed")
        if found is None:
            return  # nothing is in it yet
        path, batches = found
        at = dice.choice(batches)
        flip(self._directory / path, at, dice.randint(0, 7))
        struck.shows["bits flipped"] += 1
        struck.details |= {"file": path, "byte": str(at)}

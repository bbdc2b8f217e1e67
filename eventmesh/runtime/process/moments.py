"""Waits, on a thread, for the moments at which something is to be done to a mesh of real processes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from eventmesh.log.store import LogReader, open_read_only
from eventmesh.progress import split_position
from eventmesh.runtime.faults import AtOffset, AtTime, FixedMoment
from eventmesh.runtime.process.later import Later

#: Seconds between two looks at a watermark, which is a mapped number: a look costs microseconds.
LOOK_S = 0.001


class Moments:
    """Of the mesh whose log lies in ``log_directory``."""

    def __init__(self, log_directory: Path) -> None:
        self._log_directory, self._later = log_directory, Later("moments")
        self._readers: set[LogReader] = set()

    def when(self, moment: FixedMoment, action: Callable[[], None]) -> None:
        """Have ``action`` called on the thread at the moment; times are counted from now."""
        match moment:
            case AtTime(seconds=seconds):
                self._later.after(seconds, action)
            case AtOffset():
                reader = open_read_only(self._log_directory)
                self._readers.add(reader)
                self._later.after(0, partial(self._look, reader, moment, action))

    def _look(self, reader: LogReader, moment: AtOffset, action: Callable[[], None]) -> None:
        if reader not in self._readers:
            reader.close()  # nobody waits for it any more
        elif reader.watermark(*split_position(moment.partition)) < moment.offset:
            self._later.after(LOOK_S, partial(self._look, reader, moment, action))
        else:
            self._readers.discard(reader)
            reader.close()
            action()

    def close(self) -> None:
        """Do nothing of what has not come yet."""
        self._later.close()
        waiting, self._readers = self._readers, set()
        for reader in waiting:
            self._later.after(0, reader.close)  # on the thread that may be reading

"""Carries out faults in one process: on its clock, its end, its links, what it asks and is answered, and its disk.

A process is told of a fault by a message and forgets it by itself when it is over. Faults that need a signal are the
business of who may send one (``on_ray/strikes.py``).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count

from eventmesh.errors import ConfigurationError
from eventmesh.runtime.faults import (
    Bandwidth,
    ClockJump,
    Cut,
    Duplication,
    End,
    FailingSyncs,
    Fault,
    FlippedBit,
    FullDisk,
    Lasting,
    Latency,
    Loss,
    Reordering,
    Reset,
    SlowDisk,
    Split,
    Stall,
    Struck,
    TornWrite,
)
from eventmesh.runtime.process.actor_log import log
from eventmesh.runtime.process.disk import Disk
from eventmesh.runtime.process.later import Later
from eventmesh.runtime.process.reactor import CLOCK
from eventmesh.runtime.wire.faulty import LinkFaults, OnLink

#: What a process exits with that a fault has ended, when it is to be started again.
ENDED = 4
#: Faults that a process remembers when they are over, for who asks what came of them.
KEPT_MAX = 64
MS = 1_000


def unshifted() -> int:
    """Microseconds since the Unix epoch on the machine's clock, whatever a fault does to that of the process."""
    return time.time_ns() // 1_000


class Strikes:
    """The faults of one process. ``close`` closes it in an orderly way, ``leave`` then ends it at once.

    ``link_faults`` are those of the process. ``disk`` is the one whose faults others notice; the broker alone has one.
    """

    def __init__(
        self,
        close: Callable[[], None],
        leave: Callable[[int], None] = os._exit,
        *,
        link_faults: LinkFaults | None = None,
    ) -> None:
        self._link_faults = link_faults or LinkFaults()
        self._close, self._leave = close, leave
        self.disk: Disk | None = None
        self._numbers = count()
        self._later = Later("faults")
        self._lock = threading.RLock()
        self._lasting: dict[str, Lasting] = {}
        self._struck: dict[str, Struck] = {}

    def strike(self, fault: Fault, name: str = "") -> Struck:
        """Do it now; what comes back says what came of it, and goes on doing so while it lasts.

        ``name`` tells it from others like it; to say the same name twice is to say it once. What is drawn follows from
        it, in all processes alike. :class:`~eventmesh.errors.ConfigurationError` for what is not done in a process.
        """
        with self._lock:
            name = name or f"{fault.model_dump_json()} #{next(self._numbers)}"
            if name in self._struck:
                return self._struck[name]
            struck = Struck(fault, unshifted())
            undo = self._begin(struck, name)
            self._keep(name, struck)
            if undo is None:
                struck.ended_us = unshifted()
                return struck
            self._lasting[name] = Lasting(struck, undo)
        if fault.duration_s is not None:
            self.later(fault.duration_s, partial(self._end, name))
        log.info("fault", fault=fault.model_dump_json())
        return struck

    def _keep(self, name: str, struck: Struck) -> None:
        self._struck[name] = struck
        over = [each for each in self._struck if each not in self._lasting]
        for each in over[: len(over) - KEPT_MAX]:
            del self._struck[each]

    def _begin(self, struck: Struck, name: str) -> Callable[[], None] | None:
        """Do it, and say what undoes it; None for what is over."""
        match struck.fault:
            case ClockJump(by_ms=by_ms):
                CLOCK.ahead_us += by_ms * MS
                struck.shows["clocks off"] += 1
                return partial(_put_right, by_ms * MS)
            case End():
                struck.shows["lives ended"] += 1
                self._close()
                return partial(self._leave, ENDED)
            case SlowDisk() | FullDisk() | FailingSyncs() | TornWrite() | FlippedBit() if self.disk is not None:
                return self.disk.begin(struck, name)
            case Latency() | Bandwidth() | Stall() | Cut() | Reset() | Split() | Loss() | Duplication() | Reordering():
                return self._on_links(OnLink(struck, name))
            case fault:
                raise ConfigurationError(f"{fault.kind} is not a fault that this process can do to itself")

    def _on_links(self, on: OnLink) -> Callable[[], None] | None:
        link_faults = self._link_faults
        if isinstance(on.fault, Reset):
            self._break_all(on)
            return None
        link_faults.begin(on)
        if not isinstance(on.fault, Cut | Split):
            return partial(link_faults.end, on)
        for connection in link_faults.hit_by(on):
            sooner_s = random.Random(f"{on.name} {connection.name}").random() * on.fault.lasts_s
            self.later(sooner_s, partial(link_faults.break_off, connection, on))

        def over() -> None:
            self._break_all(on)
            link_faults.end(on)

        return over

    def _break_all(self, on: OnLink) -> None:
        for connection in self._link_faults.hit_by(on):
            self._link_faults.break_off(connection, on)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do ``action`` in so many seconds."""
        self._later.after(seconds, action)

    def _end(self, name: str) -> None:
        with self._lock:
            lasting = self._lasting.pop(name, None)
            if lasting is not None:
                lasting.struck.ended_us = unshifted()
                lasting.undo()

    def heal(self) -> None:
        """End every fault that lasts. Harmless where there is none."""
        for name in list(self._lasting):
            self._end(name)

    def came_of(self, name: str) -> Struck | None:
        """What came so far of the fault of this name, as it stands; None where there was none."""
        struck = self._struck.get(name)
        if struck is None:
            return None
        return replace(struck, shows=Counter(struck.shows), details=dict(struck.details))


def _put_right(ahead_us: int) -> None:
    CLOCK.ahead_us -= ahead_us

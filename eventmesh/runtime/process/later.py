"""Does things later, at their times, on one thread that is there only while something is to come."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from itertools import count

from eventmesh.runtime.process.actor_log import log


class Later:
    """``name`` is what its thread is called. Times are of a clock that no fault has jump."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()  # what falls due at one time is done in the order in which it was asked for
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do ``action`` in so many seconds."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), action))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while (action := self._next()) is not None:
            try:
                action()
            except Exception:  # the others are still to be done
                log.exception("not done", thread=self._name)

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next one; None, and the thread is no more, where nothing is to come."""
        with self._changed:
            while self._due:
                wait_s = self._due[0][0] - time.monotonic()
                if wait_s <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait_s)
            self._thread = None
            return None

    def close(self) -> None:
        """Do none of it."""
        with self._changed:
            self._due.clear()
            self._changed.notify()

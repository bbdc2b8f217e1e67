"""Rows on their way to a reactor are counted, so that its inbox has a limit like every other queue (promise P8).

Who reads a log waits for room: what it has not read keeps where it is. Who is asked refuses instead: one that waited
would hold up the asker, which may be what the other side is waiting for.
"""

from __future__ import annotations

import threading


class Intake:
    """At most ``rows_max`` rows wait, and one arrival more: an arrival is let in whole while there is any room."""

    def __init__(self, rows_max: int) -> None:
        self.rows_max = rows_max
        self.most = 0  # rows that have waited at a time
        self.refused = 0  # rows that found no room
        self._arrived = 0  # in the inbox
        self._queued = 0  # taken out of it, and still to be decided
        self._closed = False
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """Rows in the inbox, and behind it."""
        return self._arrived + self._queued

    def wait_and_enter(self, rows: int) -> None:
        """Count an arrival in, as soon as there is room."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.waiting <= self.rows_max)
            self._enter(rows)

    def enter(self, rows: int) -> bool:
        """Count an arrival in; False where it has no room."""
        with self._changed:
            if self.waiting > self.rows_max:
                self.refused += rows
                return False
            self._enter(rows)
            return True

    def _enter(self, rows: int) -> None:
        self._arrived += rows
        self.most = max(self.most, self.waiting)

    def leave(self, rows: int, queued: int = 0) -> None:
        """An arrival was taken out of the inbox; of all so far ``queued`` rows still wait behind it."""
        with self._changed:
            self._arrived -= rows
            self._set_queued(queued)

    def queued(self, rows: int) -> None:
        """So many rows still wait behind the inbox."""
        if rows != self._queued:
            with self._changed:
                self._set_queued(rows)

    def _set_queued(self, rows: int) -> None:
        self._queued = rows
        self.most = max(self.most, self.waiting)
        self._changed.notify_all()

    def close(self) -> None:
        """Nobody takes anything any more: nobody is held up either."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

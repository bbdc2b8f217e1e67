"""The bounded memory of what is finished: answers repeats until no deadline can still be open (rule 12)."""

from __future__ import annotations


class Finished(dict[str, tuple[str, int]]):
    """Key to (status, time of the last fact in microseconds), oldest first; forgets by the facts' own time.

    The fold drives it, never a clock, so that folding again remembers and forgets the same.
    """

    def __init__(self, memory_us: int) -> None:
        super().__init__()
        self.memory_us = memory_us

    def remember(self, key: str, status: str, time: int) -> None:
        """Remember ``key`` from ``time`` on, and forget what is older than the memory is long."""
        self.pop(key, None)
        self[key] = (status, time)
        while self:
            oldest = next(iter(self))
            if self[oldest][1] >= time - self.memory_us:
                return
            del self[oldest]

    def status(self, key: str) -> str | None:
        """The status remembered of ``key``."""
        known = self.get(key)
        return None if known is None else known[0]

"""The bounded memory of what is finished: answers repeats until no deadline can still be open (rule 12)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Finished:
    """Key to (status, time of the last fact in microseconds), oldest first; forgets by the facts' own time.

    The fold drives it, never a clock, so that folding again remembers and forgets the same.
    """

    known: dict[str, tuple[str, int]] = field(default_factory=dict)

    def remember(self, key: str, status: str, time: int, memory_us: int) -> None:
        """Remember ``key`` from ``time`` on, and forget what is older than ``memory_us``."""
        known = self.known
        known.pop(key, None)
        known[key] = (status, time)
        while known:
            oldest = next(iter(known))
            if known[oldest][1] >= time - memory_us:
                return
            del known[oldest]

    def status(self, key: str) -> str | None:
        """The status remembered of ``key``."""
        found = self.known.get(key)
        return None if found is None else found[0]

    def __contains__(self, key: str) -> bool:
        return key in self.known

    def __len__(self) -> int:
        return len(self.known)

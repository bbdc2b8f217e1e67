"""Vectors of positions: how far a reader has got. No I/O.

A position is ``topic/partition`` and an offset. Progress is contiguous per partition: ``next`` is the
lowest offset not yet done. Inputs done beyond an open one (its answer is still awaited) are kept as
``ahead`` ranges, so that a restart neither repeats them nor loses the open one (rule 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def position_name(topic: str, partition: int) -> str:
    """``orders/0``: how a partition is named in vectors, messages and paths."""
    return f"{topic}/{partition}"


def split_position(name: str) -> tuple[str, int]:
    """``orders/0`` to ``("orders", 0)``."""
    topic, _, partition = name.rpartition("/")
    return topic, int(partition)


class Progress:
    """One reader's vector ``{topic/partition: next offset}`` with the ranges done ahead of it."""

    __slots__ = ("ahead", "next")

    def __init__(self, next_offsets: Mapping[str, int] | None = None) -> None:
        self.next: dict[str, int] = dict(next_offsets or {})
        self.ahead: dict[str, list[tuple[int, int]]] = {}  # disjoint, sorted, each start > next

    def is_done(self, name: str, offset: int) -> bool:
        """Whether the input at ``offset`` was already decided."""
        if offset < self.next.get(name, 0):
            return True
        return any(start <= offset < end for start, end in self.ahead.get(name, ()))

    def any_done(self, name: str, start: int) -> bool:
        """Whether any input at or above ``start`` was already decided; cheaper than asking of each."""
        return start < self.next.get(name, 0) or name in self.ahead

    def done(self, name: str, start: int, end: int) -> None:
        """Mark the offsets ``[start, end)`` as done."""
        if start >= end:
            return
        following = self.next.get(name, 0)
        if start <= following:
            following = max(following, end)
            ranges = self.ahead.get(name)
            while ranges and ranges[0][0] <= following:
                following = max(following, ranges.pop(0)[1])
            if ranges is not None and not ranges:
                del self.ahead[name]
            self.next[name] = following
            return
        ranges = [*self.ahead.get(name, ()), (start, end)]
        ranges.sort()
        merged = [ranges[0]]
        for low, high in ranges[1:]:
            if low <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], high))
            else:
                merged.append((low, high))
        self.ahead[name] = merged

    def reached(self, other: Mapping[str, int]) -> bool:
        """Whether every position of ``other`` is at or below this vector."""
        return all(self.next.get(name, 0) >= offset for name, offset in other.items())

    def copy(self) -> Progress:
        """An independent copy."""
        twin = Progress(self.next)
        twin.ahead = {name: list(ranges) for name, ranges in self.ahead.items()}
        return twin

    def to_json(self) -> dict[str, Any]:
        """As it stands in a batch's metadata; ``ahead`` is left out when empty."""
        encoded: dict[str, Any] = {"next": dict(sorted(self.next.items()))}
        if self.ahead:
            encoded["ahead"] = {name: [list(r) for r in ranges] for name, ranges in sorted(self.ahead.items())}
        return encoded

    @classmethod
    def from_json(cls, encoded: Mapping[str, Any]) -> Progress:
        """The reverse of :meth:`to_json`."""
        progress = cls(encoded.get("next", {}))
        progress.ahead = {
            name: [(int(low), int(high)) for low, high in ranges] for name, ranges in encoded.get("ahead", {}).items()
        }
        return progress

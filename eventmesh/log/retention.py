"""Which segments a topic's retention lets go: Kafka's ``retention.ms`` and ``retention.bytes``. No I/O.

Whole closed segments go, oldest first, and none that reaches past what a reader or the partition itself still needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from eventmesh.log.topic import TopicSettings

KEEP_EVERYTHING = -1


@dataclass(frozen=True, slots=True)
class ClosedSegment:
    """``end`` is the offset after its last batch, ``appended_at`` when that batch was appended, in microseconds."""

    end: int
    bytes: int
    appended_at: int


@dataclass(frozen=True, slots=True)
class Deleted:
    """What retention took from a partition: the offsets ``[start_before, start)``.

    ``overrode`` is the floor that was overridden for it, None where nothing below a floor was taken.
    """

    partition: str
    start_before: int
    start: int
    segments: int
    bytes: int
    overrode: int | None = None


def new_start(
    closed: Iterable[ClosedSegment], settings: TopicSettings, *, start: int, size: int, now: int, floor: int
) -> int:
    """The offset that the partition should begin at: the end of the last segment that may go, else ``start``.

    ``closed`` comes oldest first and is looked at only as far as needed; ``size`` is the bytes of the
    whole partition, ``floor`` the lowest offset that must stay.
    """
    if settings.cleanup_policy != "delete":
        return start
    for segment in closed:
        if segment.end > floor or not _may_go(segment, settings, size, now):
            break
        start, size = segment.end, size - segment.bytes
    return start


def _may_go(segment: ClosedSegment, settings: TopicSettings, size: int, now: int) -> bool:
    if settings.retention_bytes != KEEP_EVERYTHING and size > settings.retention_bytes:
        return True
    limit = settings.retention_ms
    return limit != KEEP_EVERYTHING and now - segment.appended_at > limit * 1_000

"""The bounds that an instance works within, and the counts of what it has done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Samples of staleness that are kept, at most: the first ones count.
SAMPLES_MAX = 100_000


@dataclass(frozen=True)
class Limits:
    """Bounds of one instance (promise P8). Times are microseconds."""

    batch_rows_max: int = 4_000
    appends_in_flight_max: int = 2
    conversations_max: int = 1_000
    asks_queued_rows_max: int = 20_000
    inputs_queued_rows_max: int = 50_000
    inputs_without_fact_max: int = 10_000
    attempt_timeout: int = 5_000_000
    backoff: int = 50_000
    backoff_max: int = 2_000_000
    refold_delay: int = 100_000


@dataclass
class Counters:
    """What an instance has done since it started; runtimes report it, the lab reads it."""

    inputs: int = 0
    facts: int = 0
    appends: int = 0
    asks_sent: int = 0
    asks_retried: int = 0
    queries_answered: int = 0
    refolds: int = 0
    inputs_refused: int = 0
    rows_folded: int = 0  # of its own topics, at its start and whenever it had to fold again
    bytes_appended: int = 0
    inputs_queued_rows_max: int = 0  # the most rows that waited at a time in one task, here and below
    commands_queued_rows_max: int = 0
    staleness_us: list[int] = field(default_factory=list)

    def sample_staleness(self, age_us: int) -> None:
        """How old a batch of facts was when it reached a view; bounded, the first samples count."""
        if len(self.staleness_us) < SAMPLES_MAX:
            self.staleness_us.append(age_us)

    def to_json(self) -> Mapping[str, Any]:
        """The counters alone, without samples."""
        return {name: value for name, value in vars(self).items() if name != "staleness_us"}

"""The bounds that an instance works within, and the counts of what it has done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from eventmesh.policies import BACKOFF_MAX_MS, BACKOFF_MS, TIMEOUT_MS

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
    attempt_timeout: int = TIMEOUT_MS * 1_000
    backoff: int = BACKOFF_MS * 1_000
    backoff_max: int = BACKOFF_MAX_MS * 1_000
    refold_delay: int = 100_000


@dataclass(slots=True)
class AskCounts:
    """What came of the asks of one message, as the policies of its asker see it. An ask goes to one partition."""

    attempts: int = 0  # messages sent, repeats and hedges among them
    repeats: int = 0  # of asks that were sent before
    timeouts: int = 0  # attempts whose time was over
    given_up: int = 0  # asks whose attempts or deadline ended: they may have happened
    hedges_sent: int = 0
    hedges_won: int = 0  # the others were answered by the first message, and the hedge's answer was dropped
    cache_hits: int = 0  # questions, one by one, that were not asked, here and below
    cache_stale: int = 0
    cache_misses: int = 0
    circuit_opened: int = 0
    circuit_not_permitted: int = 0  # attempts that an open circuit did not let out
    bulkhead_queued: int = 0
    bulkhead_full: int = 0

    def to_json(self) -> dict[str, int]:
        """Every count by its name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


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
    asks: dict[str, AskCounts] = field(default_factory=dict)  # by the name of the message

    def sample_staleness(self, age_us: int) -> None:
        """How old a batch of facts was when it reached a view; bounded, the first samples count."""
        if len(self.staleness_us) < SAMPLES_MAX:
            self.staleness_us.append(age_us)

    def to_json(self) -> Mapping[str, Any]:
        """The counters alone, without samples; ``asks`` has those of each message that was asked."""
        counts = {name: value for name, value in vars(self).items() if name != "staleness_us"}
        return {**counts, "asks": {name: each.to_json() for name, each in sorted(self.asks.items())}}

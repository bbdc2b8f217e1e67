"""Within how many seeds the fuzzer finds each mutant, with what it draws for anybody: nothing guides it.

    python -m tests.simulation.mutant_search                 # every mutant, one after the other
    python -m tests.simulation.mutant_search NAME NAME ...   # these

It prints the lines of :data:`WITHIN`, which docs/promises.md shows. They are good for the draws of one version: after a
change to what a seed stands for, run it again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import pytest

from eventmesh.lab import fuzz, fuzz_verdict
from eventmesh.lab.fuzz_case import run
from eventmesh.lab.fuzz_draws import drawn
from tests.simulation.mutants import MUTANTS

#: Seeds, counted from 0, after which the search gives a mutant up.
SEEDS = 600
#: Seconds after which it does.
PATIENCE_S = 300.0
#: Mutants that the fuzzer finds, each within so many seeds.
WITHIN: dict[str, int] = {
    "vector_left_out": 1,  # D6
    "waiting_input_counts_as_done": 1,  # Deadlock
    "views_not_awaited": 124,  # D1
    "snapshot_without_vector": 4,  # D1
    "snapshot_of_a_view_empty": 7,  # Deadlock
    "replies_before_acknowledgement": 1,  # E1
    "open_asks_not_resumed": 2,  # D3, E7
    "fresh_ids_by_callers": 22,  # deliveries
    "trusts_what_was_read_before": 1,  # D7
    "timeout_means_refused": 5,  # E3
    "append_anywhere": 15,  # Deadlock
    "grants_without_epoch": 1,  # A5, D4, E5
    "snapshot_ends_early": 4,  # AssertionError
    "offsets_used_twice": 103,  # OffsetOutOfRange
    "lying_sync": 1,  # CorruptSegment
    "shown_before_sync": 1,  # CorruptSegment
    "failed_sync_retried": 380,  # CorruptSegment
    "floors_ignored": 1,  # OffsetOutOfRange
    "listeners_forgotten": 10,  # OffsetOutOfRange
    "order_id_taken_twice": 1,  # D3, D7, E1, E6
    "sync_covers_what_came_meanwhile": 1,  # E7
    "streams_out_of_order": 1,  # Deadlock
    "stock_never_released": 1,  # E3
}
#: Mutants that need another input than a load and faults: their scenario makes it.
OWN_INPUT: dict[str, str] = {
    "lost_topic_created_anew": "files that vanish",
    "told_by_the_id_alone": "an id that is used again",
    "repeats_unmarked": "an id that is used again",
    "view_by_arrival": "a view of two topics",
    "partitions_not_fixed": "another mesh file",
    "columns_not_checked": "a writer of another version",
    "segments_go_on": "another version of the application",
    "version_registered_last": "another version of the application",
    "poison_swallowed": "a rule that raises",
    "poison_kills": "a rule that raises",
    "expiry_before_answers": "an application with timers",
    "snapshot_without_timers": "an application with timers",
    "counts_messages": "a channel that delivers twice",
}


def told(name: str) -> str:
    """The cell of the table in docs/promises.md."""
    if name in OWN_INPUT:
        return f"own input: {OWN_INPUT[name]}"
    return str(WITHIN[name]) if name in WITHIN else "not yet"


def found_at(name: str, seeds: Sequence[int] = range(SEEDS), patience_s: float = PATIENCE_S) -> tuple[int, list[str]]:
    """The first of ``seeds`` under which a mutant is found, and what speaks against it; -1 where none does."""
    documents, began = fuzz.described(None), time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[name].apply(patch)
        for number in seeds:
            seed = fuzz.of_seed(documents, number)
            finding = fuzz_verdict.judge(run(drawn(seed.document, seed.seed)))
            if finding:
                return number, finding.names
            if time.monotonic() - began > patience_s:
                break
    return -1, []


def main(names: Sequence[str]) -> None:
    """Search for each."""
    for name in names or [name for name in MUTANTS if name not in OWN_INPUT]:
        began = time.monotonic()
        seed, said = found_at(name)
        passed = f"{time.monotonic() - began:.0f} s"
        told = f'    "{name}": {seed + 1},  # {", ".join(said)}' if said else f"    # {name}: not found in {passed}"
        sys.stdout.write(told + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])

"""A load that lasts: an application's workload, asked for as often as it takes to fill the time at a rate.

A framework does not know which option of an application says how many requests there are. So the workload stays as its
user chose it, and is asked for again and again, as by later runs on a mesh that stays: under other names, each with
what seeds it. It is never cut: what it was made for, such as goods of which there are too few, it still is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
import pyarrow as pa

from eventmesh.application import Words
from eventmesh.errors import InputError
from eventmesh.workload import Requests, Workload

#: Each has its own seeding, stage by stage. More of them is a workload that was chosen too small.
WORKLOADS_MAX = 100
#: By how much an application may miss the rate that it was told: the last request has no gap after it.
RATE_TOLERANCE = 0.1
SECOND = 1_000_000


def fill(make: Callable[[int], Workload], rate: float, seconds: float, words: Words) -> Workload:
    """Workloads one after the other that last ``seconds`` at ``rate`` requests per second, or longer.

    ``make(number)`` gives the workload of the run of that number, from 1. Raises :class:`InputError` where it has
    nothing to ask, does not keep the rate, or asks too little.
    """
    wanted = math.ceil(round(rate * seconds, 6))  # 2,000/s for 0.05 + 0.01 s are 120 requests, and not one more
    made: list[Workload] = []
    known: set[tuple[str, str]] = set()
    while sum(len(each.load) for each in made) < wanted:
        if len(made) == WORKLOADS_MAX:
            raise _too_few(made, wanted, rate, f"{WORKLOADS_MAX} workloads of it are not enough", words)
        load = (each := make(len(made) + 1)).load
        names = set(zip(load.commands, load.keys, strict=True))
        if not names:
            raise InputError(f"the workload asks for no {words.request} at all, so there is nothing to compare by")
        if known & names:
            raise _too_few(made, wanted, rate, "asked for once more it names the same again", words)
        known |= names
        made.append(each)
    _check_rate(made[0].load, rate, words)
    return made[0] if len(made) == 1 else _one_after_the_other(made, rate)


def _too_few(made: Sequence[Workload], wanted: int, rate: float, why: str, words: Words) -> InputError:
    return InputError(
        f"the workload has {len(made[0].load):,} {words.requests}, and at {rate:g}/s the benchmark needs {wanted:,}: "
        f"{why}. Choose more {words.requests}, or write a benchmark file with smaller offered_per_s or window_s"
    )


def _check_rate(load: Requests, rate: float, words: Words) -> None:
    if len(load) < 2:
        return
    lasts = float(load.at[-1] - load.at[0]) / SECOND
    meant = (len(load) - 1) / rate
    if abs(lasts - meant) > RATE_TOLERANCE * meant:
        raise InputError(
            f"the application's workload does not keep the rate that it is told: {len(load):,} {words.requests} at "
            f"{rate:g}/s last {meant:.3g} s, and its own last {lasts:.3g} s. "
            "Let workload(options) spread them by options.rate"
        )


def _one_after_the_other(made: Sequence[Workload], rate: float) -> Workload:
    loads, gap = [each.load for each in made], round(SECOND / rate)
    begins = accumulate([int(load.at[-1]) + gap for load in loads[:-1]], initial=0)
    together = Requests(
        [command for load in loads for command in load.commands],
        [key for load in loads for key in load.keys],
        _stacked([load.payload for load in loads]),
        np.concatenate([load.at + begin for load, begin in zip(loads, begins, strict=True)]),
    )
    seeding = [stage for each in made for stage in each.seeding]
    return replace(made[0], seeding=seeding, load=together, summary=None, told="", seeding_name=None)


def _stacked(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """What one of them does not ask is null in its rows."""
    tables = [pa.Table.from_batches([batch]) for batch in batches]
    whole = pa.concat_tables(tables, promote_options="default").combine_chunks()
    [batch] = whole.to_batches()
    return batch

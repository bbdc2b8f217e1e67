"""What callers ask: days are opened first, then bicycles are brought in."""

from __future__ import annotations

import random

import numpy as np
from pydantic import Field

from eventmesh.workload import Requests, Workload, WorkloadOptions

from .facts import BringIn, OpenDay

#: So many bicycles come for each day. They need 25 hours of work, on average.
A_DAY = 10


class RepairOptions(WorkloadOptions):
    """What a user may choose: each field is an option of `eventmesh run template/told.yaml`."""

    repairs: int = Field(200, ge=1, le=100_000, description="Bicycles that are brought in.")
    hours: int = Field(16, ge=0, le=1_000, description="Hours of work that each day has.")


WORKLOAD = RepairOptions


def workload(options: RepairOptions) -> Workload:
    """The same bicycles for the same seed; ``number`` tells the runs on a mesh that stays apart."""
    dice = random.Random(f"repairs of {options.seed}")
    run = f"{options.seed}-{options.number}"
    repairs = [
        BringIn(f"repair-{run}-{number}", f"day-{run}-{number // A_DAY}", dice.randint(1, 4))
        for number in range(options.repairs)
    ]
    days = [OpenDay(day, options.hours) for day in dict.fromkeys(repair.day for repair in repairs)]
    gap_us = 0 if options.rate is None else int(1e6 / options.rate)
    at = np.arange(len(repairs), dtype=np.int64) * gap_us
    return Workload([Requests.of(days)], Requests.of(repairs, at))

"""What guests order, and when couriers come: too few, and some of them late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from pydantic import Field

from eventmesh.workload import Dice, Requests, Variation, Workload, WorkloadOptions
from tests.delivery.facts import OrderMeal, SendCouriers

ZONES = [f"zone-{number}" for number in range(3)]


class MealOptions(WorkloadOptions):
    """What a user may choose of the meals."""

    meals: int = Field(100, ge=1, le=100_000, description="Meals that guests order.")
    couriers: int = Field(10, ge=0, description="Couriers of each zone that come before the first order.")
    late: int = Field(5, ge=0, description="Couriers of each zone that come when half of the meals are ordered.")


WORKLOAD = MealOptions


def workload(options: MealOptions) -> Workload:
    """Meals of three zones in turn, in the middle of which more couriers come."""
    later = "" if options.number == 1 else f"{options.number}-"
    gap = 0 if options.rate is None else int(1e6 / options.rate)
    asked: list[OrderMeal | SendCouriers] = [
        OrderMeal(f"meal-{later}{options.seed}-{number}", ZONES[number % 3], 1_000 + number, number % 4 * 50)
        for number in range(options.meals)
    ]
    half = options.meals // 2
    asked[half:half] = [SendCouriers(zone, options.late) for zone in ZONES if options.late]
    seeding = [Requests.of([SendCouriers(zone, options.couriers) for zone in ZONES])] if options.couriers else []
    return Workload(seeding, Requests.of(asked, np.arange(len(asked), dtype=np.int64) * gap))


class Searches(Variation):
    """How long couriers are searched for: some are found in time, some when the time is nearly over."""

    search_s: float = Field(0.03, gt=0)

    @classmethod
    def drawn(cls, dice: Dice) -> Self:
        """One that the dice choose."""
        plain = Variation.drawn(dice)
        return cls(requests=plain.requests, rate=plain.rate, search_s=dice.choice((0.01, 0.03, 0.1, 1.0)))

    def options(self, wiring: str, services: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
        """Both who searches and who waits."""
        return {"app": {"search_s": self.search_s}, "couriers": {"search_s": self.search_s}}

    def workload(self, application: Any, seed: int) -> Workload:
        """Couriers for a third of the meals, and for another third late."""
        meals = max(6, self.requests - len(ZONES))
        return workload(MealOptions(seed=seed, rate=self.rate, meals=meals, couriers=meals // 9, late=meals // 9))


VARIATION = Searches

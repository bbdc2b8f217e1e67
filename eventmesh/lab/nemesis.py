"""Carries out the faults of a plan on a running mesh, each at its moment, and keeps what came of each.

The plan is fixed before it begins: a moment that is a range is drawn from the seed. Whoever uses it heals the mesh
when it is left, whatever happened; every fault also expires by itself.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType

from eventmesh.errors import EventmeshError
from eventmesh.runtime import faults
from eventmesh.runtime.faults import AtOffset, FixedMoment, Planned, Struck
from eventmesh.runtime.running import RunningMesh


@dataclass
class Attempt:
    """A planned fault: its ``moment``, drawn where it was a range; what came of it, or why it could not be made."""

    planned: Planned
    moment: FixedMoment
    struck: Struck | None = None
    refused: str | None = None


@dataclass
class Nemesis:
    """Entered when the load begins: times are counted from then, and offsets too where it ``counts_from_load``.

    ``not_healed`` is why the mesh could not be healed in the end, None where it was.
    """

    running: RunningMesh
    plan: Sequence[Planned]
    seed: int
    counts_from_load: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    healed: bool = False
    not_healed: str | None = None

    def __enter__(self) -> Nemesis:
        for place, each in enumerate(self.plan):
            # Dice of its own for each: a fault that is left out leaves the moments of the others as they were.
            moment = faults.fixed(each.moment, random.Random(f"{self.seed} {place} {each.model_dump_json()}"))
            if isinstance(moment, AtOffset) and self.counts_from_load:
                moment = moment.model_copy(update={"offset": moment.offset + self.running.ends()[moment.partition]})
            self.attempts.append(Attempt(each, moment))
        for attempt in self.attempts:
            self.running.when(attempt.moment, partial(self._strike, attempt))
        return self

    def _strike(self, attempt: Attempt) -> None:
        if self.healed:
            return
        try:
            attempt.struck = self.running.strike(attempt.planned.fault)
        except EventmeshError as error:
            attempt.refused = str(error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heal()

    def heal(self) -> None:
        """No more faults, and an end to those that last. Harmless to repeat."""
        self.healed, self.not_healed = True, None
        try:
            self.running.heal()
        except EventmeshError as failed:
            self.not_healed = str(failed)

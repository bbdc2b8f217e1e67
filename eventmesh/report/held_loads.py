"""Which loads a way held for certain, and where that contradicts itself.

More load is never easier, and neither is more delay between services or one more service to join. Where a run says
otherwise, something else than the mesh was measured, and neither side of the contradiction is believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from eventmesh.application import Words
from eventmesh.report.ways import Axis, Way, axes_label
from eventmesh.report.wording import number

#: What makes the work of a mesh harder the more there is of it.
HARDER = ("joined_services", "rtt_ms")


@dataclass(frozen=True)
class Ladder:
    """Of each load whether it was held: in every try, in none (False), or not resolved (None)."""

    verdicts: Mapping[float, bool | None]

    @cached_property
    def held(self) -> float | None:
        """The greatest load held with every smaller one held too."""
        best = None
        for load in sorted(self.verdicts):
            if not self.verdicts[load]:
                break
            best = load
        return best

    @cached_property
    def not_held(self) -> float | None:
        """The smallest load that was not held."""
        return min((load for load, held in self.verdicts.items() if held is False), default=None)

    @cached_property
    def most(self) -> float | None:
        """The greatest load held, whatever is known of smaller ones."""
        return max((load for load, held in self.verdicts.items() if held), default=None)


@dataclass(frozen=True)
class Unresolved:
    """A way whose tries contradict each other."""

    why: str


def held(ladder: Ladder | Unresolved) -> set[float]:
    """The loads that were held for certain."""
    return set() if isinstance(ladder, Unresolved) else {load for load, held in ladder.verdicts.items() if held}


def resolve(ladders: Mapping[tuple[Axis, Way], Ladder], words: Words) -> dict[tuple[Axis, Way], Ladder | Unresolved]:
    """The ladders, without those that contradict themselves or the same way's under easier conditions."""
    found: dict[tuple[Axis, Way], Ladder | Unresolved] = dict(ladders)
    for (axis, way), ladder in ladders.items():
        if _beyond(ladder, ladder):
            most = f"{number(ladder.most or 0)} {words.requests}/s"
            found[axis, way] = Unresolved(f"it held {most}, and less it did not hold")
    for (axis, way), ladder in ladders.items():
        for (easier, same), other in ladders.items():
            if same == way and is_easier(easier, axis) and _beyond(ladder, other):
                why = f"it held more with {axes_label(axis)} than with {axes_label(easier)}"
                found[axis, way] = found[easier, way] = Unresolved(why)
    return found


def _beyond(one: Ladder, other: Ladder) -> bool:
    """Whether ``one`` held a load at or above one that ``other`` did not hold."""
    return one.most is not None and other.not_held is not None and one.most >= other.not_held


def is_easier(one: Axis, two: Axis) -> bool:
    """Whether the first differs from the second, and only by what makes the work easier."""
    mine, theirs = dict(one), dict(two)
    if mine == theirs or mine.keys() != theirs.keys():
        return False
    return all(
        mine[name] <= theirs[name] if name in HARDER else mine[name] == theirs[name] for name in mine
    )  # fmt: skip

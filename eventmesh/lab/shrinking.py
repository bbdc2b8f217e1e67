"""Makes a failing case smaller while it still fails: fewer faults, fewer requests, plainer surroundings.

Delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002): leave out halves,
then quarters, and so on, and keep whatever still fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from eventmesh.lab.fuzz_case import Case, Setup
from eventmesh.runtime.limits import Limits
from eventmesh.runtime.simulated.network import Speeds

Item = TypeVar("Item")
Fails = Callable[[Case], bool]


@dataclass
class Bound:
    """Seconds for shrinking, on the machine's own clock; ``tried`` counts the cases that were run."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    tried: int = 0
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.clock()

    @property
    def over(self) -> bool:
        """Whether there is no time left."""
        return self.clock() - self.began >= self.seconds


def shrunk(case: Case, fails: Fails, bound: Bound) -> Case:
    """The smallest case found that still fails. ``case`` itself is taken to fail, and comes back if none else does."""

    def still(tried: Case) -> bool:
        bound.tried += 1
        return fails(tried)

    before: Case | None = None
    while before != case and not bound.over:
        before = case
        for step in (_fewer_faults, _fewer_requests, _plainer):
            case = step(case, still, bound)
    return case


def _fewer_faults(case: Case, fails: Fails, bound: Bound) -> Case:
    for name in ("faults", "seeding_faults"):
        case = _fewer_of(name, getattr(case, name), case, fails, bound)
    return case


def _fewer_of(name: str, items: Sequence[object], case: Case, fails: Fails, bound: Bound) -> Case:
    found = fewer(items, lambda few: fails(_with(case, **{name: tuple(few)})), bound)
    return _with(case, **{name: tuple(found)}) if len(found) < len(items) else case


def _fewer_requests(case: Case, fails: Fails, bound: Bound) -> Case:
    whole = case.kept if case.kept is not None else tuple(range(len(case.workload().load)))
    return _fewer_of("kept", whole, case, fails, bound)


def _plainer(case: Case, fails: Fails, bound: Bound) -> Case:
    for plain in _plain_forms(case):
        if bound.over:
            break
        tried = _with(case, **plain(case))
        if tried != case and fails(tried):
            case = tried
    return case


def _plain_forms(case: Case) -> Iterator[Callable[[Case], dict[str, object]]]:
    """Each puts one thing back to what it is by default, in whatever the case has become by then."""
    yield lambda now: {"speeds": Speeds()}
    yield lambda now: {"limits": Limits()}
    for name, each in Setup.model_fields.items():
        yield lambda now, name=name, plain=each.default: {"setup": now.setup.model_copy(update={name: plain})}  # type: ignore[misc]
    for name in case.variation:
        if name != "requests":  # fewer of them are other ones, and the places in `kept` are of these
            yield lambda now, name=name: {  # type: ignore[misc]
                "variation": {key: value for key, value in now.variation.items() if key != name}
            }


def _with(case: Case, **changed: object) -> Case:
    return case.model_copy(update=changed)


def fewer(items: Sequence[Item], fails: Callable[[Sequence[Item]], bool], bound: Bound) -> Sequence[Item]:
    """A part of ``items`` that still fails, from which nothing of the last size tried can be left out."""
    size = len(items)
    while size >= 1 and items and not bound.over:
        at, left_out = 0, False
        while at < len(items) and not bound.over:
            rest = [*items[:at], *items[at + size :]]
            if fails(rest):
                items, left_out = rest, True
            else:
                at += size
        if not left_out or size > len(items):
            size //= 2
    return items

"""The workbench books the hours of a day, as long as there are any."""

from __future__ import annotations

from dataclasses import dataclass, field

from eventmesh.declared import Facts
from eventmesh.service import Inputs, Outcome, Service

from .facts import (
    BookHours,
    DayAnswer,
    DayOpened,
    HoursBooked,
    HoursRefused,
    OpenDay,
    RepairAnswer,
    RepairRequested,
)


@dataclass
class Days:
    """Hours left by day, and what is known already, so that nothing is done twice."""

    left: dict[str, int] = field(default_factory=dict)
    booked: dict[str, bool] = field(default_factory=dict)  # by repair: False where it was refused
    opened_by: set[str] = field(default_factory=set)


class Workbench(Service):
    """Owns the topic ``hours``, whose key is the day: each day belongs to one partition."""

    name = "workbench"

    def initial(self) -> Days:
        """No day is open."""
        return Days()

    def evolve(self, state: Days, facts: Facts) -> None:
        """Each fact says how many hours its day has left. What must never be is asserted."""
        for fact in facts.each():
            assert isinstance(fact, DayOpened | HoursBooked | HoursRefused)
            assert fact.left >= 0, f"{fact.day} has {fact.left} hours left"
            state.left[fact.day] = fact.left
            if isinstance(fact, DayOpened):
                state.opened_by.add(fact.opened_by)
            else:
                state.booked[fact.repair_id] = isinstance(fact, HoursBooked)

    def open_day(self, state: Days, days: Inputs[OpenDay], out: Outcome) -> None:
        """Add hours to a day, once per command: a caller that heard nothing sends it again, under the same id."""
        for row, day in days.each():
            command = days.ids[row]
            if command not in state.opened_by:
                left = state.left.get(day.day, 0) + day.hours
                out.fact(row, DayOpened(day.day, day.hours, left, command))
            out.answer(row, DayAnswer(day.day, "opened", state.left[day.day]))

    def book(self, state: Days, repairs: Inputs[BookHours | RepairRequested], out: Outcome) -> None:
        """Book hours, or refuse; the same repair is always answered the same.

        One rule for both wirings: its input is a command of the counter in one, a fact of the counter's in the other.
        """
        for row, repair in repairs.each():
            if self.place.partition_of("hours", repair.day) != self.place.partition:
                continue  # a day of another partition: all of them hear the facts of the counter
            if repair.repair_id not in state.booked:
                left = state.left.get(repair.day, 0)
                if repair.hours <= left:
                    out.fact(row, HoursBooked(repair.day, repair.repair_id, repair.hours, left - repair.hours))
                else:
                    out.fact(row, HoursRefused(repair.day, repair.repair_id, repair.hours, left))
            outcome = "promised" if state.booked[repair.repair_id] else "declined"
            out.answer(row, RepairAnswer(repair.repair_id, outcome))

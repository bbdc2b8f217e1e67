"""The counter takes each bicycle in once, and says what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from eventmesh.declared import Facts
from eventmesh.service import Inputs, Outcome, Service

from .facts import BringIn, HoursBooked, HoursRefused, RepairAnswer, RepairDeclined, RepairPromised, RepairRequested


@dataclass
class Repair:
    """What is wanted, and what became of it: requested, promised or declined."""

    day: str
    hours: int
    status: str = "requested"


@dataclass
class Book:
    """What the counter has written down. A state has nothing but what its own facts say."""

    repairs: dict[str, Repair] = field(default_factory=dict)

    def status(self, repair_id: str) -> str | None:
        """What became of a repair, None if nobody asked for it."""
        repair = self.repairs.get(repair_id)
        return None if repair is None else repair.status


class Counter(Service):
    """Owns the topic ``repairs``."""

    name = "counter"

    def initial(self) -> Book:
        """Nobody came yet."""
        return Book()

    def evolve(self, state: Book, facts: Facts) -> None:
        """Fold facts into the state. It looks at no clock, throws no dice, and decides nothing."""
        for fact in facts.each():
            match fact:
                case RepairRequested(repair_id, day, hours):
                    state.repairs[repair_id] = Repair(day, hours)
                case RepairPromised(repair_id):
                    state.repairs[repair_id].status = "promised"
                case RepairDeclined(repair_id):
                    state.repairs[repair_id].status = "declined"

    def unfinished(self, state: Book) -> list[str]:
        """Repairs that wait for the workbench: after a restart the wiring's ``resume`` goes on with them."""
        return [repair_id for repair_id, repair in state.repairs.items() if repair.status == "requested"]

    # A rule decides on a run of inputs at once: facts, which it folds, and answers. Wirings say what triggers it.

    def take_in(self, state: Book, repairs: Inputs[BringIn], out: Outcome) -> None:
        """Write a repair down. Whether there are hours for it, the workbench will say: until then callers watch it."""
        for row, wanted in repairs.each():
            status = state.status(wanted.repair_id)
            if status is None:
                out.fact(row, RepairRequested(wanted.repair_id, wanted.day, wanted.hours))
            elif status != "requested":  # a caller that heard nothing asks again
                out.answer(row, RepairAnswer(wanted.repair_id, status))
                continue
            out.watch(row, wanted.repair_id)
            out.answer(row, RepairAnswer(wanted.repair_id, "accepted"), more=True)

    def settle(self, state: Book, hours: Inputs[HoursBooked | HoursRefused], out: Outcome) -> None:
        """The workbench has booked hours, or has none: promise the repair, or decline it, and tell who waits."""
        for row, booking in hours.each():
            if booking.repair_id not in state.repairs:
                continue  # a repair of another partition of this service
            if state.status(booking.repair_id) == "requested":
                settled = RepairPromised if isinstance(booking, HoursBooked) else RepairDeclined
                out.fact(row, settled(booking.repair_id, booking.day))
            out.tell(booking.repair_id, RepairAnswer(booking.repair_id, state.repairs[booking.repair_id].status))

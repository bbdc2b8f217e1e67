"""How the two services hear of each other: a wiring says what triggers which rule, and holds no rule of the business.

What a service must listen to follows from its rules' inputs; whom it sends commands to, ``sends`` says. A mesh file
that lacks any of it is refused when it is read, with the line to add.
"""

from __future__ import annotations

from collections.abc import Mapping

from eventmesh.service import Talk, Trigger

from .counter import Counter
from .facts import (
    BookHours,
    BringIn,
    HoursBooked,
    HoursRefused,
    OpenDay,
    RepairAnswer,
    RepairDeclined,
    RepairPromised,
    RepairRequested,
)
from .workbench import Workbench


async def see_through(counter: Counter, wanted: BringIn, talk: Talk) -> RepairAnswer:
    """Write the repair down, ask the workbench, and answer with what became of it."""
    if talk.state.status(wanted.repair_id) is None:
        await talk.record(RepairRequested(wanted.repair_id, wanted.day, wanted.hours))
    return await carry_on(counter, wanted.repair_id, talk)


async def carry_on(counter: Counter, repair_id: str, talk: Talk) -> RepairAnswer:
    """From what is written down on: after a restart the same command goes out again, under the same id."""
    repair = talk.state.repairs[repair_id]
    if repair.status == "requested":
        # Given up after so many attempts, each a second or two: the repair stays written down as requested.
        answer = await talk.command(BookHours(repair.day, repair_id, repair.hours), attempts=1_000)
        settled = RepairPromised if answer.outcome == "promised" else RepairDeclined
        await talk.record(settled(repair_id, repair.day))
    return RepairAnswer(repair_id, talk.state.status(repair_id))


WIRINGS: dict[str, Mapping[str, Trigger]] = {
    "told": {
        "counter": Trigger(
            {BringIn: Counter.take_in, HoursBooked: Counter.settle, HoursRefused: Counter.settle},
        ),
        "workbench": Trigger({OpenDay: Workbench.open_day, RepairRequested: Workbench.book}),
    },
    "asked": {
        "counter": Trigger({BringIn: see_through}, resume={BringIn: carry_on}, sends=[BookHours]),
        "workbench": Trigger({OpenDay: Workbench.open_day, BookHours: Workbench.book}),
    },
}

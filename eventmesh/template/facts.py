"""What is written down, and what may be asked: each a class, whose fields are its columns.

A fact is in the past tense and stands on a topic, which one service alone writes. A command is an order to a service,
which answers it. Change the columns here; rules that do not fit any more are found by a type checker, and by the run.
"""

from __future__ import annotations

from eventmesh.declared import Answer, Command, Fact

# --- on the topic of the counter --------------------------------------------------------------------


class RepairRequested(Fact, topic="repairs"):
    """Somebody brought a bicycle in, to be repaired on that day."""

    repair_id: str
    day: str
    hours: int


class RepairPromised(Fact, topic="repairs"):
    """It will be repaired then."""

    repair_id: str
    day: str


class RepairDeclined(Fact, topic="repairs"):
    """The day has not enough hours left."""

    repair_id: str
    day: str


# --- on the topic of the workbench ------------------------------------------------------------------


class DayOpened(Fact, topic="hours"):
    """A day has so many hours more; ``opened_by`` is the command that said so. In each fact, ``left`` are unbooked."""

    day: str
    hours: int
    left: int
    opened_by: str


class HoursBooked(Fact, topic="hours"):
    """So many hours of the day belong to a repair."""

    day: str
    repair_id: str
    hours: int
    left: int


class HoursRefused(Fact, topic="hours"):
    """There were not enough left for it."""

    day: str
    repair_id: str
    hours: int
    left: int


# --- what may be asked ------------------------------------------------------------------------------


class RepairAnswer(Answer):
    """What became of a repair."""

    repair_id: str
    outcome: str


class DayAnswer(Answer):
    """How many hours a day has left."""

    day: str
    outcome: str
    left: int


class BringIn(Command[RepairAnswer], service="counter", key="repair_id", public=True):
    """Somebody wants a bicycle repaired. Public: callers from outside may send it."""

    repair_id: str
    day: str
    hours: int


class OpenDay(Command[DayAnswer], service="workbench", key="day", public=True):
    """A day has so many hours more."""

    day: str
    hours: int


class BookHours(Command[RepairAnswer], service="workbench", key="day", story="repair_id"):
    """The counter asks for hours of a day. What follows belongs to the story of the repair."""

    day: str
    repair_id: str
    hours: int

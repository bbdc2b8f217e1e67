"""The market's facts, its three services, and its views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec.structs import astuple
from pydantic import BaseModel

from eventmesh.declared import Answer, Command, Declared, Fact, Facts, Int32, Timestamp
from eventmesh.errors import Throttled
from eventmesh.service import Inputs, Outcome, Service, Trigger
from eventmesh.views import Count, Max, Min, Sum, Top, ViewShape, Where


class Sold(Fact, topic="sales"):
    """Somebody bought something; of some of it nothing is said."""

    sale: str
    customer: str | None = None
    product: str | None = None
    amount: int | None = None
    weight: float | None = None
    organic: bool | None = None
    picked: Timestamp | None = None
    floor: Int32 | None = None


class Repriced(Fact, topic="sales"):
    """It costs something else."""

    sale: str
    customer: str | None = None
    product: str | None = None
    amount: int | None = None
    weight: float | None = None
    organic: bool | None = None
    picked: Timestamp | None = None
    floor: Int32 | None = None


class Voided(Fact, topic="sales"):
    """It was not sold after all."""

    sale: str
    customer: str | None = None
    product: str | None = None
    amount: int | None = None
    weight: float | None = None
    organic: bool | None = None
    picked: Timestamp | None = None
    floor: Int32 | None = None


class TakenBack(Fact, topic="returns"):
    """It came back."""

    sale: str
    customer: str | None = None
    product: str | None = None
    amount: int | None = None
    weight: float | None = None
    organic: bool | None = None
    picked: Timestamp | None = None
    floor: Int32 | None = None


class Looked(Fact, topic="notes"):
    """What the board has seen of a customer."""

    customer: str
    count: int
    spent: int


class Written(Answer):
    """It is written down."""

    sale: str
    outcome: str


class Seen(Answer):
    """What was seen is written down."""

    customer: str
    outcome: str


class Sell(Command[Written], service="till", key="sale", public=True):
    """Sell it."""

    sale: str
    customer: str | None = None
    product: str | None = None
    amount: int | None = None
    weight: float | None = None
    organic: bool | None = None
    picked: Timestamp | None = None
    floor: Int32 | None = None


class Reprice(Command[Written], service="till", key="sale", public=True):
    """Say another price."""

    sale: str
    customer: str | None = None
    product: str | None = None
    amount: int | None = None
    weight: float | None = None
    organic: bool | None = None
    picked: Timestamp | None = None
    floor: Int32 | None = None


class Void(Command[Written], service="till", key="sale", public=True):
    """It was a mistake."""

    sale: str
    customer: str | None = None
    product: str | None = None
    amount: int | None = None
    weight: float | None = None
    organic: bool | None = None
    picked: Timestamp | None = None
    floor: Int32 | None = None


class TakeBack(Command[Written], service="desk", key="sale", public=True):
    """Take it back."""

    sale: str
    customer: str | None = None
    product: str | None = None
    amount: int | None = None
    weight: float | None = None
    organic: bool | None = None
    picked: Timestamp | None = None
    floor: Int32 | None = None


class Look(Command[Seen], service="board", key="customer", public=True):
    """Look at what a customer has bought."""

    customer: str
    at_least: int | None = None


DECLARED = Declared(Sold, Repriced, Voided, TakenBack, Looked, Sell, Reprice, Void, TakeBack, Look)
GONE = Where("type", "in", ("Voided", "TakenBack"))
VIEWS = {
    # A key of several columns; a fact of the later topic overrides one of the earlier.
    "by-sale": ViewShape(("sale", "customer"), ("product", "amount", "picked")),
    # A key that several partitions speak of: the fact that was appended last counts.
    "last-price": ViewShape(("customer", "product"), ("amount", "organic"), ("Sold", "Repriced")),
    # A filter.
    "heavy": ViewShape(
        "sale", ("weight",), ("Sold",),
        where=(
            Where("weight", ">=", 1.5), Where("amount", "!=", 20), Where("product", "not in", ("leek",)),
            Where("organic", "=", True), Where("picked", "<=", 1_600_000_000_000_008), Where("floor", "is not null"),
        ),
    ),
    # Aggregates, beside a last value.
    "totals": ViewShape(
        "customer", (Count(), Sum("amount"), Min("weight"), "product", Max("amount"), Min("product"), Max("picked"))
    ),
    "dearest": ViewShape("product", (Top(3, "amount", ("sale", "customer")), Top(2, "weight", smallest=True))),
    # Many rows of a key, which end when a fact says so; it may be one of the other topic.
    "open": ViewShape("customer", ("product", "amount"), ("Sold",), rows="sale", remove_where=(GONE,)),
    "baskets": ViewShape(("customer",), (Count(), Sum("amount")), ("Sold",), rows=("floor", "product")),
    # What one topic removes, a stronger one may have; and several partitions speak of a key.
    "offers": ViewShape(
        "product", ("amount", "sale"), ("Sold",), where=(Where("amount", "is not null"),),
        remove_where=(Where("amount", "=", 10),),
    ),
}  # fmt: skip


class Options(BaseModel):
    """No service has any of its own."""


@dataclass
class Carried:
    """The commands that were carried out."""

    commands: set[str] = field(default_factory=set)


#: What a command becomes.
WRITTEN = {Sell: Sold, Reprice: Repriced, Void: Voided, TakeBack: TakenBack}


class Stall(Service):
    """Writes down what it is told, once per command."""

    def initial(self) -> Carried:
        """Nobody came yet."""
        return Carried()

    def evolve(self, state: Carried, facts: Facts) -> None:
        """A fact's id begins with its command's."""
        state.commands.update(identity.rpartition("#")[0] for identity in facts["id"])

    def write_down(self, state: Carried, goods: Inputs[Sell | Reprice | Void | TakeBack], out: Outcome) -> None:
        """The fact has the columns of the command."""
        for row, said in goods.each():
            if goods.ids[row] not in state.commands:
                out.fact(row, WRITTEN[type(said)](*astuple(said)))
            out.answer(row, Written(said.sale, "written"))


class Till(Stall):
    """Sells."""

    name = "till"


class Desk(Stall):
    """Takes back."""

    name = "desk"


class Board(Stall):
    """Says what it sees."""

    name = "board"

    def look(self, state: Carried, customers: Inputs[Look], out: Outcome) -> None:
        """Write down what a customer has bought, by the view; not before that has read so many facts of it."""
        seen = self.views["totals"].lookup(customers["customer"])
        for (row, asked), (_, count, spent, *_) in zip(customers.each(), seen, strict=True):
            if customers.ids[row] not in state.commands:
                if count < (asked.at_least or 0):
                    said = f"the board has read {count} facts of {asked.customer}; come back later"
                    out.refuse(row, Throttled(said))
                    continue
                out.fact(row, Looked(asked.customer, count, spent))
            out.answer(row, Seen(asked.customer, "seen"))


SERVICES = {service.name: service for service in (Till, Desk, Board)}
OPTIONS: dict[str, type[BaseModel]] = dict.fromkeys(SERVICES, Options)
WIRINGS: dict[str, Mapping[str, Trigger]] = {
    "events": {
        "till": Trigger(dict.fromkeys((Sell, Reprice, Void), Stall.write_down)),
        "desk": Trigger({TakeBack: Stall.write_down}),
        "board": Trigger({Look: Board.look}, reads=list(VIEWS)),
    }
}

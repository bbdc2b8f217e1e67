"""Customers and catalog: services that publish whole values, one fact per change of a key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from eventmesh.declared import Answer, Fact, Facts
from eventmesh.service import Inputs, Outcome, Service
from eventmesh.shop.facts import (
    CustomerById,
    CustomerFound,
    CustomerPublished,
    CustomerRegistered,
    PriceBySku,
    PriceFound,
    PriceListed,
    PricePublished,
)
from eventmesh.shop.memory import Finished
from eventmesh.shop.options import MEMORY_S
from eventmesh.views import ABSENT_VERSION


@dataclass
class Table:
    """Key to (version, values): the version is the offset of the fact that set them.

    ``done`` are the ids of the commands whose values became facts.
    """

    rows: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    done: Finished = field(default_factory=Finished)


class TableService(Service):
    """A table of which this service is the only writer."""

    key = ""
    columns: tuple[str, ...] = ()
    published: type[Fact]  # carries a whole value: the key, then the columns
    told: type[Answer]  # key and outcome
    state_version = 2

    def initial(self) -> Table:
        """An empty table."""
        return Table()

    def evolve(self, state: Table, facts: Facts) -> None:
        """The last value of a key is its value."""
        for key, identity, time, *values in facts.rows(self.key, "id", "time", "sequence", *self.columns):
            state.rows[key] = tuple(values)
            state.done.remember(identity.rpartition("#")[0], "published", time, MEMORY_S * 1_000_000)

    def publish(self, state: Table, values: Inputs[Any], out: Outcome) -> None:
        """Publish a value, once per command: one that is repeated may not undo what came after it.

        The same value again changes nothing.
        """
        for row, key, *new in values.rows(self.key, *self.columns):
            known = state.rows.get(key)
            if values.ids[row] not in state.done and (known is None or known[1:] != tuple(new)):
                out.fact(row, self.published(key, *new))
            out.answer(row, self.told(key, "published"))


class Customers(TableService):
    """Who buys."""

    name = "customers"
    key = "customer_id"
    columns = ("name", "country")
    published = CustomerRegistered
    told = CustomerPublished


class Catalog(TableService):
    """What things cost in the list; the price charged is the one quoted on the order's line."""

    name = "catalog"
    key = "sku"
    columns = ("list_price",)
    published = PriceListed
    told = PricePublished


def _customer_by_id(state: Table, question: CustomerById) -> CustomerFound:
    row = state.rows.get(question.customer_id)
    if row is None:
        return CustomerFound(ABSENT_VERSION, None)
    version, _, country = row
    return CustomerFound(version, country)


def _price_by_sku(state: Table, question: PriceBySku) -> PriceFound:
    row = state.rows.get(question.sku)
    return PriceFound(ABSENT_VERSION, None) if row is None else PriceFound(*row)


Customers.queries = {CustomerById: _customer_by_id}
Catalog.queries = {PriceBySku: _price_by_sku}

"""Customers and catalog: services that publish whole values, one fact per change of a key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from eventmesh.service import Outcome, Row, Service
from eventmesh.shop.joined import VIEWS
from eventmesh.views import ABSENT_VERSION


@dataclass
class Table:
    """Key to (version, values): the version is the offset of the fact that set them."""

    rows: dict[str, tuple[Any, ...]] = field(default_factory=dict)


class TableService(Service):
    """A table of which this service is the only writer."""

    key = ""
    columns: tuple[str, ...] = ()
    published = ""  # the fact that carries a whole value

    def initial(self) -> Table:
        """An empty table."""
        return Table()

    def evolve(self, state: Table, fact: Row) -> None:
        """The last value of a key is its value."""
        state.rows[fact[self.key]] = (fact["sequence"], *(fact[column] for column in self.columns))

    def publish(self, state: Table, row: Row, out: Outcome) -> Row:
        """Publish a value; the same value again changes nothing, so a repeat is harmless."""
        values = tuple(row[column] for column in self.columns)
        known = state.rows.get(row[self.key])
        if known is None or known[1:] != values:
            out.fact(self.published, **{self.key: row[self.key]}, **dict(zip(self.columns, values, strict=True)))
        return {self.key: row[self.key], "outcome": "published", "reason": None}


def _answer(service: type[TableService], view: str) -> Any:
    shape = VIEWS[view]
    places = [service.columns.index(column) + 1 for column in shape.columns]
    absent = {"version": ABSENT_VERSION, **dict.fromkeys(shape.columns)}

    def answer(state: Table, question: Row) -> Row:
        row = state.rows.get(question[shape.key])
        if row is None:
            return absent
        return {"version": row[0], **{c: row[at] for c, at in zip(shape.columns, places, strict=True)}}

    return answer


class Customers(TableService):
    """Who buys."""

    name = "customers"
    key = "customer_id"
    columns = ("name", "country")
    fold = ("customer_id", "name", "country")
    published = "CustomerRegistered"


class Catalog(TableService):
    """What things cost in the list; the price charged is the one quoted on the order's line."""

    name = "catalog"
    key = "sku"
    columns = ("list_price",)
    fold = ("sku", "list_price")
    published = "PriceListed"


Customers.queries = {"CustomerById": _answer(Customers, "customers")}
Catalog.queries = {"PriceBySku": _answer(Catalog, "prices")}

"""Customers and catalog: services that publish whole values, one fact per change of a key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from eventmesh.messages import Columns
from eventmesh.service import Inputs, Outcome, Row, Service
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

    def evolve(self, state: Table, facts: Columns) -> None:
        """The last value of a key is its value."""
        for key, *values in facts.rows(self.key, "sequence", *self.columns):
            state.rows[key] = tuple(values)

    def publish(self, state: Table, values: Inputs, out: Outcome) -> None:
        """Publish a value; the same value again changes nothing, so a repeat is harmless."""
        for row, key, *new in values.rows(self.key, *self.columns):
            known = state.rows.get(key)
            if known is None or known[1:] != tuple(new):
                out.fact(row, self.published, **{self.key: key}, **dict(zip(self.columns, new, strict=True)))
            out.answer(row, {self.key: key, "outcome": "published", "reason": None})


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
    published = "CustomerRegistered"


class Catalog(TableService):
    """What things cost in the list; the price charged is the one quoted on the order's line."""

    name = "catalog"
    key = "sku"
    columns = ("list_price",)
    published = "PriceListed"


Customers.queries = {"CustomerById": _answer(Customers, "customers")}
Catalog.queries = {"PriceBySku": _answer(Catalog, "prices")}

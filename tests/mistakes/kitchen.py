"""The kitchen's facts, its two services, and what may be asked of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

from eventmesh.messages import Columns, MessageType, topic_schema
from eventmesh.service import Inputs, Outcome, Row, Service
from eventmesh.views import ViewShape

DISH, MISTAKE = pa.field("dish", pa.string()), pa.field("mistake", pa.string())
PARTS = pa.list_(pa.struct([("name", pa.string()), ("grams", pa.int32())]))
COLUMNS = [pa.field("price", pa.int64()), pa.field("weight", pa.float64()), pa.field("note", pa.string())]
COLUMNS += [pa.field("hot", pa.bool_()), pa.field("parts", PARTS)]
ANSWER = [DISH, pa.field("outcome", pa.string()), pa.field("hot", pa.bool_())]
FACTS = {"dishes": ("DishServed",), "meals": ("MealCooked",)}
SCHEMAS = {"dishes": topic_schema([DISH, *COLUMNS]), "meals": topic_schema([DISH, *COLUMNS])}
QUESTION, TOLD = pa.schema([DISH, MISTAKE]), pa.schema(ANSWER)
MESSAGES = {
    message.name: message
    for message in [
        MessageType("Serve", "command", "waiter", QUESTION, TOLD, "dish"),
        MessageType("Cook", "command", "cook", pa.schema([DISH, MISTAKE, *COLUMNS]), TOLD, "dish"),
        MessageType("LookAt", "query", "cook", QUESTION, TOLD, "dish"),
        MessageType("Recall", "query", "waiter", QUESTION, TOLD, "dish"),
    ]
}
VIEWS: dict[str, ViewShape] = {}
WHOLE_64 = "expected a whole number from -9223372036854775808 to 9223372036854775807"
WHOLE_32 = "expected a whole number from -2147483648 to 2147483647"
TEXT = "expected a text that UTF-8 can hold"

#: Values that do not fit, by the mistake that makes them, and what is said of each behind the name of the message.
MISFITS: dict[str, tuple[Row, str]] = {
    "too much": ({"price": 2**70}, f"price is {2**70}, {WHOLE_64}"),
    "just too much": ({"price": 2**63}, f"price is {2**63}, {WHOLE_64}"),
    "too little": ({"price": -(2**63) - 1}, f"price is {-(2**63) - 1}, {WHOLE_64}"),
    "a text": ({"price": "12"}, f"price is '12', {WHOLE_64}"),
    "a fraction": ({"price": 100 * 1.005}, f"price is {100 * 1.005}, {WHOLE_64}"),
    "a whole float": ({"price": 100.0}, f"price is 100.0, {WHOLE_64}"),
    "a bool": ({"price": True}, f"price is True, {WHOLE_64}"),
    "nan": ({"weight": float("nan")}, "weight is nan, expected a number that is not NaN"),
    "bytes": ({"note": b"salt"}, f"note is b'salt', {TEXT}"),
    "half a character": ({"note": "\ud83c"}, f"note is '\\ud83c', {TEXT}"),
    "a word": ({"hot": "yes"}, "hot is 'yes', expected True or False"),
    "a part too much": ({"parts": [("salt", 2**31)]}, f"parts[].grams is {2**31}, {WHOLE_32}"),
    "parts by name": ({"parts": [{"name": "salt", "grams": 1}]}, "parts[] is {'name': 'salt', 'grams': 1}, expected a "
                      "tuple of name, grams"),
    "another column": ({"colour": "red"}, "has no column 'colour'"),
}  # fmt: skip
#: Answers that do not fit, likewise.
MISANSWERS: dict[str, tuple[Any, str]] = {
    "answer: a word": ({"hot": "yes"}, "hot is 'yes', expected True or False"),
    "answer: another column": ({"colour": "red"}, "has no column 'colour'"),
    "answer: half a character": ({"outcome": "\ud83c"}, f"outcome is '\\ud83c', {TEXT}"),
}


#: A rule changes the state, which is for facts alone to do.
WRITES = "writes into the state"


def fact(mistake: str) -> Row:
    """What a dish is, with the mistake in it."""
    right: Row = {"price": 1200, "weight": 0.4, "note": "grüner Tee", "hot": True, "parts": [("leaves", 3)]}
    return right | MISFITS.get(mistake, ({}, ""))[0]


def answer(dish: str, mistake: str) -> Row:
    """What is said of it, with the mistake in it."""
    return {"dish": dish, "outcome": "served"} | MISANSWERS.get(mistake, ({}, ""))[0]


class Options(BaseModel):
    """Neither service has any of its own."""


OPTIONS: dict[str, type[BaseModel]] = {"waiter": Options, "cook": Options}


@dataclass
class Dishes:
    """What was served or cooked, each with its price."""

    prices: dict[str, int] = field(default_factory=dict)


class _Prices(Service):
    def initial(self) -> Dishes:
        """Nothing yet."""
        return Dishes()

    def evolve(self, state: Dishes, facts: Columns) -> None:
        """A dish has the price that its last fact says."""
        for dish, price in facts.rows("dish", "price"):
            state.prices[dish] = price


class Waiter(_Prices):
    """Serves what callers ask for."""

    name = "waiter"

    def serve(self, state: Dishes, dishes: Inputs, out: Outcome) -> None:
        """Write down what is served, and answer."""
        for row, dish, mistake in dishes.rows("dish", "mistake"):
            if dish not in state.prices:
                out.fact(row, "DishServed", dish=dish, **fact(mistake))
            if mistake == WRITES:
                state.prices[dish] += 1
            out.answer(row, answer(dish, mistake))


class Cook(_Prices):
    """Cooks what the waiter asks for."""

    name = "cook"

    def cook(self, state: Dishes, dishes: Inputs, out: Outcome) -> None:
        """Write down what was cooked, as it was asked for."""
        for row, dish, mistake, price in dishes.rows("dish", "mistake", "price"):
            if dish not in state.prices:
                out.fact(row, "MealCooked", dish=dish, price=price)
            out.answer(row, answer(dish, mistake))


def _look_at(state: Dishes, question: Row) -> Row:
    return answer(question["dish"], question["mistake"])


Cook.queries = {"LookAt": _look_at}
Waiter.queries = {"Recall": _look_at}

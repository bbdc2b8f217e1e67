"""The kitchen's facts, its two services, and what may be asked of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import BaseModel

from eventmesh.declared import Answer, Command, Declared, Fact, Facts, Int32, Query
from eventmesh.service import Inputs, Outcome, Row, Service
from eventmesh.views import ViewShape


class Part(NamedTuple):
    """What a dish is made of."""

    name: str
    grams: Int32


class DishServed(Fact, topic="dishes"):
    """The waiter brought it."""

    dish: str
    price: int
    weight: float
    note: str
    hot: bool
    parts: list[Part]


class MealCooked(Fact, topic="meals"):
    """The cook made it."""

    dish: str
    price: int


class MealSpoilt(Fact, topic="meals"):
    """It went wrong: what the waiter may not say."""

    dish: str
    price: int


class NotDeclared(Fact, topic="dishes"):
    """No part of the application: its declarations leave it out."""

    dish: str


class Told(Answer):
    """What is said of a dish."""

    dish: str
    outcome: str
    hot: bool | None = None


class Serve(Command[Told], service="waiter", key="dish", public=True):
    """A guest wants it."""

    dish: str
    mistake: str


class Cook(Command[Told], service="cook", key="dish"):
    """The waiter asks for it."""

    dish: str
    mistake: str
    price: int
    weight: float
    note: str
    hot: bool
    parts: list[Part]


class LookAt(Query[Told], service="cook", key="dish"):
    """How is it?"""

    dish: str
    mistake: str


class Recall(Query[Told], service="waiter", key="dish"):
    """How was it?"""

    dish: str
    mistake: str


DECLARED = Declared(DishServed, MealCooked, MealSpoilt, Serve, Cook, LookAt, Recall)
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
    "nothing": ({"price": None}, f"price is None, {WHOLE_64}, and never None"),
    "nothing within": ({"parts": [("salt", None)]}, f"parts[].grams is None, {WHOLE_32}, and never None"),
}  # fmt: skip
#: What is no fact of the waiter's, and what is said of it.
NO_FACTS: dict[str, tuple[Callable[[str], Any], str]] = {
    "another's fact": (lambda dish: MealSpoilt(dish, 1), "MealSpoilt is a fact of meals, and waiter writes dishes"),
    "not declared": (NotDeclared, "NotDeclared is not among what the application declares."),
    "no fact": (lambda dish: {"dish": dish}, "is no fact: waiter writes DishServed"),
}
#: Columns that a class does not have: Python itself says so where the rule names one.
COLOUR, NO_COLOUR = "another column", "TypeError: Unexpected keyword argument 'colour'"
#: Answers that do not fit, likewise.
MISANSWERS: dict[str, tuple[Any, str]] = {
    "answer: a word": ({"hot": "yes"}, "hot is 'yes', expected True or False"),
    "answer: nothing": ({"outcome": None}, f"outcome is None, {TEXT}, and never None"),
    "answer: half a character": ({"outcome": "\ud83c"}, f"outcome is '\\ud83c', {TEXT}"),
}


#: A rule changes the state, which is for facts alone to do.
WRITES = "writes into the state"


def columns(mistake: str) -> Row:
    """What a dish is, with the mistake in it."""
    right: Row = {"price": 1200, "weight": 0.4, "note": "grüner Tee", "hot": True, "parts": [Part("leaves", 3)]}
    return right | ({"colour": "red"} if mistake == COLOUR else MISFITS.get(mistake, ({}, ""))[0])


def served(dish: str, mistake: str) -> Any:
    """The fact that it was served, with the mistake in it."""
    return NO_FACTS[mistake][0](dish) if mistake in NO_FACTS else DishServed(dish, **columns(mistake))


def answer(dish: str, mistake: str) -> Told:
    """What is said of it, with the mistake in it."""
    row = {"dish": dish, "outcome": "served"} | MISANSWERS.get(mistake, ({}, ""))[0]
    return Told(**row, **({"colour": "red"} if mistake == f"answer: {COLOUR}" else {}))


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

    def evolve(self, state: Dishes, facts: Facts) -> None:
        """A dish has the price that its last fact says."""
        for dish, price in facts.rows("dish", "price"):
            state.prices[dish] = price


class Waiter(_Prices):
    """Serves what callers ask for."""

    name = "waiter"

    def serve(self, state: Dishes, dishes: Inputs[Serve], out: Outcome) -> None:
        """Write down what is served, and answer."""
        for row, order in dishes.each():
            if order.dish not in state.prices:
                out.fact(row, served(order.dish, order.mistake))
            if order.mistake == WRITES:
                state.prices[order.dish] += 1
            out.answer(row, answer(order.dish, order.mistake))


class Kitchen(_Prices):
    """Cooks what the waiter asks for."""

    name = "cook"

    def cook(self, state: Dishes, dishes: Inputs[Cook], out: Outcome) -> None:
        """Write down what was cooked, as it was asked for."""
        for row, order in dishes.each():
            if order.dish not in state.prices:
                out.fact(row, MealCooked(order.dish, order.price))
            out.answer(row, answer(order.dish, order.mistake))


def _look_at(state: Dishes, question: LookAt | Recall) -> Told:
    return answer(question.dish, question.mistake)


Kitchen.queries = {LookAt: _look_at}
Waiter.queries = {Recall: _look_at}

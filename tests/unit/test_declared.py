"""Given classes of facts, commands and queries, then schemas, shapes and errors follow from them, and nothing else."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmesh.declared import (
    Answer,
    Command,
    Declared,
    Fact,
    Facts,
    Int8,
    Int32,
    Query,
    Timestamp,
    all_made,
    checked_row,
    made,
    name_of,
    shape,
    stored_schema,
)
from eventmesh.messages import ENVELOPE, REFUSAL, TIMESTAMP, Columns
from eventmesh.values import DoesNotFit


class Dish(NamedTuple):
    """A line of an order."""

    name: str
    grams: Int32 | None


class MealOrdered(Fact, topic="meals"):
    """A fact with a column of every kind."""

    meal: str
    guests: Int8
    at: Timestamp
    price: int
    share: float
    paid: bool
    photo: bytes
    dishes: list[Dish]
    notes: list[str | None] | None = None
    table: Annotated[int, pa.uint16()] = 7


class MealServed(Fact, topic="meals"):
    """A fact with a column of its own, and one of the framework's."""

    meal: str
    reason: str | None
    waiter: str


class Told(Answer):
    """What is answered."""

    meal: str


class Order(Command[Told], service="kitchen", key="meal", story="meal", content=("guests",), public=True):
    """A command."""

    meal: str
    guests: int


class LookAt(Query[Told], service="kitchen"):
    """A query that names no partition."""

    meal: str


GRAMS = ("grams", pa.int32())
STORED = {
    "meal": pa.string(), "guests": pa.int8(), "at": TIMESTAMP, "price": pa.int64(), "share": pa.float64(),
    "paid": pa.bool_(), "photo": pa.binary(), "dishes": pa.list_(pa.struct([("name", pa.string()), GRAMS])),
    "notes": pa.list_(pa.string()), "table": pa.uint16(),
}  # fmt: skip


def test_a_class_has_the_columns_that_its_annotations_say() -> None:
    assert {field.name: field.type for field in stored_schema(MealOrdered)} == STORED
    assert all(field.nullable for field in stored_schema(MealOrdered))


def test_a_topic_has_each_column_of_its_facts_once_and_in_their_order() -> None:
    declared = Declared(MealOrdered, MealServed)
    common = [field.name for field in (*ENVELOPE, *REFUSAL)]
    assert declared.schemas["meals"].names == [*common, *STORED, "waiter"]
    assert declared.kinds() == {"meals": ["MealOrdered", "MealServed"]}


def test_a_message_is_what_its_class_says() -> None:
    declared = Declared(Order, LookAt, Told)
    order, look = declared.messages["Order"], declared.messages["LookAt"]
    assert (order.kind, order.service, order.key, order.story, order.content, order.public, order.told) == (
        "command", "kitchen", "meal", "meal", ("guests",), True, Told,
    )  # fmt: skip
    assert (look.kind, look.key, look.story, look.content, look.public) == ("query", None, None, (), False)
    assert (declared.class_of("Order"), declared.class_of("MealOrdered")) == (Order, None)
    assert (name_of(Order), name_of("Order")) == ("Order", "Order")


def test_a_module_declares_what_it_defines_and_not_what_it_imports() -> None:
    from tests.tiny import lending

    declared = Declared(lending)
    assert [*declared.kinds()] == ["loans", "copies"]
    assert [*declared.messages] == ["Borrow", "GiveBack", "Buy", "Lend", "CopiesOf", "HelpYourself"]


RIGHT: dict[str, Any] = {
    "meal": "m", "guests": 2, "at": 1, "price": 3, "share": 0.5, "paid": True, "photo": b"",
    "dishes": [Dish("soup", 3)],
}  # fmt: skip


def test_none_fits_only_where_the_annotation_has_it() -> None:
    checked_row(MealOrdered(**RIGHT), MealOrdered, "it")
    checked_row(MealOrdered(**RIGHT | {"notes": [None], "dishes": [Dish("soup", None)]}), MealOrdered, "it")
    for wrong, said in (
        ({"price": None}, "it: price is None, expected a whole number .*, and never None"),
        ({"dishes": [Dish(None, 3)]}, r"it: dishes\[\].name is None, .*, and never None"),  # type: ignore[arg-type]
        ({"guests": 128}, "it: guests is 128, expected a whole number from -128 to 127"),
        ({"table": -1}, "it: table is -1, expected a whole number from 0 to 65535"),
    ):
        with pytest.raises(DoesNotFit, match=said):
            checked_row(MealOrdered(**RIGHT | wrong), MealOrdered, "it")


def test_what_is_of_another_class_does_not_fit() -> None:
    wrong = [(Told("m"), "it is a Told, expected a Order"), ({"meal": "m"}, "it is {'meal': 'm'}, expected a Order")]
    for found, said in wrong:
        with pytest.raises(DoesNotFit, match=said):
            checked_row(found, Order, "it")


TEXT = st.text(st.characters(codec="utf-8"))


@given(
    st.lists(
        st.builds(
            MealOrdered, TEXT, st.integers(-128, 127), st.integers(0, 2**62), st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False), st.booleans(), st.binary(),
            st.lists(st.builds(Dish, TEXT, st.integers(-(2**31), 2**31 - 1) | st.none())),
            st.none() | st.lists(TEXT | st.none()), st.integers(0, 2**16 - 1),
        ),
        max_size=5,
    )
)  # fmt: skip
def test_what_fits_comes_back_from_arrow_as_it_was(meals: list[MealOrdered]) -> None:
    names = MealOrdered.__struct_fields__
    lists = {name: [getattr(meal, name) for meal in meals] for name in names}
    shape(MealOrdered).check(lists, "it")
    columns = Columns(Columns(lists=lists).encode(stored_schema(MealOrdered)))
    back = list(all_made(MealOrdered, columns.__getitem__, len(columns)))
    assert back == meals
    assert all(type(dish) is Dish for meal in back for dish in meal.dishes)


def test_facts_are_folded_one_by_one_as_their_classes() -> None:
    ordered, served = MealOrdered(**RIGHT), MealServed("m", None, "Ada")
    names = dict.fromkeys((*MealOrdered.__struct_fields__, *MealServed.__struct_fields__))
    for facts in ([ordered, ordered], [ordered, served, ordered], []):
        lists = {name: [getattr(fact, name, None) for fact in facts] for name in names}
        columns = Columns(lists={**lists, "type": [type(fact).__name__ for fact in facts]})
        assert list(Facts.of(columns, Declared(MealOrdered, MealServed)).each()) == facts


def test_a_class_without_columns_is_a_message_too() -> None:
    class Rung(Fact, topic="bells"):
        """It rang."""

    assert (list(all_made(Rung, {}.__getitem__, 2)), made(Rung, ())) == ([Rung(), Rung()], Rung())


def _of(**annotations: Any) -> Any:
    return type(Fact)("Odd", (Fact,), {"__annotations__": annotations, "__module__": __name__}, topic="odd")


def test_a_column_of_a_strange_type_is_told_with_what_there_is() -> None:
    for hint, shown in ((dict, "dict"), (Dish, "Dish"), (int | str, r"int \| str"), (list[dict[str, int]], "dict")):
        with pytest.raises(TypeError, match=f"Odd.strange is a {shown}, which no column has. Write str, int, float"):
            Declared(_of(strange=hint))
    with pytest.raises(TypeError, match="the columns of Odd cannot be read: name 'Nowhere' is not defined"):
        Declared(_of(strange="Nowhere"))


def _mistakes() -> dict[str, tuple[Any, str]]:
    class Nowhere(Fact):
        meal: str

    class Enveloped(Fact, topic="meals"):
        time: int

    class Text(Fact, topic="meals"):
        price: str

    class Reasoned(Fact, topic="meals"):
        reason: int

    class Told2(Command[Told]):
        meal: str

    class Unanswered(Command, service="kitchen"):  # type: ignore[type-arg]
        meal: str

    class Keyed(Query[Told], service="kitchen", key="dish"):
        meal: str

    return {
        "no topic": ((Nowhere,), 'Nowhere names no topic: write class Nowhere(Fact, topic="...")'),
        "a column of the envelope": ((Enveloped,), "Enveloped has a column 'time', which every fact has"),
        "two types": ((MealOrdered, Text), "Text.price is of type string, and MealOrdered.price of int64: a col"),
        "the framework's column": ((Reasoned,), "Reasoned.reason is of type int64, expected string"),
        "twice": ((Order, Order), "Order is declared twice"),
        "no service": ((Told2,), 'Told2 names no service: write class Told2(..., service="...")'),
        "no answer": ((Unanswered,), "Unanswered has no answer: write class Unanswered(Command[YourAnswer], "),
        "no such key": ((Keyed,), "Keyed has no column 'dish': it has meal"),
    }


@pytest.mark.parametrize("mistake", list(_mistakes()))
def test_a_class_that_says_something_unfit_is_refused(mistake: str) -> None:
    classes, said = _mistakes()[mistake]
    with pytest.raises(TypeError) as refused:
        Declared(*classes)
    assert said in str(refused.value)


def test_a_word_that_no_class_takes_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Odd: .*it takes topic"):
        type(Fact)("Odd", (Fact,), {"__annotations__": {"a": int}, "__module__": __name__}, topc="odd")

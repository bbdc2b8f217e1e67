"""Given facts, then a look-up finds what its shape keeps of them, and says what it does not know."""

from __future__ import annotations

from typing import Any

import pytest

from eventmesh.messages import Columns
from eventmesh.views import ABSENT_VERSION, Count, Max, Min, Sum, Top, View, ViewShape, Where

UNKNOWN = (ABSENT_VERSION, None)


def facts(first: int, **prices: int | None) -> Columns:
    keys = list(prices)
    return Columns(lists={
        "sku": keys, "price": list(prices.values()), "sequence": list(range(first, first + len(keys))),
    })  # fmt: skip


@pytest.fixture
def view() -> View:
    made = View("prices", ViewShape("sku", ("price",)), ["list", "offers"])
    made.apply("list", 0, 0, facts(0, apple=30, pear=40, plum=50))
    made.apply("offers", 0, 0, facts(0, pear=35))
    return made


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ([], []),
        (["apple"], [(0, 30)]),
        (["fig"], [UNKNOWN]),
        ([None], [UNKNOWN]),
        (["plum", "apple", "plum"], [(2, 50), (0, 30), (2, 50)]),
        (["apple", "pear"], [(0, 30), (0, 35)]),
        (["apple", "fig", None, "pear"], [(0, 30), UNKNOWN, UNKNOWN, (0, 35)]),
        (["fig", "fig"], [UNKNOWN, UNKNOWN]),
        ((key for key in ("apple", "plum")), [(0, 30), (2, 50)]),
    ],
)
def test_each_key_has_its_newest_value_of_the_strongest_topic(view: View, keys: list[str], found: list[object]) -> None:
    assert view.lookup(keys) == found
    assert len(view) == 3, "what was asked for and is not there is not there afterwards either"


def test_its_length_counts_a_key_once_whichever_topics_have_it(view: View) -> None:
    assert len(view) == 3
    view.apply("offers", 0, 1, facts(1, fig=20))
    assert len(view) == 4
    assert len(View("empty", view.shape, view.topics)) == 0


# --- which facts count -------------------------------------------------------------------------------


def lent(*rows: dict[str, Any]) -> Columns:
    """Facts of one partition from offset 0 on; what is not said is null."""
    names = ("type", "reader", "loan", "book", "days", "fee")
    return Columns(
        rows=[{**dict.fromkeys(names), "type": "Lent", **row, "sequence": at} for at, row in enumerate(rows)]
    )


def of(shape: ViewShape, *rows: dict[str, Any]) -> View:
    """A view of this shape over one topic of one partition that has these facts."""
    view = View("loans", shape, ["loans"])
    view.apply("loans", 0, 0, lent(*rows), 1)
    return view


DAYS = [{"loan": str(days), "days": days} for days in (7, 14, None, 21)]


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        (Where("days", "=", 14), ["14"]),
        (Where("days", "!=", 14), ["7", "21"]),
        (Where("days", "<", 14), ["7"]),
        (Where("days", "<=", 14), ["7", "14"]),
        (Where("days", ">", 14), ["21"]),
        (Where("days", ">=", 14), ["14", "21"]),
        (Where("days", "in", (7, 21, 28)), ["7", "21"]),
        (Where("days", "not in", (7, 21)), ["14"]),
        (Where("days", "is null"), ["None"]),
        (Where("days", "is not null"), ["7", "14", "21"]),
    ],
)
def test_a_condition_is_what_sql_says_it_is(condition: Where, found: list[str]) -> None:
    view = of(ViewShape("loan", where=(condition,)), *DAYS)
    assert [loan for loan, (version,) in zip(LOANS, view.lookup(LOANS), strict=True) if version >= 0] == found


LOANS = [str(row["loan"]) for row in DAYS]


def test_all_conditions_and_the_types_must_be_met() -> None:
    shape = ViewShape("loan", ("days",), ("Lent",), where=(Where("days", ">", 7), Where("book", "=", "Emma")))
    view = of(
        shape, {"loan": "a", "days": 8, "book": "Emma"}, {"loan": "b", "days": 7, "book": "Emma"},
        {"loan": "c", "days": 8, "book": "Faust"}, {"loan": "d", "days": 8, "book": "Emma", "type": "Renewed"},
    )  # fmt: skip
    assert [row["key"] for row in view.rows()] == ["a"]


def test_a_filter_is_of_facts_and_not_of_rows() -> None:
    """What does not count leaves what was there; what removes, takes it away."""
    less = [{"book": "Emma", "days": 3}, {"book": "Emma", "days": 0}]
    filtered = of(ViewShape("book", ("days",), where=(Where("days", ">", 0),)), *less)
    removed = of(ViewShape("book", ("days",), remove_where=(Where("days", "=", 0),)), *less)
    assert (filtered.lookup(["Emma"]), removed.lookup(["Emma"])) == ([(0, 3)], [UNKNOWN])
    assert (len(filtered), len(removed)) == (1, 0)


# --- the key -----------------------------------------------------------------------------------------


def test_a_key_of_several_columns_is_a_tuple() -> None:
    view = of(
        ViewShape(("reader", "book"), ("days",)), {"reader": "ann", "book": "Emma", "days": 7},
        {"reader": "ann", "book": "Faust", "days": 14}, {"reader": "ann", "days": 1}, {"book": "Emma", "days": 2},
    )  # fmt: skip
    asked = [("ann", "Faust"), ("ann", "Emma"), ("bob", "Emma"), None, ("ann", None)]
    assert view.lookup(asked) == [(1, 14), (0, 7), UNKNOWN, UNKNOWN, UNKNOWN]
    assert view.lookup([("ann", "Emma")]) == [(0, 7)]
    assert len(view) == 2, "a fact without a part of the key is about no key"


@pytest.mark.parametrize("key", ["ann", ("ann",), ("ann", "Emma", 7), ["ann", "Emma"]])
def test_a_key_of_another_form_is_told_and_not_sought(key: Any) -> None:
    view = of(ViewShape(("reader", "book"), ("days",)), {"reader": "ann", "book": "Emma", "days": 7})
    with pytest.raises(TypeError, match=r"the view 'loans' is looked up by a list of tuples \(reader, book\), found"):
        view.lookup([key])


# --- aggregates --------------------------------------------------------------------------------------

FEES = [{"reader": "ann", "days": days, "fee": fee, "loan": f"l{at}"} for at, (days, fee) in
        enumerate([(7, 5), (14, None), (7, 9), (21, 5), (7, 9)])]  # fmt: skip


def test_aggregates_are_of_all_facts_of_the_key() -> None:
    shape = ViewShape("reader", (Count(), Sum("fee"), Min("days"), Max("days"), "days", Max("book")))
    assert of(shape, *FEES).lookup(["ann", "bob"]) == [(4, 5, 28, 7, 21, 7, None), (-1, 0, 0, None, None, None, None)]


def test_the_best_are_told_in_order_and_equal_ones_by_their_place() -> None:
    view = of(ViewShape("reader", (Top(3, "fee", ("loan",)), Top(2, "days", smallest=True))), *FEES)
    best = ((9, "l2"), (9, "l4"), (5, "l0"))
    assert view.lookup(["ann", "bob"]) == [(4, best, ((7,), (7,))), (-1, (), ())]


def test_of_equal_ones_the_topic_listed_first_comes_first_whichever_was_read_first() -> None:
    shape = ViewShape("reader", (Top(3, "fee", ("loan",)), Count()))
    for order in (("loans", 1), ("loans", 0), ("old", 0)), (("old", 0), ("loans", 0), ("loans", 1)):
        view = View("dear", shape, ["old", "loans"], spread=["loans"])
        for topic, partition in order:
            view.apply(topic, partition, 0, lent({"reader": "ann", "fee": 5, "loan": f"{topic}/{partition}"}), 1)
        best = ((5, "old/0"), (5, "loans/0"), (5, "loans/1"))
        assert view.lookup(["ann"]) == [(0, best, 3)]


def test_a_sum_beyond_64_bits_is_exact_and_comes_back() -> None:
    most = {"reader": "ann", "fee": 2**63 - 1}
    view = of(ViewShape("reader", (Sum("fee"),)), most, most, most)
    assert view.lookup(["ann"]) == [(2, 3 * (2**63 - 1))]
    down = {"reader": "ann", "fee": -(2**63)}
    view.apply("loans", 0, 0, lent(most, most, most, down, down, down), 2)
    assert view.lookup(["ann"]) == [(5, -3)]


# --- many rows of a key ------------------------------------------------------------------------------

OPEN = ViewShape("reader", ("book",), ("Lent",), rows="loan", remove_where=(Where("type", "=", "Returned"),))


def test_a_key_has_a_row_for_each_value_until_it_is_removed() -> None:
    view = of(
        OPEN, {"reader": "ann", "loan": "l2", "book": "Faust"}, {"reader": "ann", "loan": "l1", "book": "Emma"},
        {"reader": "bob", "loan": "l3", "book": "Emma"}, {"reader": "ann", "loan": "l2", "type": "Returned"},
        {"reader": "ann", "loan": "l1", "book": "Persuasion"},
    )  # fmt: skip
    assert view.lookup(["ann", "bob", "cy", None]) == [((4, "l1", "Persuasion"),), ((2, "l3", "Emma"),), (), ()]
    assert len(view) == 2
    back = {"reader": "bob", "loan": "l3", "type": "Returned"}
    view.apply("loans", 0, 0, lent({}, {}, {}, {}, back))
    assert view.lookup(["bob"]) == [((2, "l3", "Emma"),)], "these were applied already"
    view.apply("loans", 0, 0, lent({}, {}, {}, {}, {}, back))
    assert view.lookup(["bob"]) == [()]


def test_what_a_stronger_topic_removed_is_gone_whichever_came_first() -> None:
    for order in (("loans", "returns"), ("returns", "loans")):
        view = View("open", OPEN, ["loans", "returns"])
        for topic in order:
            row = {"reader": "ann", "loan": "l1", "book": "Emma", "type": "Lent" if topic == "loans" else "Returned"}
            view.apply(topic, 0, 0, lent(row), 1)
        assert (view.lookup(["ann"]), len(view), view.rows()) == ([()], 0, []), order


def test_aggregates_may_be_of_each_row() -> None:
    view = of(ViewShape("reader", (Count(), Sum("fee")), rows=("days",)), *FEES)
    assert view.lookup(["ann"]) == [((4, 7, 3, 23), (1, 14, 1, 0), (3, 21, 1, 5))]


# --- several partitions that speak of one key --------------------------------------------------------


def test_of_several_partitions_the_fact_that_was_appended_last_counts() -> None:
    shape = ViewShape("reader", ("book",))
    early, late = lent({"reader": "ann", "book": "Emma"}), lent({"reader": "ann", "book": "Faust"})
    for first, second in ((0, 1), (1, 0)):
        view = View("last", shape, ["loans"], spread=["loans"])
        for partition in (first, second):
            view.apply("loans", partition, 0, late if partition == 0 else early, 20 if partition == 0 else 10)
        assert view.lookup(["ann"]) == [(0, "Faust")]


def test_a_clock_that_is_set_back_makes_no_fact_older_than_those_before_it() -> None:
    view = View("last", ViewShape("reader", ("book",)), ["loans"], spread=["loans"])
    books = [{"reader": "ann", "book": book} for book in ("Emma", "Faust")]
    view.apply("loans", 0, 0, lent(books[0]), 50)
    view.apply("loans", 0, 0, lent(*books), 10)
    assert view.lookup(["ann"]) == [(1, "Faust")]
    view.apply("loans", 1, 0, lent({"reader": "ann", "book": "Persuasion"}), 40)
    assert view.lookup(["ann"]) == [(1, "Faust")], "it counts as appended at 50"


# --- the name of a fold ------------------------------------------------------------------------------


def test_a_shape_as_it_always_was_has_the_name_that_it_had() -> None:
    """A snapshot goes on to hold where the log's beginning may be deleted."""
    assert repr(ViewShape("sku", ("price",))) == "ViewShape(key='sku', columns=('price',), types=())"


def test_whatever_a_shape_says_is_in_its_name() -> None:
    shapes = [
        ViewShape("sku", ("price",)), ViewShape(("sku",), ("price",)), ViewShape("sku", ("price",), ("Listed",)),
        ViewShape("sku", (Sum("price"),)), ViewShape("sku", (Max("price"),)), ViewShape("sku", (Top(3, "price"),)),
        ViewShape("sku", (Top(4, "price"),)), ViewShape("sku", (Top(3, "price", smallest=True),)),
        ViewShape("sku", ("price",), where=(Where("price", ">", 3),)),
        ViewShape("sku", ("price",), where=(Where("price", ">", 4),)),
        ViewShape("sku", ("price",), remove_where=(Where("price", ">", 3),)), ViewShape("sku", ("price",), rows="shop"),
    ]  # fmt: skip
    assert len({repr(shape) for shape in shapes}) == len(shapes)

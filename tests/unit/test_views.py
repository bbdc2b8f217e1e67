"""Given a view of two topics, then a look-up finds the stronger one's value, and says what it does not know."""

from __future__ import annotations

import pytest

from eventmesh.messages import Columns
from eventmesh.views import ABSENT_VERSION, View, ViewShape

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

"""Given two requests, then their fingerprints are alike if and only if they ask for the same, wherever taken."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmesh.messages import Columns, encode_rows, fingerprint, fingerprints, unlike
from eventmesh.shop.facts import CONTENT, DECLARED

LINES = [("A-1", 1, 100), ("B-2", 2, 50)]
line = st.tuples(st.text(max_size=5), st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1))
lines = st.lists(line, max_size=4)
customer = st.none() | st.text(max_size=5)


def test_it_is_the_same_in_every_version_and_process() -> None:
    """A data directory outlives both. As b2sum -l 64 says of the JSON."""
    assert fingerprint("C1", [("A-1", 1, 100)]) == "51d60337c8aa1ff54a9c07cf4435d76f"
    assert fingerprint(None, None) == "7376b2cbfa0ad26e7376b2cbfa0ad26e"
    assert fingerprint("Zoë\x00\ud800", [("Ä", 1, 2)]) == "f8950264b395910534067f8d001bb064"


@pytest.mark.parametrize(
    ("customer", "other"),
    [
        ("C2", LINES), (None, LINES), ("", LINES), ("C1", LINES[:1]), ("C1", [*LINES, LINES[0]]), ("C1", None),
        ("C1", [("A-1", 1, 101), LINES[1]]), ("C1", [("A-1", 2, 100), LINES[1]]), ("C1", [("A-2", 1, 100), LINES[1]]),
    ],
)  # fmt: skip
def test_whatever_else_is_asked_it_is_another_one(customer: str | None, other: Any) -> None:
    assert fingerprint(customer, other) != fingerprint("C1", LINES)


def test_lines_count_in_any_order_and_none_are_none() -> None:
    assert fingerprint("C1", LINES[::-1]) == fingerprint("C1", LINES)
    assert fingerprint("C1", []) == fingerprint("C1", None)
    with_nulls = [("A", None, 1), (None, 2, 1), ("A", 1, 1)]
    assert fingerprint(with_nulls) == fingerprint(with_nulls[::-1])


def test_what_differs_is_named() -> None:
    one = fingerprint("C1", LINES)
    assert unlike(one, one, CONTENT) == []
    assert unlike(one, fingerprint("C2", LINES), CONTENT) == ["customer_id"]
    assert unlike(one, fingerprint("C1", LINES[:1]), CONTENT) == ["lines"]
    assert unlike(one, fingerprint("C2", None), CONTENT) == ["customer_id", "lines"]


@given(st.lists(st.tuples(customer, lines), max_size=4))
def test_it_is_the_same_of_a_batch_as_of_each_row(rows: list[tuple[str | None, list[Any]]]) -> None:
    schema = DECLARED.messages["PlaceOrder"].question
    batch = encode_rows(schema, [{"order_id": "o", "customer_id": who, "lines": what} for who, what in rows])
    copied = pa.ipc.read_record_batch(batch.serialize(), batch.schema)
    alone = [fingerprint(who, what) for who, what in rows]
    assert fingerprints(Columns(batch), CONTENT) == alone
    assert fingerprints(Columns(copied), CONTENT) == alone


@given(customer, lines, customer, lines)
def test_two_are_alike_only_if_they_ask_for_the_same(one: Any, these: Any, other: Any, those: Any) -> None:
    alike = one == other and sorted(these) == sorted(those)
    assert (fingerprint(one, these) == fingerprint(other, those)) == alike

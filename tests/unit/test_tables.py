"""Given rows of any text and a terminal of any width, then every name and every value is shown, and none is cut."""

from __future__ import annotations

import io
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from eventmesh.report.legible import legible
from eventmesh.report.tables import Fitted, number

WIDTHS = range(20, 121)
PARTITIONS = [
    {"partition": "order-requests/0", "owner": "gateway", "key": "order_id", "end": 1_234_567, "snapshot": None},
    {"partition": "stock/11", "owner": "inventory/3", "key": "sku", "end": 3_048, "snapshot": 3_000},
]
#: Accents that combine with what stands before them, characters of two columns, escapes, breaks, another direction.
TEXTS = st.text(
    st.sampled_from("abz 0189_-/.@中漢ｱ😀e\u0301\u0303\x1b[31m\n\t\r\x07\x9b\u202e\u2028"), max_size=60
) | st.text(max_size=30)
VALUES = TEXTS | st.integers() | st.floats(allow_nan=False) | st.none() | st.booleans()


def printed(width: int, rows: list[dict[str, Any]], **options: Any) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(Fitted(rows, **options))
    return stream.getvalue()


def squeezed(text: str) -> str:
    """Without blanks, which a fold may take."""
    return "".join(text.split())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("last_folds", [False, True])
def test_every_value_stands_in_one_piece(width: int, last_folds: bool) -> None:
    lines = printed(width, PARTITIONS, last_folds=last_folds).splitlines()
    assert max(map(len, lines)) <= width
    words = [word for line in lines for word in line.replace(": ", " ").split()]
    for row in PARTITIONS:
        assert [word for word in map(number, row.values()) if word not in words] == []
    assert [name for name in PARTITIONS[0] if name not in words and f"{name}:" not in words] == []


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_a_table_that_does_not_fit_is_a_list(width: int) -> None:
    shown = printed(width, PARTITIONS)
    fits = width >= Fitted(PARTITIONS).width
    assert ("end: 3,048" in shown.splitlines()) is not fits


@given(st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=4), st.sampled_from(WIDTHS), st.booleans())
def test_whatever_the_values_are_all_are_shown(rows: list[tuple[Any, ...]], width: int, last_folds: bool) -> None:
    named = [dict(zip(("name", "found", "値"), row, strict=True)) for row in rows]
    shown = printed(width, named, last_folds=last_folds)
    assert max((cell_len(line) for line in shown.split("\n")), default=0) <= width
    everything = squeezed(shown)
    table = Fitted(named)
    if table.width > width:  # else the columns of a folded row stand between each other
        for row in rows if not last_folds else ():
            for value in row:
                assert squeezed(legible(number(value))) in everything, value
    else:
        for row in rows:
            for value in row:
                assert legible(number(value)).strip() in shown, value
    assert not [each for each in shown if unicodedata.category(each) in ("Cc", "Cs") and each != "\n"]


@given(st.text())
def test_what_is_legible_does_nothing_to_a_terminal(text: str) -> None:
    shown = legible(text)
    assert not [each for each in shown if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp")]
    assert shown.encode().decode() == shown
    assert legible(shown) == shown
    assert legible(text, "ascii").isascii()


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("G1\x1b[2J", "utf-8", r"G1\x1b[2J"),
        ("two\nlines", "utf-8", r"two\nlines"),
        ("txt.\u202eexe", "utf-8", r"txt.\u202eexe"),
        ("Zoë → 2 × 3 ≥ 5", "utf-8", "Zoë → 2 × 3 ≥ 5"),
        ("Zoë → 2 × 3 ≥ 5", "ascii", r"Zo\xeb -> 2 x 3 >= 5"),
        ("Zoë → 2 × 3 ≥ 5", "latin-1", "Zoë -> 2 × 3 >= 5"),
        ("\udcff", "utf-8", r"\udcff"),
    ],
)
def test_what_is_escaped_and_what_is_made_plain(text: str, encoding: str, shown: str) -> None:
    assert legible(text, encoding) == shown

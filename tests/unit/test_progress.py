"""How far a reader has got: contiguous per partition, with what is done beyond an open input kept apart."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmesh.progress import Progress, position_name, split_position

RANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)).map(lambda pair: (pair[0], sum(pair))))


def progress_of(ranges: list[tuple[int, int]]) -> Progress:
    progress = Progress()
    for start, end in ranges:
        progress.done("orders/0", start, end)
    return progress


def test_given_an_open_input_then_what_is_done_beyond_it_does_not_pass_it() -> None:
    progress = progress_of([(0, 3), (4, 6), (8, 9)])
    assert progress.next == {"orders/0": 3}
    assert progress.ahead == {"orders/0": [(4, 6), (8, 9)]}
    assert [progress.is_done("orders/0", offset) for offset in range(10)] == [
        True,
        True,
        True,
        False,
        True,
        True,
        False,
        False,
        True,
        False,
    ]
    progress.done("orders/0", 3, 4)
    assert progress.next == {"orders/0": 6}
    progress.done("orders/0", 6, 8)
    assert (progress.next, progress.ahead) == ({"orders/0": 9}, {})


@given(RANGES)
def test_given_any_order_of_answers_then_exactly_what_was_done_is_done(ranges: list[tuple[int, int]]) -> None:
    progress = progress_of(ranges)
    done = {offset for start, end in ranges for offset in range(start, end)}
    assert {offset for offset in range(60) if progress.is_done("orders/0", offset)} == done
    following = progress.next.get("orders/0", 0)
    assert following == min(set(range(60)) - done)
    ahead = progress.ahead.get("orders/0", [])
    assert all(low < high for low, high in ahead)
    assert all(end < start for (_, end), (start, _) in zip([(0, following), *ahead], ahead, strict=False))


@given(RANGES, st.randoms(use_true_random=False))
def test_given_the_same_answers_shuffled_then_the_vector_is_the_same(
    ranges: list[tuple[int, int]], dice: object
) -> None:
    shuffled = list(ranges)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert progress_of(shuffled).to_json() == progress_of(ranges).to_json()


@given(RANGES)
def test_given_a_vector_then_it_survives_json_and_its_copy_is_its_own(ranges: list[tuple[int, int]]) -> None:
    progress = progress_of(ranges)
    encoded = progress.to_json()
    assert Progress.from_json(json.loads(json.dumps(encoded))).to_json() == encoded
    twin = progress.copy()
    twin.done("orders/0", 50, 51)
    twin.done("stock/1", 0, 1)
    assert progress.to_json() == encoded != twin.to_json()


def test_given_vectors_then_reached_compares_position_by_position() -> None:
    progress = Progress({"orders/0": 5, "stock/0": 2})
    assert progress.reached({})
    assert progress.reached({"orders/0": 5})
    assert progress.reached({"orders/0": 5, "payments/0": 0})
    assert not progress.reached({"orders/0": 6})
    assert not progress.reached({"orders/0": 5, "payments/0": 1})


@pytest.mark.parametrize("name", ["orders/0", "order-requests/12", "a/b/3"])
def test_given_a_position_then_its_name_can_be_split_again(name: str) -> None:
    assert position_name(*split_position(name)) == name

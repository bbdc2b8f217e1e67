"""Given timers that are set, end and come due, then what is open follows from what the log has carried."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from eventmesh.runtime.timers import PASSED_MAX, Timer, Timers, of_conversation, timer_id

KINDS = ["Expired", of_conversation("Order", "o1"), of_conversation("Order", "o2")]


def timer(kind: str, name: str, due_at: int) -> Timer:
    return Timer(kind, name, due_at, timer_id("x/0/1#0", due_at), "story", "cause", {"order_id": name})


def seen(timers: Timers) -> Any:
    """All that tells two of them apart."""
    return timers.to_json(), timers.next_due(), [each.key for each in timers.due(2**62)]


def test_the_next_one_is_the_earliest_that_is_open() -> None:
    timers = Timers()
    assert (timers.next_due(), timers.due(10**9)) == (None, [])
    for name, due_at in (("b", 30), ("a", 20), ("c", 10)):
        timers.set(timer("Expired", name, due_at))
    assert [each.name for each in timers.due(20)] == ["c", "a"]
    timers.end(("Expired", "c"))
    assert timers.next_due() == 20
    timers.passes(("Expired", "a"))
    assert (timers.next_due(), timers.due(29)) == (30, [])


def test_a_later_one_of_the_same_key_takes_the_place_of_the_first() -> None:
    timers = Timers()
    timers.set(timer("Expired", "a", 20))
    timers.set(timer("Expired", "a", 50))
    assert (timers.due(20), timers.next_due()) == ([], 50)
    timers.set(timer("Expired", "a", 10))
    assert [each.due_at for each in timers.due(60)] == [10]


def test_what_a_conversation_waited_for_has_passed_until_the_conversation_ends() -> None:
    timers, (_, mine, other) = Timers(), KINDS
    for kind in (mine, other):
        timers.set(timer(kind, "courier", 10))
    timers.passes((mine, "courier"))
    assert ((mine, "courier") in timers.passed, list(timers.open)) == (True, [(other, "courier")])
    timers.set(timer(mine, "cook", 99))
    timers.end_all(mine)
    assert (dict(timers.passed), list(timers.open)) == ({}, [(other, "courier")])


def test_what_was_due_for_nobody_is_remembered_in_bounds() -> None:
    timers = Timers()
    for number in range(PASSED_MAX + 5):
        timers.set(timer(of_conversation("Order", str(number)), "", 1))
        timers.passes((of_conversation("Order", str(number)), ""))
    assert len(timers.passed) == PASSED_MAX
    assert next(iter(timers.passed)) == (of_conversation("Order", "5"), "")


Step = tuple[str, str, str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["set", "end", "passes", "end_all", "append"]), st.sampled_from(KINDS), st.sampled_from("ab"),
        st.integers(1, 9),
    ),
    max_size=40,
)  # fmt: skip


def carried_out(timers: Timers, steps: list[Step]) -> list[Any]:
    """Do the steps; the vectors of the appends in which they are carried."""
    vectors = []
    for what, kind, name, due_at in [*steps, ("append", "", "", 0)]:
        if what == "set":
            timers.set(timer(kind, name, due_at))
        elif what == "end":
            timers.end((kind, name))
        elif what == "end_all":
            timers.end_all(kind)
        elif what == "passes" and (kind, name) in timers.open:
            timers.passes((kind, name))
        elif what == "append":
            vectors.append({"next": {}, "timers": timers.take_changes()})
    return vectors


@given(STEPS, st.data())
def test_the_fold_of_the_log_is_what_is_open_with_a_snapshot_anywhere(steps: list[Step], data: st.DataObject) -> None:
    live, again = Timers(), Timers()
    vectors = carried_out(live, steps)
    at = data.draw(st.integers(0, len(vectors)))
    for vector in vectors[:at]:
        again.fold(vector)
    restored = Timers()
    restored.restore(again.to_json())
    for vector in vectors[at:]:
        again.fold(vector)
        restored.fold(vector)
    assert seen(again) == seen(live)
    assert seen(restored) == seen(live)
    assert (again.changes, restored.changes) == ([], [])

"""Given facts of several topics and partitions, then a view of any kind is the plain fold of them all.

In whatever order the partitions come, however they are cut into batches, and wherever a snapshot is taken on the way.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmesh.messages import Columns
from eventmesh.runtime.snapshots import Snapshot, encode_view, restore_view, view_header
from eventmesh.views import View, ViewShape, Where
from tests.unit.view_story import SERVICE, Appended, market, plain, streams

NAMES = sorted(market().services[SERVICE].views)


def deliveries(appends: list[Appended], dice: random.Random) -> Iterator[Appended]:
    """Partitions in any order; each in its own, in pieces, some of which come once more with what follows."""
    waiting: dict[tuple[str, int], list[Appended]] = {}
    for each in appends:
        waiting.setdefault((each.topic, each.partition), []).append(each)
    while waiting:
        stream = dice.choice(sorted(waiting))
        first = waiting[stream].pop(0)
        cut = dice.randint(0, len(first.rows))
        if 0 < cut < len(first.rows):
            yield first.cut(0, cut)
            waiting[stream].insert(0, first.cut(dice.randint(0, cut), len(first.rows)))
        else:
            yield first
        if not waiting[stream]:
            del waiting[stream]


def from_snapshot(view: View) -> View:
    """A view that begins where a snapshot of this one stands."""
    schemas = {name: topic.schema for name, topic in market().topics().items()}
    kept = Snapshot(view_header(view, SERVICE, "one", 0), encode_view(view, schemas)).to_bytes()
    restored, read = market().view(SERVICE, view.name), Snapshot.from_bytes(kept)
    assert read is not None
    restore_view(restored, read, schemas)
    return restored


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_it_is_the_plain_fold_of_all_facts(name: str, data: st.DataObject, seed: int) -> None:
    topics = market().services[SERVICE].views[name]
    appends, dice = data.draw(streams(topics)), random.Random(seed)
    expected = plain(market().view(SERVICE, name), appends)
    for _ in range(2):
        view, lengths = market().view(SERVICE, name), [0]
        for each in deliveries(appends, dice):
            each.apply(view)
            lengths.append(len(view))
            if dice.random() < 0.2:
                view = from_snapshot(view)
                assert len(view) == lengths[-1]
        assert view.rows() == expected
        assert len(view) == len(expected)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_look_up_gives_what_its_rows_say(name: str, data: st.DataObject) -> None:
    view = market().view(SERVICE, name)
    for each in data.draw(streams(view.topics)):
        each.apply(view)
    many: dict[object, list[tuple[object, ...]]] = {}
    for row in view.rows():
        many.setdefault(row["key"], []).append((row["version"], *row.get("row", ()), *row["values"]))
    found = view.lookup(list(many))
    if view.shape.rows:
        assert found == [tuple(rows) for rows in many.values()]
    else:
        assert found == [row for [row] in many.values()]
        assert view.lookup(list(many)[:1]) == found[:1]


def test_a_snapshot_knows_when_facts_were_appended() -> None:
    """What comes late from another partition is older than what the snapshot has, and a clock may be set back."""
    fig = {"type": "Sold", "customer": "ann", "product": "fig"}
    view = market().view(SERVICE, "last-price")
    Appended("sales", 0, 0, 50, ({**fig, "amount": 30},)).apply(view)
    view = from_snapshot(view)
    Appended("sales", 1, 0, 40, ({**fig, "amount": 20},)).apply(view)
    assert view.lookup([("ann", "fig")]) == [(0, 30, None)]
    Appended("sales", 0, 1, 10, ({**fig, "amount": 10},)).apply(view)
    assert view.lookup([("ann", "fig")]) == [(1, 10, None)]


def test_both_zeros_of_a_float_are_one() -> None:
    """Whichever comes first: a snapshot has the same bytes."""
    sold = {"type": "Sold", "sale": "s1", "customer": "ann"}
    shown = []
    for weights in ((0.0, -0.0), (-0.0, 0.0)):
        view = market().view(SERVICE, "totals")
        Appended("sales", 0, 0, 1, tuple({**sold, "weight": weight} for weight in weights)).apply(view)
        shown.append(repr(view.lookup(["ann"])))
    assert shown[0] == shown[1]


def test_columns_may_be_called_what_a_snapshot_calls_its_own() -> None:
    schema = pa.schema([pa.field(name, pa.string()) for name in ("key", "version", "removed", "partition", "topic")])
    shape = ViewShape(("key", "topic"), tuple(schema.names), remove_where=(Where("removed", "=", "yes"),))
    said = [{"key": "k", "topic": "t", "version": "v", "removed": "no", "partition": None, "sequence": 0}]
    view, restored = (View("odd", shape, ["one", "two"], spread=["two"]) for _ in range(2))
    view.apply("two", 0, 0, Columns(rows=said), 5)
    schemas = {"one": schema, "two": schema}
    restore_view(restored, Snapshot(view_header(view, SERVICE, "one", 0), encode_view(view, schemas)), schemas)
    assert restored.lookup([("k", "t")]) == view.lookup([("k", "t")]) == [(0, "k", "v", "no", None, "t")]
    assert restored.rows() == view.rows()

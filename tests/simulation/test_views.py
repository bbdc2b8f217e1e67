"""Given views of every kind and processes that die, then each is what the log says (E8), and no wrong fold passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from eventmesh import mesh as meshes
from eventmesh.audit.audit import audit
from eventmesh.audit.verdict import CheckResult
from eventmesh.history import History
from eventmesh.lab.simulated_run import Crashes, SimulatedRun, run_simulated
from eventmesh.mesh import Mesh
from eventmesh.messages import Columns
from eventmesh.runtime import instance, snapshotter
from eventmesh.runtime.snapshots import Snapshot
from eventmesh.shapes import Count, Max, Min, Sum, Top, Where
from eventmesh.views import View
from tests.market import sales

MARKET = Path(__file__).parents[1] / "market" / "mesh.yaml"
Patch = pytest.MonkeyPatch


@lru_cache
def market(instances: int = 1, snapshot_rows: int | None = 10) -> Mesh:
    """The market, with so many processes that keep its views."""
    document = meshes.load(MARKET).resolved()
    document["log"]["snapshot_rows"] = snapshot_rows
    document["services"]["board"]["instances"] = instances
    return meshes.parse(document)


def day(seed: int, mesh: Mesh | None = None) -> SimulatedRun:
    """A day at the market on which processes die, the board's among them."""
    described = mesh or market()
    return run_simulated(
        described, sales(seed, count=90), seed=seed, faults=Crashes(8, broker_share=0.2).drawn(described, seed)
    )


# --- right folds -------------------------------------------------------------------------------------


def test_whatever_dies_each_view_is_what_the_log_says(monkeypatch: Patch) -> None:
    restored, rows, restore = Counter[str](), Counter[str](), instance.restore_view

    def counted(view: View, snapshot: Snapshot, schemas: Mapping[str, pa.Schema]) -> None:
        restore(view, snapshot, schemas)
        restored[view.name] += 1

    monkeypatch.setattr(instance, "restore_view", counted)
    for seed in range(8):
        run = day(seed, market(instances=1 + seed % 2))
        assert run.audit().describe() == "audit: valid", f"seed {seed}"
        rows.update({dump.view: len(dump.rows) for dump in run.history.views})
    kinds = set(market().services["board"].views)
    assert {name for name in kinds if rows[name] >= 8} == kinds, "each has something to be wrong about"
    assert {name for name in kinds if restored[name] >= 4} == kinds, "and was gone on with"


def test_instances_that_read_in_another_order_hold_the_same() -> None:
    for seed in range(4):
        held: dict[str, list[Any]] = {}
        for dump in day(seed, market(instances=2)).history.views:
            held.setdefault(dump.view, []).append((dump.next, dump.rows))
        assert all(one == other for one, other in held.values()), f"seed {seed}"


def test_with_snapshots_or_without_the_views_are_the_same() -> None:
    for seed in range(3):
        some, none = day(seed), day(seed, market(snapshot_rows=None))
        assert [dump.rows for dump in some.history.views] == [dump.rows for dump in none.history.views], f"seed {seed}"


def test_what_is_written_down_of_them_is_judged_the_same(tmp_path: Path) -> None:
    run = day(3)
    run.history.write(tmp_path)
    read = History.read(tmp_path)
    found = audit(run.simulation.mesh, run.reader, read, only={"E8"}).checks["E8"]
    assert (found.verdict, found.examined) == ("valid", sum(len(dump.rows) for dump in run.history.views))


# --- a shape that has changed ------------------------------------------------------------------------


def test_a_snapshot_of_another_shape_is_folded_past(monkeypatch: Patch) -> None:
    """The board comes back with another shape, and finds snapshots of the one before."""
    mesh = market()
    run = day(1)
    simulation, before = run.simulation, run.simulation.snapshots.header("view/board/totals")
    assert before is not None
    changed = {**mesh.application.VIEWS, "totals": mesh.application.VIEWS["open"]}
    monkeypatch.setattr(mesh.application, "VIEWS", changed)
    simulation.kill(simulation.hosts["board", 0])
    simulation.drain()
    (totals,) = [dump for dump in simulation.history(["load"]).views if dump.view == "totals"]
    (opened,) = [dump for dump in run.history.views if dump.view == "open"]
    assert totals.rows == opened.rows
    simulation.call("more", sales(2, count=40).load)
    simulation.drain()
    after = simulation.snapshots.header("view/board/totals")
    assert after is not None
    assert after.fold != before.fold
    assert "remove_where" in after.fold


# --- wrong folds -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Canary:
    """A way to fold wrongly, and the views that it makes wrong."""

    name: str
    breaks: Callable[[Patch], None]
    views: Sequence[str]


CANARIES: list[Canary] = []


def canary(*views: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a way to be wrong under its own name."""

    def register(breaks: Callable[[Patch], None]) -> Callable[[Patch], None]:
        CANARIES.append(Canary(breaks.__name__, breaks, views))
        return breaks

    return register


@canary("heavy", "offers")
def filters_ignored(patch: Patch) -> None:
    counting = View._counting
    patch.setattr(View, "_counting", lambda view, facts: [
        one or kind in view._types for one, kind in zip(counting(view, facts), facts["type"], strict=True)
    ])  # fmt: skip


@canary("heavy")
def nulls_meet_a_condition(patch: Patch) -> None:
    met = Where.met

    def lenient(condition: Where, facts: Columns) -> list[bool]:
        asked = facts[condition.column]
        return [one or value is None for one, value in zip(met(condition, facts), asked, strict=True)]

    patch.setattr(Where, "met", lenient)


@canary("by-sale", "last-price")
def half_a_key_is_a_key(patch: Patch) -> None:
    keys = View._keys

    def filled(view: View, facts: Columns) -> Sequence[Any]:
        found = keys(view, facts)
        if isinstance(view.shape.key, str) or view.shape.rows:
            return found
        return [tuple(part or "" for part in key) for key in found]

    patch.setattr(View, "_keys", filled)


@canary("last-price")
def the_last_to_arrive_counts(patch: Patch) -> None:
    view = Mesh.view

    def unspread(mesh: Mesh, service: str, name: str) -> View:
        found = view(mesh, service, name)
        return View(name, found.shape, found.topics)

    patch.setattr(Mesh, "view", unspread)


@canary("by-sale", "totals")
def the_topic_listed_first_wins(patch: Patch) -> None:
    view = Mesh.view

    def turned(mesh: Mesh, service: str, name: str) -> View:
        found = view(mesh, service, name)
        return View(name, found.shape, found.topics[::-1], found.spread)

    patch.setattr(Mesh, "view", turned)


@canary("totals")
def sums_wrap_around(patch: Patch) -> None:
    patch.setattr(Sum, "plus", lambda kept, one, other: (one + other + 2**63) % 2**64 - 2**63)


@canary("totals", "baskets")
def facts_without_a_value_are_not_counted(patch: Patch) -> None:
    patch.setattr(Count, "lifted", lambda kept, facts, *_: [int(each is not None) for each in facts["amount"]])


@canary("totals")
def the_smallest_is_the_largest(patch: Patch) -> None:
    patch.setattr(Min, "_chosen", Max._chosen)


@canary("dearest")
def of_equal_ones_the_first_to_come_is_kept(patch: Patch) -> None:
    def plus(kept: Top, one: Any, other: Any) -> Any:
        return tuple(sorted(one + other, key=lambda row: row[0], reverse=not kept.smallest)[: kept.limit])

    patch.setattr(Top, "plus", plus)


@canary("dearest")
def one_too_few_is_kept(patch: Patch) -> None:
    plus = Top.plus
    patch.setattr(Top, "plus", lambda kept, one, other: plus(kept, one, other)[: kept.limit - 1])


@canary("open", "offers")
def nothing_is_removed(patch: Patch) -> None:
    put = View._put
    patch.setattr(View, "_put", lambda view, topic, key, row, removes: removes or put(view, topic, key, row, False))


@canary("open")
def removals_are_forgotten(patch: Patch) -> None:
    put = View._put

    def forgetful(view: View, topic: str, *what: Any) -> None:
        put(view, topic, *what)
        view._removed[topic].clear()

    patch.setattr(View, "_put", forgetful)


@canary("open")
def a_snapshot_forgets_what_was_removed(patch: Patch) -> None:
    _restoring(patch, lambda view: [removed.clear() for removed in view._removed.values()])


@canary("totals", "baskets", "dearest")
def a_snapshot_forgets_where_it_stands(patch: Patch) -> None:
    _restoring(patch, lambda view: view.next.clear())


@canary("totals", "by-sale")
def snapshots_of_another_shape_are_gone_on_with(patch: Patch) -> None:
    """Each snapshot is of the fold, as it says, and holds nothing but nulls and nothings."""
    encode = snapshotter.encode_view

    def empty(view: View, schemas: Any) -> bytes:
        other = View(view.name, view.shape, view.topics, view.spread)
        return encode(other, schemas)

    patch.setattr(snapshotter, "encode_view", empty)


def _restoring(patch: Patch, spoil: Callable[[View], Any]) -> None:
    restore = instance.restore_view

    def spoilt(view: View, snapshot: Snapshot, schemas: Mapping[str, pa.Schema]) -> None:
        restore(view, snapshot, schemas)
        spoil(view)

    patch.setattr(instance, "restore_view", spoilt)


@pytest.mark.parametrize("wrong", CANARIES, ids=lambda wrong: wrong.name)
def test_a_fold_that_is_wrong_is_found(wrong: Canary, monkeypatch: Patch) -> None:
    """Within a few seeds, in each of the views that it makes wrong."""
    wrong.breaks(monkeypatch)
    missed = set(wrong.views)
    for seed in range(6):
        run = day(seed)
        missed -= {view for view in missed if e8(run, view).verdict == "invalid"}
        if not missed:
            return
    assert not missed


def e8(run: SimulatedRun, view: str) -> CheckResult:
    """What E8 says of one view."""
    alone = replace(run.history, views=[dump for dump in run.history.views if dump.view == view])
    return audit(run.simulation.mesh, run.reader, alone, only={"E8"}).checks["E8"]

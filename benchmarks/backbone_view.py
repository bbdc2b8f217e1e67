"""The part of ``backbone`` about views: how fast one is folded from the log, and looked into."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from benchmarks.backbone_loads import PRICES, prices, together
from benchmarks.backbone_part import BackbonePart, Sample, Samples
from benchmarks.benchmark import scratch
from benchmarks.peers import eventmesh_log
from eventmesh.log.store import open_read_only
from eventmesh.messages import Columns
from eventmesh.views import View, ViewShape

SHAPE = ViewShape("sku", ("list_price",))


class ViewPart(BackbonePart):
    """Look-ups by string key in a view of ``keys`` keys, and a view of ``rebuilt`` keys folded from the log."""

    keys: int = Field(ge=1)
    lookups: int = Field(ge=1)
    rebuilt: int = Field(ge=1)
    targets: dict[Literal["lookups", "rebuilt"], str]

    def describe(self) -> list[str]:
        """One line."""
        return [f"{self.lookups:,} look-ups, {self.rebuilt:,} keys rebuilt"]

    def measured(self, folder: Path, number: int) -> Samples:
        """Keys per second, and look-ups per second."""
        with scratch(folder) as room:
            rebuilt, target = _rebuilt(room, self.rebuilt), self.targets.get("rebuilt")
            yield Sample(f"keys rebuilt from the log, {self.rebuilt:,} keys, view", rebuilt, "rows/s", target)
        looked_up, target = _looked_up(self.keys, self.lookups), self.targets.get("lookups")
        yield Sample(f"look-ups by key, {self.keys:,} keys, view", looked_up, "look-ups/s", target)


def _rebuilt(folder: Path, keys: int) -> float:
    """Keys per second: a view folded anew from a log of one fact per key, from its files to its table."""
    batches = [prices(1_000, first) for first in range(0, keys, 1_000)]
    with eventmesh_log.server(folder) as address:
        together(
            [(eventmesh_log.appending, {"address": address, "topic": PRICES, "batches": batches, "rows": keys})]
        )  # fmt: skip
        reader = open_read_only(folder / "log")
        view, started = View(PRICES, SHAPE, [PRICES]), time.perf_counter()
        for entry in reader.batches(PRICES, 0):
            if entry.header.kind == "facts":
                view.apply(PRICES, 0, entry.header.base, entry.columns, entry.header.time)
        seconds = time.perf_counter() - started
        assert len(view) == keys
        reader.close()
    return keys / seconds


def _looked_up(keys: int, lookups: int) -> float:
    """Look-ups per second, a thousand keys at a time, in an order that is none."""
    facts, view = prices(keys), View(PRICES, SHAPE, [PRICES])
    view.apply(PRICES, 0, 0, Columns(facts))
    order = np.random.default_rng(0).integers(0, keys, lookups)
    skus = facts["sku"].to_pylist()
    asked = [[skus[place] for place in order[at : at + 1_000]] for at in range(0, lookups, 1_000)]
    started = time.perf_counter()
    for each in asked:
        found = view.lookup(each)
    seconds = time.perf_counter() - started
    assert found[-1][1] == order[-1]
    return lookups / seconds

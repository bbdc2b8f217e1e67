"""The part of ``backbone`` about asking: one remote query at a time, and many, beside what people use for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import ClassVar, Literal

from pydantic import Field

from benchmarks.backbone_loads import Answers, together
from benchmarks.backbone_part import BackbonePart, Sample, Samples
from benchmarks.benchmark import scratch
from benchmarks.peers import eventmesh_query, grpc_query, http_query
from eventmesh.report import record

QueryPeer = Literal["gRPC", "HTTP"]
OURS = eventmesh_query.NAME


class Query(BackbonePart):
    """Prices by SKU of ``keys`` that there are, asked in closed loop; the first ``warmup`` answers are not counted.

    ``count`` are asked one at a time, ``count_at_once`` with ``at_once`` on their way.
    """

    peers: ClassVar[Mapping[str, ModuleType]] = {each.NAME: each for each in (grpc_query, http_query)}
    keys: int = Field(ge=1)
    warmup: int = Field(ge=0)
    count: int = Field(ge=1)
    at_once: int = Field(ge=2)
    count_at_once: int = Field(ge=1)
    target_ms: str
    ratio_targets: dict[QueryPeer, str]

    def describe(self) -> list[str]:
        """One line for each number on their way."""
        return [
            f"{self.count:,} remote queries, one at a time",
            f"{self.count_at_once:,} remote queries, {self.at_once} at a time",
        ]

    def measured(self, folder: Path, number: int) -> Samples:
        """Milliseconds of one, queries per second of many, and how many times those of each peer."""
        one, many = "one remote query at a time, p50", f"remote queries, {self.at_once} at a time"
        ours_ms, ours_per_s = self._asked(eventmesh_query, folder, number)
        yield Sample(f"{one}, {OURS}", ours_ms, "ms", self.target_ms)
        yield Sample(f"{many}, {OURS}", ours_per_s, "queries/s")
        for peer in self.installed():
            ms, per_s = self._asked(peer, folder, number)
            yield Sample(f"{one}, {peer.NAME}", ms, "ms")
            target = self.ratio_targets.get(peer.NAME)
            yield Sample(f"{one}, {OURS} over {peer.NAME}", ours_ms / ms, "times", target)
            yield Sample(f"{many}, {peer.NAME}", per_s, "queries/s")
            yield Sample(f"{many}, {OURS} over {peer.NAME}", ours_per_s / per_s, "times")

    def _asked(self, system: ModuleType, folder: Path, number: int) -> tuple[float, float]:
        """Milliseconds of one at a time, the median; queries per second of many."""
        with scratch(folder) as room, system.server(room, self.keys) as address:
            found: dict[int, Answers] = {}
            for at_once, count in ((1, self.count), (self.at_once, self.count_at_once)):
                asked = {"address": address, "keys": self.keys, "count": count, "at_once": at_once}
                [found[at_once]] = together([(system.asking, asked)])
                name = f"queries-{record.slug(system.NAME, str(at_once), {}, number)}.arrow"
                record.write_table(folder / "records" / name, found[at_once].table())
        return found[1].median_ms(self.warmup), found[self.at_once].per_s(self.warmup)

"""The parts of ``backbone`` about the log: what it takes in, how soon it hands on and to how many, beside others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from benchmarks.backbone_loads import BATCHES, THIN, Appended, Delivered, thin, together
from benchmarks.backbone_part import BackbonePart, Sample, Samples
from benchmarks.benchmark import scratch
from benchmarks.peers import eventmesh_log, nats_jetstream, redis_streams
from eventmesh.report import record

Shape = Literal["thin", "envelope"]
LogPeer = Literal["Redis Streams", "NATS JetStream"]
OURS = eventmesh_log.NAME
PEERS: dict[str, ModuleType] = {each.NAME: each for each in (redis_streams, nats_jetstream)}
#: Batches that are made before the clock starts, and sent again and again.
BATCHES_MADE = 50


class Append(BackbonePart):
    """Rows of each shape in batches; ``single_rows`` those of a peer that gets a message for each."""

    peers: ClassVar[Mapping[str, ModuleType]] = PEERS
    batch_rows: int = Field(ge=1)
    rows: dict[Shape, int]
    single_rows: int = Field(ge=1)
    targets: dict[Shape, str]
    ratio_targets: dict[LogPeer, str]

    def describe(self) -> list[str]:
        """A line for each shape."""
        return [f"append {rows:,} {shape} rows" for shape, rows in self.rows.items()]

    def measured(self, folder: Path, number: int) -> Samples:
        """Rows per second, and how many times those of each peer."""
        for shape, rows in self.rows.items():
            batches = [BATCHES[shape](self.batch_rows, at * self.batch_rows) for at in range(BATCHES_MADE)]
            ours = self._appended(eventmesh_log, eventmesh_log.appending, shape, batches, rows, folder)
            figure = f"append, {shape}, batches of {self.batch_rows:,}, {OURS}"
            yield Sample(figure, ours, "rows/s", self.targets.get(shape))
            for peer in self.installed():
                yield from self._beside(peer, ours, shape, batches, folder)

    def _beside(
        self, peer: ModuleType, ours: float, shape: Shape, batches: Sequence[pa.RecordBatch], folder: Path
    ) -> Samples:
        target = self.ratio_targets.get(peer.NAME)
        single = self._appended(peer, peer.appending_single, shape, batches, self.single_rows, folder)
        yield Sample(f"append, {shape}, a message each {peer.SINGLES_ARE_SENT}, {peer.NAME}", single, "rows/s")
        over = f"append, {shape}, {OURS} over {peer.NAME} with a message"
        yield Sample(f"{over} each", ours / single, "times", target)
        blobs = self._appended(peer, peer.appending_blobs, shape, batches, self.rows[shape], folder)
        yield Sample(f"append, {shape}, a message per batch, {peer.NAME}", blobs, "rows/s")
        yield Sample(f"{over} per batch", ours / blobs, "times")

    def _appended(
        self, system: ModuleType, role: Callable[..., Appended], topic: str, batches: Sequence[pa.RecordBatch],
        rows: int, folder: Path,
    ) -> float:  # fmt: skip
        with scratch(folder) as room, system.server(room) as address:
            [appended] = together([(role, {"address": address, "topic": topic, "batches": batches, "rows": rows})])
        assert appended.rows >= rows
        return float(appended.rows_per_s)


class Events(BackbonePart):
    """Single rows in open loop, ``rate`` per second; the first ``warmup`` are not counted."""

    peers: ClassVar[Mapping[str, ModuleType]] = PEERS
    rate: float = Field(gt=0)
    count: int = Field(ge=1)
    warmup: int = Field(ge=0)
    consumers: list[int]
    targets_ms: dict[int, str]
    ratio_targets: dict[LogPeer, str]

    def describe(self) -> list[str]:
        """A line for each number of consumers."""
        return [f"{self.count:,} single events at {self.rate:g}/s to {each} consumers" for each in self.consumers]

    def measured(self, folder: Path, number: int) -> Samples:
        """Milliseconds, and how many times those of each peer; the target of the ratio is that of one consumer."""
        for consumers in self.consumers:
            figure = f"single events at {self.rate:g}/s to {consumers} consumer{'s' if consumers > 1 else ''}, p50"
            ours = self._latency(eventmesh_log, consumers, folder, number)
            yield Sample(f"{figure}, {OURS}", ours, "ms", self.targets_ms.get(consumers))
            for peer in self.installed():
                theirs = self._latency(peer, consumers, folder, number)
                yield Sample(f"{figure}, {peer.NAME}", theirs, "ms")
                target = self.ratio_targets.get(peer.NAME) if consumers == 1 else None
                yield Sample(f"{figure}, {OURS} over {peer.NAME}", ours / theirs, "times", target)

    def _latency(self, system: ModuleType, consumers: int, folder: Path, number: int) -> float:
        """Milliseconds from the making of an event to its consumer, the median over all consumers."""
        with scratch(folder) as room, system.server(room) as address:
            events = {"address": address, "count": self.count}
            sent, *received = together(
                [(system.sending, {**events, "rate": self.rate}), *[(system.receiving, events)] * consumers]
            )
        table = pa.table({"sent_at": sent, **{f"received_at_{n}": each for n, each in enumerate(received)}})
        name = f"events-{record.slug(system.NAME, str(consumers), {}, number)}.arrow"
        record.write_table(folder / "records" / name, table)
        latencies = np.array(received)[:, self.warmup :] - np.array(sent)[self.warmup :]
        return float(np.median(latencies) / 1e6)


class Deliveries(BackbonePart):
    """Thin rows, appended while consumers read them."""

    peers: ClassVar[Mapping[str, ModuleType]] = PEERS
    batch_rows: int = Field(ge=1)
    rows: int = Field(ge=1)
    consumers: int = Field(ge=1)
    target: str

    def describe(self) -> list[str]:
        """One line."""
        return [f"{self.rows:,} rows to {self.consumers} consumers"]

    def measured(self, folder: Path, number: int) -> Samples:
        """Rows per second of all consumers together, and how many times those of each peer."""
        batches = [thin(self.batch_rows, at * self.batch_rows) for at in range(BATCHES_MADE)]
        to = f"to {self.consumers} consumers, batches of {self.batch_rows:,}"
        ours = self._delivered(eventmesh_log, eventmesh_log.appending, eventmesh_log.delivering, batches, folder)
        yield Sample(f"delivered {to}, {OURS}", ours, "rows/s", self.target)
        for peer in self.installed():
            theirs = self._delivered(peer, peer.appending_blobs, peer.delivering_blobs, batches, folder)
            yield Sample(f"delivered {to}, a message per batch, {peer.NAME}", theirs, "rows/s")
            over = f"delivered {to}, {OURS} over {peer.NAME} with a message per batch"
            yield Sample(over, ours / theirs, "times")

    def _delivered(
        self, system: ModuleType, append: Any, deliver: Any, batches: Sequence[pa.RecordBatch], folder: Path
    ) -> float:
        """Rows per second of all consumers together, from the barrier until the last of them has them all."""
        with scratch(folder) as room, system.server(room) as address:
            asked = {"address": address, "topic": THIN, "rows": self.rows}
            _, *found = together([(append, {**asked, "batches": batches}), *[(deliver, asked)] * self.consumers])
        delivered: list[Delivered] = found
        # All read the same rows; a consumer may have had one delivery more than it waited for.
        assert all(each.rows >= self.rows for each in delivered)
        assert all(each.total == sum_of(batches, each.rows) for each in delivered), "a sum is wrong"
        last = max(each.ended for each in delivered) - min(each.started for each in delivered)
        return sum(each.rows for each in delivered) / last * 1e9


class Memory(BackbonePart):
    """What a broker holds after so many gigabytes of thin rows, once in a run."""

    once: ClassVar[bool] = True
    gigabytes: float = Field(gt=0)
    target: str

    def describe(self) -> list[str]:
        """One line."""
        return [f"{self.gigabytes:g} GB appended"]

    def measured(self, folder: Path, number: int) -> Samples:
        """The broker's private megabytes."""
        batches = [thin(10_000, at * 10_000) for at in range(BATCHES_MADE)]
        rows = int(self.gigabytes * 1e9 / batches[0].nbytes * 10_000)
        with scratch(folder) as room, eventmesh_log.serving(room) as broker:
            asked = {"address": broker.address, "topic": THIN, "batches": batches, "rows": rows}
            together([(eventmesh_log.appending, asked)])
        yield Sample(f"private memory of a broker after {self.gigabytes:g} GB", broker.last, "MB", self.target)


def sum_of(batches: Sequence[pa.RecordBatch], rows: int) -> int:
    """The sum of the numbers of the first ``rows`` rows of the batches, again and again."""
    sums = [int(batch.column(0).to_numpy().sum()) for batch in batches]
    each = int(batches[0].num_rows)
    times, rest = divmod(rows, each * len(batches))
    assert rest % each == 0
    return times * sum(sums) + sum(sums[: rest // each])

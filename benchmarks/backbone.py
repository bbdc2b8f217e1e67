"""What does the log carry by itself, beside other people's in the same run, and the same work on each?

Every comparison says what is compared: one message for each row, or one for each batch. Peers that are not installed
are named as missing. The processes are the broker's, the producer's and the consumers', without Ray around them: Ray is
not on the path of the data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from benchmarks.backbone_loads import BATCHES, PRICES, THIN, Appended, Delivered, prices, thin, together
from benchmarks.benchmark import Part, Say, Settings, begin, label, recorded, scratch
from benchmarks.peers import eventmesh_log, redis_streams
from eventmesh.lab import measure, record
from eventmesh.lab.progress_bar import Report
from eventmesh.log.store import open_read_only
from eventmesh.messages import Columns
from eventmesh.views import View, ViewShape

Shape = Literal["thin", "envelope"]
OURS, REDIS = eventmesh_log.NAME, redis_streams.NAME
#: Batches that are made before the clock starts, and sent again and again.
BATCHES_MADE = 50


class Append(Part):
    """Rows of each shape in batches; ``single_rows`` those of a peer that gets a message for each."""

    batch_rows: int = Field(ge=1)
    rows: dict[Shape, int]
    single_rows: int = Field(ge=1)
    targets: dict[Shape, str]
    ratio_target: str


class Events(Part):
    """Single rows in open loop, ``rate`` per second; the first ``warmup`` are not counted."""

    rate: float = Field(gt=0)
    count: int = Field(ge=1)
    warmup: int = Field(ge=0)
    consumers: list[int]
    targets_ms: dict[int, str]
    ratio_target: str


class Deliveries(Part):
    """Thin rows, appended while consumers read them."""

    batch_rows: int = Field(ge=1)
    rows: int = Field(ge=1)
    consumers: int = Field(ge=1)
    target: str


class ViewPart(Part):
    """Look-ups by string key in a view of ``keys`` keys, and a view of ``rebuilt`` keys folded from the log."""

    keys: int = Field(ge=1)
    lookups: int = Field(ge=1)
    rebuilt: int = Field(ge=1)
    targets: dict[Literal["lookups", "rebuilt"], str]


class Memory(Part):
    """What a broker holds after so many gigabytes of thin rows, once in a run."""

    gigabytes: float = Field(gt=0)
    target: str


class BackboneSettings(Settings):
    """A benchmark file of this question; each part may be left out (null)."""

    append: Append | None
    events: Events | None
    deliveries: Deliveries | None
    view: ViewPart | None
    memory: Memory | None


@dataclass(frozen=True)
class Sample:
    """One repetition's value of one figure, and the figure's target; ``told`` says it in words."""

    figure: str
    value: float
    unit: str
    target: str | None = None

    @property
    def told(self) -> str:
        """On one line of the terminal."""
        return f"{self.figure}: {self.value:,.3g} {self.unit}" if self.value < 100 else (
            f"{self.figure}: {self.value:,.0f} {self.unit}"
        )  # fmt: skip


class Backbone:
    """The parts, interleaved: each repetition measures every system before the next begins."""

    settings_type: ClassVar[type[Settings]] = BackboneSettings

    def __init__(self, settings: BackboneSettings, *, quick: bool, meshes: Path) -> None:
        self.settings = settings
        self.name = label(settings, quick=quick)
        self.redis = redis_streams.missing() is None

    def describe(self) -> list[str]:
        """One line per part, and per peer that is missing."""
        s, lines = self.settings, []
        if s.append is not None:
            lines += [f"append {rows:,} {shape} rows x {s.repetitions}" for shape, rows in s.append.rows.items()]
        if s.events is not None:
            lines += [
                f"{s.events.count:,} single events at {s.events.rate:g}/s to {each} consumers x {s.repetitions}"
                for each in s.events.consumers
            ]
        if s.deliveries is not None:
            lines.append(f"{s.deliveries.rows:,} rows to {s.deliveries.consumers} consumers x {s.repetitions}")
        if s.view is not None:
            lines.append(f"{s.view.lookups:,} look-ups, {s.view.rebuilt:,} keys rebuilt x {s.repetitions}")
        if s.memory is not None:
            lines.append(f"{s.memory.gigabytes:g} GB appended, once")
        return lines + self._missing()

    def _missing(self) -> list[str]:
        problem = redis_streams.missing()
        return [f"{REDIS} is not measured: {problem}"] if problem else []

    def run(self, folder: Path, *, seed: int, report: Report, say: Say) -> record.Run:
        """Every part that the file has."""
        for line in self._missing():
            say(line)
        begun = begin(self.name, self.settings, seed=seed, durability="os")
        # Nothing of a mesh is run here: sums and counts are checked as it goes, and a wrong one ends the run.
        return recorded(
            folder,
            begun,
            self._measured(folder, report),
            say=say,
            line=lambda each: each.told,
            conclude=self._conclusion,
        )

    def _measured(self, folder: Path, report: Report) -> Generator[Sample, None, None]:
        settings = self.settings
        for number in range(settings.repetitions):
            report("repetitions", number, settings.repetitions)
            if settings.append is not None:
                yield from self._append(settings.append, folder)
            if settings.events is not None:
                yield from self._events(settings.events, folder, number)
            if settings.deliveries is not None:
                yield from self._deliveries(settings.deliveries, folder)
            if settings.view is not None:
                yield from self._view(settings.view, folder)
        if settings.memory is not None:
            report("memory", 0, 0)
            yield from self._memory(settings.memory, folder)

    # --- appending ------------------------------------------------------------------------------

    def _append(self, part: Append, folder: Path) -> Generator[Sample, None, None]:
        for shape, rows in part.rows.items():
            batches = [BATCHES[shape](part.batch_rows, number * part.batch_rows) for number in range(BATCHES_MADE)]
            ours = self._appended(eventmesh_log, eventmesh_log.appending, shape, batches, rows, folder)
            target = part.targets.get(shape)
            yield Sample(f"append, {shape}, batches of {part.batch_rows:,}, {OURS}", ours, "rows/s", target)
            if not self.redis:
                continue
            single = self._appended(
                redis_streams, redis_streams.appending_single, shape, batches, part.single_rows, folder
            )
            yield Sample(f"append, {shape}, a message each in pipelines of 1,000, {REDIS}", single, "rows/s")
            over = f"append, {shape}, {OURS} over {REDIS} with a message"
            yield Sample(f"{over} each", ours / single, "times", part.ratio_target)
            blobs = self._appended(redis_streams, redis_streams.appending_blobs, shape, batches, rows, folder)
            yield Sample(f"append, {shape}, a message per batch, {REDIS}", blobs, "rows/s")
            yield Sample(f"{over} per batch", ours / blobs, "times")

    def _appended(
        self, system: Any, role: Callable[..., Appended], topic: str, batches: Sequence[pa.RecordBatch], rows: int,
        folder: Path,
    ) -> float:  # fmt: skip
        with scratch(folder) as room, system.server(room) as address:
            [appended] = together([(role, {"address": address, "topic": topic, "batches": batches, "rows": rows})])
        assert appended.rows >= rows
        return float(appended.rows_per_s)

    # --- single events --------------------------------------------------------------------------

    def _events(self, part: Events, folder: Path, number: int) -> Generator[Sample, None, None]:
        for consumers in part.consumers:
            figure = f"single events at {part.rate:g}/s to {consumers} consumer{'s' if consumers > 1 else ''}, p50"
            ours = self._latency(eventmesh_log, part, consumers, folder, number)
            yield Sample(f"{figure}, {OURS}", ours, "ms", part.targets_ms.get(consumers))
            if self.redis:
                theirs = self._latency(redis_streams, part, consumers, folder, number)
                yield Sample(f"{figure}, {REDIS}", theirs, "ms")
                target = part.ratio_target if consumers == 1 else None
                yield Sample(f"{figure}, {OURS} over {REDIS}", ours / theirs, "times", target)

    def _latency(self, system: Any, part: Events, consumers: int, folder: Path, number: int) -> float:
        """Milliseconds from the making of an event to its consumer, the median over all consumers."""
        with scratch(folder) as room, system.server(room) as address:
            events = {"address": address, "count": part.count}
            sent, *received = together(
                [(system.sending, {**events, "rate": part.rate}), *[(system.receiving, events)] * consumers]
            )
        table = pa.table({"sent_at": sent, **{f"received_at_{n}": each for n, each in enumerate(received)}})
        name = f"events-{record.slug(system.NAME, str(consumers), {}, number)}.arrow"
        record.write_table(folder / "records" / name, table)
        latencies = np.array(received)[:, part.warmup :] - np.array(sent)[part.warmup :]
        return float(np.median(latencies) / 1e6)

    # --- deliveries -----------------------------------------------------------------------------

    def _deliveries(self, part: Deliveries, folder: Path) -> Generator[Sample, None, None]:
        batches = [thin(part.batch_rows, number * part.batch_rows) for number in range(BATCHES_MADE)]
        to = f"to {part.consumers} consumers, batches of {part.batch_rows:,}"
        ours = self._delivered(
            eventmesh_log, eventmesh_log.appending, eventmesh_log.delivering, part, batches, folder
        )  # fmt: skip
        yield Sample(f"delivered {to}, {OURS}", ours, "rows/s", part.target)
        if self.redis:
            theirs = self._delivered(
                redis_streams, redis_streams.appending_blobs, redis_streams.delivering_blobs, part, batches, folder
            )
            yield Sample(f"delivered {to}, a message per batch, {REDIS}", theirs, "rows/s")
            yield Sample(f"delivered {to}, {OURS} over {REDIS} with a message per batch", ours / theirs, "times")

    def _delivered(
        self, system: Any, append: Any, deliver: Any, part: Deliveries, batches: Sequence[pa.RecordBatch], folder: Path
    ) -> float:
        """Rows per second of all consumers together, from the barrier until the last of them has them all."""
        with scratch(folder) as room, system.server(room) as address:
            asked = {"address": address, "topic": THIN, "rows": part.rows}
            _, *found = together([(append, {**asked, "batches": batches}), *[(deliver, asked)] * part.consumers])
        delivered: list[Delivered] = found
        # All read the same rows; a consumer may have had one delivery more than it waited for.
        assert all(each.rows >= part.rows for each in delivered)
        assert all(each.total == _sum(batches, each.rows) for each in delivered), "a sum is wrong"
        last = max(each.ended for each in delivered) - min(each.started for each in delivered)
        return sum(each.rows for each in delivered) / last * 1e9

    # --- views ----------------------------------------------------------------------------------

    def _view(self, part: ViewPart, folder: Path) -> Generator[Sample, None, None]:
        with scratch(folder) as room:
            rebuilt, target = _rebuilt(room, part.rebuilt), part.targets.get("rebuilt")
            yield Sample(f"keys rebuilt from the log, {part.rebuilt:,} keys, view", rebuilt, "rows/s", target)
        looked_up, target = _looked_up(part.keys, part.lookups), part.targets.get("lookups")
        yield Sample(f"look-ups by key, {part.keys:,} keys, view", looked_up, "look-ups/s", target)

    # --- memory ---------------------------------------------------------------------------------

    def _memory(self, part: Memory, folder: Path) -> Generator[Sample, None, None]:
        batches = [thin(10_000, number * 10_000) for number in range(BATCHES_MADE)]
        rows = int(part.gigabytes * 1e9 / batches[0].nbytes * 10_000)
        with scratch(folder) as room, eventmesh_log.serving(room) as (address, memory_mb):
            together([(eventmesh_log.appending, {"address": address, "topic": THIN, "batches": batches, "rows": rows})])
        yield Sample(f"private memory of a broker after {part.gigabytes:g} GB", memory_mb[0], "MB", part.target)

    # --- figures --------------------------------------------------------------------------------

    def _conclusion(self, samples: list[Sample]) -> Mapping[str, Any]:
        found: dict[tuple[str, str, str | None], list[float]] = {}
        for each in samples:
            found.setdefault((each.figure, each.unit, each.target), []).append(each.value)
        figures = [measure.figure(name, values, unit, target=target) for (name, unit, target), values in found.items()]
        return {"figures": figures, "verdict": "valid"}


def _sum(batches: Sequence[pa.RecordBatch], rows: int) -> int:
    """The sum of the numbers of the first ``rows`` rows of the batches, again and again."""
    sums = [int(batch.column(0).to_numpy().sum()) for batch in batches]
    each = int(batches[0].num_rows)
    times, rest = divmod(rows, each * len(batches))
    assert rest % each == 0
    return times * sum(sums) + sum(sums[: rest // each])


SHAPE = ViewShape("sku", ("list_price",))


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

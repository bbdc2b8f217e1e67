"""What the benchmark ``backbone`` sends: rows of two shapes, single events when they are due, questions; and processes.

*Thin* is int64, float64 and a string of 14 characters: 34 bytes. *Envelope* has every column of the shop's orders.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from eventmesh.log.topic import Topic
from eventmesh.shop.facts import DECLARED

THIN, ENVELOPE, SINGLE, PRICES = "thin", "envelope", "single", "prices"
THIN_SCHEMA = pa.schema([("number", pa.int64()), ("price", pa.float64()), ("sku", pa.string())])
#: Of one partition each, keyed by a string.
TOPICS = {
    THIN: Topic(THIN, "loader", "sku", 1, THIN_SCHEMA),
    ENVELOPE: Topic(ENVELOPE, "loader", "order_id", 1, DECLARED.schemas["orders"]),
    PRICES: Topic(PRICES, "loader", "sku", 1, DECLARED.schemas["prices"]),
    SINGLE: Topic(SINGLE, "loader", "sku", 1, THIN_SCHEMA),
}
#: Seconds that a process may take.
PATIENCE_S = 300.0
read_clock = time.time_ns


class Barrier(Protocol):
    """Where all processes of a measurement wait for each other."""

    def wait(self) -> Any:
        """Until all are here."""


@dataclass(frozen=True)
class Appended:
    """``rows`` were acknowledged between two nanoseconds."""

    rows: int
    started: int
    ended: int

    @property
    def rows_per_s(self) -> float:
        """Throughput."""
        return self.rows / (self.ended - self.started) * 1e9


@dataclass(frozen=True)
class Delivered:
    """A consumer had ``rows`` rows, whose numbers add up to ``total``, between two nanoseconds."""

    rows: int
    total: int
    started: int
    ended: int


@dataclass(frozen=True)
class Answers:
    """When each question was asked and answered, in nanoseconds, in the order in which the answers came."""

    pairs: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pairs)

    def add(self, asked: int, answered: int) -> None:
        """One more, from any thread."""
        self.pairs.append((asked, answered))

    def table(self) -> pa.Table:
        """All of them, ``asked_at`` and ``answered_at``."""
        asked, answered = np.array(self.pairs).T
        return pa.table({"asked_at": asked, "answered_at": answered})

    def median_ms(self, warmup: int) -> float:
        """Milliseconds that an answer took, without the first ``warmup``: of one at a time."""
        return float(np.median(np.diff(self.pairs)[warmup:]) / 1e6)

    def per_s(self, warmup: int) -> float:
        """Throughput, from the answer before those that count to the last."""
        started = self.pairs[warmup - 1][1] if warmup else self.pairs[0][0]
        return (len(self) - warmup) / (self.pairs[-1][1] - started) * 1e9


def thin(rows: int, first: int = 0) -> pa.RecordBatch:
    """Thin rows, numbered from ``first``."""
    numbers = np.arange(first, first + rows)
    skus = [sku(number % 10_000_000_000) for number in range(first, first + rows)]
    columns = [pa.array(numbers, pa.int64()), pa.array(numbers * 0.25, pa.float64()), pa.array(skus, pa.string())]
    return pa.RecordBatch.from_arrays(columns, schema=THIN_SCHEMA)


def envelope(rows: int, first: int = 0) -> pa.RecordBatch:
    """Facts of orders with a value in every column; ids, keys and causes differ from row to row."""
    schema = DECLARED.schemas["orders"]
    return pa.RecordBatch.from_arrays([_filled(field, rows, first) for field in schema], schema=schema)


def _filled(field: pa.Field, rows: int, first: int) -> pa.Array:
    numbers, kind = range(first, first + rows), field.type
    if pa.types.is_string(kind):
        return pa.array([f"{field.name[:8]}-{number:08d}" for number in numbers], kind)
    if pa.types.is_list(kind):
        item = {member.name: _value(member.type, 7) for member in kind.value_type}
        return pa.array([[item]] * rows, kind)
    if pa.types.is_timestamp(kind):
        return pa.array(numbers, pa.int64()).cast(kind)
    return pa.array([_value(kind, number) for number in numbers], kind)


def _value(kind: pa.DataType, number: int) -> Any:
    if pa.types.is_boolean(kind):
        return number % 2 == 0
    return f"sku-{number:05d}" if pa.types.is_string(kind) else number % 100


def prices(rows: int, first: int = 0) -> pa.RecordBatch:
    """Facts of the shop's prices, each of a SKU of its own; what a view does not look at is the same in all."""
    schema, numbers = DECLARED.schemas["prices"], np.arange(first, first + rows)
    same = pa.RecordBatch.from_arrays([_filled(field, 1, 0) for field in schema], schema=schema)
    batch = same.take(pa.array(np.zeros(rows, np.int64)))
    own = {
        "sku": pa.array([sku(number) for number in range(first, first + rows)], pa.string()),
        "sequence": pa.array(numbers, pa.int64()),
        "list_price": pa.array(numbers, pa.int64()),
    }
    columns = [own[field.name] if field.name in own else batch.column(field.name) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


BATCHES = {THIN: thin, ENVELOPE: envelope}


def make_single(number: int) -> pa.RecordBatch:
    """One thin row, made when it is sent."""
    columns = [
        pa.array([number], pa.int64()), pa.array([number * 0.25], pa.float64()), pa.array([sku(number)], pa.string()),
    ]  # fmt: skip
    return pa.RecordBatch.from_arrays(columns, schema=THIN_SCHEMA)


def wait_s(number: int, rate: float, first: int) -> float:
    """Seconds until event ``number`` is due; 0 where it is."""
    return max(0.0, (first + int(number * 1e9 / rate) - read_clock()) / 1e9)


def due(number: int, rate: float, first: int) -> int:
    """Wait until event ``number`` is due; the nanosecond at which it is made, which is not before."""
    wait = wait_s(number, rate, first)
    if wait > 0:
        time.sleep(wait)
    return read_clock()


def sku(number: int) -> str:
    """The name of SKU ``number``, whose list price is its number."""
    return f"sku-{number:010d}"


def priced(keys: int) -> dict[str, tuple[int, int]]:
    """(version, list price) by SKU: what the server of a peer holds."""
    return {sku(number): (number, number) for number in range(keys)}


def questions(keys: int, count: int) -> list[int]:
    """The numbers of the SKUs that are asked for, in an order that is none, the same for everybody."""
    numbers: list[int] = np.random.default_rng(0).integers(0, keys, count).tolist()
    return numbers


def check_price(number: int, version: int, list_price: int | None) -> None:
    """An answer is right if it has the price that was listed, and names a fact."""
    assert version >= 0, f"{sku(number)} is not known"
    assert list_price == number, f"{sku(number)} costs {list_price}"


Job = tuple[Callable[..., Any], Mapping[str, Any]]


def _work(job: Job, barrier: Any, told: Any) -> None:
    function, arguments = job
    try:
        told.send((True, function(**arguments, barrier=barrier)))
    except BaseException as error:
        barrier.abort()
        told.send((False, f"{function.__module__}.{function.__name__}: {type(error).__name__}: {error}"))


def together(jobs: Sequence[Job]) -> list[Any]:
    """Run each job in a fresh process, all from one barrier on; what they returned, in order."""
    context = multiprocessing.get_context("spawn")
    barrier, pipes, processes = context.Barrier(len(jobs)), [], []
    for job in jobs:
        here, there = context.Pipe(duplex=False)
        pipes.append(here)
        processes.append(context.Process(target=_work, args=(job, barrier, there), daemon=True))
        processes[-1].start()
    try:
        answers = [here.recv() if here.poll(PATIENCE_S) else (False, "it did not end") for here in pipes]
    finally:
        for process in processes:
            process.join(1.0)
            process.kill()
    problems = [answer for fine, answer in answers if not fine]
    if problems:
        raise RuntimeError(next((each for each in problems if "BrokenBarrier" not in each), problems[0]))
    return [answer for _, answer in answers]

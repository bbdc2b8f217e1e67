"""What a run left behind, prepared for the checks: headers, facts as columns, and both as SQL tables.

Everything is read once, when first asked for. Facts of a topic stand in order of partition, then offset.
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from eventmesh.audit.verdict import CheckResult, Mask
from eventmesh.history import History
from eventmesh.log.batch import Header
from eventmesh.log.partition import gap_of
from eventmesh.log.store import LogReader
from eventmesh.log.topic import Topic
from eventmesh.mesh import Mesh
from eventmesh.progress import position_name

if TYPE_CHECKING:
    import duckdb

Integers = npt.NDArray[np.int64]
Made = TypeVar("Made")
ABSENT = -1  # the code of a null
BATCHES_PER_PIECE = 1_000
_PARTITION_STRIDE = 1 << 44  # offsets stay below


@dataclass(frozen=True)
class PartitionLog:
    """All that is visible of one partition; ``start`` and ``end`` bound its offsets.

    ``headers`` has one item per batch, in offset order, ``facts`` the rows of the batches of facts, many
    batches to a piece. ``gaps`` says, by the place of its record, from and to where offsets were lost.
    """

    topic: Topic
    number: int
    start: int
    end: int
    headers: Sequence[Header]
    facts: Sequence[pa.RecordBatch]
    gaps: Mapping[int, tuple[int, int]]

    @property
    def name(self) -> str:
        """``topic/partition``."""
        return position_name(self.topic.name, self.number)

    @classmethod
    def read(cls, topic: Topic, number: int, reader: LogReader) -> PartitionLog:
        """Everything below the watermark. Of small batches, the objects weigh more than the rows: none is kept."""
        headers: list[Header] = []
        gaps: dict[int, tuple[int, int]] = {}
        pieces: list[pa.RecordBatch] = []
        waiting: list[pa.RecordBatch] = []
        for entry in reader.batches(topic.name, number):
            if entry.header.kind == "facts":
                waiting.append(entry.batch)
            elif entry.header.kind == "truncated":
                gaps[len(headers)] = gap_of(entry)
            headers.append(entry.header)
            if len(waiting) == BATCHES_PER_PIECE:
                pieces.append(pa.concat_batches(waiting))
                waiting.clear()
        if waiting:
            pieces.append(pa.concat_batches(waiting))
        start, end = reader.start(topic.name, number), reader.watermark(topic.name, number)
        return cls(topic, number, start, end, headers, pieces, gaps)


def encode(values: pa.Array) -> tuple[Integers, pa.Array]:
    """Each value as its place among the distinct ones, :data:`ABSENT` for null; and those distinct ones."""
    encoded = values.dictionary_encode()
    codes = pc.fill_null(encoded.indices, ABSENT).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, encoded.dictionary


class Facts:
    """The facts of one topic as columns, control records left out; every array has one item per fact.

    ``partition``, ``append`` (the place of the fact's batch among the partition's batches), ``version`` (of
    the columns that it is written in) and ``time`` (microseconds) come as int64.
    """

    def __init__(self, topic: Topic, partitions: Sequence[PartitionLog]) -> None:
        self.topic, self.partitions = topic, partitions
        pieces = [piece for log in partitions for piece in log.facts]
        self.rows = pa.concat_batches(pieces) if pieces else pa.RecordBatch.from_pylist([], topic.schema)
        places = [
            (log.number, place, header.epoch, header.time, header.base, header.version, header.rows)
            for log in partitions
            for place, header in enumerate(log.headers)
            if header.kind == "facts"
        ]
        per_batch = np.array(places, np.int64).reshape(-1, 7)
        per_fact = np.repeat(per_batch, per_batch[:, 6], axis=0)
        self.partition, self.append, self.epoch, self.appended_at, self.base, self.version = per_fact[:, :6].T.copy()
        self._coded: dict[str, tuple[Integers, pa.Array]] = {}
        self._masks: dict[str, Mask] = {}

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def column(self, name: str) -> pa.Array:
        """A column of the topic."""
        return self.rows.column(name)

    def numbers(self, name: str) -> Integers:
        """An integer or time column as int64; null is 0."""
        column = self.column(name)
        if pa.types.is_timestamp(column.type):
            column = column.view(pa.int64())
        if column.null_count:
            column = pc.fill_null(column, 0)
        return column.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)  # type: ignore[no-any-return]

    def coded(self, name: str) -> tuple[Integers, pa.Array]:
        """A string column as codes, and its distinct values by code; see :func:`encode`."""
        coded = self._coded.get(name)
        if coded is None:
            coded = self._coded[name] = encode(self.column(name))
        return coded

    @cached_property
    def offset(self) -> Integers:
        """The offset of each fact."""
        return self.numbers("sequence")

    def at(self, partitions: Integers, offsets: Integers) -> Integers:
        """The place of the fact at each of these positions, :data:`ABSENT` where none stands."""
        there = self.partition * _PARTITION_STRIDE + self.offset  # in this order facts stand
        wanted = partitions * _PARTITION_STRIDE + offsets
        place = np.searchsorted(there, wanted)
        return np.where(np.append(there, ABSENT)[place] == wanted, place, ABSENT)

    @cached_property
    def time(self) -> Integers:
        """When each fact was decided."""
        return self.numbers("time")

    @cached_property
    def kinds(self) -> tuple[Integers, list[str]]:
        """The code of each fact's type, and the types by code."""
        codes, names = self.coded("type")
        return codes, names.to_pylist()

    def of(self, *kinds: str) -> Mask:
        """Which facts are of one of these types."""
        name = "|".join(kinds)
        if name not in self._masks:
            codes, names = self.kinds
            self._masks[name] = np.isin(codes, [code for code, kind in enumerate(names) if kind in kinds])
        return self._masks[name]

    def kind(self, index: int) -> str:
        """The type of one fact."""
        codes, names = self.kinds
        return str(names[codes[index]])

    def say(self, index: int) -> str:
        """One fact in words: where it is, what it is, and its id."""
        where = f"{position_name(self.topic.name, int(self.partition[index]))}@{self.offset[index]}"
        return f"{where} {self.kind(index)} {self.rows.column('id')[index].as_py()}"

    @cached_property
    def causes(self) -> tuple[Integers, pa.Array]:
        """The code of what caused each fact (its id up to the last #), and the causes by code."""
        marked = pc.ascii_rtrim(self.column("id"), characters="0123456789")
        codes, causes = encode(marked)
        return codes, pc.binary_slice(causes.cast(pa.binary()), 0, -1).cast(pa.string())

    @cached_property
    def sql_table(self) -> pa.Table:
        """The topic's own columns, then ``offset, partition, append, epoch, base, appended_at, kind``."""
        table = pa.Table.from_batches([self.rows]).append_column("offset", self.rows.column("sequence"))
        numbers = ("partition", "append", "epoch", "base", "appended_at")
        for name in numbers:
            table = table.append_column(name, pa.array(getattr(self, name)))
        return table.append_column("kind", pa.repeat(pa.scalar("facts"), len(self)))


class Evidence:
    """Mesh, log and history of one run."""

    def __init__(self, mesh: Mesh, reader: LogReader, history: History) -> None:
        self.mesh, self.reader, self.history = mesh, reader, history
        self.topics = mesh.topics()
        self._partitions: dict[str, list[PartitionLog]] = {}
        self._facts: dict[str, Facts] = {}
        self._made: dict[Any, Any] = {}

    def partitions(self, topic: str) -> list[PartitionLog]:
        """The partitions of ``topic``, by number."""
        if topic not in self._partitions:
            described = self.topics[topic]
            with _no_collection():
                read = [PartitionLog.read(described, number, self.reader) for number in range(described.partitions)]
            self._partitions[topic] = read
        return self._partitions[topic]

    def all_partitions(self) -> list[PartitionLog]:
        """Every partition of every topic, in the order of the mesh."""
        return [log for topic in self.topics for log in self.partitions(topic)]

    def facts(self, topic: str) -> Facts:
        """The facts of ``topic``."""
        if topic not in self._facts:
            self._facts[topic] = Facts(self.topics[topic], self.partitions(topic))
        return self._facts[topic]

    def made(self, key: object, make: Callable[[Evidence], Made]) -> Made:
        """What ``make`` makes of this evidence: made once, then shared by all checks that ask for ``key``."""
        if key not in self._made:
            self._made[key] = make(self)
        return self._made[key]  # type: ignore[no-any-return]

    def encoded(self, column: str, topics: Sequence[str]) -> tuple[dict[str, Integers], pa.Array]:
        """A string column of several topics in one code: codes by topic, and the distinct values by code."""
        coded = {topic: self.facts(topic).coded(column) for topic in topics}
        distinct = pc.unique(pa.chunked_array([values for _, values in coded.values()], pa.string()))
        shared = {}
        for topic, (codes, values) in coded.items():
            places = pc.index_in(values, value_set=distinct).to_numpy(zero_copy_only=False).astype(np.int64)
            shared[topic] = np.append(places, ABSENT)[codes]
        return shared, distinct

    @cached_property
    def sql(self) -> duckdb.DuckDBPyConnection:
        """A connection with ``callers`` and a table of facts per topic; in names ``-`` and ``.`` become ``_``."""
        connection = _database().cursor()
        for topic in self.topics:
            connection.register(table_name(topic), self.facts(topic).sql_table)
        connection.register("callers", self.history.callers)
        return connection

    def close(self) -> None:
        """Let go of the SQL tables."""
        connection = self.__dict__.pop("sql", None)
        if connection is not None:
            connection.close()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Headers by the hundred thousand are read and stay: each full collection meanwhile would visit all, in vain."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def table_name(topic: str) -> str:
    """``order-requests`` as SQL likes it: ``order_requests``."""
    return topic.replace("-", "_").replace(".", "_")


@lru_cache(maxsize=1)
def _database() -> duckdb.DuckDBPyConnection:
    # One engine per process: opening one costs more than auditing a small run, and so does a second thread.
    # Imported late, since services import their application, and with it the checks, but never audit.
    import duckdb

    # Given up before the interpreter ends. Whatever still holds this module then, such as a thread of Ray's that never
    # ends, would hold the engine too, and duckdb's binding (nanobind) complains of each of its objects that is left.
    atexit.register(_database.cache_clear)
    return duckdb.connect(":memory:", config={"threads": 1})


Check = Callable[[Evidence], CheckResult]

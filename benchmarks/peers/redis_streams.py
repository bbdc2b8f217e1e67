"""Redis Streams, with redis-py: the server of Debian's package redis-server on a port of its own.

Persistence as at level ``os``: an append-only file that is written and not synced (``appendfsync no``).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.backbone_loads import SINGLE, TOPICS, Appended, Barrier, Delivered, due, read_clock
from benchmarks.peers.servers import LOOPBACK, free_port, packages_missing, program

NAME = "Redis Streams"
SINGLES_ARE_SENT = "in pipelines of 1,000"
PATIENCE_S, PATIENCE_MS = 120.0, 120_000


def missing() -> str | None:
    """What is not installed, and how it is."""
    if shutil.which("redis-server") is None:
        return "redis-server is not installed (apt-get install redis-server)"
    return packages_missing("redis") and "redis-py is not installed (pip install redis)"


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A server on a free port of this machine, gone at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [
        "redis-server", "--bind", LOOPBACK, "--port", str(port), "--dir", str(folder), "--save", "",
        "--appendonly", "yes", "--appendfsync", "no",
    ]  # fmt: skip
    with program(command, port) as address:
        yield address


def _client(address: str) -> Any:
    import redis

    host, _, port = address.partition(":")
    return redis.Redis(host=host, port=int(port))


def appending_single(
    address: str, topic: str, batches: Sequence[pa.RecordBatch], rows: int, barrier: Barrier
) -> Appended:
    """A message for each row, with a field for each column, in pipelines of 1,000; what is sent is made before."""
    client = _client(address)
    messages = [
        [{name: str(value) for name, value in row.items()} for row in batch.to_pylist()] for batch in batches
    ]  # fmt: skip
    barrier.wait()
    started, done, number = read_clock(), 0, 0
    while done < rows:
        pipeline = client.pipeline(transaction=False)
        for message in messages[number % len(messages)]:
            pipeline.xadd(topic, message)
        pipeline.execute()
        done, number = done + len(messages[number % len(messages)]), number + 1
    ended = read_clock()
    client.close()
    return Appended(done, started, ended)


def appending_blobs(
    address: str, topic: str, batches: Sequence[pa.RecordBatch], rows: int, barrier: Barrier, in_flight: int = 64
) -> Appended:
    """A message for each batch, serialized when it is sent, as many on their way as our producer has."""
    client = _client(address)
    barrier.wait()
    started, done, number = read_clock(), 0, 0
    while done < rows:
        pipeline = client.pipeline(transaction=False)
        for _ in range(in_flight):
            batch = batches[number % len(batches)]
            pipeline.xadd(topic, {"rows": batch.serialize().to_pybytes()})
            done, number = done + batch.num_rows, number + 1
        pipeline.execute()
    ended = read_clock()
    client.close()
    return Appended(done, started, ended)


def sending(address: str, count: int, rate: float, barrier: Barrier) -> list[int]:
    """Send single rows when they are due; when each was made, in nanoseconds."""
    client = _client(address)
    barrier.wait()
    first, sent = read_clock(), []
    for number in range(count):
        sent.append(due(number, rate, first))
        client.xadd(SINGLE, {"number": number, "price": number * 0.25, "sku": f"sku-{number:010d}"})
    client.close()
    return sent


def receiving(address: str, count: int, barrier: Barrier) -> list[int]:
    """When each row arrived and its number was read, in nanoseconds, by number."""
    client, received, last = _client(address), [0] * count, "0"
    barrier.wait()
    while True:
        [(_, messages)] = client.xread({SINGLE: last}, block=PATIENCE_MS)
        last = messages[-1][0]
        for _, fields in messages:
            number = int(fields[b"number"])
            received[number] = read_clock()
            if number == count - 1:
                client.close()
                return received


def delivering_blobs(address: str, topic: str, rows: int, barrier: Barrier) -> Delivered:
    """Read messages of whole batches and sum their numbers."""
    client, last, found, total = _client(address), "0", 0, 0
    barrier.wait()
    started = read_clock()
    while found < rows:
        [(_, messages)] = client.xread({topic: last}, block=PATIENCE_MS, count=16)
        last = messages[-1][0]
        for _, fields in messages:
            batch = pa.ipc.read_record_batch(pa.py_buffer(fields[b"rows"]), TOPICS[topic].schema)
            total += pc.sum(batch.column(0)).as_py()
            found += batch.num_rows
    client.close()
    return Delivered(found, total, started, read_clock())

"""NATS JetStream, with nats-py: the server of Debian's package nats-server on a port of its own.

Persistence as at level ``os``: streams in files, which are written at once and synced every two minutes, its default.
Messages are published with a reply subject of our own, and every acknowledgement that comes there is looked at: twice
as many a second as by ``publish_async``, which makes a future for each. Consumers are ordered and pushed to: pulling
costs a request more per batch, and with ten consumers single events then took many times as long.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.backbone_loads import SINGLE, TOPICS, Appended, Barrier, Delivered, read_clock, sku, wait_s
from benchmarks.peers.servers import LOOPBACK, free_port, packages_missing, program

NAME = "NATS JetStream"
SINGLES_ARE_SENT = "with 2,000 in flight"
SINGLES_IN_FLIGHT, BATCHES_IN_FLIGHT = 2_000, 64
PATIENCE_S = 120.0
#: Where Debian puts the server, which is not on everybody's path.
SYSTEM_PATH = "/usr/sbin:/usr/local/sbin"


def missing() -> str | None:
    """What is not installed, and how it is."""
    if _program() is None:
        return "nats-server is not installed (apt-get install nats-server)"
    return packages_missing("nats") and "nats-py is not installed (pip install nats-py)"


def _program() -> str | None:
    return shutil.which("nats-server") or shutil.which("nats-server", path=SYSTEM_PATH)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A server on a free port of this machine, with a stream for each topic, gone at the end."""
    port = free_port()
    command = [_program() or "nats-server", "-a", LOOPBACK, "-p", str(port), "-js", "-sd", str(folder)]
    with program(command, port) as address:
        asyncio.run(_make_streams(address))
        yield address


async def _make_streams(address: str) -> None:
    from nats.js.api import StorageType, StreamConfig

    async with _connected(address) as client:
        for topic in TOPICS:
            await client.jetstream().add_stream(StreamConfig(topic, subjects=[topic], storage=StorageType.FILE))


@asynccontextmanager
async def _connected(address: str) -> AsyncIterator[Any]:
    import nats

    client = await nats.connect(f"nats://{address}", allow_reconnect=False)
    try:
        yield client
    finally:
        await client.close()


class _Publisher:
    """Publishes messages, with so many unacknowledged at a time."""

    def __init__(self, client: Any, in_flight: int) -> None:
        self._client, self._inbox = client, client.new_inbox()
        self._room, self._in_flight = asyncio.Semaphore(in_flight), in_flight
        self._refused: list[bytes] = []

    async def open(self) -> None:
        """Listen for acknowledgements."""
        await self._client.subscribe(self._inbox, cb=self._acknowledged)

    async def _acknowledged(self, message: Any) -> None:
        # No stream listens to the subject: the answer is empty. It has refused: the answer has an error.
        if not message.data or "seq" not in msgspec.json.decode(message.data):
            self._refused.append(message.data)
        self._room.release()

    async def publish(self, subject: str, payload: bytes) -> None:
        """Send; waits while too many are in flight."""
        await self._room.acquire()
        await self._client.publish(subject, payload, reply=self._inbox)

    async def flush(self) -> None:
        """Wait until all are acknowledged."""
        for _ in range(self._in_flight):
            await asyncio.wait_for(self._room.acquire(), PATIENCE_S)
        assert not self._refused, f"{len(self._refused)} messages were refused: {self._refused[0]!r}"


@asynccontextmanager
async def _publishing(address: str, in_flight: int) -> AsyncIterator[_Publisher]:
    async with _connected(address) as client:
        publisher = _Publisher(client, in_flight)
        await publisher.open()
        yield publisher


async def _all_here(barrier: Barrier) -> None:
    """Wait for the others, beside the event loop: the server forgets a consumer that is silent for seconds."""
    await asyncio.to_thread(barrier.wait)


def appending_single(
    address: str, topic: str, batches: Sequence[pa.RecordBatch], rows: int, barrier: Barrier
) -> Appended:
    """A message of JSON for each row, with 2,000 in flight; what is sent is made before."""
    # Times of day are written as text, as for everybody who reads them as JSON.
    messages = [[msgspec.json.encode(row) for row in batch.to_pylist()] for batch in batches]

    async def append() -> Appended:
        async with _publishing(address, SINGLES_IN_FLIGHT) as publisher:
            await _all_here(barrier)
            started, done, number = read_clock(), 0, 0
            while done < rows:
                for message in messages[number % len(messages)]:
                    await publisher.publish(topic, message)
                done, number = done + len(messages[number % len(messages)]), number + 1
            await publisher.flush()
            return Appended(done, started, read_clock())

    return asyncio.run(append())


def appending_blobs(
    address: str, topic: str, batches: Sequence[pa.RecordBatch], rows: int, barrier: Barrier
) -> Appended:
    """A message for each batch, serialized when it is sent, as many on their way as our producer has."""

    async def append() -> Appended:
        async with _publishing(address, BATCHES_IN_FLIGHT) as publisher:
            await _all_here(barrier)
            started, done, number = read_clock(), 0, 0
            while done < rows:
                batch = batches[number % len(batches)]
                await publisher.publish(topic, batch.serialize().to_pybytes())
                done, number = done + batch.num_rows, number + 1
            await publisher.flush()
            return Appended(done, started, read_clock())

    return asyncio.run(append())


def sending(address: str, count: int, rate: float, barrier: Barrier) -> list[int]:
    """Send single rows when they are due; when each was made, in nanoseconds."""

    async def send() -> list[int]:
        async with _publishing(address, SINGLES_IN_FLIGHT) as publisher:
            await _all_here(barrier)
            first, sent = read_clock(), []
            for number in range(count):
                await asyncio.sleep(wait_s(number, rate, first))
                sent.append(read_clock())
                row = {"number": number, "price": number * 0.25, "sku": sku(number)}
                await publisher.publish(SINGLE, msgspec.json.encode(row))
            await publisher.flush()
            return sent

    return asyncio.run(send())


def receiving(address: str, count: int, barrier: Barrier) -> list[int]:
    """When each row arrived and its number was read, in nanoseconds, by number."""
    received = [0] * count

    def take(payload: bytes) -> bool:
        number = msgspec.json.decode(payload)["number"]
        received[number] = read_clock()
        return bool(number == count - 1)

    asyncio.run(_consume(address, SINGLE, take, barrier))
    return received


def delivering_blobs(address: str, topic: str, rows: int, barrier: Barrier) -> Delivered:
    """Read messages of whole batches and sum their numbers."""
    found, total = 0, 0

    def take(payload: bytes) -> bool:
        nonlocal found, total
        batch = pa.ipc.read_record_batch(pa.py_buffer(payload), TOPICS[topic].schema)
        total += pc.sum(batch.column(0)).as_py()
        found += batch.num_rows
        return bool(found >= rows)

    started = asyncio.run(_consume(address, topic, take, barrier))
    return Delivered(found, total, started, read_clock())


async def _consume(address: str, subject: str, take: Callable[[bytes], bool], barrier: Barrier) -> int:
    """Hand on payloads until ``take`` says that it was the last; the nanosecond at which all were ready."""
    ended = asyncio.Event()
    problems: list[BaseException] = []

    async def arrived(message: Any) -> None:
        if ended.is_set():
            return
        try:
            last = take(message.data)
        except Exception as problem:  # the client would write it to the log and go on
            problems.append(problem)
            last = True
        if last:
            ended.set()

    async with _connected(address) as client:
        await client.jetstream().subscribe(subject, ordered_consumer=True, cb=arrived)
        await _all_here(barrier)
        started = read_clock()
        await asyncio.wait_for(ended.wait(), PATIENCE_S)
    for problem in problems:
        raise problem
    return started

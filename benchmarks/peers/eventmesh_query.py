"""A remote query of our own: the shop's catalog, asked by SKU as any service asks it.

Broker, catalog and asker are processes of their own; catalog and asker are put together as in a mesh on Ray, with a
directory that names their addresses in place of Ray's. What imports Ray is imported in those processes alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.backbone_loads import Answers, Barrier, questions, sku
from benchmarks.peers import eventmesh_log
from benchmarks.peers.servers import in_process, last_word, wait_for_end
from eventmesh import mesh as meshes
from eventmesh.mesh import Mesh
from eventmesh.messages import Columns
from eventmesh.runtime.effects import AskMessage
from eventmesh.runtime.process.reactor import now
from eventmesh.runtime.wire import frames, protocol
from eventmesh.runtime.wire.connection import Connection
from eventmesh.shop.facts import DECLARED

NAME = "eventmesh"
PATIENCE_S = 120.0
#: Prices that are listed at a time: their facts fit max.message.bytes.
LISTED_AT_ONCE = 1_000


def mesh() -> Mesh:
    """The shop's catalog alone."""
    return meshes.parse({
        "schema": "eventmesh.mesh/1", "name": "backbone", "application": "eventmesh.shop", "wiring": "hybrid",
        "topics": {"prices": {"owner": "catalog", "key": "sku"}}, "services": {"catalog": {"source": "seed"}},
    })  # fmt: skip


def _serve(broker: str, told: Any) -> None:
    from benchmarks.peers.eventmesh_members import catalog

    member = catalog(mesh(), broker)
    told.send(member.address())
    wait_for_end(told)
    member.close()
    last_word(told)


@contextmanager
def server(folder: Path, keys: int) -> Iterator[str]:
    """A catalog, beside its broker, that has listed ``keys`` prices."""
    with eventmesh_log.serving(folder, mesh().topics()) as broker, in_process(_serve, broker.address) as served:
        _list_prices(served.address, keys)
        yield served.address


def _list_prices(address: str, keys: int) -> None:
    """Command it to list them, as a run seeds its tables; an answer says that the fact is in the log."""
    left, ended = {sku(number) for number in range(keys)}, threading.Event()

    def replied(header: protocol.FrameHeader, bodies: Sequence[pa.Buffer]) -> None:
        assert isinstance(header, protocol.Replies), header
        for reply in frames.unpack_replies(header, bodies, DECLARED.messages):
            assert reply.error is None, reply.error
            left.difference_update(row["sku"] for row in reply.rows)
        if not left:
            ended.set()

    connection = Connection(address, "listing", replied, lambda error: ended.set())
    try:
        for first in range(0, keys, LISTED_AT_ONCE):
            numbers = range(first, min(first + LISTED_AT_ONCE, keys))
            rows = Columns(lists={"sku": [sku(number) for number in numbers], "list_price": list(numbers)})
            asked = AskMessage(f"list-{first}", "ListPrice", [f"list-{number}" for number in numbers], rows, "listing")
            connection.channel.send(frames.pack_asks([(0, asked)], DECLARED.messages, now()))
        ended.wait(PATIENCE_S)
    finally:
        connection.close()
    if left:
        raise RuntimeError(f"{len(left):,} of {keys:,} prices were not listed")


def asking(address: str, keys: int, count: int, at_once: int, barrier: Barrier) -> Answers:
    """One after the other from each of ``at_once`` conversations."""
    from benchmarks.peers.eventmesh_members import Asker

    asker = Asker(mesh(), address, questions(keys, count))
    barrier.wait()
    try:
        return asker.ask_all(at_once, PATIENCE_S)
    finally:
        asker.close()

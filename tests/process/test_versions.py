"""Given a log whose topics have grown, then a reader sees one table whichever way batches come, and a mesh goes on."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from eventmesh.errors import PeerLost, SchemaMismatch
from eventmesh.log.batch import LogBatch
from eventmesh.log.storage import FileStorage, machine_id
from eventmesh.log.store import Durability, Log, open_read_only
from eventmesh.log.topic import Topic
from eventmesh.mesh import Mesh
from eventmesh.runtime.process.broker_member import BrokerMember
from eventmesh.runtime.process.producer import Producer
from eventmesh.runtime.process.reactor import now
from eventmesh.runtime.process.subscription import Subscription
from eventmesh.runtime.wire.connection import flight_location
from tests.process.test_subscription import ORDERS_0, SOON_S, Reader
from tests.process.whole_mesh import WholeMesh
from tests.simulation.version_story import after, before, notes
from tests.tiny import workload
from tests.tiny.test_library import library
from tests.tiny.workload import LoanOptions
from tests.unit.test_log_versions import FIRST, LONG, SECOND, owner

GROWN = replace(SECOND, earlier=(FIRST.schema,))


def written(folder: Path, topic: Topic, name: str, **columns: object) -> None:
    """A life of the log with these columns, in which one fact is written."""
    log = Log.open(
        FileStorage(folder), {"orders": topic}, durability=Durability.os, cluster_id="test", node=machine_id(),
        clock=now,
    )  # fmt: skip
    owner(log, f"life of {name}").say(name, **columns)
    log.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerMember]:
    """On a log with a fact of each version, open with the second."""
    written(tmp_path / "log", FIRST, "old", copies=1)
    written(tmp_path / "log", SECOND, "new", copies=LONG, note="n")
    with closing(BrokerMember({"orders": GROWN}, tmp_path / "log", "os", "test")) as running:
        yield running


@pytest.mark.parametrize("local", [True, False], ids=["on the node", "over Flight"])
def test_a_subscriber_reads_both_versions_with_the_newest_columns(broker: BrokerMember, local: bool) -> None:
    reader = Reader()
    with closing(
        Subscription(broker.address(), {"orders": GROWN}, reader.deliver, str, failed=reader.failures.put, local=local)
    ) as subscription:
        subscription.subscribe(ORDERS_0, 0)
        reader.until(lambda: len(reader.batches) == 4)
        assert subscription.is_local == local
    told = [row for entry in reader.batches if entry.header.kind == "facts" for row in rows(entry)]
    assert told == [("old", 1, None, "orders/1"), ("new", LONG, "n", "orders/2")]
    assert {entry.batch.schema for entry in reader.batches} == {SECOND.schema}


def rows(entry: LogBatch) -> list[tuple[object, ...]]:
    return list(entry.columns.rows("id", "copies", "note", "dataschema"))


def test_a_subscriber_that_knows_fewer_versions_says_so(broker: BrokerMember) -> None:
    reader, over = Reader(), queue.Queue[PeerLost]()
    with closing(
        Subscription(broker.address(), {"orders": FIRST}, reader.deliver, over.put, failed=str, local=False)
    ) as subscription:
        subscription.subscribe(ORDERS_0, 2)
        why = over.get(timeout=SOON_S)
    assert "a batch of orders with version 2 of its columns: known here are 1 to 1" in str(why)
    assert reader.batches == []


def test_any_flight_client_reads_one_table(broker: BrokerMember) -> None:
    with flight.connect(flight_location(broker.address())) as client:
        [found] = client.list_flights()
        assert found.schema == SECOND.schema
        table = client.do_get(found.endpoints[0].ticket).read_all()
    assert table.schema == SECOND.schema
    facts = [row for row in table.to_pylist() if not row["type"].startswith("eventmesh.")]
    assert [(row["id"], row["copies"], row["note"]) for row in facts] == [("old", 1, None), ("new", LONG, "n")]


def test_a_producer_with_the_columns_of_before_is_refused(broker: BrokerMember) -> None:
    with closing(Producer.at(broker.address(), FIRST, "a zombie")) as producer:
        rows = pa.RecordBatch.from_pylist([{"id": "late"}], FIRST.schema)
        with pytest.raises(SchemaMismatch, match="the rows have version 1 of the columns, the topic has version 2"):
            producer.append(rows).result(SOON_S)


@pytest.mark.parametrize("local", [True, False], ids=["on the node", "over Flight"])
def test_a_mesh_goes_on_with_what_it_did_before_it_grew(tmp_path: Path, local: bool) -> None:
    mesh = library("asking" if local else "events")
    with notes():
        first = lent(before(mesh), tmp_path, 1, local=local)
        second = lent(after(mesh), tmp_path, 2, local=local, earlier=first)
    assert second.num_rows == 2 * first.num_rows


def granted_code(folder: Path) -> set[str]:
    """What the grants in the log say of the application that was granted them."""
    with closing(open_read_only(folder / "log")) as reader:
        places = [(name, number) for name, topic in reader.topics.items() for number in range(topic.partitions)]
        headers = [entry.header for place in places for entry in reader.batches(*place)]
    return {str(header.control.get("code")) for header in headers if header.kind == "granted"}


def lent(mesh: Mesh, folder: Path, number: int, *, local: bool, earlier: pa.Table | None = None) -> pa.Table:
    """A life of the mesh with a load of its own, judged over all lives so far; what callers were told in them."""
    loans = workload(LoanOptions(loans=20, number=number))
    with closing(WholeMesh(mesh, folder, local=local)) as whole:
        for place, stage in enumerate(loans.seeding):
            whole.call(f"seeding {number}, {place}", stage)
        callers = whole.call(f"load {number}", loans.load)
        callers = callers if earlier is None else pa.concat_tables([earlier, callers])
        audit = whole.audit(callers)
        assert audit.verdict == "valid", audit.describe()
        assert {topic.version for topic in whole.mesh.topics().values()} == {number}
        assert granted_code(folder) == {mesh.code}
    return callers

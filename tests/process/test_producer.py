"""Given a broker, then a producer's appends are kept in order, and what it is told of the others is true."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from eventmesh.errors import AppendRefused, Fenced, NotOwner, PeerLost, RecordTooLarge, Unauthenticated
from eventmesh.log.store import read_table
from eventmesh.log.topic import Topic, TopicSettings
from eventmesh.messages import encode_rows
from eventmesh.runtime.process.broker_member import BrokerMember
from eventmesh.runtime.process.producer import Producer
from eventmesh.runtime.wire.channel import Access
from tests.unit.log_story import ORDERS, rows_at

SCHEMA = pa.schema([("number", pa.int64()), ("price", pa.float64()), ("sku", pa.string())])
LINES = Topic("lines", "sales", "sku", 1, SCHEMA, TopicSettings(max_message_bytes=4_096))
TOPICS = {"lines": LINES, "orders": ORDERS}
SOON_S = 10.0


def rows(*numbers: int) -> pa.RecordBatch:
    columns = [pa.array(numbers, pa.int64()), pa.array([1.5] * len(numbers)), pa.array(["sku-1"] * len(numbers))]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerMember]:
    running = BrokerMember(TOPICS, tmp_path / "log", "os", "test")
    yield running
    running.close()


@pytest.fixture(params=[True, False], ids=["unix", "flight"])
def producer(broker: BrokerMember, request: pytest.FixtureRequest) -> Iterator[Producer]:
    made = Producer.at(broker.address(), LINES, "first", local=request.param)
    yield made
    made.close()


def kept(broker: BrokerMember, tmp_path: Path) -> list[int]:
    table = read_table(tmp_path / "log", "lines", 0)
    return [number for number in table["number"].to_pylist() if number is not None]


def test_what_is_acknowledged_is_kept_in_order(broker: BrokerMember, producer: Producer, tmp_path: Path) -> None:
    answers = [producer.append(rows(number, number + 1)) for number in range(0, 1_000, 2)]
    producer.flush(SOON_S)
    assert [answer.result(SOON_S) for answer in answers] == [3 + 2 * place for place in range(500)]
    assert kept(broker, tmp_path) == list(range(1_000))


def test_the_offsets_of_an_envelope_are_filled_in(broker: BrokerMember) -> None:
    orders = Producer.at(broker.address(), ORDERS, "first")
    batch = encode_rows(ORDERS.schema, rows_at(77, ["a", "b"]))
    assert orders.append(batch).result(SOON_S) == 3
    assert orders.append(batch).result(SOON_S) == 5
    orders.close()


def test_a_refused_append_takes_along_all_behind_it(broker: BrokerMember, producer: Producer, tmp_path: Path) -> None:
    producer.append(rows(1)).result(SOON_S)
    with broker.lock:  # all are on their way before the first is answered
        answers = [producer.append(batch) for batch in (rows(*range(2_000)), rows(2), rows(3))]
    with pytest.raises(RecordTooLarge, match="Split the batch"):
        answers[0].result(SOON_S)
    for answer in answers[1:]:
        with pytest.raises(AppendRefused) as told:
            answer.result(SOON_S)
        assert told.value.definite
    with pytest.raises(AppendRefused):
        producer.append(rows(4)).result(SOON_S)
    with pytest.raises(AppendRefused):
        producer.flush(SOON_S)
    assert kept(broker, tmp_path) == [1]


def test_a_later_incarnation_fences_this_one(broker: BrokerMember, producer: Producer, tmp_path: Path) -> None:
    producer.append(rows(1)).result(SOON_S)
    second = Producer.at(broker.address(), LINES, "second")
    assert second.append(rows(2)).result(SOON_S) == second.end
    with pytest.raises(Fenced):
        producer.append(rows(3)).result(SOON_S)
    second.close()
    assert kept(broker, tmp_path) == [1, 2]


def test_a_topic_of_somebody_else_is_not_granted(broker: BrokerMember) -> None:
    foreign = Topic("lines", "payments", "sku", 1, SCHEMA)
    with pytest.raises(NotOwner):
        Producer.at(broker.address(), foreign, "first")


def test_when_the_broker_goes_what_is_in_flight_may_have_happened(broker: BrokerMember, producer: Producer) -> None:
    with broker.lock:
        answer = producer.append(rows(1))
        # It cannot be answered while the lock is held, and the stream ends meanwhile.
        ending = threading.Thread(target=broker.listener.end)
        ending.start()
        with pytest.raises(PeerLost) as told:
            answer.result(SOON_S)
    ending.join()
    assert not told.value.definite
    with pytest.raises(PeerLost):
        producer.append(rows(2)).result(SOON_S)


def test_appends_in_flight_are_bounded(broker: BrokerMember) -> None:
    producer = Producer.at(broker.address(), LINES, "first", in_flight_max=2)
    third = threading.Event()

    def append_three() -> None:
        for number in range(3):
            producer.append(rows(number))
        third.set()

    with broker.lock:
        appending = threading.Thread(target=append_three)
        appending.start()
        assert not third.wait(0.3)
        assert len(producer._waiting) == 2
    assert third.wait(SOON_S)
    appending.join()
    producer.flush(SOON_S)
    producer.close()


def test_without_the_token_there_is_no_producer(tmp_path: Path) -> None:
    guarded = BrokerMember(TOPICS, tmp_path / "log", "os", "test", access=Access(token="a secret of this mesh"))
    with pytest.raises(Unauthenticated):
        Producer.at(guarded.address(), LINES, "first")
    guarded.close()

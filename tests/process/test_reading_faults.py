"""Given a service that reads a broker's log, when a fault strikes their link, then what is read from the files is held
up like what is sent.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from eventmesh.errors import PeerLost
from eventmesh.messages import encode_rows
from eventmesh.runtime.faults import Bandwidth, Cut, Fault, Latency, Stall, Struck
from eventmesh.runtime.process.backbone import BrokerBackbone, Callbacks
from eventmesh.runtime.process.broker_member import BrokerMember
from eventmesh.runtime.process.producer import Producer
from eventmesh.runtime.process.strikes import Strikes
from eventmesh.runtime.process.subscription import Entry
from eventmesh.runtime.wire.faulty import LinkFaults
from tests.unit.log_story import ORDERS, rows_at

SOON_S = 10.0
LONG_S = 600.0
LINK = {"source": "broker", "target": "desk"}
STOCK = replace(ORDERS, name="stock")


class Service:
    """Reads two topics as a service does: again from where it stands, when its connection was lost."""

    def __init__(self, broker: BrokerMember, *, local: bool) -> None:
        self.heard: queue.Queue[str] = queue.Queue()
        self.ups: queue.Queue[str] = queue.Queue()
        self.link_faults = LinkFaults("desk/0")
        self.strikes = Strikes(lambda: None, link_faults=self.link_faults)
        self._at = {"orders": 0, "stock": 0}
        self.backbone = BrokerBackbone(
            broker.address, Callbacks(up=self._up, delivered=self._delivered),
            topics=dict.fromkeys(self._at, ORDERS), local=local, link_faults=self.link_faults,
        )  # fmt: skip
        self.backbone.start()
        self.ups.get(timeout=SOON_S)

    def _up(self) -> None:
        for topic, offset in self._at.items():
            self.backbone.subscribe(topic, 0, offset)
        self.ups.put("up")

    def _delivered(self, entries: Sequence[Entry], sent_at: int) -> None:
        for topic, _, entry in entries:
            if entry.header.base < self._at[topic]:
                continue
            assert entry.header.base == self._at[topic], "a batch is missing"
            self._at[topic] = entry.header.end
            if entry.header.kind == "facts":
                for name in entry.columns["id"]:
                    self.heard.put(f"{topic} {name}")

    def next(self) -> str:
        return self.heard.get(timeout=SOON_S)


class Reading:
    """A broker, a service that reads, and a producer for each topic, which no fault hits."""

    def __init__(self, folder: Path, *, local: bool) -> None:
        self.broker = BrokerMember({"orders": ORDERS, "stock": STOCK}, folder / "log", "os", "test")
        self.service = Service(self.broker, local=local)
        self.producers = {
            topic.name: Producer.at(self.broker.address(), topic, f"{topic.name} first") for topic in (ORDERS, STOCK)
        }
        self.append("orders", "first")
        assert self.service.next() == "orders first"

    def strike(self, fault: Fault) -> Struck:
        self.broker.strike(fault, fault.model_dump_json())
        return self.service.strikes.strike(fault, fault.model_dump_json())

    def heal(self) -> None:
        self.broker.heal()
        self.service.strikes.heal()

    def append(self, topic: str, name: str) -> None:
        self.producers[topic].append(encode_rows(ORDERS.schema, rows_at(0, [name]))).result(SOON_S)

    def close(self) -> None:
        self.heal()
        self.service.backbone.close()
        for each in self.producers.values():
            each.close()
        self.broker.close()


@pytest.fixture(params=[True, False], ids=["reads the files", "is sent batches"])
def reading(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reading]:
    made = Reading(tmp_path, local=request.param)
    yield made
    made.close()


def test_what_is_read_is_late_by_the_latency(reading: Reading) -> None:
    reading.strike(Latency(**LINK, latency_ms=200, lasts_s=LONG_S))
    begun = time.monotonic()
    reading.append("orders", "late")
    assert reading.service.next() == "orders late"
    assert time.monotonic() - begun >= 0.2


def test_nothing_is_read_while_stalled_and_then_all_of_it_in_order(reading: Reading) -> None:
    reading.strike(Stall(**LINK, lasts_s=LONG_S))
    wanted = [f"n{number}" for number in range(30)]
    for name in wanted:
        reading.append("orders", name)
    with pytest.raises(queue.Empty):
        reading.service.heard.get(timeout=0.2)
    reading.heal()
    assert [reading.service.next() for _ in wanted] == [f"orders {name}" for name in wanted]


def test_reading_keeps_to_the_rate(reading: Reading) -> None:
    reading.strike(Bandwidth(**LINK, rate_kb_per_s=20, lasts_s=LONG_S))
    begun = time.monotonic()
    for number in range(10):
        reading.append("orders", f"n{number}")
    for _ in range(10):
        reading.service.next()
    assert time.monotonic() - begun >= 10 * 300 / 20_000, "a batch of one row takes more than 300 bytes"


def test_only_the_named_topic_falls_behind(reading: Reading) -> None:
    struck = reading.strike(Latency(**LINK, latency_ms=LONG_S * 1_000, topics=("stock",), lasts_s=LONG_S))
    reading.append("stock", "late")
    for number in range(20):
        reading.append("orders", f"n{number}")
        assert reading.service.next() == f"orders n{number}"
    assert struck.shows["messages delayed"] >= 1
    reading.heal()
    assert reading.service.next() == "stock late"
    reading.append("stock", "soon")
    assert reading.service.next() == "stock soon"


def test_what_was_appended_while_the_link_was_cut_is_read_when_it_is_made_again(reading: Reading) -> None:
    struck = reading.strike(Cut(**LINK, lasts_s=LONG_S))
    reading.append("orders", "meanwhile")
    with pytest.raises(PeerLost, match="a fault has cut the link"):
        reading.service.backbone.ends()
    with pytest.raises(queue.Empty):
        reading.service.heard.get(timeout=0.2)
    reading.heal()
    assert reading.service.ups.get(timeout=SOON_S)
    assert reading.service.next() == "orders meanwhile"
    assert struck.shows["connections broken"] == 1

"""Given a broker on real files, when a fault strikes its disk, then what the disk does is seen, and is over by itself
or when healed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eventmesh.errors import ConfigurationError, CorruptSegment, MayHaveHappened, PeerLost, StorageFull
from eventmesh.log.faulty_storage import FaultyStorage
from eventmesh.log.store import read_table
from eventmesh.messages import encode_rows
from eventmesh.runtime import broker as rules
from eventmesh.runtime.faults import FailingSyncs, Fault, FlippedBit, FullDisk, LostUnsynced, SlowDisk, TornWrite
from eventmesh.runtime.process.broker_member import BrokerMember
from eventmesh.runtime.process.producer import Producer
from tests.unit.log_story import ORDERS, SMALL, rows_at

SOON_S = 10.0
LONG_S = 600.0
ROOT = Path(__file__).resolve().parents[2]


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BrokerMember]:
    monkeypatch.setattr(rules, "REOPEN_US", 20_000)
    running = BrokerMember({ORDERS.name: ORDERS}, tmp_path / "log", "fsync", "test")
    yield running
    running.heal()
    running.close()


def writer(broker: BrokerMember, incarnation: str = "first") -> Producer:
    return Producer.at(broker.address(), ORDERS, incarnation)


def append(producer: Producer, name: str) -> int:
    return producer.append(encode_rows(ORDERS.schema, rows_at(0, [name]))).result(SOON_S)


def kept(folder: Path) -> list[str]:
    return [name for name in read_table(folder, "orders", 0)["order_id"].to_pylist() if name]


def test_syncs_of_a_slow_disk_take_longer_by_at_least_that_much(broker: BrokerMember) -> None:
    producer = writer(broker)
    struck = broker.strike(SlowDisk(extra_ms=150, lasts_s=LONG_S))
    begun = time.monotonic()
    append(producer, "late")
    assert time.monotonic() - begun >= 0.15
    assert struck.shows["syncs slowed"] >= 1
    producer.close()


def test_a_sync_that_a_slow_disk_holds_up_goes_on_when_it_is_healed(broker: BrokerMember) -> None:
    producer = writer(broker)
    struck = broker.strike(SlowDisk(extra_ms=LONG_S * 1_000, lasts_s=LONG_S))
    answer = producer.append(encode_rows(ORDERS.schema, rows_at(0, ["held"])))
    until(lambda: struck.shows["syncs slowed"] > 0)
    assert not answer.done()
    broker.heal()
    broker.heal()
    assert answer.result(SOON_S)
    assert struck.ended_us is not None
    producer.close()


def test_a_slow_disk_is_as_fast_as_ever_when_its_time_is_over(broker: BrokerMember) -> None:
    producer = writer(broker)
    struck = broker.strike(SlowDisk(extra_ms=LONG_S * 1_000, lasts_s=0.2))
    append(producer, "held until then")
    assert struck.ended_us is not None
    producer.close()


def test_a_full_disk_refuses_what_is_appended_and_keeps_the_rest(broker: BrokerMember, tmp_path: Path) -> None:
    producer = writer(broker)
    append(producer, "before")
    struck = broker.strike(FullDisk(lasts_s=LONG_S))
    with pytest.raises(StorageFull, match="a fault leaves no room"):
        append(producer, "refused")
    assert struck.shows["writes refused"] >= 1
    producer.close()
    broker.heal()
    second = writer(broker, "second")
    append(second, "after")
    second.close()
    assert kept(tmp_path / "log") == ["before", "after"]


def test_syncs_fail_until_it_is_over_and_then_the_log_is_open_again(broker: BrokerMember) -> None:
    producer = writer(broker)
    struck = broker.strike(FailingSyncs(lasts_s=0.5))
    with pytest.raises(MayHaveHappened, match="a fault fails each sync"):
        append(producer, "unsure")
    producer.close()
    until(lambda: struck.ended_us is not None)
    until(lambda: broker.status()["stopped"] is None)
    assert struck.shows["syncs failed"] >= 1
    second = writer(broker, "second")
    append(second, "after")
    second.close()


def test_two_faults_of_a_kind_add_up_and_end_one_by_one(broker: BrokerMember) -> None:
    short, long = (broker.strike(FullDisk(lasts_s=lasts_s)) for lasts_s in (0.1, LONG_S))
    until(lambda: short.ended_us is not None)
    assert isinstance(broker.storage, FaultyStorage)
    assert broker.storage.full
    assert long.ended_us is None
    broker.heal()
    assert not broker.storage.full


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A broker in a process of its own, which may die."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.process.struck_broker", str(tmp_path / "log")],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process
    process.kill()
    process.communicate()


def said(process: subprocess.Popen[str], what: str) -> str:
    """The rest of the next line that begins so; lines of its log stand between."""
    assert process.stdout is not None
    while not (line := process.stdout.readline()).startswith(what):
        assert line, "it has ended"
    return line.removeprefix(what).strip()


def test_a_process_dies_in_the_middle_of_a_write_and_what_was_acknowledged_is_kept(
    apart: subprocess.Popen[str], tmp_path: Path
) -> None:
    producer = Producer.at(said(apart, "served at "), ORDERS, "first")
    append(producer, "before")
    assert apart.stdin is not None
    apart.stdin.write(TornWrite(after_bytes=100).model_dump_json() + "\n")
    apart.stdin.flush()
    said(apart, "struck")
    size = _size(tmp_path / "log")
    with pytest.raises(PeerLost):
        append(producer, "torn")
    assert apart.wait(SOON_S) == -signal.SIGKILL
    assert _size(tmp_path / "log") - size == 100, "the file ends in half a batch"
    producer.close()
    BrokerMember({ORDERS.name: ORDERS}, tmp_path / "log", "os", "test").close()
    assert kept(tmp_path / "log") == ["before"]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "orders").rglob("*.*"))


def test_a_process_that_was_to_die_writing_lives_on_when_it_is_healed_before(broker: BrokerMember) -> None:
    producer = writer(broker)
    struck = broker.strike(TornWrite(after_bytes=10))
    assert struck.ended_us is None
    broker.heal()
    append(producer, "whole")
    assert not struck.happened
    producer.close()


@pytest.mark.parametrize("segment", ["active", "closed"])
def test_a_bit_of_a_segment_rots_and_who_reads_it_is_told_where(tmp_path: Path, segment: str) -> None:
    broker = BrokerMember({SMALL.name: SMALL}, tmp_path / "log", "os", "test")
    producer = Producer.at(broker.address(), SMALL, "first")
    for number in range(40):
        append(producer, f"order-{number}")
    producer.close()
    fault = FlippedBit.model_validate({"partition": "orders/0", "segment": segment})
    struck = broker.strike(fault)
    broker.close()
    assert struck.shows["bits flipped"] == 1
    assert struck.ended_us is not None
    with pytest.raises(CorruptSegment) as found:
        kept(tmp_path / "log")
    assert found.value.file == struck.details["file"]


def test_where_there_is_no_such_segment_no_bit_is_flipped(broker: BrokerMember) -> None:
    struck = broker.strike(FlippedBit(partition="orders/0", segment="closed"))
    assert not struck.happened


@pytest.mark.parametrize("fault", [FullDisk(lasts_s=1), SlowDisk(extra_ms=1, lasts_s=1)])
def test_memory_is_no_disk(tmp_path: Path, fault: Fault) -> None:
    broker = BrokerMember({ORDERS.name: ORDERS}, tmp_path / "log", "memory", "test")
    with pytest.raises(ConfigurationError, match="not a fault that this process can do to itself"):
        broker.strike(fault)
    broker.close()


def test_real_files_do_not_lose_what_was_not_synced(broker: BrokerMember) -> None:
    with pytest.raises(ConfigurationError, match="lost-unsynced"):
        broker.strike(LostUnsynced())

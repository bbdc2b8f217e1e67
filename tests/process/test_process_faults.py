"""Given a process, when a fault jumps its clock or ends it, then that happens, and is over by itself or when healed."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eventmesh.errors import ConfigurationError, LogStopped, PeerLost
from eventmesh.runtime.faults import ClockJump, End, Freeze
from eventmesh.runtime.process.broker_member import BrokerMember
from eventmesh.runtime.process.producer import Producer
from eventmesh.runtime.process.reactor import CLOCK, Reactor, now
from eventmesh.runtime.process.strikes import ENDED, Strikes
from tests.unit.log_story import ORDERS

SOON_S = 10.0
LONG_S = 600.0
HOUR_US = 3_600_000_000


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ahead_us() -> int:
    return now() - time.time_ns() // 1_000


@pytest.fixture
def strikes() -> Iterator[Strikes]:
    made = Strikes(close=lambda: None)
    yield made
    made.heal()
    assert CLOCK.ahead_us == 0


@pytest.mark.parametrize("by_ms", [3_600_000, -3_600_000])
def test_a_clock_jumps_and_is_put_right_by_itself(strikes: Strikes, by_ms: int) -> None:
    struck = strikes.strike(ClockJump(process="orders/0", by_ms=by_ms, lasts_s=0.2))
    assert abs(ahead_us() - by_ms * 1_000) < HOUR_US / 60
    assert struck.ended_us is None
    until(lambda: struck.ended_us is not None)
    assert abs(ahead_us()) < HOUR_US / 60
    assert struck.happened
    assert struck.ended_us is not None
    assert struck.ended_us - struck.at_us < SOON_S * 1e6, "its own times are of a clock that does not jump"


def test_two_jumps_add_up_and_healing_ends_both_at_once(strikes: Strikes) -> None:
    for by_ms in (3_600_000, 7_200_000):
        strikes.strike(ClockJump(process="orders/0", by_ms=by_ms, lasts_s=LONG_S))
    assert ahead_us() > 2.9 * HOUR_US
    strikes.heal()
    assert abs(ahead_us()) < HOUR_US / 60
    strikes.heal()
    assert abs(ahead_us()) < HOUR_US / 60


def test_what_is_told_twice_is_done_once(strikes: Strikes) -> None:
    jump = ClockJump(process="orders/0", by_ms=3_600_000, lasts_s=LONG_S)
    assert strikes.strike(jump, "the one") is strikes.strike(jump, "the one")
    assert ahead_us() < 1.1 * HOUR_US
    assert strikes.came_of("another") is None


def test_who_asks_a_reactor_that_has_stopped_is_told_at_once() -> None:
    reactor = Reactor("orders/0", 0, lambda effects: None, lambda: None)
    reactor.stop()
    with pytest.raises(PeerLost, match="orders/0 has ended"):
        reactor.call(lambda: 1)


def test_a_process_that_is_to_end_closes_and_is_gone_when_the_time_is_over(tmp_path: Path) -> None:
    broker = BrokerMember({ORDERS.name: ORDERS}, tmp_path / "log", "os", "test")
    left: queue.Queue[int] = queue.Queue()
    broker.strikes = Strikes(broker.close, left.put)
    struck = broker.strike(End(process="broker", lasts_s=0.2))
    assert struck.happened
    with pytest.raises(PeerLost):
        Producer.at(broker.address(), ORDERS, "first")
    with pytest.raises(LogStopped, match="closing"):
        broker.read("orders", 0, 0)
    assert broker.status() == {"ends": {}, "stopped": "the broker is closing"}
    assert left.get(timeout=SOON_S) == ENDED


def test_a_process_that_was_to_stay_ended_is_started_again_as_soon_as_it_is_healed(tmp_path: Path) -> None:
    broker = BrokerMember({ORDERS.name: ORDERS}, tmp_path / "log", "os", "test")
    left: queue.Queue[int] = queue.Queue()
    broker.strikes = Strikes(broker.close, left.put)
    broker.strike(End(process="broker", lasts_s=LONG_S))
    assert left.empty()
    broker.heal()
    broker.heal()
    assert left.get(timeout=SOON_S) == ENDED
    assert left.empty(), "it ends once"


def test_what_needs_a_signal_is_not_done_by_the_process_itself(strikes: Strikes) -> None:
    with pytest.raises(ConfigurationError, match="freeze is not a fault that this process can do to itself"):
        strikes.strike(Freeze(process="orders/0", lasts_s=1))

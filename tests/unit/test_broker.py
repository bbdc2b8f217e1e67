"""Given what comes in at a broker, then it leaves exactly these effects, in this order; no thread and no socket."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from eventmesh.errors import CorruptSegment, Fenced, LogStopped, MayHaveHappened, NotFound, OffsetMismatch
from eventmesh.log.simulated_storage import SimulatedStorage
from eventmesh.log.store import Durability, Log
from eventmesh.runtime.broker import (
    ACKNOWLEDGEMENTS,
    REOPEN_US,
    Answer,
    Broker,
    BrokerEffect,
    CannotRead,
    Reopened,
    Stopped,
    Wake,
    WantSync,
)
from eventmesh.runtime.effects import Appended, AppendFailed, Granted, GrantFailed
from tests.unit.log_story import NOON, SMALL, facts

MINE, OTHER, READER = ("orders/0", 1), ("orders/0", 2), ("stock/0", 1)


class Story:
    """A broker on a simulated disk, and what it has left to be done since it was last looked at."""

    def __init__(self, level: str) -> None:
        self.disk, self.now, self.left = SimulatedStorage(random.Random(1)), NOON, list[BrokerEffect]()
        self.level = Durability(level)
        self.broker = Broker(self.open, ACKNOWLEDGEMENTS[self.level], clock=lambda: self.now, emit=self.left.append)

    def open(self) -> Log:
        return Log.open(
            self.disk, {SMALL.name: SMALL}, durability=self.level, cluster_id="c", node="n", clock=lambda: self.now
        )

    def effects(self) -> list[BrokerEffect]:
        left, self.left[:] = list(self.left), []
        return left

    def granted(self, to: Any = MINE) -> tuple[int, int]:
        self.broker.grant(to, "orders", 0, "orders", f"{to}")
        answer = next(each.answer for each in self.effects() if isinstance(each, Answer))
        assert isinstance(answer, Granted)
        return answer.epoch, answer.end

    def append(self, epoch: int, base: int, number: int, *names: str, to: Any = MINE) -> None:
        self.broker.append(to, "orders", 0, facts(base, list(names), epoch=epoch, append=number, incarnation=f"{to}"))

    def sync(self) -> None:
        sync = self.broker.begin_sync()
        self.broker.log.flush(sync.ends)
        self.broker.synced(sync)


@pytest.fixture
def synced() -> Story:
    return Story("fsync")


def test_once_written_an_append_is_shown_and_then_acknowledged() -> None:
    story = Story("os")
    epoch, end = story.granted()
    story.broker.subscribe(READER, "orders/0", 0)
    story.effects()
    story.append(epoch, end, 0, "a", "b")
    assert story.effects() == [Wake(READER), Answer(MINE, Appended(0, epoch, end + 2))]


def test_at_fsync_an_append_waits_for_the_sync_that_covers_it(synced: Story) -> None:
    epoch, end = synced.granted()
    synced.broker.subscribe(READER, "orders/0", end)
    synced.effects()
    synced.append(epoch, end, 0, "a")
    assert synced.effects() == [WantSync()], "and nobody is told of it"
    sync = synced.broker.begin_sync()
    synced.broker.log.flush(sync.ends)
    synced.append(epoch, end + 1, 1, "b")
    assert synced.effects() == [], "a sync is under way already"
    synced.broker.synced(sync)
    assert synced.effects() == [Wake(READER), Answer(MINE, Appended(0, epoch, end + 1)), WantSync()]
    assert synced.broker.ends() == {"orders/0": end + 1}, "what came meanwhile is not covered"
    synced.sync()
    assert synced.effects() == [Wake(READER), Answer(MINE, Appended(0, epoch, end + 2))]


def test_a_refusal_does_not_overtake_the_acknowledgements_before_it(synced: Story) -> None:
    epoch, end = synced.granted()
    synced.append(epoch, end, 0, "a")
    synced.append(epoch, end + 7, 1, "elsewhere")
    assert synced.effects() == [WantSync()]
    synced.sync()
    first, second = (each.answer for each in synced.effects() if isinstance(each, Answer))
    assert first == Appended(0, epoch, end + 1)
    assert isinstance(second, AppendFailed)
    assert isinstance(second.error, OffsetMismatch)


def test_a_refusal_with_nothing_before_it_is_told_at_once(synced: Story) -> None:
    synced.broker.append(MINE, "orders", 99, facts(0, ["a"]))
    [effect] = synced.effects()
    assert isinstance(effect, Answer)
    assert isinstance(effect.answer, AppendFailed)
    assert isinstance(effect.answer.error, NotFound)


def test_a_grant_is_synced_and_with_it_what_lay_before_it(synced: Story) -> None:
    epoch, end = synced.granted()
    synced.append(epoch, end, 0, "a")
    synced.effects()
    synced.broker.grant(OTHER, "orders", 0, "orders", f"{OTHER}")
    assert synced.effects() == [
        Answer(MINE, Appended(0, epoch, end + 1)), Answer(OTHER, Granted(0, epoch + 1, end + 2)),
    ]  # fmt: skip
    synced.append(epoch, end + 1, 1, "b")
    [told] = synced.effects()
    assert isinstance(told, Answer)
    assert isinstance(told.answer, AppendFailed)
    assert isinstance(told.answer.error, Fenced)


def test_a_failed_sync_leaves_nobody_with_a_wrong_answer_and_the_log_is_opened_again(synced: Story) -> None:
    epoch, end = synced.granted()
    synced.append(epoch, end, 0, "a")
    synced.append(epoch, end + 7, 1, "elsewhere")
    synced.effects()
    synced.disk.fail_sync = True
    sync = synced.broker.begin_sync()
    with pytest.raises(LogStopped) as failed:
        synced.broker.log.flush(sync.ends)
    synced.broker.sync_failed(failed.value)
    unsure, refused, stopped = synced.effects()
    assert isinstance(unsure, Answer)
    assert isinstance(unsure.answer, AppendFailed)
    assert isinstance(unsure.answer.error, MayHaveHappened), "it may be on the disk"
    assert isinstance(refused, Answer)
    assert isinstance(refused.answer, AppendFailed)
    assert isinstance(refused.answer.error, OffsetMismatch), "this one did not happen, whatever the disk does"
    assert isinstance(stopped, Stopped)

    synced.broker.grant(OTHER, "orders", 0, "orders", f"{OTHER}")
    [denied] = synced.effects()
    assert isinstance(denied, Answer)
    assert isinstance(denied.answer, GrantFailed)
    assert isinstance(denied.answer.error, LogStopped), "a definite no, and not for good"

    due = synced.broker.next_deadline()
    assert due == synced.now + REOPEN_US
    synced.broker.tick(due - 1)
    synced.broker.tick(due)
    assert synced.effects() == [], "the disk fails still"
    assert synced.broker.failure is not None
    synced.disk.fail_sync = False
    again = synced.broker.next_deadline()
    assert again == due + REOPEN_US
    synced.broker.tick(again)
    assert synced.effects() == [Reopened()]
    assert synced.broker.failure is None
    assert synced.broker.next_deadline() is None
    assert synced.granted(OTHER)[0] == epoch + 1


def test_a_sync_of_a_log_that_stopped_meanwhile_says_nothing(synced: Story) -> None:
    epoch, end = synced.granted()
    synced.append(epoch, end, 0, "a")
    sync = synced.broker.begin_sync()
    synced.broker.log.flush(sync.ends)
    synced.broker.sync_failed(LogStopped("the disk failed"))
    synced.effects()
    synced.broker.synced(sync)
    synced.broker.tick(synced.now + REOPEN_US)
    synced.broker.synced(sync)
    assert synced.effects() == [Reopened()]


def test_a_disk_that_fails_beside_the_work_of_clients_stops_the_log_too(synced: Story) -> None:
    epoch, end = synced.granted()
    synced.append(epoch, end, 0, "a")
    synced.effects()

    def failing(log: Log) -> None:
        raise LogStopped("the disk failed")

    with pytest.raises(LogStopped):
        synced.broker.using(failing)
    [unsure, stopped] = synced.effects()
    assert isinstance(unsure, Answer)
    assert isinstance(unsure.answer.error, MayHaveHappened)  # type: ignore[union-attr]
    assert isinstance(stopped, Stopped)
    with pytest.raises(LogStopped, match="the disk failed"):
        synced.broker.using(lambda log: log)
    assert synced.effects() == [], "it is said once"


def test_a_file_that_rots_while_the_log_is_closed_is_what_keeps_it_closed(synced: Story) -> None:
    synced.granted()
    damage = CorruptSegment("orders/0/0.arrow", 0, 9, "checksum")
    synced.broker.sync_failed(LogStopped("the disk failed"))

    def damaged() -> Log:
        raise damage

    synced.broker._open_log = damaged
    synced.broker.tick(synced.now + REOPEN_US)
    assert synced.broker.failure is not None
    assert synced.broker.failure.__cause__ is damage
    assert "orders/0/0.arrow" in str(synced.broker.failure)
    assert synced.broker.next_deadline() is not None, "somebody may restore it"


def test_a_disk_that_fails_at_the_start_is_waited_for() -> None:
    story = Story("fsync")
    story.disk.fail_sync = True
    story.broker = Broker(story.open, ACKNOWLEDGEMENTS[story.level], clock=lambda: story.now, emit=story.left.append)
    assert [type(each) for each in story.effects()] == [Stopped]
    story.disk.fail_sync = False
    story.broker.tick(story.now + REOPEN_US)
    assert story.effects() == [Reopened()]


def test_what_no_waiting_can_mend_is_raised_at_the_start() -> None:
    def missing() -> Log:
        raise NotFound("no such directory")

    with pytest.raises(NotFound):
        Broker(missing, ACKNOWLEDGEMENTS[Durability.os], clock=lambda: NOON, emit=print)


def taken(broker: Broker, reader: Any, max_bytes: int = 1) -> list[tuple[str, int]]:
    found = []
    while (batches := broker.take(reader, max_bytes)) is not None:
        found += [(batches[0], entry.header.end) for entry in batches[1]]
    return found


def test_a_reader_is_given_each_batch_once_from_its_offset_on() -> None:
    story = Story("os")
    epoch, end = story.granted()
    story.append(epoch, end, 0, "a")
    story.append(epoch, end + 1, 1, "b")
    story.broker.subscribe(READER, "orders/0", end)
    assert taken(story.broker, READER) == [("orders/0", end + 1), ("orders/0", end + 2)]
    story.append(epoch, end + 2, 2, "c")
    assert Wake(READER) in story.effects()
    assert taken(story.broker, READER) == [("orders/0", end + 3)]
    story.broker.subscribe(READER, "orders/0", end + 2)
    assert taken(story.broker, READER) == [("orders/0", end + 3)], "it subscribed anew"


@pytest.mark.parametrize("leave", [lambda b: b.gone(READER), lambda b: b.unsubscribe(READER, "orders/0")])
def test_who_has_left_is_given_nothing(leave: Callable[[Broker], None]) -> None:
    story = Story("os")
    epoch, end = story.granted()
    story.broker.subscribe(READER, "orders/0", 0)
    leave(story.broker)
    story.effects()
    story.append(epoch, end, 0, "a")
    assert story.effects() == [Answer(MINE, Appended(0, epoch, end + 1))]
    assert story.broker.take(READER, 1) is None


def test_where_reading_on_is_impossible_the_reader_is_told_and_the_others_go_on() -> None:
    story = Story("os")
    epoch, end = story.granted()
    story.broker.subscribe(READER, "orders/0", 99)
    story.broker.subscribe(OTHER, "orders/0", end)
    story.effects()
    assert story.broker.take(READER, 1) is None
    [told] = story.effects()
    assert isinstance(told, CannotRead)
    assert (told.reader, told.name, type(told.error).__name__) == (READER, "orders/0", "OffsetOutOfRange")
    story.append(epoch, end, 0, "a")
    assert story.effects()[0] == Wake(OTHER), "its cursor is gone, the other's is not"

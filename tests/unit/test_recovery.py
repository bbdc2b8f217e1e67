"""Given what a fault left in the log and in the callers' records, then it is told when work went on."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from eventmesh.errors import EnvironmentUnavailable
from eventmesh.lab.recovery import Following, next_accepted_s
from eventmesh.log.storage import FileStorage
from eventmesh.log.store import open_read_only
from tests.unit.log_story import Writer, open_log


def test_what_was_on_its_way_when_the_writer_died_is_no_sign_of_life(tmp_path: Path) -> None:
    log = open_log(FileStorage(tmp_path))
    before = Writer(log)
    before.append("a")
    reader = open_read_only(tmp_path)
    following = Following(reader, "orders")
    assert not following.went_on(), "what stood there before"
    before.append("b")
    assert not following.went_on(), "sent before the fault, appended after it"
    after = Writer(log, "second")
    assert not following.went_on(), "a grant is no fact"
    after.append("c")
    assert following.went_on()
    reader.close()
    log.close()


def callers(*times: tuple[int | None, int | None]) -> pa.Table:
    sent, accepted = zip(*times, strict=True)
    return pa.table({"sent_at": pa.array(sent, pa.int64()), "accepted_at": pa.array(accepted, pa.int64())})


def test_a_generator_goes_on_with_its_first_request_that_is_accepted() -> None:
    answered_late, stuck, first, second = (90, 5_000_000), (101, None), (2_000_000, 2_500_100), (2_000_001, 2_600_000)
    assert next_accepted_s(callers(answered_late, stuck, second, first), 100) == 2.5


def test_a_fault_behind_the_last_request_says_nothing() -> None:
    with pytest.raises(EnvironmentUnavailable, match="when all had been sent"):
        next_accepted_s(callers((90, 95)), 100)

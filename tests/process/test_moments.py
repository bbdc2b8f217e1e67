"""Given a mesh of real processes, then what is to be done to it is done at its moment, and not once it is healed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from eventmesh.log.storage import FileStorage
from eventmesh.runtime.faults import AtOffset, AtTime
from eventmesh.runtime.process.moments import Moments
from tests.unit.log_story import Writer, open_log

SOON_S = 10.0


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    with closing(open_log(FileStorage(tmp_path))) as log:
        yield Writer(log)


def at(offset: int) -> AtOffset:
    return AtOffset(partition="orders/0", offset=offset)


def test_an_offset_is_waited_for(writer: Writer, tmp_path: Path) -> None:
    moments, there, later = Moments(tmp_path), threading.Event(), threading.Event()
    moments.when(at(writer.end + 2), there.set)
    moments.when(at(writer.end + 3), later.set)
    writer.append("one")
    assert not there.is_set()
    writer.append("two")
    assert there.wait(SOON_S)
    assert not later.is_set()
    writer.append("three")
    assert later.wait(SOON_S)


def test_an_offset_that_has_passed_is_now(writer: Writer, tmp_path: Path) -> None:
    there = threading.Event()
    writer.append("one")
    Moments(tmp_path).when(at(1), there.set)
    assert there.wait(SOON_S)


def test_a_time_that_is_far_holds_up_nothing(writer: Writer, tmp_path: Path) -> None:
    moments, far, near = Moments(tmp_path), threading.Event(), threading.Event()
    moments.when(AtTime(seconds=3_600), far.set)
    moments.when(AtTime(seconds=0), near.set)
    assert near.wait(SOON_S)
    assert not far.is_set()
    moments.close()


def test_nothing_is_done_after_all_is_over(writer: Writer, tmp_path: Path) -> None:
    moments, never, after = Moments(tmp_path), threading.Event(), threading.Event()
    moments.when(at(writer.end + 1), never.set)
    moments.close()
    writer.append("one")
    moments.when(at(writer.end), after.set)
    assert after.wait(SOON_S), "it can be used again"
    assert not never.is_set()

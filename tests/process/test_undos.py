"""Given a list of undos, then they are carried out when who made the faults falls silent, and no stranger is hit."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from eventmesh.errors import ConfigurationError, EnvironmentUnavailable
from eventmesh.runtime.process.undos import LEASE_S, Heal, Thaw, Undos
from eventmesh.runtime.process.vitals import numbered_by
from tests.process.whole_mesh import until


class Story:
    """A list, the time, and how often all processes were told to heal."""

    def __init__(self, file: Path) -> None:
        self.file, self.now, self.healed = file, 100.0, 0
        self.begin()

    def begin(self) -> None:
        self.undos = Undos(self.file, self._heal, clock=lambda: self.now)

    def _heal(self) -> None:
        self.healed += 1


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path / "undos.json")


@pytest.fixture
def frozen() -> Iterator[psutil.Process]:
    """A process that stands still."""
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    process = psutil.Process(child.pid)
    process.send_signal(signal.SIGSTOP)
    until(lambda: stands_still(process))
    yield process
    child.kill()
    child.communicate()


def stands_still(process: psutil.Process) -> bool:
    return bool(process.status() == psutil.STATUS_STOPPED)


def thaw(process: psutil.Process, *, started: float = 0.0, where: str = "") -> Thaw:
    return Thaw(numbered_by() + where, process.pid, process.create_time() + started)


def test_who_is_silent_for_a_lease_has_ended(story: Story, frozen: psutil.Process) -> None:
    story.undos.note("stall", "one", Heal())
    story.undos.note("freeze", "one", thaw(frozen))
    story.undos.note("slow", "other", Heal())
    story.now += LEASE_S - 1
    story.undos.renew("other")
    story.now += 1.5
    assert story.undos.look() == ["stall", "freeze"]
    assert story.healed == 1
    until(lambda: not stands_still(frozen))
    assert story.undos.look() == [], "once"
    assert story.undos.carry_out() == ["slow"], "the other is there still"


def test_what_is_over_is_not_undone(story: Story, frozen: psutil.Process) -> None:
    story.undos.note("freeze", "one", thaw(frozen))
    story.undos.forget("freeze")
    story.undos.forget("freeze")
    assert story.undos.carry_out() == []
    assert stands_still(frozen)


def test_a_list_outlives_who_keeps_it_and_each_has_a_lease_from_then_on(story: Story, frozen: psutil.Process) -> None:
    story.undos.note("freeze", "one", thaw(frozen))
    story.now += 10 * LEASE_S
    story.begin()
    assert story.undos.look() == []
    story.now += LEASE_S + 1
    assert story.undos.look() == ["freeze"]
    until(lambda: not stands_still(frozen))
    story.begin()
    assert story.undos.carry_out() == [], "what was carried out is not on the disk either"


@pytest.mark.parametrize("which", ["started at another time", "gone"])
def test_a_stranger_with_the_same_number_is_left_alone(story: Story, frozen: psutil.Process, which: str) -> None:
    undo = thaw(frozen, started=-60.0)
    if which == "gone":
        ended = subprocess.Popen([sys.executable, "-c", ""])
        undo = thaw(psutil.Process(ended.pid))
        ended.wait()
    story.undos.note("freeze", "one", undo)
    assert story.undos.carry_out() == ["freeze"]
    assert stands_still(frozen)


def test_who_cannot_be_thawed_from_here_is_not_frozen(story: Story, frozen: psutil.Process) -> None:
    with pytest.raises(ConfigurationError, match="another machine"):
        story.undos.note("freeze", "one", thaw(frozen, where=" of another container"))
    assert not story.file.exists()


def test_a_disk_without_room_keeps_nobody_from_undoing(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

    story.undos.note("stall", "one", Heal())
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(EnvironmentUnavailable, match=r"No space left on device.*It is not made"):
        story.undos.note("never made", "one", Heal())
    story.now += LEASE_S + 1
    assert story.undos.look() == ["stall"], "the supervisor's thread goes on"
    assert story.healed == 1
    story.begin()
    assert story.undos.carry_out() == ["stall"], "once more, which is harmless"


def test_a_list_of_another_form_is_passed_over(story: Story) -> None:
    story.file.write_text('{"schema": "eventmesh.undos/9"}')
    story.begin()
    assert story.undos.carry_out() == []

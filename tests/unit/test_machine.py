"""Given readings of a machine and its processes, then others' share of it is told from our own."""

from __future__ import annotations

import subprocess
import sys
from typing import NoReturn

import psutil
import pytest

from eventmesh.report import machine
from eventmesh.report.machine import DISTURBED_FROM, Account, Reading, Spent, Watch, between, disturbed
from eventmesh.report.record import MachineUse

BURN = "import time\nwhile time.process_time() < 0.4: pass"
RAYLET, WORKER, SNAPSHOT = (10, 1.0), (11, 2.0), (12, 3.0)


def used(*looks: dict[tuple[int, float], Spent]) -> float:
    account = Account()
    for found in looks:
        account.look(found)
    return account.used_s()


def test_what_was_used_before_the_first_look_does_not_count() -> None:
    assert used({RAYLET: Spent(100, 50, 1)}, {RAYLET: Spent(103, 50, 1)}) == 3


def test_a_process_that_was_born_in_between_counts_whole() -> None:
    assert used({RAYLET: Spent(0, 0, 1)}, {RAYLET: Spent(1, 0, 1), WORKER: Spent(2, 0, 10)}) == 3


def test_one_that_ended_and_was_waited_for_counts_once() -> None:
    before = {RAYLET: Spent(0, 0, 1), WORKER: Spent(5, 0, 10)}
    between_them = {RAYLET: Spent(0, 0, 1), WORKER: Spent(7, 0, 10)}
    after = {RAYLET: Spent(0, 7.5, 1)}  # all that the worker ever used, half a second of it unseen
    assert used(before, between_them, after) == pytest.approx(2.5)


def test_one_that_ended_and_was_not_waited_for_counts_as_far_as_it_was_seen() -> None:
    before = {RAYLET: Spent(0, 0, 1), WORKER: Spent(5, 0, 10)}
    assert used(before, {RAYLET: Spent(0, 0, 1), WORKER: Spent(7, 0, 10)}, {RAYLET: Spent(0, 0, 1)}) == 2


def test_a_child_that_no_look_has_seen_is_known_from_its_parent() -> None:
    assert used({WORKER: Spent(0, 1, 10)}, {WORKER: Spent(0, 4, 10)}) == 3


def test_grandchildren_of_what_ended_count_once() -> None:
    before = {RAYLET: Spent(0, 0, 1), WORKER: Spent(0, 0, 10), SNAPSHOT: Spent(0, 0, 11)}
    later = {RAYLET: Spent(0, 0, 1), WORKER: Spent(1, 0, 10), SNAPSHOT: Spent(2, 0, 11)}
    after = {RAYLET: Spent(0, 0, 1), WORKER: Spent(1, 2, 10)}  # the snapshot's process was waited for
    gone = {RAYLET: Spent(0, 3, 1)}  # and then the worker, with what it had waited for
    assert used(before, later, after, gone) == 3


def test_a_number_that_was_given_out_again_is_another_process() -> None:
    again = (WORKER[0], 9.0)
    assert (
        used({RAYLET: Spent(0, 0, 1), WORKER: Spent(5, 0, 10)}, {RAYLET: Spent(0, 0, 1), again: Spent(1, 0, 10)}) == 1
    )


def reading(total: float, busy: float, stolen: float = 0.0, waited: float | None = 0.0) -> Reading:
    return Reading(total, busy, stolen, waited)


def test_shares_are_of_all_cores_and_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    use = between(reading(100, 40), reading(120, 55, stolen=1, waited=2.5), ours_s=5)
    assert use == MachineUse(others=0.5, stolen=0.05, memory_pressure=0.25)
    assert between(reading(100, 40), reading(100, 40), 0) is None, "no time passed"


def test_ours_is_never_more_than_all_and_a_kernel_without_pressure_tells_none() -> None:
    use = between(reading(100, 40, waited=None), reading(120, 45, waited=None), ours_s=5.1)
    assert use == MachineUse(others=0, stolen=0, memory_pressure=None)


@pytest.mark.parametrize(
    ("others", "stolen", "pressure", "why"),
    [
        (0.48, 0.0, 0.0, "other programs used 48 % of the machine"),
        (0.02, 0.3, None, "other programs used 2 % of the machine, its host took 30 %"),
        (0.0, 0.0, 0.2, "for 20 % of the time something waited for memory"),
        (DISTURBED_FROM / 2, DISTURBED_FROM / 2, DISTURBED_FROM, None),
    ],
)
def test_what_is_disturbed_says_by_what(others: float, stolen: float, pressure: float | None, why: str | None) -> None:
    assert disturbed(MachineUse(others=others, stolen=stolen, memory_pressure=pressure)) == why
    assert disturbed(None) is None


@pytest.mark.skipif(not psutil.LINUX, reason="there is no /proc to watch")
def test_a_child_of_ours_is_ours_whether_or_not_it_ends_within_the_watch() -> None:
    with Watch() as watch:
        subprocess.run([sys.executable, "-c", BURN], check=True)
        lasting = subprocess.Popen([sys.executable, "-c", f"{BURN}\nprint('burnt', flush=True)\ninput()"],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        with lasting:
            assert lasting.stdout is not None
            lasting.stdout.readline()
            watch._look()
            lasting.communicate(b"\n")
    assert watch.use is not None
    assert watch.account.used_s() >= 0.75


@pytest.mark.skipif(not psutil.LINUX, reason="there is no /proc to watch")
def test_what_is_no_child_of_ours_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with Watch() as watch:
        monkeypatch.setattr(watch._me, "children", lambda recursive: [])
        foreign = subprocess.Popen([sys.executable, "-c", f"{BURN}\nprint('burnt', flush=True)\ninput()"],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        assert foreign.stdout is not None
        foreign.stdout.readline()
        watch._left.set()
        watch._thread.join()
        watch._look()
        assert watch.account.used_s() < 0.4
        with foreign:
            foreign.communicate(b"\n")


@pytest.mark.skipif(not psutil.LINUX, reason="there is no /proc to watch")
def test_what_was_ours_stays_ours_when_its_parent_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen([sys.executable, "-c", f"input()\n{BURN}\nprint('burnt', flush=True)\ninput()"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    with child, Watch() as watch:
        assert child.stdin is not None
        assert child.stdout is not None
        watch._left.set()
        watch._thread.join()
        monkeypatch.setattr(watch._me, "children", lambda recursive: [])  # it was given to another
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        watch._look()
        assert watch.account.used_s() >= 0.35
        child.communicate(b"\n")


@pytest.mark.skipif(not psutil.LINUX, reason="there is no /proc to watch")
def test_a_number_that_was_given_to_another_process_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    with Watch() as watch:
        former = psutil.Process(1)
        monkeypatch.setattr(former, "is_running", lambda: False)
        watch._known.add(former)
        watch._left.set()
        watch._thread.join()
        watch._look()
        assert 1 not in {number for number, _ in watch.account.last}


def forbidden() -> NoReturn:
    raise PermissionError("/proc/stat")


@pytest.mark.parametrize(("name", "value"), [("LINUX", False), ("cpu_times", forbidden)])
def test_elsewhere_nothing_is_watched(name: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, name, value)
    with Watch() as watch:
        pass
    assert watch.use is None
    assert machine.disturbed(watch.use) is None

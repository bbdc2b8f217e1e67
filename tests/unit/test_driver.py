"""Given a command that joins Ray, then its own handlers of signals stay, whatever Ray puts in. Ray is not started."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from eventmesh.runtime.on_ray import driver

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def came() -> Iterator[list[int]]:
    """The signals that reached the command's own handler."""
    numbers: list[int] = []

    def handler(number: int, _: FrameType | None) -> None:
        numbers.append(number)

    before = {each: signal.signal(each, handler) for each in STOPS}
    yield numbers
    for each, handler_before in before.items():
        signal.signal(each, handler_before)


def by_python(number: int) -> None:
    """As Ray's node does."""
    driver.ray._private.utils.set_sigterm_handler(lambda *_: None)


def past_python(number: int) -> None:
    """As Ray's C++ does, without Python's knowledge: libc's own call."""
    import ctypes

    ctypes.CDLL(None).signal(number, ctypes.c_void_p(1))  # 1: ignore it


@pytest.mark.parametrize("taken", [by_python, past_python])
def test_a_signal_is_the_command_s_own_after_ray_was_joined(
    monkeypatch: pytest.MonkeyPatch, came: list[int], taken: Callable[[int], None]
) -> None:
    monkeypatch.setattr(driver.ray, "shutdown", lambda: None)
    monkeypatch.setattr(driver.ray, "init", lambda **_: [taken(each) for each in STOPS])
    with driver.connected("nowhere", "there is no Ray"):
        pass
    for each in STOPS:
        os.kill(os.getpid(), each)
    assert came == list(STOPS)


def test_nor_while_ray_is_being_joined(monkeypatch: pytest.MonkeyPatch, came: list[int]) -> None:
    def init(**_: object) -> None:
        by_python(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(driver.ray, "shutdown", lambda: None)
    monkeypatch.setattr(driver.ray, "init", init)
    with driver.connected("nowhere", "there is no Ray"):
        pass
    assert came == [signal.SIGTERM]

"""Given a unit test, then it cannot start Ray."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest


def test_importing_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    with pytest.raises(AssertionError, match="must not start Ray"):
        importlib.import_module("ray")


@pytest.fixture
def imported_ray(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    ray = ModuleType("ray")
    vars(ray)["init"] = lambda: None
    monkeypatch.setitem(sys.modules, "ray", ray)
    return ray


@pytest.fixture
def no_ray(imported_ray: ModuleType, no_ray: None) -> None:
    """The suite's own guard, set up after Ray was imported by another test."""


def test_starting_a_ray_that_another_test_imported_is_refused(imported_ray: ModuleType) -> None:
    with pytest.raises(AssertionError, match="must not start Ray"):
        imported_ray.init()

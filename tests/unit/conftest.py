"""Unit tests run without Ray: here ``ray.init`` is refused, also when Ray calls it by itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn

import pytest

REFUSAL = "a unit test must not start Ray: use the simulated runtime, or move the test to tests/on_ray"


class _NoRay(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "ray":
            raise AssertionError(REFUSAL)
        return None


def _refuse(*_: object, **__: object) -> NoReturn:
    raise AssertionError(REFUSAL)


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse ``ray.init`` where Ray is imported already, and the import itself where it is not."""
    if "ray" in sys.modules:
        monkeypatch.setattr(sys.modules["ray"], "init", _refuse)
    monkeypatch.setattr(sys, "meta_path", [_NoRay(), *sys.meta_path])

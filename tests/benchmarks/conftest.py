"""Benchmarks are tested without Ray: by a mesh made up from a formula, or on the simulated runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import catalog
from benchmarks.benchmark import Benchmark
from eventmesh import configuration
from tests.unit.conftest import no_ray

__all__ = ["no_ray"]

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = CONFIGS / "benchmarks"


def small(name: str, **changes: Any) -> Benchmark:
    """The benchmark of that name as its file describes it, with some settings changed."""
    kind = catalog.KINDS[name]
    document = {**configuration.read(FILES / f"{name}.yaml"), **changes}
    document.pop("quick")
    runtime: Mapping[str, Any] = {"runtime": document.pop("runtime")} if "runtime" in document else {}
    settings = configuration.validate(kind.settings_type, document)
    return kind(settings, quick=False, meshes=CONFIGS / "meshes", **runtime)


@pytest.fixture
def said() -> list[str]:
    """What a benchmark says while it runs."""
    return []

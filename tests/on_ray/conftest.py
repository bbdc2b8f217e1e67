"""One embedded Ray for all tests of this folder, and none left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from eventmesh.runtime.on_ray.cluster import embedded_ray


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray of our own."""
    with embedded_ray():
        yield

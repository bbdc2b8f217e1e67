"""What every test gets: hypothesis repeats the same examples on every machine and never judges by the clock; and
signals end what it starts.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A busy machine is slow, not wrong: no deadline. Fixed examples: a red test is red for everyone.
settings.register_profile("steady", deadline=None, derandomize=True, print_blob=True)
# For a long search by hand: pytest --hypothesis-profile=search
settings.register_profile("search", deadline=None, max_examples=5_000, print_blob=True)
settings.load_profile("steady")

# A shell lets what it starts in the background ignore Ctrl-C, and nohup a terminal's end; so would all that these tests
# start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One embedded Ray for all tests that need it, and none left behind."""
    from eventmesh.runtime.on_ray.cluster import embedded_ray

    with embedded_ray(processes=9):
        yield

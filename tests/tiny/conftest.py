"""The library's commands are run as those of the shop are: nothing starts Ray."""

from __future__ import annotations

from tests.commands.conftest import eventmesh, no_ray, state

__all__ = ["eventmesh", "no_ray", "state"]

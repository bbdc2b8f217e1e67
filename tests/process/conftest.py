"""Processes and wires are tested without Ray, which is refused as in the unit tests."""

from __future__ import annotations

from tests.unit.conftest import no_ray

__all__ = ["no_ray"]

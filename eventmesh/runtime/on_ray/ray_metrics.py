"""Ray's registry of metrics: it exports to Prometheus what the processes of a mesh tell it.

Where Ray has no agent that exports, which is the case without ``ray[default]``, that goes nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

from eventmesh.runtime.process.metrics import METRICS


class RayRegistry:
    """For the process of an actor; see :class:`~eventmesh.runtime.process.metrics.Registry`.

    Ray puts ``ray_`` before each name.
    """

    def __init__(self, mesh: str) -> None:
        self._instruments: dict[str, Any] = {}
        for name, metric in METRICS.items():
            kind = Counter if name.endswith("_total") else Gauge
            self._instruments[name] = kind(name, metric.description, ("mesh", *metric.tags))
            self._instruments[name].set_default_tags({"mesh": mesh})

    def add(self, name: str, tags: Mapping[str, str], more: float) -> None:
        """A counter has grown by ``more``."""
        self._instruments[name].inc(more, dict(tags))

    def set(self, name: str, tags: Mapping[str, str], value: float) -> None:
        """A gauge stands at ``value``."""
        self._instruments[name].set(value, dict(tags))

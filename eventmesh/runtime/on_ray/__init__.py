"""A mesh on Ray actors: Ray places, starts and stops them; everything they say travels over Arrow Flight."""

from __future__ import annotations

import os

# Ray reads these when it is imported. On one machine nothing of Ray's listens on more than loopback.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

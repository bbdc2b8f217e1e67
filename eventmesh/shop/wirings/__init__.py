"""The wirings: what triggers each rule, and where orders learns what it does not own. No rules here."""

from __future__ import annotations

from collections.abc import Mapping

from eventmesh.service import Trigger
from eventmesh.shop.wirings import hybrid, request, views

WIRINGS: dict[str, Mapping[str, Trigger]] = {
    "request": request.TRIGGERS,
    "hybrid": hybrid.TRIGGERS,
    "views": views.TRIGGERS,
}

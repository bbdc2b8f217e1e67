"""What a mesh file may say of each service, beside what every service has: each field is a key."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class NoOptions(BaseModel):
    """Neither service has any yet."""

    model_config = ConfigDict(extra="forbid", frozen=True)


OPTIONS: dict[str, type[BaseModel]] = {"counter": NoOptions, "workbench": NoOptions}

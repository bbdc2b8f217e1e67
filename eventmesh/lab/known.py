"""Names that a user need not remember: what ships, which meshes are up, the topics of a log.

A shell asks for them while a word is being typed, so nothing heavy is imported, and what cannot be read has no names to
offer: the command itself will say what is wrong. Where nothing fits the shell goes on to names of files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from eventmesh import shipped
from eventmesh.shipped import Kind

#: Names the folder of the records of meshes that are up, for whoever keeps several sets of them.
STATE_VARIABLE = "EVENTMESH_STATE"


def state_folder() -> Path:
    """Where the records are: ``$EVENTMESH_STATE``, or the user's own place for such files."""
    import platformdirs

    return Path(os.environ.get(STATE_VARIABLE) or platformdirs.user_state_path("eventmesh"))


def meshes_up() -> list[str]:
    """Every name under which something stands, or stood when the machine went down."""
    return sorted(path.stem for path in state_folder().glob("*.json"))


def topics(folder: Path | None, name: str | None) -> list[str]:
    """The topics of the log in a run's ``folder``, or of the mesh called ``name``."""
    if name is not None:
        folder = Path(str(_read(state_folder() / f"{name}.json").get("data", "")))
    listed = _read((folder or Path()) / "log" / "manifest.json").get("topics", [])
    return sorted(str(topic["name"]) for topic in listed if isinstance(topic, dict) and "name" in topic)


def complete_shipped(kind: Kind) -> Callable[[str], list[str]]:
    """Completes the name of what ships of this kind."""
    return lambda incomplete: _beginning(incomplete, shipped.names(kind))


def complete_mesh_up(incomplete: str) -> list[str]:
    """Completes the name of a mesh that is up."""
    return _beginning(incomplete, meshes_up())


def complete_topic(ctx: Any, incomplete: str) -> list[str]:
    """Completes a topic of the run or mesh that the rest of the command line names; of the latest run, without one."""
    folder = ctx.params.get("run_folder") or Path("runs/latest")
    return _beginning(incomplete, topics(Path(folder), ctx.params.get("name")))


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

"""Which benchmarks there are, and how their files are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.join_scaling import JoinScaling, Settings
from eventmesh import configuration
from eventmesh.configuration import suggestion
from eventmesh.errors import NotFound


def questions(folder: Path) -> dict[str, str]:
    """The name of each benchmark and the question it answers."""
    return {path.stem: str(configuration.read(path).get("question", "")) for path in sorted(folder.glob("*.yaml"))}


def load(folder: Path, name: str, *, quick: bool) -> JoinScaling:
    """The benchmark called ``name``, or of the file of that path. ``quick`` takes the file's quick grid."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        raise NotFound(f"no benchmark {name!r}. {suggestion(name, questions(folder))}")
    document: dict[str, Any] = configuration.read(path)
    overrides = document.pop("quick", {})
    if quick:
        document |= overrides
    settings = configuration.validate(Settings, document, file=str(path))
    return JoinScaling(settings, quick=quick, meshes=folder.parent / "meshes")

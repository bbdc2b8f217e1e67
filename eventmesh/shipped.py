"""What ships beside the package: meshes, mappings, benchmarks and experiments, named without knowing where they lie.

In a checkout they are in ``configs/`` at its top, beside ``cli.py`` and ``benchmarks/``. In a wheel all three lie
inside the package, in :data:`INSTALLED`, so that no other project's ``cli`` or ``benchmarks`` can meet ours.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal

from eventmesh.errors import ConfigurationError

Kind = Literal["meshes", "mappings", "benchmarks", "experiments"]
#: Where a wheel puts what is at the top of the tree.
INSTALLED = "_shipped"


def home() -> Path:
    """The folder that holds ``configs/``, ``benchmarks/`` and ``cli.py``."""
    package = Path(str(files("eventmesh")))
    return package / INSTALLED if (package / INSTALLED).is_dir() else package.parent


def folder(kind: Kind) -> Path:
    """The folder of what ships of this kind."""
    return home() / "configs" / kind


def names(kind: Kind) -> list[str]:
    """What ships of this kind, sorted, by the names that :func:`find` takes."""
    return sorted(path.stem for path in folder(kind).glob("*.yaml"))


def find(kind: Kind, given: Path) -> Path:
    """The file that ``given`` names: its path if there is such a file, else what ships under that name.

    Raises :class:`ConfigurationError` with what ships, where it is neither.
    """
    known = names(kind)
    if str(given) in known and (not given.exists() or given.is_dir()):
        return folder(kind) / f"{given}.yaml"
    if given.exists():
        return given
    raise _missing(kind, given, known)


def _missing(kind: Kind, given: Path, known: list[str]) -> ConfigurationError:
    from eventmesh.configuration import no_such_file, suggestion  # completion asks for names, and is not to wait for it

    singular = kind.removesuffix("es") if kind == "meshes" else kind.removesuffix("s")
    if given.parent == Path() and not given.suffix:
        hint = f"No {singular} of that name ships either. {suggestion(given, known)}; or the path of a file"
        return ConfigurationError("no such file", file=str(given), hint=hint)
    return no_such_file(given, f"{kind.capitalize()} that ship, by name: {', '.join(known)}")

"""Which versions of what are at work: told by the installed packages' own records, without importing them."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable

from eventmesh import __version__

#: The libraries whose version can change a figure.
LIBRARIES = ("ray", "pyarrow", "numpy", "duckdb", "hdrhistogram")


def versions(libraries: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """The version of the project, of Python and of each library; ``absent`` where one is not installed."""
    found = {"eventmesh": __version__, "python": platform.python_version()}
    for name in libraries:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found

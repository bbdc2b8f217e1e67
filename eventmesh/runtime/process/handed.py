"""What one process hands another that has to import the application for it: there the application is checked first.

Who unpacks it looks for modules where its sender did, and in the same order; imports the application; and raises
:class:`~eventmesh.sources.OtherSources` where that is not the one that its sender had checked.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import sysconfig
from collections.abc import Callable
from typing import Any, NamedTuple

from eventmesh.runtime.process.actor_log import log
from eventmesh.sources import OtherSources, Sources, must_be

_STANDARD = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
_LIBRARIES = {"site-packages", "dist-packages", "lib-dynload"}


class Handed:
    """``value`` on its way to another process: pickled, it becomes the value itself there."""

    def __init__(self, value: Any, sources: Sources | None) -> None:
        self.value, self.sources = value, sources

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return opened, (search_path(), self.sources, pickle.dumps(self.value))


class SearchPath(NamedTuple):
    """Where a process looks for modules ``before`` the places of its interpreter, and ``behind`` them, in its order.

    The interpreter's own are left out: another machine may have them elsewhere, or other packages there.
    """

    before: tuple[str, ...]
    behind: tuple[str, ...]


def search_path() -> SearchPath:
    """That of this process. An empty entry is the folder that it is in now."""
    before: list[str] = []
    behind: list[str] = []
    own = False
    for each in dict.fromkeys(os.path.abspath(each) if os.path.isdir(each or ".") else each for each in sys.path):
        if _is_interpreters(each):
            own = True
        else:
            (behind if own else before).append(each)
    return SearchPath(tuple(before), tuple(behind))


def _is_interpreters(place: str) -> bool:
    name = os.path.basename(place)
    return name in _LIBRARIES or place in _STANDARD or (name.startswith("python") and name.endswith(".zip"))


def opened(path: SearchPath, sources: Sources | None, packed: bytes) -> Any:
    """What was handed over. ``sources`` None: its sender has no application that could be checked."""
    follow(path)
    if sources is not None:
        try:
            must_be(sources)
        except OtherSources as error:
            log.error("not started", why=str(error))
            raise
    return pickle.loads(packed)


def follow(path: SearchPath) -> None:
    """From now on look for modules in these places, too: as early and as late as the one whose they are."""
    handed = {*path.before, *path.behind}
    sys.path[:] = [*path.before, *(each for each in sys.path if each not in handed), *path.behind]
    importlib.invalidate_caches()

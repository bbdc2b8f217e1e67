"""Which code an application is: its files, by their content. Every process of a mesh must find the same ones.

A process imports an application by its name, and which files that means depends on where it looks first, on its
machine, and on what has been edited since. So whoever checks a mesh notes what it imported, and hands that on.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from pathlib import Path

from eventmesh.errors import EnvironmentUnavailable

#: What Python imports, but for its own caches. Data that an application reads is its own business.
SUFFIXES = (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)
_DIGEST_BYTES = 16
#: So many files that differ are named.
NAMED_MAX = 3


class OtherSources(EnvironmentUnavailable):
    """This process does not find the application that was checked. Nothing of it was run here."""


@dataclass(frozen=True)
class Sources:
    """The files of ``package``, which was found at ``place``: the digest of each by its path below there.

    Of a package those are all files in its folder, and below it, that Python could import, whether or not it has; of a
    module it is one.
    """

    package: str
    place: str
    files: Mapping[str, str]

    @cached_property
    def fingerprint(self) -> str:
        """Of all files together: 32 hexadecimal digits, the same wherever the same files lie."""
        listed = "".join(f"{path}\0{digest}\n" for path, digest in sorted(self.files.items()))
        return hashlib.blake2b(listed.encode(), digest_size=_DIGEST_BYTES).hexdigest()

    def differences(self, found: Sources) -> list[str]:
        """What is not as here, file by file."""
        said = []
        for path in sorted(self.files.keys() | found.files.keys()):
            if path not in found.files:
                said.append(f"{path} is missing")
            elif path not in self.files:
                said.append(f"{path} was not there")
            elif self.files[path] != found.files[path]:
                said.append(f"{path} is another")
        return said


@lru_cache
def sources_of(package: str) -> Sources | None:
    """Those of a package that this process has imported, as they were when this was first asked.

    None of one that does not lie in files of its own, such as one within an archive.
    """
    module = sys.modules[package]
    folders = [Path(each) for each in getattr(module, "__path__", ())]
    files = {path: digest for folder in folders for path, digest in _files(folder)}
    file = getattr(module, "__file__", None)
    if not folders and file is not None and Path(file).is_file():
        folders, files = [Path(file)], {Path(file).name: _digest(Path(file))}
    return Sources(package, ", ".join(map(str, folders)), files) if files else None


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.name.endswith(SUFFIXES) and path.is_file():
            yield path.relative_to(folder).as_posix(), _digest(path)


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=_DIGEST_BYTES).hexdigest()


def must_be(checked: Sources) -> None:
    """Import the application, and raise :class:`OtherSources` where it is not the one that was checked."""
    package = checked.package
    try:
        importlib.import_module(package)
        found = sources_of(package)
    except Exception as error:  # whatever its code does when it is imported
        raise OtherSources(
            f"this process cannot import the application {package!r}, which was checked in {checked.place}: "
            f"{type(error).__name__}: {error}. Its files must lie in the same place on every node"
        ) from error
    found = found or Sources(package, "no file of its own", {})
    if found.fingerprint == checked.fingerprint:
        return
    differences = checked.differences(found)
    more = f" and {len(differences) - NAMED_MAX} more" if len(differences) > NAMED_MAX else ""
    raise OtherSources(
        f"this process found the application {package!r} in {found.place}, and not as it was checked in "
        f"{checked.place}: {', '.join(differences[:NAMED_MAX])}{more}. End the mesh and start it again with the "
        f"application as it is now, on every node"
    )

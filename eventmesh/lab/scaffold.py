"""A new application: the package ``eventmesh.template`` copied into the current folder, under a name of its own.

The template is code like any other, of which the word "template" is its name; it is never run from where it ships.
"""

from __future__ import annotations

import keyword
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from eventmesh.errors import InputError

TEMPLATE = "eventmesh.template"
_ITS_NAME = re.compile(r"\b(?:eventmesh\.)?template\b")
#: A mesh may be called so and ``-asked``, and so may a folder of its run with the time behind it.
NAME_MAX = 100


@dataclass(frozen=True)
class Application:
    """What was made, or would be: the files of the package by path, and the commands to type next."""

    name: str
    files: list[str]
    next: list[str]


def new(name: str, folder: Path, *, dry_run: bool = False) -> Application:
    """Write the package ``name`` into ``folder``, whole or not at all.

    Raises :class:`InputError`, with nothing written, where no package can have that name here.
    """
    _check_name(name)
    _check_free(name, folder)
    texts = {path: _ITS_NAME.sub(name, text) for path, text in _template().items()}
    if not dry_run:
        with _appearing(folder / name) as unfinished:
            for path, text in texts.items():
                (unfinished / path).write_text(text, encoding="utf-8")
    return Application(name, [f"{name}/{path}" for path in texts], next_commands(name))


def next_commands(name: str) -> list[str]:
    """What to type then."""
    return [
        f"eventmesh check {name}/told.yaml",
        f"eventmesh run {name}/told.yaml --runtime simulated",
        f"eventmesh fuzz {name}/asked.yaml --seeds 10",
    ]


def _template() -> Mapping[str, str]:
    """Its files by name, sorted."""
    found = {each.name: each for each in files(TEMPLATE).iterdir() if each.name.endswith((".py", ".yaml"))}
    return {name: found[name].read_text(encoding="utf-8") for name in sorted(found)}


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A folder to fill, which takes its name when all is in it; where that fails, nothing is left of it."""
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        unfinished.mkdir()
        yield unfinished
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


# --- names ----------------------------------------------------------------------------------------


def _check_name(name: str) -> None:
    if not (name.isidentifier() and name.isascii()):
        problem = f"{name!r} is no name of a Python package: expected letters, digits and _, and no digit first"
        near = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()
        fits = near.isidentifier() and not keyword.iskeyword(near)
        raise InputError(f"{problem}. {f'Try {near}' if fits else 'Try another, such as workshop'}")
    if keyword.iskeyword(name):
        raise InputError(f"{name!r} is a word of the Python language, so no package can have that name. Try my_{name}")
    if len(name) > NAME_MAX:
        raise InputError(f"the name has {len(name)} characters, expected at most {NAME_MAX}")


def _check_free(name: str, folder: Path) -> None:
    """Neither here nor among what is installed is there anything of that name."""
    for taken in (folder / name, folder / f"{name}.py"):
        if taken.exists() or taken.is_symlink():
            raise InputError(f"{taken.name} exists already in this folder, and is left as it is. Choose another name")
    if name in sys.modules or name in sys.stdlib_module_names or find_spec(name) is not None:
        problem = f"there is a module {name!r} already, which Python would import in place of the new package"
        raise InputError(f"{problem}. Try my_{name}")

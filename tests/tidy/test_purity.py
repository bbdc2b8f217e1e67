"""Given the modules below the runtimes, then clock, randomness, environment and threads are passed in."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

FORBIDDEN = {
    "_thread", "asyncio", "concurrent", "multiprocessing", "random", "secrets", "signal", "threading", "time", "uuid",
}  # fmt: skip
#: Attributes that read a clock, randomness or the environment through a module that is allowed.
FORBIDDEN_ATTRIBUTES = {"environ", "getenv", "now", "random", "today", "urandom", "utcnow"}
#: The modules below the runtimes that do I/O by file descriptors.
MAY_IMPORT_OS = {"eventmesh/log/mapped_files.py", "eventmesh/log/storage.py"}
ABOVE = ("eventmesh/runtime/", "eventmesh/lab/", "eventmesh/shop/")


def impurities(path: str, source: str) -> list[str]:
    forbidden = FORBIDDEN if path in MAY_IMPORT_OS else FORBIDDEN | {"os"}
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [name for name in _imported(node) if name.partition(".")[0] in forbidden | FORBIDDEN_ATTRIBUTES]
        if isinstance(node, ast.Attribute) and node.attr in FORBIDDEN_ATTRIBUTES:
            names.append(ast.unparse(node))
        found += [f"{path}:{getattr(node, 'lineno', 0)}: {name}" for name in names]
    return found


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        yield node.module or ""
        if node.module in {"os", "numpy"}:
            yield from (alias.name for alias in node.names)


def test_below_the_runtimes_clock_and_chance_are_passed_in(files: dict[str, str]) -> None:
    below = {
        path: text
        for path, text in files.items()
        if path.startswith("eventmesh/") and path.endswith(".py") and not path.startswith(ABOVE)
    }
    assert "eventmesh/log/batch.py" in below
    assert [line for path, text in below.items() for line in impurities(path, text)] == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from random import choice",
        "import threading as t",
        "import os",
        "import os.path",
        "from concurrent.futures import Executor",
        "import datetime\nx = datetime.datetime.now()",
        "import numpy as np\nx = np.random.default_rng()",
        "from numpy import random",
    ],
)
def test_an_impure_module_is_found(source: str) -> None:
    assert impurities("eventmesh/views.py", source)


def test_storage_may_use_files_but_not_the_environment() -> None:
    assert impurities("eventmesh/log/storage.py", "import os\nos.fsync(3)") == []
    assert impurities("eventmesh/log/storage.py", "import os\nx = os.environ['A']")
    assert impurities("eventmesh/log/storage.py", "from os import environ")

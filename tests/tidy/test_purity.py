"""Given the modules that decide, then clock, randomness, environment and threads are passed in.

Dice that are made of a seed are passed in with it: the same seed gives the same numbers.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

FORBIDDEN = {
    "_thread", "asyncio", "concurrent", "multiprocessing", "os", "secrets", "signal", "threading", "time", "uuid",
}  # fmt: skip
#: Attributes that read a clock or the environment through a module that is allowed.
FORBIDDEN_ATTRIBUTES = {"environ", "getenv", "now", "today", "urandom", "utcnow"}
#: Of the modules ``random`` and ``numpy.random``, what makes dice of the seed that it is given.
SEEDED = {"Generator", "PCG64", "Random", "SeedSequence", "default_rng"}
#: Modules that do more, and why. The environment, clocks and dice are not theirs either.
EXCEPT = {
    "eventmesh/log/mapped_files.py": ({"os"}, "maps files by their descriptors"),
    "eventmesh/log/storage.py": ({"os"}, "reads, writes and syncs files by their descriptors"),
    "eventmesh/report/machine.py": ({"threading"}, "watches the machine beside the run that is reported on"),
    "eventmesh/runtime/journal_copy.py": ({"os"}, "reads a file while its writer goes on, by its descriptor"),
    "eventmesh/shop/order_columns.py": ({"os"}, "asks whether there is a folder of a name that may be nonsense"),
}
#: What works with the world: threads, wires, processes, and the commands that start and watch them.
EDGES = ("eventmesh/lab/", "eventmesh/runtime/on_ray/", "eventmesh/runtime/process/", "eventmesh/runtime/wire/")


def impurities(path: str, source: str) -> list[str]:
    forbidden = FORBIDDEN - EXCEPT.get(path, (set(), ""))[0]
    tree = ast.parse(source)
    seeded = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in SEEDED}
    found = []
    for node in ast.walk(tree):
        names = [name for name in _imported(node) if name.partition(".")[0] in forbidden | FORBIDDEN_ATTRIBUTES]
        names += _unseeded(node, seeded)
        if isinstance(node, ast.Attribute) and node.attr in FORBIDDEN_ATTRIBUTES and not _passed_in(node.value):
            names.append(ast.unparse(node))
        found += [f"{path}:{getattr(node, 'lineno', 0)}: {name}" for name in names]
    return found


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        yield node.module or ""
        if node.module == "os":
            yield from (alias.name for alias in node.names)


def _unseeded(node: ast.AST, seeded: set[int]) -> Iterator[str]:
    """Dice that nobody passed in. Both modules go by their own names, so that they are found."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.asname and alias.name in ("random", "numpy.random"))
    if isinstance(node, ast.ImportFrom) and node.module in ("random", "numpy.random"):
        yield from (alias.name for alias in node.names if alias.name not in SEEDED)
    if isinstance(node, ast.ImportFrom) and node.module == "numpy":
        yield from (alias.name for alias in node.names if alias.name == "random")
    if isinstance(node, ast.Attribute) and (
        (node.attr not in SEEDED and _named(node.value, "random"))
        or (node.attr == "random" and id(node) not in seeded and _named(node.value, "np", "numpy"))
    ):
        yield ast.unparse(node)
    if isinstance(node, ast.Call) and not node.args and not node.keywords:
        yield from {ast.unparse(node.func).rpartition(".")[2]} & SEEDED


def _passed_in(node: ast.AST) -> bool:
    """An object of ours that happens to have such an attribute; the time of a simulated world is virtual."""
    return _named(node, "self", "world") or (isinstance(node, ast.Attribute) and node.attr == "world")


def _named(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Name) and node.id in names


def test_where_things_are_decided_clock_and_chance_are_passed_in(files: dict[str, str]) -> None:
    checked = {
        path: text
        for path, text in files.items()
        if path.startswith("eventmesh/") and path.endswith(".py") and not path.startswith(EDGES)
    }
    assert checked.keys() >= EXCEPT.keys() | {"eventmesh/log/batch.py", "eventmesh/runtime/task.py"}
    assert [line for path, text in checked.items() for line in impurities(path, text)] == []


def test_no_module_is_excepted_from_what_it_does_not_do(files: dict[str, str]) -> None:
    for path, (names, _) in EXCEPT.items():
        imported = {name for node in ast.walk(ast.parse(files[path])) for name in _imported(node)}
        assert names <= imported, path


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from random import choice",
        "import random\nx = random.random()",
        "import random\nx = random.Random()",
        "import random as r",
        "import threading as t",
        "import os",
        "import os.path",
        "from concurrent.futures import Executor",
        "import datetime\nx = datetime.datetime.now()",
        "import numpy as np\nx = np.random.default_rng()",
        "import numpy as np\nx = np.random.rand(3)",
        "import numpy as np\nx = np.random",
        "from numpy import random",
        "from numpy.random import rand",
    ],
)
def test_an_impure_module_is_found(source: str) -> None:
    assert impurities("eventmesh/views.py", source)


@pytest.mark.parametrize(
    "source",
    [
        "import random\ndice = random.Random(7)",
        "from random import Random\ndice = Random(f'crashes of {seed}')",
        "import numpy as np\ndice = np.random.default_rng([seed, life])\nx = dice.random(3)",
        "import numpy as np\ndef draw(dice: np.random.Generator): return dice.random()",
        "class Simulation:\n    def clock(self): return self.now",
    ],
)
def test_what_is_passed_in_may_be_used(source: str) -> None:
    assert impurities("eventmesh/views.py", source) == []


def test_storage_may_use_files_but_not_the_environment() -> None:
    assert impurities("eventmesh/log/storage.py", "import os\nos.fsync(3)") == []
    assert impurities("eventmesh/log/storage.py", "import os\nx = os.environ['A']")
    assert impurities("eventmesh/log/storage.py", "from os import environ")

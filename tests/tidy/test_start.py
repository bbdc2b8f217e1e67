"""Given a user who asks for help, then nothing heavy is imported: help must not wait for Ray."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from docs import commands

HEAVY = {"duckdb", "numpy", "pyarrow", "ray", "scipy"}
# `-X importtime` writes one line per imported module to stderr: "import time: self | cumulative | name".
COUNT_IMPORTS = [sys.executable, "-X", "importtime"]


def imported(command: list[str], root: Path) -> set[str]:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=50, check=False)
    said = done.stderr.splitlines()
    mine = [line for line in said if not line.startswith("import time:")]
    if done.returncode != 0:
        pytest.fail("\n".join(mine) or f"exit code {done.returncode}")
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in said if line not in mine}


def test_help_of_cli_py_imports_nothing_heavy(root: Path) -> None:
    modules = imported([*COUNT_IMPORTS, "cli.py", "--help"], root)
    assert "typer" in modules
    assert modules & HEAVY == set()


def test_help_of_the_installed_command_imports_nothing_heavy(root: Path) -> None:
    # The console script's own body: import what the entry point names, call it.
    scripts = importlib.metadata.entry_points(group="console_scripts", name="eventmesh")
    target = next(iter(scripts)).value if scripts else "cli:main"
    module, _, function = target.partition(":")
    body = f"import sys; sys.argv = ['eventmesh', '--help']; from {module} import {function}; {function}()"
    modules = imported([*COUNT_IMPORTS, "-c", body], root)
    assert "typer" in modules
    assert modules & HEAVY == set()


def test_help_of_every_command_imports_nothing_heavy(root: Path) -> None:
    names = [name.split()[1:] for name, _ in commands.commands()]
    assert ["log", "read"] in names
    body = (
        f"import cli, sys\nfor words in {names}:\n"
        "    try: cli.app([*words, '--help'])\n"
        "    except SystemExit as ended: assert ended.code == 0, words\n"
    )
    modules = imported([*COUNT_IMPORTS, "-c", body], root)
    assert "typer" in modules
    assert modules & HEAVY == set()


@pytest.mark.parametrize("module", ["numpy"])
def test_a_heavy_import_would_be_seen(root: Path, module: str) -> None:
    assert module in imported([*COUNT_IMPORTS, "-c", f"import {module}"], root)


def test_a_process_of_a_mesh_imports_no_more_than_it_works_with(root: Path) -> None:
    body = (
        "import sys, eventmesh.shop, eventmesh.runtime.process.broker_member\n"
        "sys.exit(' '.join({'duckdb', 'ray', 'eventmesh.shop.checks'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", body], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# What a library such as Ray holds and never gives back: here a class of the module that keeps the engine.
AUDIT_AND_END = """
import ctypes
from pathlib import Path
from eventmesh import mesh
from eventmesh.audit import evidence
from eventmesh.lab.simulated_run import run_simulated
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history

ctypes.pythonapi.Py_IncRef(ctypes.py_object(evidence.Evidence))
run = run_simulated(mesh.load(Path("configs/meshes/views.yaml")), of_history(generate(4, seed=1)), seed=1)
print(run.audit().verdict)
"""


def test_a_process_that_audited_ends_without_a_word_of_the_engines(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", AUDIT_AND_END], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "valid\n", "")

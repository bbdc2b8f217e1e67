"""Given a wheel of the project, away from any checkout, then its commands do what they do in one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

#: What the installed command does, and then: nothing of ours may have come from anywhere but the wheel.
COMMAND = """
import sys
from eventmesh.__main__ import main
try:
    main()
finally:
    names = {name for name in sys.modules if name.split(".")[0] in {"benchmarks", "cli", "eventmesh"}}
    ours = {name: sys.modules[name] for name in names}
    strange = sorted(name for name, module in ours.items() if not str(module.__file__).startswith(sys.path[-1]))
    if strange or not {"cli", "eventmesh"} <= set(ours):
        print("not of the wheel:", strange, file=sys.stderr)
"""
SALES = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n" + "".join(
    f"5363{number},85123A,HOLDER,6,2010-12-01 08:26:00,2.55,17850,United Kingdom\n" for number in range(10, 14)
)
Ended = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy: what an earlier build left in the checkout must not get into it."""
    copy, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, copy / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    ended = subprocess.run([*pip, "--wheel-dir", built, copy], cwd=copy, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    [path] = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked as an installer does."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    return folder


@pytest.fixture
def installed(site: Path, tmp_path: Path) -> Callable[..., Ended]:
    """``installed(word, ..., neighbours=folder)``: the command, in an empty folder."""
    program = COMMAND.replace("sys.path[-1]", repr(str(site)))

    def run(*words: str, neighbours: Path | None = None, folder: Path = tmp_path) -> Ended:
        paths = os.pathsep.join(str(path) for path in (neighbours, site) if path is not None)
        environment = {**os.environ, "PYTHONPATH": paths, "EVENTMESH_STATE": str(tmp_path / "state")}
        command = [sys.executable, "-P", "-c", program, *words]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    return run


def test_a_wheel_brings_one_name_and_all_that_ships(wheel: Path, files: dict[str, str]) -> None:
    with zipfile.ZipFile(wheel) as packed:
        inside = {name for name in packed.namelist() if ".dist-info/" not in name}
    library = {name for name in files if name.startswith("eventmesh/")} | {"eventmesh/py.typed"}
    beside = {name for name in files if name == "cli.py" or name.startswith(("benchmarks/", "configs/"))}
    assert inside == library | {f"eventmesh/_shipped/{name}" for name in beside}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("demo", "asked (wiring: request)"),
        ("describe views", "flowchart LR"),
        ("bench list", "join-scaling"),
        ("chaos list", "inventory-down"),
        ("chaos validate split", "orders and the broker are cut off"),
        ("bench run join-scaling --quick -n", "view"),
        ("bench run backbone -n", "the start of the mesh views"),
        ("run views -n", "wiring"),
        ("run request -n --input sales.csv --mapping online-retail", "import"),
        ("bench run replay -n --input sales.csv --mapping online-retail", "views"),
        ("up views -n", "shop"),
    ],
)
def test_a_command_away_from_a_checkout(installed: Callable[..., Ended], tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "sales.csv").write_text(SALES)
    ended = installed(*line.split())
    assert (ended.returncode, ended.stderr) == (0, "")
    assert said in ended.stdout


@pytest.mark.timeout(300)  # five commands and a run of pytest, one after the other
def test_a_new_application_away_from_a_checkout(installed: Callable[..., Ended], site: Path, tmp_path: Path) -> None:
    """All that is typed next works in the folder where it was made, and so do its tests."""
    made = installed("new", "bikes", "--json")
    assert (made.returncode, made.stderr) == (0, "")
    for line, said in zip(json.loads(made.stdout)["next"], ("valid", "audit valid", "0 findings"), strict=True):
        ended = installed(*line.split()[1:])
        assert ended.returncode == 0, ended
        assert said in ended.stdout
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-P", "-m", "pytest", "-q", "bikes"]
    tested = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (tested.returncode, "12 passed" in tested.stdout) == (0, True), tested.stdout


def test_what_lies_in_the_folder_takes_the_place_of_no_library(installed: Callable[..., Ended], tmp_path: Path) -> None:
    assert installed("new", "bikes").returncode == 0
    (tmp_path / "colorsys.py").write_text("raise SystemExit('the one that lies there')\n")
    (tmp_path / "bikes" / "checks.py").write_text("import colorsys\n\nCHECKS = {}\n")
    assert installed("describe", "bikes/told.yaml").returncode == 0
    (tmp_path / "elsewhere").mkdir()
    elsewhere = installed("describe", "../bikes/told.yaml", folder=tmp_path / "elsewhere")
    assert (elsewhere.returncode, elsewhere.stdout) == (2, "")
    assert "Is it installed, in the current folder, or its folder on PYTHONPATH?" in elsewhere.stderr


def test_a_path_wins_over_what_ships(installed: Callable[..., Ended], root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "configs" / "meshes" / "request.yaml", tmp_path / "views")
    assert json.loads(installed("run", "views", "-n", "--json").stdout)["wiring"] == "request"
    (tmp_path / "views").unlink()
    (tmp_path / "views").mkdir()  # a folder is no mesh file
    assert json.loads(installed("run", "views", "-n", "--json").stdout)["wiring"] == "views"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run viewz -n", "viewz: no such file. No mesh of that name ships either. Did you mean 'views'?"),
        ("describe viewz", "Allowed: hybrid, request, views; or the path of a file"),
        ("up viewz -n", "Did you mean 'views'?"),
        ("run configs/meshes/views.yaml -n", "Meshes that ship, by name: hybrid, request, views"),
        ("run views -n --input sales.csv --mapping retail", "No mapping of that name ships either."),
        (
            "bench run replay -n --input sales.csv --mapping a/b.yaml",
            "Mappings that ship, by name: marketplace, online-retail",
        ),
        ("bench run join-scale", "no benchmark 'join-scale'. Did you mean 'join-scaling'?"),
    ],
)
def test_a_name_that_does_not_ship(installed: Callable[..., Ended], tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "sales.csv").write_text(SALES)
    ended = installed(*line.split())
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_another_project_may_install_the_same_names(installed: Callable[..., Ended], tmp_path: Path) -> None:
    for name in ("cli", "benchmarks"):
        (tmp_path / "neighbours" / name).mkdir(parents=True)
        (tmp_path / "neighbours" / name / "__init__.py").write_text("raise SystemExit('the other one')\n")
    ended = installed("bench", "list", neighbours=tmp_path / "neighbours")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "join-scaling" in ended.stdout


def test_what_comes_from_elsewhere_would_be_seen(installed: Callable[..., Ended], root: Path) -> None:
    assert "not of the wheel" in installed("bench", "list", neighbours=root).stderr

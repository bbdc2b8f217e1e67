"""Given CONTRIBUTING.md, then its steps are complete: done in a copy of the project, they give what the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(180)  # each starts a few Pythons
PAGE = "CONTRIBUTING.md"
COPIED = ("benchmarks", "configs", "eventmesh", "tests")
#: A whole run of the new wiring, as far as it goes without Ray.
RUN = """\
from eventmesh import mesh
from eventmesh.lab.simulated_run import run_simulated
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
done = run_simulated(mesh.load("configs/meshes/trusting.yaml"), of_history(generate(20, seed=1)), seed=1)
print(done.audit().describe(), set(done.history.callers["outcome"].to_pylist()))
"""


def block(page: str, start: str) -> str:
    """The one block of code that begins with ``start``, without the indentation of its step."""
    blocks = [textwrap.dedent(code) for code in re.findall(r"^ *```\w+\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)]
    (found,) = (code for code in blocks if code.startswith(start))
    return found


def quoted(page: str, words: str) -> str:
    """The piece in backquotes that begins with ``words``."""
    (found,) = set(re.findall(rf"`({re.escape(words)}[^`]*)`", page))
    return str(found)


@pytest.fixture(scope="module")
def copy(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        shutil.copytree(root / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("cli.py", "pyproject.toml"):
        shutil.copy(root / name, target / name)
    return target


def change(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert text.count(before) == 1, f"{file.name}: {before!r} stands there {text.count(before)} times"
    file.write_text(text.replace(before, after))


def done(copy: Path, *command: str) -> tuple[int, str]:
    """Exit code and output of a Python command in the copy, whose files win over those that are installed."""
    ended = subprocess.run(
        [sys.executable, *command], cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, capture_output=True,
        text=True, timeout=55, check=False,
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr


def clean(copy: Path, *written: str) -> None:
    """What was written has the project's style."""
    for words in (("check",), ("format", "--check")):
        code, said = done(copy, "-m", "ruff", *words, "--no-cache", *written)
        assert code == 0, said


def test_a_check_is_added(files: dict[str, str], copy: Path) -> None:
    page, checks = files[PAGE], copy / "eventmesh" / "shop" / "checks.py"
    canaries = copy / "tests" / "unit" / "test_audit_canaries.py"
    tried = ("-m", "pytest", "-q", "-p", "no:cacheprovider", str(canaries), "-k", "E12 or every_check")
    registry = "\nCHECKS: dict[str, Check] = {\n"
    change(checks, registry, f"\n{block(page, 'def rejections_say_why')}\n\n{registry.lstrip()}")
    change(checks, registry, f"{registry}    {quoted(page, chr(34) + 'E12' + chr(34) + ':')},\n")
    code, said = done(copy, *tried)
    assert (code, "no canary" in said) == (1, True), said

    change(canaries, "\n# --- the table ", f"\n{block(page, 'def rejected_because')}\n\n# --- the table ")
    flagged, passed = (quoted(page, f'("E12", told("E12", rejected_because({given}') for given in ("None", '"pay'))
    for table, entry in (("CANARIES", flagged), ("NEAR_MISSES", passed)):
        opening = f"\n{table}: list[tuple[str, Judge]] = [\n"
        change(canaries, opening, f"{opening}    {entry},\n")
    code, said = done(copy, *tried)
    assert (code, "3 passed" in said) == (0, True), said
    clean(copy, str(checks), str(canaries))


def test_a_wiring_is_added(files: dict[str, str], copy: Path) -> None:
    wirings, meshes = copy / "eventmesh" / "shop" / "wirings", copy / "configs" / "meshes"
    (wirings / "trusting.py").write_text(block(files[PAGE], '"""``trusting``'))
    change(wirings / "__init__.py", "request, views\n", "request, trusting, views\n")
    entry = quoted(files[PAGE], '"trusting":')
    change(wirings / "__init__.py", '    "views": views', f'    {entry},\n    "views": views')
    text = (meshes / "views.yaml").read_text().replace(": views\n", ": trusting\n")
    joins = quoted(files[PAGE], "joins:")
    text, changed = re.subn(r"(?<=  orders:\n    listens: )(.*\n    )views: .*", rf"\1{joins}", text)
    assert changed == 1
    (meshes / "trusting.yaml").write_text(text)
    code, said = done(copy, "cli.py", "run", "configs/meshes/trusting.yaml", "--orders", "20", "--dry-run")
    assert (code, "trusting" in said) == (0, True), said
    assert done(copy, "-c", RUN) == (0, "audit: valid {'confirmed'}\n")
    clean(copy, str(wirings))


def test_a_benchmark_is_added(files: dict[str, str], copy: Path) -> None:
    page, catalog = files[PAGE], copy / "benchmarks" / "catalog.py"
    (copy / "benchmarks" / "audit_speed.py").write_text(block(page, '"""How fast the audit is'))
    settings = block(page, "schema: eventmesh.benchmark/1")
    (copy / "configs" / "benchmarks" / "audit-speed.yaml").write_text(settings)
    change(
        catalog, "from benchmarks.backbone", "from benchmarks.audit_speed import AuditSpeed\nfrom benchmarks.backbone"
    )
    change(catalog, '    "backbone":', f'    {quoted(page, chr(34) + "audit-speed" + chr(34) + ":")},\n    "backbone":')
    code, said = done(copy, "cli.py", "bench", "run", "audit-speed", "--quick", "--output", "measured")
    assert (code, "### audit-speed-quick: valid" in said) == (0, True), said
    assert (copy / "measured" / "report.html").is_file()
    code, said = done(
        copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/benchmarks/test_catalog.py", "-k", "speed or kind"
    )
    assert (code, "3 passed" in said) == (0, True), said
    clean(copy, str(copy / "benchmarks"))

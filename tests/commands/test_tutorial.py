"""Given a reader who types what docs/tutorial.md and docs/how-to.md say, then all comes out as they say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.conftest import Run
from tests.commands.walk import Walk, blocks, sections, walking
from tests.contract.conftest import ROOT

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
HOW_TO = sections((ROOT / "docs" / "how-to.md").read_text())
#: What starts Ray is not started, and a search for what nobody has yet is kept short.
INSTEAD = {
    "--repairs 2000": "--repairs 2000 --dry-run",
    "--seeds 10": "--seeds 2 --jobs 1",
    "eventmesh run --name workshop": "eventmesh run workshop/told.yaml --dry-run",
    "up workshop/told.yaml": "up workshop/told.yaml --dry-run",
    "status --name workshop": "status --help",
    "down --name workshop": "down --help",
}


@pytest.fixture
def reader(eventmesh: Run) -> Iterator[Walk]:
    yield from walking(eventmesh, "workshop", INSTEAD)


def told_by_pytest(package: Path) -> str:
    """What pytest says of the tests that came with it, in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(package)]
    return subprocess.run(command, cwd=package.parent, capture_output=True, text=True, check=False).stdout


@pytest.mark.timeout(300)
def test_the_tutorial_can_be_followed(reader: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader.through(TUTORIAL)
    assert len(reader.typed) > 25
    assert sum("--dry-run" in line for line in reader.typed) == 4, "what starts Ray"
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert "12 passed" in told_by_pytest(tmp_path / "workshop")


@pytest.mark.parametrize("title", HOW_TO)
def test_each_how_to_can_be_followed(reader: Walk, title: str) -> None:
    assert reader.eventmesh("new", "workshop").code == 0
    reader.through(HOW_TO[title])
    assert reader.typed


def test_every_how_to_shows_code_and_runs_it() -> None:
    assert len(HOW_TO) >= 4
    for title, text in HOW_TO.items():
        assert {"diff", "sh"} <= {language for language, _ in blocks(text)}, title


def test_a_page_that_says_what_is_not_so_is_found(reader: Walk) -> None:
    begin = "```sh\neventmesh new workshop\n```\n"
    with pytest.raises(AssertionError, match="made nothing"):
        reader.through(begin + "```text\nmade nothing\n```\n")
    with pytest.raises(AssertionError, match="not there"):
        reader.through("```diff\n--- workshop/facts.py\n-not there\n+there\n```\n")
    with pytest.raises(AssertionError, match="check"):
        reader.through("```sh\neventmesh check workshop/told.yaml    # exits with 3\n```\n")

"""Given what the project depends on, then it is pinned, and the first of the decisions says why it is there."""

from __future__ import annotations

import re
import tomllib

import pytest

REASONS = "docs/decisions/0001-dependencies.md"


def normal(name: str) -> str:
    """A package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(files: dict[str, str]) -> dict[str, str]:
    lines = [line for line in files["requirements.txt"].splitlines() if line and not line.startswith("#")]
    return {normal(name): version for name, _, version in (line.partition("==") for line in lines)}


def direct(files: dict[str, str]) -> set[str]:
    project = tomllib.loads(files["pyproject.toml"])
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["check"]]
    wanted += project["build-system"]["requires"]
    return {normal(re.split(r"[<>=\[]", each)[0]) for each in wanted}


def reasons(files: dict[str, str]) -> dict[str, str]:
    """The table's packages with the version it names; a row without a reason does not count."""
    rows = re.findall(r"^\| ([\w.-]+) \| (\d[\w.]*) \| \S.+\|$", files[REASONS], re.MULTILINE)
    return {normal(name): version for name, version in rows}


def test_every_requirement_is_pinned_and_nothing_else(files: dict[str, str]) -> None:
    lines = [line for line in files["requirements.txt"].splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert len(lines) == len(pinned(files)), "a package stands twice"


def test_every_direct_dependency_is_pinned(files: dict[str, str]) -> None:
    assert direct(files) - set(pinned(files)) == set()


def test_every_direct_dependency_has_a_reason_and_the_pinned_version(files: dict[str, str]) -> None:
    assert reasons(files) == {name: version for name, version in pinned(files).items() if name in direct(files)}


@pytest.mark.parametrize("row", ["| ray |  | actors |", "| ray | 2.60.0 | |", "ray 2.60.0 actors"])
def test_a_row_without_version_or_reason_does_not_count(row: str) -> None:
    assert reasons({REASONS: row}) == {}
    assert reasons({REASONS: "| ray | 2.60.0 | actors |"}) == {"ray": "2.60.0"}

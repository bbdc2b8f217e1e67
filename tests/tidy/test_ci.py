"""Given the files for hosts that build every change, then they run what a person runs, on a supported Python."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml

GITHUB, GITLAB, HERE = ".github/workflows/ci.yml", ".gitlab-ci.yml", ".ci/run"
Steps = tuple[list[str], str]  # the commands, and the version of Python


def github(text: str) -> Steps:
    steps = yaml.safe_load(text)["jobs"]["test"]["steps"]
    (version,) = (step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", ""))
    return [step["run"] for step in steps if "run" in step], version


def gitlab(text: str) -> Steps:
    job = yaml.safe_load(text)["test"]
    image, _, version = job["image"].partition(":")
    assert image == "python"
    return job["script"], version


def mistakes(files: dict[str, str]) -> list[str]:
    """What is wrong with the two files, a line each."""
    (here,) = re.findall(r"^exec (.+)$", files[HERE], re.MULTILINE)
    tested = tomllib.loads(files["pyproject.toml"])["tool"]["mypy"]["python_version"]
    found = []
    for path, read in ((GITHUB, github), (GITLAB, gitlab)):
        commands, version = read(files[path])
        found += [] if commands == [here] else [f"{path} runs {commands}, {HERE} runs {here}"]
        found += [] if version == tested else [f"{path} has Python {version}, tested is {tested}"]
    used = re.findall(r"uses: (\S+)", files[GITHUB])
    found += [
        f"{GITHUB} uses {each}" for each in used if not re.fullmatch(r"actions/(checkout|setup-python)@v\d+", each)
    ]
    return found


def test_every_host_runs_what_a_person_runs(files: dict[str, str]) -> None:
    assert mistakes(files) == []
    assert "make test" in files["README.md"]


def test_the_oldest_python_that_is_supported_is_the_one_that_is_tested(files: dict[str, str]) -> None:
    project = tomllib.loads(files["pyproject.toml"])
    assert project["project"]["requires-python"] == f">={project['tool']['mypy']['python_version']}"


def test_both_are_started_by_a_push(files: dict[str, str]) -> None:
    triggers: Any = yaml.safe_load(files[GITHUB])[True]  # YAML 1.1 reads the key "on" as true
    assert triggers == ["push", "pull_request"]
    assert not {"rules", "only", "when"} & set(yaml.safe_load(files[GITLAB])["test"])


@pytest.mark.parametrize(
    ("path", "before", "after", "said"),
    [
        (GITHUB, "run: make test", "run: make check", "runs ['make check']"),
        (GITLAB, "- make test", "- python -m pytest", "runs ['python -m pytest']"),
        (HERE, "exec make test", "exec make check", "runs ['make test']"),
        (GITHUB, '"3.11"', '"3.10"', "has Python 3.10"),
        (GITLAB, "python:3.11", "python:3.14", "has Python 3.14"),
        (GITHUB, "actions/checkout@v4", "someone/checkout@v4", "uses someone/checkout@v4"),
        (GITHUB, "actions/checkout@v4", "actions/checkout@main", "uses actions/checkout@main"),
    ],
)
def test_a_mistake_is_found(files: dict[str, str], path: str, before: str, after: str, said: str) -> None:
    assert before in files[path]
    found = mistakes({**files, path: files[path].replace(before, after)})
    assert any(said in line for line in found), found

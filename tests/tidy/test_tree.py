"""Given the project's files, then nothing in them ties it to one machine, and no promise is left as a stub."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

# Written in pieces where the whole would make this file an offender itself.
MACHINE = re.compile(r"(?:^|[\s\"'=(`])/(?:home|root|work|farm|Users|tmp)/[A-Za-z0-9]", re.MULTILINE)
REGISTRY = re.compile(r"(?:pypi\.org|files\.pythonhosted|registry\.npmjs|crates\.io)|https?://\S+\.(?:whl|tgz|tar\.gz)")
STUB = re.compile(r"\bNotImplemented" r"Error|\bTO" r"DO\b|\bFIX" r"ME\b|\bX" r"XX\b|except(?: \w+)?:\s*pass\b")
# This file must spell what it looks for.
HERE = "tests/tidy/test_tree.py"


def offenders(files: dict[str, str], pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path}:{text.count(chr(10), 0, match.end()) + 1}: {match.group().strip()}"
        for path, text in files.items()
        if path != HERE
        for match in pattern.finditer(text)
    ]


def test_no_file_names_a_path_of_one_machine(files: dict[str, str]) -> None:
    assert offenders(files, MACHINE) == []


def test_no_file_names_a_package_registry(files: dict[str, str]) -> None:
    assert offenders(files, REGISTRY) == []


def test_no_code_is_a_stub_or_silences_an_error(files: dict[str, str]) -> None:
    code = {path: text for path, text in files.items() if path.endswith(".py")}
    assert offenders(code, STUB) == []


def test_every_folder_of_tests_is_run(root: Path, files: dict[str, str]) -> None:
    found = {"/".join(path.split("/")[:2]) for path in files if re.fullmatch(r"tests/\w+/.*test_\w+\.py", path)}
    named = re.findall(r"^(?:BEFORE|TIMELESS|ALONE) := (.+)$", files["Makefile"], re.MULTILINE)
    assert len(named) == 3
    assert sorted(" ".join(named).split()) == sorted(found)


def test_the_changelog_tells_of_this_version(root: Path, files: dict[str, str]) -> None:
    version = re.search(r'__version__ = "(.+)"', files["eventmesh/__init__.py"])
    assert version is not None
    assert re.search(rf"^## {re.escape(version.group(1))}\b", files["CHANGELOG.md"], re.MULTILINE)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (MACHINE, 'open("/home/anna/data.csv")'),
        (MACHINE, "/root/x"),
        (REGISTRY, "index-url = https://pypi.org/simple"),
        (REGISTRY, "see https://example.com/a.whl"),
        (STUB, "raise NotImplementedError"),
        (STUB, "# TODO: later"),
        (STUB, "except:\n        pass"),
        (STUB, "except OSError: pass"),
    ],
)
def test_the_checks_find_what_they_look_for(pattern: re.Pattern[str], text: str) -> None:
    assert offenders({"canary": text}, pattern)


@pytest.mark.parametrize(
    "text",
    ["{target}/work/x", "docs/home/a", "the TODOs of others", "ArrowNotImplementedError", "except OSError:\n    log()"],
)
def test_the_checks_pass_what_is_near(text: str) -> None:
    assert [offenders({"near": text}, pattern) for pattern in (MACHINE, REGISTRY, STUB)] == [[], [], []]

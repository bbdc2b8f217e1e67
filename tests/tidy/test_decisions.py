"""Given the decisions, then each has a file with the same four parts, and the index lists every one as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

FOLDER = "docs/decisions/"
INDEX = FOLDER + "README.md"
NAME = re.compile(r"(\d{4})-[a-z0-9]+(?:-[a-z0-9]+)*\.md")
PAGE = re.compile(
    r"# (?P<number>\d+)\. (?P<title>\S.*)\n\nStatus: (?P<status>[^\n]+(?:\n[^\n]+)*)\.\n\n"
    r"## Context\n\n\S.*?\n\n## Decision\n\n\S.*?\n\n## Reasons and figures\n\n\S.*?\n\n## Consequences\n\n\S.*\n",
    re.DOTALL,
)
ROW = re.compile(r"^\| (\d+) \| \[(.+)\]\(([^)]+)\) \| (\S.*?) \| (\S.*?) \|$", re.MULTILINE)


def mistakes(files: Mapping[str, str]) -> list[str]:
    """What is wrong with the decisions or their index, a line each."""
    pages = {path.removeprefix(FOLDER): text for path, text in sorted(files.items()) if path.startswith(FOLDER)}
    index = pages.pop("README.md")
    found = [f"{name}: not NNNN-short-title.md" for name in pages if not NAME.fullmatch(name)]
    numbers = [int(name[:4]) for name in pages if NAME.fullmatch(name)]
    found += [] if numbers == list(range(1, len(numbers) + 1)) else [f"numbers have a gap or a double: {numbers}"]
    rows = {name: (number, title, status) for number, title, name, _, status in ROW.findall(index)}
    for name, text in pages.items():
        page = PAGE.fullmatch(text)
        if page is None:
            found.append(f"{name}: expected title, status, and the four parts in their order")
        elif page["number"].zfill(4) != name[:4] or rows.get(name) != _row(page):
            found.append(f"{name}: the index says {rows.get(name)}, the file {_row(page)}")
    return found + [f"the index names {name}, which is not there" for name in rows if name not in pages]


def _row(page: re.Match[str]) -> tuple[str, str, str]:
    """Number, title and status as the index has them: links within a status as plain words."""
    status = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", " ".join(page["status"].split()))
    return page["number"], page["title"], status


def test_each_decision_has_its_parts_and_stands_in_the_index(files: dict[str, str]) -> None:
    assert len([path for path in files if path.startswith(FOLDER)]) > 50
    assert mistakes(files) == []


TEXT = """\
# 1. Frames are ours

Status: holds; see [decision 2](0002-b.md).

## Context

A.

## Decision

B.

## Reasons and figures

C.

## Consequences

D.
"""
GOOD = {
    FOLDER + "0001-frames.md": TEXT,
    INDEX: "| 1 | [Frames are ours](0001-frames.md) | Ours. | holds; see decision 2 |\n",
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({FOLDER + "0001-frames.md": TEXT.replace("## Context\n\nA.\n\n", "")}, ["expected title, status"]),
        ({FOLDER + "0001-frames.md": TEXT.replace("B.\n", "")}, ["expected title, status"]),
        ({FOLDER + "0001-frames.md": TEXT.replace("# 1.", "# 2.")}, ["0001-frames.md: the index says"]),
        ({INDEX: GOOD[INDEX].replace("Frames", "Flames")}, ["0001-frames.md: the index says"]),
        ({INDEX: GOOD[INDEX].replace("holds;", "gone;")}, ["0001-frames.md: the index says"]),
        ({INDEX: ""}, ["0001-frames.md: the index says None"]),
        ({INDEX: GOOD[INDEX] + "| 2 | [B](0002-b.md) | B. | holds |\n"}, ["names 0002-b.md, which is not there"]),
        ({FOLDER + "0003-c.md": TEXT}, ["numbers have a gap", "0003-c.md: the index says"]),
        ({FOLDER + "Frames.md": TEXT}, ["Frames.md: not NNNN", "Frames.md: the index says"]),
    ],
)
def test_a_mistake_is_found(change: dict[str, str], said: list[str]) -> None:
    found = mistakes(GOOD | change)
    assert len(found) == len(said), found
    assert all(words in line for words, line in zip(said, found, strict=True)), found

"""Given the pages that people read, then their lines fit a screen, and every link leads to what is there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import pytest

COLUMNS = 100
CODE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")


def pages(files: Mapping[str, str]) -> dict[str, str]:
    return {path: text for path, text in files.items() if path.endswith(".md")}


def without_code(text: str) -> str:
    """The page with its blocks of code left empty, line by line."""
    return CODE.sub(lambda block: "\n" * block.group().count("\n"), text)


def too_long(text: str) -> list[int]:
    """Numbers of the lines of prose that are too long: tables, code, and where links lead to do not count."""
    lines = enumerate(re.sub(r"\]\([^)\s]+\)", "]", without_code(text)).splitlines(), 1)
    return [number for number, line in lines if len(line) > COLUMNS and not line.lstrip().startswith("|")]


def anchors(text: str) -> set[str]:
    """The headings of a page as links name them: lower case, hyphens for spaces, letters and digits kept."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(path: str, files: Mapping[str, str], exists: set[str]) -> Iterator[str]:
    """The links of a page that lead to no file or to no heading; addresses on the web are not looked up."""
    for target in LINK.findall(without_code(files[path])):
        if "://" in target:
            continue
        place, _, anchor = target.partition("#")
        found = resolved(path, place) if place else path
        if found not in exists or (anchor and anchor not in anchors(files[found])):
            yield f"{path}: {target}"


def resolved(path: str, place: str) -> str:
    """Where a relative link leads, from the root of the project."""
    parts: list[str] = []
    for part in (PurePosixPath(path).parent / place).parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


def test_lines_fit(files: dict[str, str]) -> None:
    found = pages(files)
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/formats.md"} <= found.keys()
    assert {path: too_long(text) for path, text in found.items() if too_long(text)} == {}


def test_links_lead_somewhere(files: dict[str, str], root: Path) -> None:
    pictures = {f"docs/images/{path.name}" for path in (root / "docs" / "images").iterdir()}
    exists = {*files, *pictures, *(str(parent) for path in files for parent in PurePosixPath(path).parents)}
    assert [link for path in pages(files) for link in broken(path, files, exists)] == []


def test_the_first_page_is_short(files: dict[str, str]) -> None:
    lines = files["README.md"].splitlines()
    assert len(lines) <= 100
    first = "\n".join(lines[:24])
    assert all(word in first for word in ("make bench", "make test", "report.html", "ask", "listen"))


LONG = "word " * 25


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (f"# A\n\n{LONG}\n", [3]),
        (f"```\n{LONG}\n```\n{LONG}\n", [4]),
        (f"1. a\n\n   ```python\n   {LONG}\n   ```\n\n   {LONG}\n", [7]),
        (f"| {LONG} |\n", []),
        (f"{'w' * 90} [a](b/{'c' * 90}.md)\n", []),
        (f"[a](b.md) {LONG}\n", [1]),
        (f"[a\nb]({'c' * 90}.md) {LONG}\n", [2]),
    ],
)
def test_a_line_that_is_too_long_is_found(text: str, numbers: list[int]) -> None:
    assert too_long(text) == numbers


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("[b](b.md)", []),
        ("[b](../README.md#two-words-more)", []),
        ("[b](#one)", []),
        ("[web](https://example.org/x)", []),
        ("[b](c.md)", ["docs/a.md: c.md"]),
        ("[b](../README.md#three)", ["docs/a.md: ../README.md#three"]),
        ("[b](#two)", ["docs/a.md: #two"]),
    ],
)
def test_a_link_to_nowhere_is_found(link: str, said: list[str]) -> None:
    files = {"docs/a.md": f"# One\n\n{link}\n", "docs/b.md": "", "README.md": "# Two `words`, more\n"}
    assert list(broken("docs/a.md", files, set(files))) == said

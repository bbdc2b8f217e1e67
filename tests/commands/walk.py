"""Does what a page tells its reader to do: types its command lines, makes its changes, and looks for what it shows."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from eventmesh.lab import fuzz_case
from tests.commands.conftest import Run

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXITS = re.compile(r"# exits with (\d)")


def blocks(page: str) -> list[tuple[str, str]]:
    """Each block of code with its language, in order."""
    return BLOCK.findall(page)


def sections(page: str) -> dict[str, str]:
    """The text below each heading of the second level, by heading."""
    _, *parts = re.split(r"^## ", page, flags=re.MULTILINE)
    return dict(part.split("\n", 1) for part in parts)  # type: ignore[misc]


def forget(package: str) -> None:
    """What was imported of a package is not what its files say any more."""
    for name in [each for each in sys.modules if each.partition(".")[0] == package]:
        del sys.modules[name]
    fuzz_case._parsed.cache_clear()


def words_without(text: str) -> str:
    """In one line, its spaces alike: what a terminal folds is one text on a page."""
    return " ".join(text.split())


@dataclass
class Walk:
    """A reader in the current folder. ``instead`` are pieces of command lines that the test types otherwise."""

    eventmesh: Run
    package: str
    instead: Mapping[str, str] = field(default_factory=dict)
    typed: list[str] = field(default_factory=list)
    said: str = ""

    def through(self, page: str) -> Walk:
        """From the first block to the last."""
        for language, body in blocks(page):
            getattr(self, f"_{language}")(body)
        return self

    def _sh(self, body: str) -> None:
        self.said = ""
        for line in body.splitlines():
            wanted = EXITS.search(line)
            for piece, other in self.instead.items():
                line = line.replace(piece, other)
            program, *words = shlex.split(line, comments=True)
            assert program == "eventmesh"
            ended = self.eventmesh(*words)
            assert ended.code == (int(wanted[1]) if wanted else 0), (line, ended)
            self.typed.append(line)
            self.said += words_without(ended.out) + "\n"

    def _text(self, body: str) -> None:
        for line in body.splitlines():
            assert words_without(line) in self.said, (line, self.said)

    def _diff(self, body: str) -> None:
        head, *lines = body.splitlines()
        path = Path(head.removeprefix("--- "))
        before, after = ("".join(f"{line[1:]}\n" for line in lines if line[0] in kept) for kept in (" -", " +"))
        text = path.read_text()
        assert text.count(before) == 1, (path, before)
        path.write_text(text.replace(before, after))
        forget(self.package)

    def _yaml(self, body: str) -> None:
        Path(body.splitlines()[0].removeprefix("# ")).write_text(body)


def walking(eventmesh: Run, package: str, instead: Mapping[str, str]) -> Iterator[Walk]:
    """A reader; what was imported on the way is forgotten in the end, and where it was looked for."""
    paths = list(sys.path)
    forget(package)
    try:
        yield Walk(eventmesh, package, instead)
    finally:
        sys.path[:] = paths
        forget(package)

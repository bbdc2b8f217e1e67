"""What the fuzzer leaves: a line for each seed that it ran, and a file for each finding that runs it again.

Both name the commit, and a checksum of the code: a seed that was run by other code has to be run again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TextIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eventmesh import configuration
from eventmesh.errors import InputError
from eventmesh.lab.fuzz_case import Case, Setup
from eventmesh.lab.fuzz_verdict import Finding
from eventmesh.report import record

SCHEMA = "eventmesh.fuzz/1"
#: The name of the file with a line for each seed.
RESULTS = "results.jsonl"


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True)

    schema_: Literal["eventmesh.fuzz/1"] = Field("eventmesh.fuzz/1", alias="schema")
    commit: str


class SeedResult(_File):
    """What became of one seed; ``struck`` counts by kind the faults that happened."""

    code: str
    mesh: str
    seed: int
    setup: Setup
    variation: dict[str, Any]
    struck: dict[str, int]
    deaths: int
    outcomes: dict[str, int]
    ended: str  # valid, or the verdict or error that it ended with
    found: dict[str, str]
    run_s: float


class FindingFile(_File):
    """A finding: what runs it again, what speaks against it, and the checksum of all that it left."""

    mesh: str
    seed: int
    found: dict[str, str]
    raised: list[str]  # where the error was raised, outermost call first
    digest: str
    shrunk: bool
    case: Case

    @property
    def finding(self) -> Finding:
        """What speaks against it."""
        return Finding(self.found)

    @property
    def name(self) -> str:
        """What the file is called."""
        return f"{self.mesh}-{self.seed}-{'-'.join(self.finding.names)}.json"


def write_finding(folder: Path, finding: FindingFile) -> Path:
    """Write it, whole or not at all; where it is."""
    target = folder / finding.name
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".unfinished")
    unfinished.write_text(finding.model_dump_json(indent=1, by_alias=True) + "\n")
    unfinished.replace(target)
    return target


def read_finding(path: Path) -> FindingFile:
    """Raises :class:`InputError` where it is no such file, or one of another version."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file. `eventmesh fuzz` writes one for each finding")
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: this is no JSON, so it is no finding of `eventmesh fuzz`") from error
    version = document.get("schema") if isinstance(document, dict) else None
    if version != SCHEMA:
        found = configuration.describe(version)
        raise InputError(f"{path}: schema must be {SCHEMA!r}, found {found}: this is a file of another kind or version")
    return configuration.validate(FindingFile, document, file=str(path))


# --- results ------------------------------------------------------------------------------------------


def read_results(folder: Path) -> list[SeedResult]:
    """The results that lie in ``folder``; none where nothing was run yet.

    A last line that is not whole was being written when its command was killed: it is passed over.
    """
    path = folder / RESULTS
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    return [_result(path, number, line) for number, line in enumerate(lines[:-1], 1)]


def _result(path: Path, number: int, line: str) -> SeedResult:
    try:
        return SeedResult.model_validate_json(line)
    except ValidationError as error:
        raise InputError(
            f"{path}: line {number} is no result of the form {SCHEMA}. Name another folder with --output, or begin "
            f"anew without --resume in an empty one"
        ) from error


def open_results(folder: Path) -> TextIO:
    """To append to; what is left of a line that is not whole goes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RESULTS
    whole = path.read_bytes() if path.exists() else b""
    if not whole.endswith(b"\n"):
        with path.open("ab") as file:
            file.truncate(whole.rfind(b"\n") + 1)
    return path.open("a", encoding="utf-8")


def append_result(file: TextIO, result: SeedResult) -> None:
    """A line, at once: who is killed has lost none of those before."""
    file.write(result.model_dump_json(by_alias=True) + "\n")
    file.flush()


# --- which code ---------------------------------------------------------------------------------------


def commit() -> str:
    """That of the checkout which this code is of."""
    return record.commit(Path(__file__).parent)


def code(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """A checksum of eventmesh, of the applications of these meshes, and of the meshes."""
    seen = hashlib.sha256()
    packages = {"eventmesh", *(str(each["application"]) for each in documents.values())}
    for path in sorted({path for package in packages for path in _modules(package)}):
        seen.update(f"{path.name}\0".encode() + path.read_bytes())
    seen.update(json.dumps(documents, sort_keys=True).encode())
    return seen.hexdigest()[:16]


def _modules(package: str) -> Iterator[Path]:
    spec = find_spec(package)
    for place in spec.submodule_search_locations or () if spec is not None else ():
        yield from Path(os.path.realpath(place)).rglob("*.py")


def done(results: Iterable[SeedResult], *, commit: str, code: str) -> dict[int, SeedResult]:
    """By seed, those that this commit and this code have run."""
    return {each.seed: each for each in results if each.commit == commit and each.code == code}

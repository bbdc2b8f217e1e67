"""Given docs/formats.md, then its snippets read the files of a run, and it names every key and column that there is."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

from benchmarks.benchmark import Settings
from eventmesh.history import CALLERS
from eventmesh.lab.experiment import (
    AuditSection,
    Capacity,
    Drain,
    Expected,
    Experiment,
    HeldProbe,
    Hypothesis,
    Load,
    Look,
    Prediction,
    Rollback,
    SimulatedSection,
    Strike,
)
from eventmesh.lab.standing_record import Standing
from eventmesh.log import manifest, segment
from eventmesh.log.batch import BatchKind, Header
from eventmesh.log.store import open_read_only
from eventmesh.log.topic import Topic, TopicSettings
from eventmesh.mesh import LogSection, MeshFile, ServiceSection, TopicSection
from eventmesh.messages import ENVELOPE, REFUSAL
from eventmesh.report import record
from eventmesh.runtime import journal, snapshots
from eventmesh.shop.order_history import REFUSED
from eventmesh.shop.order_mapping import Cancellations, CsvFormat, OrderMapping, Price, Refusals
from tests.commands.small_run import ORDERS, write_run
from tests.tidy import test_view_examples

PAGE = "docs/formats.md"


def keys(*models: type[BaseModel]) -> list[str]:
    """The keys of models as they stand in a file."""
    return [field.alias or name for model in models for name, field in model.model_fields.items()]


#: What a reader of the files meets, by the heading under which the page must say it.
WORDS = {
    "### Manifest": [
        "format_version", *manifest.Manifest.__dataclass_fields__, *Topic.__dataclass_fields__,
        *TopicSettings.__dataclass_fields__,
    ],
    "### Segments": [
        *Header.__dataclass_fields__, *typing.get_args(BatchKind), *(field.name for field in (*ENVELOPE, *REFUSAL)),
    ],
    "## Snapshots": list(snapshots.SnapshotHeader.__struct_fields__),
    "## A caller's journal": [
        journal.FORMAT, journal.REQUESTS, journal.PROGRESS, journal.WORDS, *journal.COLUMNS,
    ],
    "## A run's folder": REFUSED.names,
    "### run.json": keys(record.Run, record.Figure),
    "### Callers' records": CALLERS.names,
    "## A mesh that stays": keys(Standing),
    "## Files that you write": keys(
        MeshFile, LogSection, TopicSection, ServiceSection, Settings, OrderMapping, Price, Cancellations, Refusals,
        CsvFormat, Experiment, Load, SimulatedSection, Hypothesis, HeldProbe, Strike, Look, Rollback, Drain,
        AuditSection, Expected, Capacity, Prediction,
    ),
    "### A failure experiment": [
        *keys(
            record.ExperimentRecord, record.WiringRecord, record.FaultRecord, record.StretchRecord,
            record.ProbeRecord, record.Curves,
        ),
    ],
}  # fmt: skip


def snippets(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run where the snippets look for it: ``runs/latest`` below the working folder."""
    monkeypatch.chdir(tmp_path)
    return write_run(tmp_path / "runs" / "latest")


def printed(snippet: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    exec(compile(snippet, PAGE, "exec"), {})
    return capsys.readouterr().out.splitlines()


def test_plain_arrow_reads_the_batches_of_a_segment(
    files: dict[str, str], run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    headers = [each.header for each in open_read_only(run_folder / "log").batches("orders", 0)]
    assert printed(snippets(files[PAGE])[0], capsys) == [f"{h.base} {h.epoch} {h.kind} {h.rows}" for h in headers]
    assert {header.kind for header in headers} >= {"granted", "facts"}


def test_a_checksum_is_worked_out_by_hand_and_damage_is_seen(
    files: dict[str, str], run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snippet = snippets(files[PAGE])[1]
    whole = printed(snippet, capsys)
    assert len(whole) > 2
    assert all(line.endswith(" right") for line in whole)
    (data,) = (run_folder / "log" / "orders" / "0").glob("*.arrow")
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    assert printed(snippet, capsys) == [*whole[:-1], whole[-1].replace(" right", " damaged")]


def test_callers_records_are_an_arrow_file(
    files: dict[str, str], run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(snippets(files[PAGE])[2], capsys) == [str([{"outcome": "confirmed", "request_count": ORDERS}])]


def test_there_is_no_snippet_that_is_not_tried(files: dict[str, str]) -> None:
    python = {path: len(snippets(text)) for path, text in files.items() if path.endswith(".md")}
    # That of docs/flight.md is tried on a broker: tests/process/test_flight.py. Those of docs/application.md are tried
    # in tests/tiny/test_snippets.py, and those about views in tests/tidy/test_view_examples.py.
    tried = {PAGE: 3, "docs/flight.md": 1, "docs/application.md": 3 + len(test_view_examples.BLOCKS)}
    assert {path: count for path, count in python.items() if count} == tried


def section(page: str, heading: str) -> str:
    """What stands under a heading, up to the next one of any level."""
    (found,) = re.findall(rf"^{re.escape(heading)}\n(.*?)(?=^#+ |\Z)", page, re.MULTILINE | re.DOTALL)
    return str(found)


def missing(text: str, words: list[str]) -> list[str]:
    """Those that do not stand in backquotes, by themselves or as a part of a larger piece."""
    spoken = set(re.findall(r"[\w./-]+", " ".join(re.findall(r"`([^`]+)`", text))))
    return [word for word in words if word not in spoken]


@pytest.mark.parametrize("heading", WORDS)
def test_every_key_and_column_is_named(files: dict[str, str], heading: str) -> None:
    assert missing(section(files[PAGE], heading), WORDS[heading]) == []


def test_sizes_and_numbers_are_those_of_the_code(files: dict[str, str]) -> None:
    page = " ".join(files[PAGE].split())
    assert f"format version {manifest.FORMAT_VERSION}:" in page
    assert f"begins with {segment._HEAD.size} bytes: `{segment._MAGIC.decode()}`, version {segment._VERSION}" in page
    assert f"entry size {segment.ENTRY_BYTES} " in page
    assert f"{len(snapshots.MAGIC)} | `{snapshots.MAGIC.decode().strip()}` and a line feed" in page
    assert f"{journal._size(1) - journal._size(0)} bytes per request" in page
    assert f"`progress` | {journal._size(0)} bytes" in page


def test_a_key_that_is_not_named_where_it_belongs_is_found() -> None:
    page = "## A\nIt has `name`, `log`\n(`brokers: 1`), not colour.\n## B\nIt has `colour`.\n"
    assert missing(section(page, "## A"), ["name", "brokers", "colour"]) == ["colour"]
    assert missing(section(page, "## B"), ["name", "colour"]) == ["name"]

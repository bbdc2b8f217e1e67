"""Given data of an application whose topics had other columns, then it is gone on with, or refused field by field."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from eventmesh import mesh as meshes
from eventmesh.lab.run import write_mesh
from eventmesh.log.batch import Header, LogBatch
from eventmesh.log.manifest import MANIFEST
from eventmesh.log.storage import FileStorage, machine_id
from eventmesh.log.store import Durability, Log, open_read_only
from eventmesh.log.topic import Topic
from eventmesh.messages import encode_rows
from tests.commands.conftest import Run

MESH = Path(__file__).parents[1] / "tiny" / "mesh.yaml"
NOW = 1_700_000_000_000_000
#: What stood in the topics, made of what stands there now.
Stored = Callable[[dict[str, Topic]], None]


def changed(name: str, **changes: Any) -> Stored:
    return lambda topics: topics.update({name: replace(topics[name], **changes)})


def without(name: str, column: str) -> Stored:
    def stored(topics: dict[str, Topic]) -> None:
        schema = topics[name].schema
        topics[name] = replace(topics[name], schema=schema.remove(schema.get_field_index(column)))

    return stored


def of_type(name: str, column: str, kind: pa.DataType, *, nullable: bool = True) -> Stored:
    def stored(topics: dict[str, Topic]) -> None:
        schema = topics[name].schema
        field = pa.field(column, kind, nullable)
        topics[name] = replace(topics[name], schema=schema.set(schema.get_field_index(column), field))

    return stored


def also(name: str, column: str, kind: pa.DataType) -> Stored:
    def stored(topics: dict[str, Topic]) -> None:
        topics[name] = replace(topics[name], schema=topics[name].schema.append(pa.field(column, kind)))

    return stored


def opened(data: Path, topics: dict[str, Topic]) -> Log:
    return Log.open(
        FileStorage(data / "log"), topics, durability=Durability.os, cluster_id="test", node=machine_id(),
        clock=lambda: NOW,
    )  # fmt: skip


def lent(log: Log, loan_id: str, **columns: Any) -> None:
    """A loan in partition 0, as the desk writes it."""
    topic = log.topics["loans"]
    grant = log.grant("loans", 0, topic.owner, loan_id)
    row = {
        "id": f"{loan_id}#0", "source": topic.owner, "type": "LoanRequested", "time": NOW,
        "dataschema": topic.dataschema, "sequence": grant.end, "correlationid": loan_id, "loan_id": loan_id,
        "book": "b", **columns,
    }  # fmt: skip
    header = Header("facts", grant.end, 1, grant.epoch, 0, topic.owner, loan_id, NOW, version=topic.version)
    log.append("loans", 0, LogBatch.encode(header, encode_rows(topic.schema, [row])))


def data_of(folder: Path, *stored: Stored) -> Path:
    """A data directory of the library, whose topics were like that, with a loan from then."""
    mesh, data = meshes.load(MESH), folder / "data"
    topics = mesh.topics()
    for each in stored:
        each(topics)
    log = opened(data, topics)
    lent(log, "loan-1")
    log.close()
    write_mesh(data, mesh)
    return data


GROWN = [without("loans", "days"), of_type("copies", "copies", pa.int16())]


def content(data: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(data.rglob("*")) if path.is_file() and path.name != "lock"}


# --- what is taken -----------------------------------------------------------------------------------


def test_new_and_wider_columns_are_said_before_anything_starts(eventmesh: Run, tmp_path: Path) -> None:
    data = data_of(tmp_path, *GROWN)
    before = content(data)
    for mesh in ([MESH], []):
        ended = eventmesh("up", *mesh, "--data", data, "--dry-run", "--json")
        assert (ended.code, ended.made) == (0, [])
        assert ended.err.splitlines() == [
            "loans: version 2 of its columns: days (int64)",
            "copies: version 2 of its columns: copies (int64, was int16)",
        ]
    assert content(data) == before, "nothing is registered by a dry run"


def test_with_the_same_columns_nothing_is_said(eventmesh: Run, tmp_path: Path) -> None:
    data = data_of(tmp_path)
    ended = eventmesh("up", MESH, "--data", data, "--dry-run")
    assert (ended.code, ended.err) == (0, "")


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """The data, after the mesh was up with the columns that it has now."""
    data = data_of(tmp_path, *GROWN)
    log = opened(data, meshes.load(MESH).topics())
    lent(log, "loan-2", days=1 << 40)
    log.close()
    return data


def test_the_log_is_looked_into_as_one(eventmesh: Run, grown: Path) -> None:
    topics = eventmesh("log", "topics", "--run", grown)
    assert topics.code == 0
    assert [line.split()[4] for line in topics.out.splitlines() if line.startswith(("loans", "copies"))] == ["2"] * 4
    read = eventmesh("log", "read", "loans", "--run", grown, "--json")
    assert read.code == 0
    for words in (["log", "tail", "loans"], ["log", "verify"], ["trace", "loan-1"], ["trace", "loan-2"]):
        ended = eventmesh(*words, "--run", grown)
        assert (ended.code, ended.err) == (0, ""), ended
    assert str(1 << 40) in eventmesh("trace", "loan-2", "--run", grown).out
    assert "days" not in eventmesh("trace", "loan-1", "--run", grown).out


def test_a_backup_has_both_versions(eventmesh: Run, grown: Path, tmp_path: Path) -> None:
    assert eventmesh("backup", "library.tar", "--data", grown).code == 0
    assert eventmesh("restore", "library.tar", "--data", "again").code == 0
    with closing(open_read_only(tmp_path / "again" / "log")) as reader:
        assert reader.topics["loans"].version == 2
        facts = [row for row in reader.table("loans", 0).to_pylist() if row["kind"] == "facts"]
    assert [(row["loan_id"], row["days"]) for row in facts] == [("loan-1", None), ("loan-2", 1 << 40)]
    ended = eventmesh("up", MESH, "--data", "again", "--dry-run")
    assert (ended.code, ended.err) == (0, "")


# --- what is not -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ([also("loans", "due", pa.int64())], ["loans: column due: stored int64, found none. Keep it: "]),
        ([of_type("loans", "days", pa.float64())], ["loans: column days: stored double, found int64. Leave it double"]),
        ([of_type("copies", "copies", pa.uint64())], ["copies: column copies: stored uint64, found int64. Leave it"]),
        ([changed("loans", key="book")], ["loans: key: stored 'book', found 'loan_id'. Its partitions were chosen by"]),
        ([changed("loans", partitions=3)], ["loans: partitions: stored 3, found 2. They are fixed at creation"]),
        ([changed("loans", owner="clerk")], ["loans: owner: stored 'clerk', found 'desk'. A topic keeps its writer"]),
        (
            [also("loans", "due", pa.int64()), of_type("loans", "days", pa.string()), changed("copies", partitions=1)],
            [
                "loans: column days: stored string, found int64. Leave it string, and put what is int64 into a new",
                "loans: column due: stored int64, found none. Keep it",
                "copies: partitions: stored 1, found 2",
            ],
        ),
    ],
)
def test_all_else_is_refused_in_one_error_before_anything_starts(
    eventmesh: Run, tmp_path: Path, stored: list[Stored], said: list[str]
) -> None:
    data = data_of(tmp_path, *stored)
    before = content(data)
    for dry in (["--dry-run"], []):
        ended = eventmesh("up", MESH, "--data", data, *dry)
        assert (ended.code, ended.out) == (6, "")
        problem = f"eventmesh: {data}: the topics that are asked for do not go on with those that are stored:"
        assert ended.err.startswith(problem)
        told = ended.err.removeprefix(problem).strip().splitlines()
        assert [line for line, wanted in zip(told, said, strict=True) if not line.strip().startswith(wanted)] == []
        assert ended.err.count("\n") == (1 if len(said) == 1 else 1 + len(said))
        assert content(data) == before


def test_going_back_is_refused_with_the_way_out(eventmesh: Run, tmp_path: Path) -> None:
    data = data_of(tmp_path)
    topics = meshes.load(MESH).topics()
    also("loans", "due", pa.int64())(topics)
    opened(data, topics).close()
    before = content(data)
    ended = eventmesh("up", MESH, "--data", data)
    assert (ended.code, ended.out) == (6, "")
    assert ended.err.endswith(
        "stored: loans: version 1 of its columns is asked for, and version 2 is stored. Nothing goes back to earlier "
        "columns: start the application that has version 2, or restore a backup from before\n"
    )
    assert content(data) == before


def test_a_program_of_before_would_not_take_it_for_damaged(grown: Path) -> None:
    """It goes by the format version, which is read first."""
    assert '"format_version": 3' in (grown / "log" / MANIFEST).read_text()

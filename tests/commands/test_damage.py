"""Given a log that has rotted, then file and offset are named, what is below stays readable, and the exit code is 3."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from eventmesh.log.store import open_read_only
from tests.commands.conftest import Run


@dataclass(frozen=True)
class Rot:
    """Where the damage lies."""

    run: Path
    file: Path
    offset: int


@pytest.fixture(params=["a byte is wrong", "the file is cut short"])
def rot(request: pytest.FixtureRequest, own_run: Path) -> Rot:
    """The last batch of orders/1, spoiled."""
    reader = open_read_only(own_run / "log")
    offset = [batch.header.base for batch in reader.batches("orders", 1)][-1]
    reader.close()
    file = own_run / "log" / "orders" / "1" / f"{0:020d}.arrow"
    content = bytearray(file.read_bytes())
    if request.param == "a byte is wrong":
        content[-100] ^= 1
    else:
        del content[-100:]
    file.write_bytes(content)
    return Rot(own_run, file, offset)


def test_verify_names_file_and_offset(eventmesh: Run, rot: Rot) -> None:
    ended = eventmesh("log", "verify", "--run", rot.run)
    assert (ended.code, ended.err) == (3, "")
    [damaged] = [line for line in ended.out.splitlines() if line.rstrip().endswith("wrong")]
    assert damaged.split()[:2] == ["orders", "1"]
    said = ended.out.splitlines()[-1]
    assert said.startswith(f"{rot.file}: the batch at offset {rot.offset} (byte ")
    assert "Restore the file from a copy" in said


def test_verify_as_json(eventmesh: Run, rot: Rot) -> None:
    ended = eventmesh("log", "verify", "--run", rot.run, "--json")
    damage = {(each["topic"], each["partition"]): each["damage"] for each in json.loads(ended.out)}
    assert ended.code == 3
    assert damage.pop(("orders", 1)).startswith(f"{rot.file}: the batch at offset {rot.offset} ")
    assert set(damage.values()) == {None}


def test_a_log_without_damage_is_right(eventmesh: Run, small_run: Path) -> None:
    ended = eventmesh("log", "verify", "--run", small_run)
    assert (ended.code, ended.err) == (0, "")
    assert all(line.rstrip().endswith("right") for line in ended.out.splitlines()[1:])


@pytest.mark.parametrize("command", [["log", "read", "orders", "--partition", "1", "--limit", "99"], ["trace", "any"]])
def test_reading_into_the_damage_names_file_and_offset(eventmesh: Run, rot: Rot, command: list[str]) -> None:
    ended = eventmesh(*command, "--run", rot.run)
    ended.must_have_refused(f"{rot.file}: the batch at offset {rot.offset} ", "Restore the file from a copy", code=3)


def test_what_lies_below_the_damage_is_shown(eventmesh: Run, rot: Rot) -> None:
    words = ("log", "read", "orders", "--partition", 1, "--limit", rot.offset, "--json", "--run", rot.run)
    ended = eventmesh(*words)
    assert (ended.code, ended.err) == (0, "")
    assert [row["offset"] for row in json.loads(ended.out)] == list(range(rot.offset))

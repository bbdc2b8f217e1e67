"""Given `eventmesh fuzz`, then it says what it did and how often each fault struck; mistakes are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eventmesh.lab import fuzz_verdict
from eventmesh.lab.fuzz_verdict import Finding
from tests.commands.conftest import Run


def test_seeds_without_a_finding(eventmesh: Run) -> None:
    ended = eventmesh("fuzz", "views", "--seeds", 2, "--jobs", 1)
    assert ended.code == 0
    assert "2 seeds of views, commit " in ended.out
    assert "seeds/min" in ended.out
    assert "struck: kill " in ended.out
    assert "0 findings; every result is in fuzz" in ended.out
    assert ended.err == "seeds ...\n"


def test_two_processes_and_json(eventmesh: Run) -> None:
    ended = eventmesh("fuzz", "--seeds", 2, "--jobs", 2, "--json")
    assert ended.code == 0
    found = json.loads(ended.out)
    assert found["schema"] == "eventmesh.fuzz/1"
    assert (found["seeds"], found["findings"]) == (2, [])
    assert found["meshes"] == ["hybrid", "request", "views"]
    assert {kind for kind, count in found["struck"].items() if not count} == set(found["never_struck"])


def test_a_finding_exits_with_3_and_names_its_file(eventmesh: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_verdict, "judge", lambda ran: Finding({"E1": "not as it should be"}))
    ended = eventmesh("fuzz", "views", "--first", 4, "--seeds", 1, "--jobs", 1, "--shrink-s", 0)
    assert ended.code == 3
    assert "seed 4 (views): E1; next: eventmesh fuzz --replay fuzz/views-4-E1.json" in ended.out
    again = eventmesh("fuzz", "--replay", "fuzz/views-4-E1.json")
    assert again.code == 3
    assert "found E1: not as it should be" in again.out
    assert "replayed to the byte: the file is of commit " in again.out


def test_the_story_of_a_seed(eventmesh: Run) -> None:
    ended = eventmesh("fuzz", "views", "--seed", 3)
    assert ended.code == 0
    assert ended.made == []
    assert ended.out.startswith("seed 3 of views, commit ")
    for said in ("durability ", "faults struck", "kill ", "lives: broker ", "virtual s: valid; "):
        assert said in ended.out


def test_a_story_as_json(eventmesh: Run) -> None:
    story = json.loads(eventmesh("fuzz", "views", "--seed", 3, "--json").out)
    assert story["found"] == {}
    assert story["faults planned"] >= len(story["faults"]) > 0
    assert story["deaths"] >= sum(life - 1 for life in story["lives"].values()) > 0


@pytest.mark.parametrize(("words", "said"), [(["--seed", 3], "kill, "), (["--seeds", 300, "--resume"], "0 to 299")])
def test_what_would_be_run_is_said_and_nothing_done(eventmesh: Run, words: list[object], said: str) -> None:
    ended = eventmesh("fuzz", *words, "--dry-run")
    assert (ended.code, ended.err, ended.made) == (0, "", [])
    assert said in ended.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["viws"], "Did you mean 'views'?"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "4294967296"], "--seed"),
        (["--seeds", "0"], "--seeds"),
        (["--first", "4294967295", "--seeds", "2"], "the last one there is is 4294967295"),
        (["--seed", "1", "--seeds", "2"], "--seed runs one history: leave out --seeds"),
        (["--replay", "none.json"], "none.json: there is no such file"),
        (["views", "--replay", "other.json"], "--replay runs what the file says"),
        (["--replay", "other.json"], "schema must be 'eventmesh.fuzz/1', found text 'eventmesh.fuzz/9'"),
        (["--replay", "torn.json"], "torn.json: this is no JSON"),
        (["--replay", "lacking.json"], "lacking.json: "),
    ],
)
def test_a_mistake_is_refused_with_a_sentence(eventmesh: Run, words: list[str], said: str) -> None:
    Path("other.json").write_text('{"schema": "eventmesh.fuzz/9"}')
    Path("torn.json").write_text('{"schema": "eventme')
    Path("lacking.json").write_text('{"schema": "eventmesh.fuzz/1", "commit": "abc"}')
    eventmesh("fuzz", *words).must_have_refused(said)

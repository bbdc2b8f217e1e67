"""Given a name, then a new application of that name is there, whole; or one sentence says why not, and nothing is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.commands.conftest import Run
from tests.contract.conftest import ROOT

TEMPLATE = ROOT / "eventmesh" / "template"


def test_the_template_is_copied_with_the_name_put_in(eventmesh: Run, tmp_path: Path) -> None:
    made = eventmesh("new", "bikes")
    assert (made.code, made.err) == (0, "")
    written = {path.name: path.read_text() for path in (tmp_path / "bikes").iterdir()}
    assert written.keys() == {path.name for path in TEMPLATE.iterdir() if path.suffix in (".py", ".yaml")}
    assert [name for name, text in written.items() if "template" in text] == []
    for name, text in written.items():
        ours = (TEMPLATE / name).read_text()
        assert re.sub(r"\b(eventmesh\.)?template\b", "bikes", ours) == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bikes"]


def test_it_says_what_to_type_next(eventmesh: Run) -> None:
    said = eventmesh("new", "bikes").out.splitlines()
    assert said[1:] == [
        "next:",
        "  eventmesh check bikes/told.yaml",
        "  eventmesh run bikes/told.yaml --runtime simulated",
        "  eventmesh fuzz bikes/asked.yaml --seeds 10",
    ]


def test_a_dry_run_writes_nothing(eventmesh: Run) -> None:
    planned = eventmesh("new", "bikes", "--dry-run", "--json")
    assert (planned.code, planned.err, planned.made) == (0, "", [])
    assert "bikes/facts.py" in json.loads(planned.out)["files"]
    assert "would make bikes/" in eventmesh("new", "bikes", "-n").out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my-bikes", "'my-bikes' is no name of a Python package: expected letters, digits and _, and no digit first. "
         "Try my_bikes"),
        ("My Bikes", "Try my_bikes"),
        ("2bikes", "Try another, such as workshop"),
        ("vélos", "expected letters, digits and _"),
        ("../bikes", "Try bikes"),
        ("", "Try another, such as workshop"),
        ("class", "'class' is a word of the Python language"),
        ("random", "there is a module 'random' already, which Python would import in place of the new package."),
        ("pyarrow", "there is a module 'pyarrow' already"),
        ("eventmesh", "there is a module 'eventmesh' already"),
        ("__main__", "there is a module '__main__' already"),
        ("sys", "there is a module 'sys' already"),
        ("b" * 101, "101 characters, expected at most 100"),
    ],
)  # fmt: skip
def test_a_name_that_no_package_can_have(eventmesh: Run, name: str, said: str) -> None:
    eventmesh("new", "--", name).must_have_refused(said)


@pytest.mark.parametrize("taken", ["bikes", "bikes.py"])
def test_what_is_there_already_stays(eventmesh: Run, tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    eventmesh("new", "bikes").must_have_refused(f"{taken} exists already in this folder, and is left as it is")
    assert (tmp_path / taken).read_text() == "mine"
    (tmp_path / taken).unlink()
    (tmp_path / "bikes").symlink_to("nowhere")
    eventmesh("new", "bikes").must_have_refused("bikes exists already")


def test_nothing_is_left_where_the_disk_is_full(
    eventmesh: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write, written = Path.write_text, list[str]()

    def full(path: Path, text: str, **how: str) -> int:
        written.append(path.name)
        if len(written) == 4:
            raise OSError(28, "No space left on device", str(path))
        return write(path, text, **how)

    monkeypatch.setattr(Path, "write_text", full)
    eventmesh("new", "bikes").must_have_refused("No space left on device", code=6)
    assert (len(written), list(tmp_path.iterdir())) == (4, [])

"""Given the commands for backups, then they say what they did, and are refused as every command is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from eventmesh import mesh as meshes
from tests.commands.conftest import Run, stands
from tests.commands.small_run import CONFIGS
from tests.commands.test_folders import held


@pytest.fixture
def data(own_run: Path, tmp_path: Path) -> Path:
    """``data/shop``, as a mesh that was up has left it."""
    described = meshes.load(CONFIGS / "meshes" / "views.yaml").resolved()
    (own_run / "mesh.yaml").write_text(yaml.safe_dump(described, sort_keys=False))
    (tmp_path / "data").mkdir()
    return own_run.rename(tmp_path / "data" / "shop")


def test_there_and_back(eventmesh: Run, data: Path, tmp_path: Path) -> None:
    taken = eventmesh("backup", "shop.tar.gz")
    assert (taken.code, taken.err, taken.made) == (0, "", [str(tmp_path / "shop.tar.gz")])
    assert "views" in taken.out
    assert "under_way" in taken.out
    assert "none" in taken.out
    restored = eventmesh("restore", "shop.tar.gz", "--name", "again")
    assert (restored.code, restored.err) == (0, "")
    assert restored.out.endswith("next: eventmesh up --name again --data data/again\n")
    assert eventmesh("up", "--name", "again", "--dry-run").code == 0
    assert eventmesh("log", "verify", "--run", "data/again").code == 0
    before, after = (
        json.loads(eventmesh("log", "topics", "--run", each, "--json").out) for each in (data, "data/again")
    )
    assert before == after
    assert eventmesh("trace", "G00000001", "--run", "data/again").code == 0


def test_the_same_words_in_a_dry_run(eventmesh: Run, data: Path) -> None:
    for words in (["backup", "shop.tar"], ["restore", "shop.tar", "--name", "again"]):
        tried = eventmesh(*words, "-n", "--json")
        assert (tried.code, tried.err, tried.made) == (0, "", [])
        done = eventmesh(*words, "--json")
        again = eventmesh(*words, "-n")
        again.must_have_refused("exists already" if words[0] == "backup" else "not an empty folder")
        kept = {name: value for name, value in json.loads(done.out).items() if name not in ("bytes", "taken_at")}
        assert kept.items() <= json.loads(tried.out).items()


def test_a_mesh_that_is_up_is_found_by_its_name(eventmesh: Run, data: Path, state: Path, tmp_path: Path) -> None:
    elsewhere = data.rename(tmp_path / "elsewhere")
    stands(state, "shop", elsewhere)
    with held(elsewhere / "log"):
        assert json.loads(eventmesh("backup", "shop.tar", "--json").out)["data"] == str(elsewhere)


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_what_is_refused(eventmesh: Run, command: str, tmp_path: Path) -> None:
    eventmesh(command, "shop.zip").must_have_refused("a backup's name ends in .tar, .tar.gz, .tgz, .tar.zst")
    eventmesh(command, "shop.tar", "--name", "Shop!").must_have_refused("'Shop!' is no name for a mesh")
    code, said = (6, "data/shop holds no mesh") if command == "backup" else (2, "shop.tar: no such file")
    eventmesh(command, "shop.tar").must_have_refused(said, code=code)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_archive(eventmesh: Run, data: Path, tmp_path: Path) -> None:
    eventmesh("backup", "shop.tar")
    whole = (tmp_path / "shop.tar").read_bytes()
    (tmp_path / "shop.tar").write_bytes(whole.replace(b"application:", b"applikation:", 1))
    for more in ([], ["-n"]):
        ended = eventmesh("restore", "shop.tar", "--name", "again", *more)
        ended.must_have_refused("shop.tar: no whole backup (mesh.yaml is not what was written). Nothing was restored")

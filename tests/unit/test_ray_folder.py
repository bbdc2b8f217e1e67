"""The folder of a Ray of our own: short and in ASCII whatever TMPDIR says, and never where it cannot be used."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventmesh.errors import EnvironmentUnavailable
from eventmesh.runtime.on_ray import ray_folder


@pytest.fixture(autouse=True)
def asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default of a process, which :mod:`tempfile` remembers, is worked out for each test."""
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture
def short() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def made_with(monkeypatch: pytest.MonkeyPatch, place: Path) -> Path:
    monkeypatch.setenv("TMPDIR", str(place))
    made = ray_folder.make()
    made.rmdir()
    return made


def test_it_is_where_temporary_files_are_if_that_is_short(monkeypatch: pytest.MonkeyPatch, short: Path) -> None:
    assert made_with(monkeypatch, short).parent == short


@pytest.mark.parametrize("name", ["x" * 46, "ä", "missing/folder"])
def test_it_is_elsewhere_if_not(monkeypatch: pytest.MonkeyPatch, short: Path, name: str) -> None:
    if "/" not in name:
        (short / name).mkdir()
    made = made_with(monkeypatch, short / name)
    assert made.is_relative_to("/tmp")
    assert not made.is_relative_to(short)
    assert not made.exists()


def test_the_name_of_the_longest_socket_just_fits() -> None:
    place = "/" + "p" * (ray_folder.longest() - 1)
    assert ray_folder.unfit(place) is None
    assert ray_folder.unfit(place + "p") is not None
    name = f"{place}/eventmesh-12345678{ray_folder._LONGEST}"
    assert len(name) == ray_folder.SOCKET_NAME_MAX
    with socket.socket(socket.AF_UNIX) as tried, pytest.raises(FileNotFoundError):  # not: the path is too long
        tried.bind(name)
    with socket.socket(socket.AF_UNIX) as tried, pytest.raises(OSError, match="too long"):
        tried.bind(name + "p")


def test_what_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 60)
    monkeypatch.setattr(ray_folder, "_places", lambda: iter([str(long), "/nowhere/at/all", "/ä"]))
    with pytest.raises(EnvironmentUnavailable) as refused:
        ray_folder.make()
    said = str(refused.value)
    assert f"{long} (its name has {len(str(long))} characters, at most {ray_folder.longest()} fit)" in said
    assert "/nowhere/at/all (No such file or directory)" in said
    assert "/ä (its name is not in ASCII)" in said
    assert "Set TMPDIR" in said


def test_where_ray_fails_its_logs_stay_and_are_named(monkeypatch: pytest.MonkeyPatch, short: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(short))
    folder = short / "ray"
    (folder / "session_1" / "logs").mkdir(parents=True)
    (folder / "session_1" / "logs" / "raylet.out").write_text("why")
    (folder / "session_latest").symlink_to(folder / "session_1")
    with pytest.raises(EnvironmentUnavailable) as failed, ray_folder.logs_kept_of(folder):
        raise EnvironmentUnavailable("Ray did not start")
    message, _, kept = str(failed.value).rpartition(" ")
    assert message == "Ray did not start. What Ray and the processes of the mesh wrote down is in"
    assert (Path(kept) / "logs" / "raylet.out").read_text() == "why"


def test_where_there_are_no_logs_nothing_is_left(monkeypatch: pytest.MonkeyPatch, short: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(short))
    with pytest.raises(EnvironmentUnavailable, match=r"^Ray did not start$"), ray_folder.logs_kept_of(short / "none"):
        raise EnvironmentUnavailable("Ray did not start")
    assert os.listdir(short) == []

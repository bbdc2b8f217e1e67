"""Given an application's files, then it is known by what is in them, wherever they lie, and by nothing else."""

from __future__ import annotations

import importlib
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventmesh import mesh as meshes
from eventmesh.sources import OtherSources, Sources, must_be, sources_of

NAME = "an_application_of_this_test"


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """As a process of its own would import it."""
    yield
    forget()


def forget() -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == NAME]:
        del sys.modules[name]
    sources_of.cache_clear()
    importlib.invalidate_caches()


def written(folder: Path, **files: str) -> Path:
    package = folder / NAME
    for path, text in {"__init__": "", "rules": "LIMIT = 1", "wirings/__init__": "", **files}.items():
        file = package / (f"{path}.py" if "." not in path else path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return package


def found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Sources:
    forget()
    with monkeypatch.context() as patch:
        patch.syspath_prepend(folder)
        importlib.import_module(NAME)
        sources = sources_of(NAME)
    assert sources is not None
    return sources


def test_the_same_files_are_the_same_application_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (found(written(tmp_path / name).parent, monkeypatch) for name in ("here", "there"))
    assert one.files.keys() == {"__init__.py", "rules.py", "wirings/__init__.py"}
    assert (one.fingerprint, one.differences(other)) == (other.fingerprint, [])
    assert len(one.fingerprint) == 32
    assert (one.place, other.place) == tuple(str(tmp_path / name / NAME) for name in ("here", "there"))


def test_caches_and_data_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = written(tmp_path)
    before = found(tmp_path, monkeypatch)
    (package / "__pycache__").mkdir(exist_ok=True)
    for path in ("__pycache__/rules.cpython-399.pyc", "mesh.yaml", "orders.csv", ".rules.py.swp", "rules.py~"):
        (package / path).write_text("whatever")
    assert found(tmp_path, monkeypatch) == before


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("rules", "LIMIT = 2", "rules.py is another"),
        ("wirings/views", "", "wirings/views.py was not there"),
        ("wirings/fast.so", "", "wirings/fast.so was not there"),
    ],
)
def test_every_file_that_could_be_imported_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, text: str, said: str
) -> None:
    before = found(written(tmp_path / "a").parent, monkeypatch)
    after = found(written(tmp_path / "b", **{path: text}).parent, monkeypatch)
    assert before.fingerprint != after.fingerprint
    assert before.differences(after) == [said]
    assert after.differences(before) == [said.replace("was not there", "is missing")]


def test_an_application_may_be_one_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{NAME}.py").write_text("LIMIT = 1")
    assert found(tmp_path, monkeypatch).files.keys() == {f"{NAME}.py"}


def test_of_one_that_lies_in_an_archive_nobody_can_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = found(written(tmp_path / "a").parent, monkeypatch)
    forget()
    shutil.make_archive(str(tmp_path / "b"), "zip", tmp_path / "a", NAME)
    monkeypatch.syspath_prepend(tmp_path / "b.zip")
    importlib.import_module(NAME)
    assert sources_of(NAME) is None
    with pytest.raises(OtherSources, match=r"in no file of its own, and not as it was .*: __init__\.py is missing"):
        must_be(checked)


def test_what_this_process_has_imported_counts_and_not_what_was_edited_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = written(tmp_path)
    before = found(tmp_path, monkeypatch)
    (package / "rules.py").write_text("LIMIT = 2")
    must_be(before)
    assert sources_of(NAME) == before


def test_another_one_is_refused_with_what_was_found_where_and_what_was_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = found(written(tmp_path / "a").parent, monkeypatch)
    more = {f"rule_{number}": "" for number in range(5)}
    found(written(tmp_path / "b", rules="LIMIT = 3", **more).parent, monkeypatch)
    with pytest.raises(OtherSources) as refused:
        must_be(pickle.loads(pickle.dumps(checked)))
    assert str(refused.value) == (
        f"this process found the application {NAME!r} in {tmp_path / 'b' / NAME}, and not as it was checked in "
        f"{tmp_path / 'a' / NAME}: rule_0.py was not there, rule_1.py was not there, rule_2.py was not there and 3 "
        f"more. End the mesh and start it again with the application as it is now, on every node"
    )
    assert refused.value.exit_code == 6


@pytest.mark.parametrize(("text", "said"), [(None, "ModuleNotFoundError: No module named"), ("1 / 0", "division by z")])
def test_one_that_cannot_be_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, said: str
) -> None:
    checked = found(written(tmp_path / "a").parent, monkeypatch)
    forget()
    if text is not None:
        written(tmp_path / "b", __init__=text)
        monkeypatch.syspath_prepend(tmp_path / "b")
    with pytest.raises(OtherSources, match=f"cannot import the application '{NAME}', which was checked in .*{said}"):
        must_be(checked)


def test_a_mesh_knows_the_files_of_its_application() -> None:
    mesh = meshes.load(Path(__file__).parents[1] / "tiny" / "mesh.yaml")
    assert mesh.sources is not None
    assert mesh.sources.place == str(Path(__file__).parents[1] / "tiny")
    assert {"lending.py", "wirings.py"} <= mesh.sources.files.keys()
    assert mesh.code == mesh.sources.fingerprint

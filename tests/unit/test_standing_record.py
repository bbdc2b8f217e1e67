"""Given the record of a mesh that is up, then only the application that it runs is let load it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from eventmesh import mesh as meshes
from eventmesh.errors import EnvironmentUnavailable
from eventmesh.lab.run import write_mesh
from eventmesh.lab.standing_record import Standing, _as_it_runs

MESH = meshes.load(Path(__file__).parents[1] / "tiny" / "mesh.yaml")


def standing(data: Path, code: str) -> Standing:
    write_mesh(data, MESH)
    return Standing(name="library", data=data, ray="127.0.0.1:1", since=datetime.now(UTC), code=code)


@pytest.mark.parametrize("code", [MESH.code, ""], ids=["the same", "of a record that does not say"])
def test_the_application_that_it_was_started_with_may(tmp_path: Path, code: str) -> None:
    assert _as_it_runs(standing(tmp_path, code)).code == MESH.code


def test_another_one_may_not_and_is_told_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnavailable) as refused:
        _as_it_runs(standing(tmp_path, "0" * 32))
    said = str(refused.value)
    assert MESH.sources is not None
    assert said.startswith(f"'library' does not run the application that is found here, in {MESH.sources.place}: that")
    assert f"eventmesh down --name library, then: eventmesh up --name library --data {tmp_path}" in said

"""Given files that are generated from the code, then they are what the code generates now."""

from __future__ import annotations

import json

from eventmesh.mesh import Mesh

AGAIN = "python -c 'from eventmesh.mesh import Mesh; import json; print(json.dumps(Mesh.json_schema(), indent=2))'"


def test_the_json_schema_of_a_mesh_file_is_current(files: dict[str, str]) -> None:
    path = "configs/schemas/mesh.schema.json"
    assert files[path] == json.dumps(Mesh.json_schema(), indent=2) + "\n", f"write it again: {AGAIN} > {path}"

"""Given files that are generated from the code, then they are what the code generates now."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from docs import commands, faults
from eventmesh.errors import EXIT_CODES
from eventmesh.lab.examples import split
from eventmesh.lab.experiment import Experiment
from eventmesh.mesh import Mesh
from eventmesh.runtime.faults import FAULTS
from eventmesh.shop.order_mapping import OrderMapping

AGAIN = "python -c 'from eventmesh.mesh import Mesh; import json; print(json.dumps(Mesh.json_schema(), indent=2))'"


def test_the_json_schema_of_a_mesh_file_is_current(files: dict[str, str]) -> None:
    path = "configs/schemas/mesh.schema.json"
    assert files[path] == json.dumps(Mesh.json_schema(), indent=2) + "\n", f"write it again: {AGAIN} > {path}"


def test_the_json_schema_of_a_mapping_file_is_current(files: dict[str, str]) -> None:
    path = "configs/schemas/mapping.schema.json"
    again = AGAIN.replace("eventmesh.mesh", "eventmesh.shop.order_mapping").replace("Mesh", "OrderMapping")
    assert files[path] == json.dumps(OrderMapping.json_schema(), indent=2) + "\n", f"write it again: {again} > {path}"


def test_the_json_schema_of_an_experiment_file_is_current(files: dict[str, str]) -> None:
    path = "configs/schemas/experiment.schema.json"
    again = AGAIN.replace("eventmesh.mesh", "eventmesh.lab.experiment").replace("Mesh", "Experiment")
    assert files[path] == json.dumps(Experiment.json_schema(), indent=2) + "\n", f"write it again: {again} > {path}"


def test_the_page_on_mappings_tells_of_every_key(files: dict[str, str]) -> None:
    page, schema = files["docs/mappings.md"], OrderMapping.json_schema()
    sections = [schema, *schema["$defs"].values()]
    keys = {key for section in sections for key in section["properties"]} - {"schema", "prefix", "quantities"}
    assert [key for key in sorted(keys) if not re.search(rf"`({key}|{key}\.\w+|\w+\.{key})`", page)] == []
    shortest = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert shortest is not None
    assert OrderMapping.model_validate(yaml.safe_load(shortest[1])).columns()


def test_the_reference_of_the_commands_is_current(files: dict[str, str]) -> None:
    path = "docs/commands.md"
    assert files[path] == commands.reference(), f"write it again: python docs/commands.py > {path}"


def test_the_table_of_the_faults_is_current(files: dict[str, str]) -> None:
    path = "docs/faults.md"
    assert files[path] == faults.reference(), f"write it again: python docs/faults.py > {path}"
    assert [kind for kind in FAULTS if files[path].count(f"| `{kind}` |") != 1] == []


def test_every_command_option_and_exit_code_stands_in_the_reference() -> None:
    page = commands.reference()
    for name, context in commands.commands():
        assert name == commands.PROGRAM or f"## {name}\n" in page
        for parameter in context.command.get_params(context):
            assert parameter.help, f"{name}: {parameter.name} does not say what it is"
            assert parameter.name == "help" or parameter.help in page
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in page


def test_an_example_is_taken_whole_and_only_from_the_examples() -> None:
    text = "Says eventmesh a.\n\n\b\nExamples:\n  eventmesh b \\\n    --c\n  eventmesh d\n\nAnd more."
    assert commands.examples(text) == ["eventmesh b \\", "  --c", "eventmesh d"]
    assert split(text)[0] == "Says eventmesh a.\n\nAnd more."


@pytest.mark.parametrize("name", [name for name, _ in commands.commands()])
def test_help_begins_with_examples_that_can_be_typed(name: str) -> None:
    context = dict(commands.commands())[name]
    shown = context.get_help()
    _, examples = split(context.command.help)
    assert examples
    assert shown.startswith("Examples:\n" + "".join(f"  {line}\n" for line in examples) + "\nUsage: eventmesh ")
    assert shown.count(examples[0] + "\n") == 1
    assert "..." not in shown.replace("[ARGS]...", "")
    assert not set("{}") & set(shown)
    assert "[[" not in shown.partition("\nOptions:")[0]

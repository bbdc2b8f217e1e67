"""Given a failure experiment, then it is checked before anything starts, run in the simulation, and judged."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from eventmesh.report.probes import PROBES
from tests.commands.conftest import Run, stands
from tests.commands.small_run import CONFIGS

SMALL = """\
schema: eventmesh.experiment/1
title: Does the shop take orders while inventory is away?
description: Inventory is away for a second of three.
mesh: views
load: {rate: 50, options: {orders: 150}, served: [confirmed]}
steady-state-hypothesis:
  title: Every order is accepted and none fails
  probes:
    - {name: orders do not fail, probe: failed-share, tolerance: "<0.01"}
    - {name: orders are accepted, probe: accepted-share, within_s: 0.5, tolerance: ">=0.99"}
    - {name: the books are right, probe: audit, tolerance: valid}
method:
  - type: action
    name: inventory is away
    moment: {kind: at-time, seconds: 1}
    fault: {kind: end, process: inventory/0, lasts_s: 1}
  - {type: probe, name: completed per second, probe: completed-per-s}
settle_s: 0.5
"""
COMPLETED = '{name: orders are completed, probe: completed-share, within_s: 0.5, tolerance: ">=0.99"}'

#: What is changed in the file, and what the error says of it.
MISTAKES: dict[str, tuple[str, str, list[str]]] = {
    "an unknown key": ("settle_s: 0.5", "setle_s: 0.5", ["setle_s", "unknown key", "Did you mean 'settle_s'?"]),
    "a key that is missing": ("title: Does", "description: Does", ["stands twice"]),
    "no mesh": ("mesh: views\n", "", ["meshes", "name either one mesh or several", "Write meshes:"]),
    "a mesh that does not ship": ("mesh: views", "mesh: viewz", ["mesh", "no mesh 'viewz'", "Did you mean 'views'?"]),
    "an unknown probe": (
        "probe: failed-share", "probe: faild-share",
        ["steady-state-hypothesis.probes[0].probe", "unknown probe", "Did you mean 'failed-share'?"],
    ),
    "no seconds where they are needed": (
        "within_s: 0.5, ", "", ["steady-state-hypothesis.probes[1].within_s", "is missing", "Write within_s: 2"],
    ),
    "seconds where they do nothing": (
        "probe: audit,", "probe: audit, within_s: 1,", ["probes[2].within_s", "does nothing", "Leave it out"],
    ),
    "a tolerance that is none": ('"<0.01"', '"below 1 %"', ["probes[0].tolerance", "is no threshold"]),
    "a word as the tolerance of a number": ("tolerance: valid", "tolerance: good", ["probes[2].tolerance", "valid"]),
    "a range the wrong way round": ('"<0.01"', "[1, 0]", ["probes[0].tolerance", "the lower value first"]),
    "a stretch that a probe cannot be asked in": (
        "probe: audit,", "probe: audit, when: [during],", ["probes[2].when", "cannot be asked during the faults"],
    ),
    "an unknown kind of fault": (
        "kind: end", "kind: ende", ["method[0].fault.kind", "unknown value 'ende'", "Did you mean 'end'?"],
    ),
    "no kind of fault": ("{kind: end, process", "{process", ["method[0].fault", "the key 'kind' is missing"]),
    "an unknown field of a fault": (
        "lasts_s: 1}", "last_s: 1}", ["method[0].fault.last_s", "unknown key 'last_s'", "Did you mean 'lasts_s'?"],
    ),
    "a time that is none": ("seconds: 1}", "seconds: soon}", ["method[0].moment.seconds", "must be a number"]),
    "a process that is not there": (
        "process: inventory/0", "process: inventory/7", ["method[0].fault", "no process 'inventory/7'", "mesh views"],
    ),
    "a fault that the level of durability rules out": (
        "{kind: end, process: inventory/0, lasts_s: 1}", "{kind: slow-disk, extra_ms: 5, lasts_s: 1}",
        ["method[0].fault", "slow-disk: at level os nothing waits for a sync", "mesh views"],
    ),
    "a fault that comes too late": (
        "seconds: 1}", "seconds: 5}", ["method[0].moment.seconds", "comes after 5 s, when the load of 2.98 s is over"],
    ),
    "a method that only looks": (
        SMALL[SMALL.index("  - type: action") : SMALL.index("  - {type: probe, name: comp")], "",
        ["method", "has no action", "Add an action"],
    ),
    "an option that the workload has not": (
        "orders: 150", "order: 150", ["load.options.order", "unknown key 'order'", "Did you mean 'orders'?"],
    ),
    "an option that every load has": ("{orders: 150}", "{rate: 5}", ["load.options.rate", "every load has it"]),
    "a service that the mesh has not": (
        "settle_s", "simulated: {rows_per_s: {inventry: 5}}\nsettle_s",
        ["simulated.rows_per_s.inventry", "views has no service 'inventry'", "Did you mean 'inventory'?"],
    ),
    "an expectation of a mesh that is not run": (
        "settle_s", "expected: {request: {hypothesis: holds, why: so}}\nsettle_s",
        ["expected.request", "no mesh 'request' is run", "Allowed: views"],
    ),
    "a drain without a capacity": (
        "settle_s", "predictions: [{law: drain, mesh: views, tolerance: 0.1}]\nsettle_s", ["capacity", "is missing"],
    ),
}  # fmt: skip


def written(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = SMALL
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after, 1)
    file = tmp_path / "small.yaml"
    file.write_text(text)
    return file


def journal(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "journal.json").read_text())
    return found


def struck_at(folder: Path) -> list[float]:
    """When the fault came in each wiring, in seconds."""
    wirings = json.loads((folder / "run.json").read_text())["experiment"]["wirings"]
    return [each["faults"][0]["at_s"] for each in wirings]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_its_place_and_what_is_allowed(eventmesh: Run, tmp_path: Path, mistake: str) -> None:
    before, after, said = MISTAKES[mistake]
    file = written(tmp_path, (before, after))
    eventmesh("chaos", "validate", file).must_have_refused("small.yaml", *said)
    eventmesh("chaos", "run", file).must_have_refused("small.yaml", *said)


def test_what_ships_is_listed_with_its_question_and_is_valid(eventmesh: Run) -> None:
    questions = json.loads(eventmesh("chaos", "list", "--json").out)
    assert "inventory-down" in questions
    for name, question in questions.items():
        assert question.endswith("?"), question
        ended = eventmesh("chaos", "validate", name)
        assert (ended.code, ended.made) == (0, []), ended
        assert question in ended.out.replace("\n", " ")


def test_a_hypothesis_that_holds(eventmesh: Run, tmp_path: Path) -> None:
    ended = eventmesh("chaos", "run", written(tmp_path), "-o", "out")
    assert ended.code == 0, ended
    assert "the hypothesis held" in ended.out
    found = journal(tmp_path / "out")
    assert (found["status"], found["deviated"], found["verdict"]) == ("completed", False, "valid")
    assert {name: part["steady_state_met"] for name, part in found["steady_states"].items()} == {
        "before": True, "during": True, "after": True,
    }  # fmt: skip
    action, look = found["run"]
    assert action["status"] == "succeeded"
    assert action["output"]["shows"] == {"lives ended": 1, "lives begun": 1}
    assert action["duration"] == pytest.approx(1.0, abs=0.001)
    assert look["output"] < 5, "nobody takes what is ordered meanwhile out of stock"
    assert [each["status"] for each in found["rollbacks"]] == ["succeeded"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "virtual" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    cases = ElementTree.parse(tmp_path / "out" / "junit.xml").getroot().iter("testcase")
    assert "during: orders do not fail" in {case.get("name") for case in cases}
    assert "OrderConfirmed" in eventmesh("trace", "G00000001", "--run", "out/views").out


def test_a_hypothesis_that_does_not_hold(eventmesh: Run, tmp_path: Path) -> None:
    file = written(tmp_path, ("- {name: orders do not fail", f"- {COMPLETED}\n    - {{name: orders do not fail"))
    ended = eventmesh("chaos", "run", file, "-o", "out")
    assert ended.code == 4, ended
    assert "the hypothesis did not hold" in ended.out
    found = journal(tmp_path / "out")
    assert found["deviated"] is True
    assert [part["steady_state_met"] for part in found["steady_states"].values()] == [True, False, True]
    missed = [probe for probe in found["steady_states"]["during"]["probes"] if not probe["tolerance_met"]]
    assert [probe["activity"]["name"] for probe in missed] == ["orders are completed"]


def test_where_a_fault_did_not_happen_nobody_knows(eventmesh: Run, tmp_path: Path) -> None:
    never = ("kind: at-time, seconds: 1", "kind: at-offset, partition: stock/0, offset: 1000000")
    ended = eventmesh("chaos", "run", written(tmp_path, never), "-o", "out")
    assert ended.code == 5, ended
    assert "its moment did not come while the load lasted" in ended.out
    found = journal(tmp_path / "out")
    assert (found["verdict"], found["run"][0]["status"]) == ("unknown", "failed")
    assert found["meshes"][0]["deviated"] is None


def test_a_mesh_that_does_not_come_to_rest_is_a_failed_experiment(eventmesh: Run, tmp_path: Path) -> None:
    file = written(tmp_path, ("settle_s", "drain: {timeout_s: 0.0001}\nsettle_s"))
    ended = eventmesh("chaos", "run", file, "-o", "out")
    assert ended.code == 5, ended
    assert "it did not come to rest" in ended.out
    found = journal(tmp_path / "out")
    assert (found["status"], found["verdict"]) == ("failed", "unknown")
    assert "virtual time" in found["meshes"][0]["unknown"][0]


def test_where_the_audit_says_otherwise_than_expected_the_run_is_invalid(eventmesh: Run, tmp_path: Path) -> None:
    file = written(tmp_path, ("settle_s", "audit: {expect: invalid}\nsettle_s"))
    ended = eventmesh("chaos", "run", file, "-o", "out")
    assert ended.code == 3, ended
    assert journal(tmp_path / "out")["verdict"] == "invalid"


def test_a_seed_names_one_experiment_and_every_mesh_has_the_same(eventmesh: Run, tmp_path: Path) -> None:
    several = ("mesh: views", "meshes: [views, hybrid]")
    drawn = ("kind: at-time, seconds: 1", "kind: within-time, seconds: [0.5, 1.5]")
    file = written(tmp_path, several, drawn)
    for folder, seed in (("one", 3), ("two", 3), ("other", 4)):
        eventmesh("chaos", "run", file, "--seed", seed, "-o", folder)
    assert journal(tmp_path / "one")["run"] == journal(tmp_path / "two")["run"]
    begun = {folder: struck_at(tmp_path / folder) for folder in ("one", "other")}
    assert begun["one"][0] == begun["one"][1]
    assert begun["one"] != begun["other"]


def test_a_dry_run_starts_nothing(eventmesh: Run, tmp_path: Path) -> None:
    ended = eventmesh("chaos", "run", written(tmp_path), "-n", "--json")
    assert (ended.code, ended.made) == (0, [])
    assert json.loads(ended.out)["seconds of load"] == "2.98"


def test_what_outlasts_the_load_is_healed_before_the_mesh_has_to_come_to_rest(eventmesh: Run, tmp_path: Path) -> None:
    longer = ("{kind: end, process: inventory/0, lasts_s: 1}", "{kind: end, process: catalog/0, lasts_s: 30}")
    ended = eventmesh("chaos", "run", written(tmp_path, longer, ("seconds: 1}", "seconds: 2.5}")), "-o", "out")
    assert ended.code == 5, "nothing was asked for after it"
    action, _ = journal(tmp_path / "out")["run"]
    assert action["duration"] < 1


def up_as(wiring: str, state: Path, data: Path) -> None:
    """Record a mesh of this wiring that is up, whose Ray nobody answers for."""
    data.mkdir()
    shutil.copy(CONFIGS / "meshes" / f"{wiring}.yaml", data / "mesh.yaml")
    stands(state, "shop", data)


def test_a_mesh_that_is_up_is_the_one_of_the_same_wiring(eventmesh: Run, state: Path, tmp_path: Path) -> None:
    up_as("request", state, tmp_path / "data")
    file = written(tmp_path, ("mesh: views", "meshes: [views, request]"))
    ended = eventmesh("chaos", "run", file, "--name", "shop", "-n", "--json")
    assert (ended.code, ended.made) == (0, []), ended
    planned = json.loads(ended.out)
    assert (planned["meshes"], planned["runtime"], planned["requests"]) == ("request (up as shop)", "ray", "150")


@pytest.mark.parametrize("dry", [["-n"], []], ids=["dry", "run"])
def test_an_experiment_does_not_run_on_a_mesh_that_does_not_fit(
    eventmesh: Run, state: Path, tmp_path: Path, dry: list[str]
) -> None:
    file = written(tmp_path)
    up_as("hybrid", state, tmp_path / "data")
    where = ("chaos", "run", file, "--name")
    eventmesh(*where, "shop", *dry).must_have_refused(
        "small.yaml: mesh:", "'shop' is of eventmesh.shop, wiring hybrid", "Without --name it starts its own: views"
    )
    eventmesh(*where, "shop", "--runtime", "simulated", *dry).must_have_refused("runs on Ray", "leave --runtime out")
    eventmesh(*where, "shopp", *dry).must_have_refused("no mesh called 'shopp' is up", "Did you mean 'shop'?")


def test_healing_on_its_own_is_harmless_and_may_be_repeated(eventmesh: Run) -> None:
    for _ in range(2):
        ended = eventmesh("chaos", "heal")
        assert (ended.code, ended.out, ended.made) == (0, "no mesh is up: nothing to heal\n", [])
    eventmesh("chaos", "heal", "--name", "shop").must_have_refused("shop")


def test_of_meshes_that_cannot_be_reached_healing_says_so(eventmesh: Run, state: Path, tmp_path: Path) -> None:
    stands(state, "shop", tmp_path)
    ended = eventmesh("chaos", "heal")
    assert ended.code == 0
    assert ended.out.startswith("shop: ")
    assert "healed" not in ended.out


def test_the_file_on_the_page_is_valid_and_the_page_names_every_probe(eventmesh: Run, tmp_path: Path) -> None:
    page = (CONFIGS.parent / "docs" / "experiments.md").read_text()
    (shown,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "shown.yaml").write_text(shown)
    assert eventmesh("chaos", "validate", "shown.yaml").code == 0
    assert [name for name in PROBES if f"`{name}`" not in page] == []

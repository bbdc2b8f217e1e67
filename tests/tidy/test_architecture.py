"""Given the diagram of one order's way, then it is the way that an order takes in the wiring ``views``."""

from __future__ import annotations

import re

import pytest

from eventmesh import mesh as meshes
from eventmesh.lab.simulated_run import run_simulated
from eventmesh.log.store import LogReader
from eventmesh.mesh import Mesh
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from tests.commands.small_run import CONFIGS

LINE = re.compile(r"^ +([a-z]+)-?->>([a-z]+): (\w+)$", re.MULTILINE)
Step = tuple[str, str, str]  # from, to, what


def steps(page: str) -> list[Step]:
    (diagram,) = re.findall(r"^```mermaid\nsequenceDiagram\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return LINE.findall(diagram)


def mistakes(shown: list[Step], facts: list[tuple[str, str]], mesh: Mesh) -> list[str]:
    """What is wrong with a diagram of the order that left ``facts``, each with its writer; a line each."""
    triggers = mesh.application.WIRINGS[mesh.wiring]
    appended = [(writer, what) for writer, to, what in shown if to == "log"]
    found = [f"left out: {writer} {what}" for writer, what in facts if (writer, what) not in appended]
    found += [f"made up: {writer} {what}" for writer, what in appended if (writer, what) not in facts]
    known: set[str] = set()
    for sender, receiver, what in shown:
        if receiver == "log":
            known.add(what)
        elif sender == "log":
            found += [] if what in known else [f"{receiver} reads {what} before it is appended"]
            found += [] if what in triggers[receiver].rules else [f"{receiver} has no rule for {what}"]
    return found


@pytest.fixture(scope="module")
def views() -> Mesh:
    return meshes.load(CONFIGS / "meshes" / "views.yaml")


@pytest.fixture(scope="module")
def facts(views: Mesh) -> list[tuple[str, str]]:
    """What an order of one line left: writer and fact."""
    done = run_simulated(views, of_history(generate(1, seed=1, lines_per_order=1)), seed=1)
    reader = LogReader.of(done.simulation.storage)
    return [
        (row["source"], row["type"])
        for topic in views.topics().values()
        for partition in range(topic.partitions)
        for row in reader.table(topic.name, partition).to_pylist()
        if row["correlationid"] == "G00000001"
    ]


def test_the_diagram_shows_the_way_that_an_order_takes(
    files: dict[str, str], views: Mesh, facts: list[tuple[str, str]]
) -> None:
    shown = steps(files["docs/architecture.md"])
    assert len(facts) == 9
    assert mistakes(shown, facts, views) == []
    assert [what for sender, _, what in shown if "caller" not in sender][-1] == "OrderShipped"


SHOWN = [("gateway", "log", "OrderRequested"), ("log", "orders", "OrderRequested"), ("orders", "log", "OrderValidated")]
FACTS = [("gateway", "OrderRequested"), ("orders", "OrderValidated")]


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (SHOWN, []),
        (SHOWN[:2], ["left out: orders OrderValidated"]),
        ([*SHOWN, ("orders", "log", "OrderPlaced")], ["made up: orders OrderPlaced"]),
        ([*SHOWN, ("log", "payments", "OrderValidated")], ["payments has no rule for OrderValidated"]),
        (SHOWN[1:] + SHOWN[:1], ["orders reads OrderRequested before it is appended"]),
    ],
)
def test_a_diagram_that_is_wrong_is_found(shown: list[Step], said: list[str], views: Mesh) -> None:
    assert mistakes(shown, FACTS, views) == said


def test_ten_minutes_are_enough(files: dict[str, str]) -> None:
    prose = re.sub(r"^```.*?^```$", "", files["docs/architecture.md"], flags=re.MULTILINE | re.DOTALL)
    assert len(prose.split()) <= 1_800, "at 180 words a minute"

"""Given an application with a mistake in it, then `eventmesh check` says where it is, and starts nothing."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.commands.conftest import Ended, Run

Made = Callable[..., Path]
NUMBERS = count()


@pytest.fixture
def made(eventmesh: Run, tmp_path: Path) -> Iterator[Made]:
    """``made("told", "counter.py", before, after)``: a mesh of a new application, a piece of whose code is changed.

    Each is a package of its own, which is forgotten in the end.
    """
    paths, names = list(sys.path), list[str]()

    def make(wiring: str, *changes: str) -> Path:
        names.append(f"checked_{next(NUMBERS)}")
        assert eventmesh("new", names[-1]).code == 0
        for file, before, after in zip(changes[::3], changes[1::3], changes[2::3], strict=True):
            path = tmp_path / names[-1] / file
            assert path.read_text().count(before) == 1, before
            path.write_text(path.read_text().replace(before, after))
        return Path(names[-1]) / f"{wiring}.yaml"

    yield make
    sys.path[:] = paths
    for name in [each for each in sys.modules if each.partition(".")[0] in names]:
        del sys.modules[name]


def checked(eventmesh: Run, mesh: Path | str) -> tuple[Ended, dict]:  # type: ignore[type-arg]
    ended = eventmesh("check", mesh, "--json")
    assert ended.err == "", ended
    return ended, json.loads(ended.out)


def test_what_was_looked_at_is_said(eventmesh: Run, made: Made) -> None:
    mesh = made("told")
    ended, found = checked(eventmesh, mesh)
    assert (ended.code, found["verdict"]) == (0, "valid")
    assert not any(name for name in ended.made if "__pycache__" not in name)
    assert found["topics"] == {"repairs": "counter", "hours": "workbench"}
    assert found["rules"] == {
        "counter": ["BringIn", "HoursBooked", "HoursRefused"],
        "workbench": ["OpenDay", "RepairRequested"],
    }
    assert found["unanswered"] == {"workbench": ["BookHours"]}
    assert (found["tried"]["requests"], found["tried"]["partitions"], found["tried"]["unseen"]) == (200, 4, [])
    assert found["tried"]["facts"] == 200 + 200 + 200 + 20
    said = eventmesh("check", mesh).out
    assert "workbench: BookHours" in said
    assert f"Next: eventmesh run {mesh} --runtime simulated" in said


def test_in_the_other_wiring_all_is_answered(eventmesh: Run, made: Made) -> None:
    ended, found = checked(eventmesh, made("asked"))
    assert (ended.code, found["unanswered"], found["tried"]["wrong"]) == (0, {}, [])


def test_a_mesh_that_ships_makes_few_of_its_facts_here(eventmesh: Run) -> None:
    ended, found = checked(eventmesh, "views")
    assert (ended.code, found["tried"]["wrong"]) == (0, [])
    assert "OrderRejected" in found["tried"]["unseen"]
    assert any("the run made none: CancellationRequested, " in each for each in found["not_checked"])


PROMISED = '                    state.repairs[repair_id].status = "promised"\n'
FIRST_LINE = '        """Fold facts into the state. It looks at no clock, throws no dice, and decides nothing."""\n'
TWICE = "to one state all at once, to another one by one, from the "


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            (PROMISED, PROMISED + "                    state.repairs[repair_id].hours = time.time_ns()\n"),
            ["fold to another state each time: evolve throws dice", ", from the RepairPromised at offset "],
        ),
        (
            (FIRST_LINE, FIRST_LINE + "        state.repairs['batches'] = Repair('', len(facts))\n"),
            [TWICE + "RepairRequested at offset 2 on"],
        ),
        (
            (PROMISED, PROMISED + "                    state.repairs[repair_id].status += ' ' * (len(facts) > 1)\n"),
            [TWICE, "fold "],
        ),
        (
            ("            status = state.status(wanted.repair_id)\n",
             "            status = state.status(wanted.repair_id)\n"
             "            state.repairs['seen'] = Repair(wanted.day, 0)\n"),
            ["it is not what its facts below offset "],
        ),
        (
            ("        return Book()\n", "        return Book(1, 2)\n"),
            ["the run came to no end: TypeError: ", "(counter.py:", ", initial)"],
        ),
        (
            (PROMISED, "                    raise KeyError(repair_id)\n"),
            ["no poison was sent, and a rule broke: KeyError: "],
        ),
    ],
    ids=["dice", "batches", "length", "writes", "ends", "raises"],
)  # fmt: skip
def test_a_fold_that_is_none_is_found(eventmesh: Run, made: Made, change: tuple[str, str], said: list[str]) -> None:
    mesh = made("told", "counter.py", *change, "counter.py", "from dataclasses", "import time\nfrom dataclasses")
    ended, found = checked(eventmesh, mesh)
    assert (ended.code, found["verdict"]) == (3, "invalid")
    wrong = found["tried"]["wrong"]
    assert wrong
    assert [each for each in said if each not in wrong[0]] == [], wrong
    shown = eventmesh("check", mesh)
    assert (shown.code, "wrong: " in shown.out) == (3, True)


def test_what_is_refused_when_a_mesh_is_read_is_refused(eventmesh: Run, made: Made) -> None:
    mesh = made("told", "told.yaml", "{listens: [repairs]}", "{}")
    eventmesh("check", mesh).must_have_refused("Write under services.workbench: listens: [repairs]")
    mesh = made("told", "workload.py", "dice.randint(1, 4)", "dice.randint(1, 0)")
    refused = eventmesh("check", mesh)
    refused.must_have_refused("the package 'checked_", "fails: ValueError: empty range", "(workload.py:")
    eventmesh("check", "viewz").must_have_refused("Did you mean 'views'?")


def test_what_fails_in_a_simulated_run_is_the_applications_own(eventmesh: Run, made: Made) -> None:
    mesh = made("told", "counter.py", "        return Book()\n", "        return Book(1, 2)\n")
    ended = eventmesh("run", mesh, "--runtime", "simulated")
    assert (ended.code, ended.out) == (2, "")
    assert "fault of eventmesh" not in ended.err
    assert re.search(r"the package 'checked_\d+' fails: TypeError: .+ \(counter.py:\d+, initial\)", ended.err)


def test_without_a_workload_there_is_nothing_to_fold(eventmesh: Run, made: Made) -> None:
    mesh = made(
        "told", "__init__.py", "from .workload import WORKLOAD, workload\n", "",
        "__init__.py", ', "WORKLOAD", "workload"', "",
    )  # fmt: skip
    ended, found = checked(eventmesh, mesh)
    assert (ended.code, found["tried"]) == (0, None)
    assert found["not_checked"][0] == "any fold: the application has no workload, so there are no facts to fold"

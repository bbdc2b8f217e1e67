"""Given the code with one rule switched off, when its seed is run, then it is caught; with the rule it is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.simulation.mutant_search import OWN_INPUT, WITHIN, found_at, told
from tests.simulation.mutants import MUTANTS

PROMISES = Path(__file__).parents[2] / "docs" / "promises.md"
#: Rules that have nothing to break yet: what they speak of is not built.
NOT_YET = {"10"}


@pytest.mark.parametrize("name", MUTANTS)
def test_each_mutant_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[name]
    assert mutant.judge(mutant.seed) == set(), f"with the rule in force, seed {mutant.seed} is right"
    mutant.apply(monkeypatch)
    assert mutant.caught_by in mutant.judge(mutant.seed), f"{mutant.what}: seed {mutant.seed}"


def test_every_rule_has_a_mutant() -> None:
    rules = {str(number) for number in range(1, 19)} | {"23", "24", "gallery"}
    assert {mutant.rule for mutant in MUTANTS.values()} == rules - NOT_YET


def test_what_the_fuzzer_finds_or_cannot_find_are_mutants() -> None:
    assert WITHIN.keys() | OWN_INPUT.keys() <= MUTANTS.keys()
    assert not WITHIN.keys() & OWN_INPUT.keys()


def test_the_table_of_the_promises_is_the_registry() -> None:
    row = r"^\| (\w+) \| `(\w+)` \| (.+?) \| (\d+) \| (.+?) \| (.+?) \|$"
    rows = re.findall(row, PROMISES.read_text(), re.MULTILINE)
    registry = [(m.rule, name, m.what, str(m.seed), told(name), m.caught_by) for name, m in MUTANTS.items()]
    assert rows == registry, "the table should be:\n" + "\n".join(
        f"| {rule} | `{name}` | {what} | {seed} | {within} | {caught_by} |"
        for rule, name, what, seed, within, caught_by in registry
    )


@pytest.mark.parametrize("name", ["vector_left_out", "snapshot_without_vector", "timeout_means_refused"])
def test_the_fuzzer_finds_a_mutant_with_what_it_draws_for_anybody(name: str) -> None:
    assert found_at(name, range(WITHIN[name] - 1, WITHIN[name]))[1]

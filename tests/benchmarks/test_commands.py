"""Given a benchmark run from the command line, then the exit code tells a wrong run from one that missed its target."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from eventmesh import configuration
from eventmesh.report.record import AuditRecord
from tests.benchmarks.conftest import FILES
from tests.commands.conftest import Run, eventmesh
from tests.unit.run_story import INVALID

__all__ = ["eventmesh"]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A simulation of two seeds, with a target that no machine reaches; beside the command's own folder."""
    document = {
        **configuration.read(FILES / "simulation.yaml"), "orders": 5, "seeds": 2, "repetitions": 1, "processes": 1,
        "target": ">=1e9",
    }  # fmt: skip
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_missed_target_is_reported_and_exits_0(eventmesh: Run, tiny: Path) -> None:
    ended = eventmesh("bench", "run", tiny, "--output", "out")
    assert ended.code == 0, ended.err
    assert "Target missed: seeds/min of 5 orders, audit included" in ended.out
    assert "**no**" in ended.out
    written = {Path(path).name for path in ended.made}
    assert {"run.json", "summary.md", "report.html", "junit.xml", "configuration.yaml"} <= written


def test_json_holds_the_figures_with_their_samples(eventmesh: Run, tiny: Path) -> None:
    ended = eventmesh("bench", "run", tiny, "--json", "-o", "out")
    figure = json.loads(ended.out)["figures"][0]
    assert figure.keys() >= {"name", "value", "low", "high", "unit", "target", "met", "samples"}
    assert (figure["target"], figure["met"], len(figure["samples"])) == (">=1e9", False, 1)


def test_a_wrong_run_exits_3(eventmesh: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AuditRecord, "of", lambda audit: INVALID)
    ended = eventmesh("bench", "run", tiny, "-o", "out")
    assert ended.code == 3
    assert "its audit says invalid" in ended.out


def test_a_dry_run_measures_nothing_and_leaves_nothing(eventmesh: Run) -> None:
    for name in ("order-flow", "replay", "simulation", "join-scaling"):
        ended = eventmesh("bench", "run", name, "--dry-run")
        assert (ended.code, ended.made) == (0, [])
        assert ended.out.strip()


def test_an_input_is_refused_where_nothing_is_replayed(eventmesh: Run) -> None:
    eventmesh("bench", "run", "order-flow", "--input", "a.csv", "--mapping", "b.yaml").must_have_refused("replay")
    eventmesh("bench", "run", "replay", "--input", "a.csv").must_have_refused("--mapping")


def test_a_missing_input_is_refused_before_anything_starts(eventmesh: Run) -> None:
    mapping = Path(__file__).parents[2] / "configs" / "mappings" / "online-retail.yaml"
    for more in ([], ["--dry-run"]):
        ended = eventmesh("bench", "run", "replay", "--input", "none.csv", "--mapping", mapping, *more)
        ended.must_have_refused("none.csv")

"""Given the benchmark files, then each is one question that can be read, listed and described."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import catalog
from benchmarks.benchmark import begin
from eventmesh.errors import ConfigurationError, InputError, NotFound
from eventmesh.report import record
from tests.benchmarks.conftest import FILES


def test_every_kind_has_a_file_of_its_name_and_every_file_a_kind() -> None:
    questions = catalog.questions(FILES)
    assert questions.keys() == catalog.KINDS.keys()
    assert all(question.endswith("?") for question in questions.values())


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", catalog.KINDS)
def test_each_says_what_it_would_measure_and_a_quick_one_is_named_so(name: str, quick: bool) -> None:
    benchmark = catalog.load(FILES, name, quick=quick)
    assert benchmark.name == (f"{name}-quick" if quick else name)
    assert all(line.strip() for line in benchmark.describe())
    assert benchmark.describe()
    assert (benchmark.describe() != catalog.load(FILES, name, quick=True).describe()) is not quick


def test_the_targets_are_those_that_the_results_are_held_against() -> None:
    targets = {name: catalog.load(FILES, name, quick=False).settings for name in ("order-flow", "replay", "simulation")}
    assert {name: settings.target for name, settings in targets.items()} == {
        "order-flow": ">=15000", "replay": "<60", "simulation": ">=200",
    }  # fmt: skip
    assert targets["order-flow"].window_s == 30
    assert targets["order-flow"].repetitions == 5


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(NotFound, match="Did you mean 'replay'"):
        catalog.load(FILES, "replays", quick=False)


def test_a_file_that_names_no_benchmark_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("schema: eventmesh.benchmark/1\nname: order-flaw\n")
    with pytest.raises(ConfigurationError, match="Did you mean 'order-flow'"):
        catalog.load(FILES, str(tmp_path / "mine.yaml"), quick=False)


def test_loads_that_do_not_rise_are_refused(tmp_path: Path) -> None:
    text = (FILES / "order-flow.yaml").read_text().replace("[2000, 4000,", "[4000, 2000,")
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match="offered_per_s: must be positive and rise"):
        catalog.load(FILES, str(tmp_path / "mine.yaml"), quick=False)


def test_quick_changes_only_what_it_names_also_within_a_mapping() -> None:
    full, quick = (catalog.load(FILES, "replay", quick=each).settings for each in (False, True))
    assert quick.generated.orders < full.generated.orders
    assert quick.generated.model_copy(update={"orders": full.generated.orders}) == full.generated


def test_an_input_goes_with_its_mapping_and_only_to_a_benchmark_that_replays() -> None:
    given = {"input": Path("orders.csv"), "mapping": Path("mapping.yaml")}
    settings = catalog.load(FILES, "replay", quick=False, given=given).settings
    assert {"input": settings.input, "mapping": settings.mapping} == given
    with pytest.raises(InputError, match="--input and --mapping go together"):
        catalog.load(FILES, "replay", quick=False, given={"input": Path("orders.csv"), "mapping": None})
    with pytest.raises(InputError, match="is for replay only"):
        catalog.load(FILES, "order-flow", quick=False, given=given)


def test_quick_without_a_quick_grid_would_measure_the_whole(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text((FILES / "order-flow.yaml").read_text().partition("quick:")[0])
    assert catalog.load(FILES, str(file), quick=False).name == "order-flow"
    with pytest.raises(ConfigurationError, match="the key 'quick' is missing, so --quick would measure the whole"):
        catalog.load(FILES, str(file), quick=True)


@pytest.mark.parametrize("quick", ["3", "[]", "fast"])
def test_a_quick_grid_that_is_no_mapping_is_said_so(tmp_path: Path, quick: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: replay\nquick: {quick}\n")
    with pytest.raises(ConfigurationError, match=r"mine\.yaml.*quick.*must be a mapping"):
        catalog.load(FILES, str(file), quick=True)


@pytest.mark.parametrize("name", ["join-scaling", "order-flow", "simulation", "recovery", "backbone"])
def test_the_configuration_beside_a_report_is_a_benchmark_file_that_measures_the_same(
    name: str, tmp_path: Path
) -> None:
    quick = catalog.load(FILES, name, quick=True)
    settings = quick.settings  # type: ignore[attr-defined]
    begun = begin(quick.name, settings, seed=1, durability="os")
    record.write(tmp_path, begun)
    again = catalog.load(FILES, str(tmp_path / "configuration.yaml"), quick=False)
    assert again.settings == settings  # type: ignore[attr-defined]

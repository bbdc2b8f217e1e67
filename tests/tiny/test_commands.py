"""Given the library instead of the shop, then every command speaks of loans, and nobody had to edit the framework."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import yaml

import tests.tiny
from eventmesh import configuration
from eventmesh.audit.audit import audit
from eventmesh.errors import ConfigurationError
from eventmesh.history import History
from eventmesh.lab import run as runs
from eventmesh.lab.load_options import options_of
from eventmesh.lab.simulated_run import SimulatedRun, run_simulated
from eventmesh.lab.standing_runs import Unfinished
from eventmesh.lab.terminal import Screen
from eventmesh.report import measure, record, report
from eventmesh.report.progress_bar import silent
from eventmesh.report.repetitions import summarise
from eventmesh.workload import Workload, WorkloadOptions
from tests.commands.conftest import Run
from tests.commands.small_run import write_log
from tests.tiny import WORDS, WORKLOAD, workload

MESH = Path(__file__).parent / "mesh.yaml"
LOANS = 30
SHOP = re.compile(
    r"(?<!paint-)\b(orders?|order_id|placed|stock|customers?|list_price|sku|gateway|inventory|shop|confirmed|rejected|hybrid|"
    r"request wiring|clustered)\b",
    re.IGNORECASE,
)


def words_of_the_shop(text: str) -> list[str]:
    """Those in what a user reads; "in order to" would be one, too, and is not written anywhere."""
    return sorted({found[0].lower() for found in SHOP.finditer(text)})


@pytest.fixture(scope="module")
def prepared() -> runs.Prepared:
    """What ``eventmesh run tests/tiny/mesh.yaml --loans 30`` would do."""
    return runs.prepare(MESH, {"loans": LOANS}, seed=3, rate=400.0)


@pytest.fixture(scope="module")
def done(prepared: runs.Prepared) -> SimulatedRun:
    return run_simulated(prepared.mesh, prepared.workload, seed=3)


@pytest.fixture(scope="module")
def recorded(prepared: runs.Prepared, done: SimulatedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that such a run leaves, written by what the command calls."""
    folder = tmp_path_factory.mktemp("library") / "run"
    folder.mkdir()
    write_log(folder / "log", done.simulation.storage)
    begun = runs.begin("library", prepared.mesh, prepared.workload, folder, seed=3)
    measured: Any = SimpleNamespace(callers=done.history.callers, seconds=1.5, cpu_s={"desk": 0.2}, asks={})
    runs.conclude(begun, prepared.mesh, prepared.workload, measured, done.history, folder, report=silent)
    return folder


def outcomes(history: History) -> Counter[str]:
    return Counter(history.callers["outcome"].to_pylist())


# --- run ---------------------------------------------------------------------------------------------


def test_the_options_of_a_run_are_the_librarys(eventmesh: Run) -> None:
    planned = eventmesh("run", MESH, "--loans", 12, "--dry-run", "--json")
    assert (planned.code, planned.err) == (0, "")
    assert json.loads(planned.out)["requests"] == 12
    ended = eventmesh("run", "--dry-run", "--loans=7", MESH, "--json")
    assert json.loads(ended.out)["requests"] == 7, "wherever the mesh stands"
    for option, said in (("--orders", "No such option: --orders"), ("--stock-fraction", "No such option")):
        refused = eventmesh("run", MESH, "--dry-run", option, 1)
        assert (refused.code, said in refused.err) == (2, True)
    refused = eventmesh("run", MESH, "--dry-run", "--loans", 0)
    assert (refused.code, "Invalid value for '--loans'" in refused.err) == (2, True)


def test_help_shows_them_where_the_mesh_is_named(eventmesh: Run) -> None:
    shown = eventmesh("run", MESH, "--help").out
    assert "--loans N" in shown
    assert "Loans that readers ask for." in shown
    assert "--stock-fraction" not in shown
    assert "--loans" not in eventmesh("run", "--help").out


def test_a_load_without_options_of_its_own_has_none() -> None:
    assert options_of(WorkloadOptions) == []
    assert [option.name for option in options_of(WORKLOAD)] == ["loans"]


def test_a_run_is_recorded_and_told_in_the_librarys_words(
    recorded: Path, done: SimulatedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = record.read(recorded)
    assert (finished.verdict, finished.status, finished.words) == ("valid", "complete", WORDS)
    assert finished.outcomes == dict(outcomes(done.history))
    assert set(finished.outcomes) == {"granted", "declined"}
    Screen().run(finished, recorded)
    said = capsys.readouterr().out
    assert f"outcomes: granted {finished.outcomes['granted']}" in said
    assert "next: eventmesh trace LOAN" in said
    page = unescape(report.render(finished))
    assert f"its loans ended so: {finished.outcomes['granted']} granted" in report.summary(finished)
    for text in (said, page, report.summary(finished), report.junit(finished), (recorded / "run.json").read_text()):
        assert words_of_the_shop(text) == []


def test_a_later_run_on_the_same_mesh_asks_for_other_loans() -> None:
    first, second = (runs.prepare(MESH, {"loans": 5}, number=number).workload.load for number in (1, 2))
    assert not set(first.keys) & set(second.keys)


def test_what_became_of_a_run_that_was_cut_off_is_told_of_loans() -> None:
    assert Unfinished(2, told=3, total=9).text(WORDS).startswith("3 of the 9 loans of run 2 have their outcome")
    assert Unfinished(2).text(WORDS) == "run 2 was cut off before it placed any loan"


# --- trace, log, describe ----------------------------------------------------------------------------


def test_a_loan_has_a_story(eventmesh: Run, recorded: Path) -> None:
    told = eventmesh("trace", "loan-3-1", "--run", recorded)
    assert (told.code, told.err) == (0, "")
    assert "LoanRequested" in told.out
    assert "desk" in told.out
    assert "loan_id" not in told.out, "whose story it is, its title says"
    assert words_of_the_shop(told.out) == []


def test_an_unknown_loan_suggests_loans_alone(eventmesh: Run, recorded: Path) -> None:
    eventmesh("trace", "loan-3-111", "--run", recorded).must_have_refused("Did you mean loan-3-11")
    ended = eventmesh("trace", "book-77", "--run", recorded)
    ended.must_have_refused("no fact of this run belongs to 'book-77'", "loan-3-0")
    assert "book-1" not in ended.err


def test_an_application_that_names_no_story_suggests_them_all(
    eventmesh: Run, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("tests.tiny.STORY")
    eventmesh("trace", "book-77", "--run", recorded).must_have_refused("Did you mean book-")


@pytest.mark.parametrize(
    "words", [("log", "topics"), ("log", "read", "loans"), ("log", "tail", "copies"), ("log", "verify")], ids=" ".join
)
def test_its_log_is_read_like_any_other(eventmesh: Run, recorded: Path, words: tuple[str, ...]) -> None:
    ended = eventmesh(*words, "--run", recorded)
    assert (ended.code, ended.err) == (0, "")
    assert words_of_the_shop(ended.out) == []


def test_it_is_drawn(eventmesh: Run) -> None:
    drawn = eventmesh("describe", MESH)
    assert 'service_desk["desk"]' in drawn.out
    assert words_of_the_shop(drawn.out) == []


# --- measuring ---------------------------------------------------------------------------------------


def measured(prepared: runs.Prepared, done: SimulatedRun, join: str, load: float, turn: int) -> record.Repetition:
    found = audit(prepared.mesh, done.reader, done.history)
    return measure.point(
        done.history.callers, primary="Borrow", wiring=prepared.mesh.wiring, join=join,
        joining=WORDS.joins[join], asks=prepared.mesh.asks, axis={"offered_per_s": load}, audit=found, turn=turn,
        cpu_s={"desk": 0.2, "generator": 0.1},
    )  # fmt: skip


@pytest.mark.parametrize("first_look", [False, True])
def test_a_report_of_what_was_measured_speaks_of_loans(
    prepared: runs.Prepared, done: SimulatedRun, tmp_path: Path, first_look: bool
) -> None:
    def point(join: str, load: float, *, asks: bool) -> record.Point:
        made = [measured(prepared, done, join, load, turn) for turn in range(3)]
        return summarise([each.model_copy(update={"asks": asks}) for each in made])

    points = [point(join, load, asks=asks) for join, asks in (("view", False), ("none", True)) for load in (100, 400)]
    look = record.FirstLook(decides="another run", minutes=1) if first_look else None
    begun = runs.begin("library", prepared.mesh, prepared.workload, tmp_path, seed=3)
    made = begun.model_copy(update={"points": points, "status": "complete", "verdict": "valid", "first_look": look})
    page, summary = unescape(report.render(made)), report.summary(made)
    assert "Loans arrive on a schedule" in page
    assert "A loan without an answer at the end" in page
    assert "loans/s" in summary
    assert "s per 1,000 loans" in page
    assert "CPU of the mesh per loan" in page
    assert "a copy of the catalogue" in page
    for text in (page, summary, report.junit(made)):
        assert words_of_the_shop(text) == []


def test_two_of_its_meshes_are_compared_in_its_own_words(eventmesh: Run, tmp_path: Path) -> None:
    small = {"offered_per_s": [400], "window_s": 0.1, "warmup_s": 0.02, "repetitions": 3, "time_budget_s": 600}
    shipped = configuration.read(Path(__file__).parents[2] / "configs" / "benchmarks" / "compare.yaml")
    benchmark = tmp_path / "small.yaml"
    benchmark.write_text(yaml.safe_dump({**shipped, **small, "quick": {"repetitions": 1}}))
    pair = ("--mesh", MESH, "--mesh", MESH.with_name("asking.yaml"), "--loans", LOANS, "--runtime", "simulated")
    ended = eventmesh("bench", "run", benchmark, *pair, "--seed", 3, "-o", tmp_path / "run")
    assert ended.code == 0, ended.err
    made = record.read(tmp_path / "run")
    assert (made.words, made.virtual, made.verdict) == (WORDS, True, "valid")
    assert {point.mesh: set(point.outcomes) for point in made.points} == {
        name: {"granted", "declined"} for name in ("library", "library-asking")
    }
    page, summary = unescape(report.render(made)), report.summary(made)
    assert "library (listening)" in page
    assert "| Granted |" in summary
    assert re.search(r"Outcomes agree: each of 180 loans, over all turns, ended in library as", summary)
    for text in (page, summary, report.junit(made), ended.out, ended.err, (tmp_path / "run" / "run.json").read_text()):
        assert words_of_the_shop(text.replace(str(MESH.parent), "")) == []


def test_whether_services_ask_each_other_follows_from_the_wiring() -> None:
    assert [runs.meshes.load(path).asks for path in (MESH, MESH.with_name("asking.yaml"))] == [False, True]


def test_a_word_of_the_shop_would_be_seen() -> None:
    assert words_of_the_shop("12 Orders per second, hybrid (batched); order_id G1") == ["hybrid", "order_id", "orders"]


def test_the_library_is_fuzzed_too(eventmesh: Run) -> None:
    ended = eventmesh("fuzz", MESH, "--seeds", 2, "--jobs", 1)
    assert ended.code == 0
    assert "2 seeds of library" in ended.out
    assert words_of_the_shop(ended.out + ended.err) == []


def test_a_second_run_that_asks_what_the_first_has_asked_is_refused(
    monkeypatch: pytest.MonkeyPatch, done: SimulatedRun
) -> None:
    """Nothing would happen, and all of it would be counted as delivered."""
    asked = done.history.callers
    second = runs.prepare(MESH, {"loans": LOANS}, seed=3, number=2, asked=asked)
    assert not set(second.workload.load.keys) & set(asked["key"].to_pylist())
    with monkeypatch.context() as patch:
        patch.setattr(tests.tiny, "workload", lambda options: workload(options.model_copy(update={"number": 1})))
        with pytest.raises(ConfigurationError) as refused:
            runs.prepare(MESH, {"loans": LOANS}, seed=3, number=2, asked=asked)
        assert "every one of the 30 loans of this run was placed by an earlier one" in refused.value.problem
        assert "options.number" in refused.value.hint
        more = runs.prepare(MESH, {"loans": LOANS + 1}, seed=3, number=2, asked=asked)
        assert len(more.workload.load) == LOANS + 1, "one of them is new"


def with_loans_for_no_days(*numbers: int) -> Any:
    """The library's workload, in which these loans are for no days: the shelf has no rule for that."""

    def made(options: Any) -> Workload:
        whole = workload(options)
        days = pa.array([0 if number in numbers else 14 for number in range(len(whole.load))], pa.int64())
        place = whole.load.payload.schema.get_field_index("days")
        return replace(whole, load=replace(whole.load, payload=whole.load.payload.set_column(place, "days", days)))

    return made


def test_a_run_that_cannot_end_ends_and_says_why(
    eventmesh: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tests.tiny, "workload", with_loans_for_no_days(3, 7))
    ended = eventmesh("run", MESH, "--loans", 12, "--runtime", "simulated", "-o", tmp_path / "run")
    assert ended.code == 3
    lines = ended.out.splitlines()
    assert lines[0].startswith("library: audit invalid")
    assert lines[1].startswith(
        "  D7 invalid: a refused input is there, had no effect, and broke no rule of our own: 2 of "
    )
    assert all("no poison was sent, and a rule broke: ValueError: nobody borrows" in line for line in lines[2:4])
    assert "unanswered 2" in ended.out
    (refused,) = record.read(tmp_path / "run").inputs_refused
    assert (refused.service, refused.count) == ("shelf", 2)
    assert "ValueError: nobody borrows" in refused.first
    assert f"  shelf refused 2 inputs on record, first {refused.first}" in ended.out
    assert refused.first in unescape(report.render(record.read(tmp_path / "run")))


def test_a_run_of_which_nothing_comes_says_so_as_well(
    eventmesh: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tests.tiny, "workload", with_loans_for_no_days(*range(5)))
    ended = eventmesh("run", MESH, "--loans", 5, "--runtime", "simulated", "-o", tmp_path / "run")
    assert (ended.code, "outcomes: unanswered 5" in ended.out) == (3, True)

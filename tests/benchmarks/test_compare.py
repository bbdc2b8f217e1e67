"""Given two meshes of one application, then both are asked the same in turns, and the report is of those two.

In place of Ray meshes run on the simulated runtime, as real ones to the benchmark where a test says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

import tests.tiny
from benchmarks import catalog, compare
from benchmarks.compare import Compare
from benchmarks.filled_load import fill
from eventmesh import configuration
from eventmesh.errors import ConfigurationError, EventmeshError, InputError
from eventmesh.mesh import Mesh
from eventmesh.report import conclusions, headline, record
from eventmesh.report.machine import Watch
from eventmesh.report.progress_bar import silent
from eventmesh.report.record import MachineUse
from eventmesh.runtime.running import RunningMesh, Usage
from eventmesh.runtime.simulated.running import SimulatedMesh
from eventmesh.workload import Requests, Workload
from tests.benchmarks.conftest import FILES
from tests.commands.conftest import Run, eventmesh, state
from tests.tiny.lending import Borrow, Buy, GiveBack

__all__ = ["eventmesh", "state"]

TINY = Path(__file__).parents[1] / "tiny"
MESHES = [TINY / "mesh.yaml", TINY / "asking.yaml"]
SMALL = {"offered_per_s": [200, 2_000], "window_s": 0.05, "warmup_s": 0.01, "repetitions": 3, "time_budget_s": 600}


def comparison(meshes_on: compare.Runtime | None = None, **changes: Any) -> Compare:
    document = {
        **configuration.read(FILES / "compare.yaml"),
        "meshes": MESHES,
        "options": {"loans": 40},
        **SMALL,
        **changes,
    }
    document.pop("quick")
    settings = configuration.validate(compare.CompareSettings, document)
    return Compare(settings, quick=False, meshes=FILES.parent / "meshes", runtime=meshes_on)


def measured(benchmark: Compare, folder: Path, *, seed: int = 1, said: list[str] | None = None) -> record.Run:
    folder.mkdir(exist_ok=True)
    return benchmark.run(folder, seed=seed, report=silent, say=(said if said is not None else []).append)


# --- simulated ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def done(folder: Path) -> record.Run:
    return measured(comparison(runtime="simulated"), folder)


def test_both_are_measured_at_every_load_and_audited(done: record.Run) -> None:
    assert [(point.mesh, point.asks, point.axis["offered_per_s"]) for point in done.points] == [
        ("library", False, 200), ("library-asking", True, 200),
        ("library", False, 2_000), ("library-asking", True, 2_000),
    ]  # fmt: skip
    assert (done.status, done.verdict) == ("complete", "valid")
    assert all(point.repetitions == 3 and point.audit.checks["A1"].examined for point in done.points)
    assert done.words == tests.tiny.WORDS


def test_the_workload_is_asked_for_again_until_the_time_is_filled_and_never_cut(done: record.Run, folder: Path) -> None:
    told = {point.axis["offered_per_s"]: sum(each.median for each in point.outcomes.values()) for point in done.points}
    assert told == {200: 40, 2_000: 120}
    [one, two] = (
        pa.ipc.open_file(folder / "records" / f"{name}-offered_per_s=2000-r{turn}.arrow").read_all()
        for name, turn in (("library-events", 0), ("library-asking-asking", 2))
    )
    asked = ["request", "command", "key"]
    assert one.select(asked).sort_by("request") == two.select(asked).sort_by("request"), (
        "the same of both, in each turn"
    )
    gaps = np.diff(np.sort(one["intended_at"].to_numpy()))
    assert set(gaps) == {500}, "microseconds"


def test_what_callers_were_told_is_compared_request_by_request(done: record.Run) -> None:
    at_rest, under_load = done.agreements
    assert (at_rest.requests, at_rest.differed, at_rest.totals_differed) == (40, [0, 0, 0], 0)
    assert under_load.requests == 120
    assert under_load.totals_differed == 0, "as many copies are lent"
    assert len(under_load.differed) == 3
    assert len(under_load.within) == 4, "two further repetitions of each"


def test_the_report_names_the_meshes_and_is_labelled_as_simulated(done: record.Run, folder: Path) -> None:
    said = headline.of_run(done, conclusions.of_run(done))
    assert said.winner is not None
    assert "library-asking (asking)" in said.sentence
    page, summary = unescape((folder / "report.html").read_text()), (folder / "summary.md").read_text()
    for text in (page, summary):
        assert "Outcomes agree" in text
        assert "simulated, on a virtual clock" in text
        assert "CPU of the mesh" not in text
    assert "| criterion | library | library-asking | ratio |" in summary
    again = f"eventmesh bench run compare --mesh {MESHES[0]} --mesh {MESHES[1]} --loans 40 --runtime simulated --seed 1"
    assert again in summary
    assert {path.name for path in folder.glob("mesh-*.yaml")} == {"mesh-1.yaml", "mesh-2.yaml"}
    assert not (folder / "work").exists()


def test_the_configuration_beside_the_report_measures_the_same(done: record.Run, folder: Path) -> None:
    again = catalog.load(FILES, str(folder / "configuration.yaml"), quick=False)
    assert isinstance(again, Compare)
    assert again.settings.model_dump(mode="json", by_alias=True) == done.config
    assert again.describe() == comparison(runtime="simulated").describe()
    fewer = catalog.load(FILES, str(folder / "configuration.yaml"), quick=False, given={"options": {"loans": 30}})
    assert isinstance(fewer, Compare)
    assert (fewer.settings.options, fewer.settings.meshes) == ({"loans": 30}, MESHES)


# --- as on Ray ---------------------------------------------------------------------------------------


class Real(SimulatedMesh):
    """To the benchmark it is a mesh of real processes, which have used something."""

    virtual = False

    def usage(self) -> Usage:
        used = super().usage()
        return Usage({"desk": 0.03, "generator": 0.5}, {"desk": 90.0, "shelf": 60.0}, used.bytes_appended)


class Meshes:
    """Stands in for Ray: starts such meshes, and keeps what was started; a slow desk takes so many rows a second."""

    def __init__(self, rows_per_s: Mapping[str, float] | None = None, busy: tuple[int, ...] = ()) -> None:
        self.rows_per_s, self.busy = rows_per_s or {}, busy
        self.started: list[tuple[str, int]] = []
        self.running = 0

    @contextmanager
    def __call__(self, processes: int) -> Iterator[compare.Start]:
        assert processes == 4
        yield self._start

    @contextmanager
    def _start(self, mesh: Mesh, log: Path, seed: int) -> Iterator[RunningMesh]:
        assert not self.running, "one mesh at a time"
        self.started.append((mesh.name, seed))
        self.running += 1
        rows = {"desk": self.rows_per_s[mesh.name]} if mesh.name in self.rows_per_s else {}
        yield Real(mesh, seed=seed, rows_per_s=rows)
        self.running -= 1


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[Meshes], None]:
    """The machine is busy beside the meshes that say so, and quiet else, whatever it is."""

    def watch(meshes: Meshes) -> None:
        class Made(Watch):
            def __enter__(self) -> Made:
                return self

            def __exit__(self, *_: object) -> None:
                busy = len(meshes.started) - 1 in meshes.busy
                self.use = MachineUse(others=0.5 if busy else 0.0, stolen=0.0)

        monkeypatch.setattr(compare, "Watch", Made)

    return watch


def test_what_each_costs_stands_in_the_report_by_role(tmp_path: Path, watched: Callable[[Meshes], None]) -> None:
    meshes = Meshes()
    watched(meshes)
    made = measured(comparison(meshes, offered_per_s=[400]), tmp_path)
    point = made.points[0]
    assert point.memory_mb["desk"].median == 90
    assert point.cpu_s_per_1000_requests["desk"].median == pytest.approx(
        0.03 * 1_000 / point.counts.completed * 3, rel=0.1
    )
    assert point.bytes_moved is not None
    assert point.bytes_moved.low > 1_000
    page = unescape((tmp_path / "report.html").read_text())
    assert "CPU of the mesh per loan" in page
    assert "s per 1,000 loans" in page
    assert "Bytes moved" in page
    assert "virtual clock" not in page


def test_the_meshes_take_turns_forwards_and_backwards_each_time_from_another_seed(
    tmp_path: Path, watched: Callable[[Meshes], None]
) -> None:
    meshes = Meshes()
    watched(meshes)
    measured(comparison(meshes, offered_per_s=[400, 500]), tmp_path, seed=7)
    one, two = "library", "library-asking"
    turns = [[one, two], [two, one], [one, two]]
    assert meshes.started == [(name, 7 + turn) for turn, names in enumerate(turns) for name in names * 2]


def test_a_disturbed_pair_is_measured_again_at_its_load_only(tmp_path: Path, watched: Callable[[Meshes], None]) -> None:
    meshes = Meshes(busy=(2,))
    watched(meshes)
    made = measured(comparison(meshes, offered_per_s=[400, 500], repetitions=1), tmp_path)
    assert [name for name, _ in meshes.started] == ["library", "library-asking"] * 2 + ["library-asking", "library"]
    assert {(point.mesh, point.axis["offered_per_s"]): point.repetitions for point in made.points} == {
        ("library", 400): 1, ("library-asking", 400): 1, ("library", 500): 2, ("library-asking", 500): 2,
    }  # fmt: skip


def test_a_mesh_for_which_a_load_was_too_much_is_offered_no_greater_one_and_the_other_is(
    tmp_path: Path, watched: Callable[[Meshes], None]
) -> None:
    meshes = Meshes(rows_per_s={"library-asking": 700})
    watched(meshes)
    changes = {"offered_per_s": [100, 800, 1_600], "window_s": 0.15, "repetitions": 2, "options": {"loans": 20}}
    made = measured(comparison(meshes, **changes), tmp_path)
    loads = {name: [point.axis["offered_per_s"] for point in made.points if point.mesh == name] for name in
             ("library", "library-asking")}  # fmt: skip
    assert loads == {"library": [100, 800, 1_600], "library-asking": [100, 800]}
    said = headline.of_run(made, conclusions.of_run(made))
    assert said.sentence == "Library (listening) held at least 2 times the load of library-asking (asking)."
    assert "| Load held, loans/s | at least 1,600 | 100 to 800 |" in (tmp_path / "summary.md").read_text()


def test_what_was_measured_is_kept_when_it_is_stopped(tmp_path: Path, watched: Callable[[Meshes], None]) -> None:
    meshes = Meshes()
    watched(meshes)

    def say(line: str) -> None:
        if len(meshes.started) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        comparison(meshes, offered_per_s=[400]).run(tmp_path, seed=1, report=silent, say=say)
    kept = record.read(tmp_path)
    assert kept.status == "aborted"
    assert [point.repetitions for point in kept.points] == [1, 2]
    assert kept.agreements[0].differed == [0]
    assert (tmp_path / "report.html").is_file()


# --- what cannot be compared -------------------------------------------------------------------------


def refusal(**changes: Any) -> str:
    with pytest.raises(EventmeshError) as refused:
        comparison(**changes).describe()
    return str(refused.value)


def test_what_cannot_be_compared_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "found none: write --mesh A --mesh B" in refusal(meshes=[])
    assert "mesh.yaml alone: write --mesh A --mesh B" in refusal(meshes=MESHES[:1])
    (tmp_path / "link.yaml").symlink_to(MESHES[0])
    assert "is named twice" in refusal(meshes=[MESHES[0], tmp_path / "link.yaml"])
    said = refusal(meshes=[MESHES[0], "views"])
    assert "application: is 'eventmesh.shop', and the first mesh is of 'tests.tiny'" in said
    assert "Did you mean 'views'?" in refusal(meshes=["vews", "request"])
    assert "has no option --input. It has --loans" in refusal(options={"input": "orders.csv"})
    assert "has no option --rate" in refusal(options={"rate": 5})
    assert "options.loans" in refusal(options={"loans": "many"})
    monkeypatch.delattr(tests.tiny, "workload")
    assert "has no workload, so there is nothing to run" in refusal()


def test_a_mesh_that_cannot_be_asked_what_the_others_are_asked_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def returned(options: Any) -> Workload:
        return Workload([], Requests.of([GiveBack(f"loan-{options.number}", "book-1")]))

    monkeypatch.setattr(tests.tiny, "workload", returned)
    with pytest.raises(ConfigurationError, match="which has no rule for it in wiring 'asking'") as refused:
        comparison(offered_per_s=[1], window_s=1, warmup_s=0).describe()
    assert str(MESHES[1]) in str(refused.value)


def test_two_meshes_of_one_name_are_called_by_their_files(tmp_path: Path) -> None:
    copy = tmp_path / "copy.yaml"
    copy.write_text(MESHES[0].read_text())
    assert [each.name for each in comparison(meshes=[MESHES[0], copy]).candidates] == ["mesh", "copy"]
    other = tmp_path / "mesh.yaml"
    other.write_text(MESHES[0].read_text())
    assert [each.name for each in comparison(meshes=[MESHES[0], other]).candidates] == [str(MESHES[0]), str(other)]


# --- a load that lasts -------------------------------------------------------------------------------


def made(commands: Callable[[int], list[Any]], rate: float = 100) -> Callable[[int], Workload]:
    """A workload by its number."""

    def make(number: int) -> Workload:
        asked = commands(number)
        at = (np.arange(len(asked)) * 1e6 / rate).astype(np.int64)
        return Workload([Requests.of([Buy("book", number)])], Requests.of(asked, at), summary={"orders": len(asked)})

    return make


def loans(number: int) -> list[Any]:
    return [Borrow(f"loan-{number}-{each}", "book", 14) for each in range(30)]


def test_workloads_follow_each_other_at_the_rate_each_with_its_seeding() -> None:
    def alternating(number: int) -> list[Any]:
        return loans(number) if number % 2 else [GiveBack(f"loan-{number}-{each}", "book") for each in range(30)]

    whole = fill(made(alternating), 100, 0.7, tests.tiny.WORDS)
    assert (len(whole.load), len(whole.seeding)) == (90, 3)
    assert set(np.diff(whole.load.at)) == {10_000}
    assert len(set(whole.load.keys)) == 90
    assert whole.load.payload.num_rows == 90
    assert whole.load.payload["days"].null_count == 30, "what a return does not ask"
    assert whole.summary is None, "that of one is not that of three"


def test_one_that_is_long_enough_stays_as_it_is() -> None:
    whole = fill(made(loans), 100, 0.3, tests.tiny.WORDS)
    assert (len(whole.load), whole.summary) == (30, {"orders": 30})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (made(lambda number: loans(1)), "asked for once more it names the same again. Choose more loans"),
        (made(lambda number: [Borrow(f"loan-{number}", "book", 1)]), "100 workloads of it are not enough"),
        (made(lambda number: []), "asks for no loan at all"),
        (made(lambda number: loans(number), rate=50), "does not keep the rate that it is told: 30 loans at 100/s last"),
    ],
)
def test_a_workload_that_cannot_fill_the_time_is_refused(make: Callable[[int], Workload], said: str) -> None:
    with pytest.raises(InputError, match="loan") as refused:
        fill(make, 100, 3.0, tests.tiny.WORDS)
    assert said in str(refused.value)


# --- the command -------------------------------------------------------------------------------------


def test_options_of_the_application_are_taken_where_its_mesh_is_named(eventmesh: Run, tmp_path: Path) -> None:
    pair = ("--mesh", MESHES[0], "--mesh", MESHES[1])
    planned = eventmesh("bench", "run", "compare", "--quick", "--dry-run", *pair, "--loans", 1_500)
    assert (planned.code, planned.err, planned.made) == (0, "", [])
    assert "library (listening): 1,500 at 100 loans/s, 1,500 at 300 loans/s, x 4" in planned.out
    joined = eventmesh("bench", "run", "compare", "-n", "--quick", "--loans=350", f"--mesh={MESHES[0]}", *pair[2:])
    assert "350 at 100 loans/s, 1,050 at 300 loans/s" in joined.out
    eventmesh("bench", "run", "compare", "-n", *pair, "--orders", 5).must_have_refused("No such option: --orders")
    refused = eventmesh("bench", "run", "compare", "-n", *pair, "--input", "a.csv", "--mapping", "b.yaml")
    refused.must_have_refused("'tests.tiny' has no option --input")
    eventmesh("bench", "run", "compare", "-n", *pair[:2]).must_have_refused("write --mesh A --mesh B")
    eventmesh("bench", "run", "order-flow", "-n", *pair).must_have_refused("--mesh is for compare only")
    eventmesh("bench", "run", "order-flow", "-n", "--runtime", "ray").must_have_refused("--runtime is for compare only")
    assert "--loans N" in eventmesh("bench", "run", "compare", *pair, "--help").out
    shop = eventmesh("bench", "run", "compare", "--help").out
    assert "--stock-fraction" in shop
    assert shop.count("--mapping FILE") == 1
    assert "--loans" not in eventmesh("bench", "run", "order-flow", "--help").out


def test_an_input_of_the_shop_is_read_and_what_is_too_short_for_a_load_is_said(eventmesh: Run, tmp_path: Path) -> None:
    lines = [f"{n},SKU-{n % 3},1,2024-01-01 00:00:00,2.5,c{n % 5}" for n in range(1_100)]
    (tmp_path / "orders.csv").write_text("\n".join(["order,sku,quantity,time,price,customer", *lines]) + "\n")
    columns = ("order", "sku", "quantity", "time", "customer")
    mapping = {
        "schema": "eventmesh.mapping/1",
        "unit_price": {"column": "price"},
        **{column: column for column in columns},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mapping))
    given = ("--input", "orders.csv", "--mapping", "mine.yaml")
    planned = eventmesh("bench", "run", "compare", "-n", "--quick", *given)
    assert "views (listening): 1,100 at 100 orders/s, 1,100 at 300 orders/s" in planned.out, planned.err
    eventmesh("bench", "run", "compare", "-n", *given).must_have_refused(
        "the workload has 1,100 orders, and at 200/s the benchmark needs 2,000", "it names the same again"
    )

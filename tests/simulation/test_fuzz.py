"""Given the fuzzer, when a rule is broken, then it finds that, makes it smaller, and runs it again to the byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from random import Random

import pytest

from eventmesh.audit.verdict import Audit
from eventmesh.errors import CorruptSegment, EnvironmentUnavailable, InputError, LogTruncated
from eventmesh.lab import fuzz, fuzz_draws, fuzz_files, fuzz_verdict
from eventmesh.lab.fuzz_case import Case, Setup, run
from eventmesh.lab.fuzz_draws import SLOW_NETWORK
from eventmesh.lab.fuzz_files import RESULTS, FindingFile
from eventmesh.lab.jobs import Jobs
from eventmesh.lab.shrinking import Bound, fewer, shrunk
from eventmesh.report.progress_bar import silent
from eventmesh.runtime.faults import (
    FAULTS,
    AtTime,
    ClockJump,
    FailingSyncs,
    FlippedBit,
    Kill,
    LostUnsynced,
    Planned,
    Struck,
    check,
)
from tests.simulation.mutants import MUTANTS

ROOT = Path(__file__).parents[2]
DOCUMENTS = fuzz.described(None)
VIEWS = {"views": DOCUMENTS["views"]}
TIMED = ["E11", "E3", "E7"]
#: Applies a mutant and replays a file, in a process of its own.
REPLAY = """
import json, pathlib, pytest, sys
from eventmesh.lab import fuzz
from tests.simulation.mutants import MUTANTS
MUTANTS[sys.argv[1]].apply(pytest.MonkeyPatch())
print(json.dumps(fuzz.replayed(pathlib.Path(sys.argv[2]), "abc")))
"""


def fuzzed(folder: Path, seeds: range, *, jobs: int = 1, said: list[str] | None = None, **more: object) -> fuzz.Fuzzed:
    plan = fuzz.Plan(VIEWS, seeds, folder, "abc", "def", **more)  # type: ignore[arg-type]
    workers = Jobs[fuzz.Piece, object](partial(fuzz.work, commit="abc", code="def"), jobs)
    return fuzz.fuzz(plan, workers, report=silent, say=(said if said is not None else []).append)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> fuzz.Fuzzed:
    """What the fuzzer finds where appends do not carry the vector. Shrinking is bounded by looks at its clock."""
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS["vector_left_out"].apply(patch)
        patch.setattr(fuzz, "Bound", lambda seconds: Bound(seconds, clock=count().__next__))
        return fuzzed(tmp_path_factory.mktemp("found"), range(2), shrink_s=16)


@pytest.fixture(scope="module")
def file(found: fuzz.Fuzzed) -> Path:
    """The file of the first finding."""
    return Path(next(each["file"] for each in found.findings if each["file"] is not None))


def test_a_broken_rule_is_found_and_made_smaller(found: fuzz.Fuzzed, file: Path) -> None:
    assert [each["seed"] for each in found.findings if "D6" in each["found"]] == [0, 1]
    finding = fuzz_files.read_finding(file)
    whole = fuzz_draws.drawn(DOCUMENTS["views"], finding.seed)
    assert finding.shrunk
    assert "D6" in finding.found
    assert (finding.case.faults, finding.case.seeding_faults) == ((), ())
    assert len(finding.case.workload().load) < len(whole.workload().load)


def test_what_alike_seeds_found_is_made_smaller_once(found: fuzz.Fuzzed) -> None:
    assert [each["file"] is not None for each in found.findings] == [True, False]


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_finding_is_replayed_to_the_byte_in_another_process(file: Path, hash_seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", REPLAY, "vector_left_out", str(file)]
    ended = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=50)
    story = json.loads(ended.stdout)
    assert story["same"]
    assert story["found"] == fuzz_files.read_finding(file).found


def test_with_the_rule_in_force_the_same_file_shows_nothing(file: Path) -> None:
    story = fuzz.replayed(file, "another")
    assert (story["found"], story["ended"], story["same"]) == ({}, "valid", False)


def test_a_seed_names_one_history_whoever_runs_it() -> None:
    once, again = (run(fuzz_draws.drawn(DOCUMENTS["request"], 5)) for _ in range(2))
    assert once.struck_by_kind().total() >= 3
    assert once.digest() == again.digest()
    assert once.digest() != run(fuzz_draws.drawn(DOCUMENTS["request"], 6)).digest()


# --- what is drawn ------------------------------------------------------------------------------------


def test_every_kind_of_fault_that_exists_here_is_drawn_and_fits_the_mesh() -> None:
    assert fuzz_draws.KINDS.keys() == {kind for kind, model in FAULTS.items() if "simulated" in model.runtimes}
    mesh = run_of(Setup()).mesh
    dice, places = Random(1), fuzz_draws.Places(mesh, 1.0)
    for kind in fuzz_draws.KINDS:
        check(fuzz_draws.plan(places, [kind], 40, dice), mesh, "simulated", ["load"])


def test_how_faults_are_drawn_leaves_the_rest_of_a_seed_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fuzz_draws.drawn(DOCUMENTS["views"], 3)
    monkeypatch.setattr(fuzz_draws, "plan", lambda places, kinds, count, dice: ())
    monkeypatch.setattr(fuzz_draws, "links", lambda places, dice: ())
    after = fuzz_draws.drawn(DOCUMENTS["views"], 3)
    assert after.faults == ()
    assert after == before.model_copy(update={"faults": (), "seeding_faults": ()})


# --- what is right ------------------------------------------------------------------------------------


def run_of(setup: Setup, *struck: Struck) -> fuzz_verdict.Ran:
    """A small run, to which faults are said to have happened."""
    ran = run(Case(seed=1, mesh=DOCUMENTS["views"], setup=setup, variation={"requests": 3}))
    for each in struck:
        each.shows["happened"] += 1
    ran.plans.append(list(struck))
    return ran


def flipped(file: str) -> Struck:
    return Struck(FlippedBit(partition="orders/0"), 1, details={"file": file, "byte": "9"})


def test_a_bit_that_rots_must_be_found_where_it_is() -> None:
    ran = run_of(Setup(), flipped("orders/0/0.arrow"))
    ran.error = CorruptSegment("orders/0/0.arrow", 0, 9, "checksum")
    assert not fuzz_verdict.judge(ran)
    ran.error = CorruptSegment("stock/0/0.arrow", 0, 9, "checksum")
    assert fuzz_verdict.judge(ran).names == ["CorruptSegment"]


def test_who_cannot_open_a_log_again_says_so_of_the_file_that_rots() -> None:
    """As seed 10826 of views did: a sync fails, and while the log is closed a bit rots in it."""
    faults = (
        Planned(moment=AtTime(seconds=0.01), fault=FailingSyncs(lasts_s=0.02)),
        Planned(moment=AtTime(seconds=0.1), fault=FlippedBit(partition="orders/0", segment="active")),
    )
    fsync = Setup(durability="fsync")
    ran = run(Case(seed=1, mesh=DOCUMENTS["views"], setup=fsync, variation={"requests": 20}, faults=faults))
    assert ran.ended() == "Deadlock"
    assert "the log cannot be opened: orders/0/" in str(ran.error)
    assert not fuzz_verdict.judge(ran)
    ran.plans.clear()
    assert fuzz_verdict.judge(ran).names == ["Deadlock"], "no bit was flipped"


def test_what_a_check_cannot_read_because_of_rot_is_no_finding_and_all_else_is() -> None:
    ran = run_of(Setup(), flipped("orders/0/0.arrow"))
    assert ran.audit is not None
    for example, names in (("orders/0/0.arrow: the batch is damaged", []), ("it does not say why", ["A1"])):
        check = replace(ran.audit.checks["A1"], verdict="unknown", examples=[example])
        ran.audit = Audit({**ran.audit.checks, "A1": check})
        assert fuzz_verdict.judge(ran).names == names


def test_a_clock_that_was_off_excuses_what_holds_facts_against_times_and_nothing_else() -> None:
    """As seed 12847 of request did, for E11."""
    for struck, names in (([Struck(ClockJump(process="orders/0", by_ms=-1, lasts_s=1), 1)], ["E3"]), ([], TIMED)):
        ran = run_of(Setup(), *struck)
        assert ran.audit is not None
        wrong = {each: replace(ran.audit.checks[each], verdict="invalid", examples=["so"]) for each in TIMED}
        ran.audit = Audit({**ran.audit.checks, **wrong})
        assert fuzz_verdict.judge(ran).names == names


def test_facts_may_be_lost_with_a_machine_only_where_the_level_says_so() -> None:
    for durability, right in (("os", True), ("fsync", False)):
        ran = run_of(Setup(durability=durability), Struck(LostUnsynced(), 1))
        ran.error = LogTruncated("orders/0", 1, 0, 9)
        assert bool(fuzz_verdict.judge(ran)) is not right


def test_what_is_deleted_by_retention_is_no_finding() -> None:
    setup = Setup(snapshot_rows=5, segment_bytes=2_000, retention_ms=20)
    ran = run(Case(seed=1, mesh=DOCUMENTS["views"], setup=setup, variation={"requests": 60, "rate": 100.0}))
    assert ran.audit is not None
    assert fuzz_verdict.deleted(ran)
    assert ran.audit.verdict == "unknown"
    assert not fuzz_verdict.judge(ran)


# --- going on -----------------------------------------------------------------------------------------


def test_a_resumed_run_skips_what_the_same_commit_has_run(tmp_path: Path) -> None:
    first = fuzzed(tmp_path, range(2))
    lines = (tmp_path / RESULTS).read_text().splitlines()
    assert [json.loads(line)["commit"] for line in lines] == ["abc", "abc"]
    (tmp_path / RESULTS).write_text("\n".join([*lines, lines[0][:40]]))  # killed while it wrote
    whole = fuzzed(tmp_path, range(3), resume=True)
    assert (whole.done_before, whole.seeds) == (2, 3)
    assert whole.struck >= first.struck
    assert [json.loads(line)["seed"] for line in (tmp_path / RESULTS).read_text().splitlines()] == [0, 1, 2]


def test_another_commit_runs_them_again(tmp_path: Path) -> None:
    fuzzed(tmp_path, range(1))
    of_another = fuzz.Plan(VIEWS, range(1), tmp_path, "another", "def", resume=True)
    workers = Jobs[fuzz.Piece, object](partial(fuzz.work, commit="another", code="def"), 1)
    assert fuzz.fuzz(of_another, workers, report=silent, say=print).done_before == 0


def test_a_line_of_another_form_is_refused_with_its_number(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text('{"schema": "eventmesh.fuzz/0"}\n')
    with pytest.raises(InputError, match="line 1 is no result of the form"):
        fuzzed(tmp_path, range(1), resume=True)


# --- many processes -----------------------------------------------------------------------------------


def doubled(number: int) -> int:
    if number == 13:
        os._exit(7)
    if number < 0:
        raise InputError("a number below zero")
    return 2 * number


def test_processes_share_the_work() -> None:
    with Jobs(doubled, 2) as jobs:
        for number in range(5):
            jobs.put(number)
        done: dict[int, int] = {}
        for number, result in jobs:
            done[number] = result
            if number == 0:
                jobs.put_first(100)
    assert done == {number: 2 * number for number in (*range(5), 100)}


@pytest.mark.parametrize(
    ("piece", "error", "said"),
    [(-1, InputError, "below zero"), (13, EnvironmentUnavailable, "exit code 7 while it worked on 13")],
)
def test_what_goes_wrong_in_a_process_is_said(piece: int, error: type[Exception], said: str) -> None:
    with Jobs(doubled, 2) as jobs:
        jobs.put(piece)
        with pytest.raises(error, match=said):
            list(jobs)


# --- smaller ------------------------------------------------------------------------------------------


def test_what_fails_is_made_as_small_as_it_gets() -> None:
    bound = Bound(60.0)
    assert list(fewer(range(40), lambda few: {3, 17, 33} <= set(few), bound)) == [3, 17, 33]
    assert list(fewer(range(40), lambda few: True, bound)) == []
    assert list(fewer(range(5), lambda few: False, bound)) == list(range(5))


def test_a_case_is_made_as_plain_as_what_it_shows_allows() -> None:
    whole = fuzz_draws.drawn(DOCUMENTS["views"], 7)
    kill = Planned(moment=AtTime(seconds=0.1), fault=Kill(process="orders/0"))
    setup = Setup(durability="fsync", instances=2, snapshot_rows=3, segment_bytes=2_000, retention_ms=-1)
    whole = whole.model_copy(update={"faults": (*whole.faults, kill), "setup": setup, "speeds": SLOW_NETWORK})

    def fails(case: Case) -> bool:
        kept = case.kept if case.kept is not None else range(len(whole.workload().load))
        return kill in case.faults and 2 in kept and case.setup.instances == 2

    least = shrunk(whole, fails, Bound(60.0))
    assert least == Case(
        seed=7, mesh=whole.mesh, setup=Setup(instances=2), kept=(2,), faults=(kill,),
        variation={"requests": whole.variation["requests"]},
    )  # fmt: skip


def test_shrinking_stops_when_its_time_is_over() -> None:
    ticks = iter(range(1_000))
    tried: list[int] = []
    fewer(range(100), lambda few: bool(tried.append(len(few))), Bound(10.0, clock=lambda: float(next(ticks))))
    assert 1 <= len(tried) <= 10


def test_a_finding_goes_through_its_file_unharmed(tmp_path: Path) -> None:
    case = fuzz_draws.drawn(DOCUMENTS["hybrid"], 8).model_copy(update={"kept": (1, 2)})
    at = Planned(moment=AtTime(seconds=0.1), fault=LostUnsynced())
    case = case.model_copy(update={"faults": (*case.faults, at)})
    finding = FindingFile(
        commit="abc", mesh="hybrid", seed=8, found={"E1": "a sentence"}, raised=[], digest="d", shrunk=True, case=case
    )
    assert fuzz_files.read_finding(fuzz_files.write_finding(tmp_path, finding)) == finding

"""The runs of a mesh that stays: a number is given out once, and a journal that was cut off is told or set aside."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from eventmesh.errors import EnvironmentUnavailable
from eventmesh.history import CALLERS
from eventmesh.lab import standing_runs
from eventmesh.lab.standing_runs import claim_run, keep, next_run, set_lost_journals_aside, unfinished
from eventmesh.log.storage import FileStorage
from eventmesh.runtime.journal import Journal
from eventmesh.shop import WORDS
from tests.unit.journal_story import requests


def begun(data: Path, name: str, outcomes: int) -> None:
    """The journal of a workload that was cut off after so many outcomes."""
    journal = Journal.create(data / "generator" / name, name, requests(5), 10)
    journal.completed[:outcomes] = 7
    journal.close()


def test_a_number_is_never_given_out_twice_whatever_is_left_of_its_run(tmp_path: Path) -> None:
    assert [claim_run(tmp_path), claim_run(tmp_path)] == [1, 2]
    begun(tmp_path, "run-4-load", 0)  # of a directory in which numbers were not claimed yet
    assert claim_run(tmp_path) == 5
    (tmp_path / "lost-run-7-load-abc").mkdir()
    assert claim_run(tmp_path) == 8
    keep(tmp_path, 12, pa.table({field.name: pa.array([], field.type) for field in CALLERS}))
    assert next_run(tmp_path) == 13


def test_a_number_that_cannot_be_written_down_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "callers").write_text("in the way")
    with pytest.raises(EnvironmentUnavailable, match="the number of this run cannot be written down"):
        claim_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "outcomes", "said"),
    [
        ("run-3-load", 2, "2 of the 5 orders of run 3 have their outcome; the rest go on when the mesh is up again"),
        ("run-3-load", 5, "5 of the 5 orders of run 3 have their outcome; the next run audits them"),
        ("seeding-5bd1-1", 5, "run 3 was cut off before it placed any order"),
    ],
)
def test_what_becomes_of_the_orders_of_a_run_that_was_cut_off(
    tmp_path: Path, name: str, outcomes: int, said: str
) -> None:
    (tmp_path / "callers").mkdir()
    (tmp_path / "callers" / "run-3.claimed").touch()
    begun(tmp_path, name, outcomes)
    left = unfinished(tmp_path)
    assert left is not None
    assert said in left.text(WORDS)
    assert set_lost_journals_aside(tmp_path) is None, "it can be gone on with"
    assert unfinished(tmp_path) == left


def test_looking_disturbs_nobody_who_goes_on_with_it(tmp_path: Path) -> None:
    begun(tmp_path, "run-1-load", 1)
    held = Journal.open(tmp_path / "generator" / "run-1-load")
    assert held is not None
    held.completed[1] = 8
    assert unfinished(tmp_path) == standing_runs.Unfinished(1, 2, 5)
    held.close()


def test_a_journal_that_cannot_be_gone_on_with_is_set_aside_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(tmp_path, "run-2-load", 3)
    monkeypatch.setattr("eventmesh.log.storage._said_by", lambda path: "another start of the machine")
    assert FileStorage(tmp_path / "elsewhere").boot_id == "another start of the machine"
    lost = set_lost_journals_aside(tmp_path)
    assert lost is not None
    assert lost.lost is not None
    assert (lost.lost / "requests.arrow").is_file()
    assert str(lost.lost) in lost.text(WORDS)
    assert unfinished(tmp_path) is None
    assert claim_run(tmp_path) == 3


def test_a_journal_whose_history_is_kept_is_removed(tmp_path: Path) -> None:
    begun(tmp_path, "run-1-load", 5)
    keep(tmp_path, 1, pa.table({field.name: pa.array([], field.type) for field in CALLERS}))
    assert unfinished(tmp_path) is None
    assert set_lost_journals_aside(tmp_path) is None
    assert list((tmp_path / "generator").iterdir()) == []

"""Given a caller that is killed at any instruction, when it goes on from the files it left, then nothing is lost."""

from __future__ import annotations

import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmesh.declared import Command, Declared, MessageType
from eventmesh.errors import DataDirectoryError, StorageFull
from eventmesh.log import storage as storage_module
from eventmesh.runtime.caller import Caller
from eventmesh.runtime.effects import Effect, ReplyMessage, SendAsk
from eventmesh.runtime.journal import NEVER, PROGRESS, REQUESTS, WORDS, Journal
from eventmesh.workload import Requests
from tests.unit.journal_story import MESSAGES, OWNED, START, Desk, Said, caller, facts, is_repeat, life, requests

COUNT = 10
SEED = 3  # a desk that throttles, and answers in two steps


def reopened(folder: Path) -> Journal:
    """What the files say."""
    journal = Journal.open(folder)
    assert journal is not None
    return journal


def looked_at(folder: Path) -> tuple[int, list[dict[str, Any]]]:
    """Start and facts, as the files alone tell them."""
    journal = reopened(folder)
    journal.close()
    return journal.started_at, facts(journal)


def assert_kept(before: tuple[int, list[dict[str, Any]]], after: tuple[int, list[dict[str, Any]]]) -> None:
    """What was once set is set for good; of an outcome that is there all of it is."""
    assert before[0] in (NEVER, after[0])
    for earlier, later in zip(before[1], after[1], strict=True):
        for name in ("sent", "accepted", "completed"):
            assert earlier[name] in (NEVER, later[name]), name
        if earlier["completed"] != NEVER:
            assert earlier == later
        assert earlier["attempts"] <= later["attempts"]
        assert (later["outcome"] is None) == (later["completed"] == NEVER)


@given(
    seed=st.integers(0, 1_000_000),
    deaths=st.lists(st.tuples(st.integers(1, 20_000), st.integers(0, 40_000)), max_size=6),
)
@settings(max_examples=150)
def test_killed_anywhere_every_request_is_answered_once(seed: int, deaths: list[tuple[int, int]]) -> None:
    with TemporaryDirectory() as directory:
        folder, desk = Path(directory), Desk(random.Random(seed))
        Journal.create(folder, "load", requests(COUNT), 4).close()
        seen = looked_at(folder)
        for instruction, away in deaths:
            if life(desk, folder, instruction) is not None:
                break
            after = looked_at(folder)
            assert_kept(seen, after)
            assert_sends_are_known(desk, after[1])
            seen = after
            desk.now += away
        done = life(desk, folder, None)
        assert done is not None
        assert_kept(seen, looked_at(folder))
        assert_right(done, desk)


def assert_sends_are_known(desk: Desk, told: list[dict[str, Any]]) -> None:
    """Whatever reached the desk was counted before it left."""
    for identity, times in desk.asked.items():
        fact = told[int(identity.rpartition(":")[2])]
        assert fact["sent"] != NEVER
        assert fact["attempts"] >= times


def assert_right(done: Caller, desk: Desk) -> None:
    """Every request under one id, with the answer that the desk gave, at times that follow each other."""
    rows = done.table().to_pylist()
    assert len(desk.asks) == len(set(desk.asks)), "an ask's id names one message"
    assert set(desk.asked) == set(desk.decided) == {f"load:{row['command']}:{row['request']}" for row in rows}
    for row in rows:
        outcome, reason = desk.decided[f"load:{row['command']}:{row['request']}"]
        repeated = outcome != "refused" and is_repeat(f":{row['request']}")
        assert (row["outcome"], row["reason"], row["repeated"]) == (outcome, reason, repeated)
        assert row["intended_at"] == done.journal.started_at + 700 * row["request"]
        accepted = row["accepted_at"] if outcome != "refused" else row["completed_at"]
        assert row["intended_at"] <= row["sent_at"] <= accepted <= row["completed_at"]


RECORDING = ("begin_life", "settle", "resume", "tick", "_send_message", "_come_back", "_complete", "_add")


@pytest.mark.parametrize("inside", RECORDING)
def test_killed_before_every_instruction_of_what_records(tmp_path: Path, inside: str) -> None:
    Journal.create(tmp_path / "new", "load", requests(2), 4).close()
    for instruction in count(1):
        folder, desk = tmp_path / str(instruction), Desk(random.Random(SEED))
        shutil.copytree(tmp_path / "new", folder)
        survived = life(desk, folder, instruction, inside)
        told = looked_at(folder)
        assert_kept(told, told)
        assert_sends_are_known(desk, told[1])
        done = survived or life(desk, folder, None)
        assert done is not None
        assert_right(done, desk)
        if survived:
            assert instruction > 10, f"{inside} ran"
            return


def test_a_send_that_was_recorded_in_part_had_not_left(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, "load", requests(6), 4)
    journal.begin_life(START)
    journal.sent[[0, 1, 4]] = START
    journal.close()
    half = reopened(tmp_path)
    assert half.next == 2
    assert half.sent.tolist() == [START, START, *[NEVER] * 4]


def answered(effect: Effect, rows: list[int], *, final: bool) -> ReplyMessage:
    assert isinstance(effect, SendAsk)
    outcome = "granted" if final else "accepted"
    return ReplyMessage(effect.message.id, rows, [{"outcome": outcome, "reason": None}] * len(rows), final)


def test_what_was_open_is_asked_again_at_once_and_what_fell_due_meanwhile_is_late(tmp_path: Path) -> None:
    now, effects, asked = [START], list[Effect](), requests(4, every=10_000)
    first = caller(asked, lambda: now[0], effects.append, journal=Journal.create(tmp_path, "load", asked, 9))
    first.start()
    now[0] = START + 10_000
    first.tick(now[0])
    first.replied(answered(effects[0], [0], final=True))
    first.journal.close()  # dies: request 0 is answered, 1 is open, 2 and 3 are not due
    now[0] = START + 25_000
    again = list[Effect]()
    journal = reopened(tmp_path)
    second = caller(journal.requests, lambda: now[0], again.append, journal=journal)
    second.resume()
    sent = [(e.message.id, list(e.message.ids)) for e in again if isinstance(e, SendAsk)]
    assert sorted(identity for _, ids in sent for identity in ids) == ["load:Lend:1", "load:Lend:2"]
    old = [effect.message.id for effect in effects if isinstance(effect, SendAsk)]
    assert all(ask.startswith("load:2:") for ask, _ in sent)
    assert not set(old) & {ask for ask, _ in sent}
    second.replied(answered(effects[1], [0], final=True))
    assert second.open_requests == 2, "an answer to a message of the earlier life is nobody's"
    now[0] = START + 26_000
    for effect in list(again):
        assert isinstance(effect, SendAsk)
        second.replied(answered(effect, list(range(len(effect.message.ids))), final=True))
    rows = second.table().to_pylist()
    assert [row["attempts"] for row in rows] == [1, 2, 1, 0]
    assert [row["intended_at"] for row in rows] == [START + at for at in (0, 10_000, 20_000, 30_000)]
    assert [row["sent_at"] for row in rows[:3]] == [START, START + 10_000, START + 25_000]
    assert rows[0]["completed_at"] == START + 10_000
    assert second.next_deadline() == START + 30_000, "the schedule goes on"


def test_a_finished_run_is_read_back_as_it_was(tmp_path: Path) -> None:
    desk = Desk(random.Random(1))
    Journal.create(tmp_path, "load", requests(COUNT), 4).close()
    done = life(desk, tmp_path, None)
    again = life(desk, tmp_path, None)
    assert done is not None
    assert again is not None
    assert again.done
    assert again.table().equals(done.table())


def test_requests_come_back_as_they_were(tmp_path: Path) -> None:
    asked = requests(COUNT)
    Journal.create(tmp_path, "load", asked, 4).close()
    journal = reopened(tmp_path)
    assert (journal.name, journal.window, journal.lives) == ("load", 4, 0)
    assert journal.requests.payload.equals(asked.payload)
    assert journal.requests.payload.schema.equals(asked.payload.schema, check_metadata=True)
    journal.check("load", asked)


def wider_lend() -> MessageType:
    """The command of a later version, with a column more."""

    class Lend(Command[Said], service="desk", key="book", public=True):
        note: str | None
        book: str
        days: int

    return Declared(Lend).messages["Lend"]


def test_who_asks_more_by_now_goes_on_with_what_was_asked(tmp_path: Path) -> None:
    asked, effects = requests(COUNT, every=0), list[Effect]()
    Journal.create(tmp_path, "load", asked, COUNT).close()
    lend = wider_lend()
    wider = lend.question
    journal = reopened(tmp_path)
    Caller(
        "load", journal.requests, messages={**MESSAGES, "Lend": lend}, owned=OWNED,
        clock=lambda: START, emit=effects.append, journal=journal,
    ).resume()  # fmt: skip
    sent = [row for effect in effects if isinstance(effect, SendAsk) for row in effect.message.rows.dicts(wider)]
    wanted = zip(asked.commands, asked.payload.to_pylist(), strict=True)
    lent = [{"note": None, **row} for command, row in wanted if command == "Lend"]
    assert sorted((row for row in sent if row["days"]), key=lambda row: int(row["days"])) == lent


def changed(**change: Any) -> Requests:
    asked = requests(COUNT)
    columns = {"commands": asked.commands, "keys": asked.keys, "payload": asked.payload, "at": asked.at} | change
    return Requests(**columns)


@pytest.mark.parametrize(
    ("name", "other", "said"),
    [
        ("seeding", requests(COUNT), "name 'load', not 'seeding'"),
        ("load", requests(COUNT + 1), "10 requests, not 11"),
        ("load", changed(keys=[f"copy-{n}" for n in range(COUNT)]), "other requests"),
        ("load", changed(commands=["GiveBack"] * COUNT), "other requests"),
        ("load", changed(at=np.arange(COUNT)), "other requests"),
        ("load", changed(payload=requests(COUNT).payload.take(pa.array(range(COUNT))[::-1])), "other requests"),
    ],
)
def test_a_journal_of_other_requests_is_refused(tmp_path: Path, name: str, other: Requests, said: str) -> None:
    journal = Journal.create(tmp_path, "load", requests(COUNT), 4)
    with pytest.raises(DataDirectoryError, match=f"of another run: {said}. Resume that run"):
        journal.check(name, other)
    if name == "load":
        with pytest.raises(DataDirectoryError, match=str(tmp_path)):
            caller(other, lambda: START, [].append, journal=journal)
    journal.close()


# --- the files --------------------------------------------------------------------------------------


def test_a_torn_word_list_ends_before_the_word_that_is_torn(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    journal = Journal.create(whole, "load", requests(1), 4)
    assert [journal.words.code(word) for word in ("granted", "größer als erlaubt", "granted", None)] == [0, 1, 0, NEVER]
    journal.close()
    data = (whole / WORDS).read_bytes()
    first = len(data) - 8 - len("größer als erlaubt".encode())
    tails = [data[first:cut] for cut in range(first, len(data))]
    tails += [data[first:-1] + b"?", b"\0" * 40, b"\xff" * 40]
    for number, tail in enumerate(tails):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        (folder / WORDS).write_bytes(data[:first] + tail)
        torn = reopened(folder)
        assert torn.words.words[:1] == ["granted"]
        assert set(torn.words.words[1:]) <= {""}, "zeros are the record of an empty word, which harms nobody"
        code = torn.words.code("late")
        torn.close()
        assert reopened(folder).words.words[code] == "late"


def test_a_word_in_use_that_is_not_in_the_list_is_damage(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, "load", requests(1), 4)
    journal.outcomes[0] = journal.words.code("granted")
    journal.close()
    (tmp_path / WORDS).write_bytes(b"")
    with pytest.raises(DataDirectoryError, match="0 words, but word 0 is in use"):
        Journal.open(tmp_path)


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file grows beyond ``size`` bytes: the error is the system's own."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize(("size", "number"), [(1, 3), (300, 20), (1_000, 20)], ids=["lock", "progress", "requests"])
def test_a_full_disk_is_said_before_anything_is_sent_and_takes_no_room(tmp_path: Path, size: int, number: int) -> None:
    asked = requests(number)
    with disk_of(size), pytest.raises(StorageFull, match=f"no room for the journal of 'load' with its {number} req"):
        Journal.create(tmp_path, "load", asked, 4)
    assert not (tmp_path / PROGRESS).exists()
    assert Journal.open(tmp_path) is None
    Journal.create(tmp_path, "load", asked, 4).close()
    reopened(tmp_path).check("load", asked)


def test_an_outcome_that_finds_no_room_is_not_half_recorded(tmp_path: Path) -> None:
    effects, asked = list[Effect](), requests(1)
    journal = Journal.create(tmp_path, "load", asked, 4)
    calling = caller(asked, lambda: START, effects.append, journal=journal)
    calling.start()
    with disk_of(4), pytest.raises(StorageFull):
        calling.replied(answered(effects[0], [0], final=True))
    assert not calling.done
    assert facts(journal)[0]["outcome"] is None
    calling.replied(answered(effects[0], [0], final=True))
    assert calling.outcomes == ["granted"], "with room again it is"


def test_a_creation_that_was_cut_short_is_no_journal_and_does_not_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / PROGRESS).write_bytes(b"\xff" * 77)
    (tmp_path / WORDS).write_bytes(b"\x07")
    (tmp_path / f"{REQUESTS}.temporary").write_bytes(b"ARROW1")
    assert Journal.open(tmp_path) is None
    assert Journal.open(tmp_path / "nowhere") is None
    assert not (tmp_path / "nowhere").exists()
    Journal.create(tmp_path, "load", requests(2), 4).close()
    assert facts(reopened(tmp_path))[1]["sent"] == NEVER


def test_a_journal_has_one_writer_and_is_never_begun_again(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, "load", requests(2), 4)
    for second in (Journal.open, lambda folder: Journal.create(folder, "load", requests(2), 4)):
        with pytest.raises(DataDirectoryError, match="in use by process"):
            second(tmp_path)
    journal.close()
    with pytest.raises(DataDirectoryError, match="holds the journal of a caller already"):
        Journal.create(tmp_path, "load", requests(2), 4)


def test_after_the_machine_was_started_again_a_journal_promises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, boot = tmp_path / "journal", tmp_path / "boot_id"
    Journal.create(folder, "load", requests(2), 4).close()
    boot.write_text("another boot\n")
    monkeypatch.setattr(storage_module, "_BOOT_ID", boot)
    with pytest.raises(DataDirectoryError, match="the machine was started again"):
        Journal.open(folder)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [(PROGRESS, b"short", "5 bytes, expected 146"), (REQUESTS, b"ARROW1 and no more", REQUESTS)],
)
def test_damage_is_named(tmp_path: Path, file: str, content: bytes, said: str) -> None:
    Journal.create(tmp_path, "load", requests(2), 4).close()
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataDirectoryError, match=said):
        Journal.open(tmp_path)


KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
from pathlib import Path
from eventmesh.runtime.effects import ReplyMessage
from eventmesh.runtime.journal import Journal
from tests.unit.journal_story import START, caller, requests
effects, asked = [], requests(1_000, every=0)
calling = caller(asked, lambda: START, effects.append, journal=Journal.create(Path({folder!r}), "load", asked, 1_000))
calling.start()
said = [{{"outcome": "granted", "reason": "since nobody else asked"}}]
for effect in effects:
    for row in range(0, len(effect.message.ids), 2):
        calling.replied(ReplyMessage(effect.message.id, [row], said))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_recorded_is_there(tmp_path: Path) -> None:
    code = KILLED.format(path=[str(Path(__file__).parents[2])], folder=str(tmp_path / "journal"))
    ended = subprocess.run([sys.executable, "-c", code], timeout=50, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    told = facts(reopened(tmp_path / "journal"))
    assert {fact["sent"] for fact in told} == {START}
    granted = [fact for fact in told if fact["completed"] == START]
    assert 500 <= len(granted) <= 504, "every second row of each message"
    assert {(fact["outcome"], fact["reason"]) for fact in granted} == {("granted", "since nobody else asked")}

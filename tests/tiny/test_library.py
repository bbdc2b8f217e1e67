"""Given the second application and processes that die, then every loan is answered once and the audit is valid."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from eventmesh import mesh as meshes
from eventmesh.errors import KeyReused
from eventmesh.lab.simulated_run import Crashes, run_simulated
from eventmesh.log.store import LogReader
from eventmesh.mesh import Mesh
from eventmesh.messages import REFUSED
from eventmesh.runtime.simulated.simulation import Simulation
from eventmesh.service import Inputs, Outcome, Talk, Trigger
from eventmesh.workload import Requests
from tests.tiny import WIRINGS, Desk, workload
from tests.tiny.lending import Borrow, Lend, LoanAnswer, LoanGranted, LoanRequested
from tests.tiny.workload import LoanOptions


def library(wiring: str, durability: str = "os") -> Mesh:
    document = meshes.load(Path(__file__).parent / {"events": "mesh.yaml", "asking": "asking.yaml"}[wiring]).resolved()
    document["log"]["durability"] = durability
    return meshes.parse(document)


def loans_on(simulation: Simulation) -> Counter[str]:
    """The facts of the desk, by type."""
    reader = LogReader.of(simulation.storage)
    return Counter(kind for number in (0, 1) for kind in reader.table("loans", number)["type"].to_pylist())


@pytest.mark.parametrize("wiring", ["events", "asking"])
@pytest.mark.parametrize("durability", ["os", "fsync"])
def test_whatever_dies_every_loan_is_answered_once(wiring: str, durability: str) -> None:
    mesh = library(wiring, durability)
    machines = 0.5 if durability == "fsync" else 0.0
    for seed in range(8):
        loans = workload(LoanOptions(seed=seed, loans=40, rate=600.0))
        deaths = Crashes(8, broker_share=0.3, machine_share=machines).drawn(mesh, seed)
        run = run_simulated(mesh, loans, seed=seed, faults=deaths)
        audit = run.audit()
        assert audit.verdict == "valid", f"seed {seed}: {audit.describe()}"
        outcomes = run.history.callers["outcome"].to_pylist()
        assert set(outcomes) <= {"granted", "declined"}, f"seed {seed}"
        copies = [run.reader.table("copies", number).to_pylist() for number in (0, 1)]
        lent = [fact["loan_id"] for facts in copies for fact in facts if fact["type"] == "CopyLent"]
        assert len(lent) == len(set(lent)) == outcomes.count("granted"), f"seed {seed}"


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "after it waited"])
def test_what_breaks_when_it_is_carried_on_is_refused_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    async def write_down(desk: Desk, loan: Borrow, talk: Talk) -> LoanAnswer:
        await talk.record(LoanRequested(loan.loan_id, loan.book, loan.days))
        return LoanAnswer(loan.loan_id, "accepted")

    async def break_half_way(desk: Desk, loan_id: str, talk: Talk) -> LoanAnswer:
        loan = talk.state.loans[loan_id]
        if waits:
            await talk.command(Lend(loan_id, loan.book, loan.days))
        granted = talk.record(LoanGranted(loan_id, loan.book))
        raise KeyError(f"a rule that breaks before {granted} is awaited")

    asking = {**WIRINGS["asking"], "desk": Trigger({Borrow: write_down}, resume={Borrow: break_half_way})}
    monkeypatch.setitem(WIRINGS, "asking", asking)
    simulation, loans = Simulation(library("asking"), seed=1), workload(LoanOptions(loans=6))
    for name, requests in (("seeding", loans.seeding[0]), ("load", loans.load)):
        simulation.call(name, requests)
        simulation.drain()
    simulation.kill(simulation.hosts["desk", 0])
    simulation.drain()
    facts = loans_on(simulation)
    assert (facts["LoanRequested"], facts["LoanGranted"], facts[REFUSED]) == (6, 0, 6)


def borrowed(simulation: Simulation, name: str, loan: str, book: str, *, times: int) -> list[dict[str, Any]]:
    """One loan, asked for so many times at once, each time by a command of its own."""
    client = simulation.call(name, Requests.of([Borrow(loan, book, 3)] * times))
    simulation.drain()
    assert client.caller is not None
    rows: list[dict[str, Any]] = client.caller.table().to_pylist()
    return rows


@pytest.mark.parametrize("times", [2, 1_500])
def test_another_command_of_a_story_waits_for_the_end_of_what_runs(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """They run one after the other, however many there are, each with its own answer; none twice."""
    running, heard = list[str](), list[str]()

    async def one_at_a_time(desk: Desk, loan: Borrow, talk: Talk) -> LoanAnswer:
        assert not running, f"{talk.cause} runs beside {running}"
        running.append(talk.cause)
        first = talk.state.status(loan.loan_id) is None
        if first:
            await talk.record(LoanRequested(loan.loan_id, loan.book, loan.days))
        heard.append(talk.cause)
        running.clear()
        return LoanAnswer(loan.loan_id, "first" if first else "again")

    monkeypatch.setitem(WIRINGS, "asking", {**WIRINGS["asking"], "desk": Trigger({Borrow: one_at_a_time})})
    simulation = Simulation(library("asking"), seed=1)
    rows = borrowed(simulation, "load", "loan-1", "book-1", times=times)
    assert Counter(row["outcome"] for row in rows) == {"first": 1, "again": times - 1}
    assert len(heard) == len(set(heard)) == times
    assert loans_on(simulation)["LoanRequested"] == 1


def test_what_was_asked_under_the_name_of_something_else_is_refused_once_and_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On record; and a retry of the command is told the same after a restart."""

    async def refuse(desk: Desk, loan: Borrow, talk: Talk) -> LoanAnswer:
        raise KeyReused(f"{loan.loan_id} is another loan")

    monkeypatch.setitem(WIRINGS, "asking", {**WIRINGS["asking"], "desk": Trigger({Borrow: refuse})})
    simulation = Simulation(library("asking"), seed=1)
    for name in ("load", "load"):  # a caller of the same name sends the same command ids
        [row] = borrowed(simulation, name, "loan-1", "book-1", times=1)
        assert (row["outcome"], row["reason"]) == ("refused", "refused: idempotency key reused: loan-1 is another loan")
        simulation.kill(simulation.hosts["desk", 0])
        simulation.drain()
    assert loans_on(simulation)[REFUSED] == 1


def test_commands_that_are_decided_half_are_refused_and_then_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    def write_down_and_break(desk: Desk, state: Any, loans: Inputs[Borrow], out: Outcome) -> None:
        for row, loan in loans.each():
            out.fact(row, LoanRequested(loan.loan_id, loan.book, loan.days))
        raise KeyError("a rule that breaks at its end")

    desk = Trigger({**WIRINGS["events"]["desk"].rules, Borrow: write_down_and_break})
    monkeypatch.setitem(WIRINGS, "events", {**WIRINGS["events"], "desk": desk})
    simulation, loans = Simulation(library("events"), seed=1), workload(LoanOptions(loans=10))
    simulation.call("load", loans.load)
    simulation.drain()
    facts = loans_on(simulation)
    assert (facts["LoanRequested"], facts[REFUSED]) == (0, 10)
    instance = simulation.hosts["desk", 0].instance
    assert instance is not None
    assert [task.decider.refused_inputs for task in instance.tasks.values()] == [{}, {}]

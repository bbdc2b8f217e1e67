"""A library whose desk declines a loan that the shelf has not settled in time: a timer writes the fact that does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from eventmesh.audit.audit import audit
from eventmesh.audit.verdict import Audit
from eventmesh.lab.simulated_run import Crashes, run_simulated
from eventmesh.log.store import LogReader
from eventmesh.runtime.simulated.simulation import Simulation
from eventmesh.service import Inputs, Outcome, Trigger
from eventmesh.workload import Requests
from tests.delivery.test_delivery import delivery
from tests.delivery.workload import MealOptions
from tests.delivery.workload import workload as meals
from tests.tiny import WIRINGS, Desk
from tests.tiny.lending import Borrow, Buy, CopyLent, CopyRefused, LoanDeclined
from tests.tiny.test_library import library, loans_on

PATIENCE_S = 20.0
SECOND = 1_000_000


def borrow(desk: Desk, state: Any, loans: Inputs[Borrow], out: Outcome) -> None:
    """As the desk does it; and it is declined after a while."""
    for row, loan in loans.each():
        if state.status(loan.loan_id) is None:
            out.after(row, PATIENCE_S, LoanDeclined(loan.loan_id, loan.book))
    desk.borrow(state, loans, out)


def settled(desk: Desk, state: Any, copies: Inputs[CopyLent | CopyRefused], out: Outcome) -> None:
    """As the desk does it; then there is nothing to decline any more."""
    for _, copy in copies.each():
        out.cancel(LoanDeclined, copy.loan_id)
    desk.settled(state, copies, out)


@contextmanager
def patient() -> Iterator[None]:
    """The desk waits so long and no longer."""
    rules = {**WIRINGS["events"]["desk"].rules, Borrow: borrow, CopyLent: settled, CopyRefused: settled}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WIRINGS, "events", {**WIRINGS["events"], "desk": Trigger(rules)})
        yield


class Library:
    """A library on the virtual clock, with a copy of each book."""

    def __init__(self, seed: int = 1) -> None:
        self.simulation = Simulation(library("events"), seed=seed)
        self.simulation.call("seeding", Requests.of([Buy(f"book-{number}", 9) for number in range(3)]))
        self.simulation.drain()
        self.desk, self.shelf = self.simulation.hosts["desk", 0], self.simulation.hosts["shelf", 0]

    def ask(self, loans: int = 6) -> None:
        """Readers ask for so many loans at once."""
        asked = [Borrow(f"loan-{number}", f"book-{number % 3}", 3) for number in range(loans)]
        self.simulation.call("load", Requests.of(asked))

    def wait(self, seconds: float) -> None:
        """So long, whatever happens."""
        world = self.simulation.world
        reached = list[bool]()
        world.after(round(seconds * SECOND), lambda: reached.append(True), "waited")
        world.run_until(lambda: bool(reached), seconds=seconds + 1, describe=str)

    def written(self) -> Counter[str]:
        return loans_on(self.simulation)

    def times(self, kind: str) -> list[int]:
        """When facts of a kind were written, in microseconds."""
        reader = LogReader.of(self.simulation.storage)
        rows = [row for number in (0, 1) for row in reader.table("loans", number).to_pylist() if row["type"] == kind]
        return [round(row["time"].timestamp() * 1e6) for row in rows]

    def audit(self) -> Audit:
        """What the whole audit says of it."""
        simulation = self.simulation
        simulation.run_until(simulation.services_quiet, seconds=60)
        return audit(simulation.mesh, LogReader.of(simulation.storage), simulation.history(["load"]))


def away_longer_than_the_delay(it: Library) -> None:
    """The desk dies when it has written the loans down, and is away; meanwhile the shelf settles them."""
    it.ask()
    it.simulation.run_until(lambda: it.written()["LoanRequested"] == 6, seconds=5)
    it.simulation.end_process(it.desk)
    it.wait(2 * PATIENCE_S)
    it.simulation.start_process(it.desk)


def late_answers(seed: int) -> set[str]:
    """What was settled while the desk was away must win over the time that has passed."""
    with patient():
        it = Library(seed)
        away_longer_than_the_delay(it)
        it.simulation.drain()
        return {"expired"} if it.written()["LoanDeclined"] else set()


def searches_and_snapshots(seed: int) -> set[str]:
    """Couriers are searched for, and whoever searches dies and starts from a snapshot."""
    mesh = delivery("told", snapshot_rows=5)
    asked = meals(MealOptions(seed=seed, meals=60, rate=500.0, couriers=2, late=2))
    try:
        run = run_simulated(mesh, asked, seed=seed, faults=Crashes(12).drawn(mesh, seed), seconds=60)
    except Exception as error:
        return {type(error).__name__}
    return {name for name, check in run.audit().checks.items() if check.verdict == "invalid"}

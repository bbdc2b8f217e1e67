"""Given a log, errors, and a state that is lent out, then docs/promises.md holds of them alone: P3, P6 and P7."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from eventmesh import mesh as meshes
from eventmesh.errors import DidNotHappen, Fenced, MayHaveHappened, NotOwner, OffsetMismatch
from eventmesh.log.batch import Header, LogBatch
from eventmesh.log.storage import MemoryStorage
from eventmesh.log.store import Durability, Log
from eventmesh.messages import encode_rows
from eventmesh.service import read_only
from eventmesh.shop.memory import Finished
from tests.tiny import DECLARED

ROOT = Path(__file__).parents[2]


@pytest.fixture
def log() -> Log:
    """The library's log, opened for writing."""
    topics = meshes.load(ROOT / "tests" / "tiny" / "mesh.yaml").topics()
    return Log.open(
        MemoryStorage(), topics, durability=Durability.memory, cluster_id="one", node="one", clock=lambda: 1
    )


def loan(base: int, *, epoch: int, append: int = 0, writer: str = "desk", incarnation: str = "desk.1") -> LogBatch:
    row = {
        "id": f"{incarnation}#{append}", "source": writer, "type": "LoanRequested", "time": 1, "sequence": base,
        "dataschema": "loans/1", "loan_id": "loan-1", "book": "Faust", "days": 7,
    }  # fmt: skip
    header = Header("facts", base, 1, epoch, append, writer, incarnation, 1)
    return LogBatch.encode(header, encode_rows(DECLARED.schemas["loans"], [row]))


def test_only_the_owner_writes_a_topic(log: Log) -> None:
    with pytest.raises(NotOwner):
        log.grant("loans", 0, "shelf", "shelf.1")
    grant = log.grant("loans", 0, "desk", "desk.1")
    with pytest.raises(NotOwner):
        log.append("loans", 0, loan(grant.end, epoch=grant.epoch, writer="shelf"))
    assert log.end("loans", 0) == grant.end


def test_an_older_incarnation_of_the_owner_is_fenced(log: Log) -> None:
    first = log.grant("loans", 0, "desk", "desk.1")
    second = log.grant("loans", 0, "desk", "desk.2")
    with pytest.raises(Fenced):
        log.append("loans", 0, loan(second.end, epoch=first.epoch))
    log.append("loans", 0, loan(second.end, epoch=second.epoch, incarnation="desk.2"))
    assert log.end("loans", 0) == second.end + 1


def test_an_append_names_the_end_it_expects_and_its_repeat_is_acknowledged_again(log: Log) -> None:
    grant = log.grant("loans", 0, "desk", "desk.1")
    once = loan(grant.end, epoch=grant.epoch)
    assert log.append("loans", 0, once) == log.append("loans", 0, once) == grant.end + 1
    with pytest.raises(OffsetMismatch) as refused:
        log.append("loans", 0, loan(grant.end, epoch=grant.epoch, append=1))
    assert (refused.value.expected, refused.value.end) == (grant.end, grant.end + 1)


def test_every_refusal_is_definite_and_nothing_unknown_is() -> None:
    assert all(error.definite for error in subclasses(DidNotHappen))
    assert not any(error.definite for error in subclasses(MayHaveHappened))


def subclasses(base: Any) -> set[Any]:
    return {base}.union(*(subclasses(below) for below in base.__subclasses__()))


@dataclass
class Account:
    """A state with methods of its own, which is how a handler might change it without noticing."""

    balance: list[int]
    names: Finished

    def spend(self) -> None:
        self.balance.append(-1)

    def reset(self) -> None:
        self.balance = []

    def total(self) -> int:
        return sum(self.balance)


def test_methods_of_a_read_only_state_cannot_change_it_either() -> None:
    account = Account([1, 2], Finished())
    account.names.remember("anna", "known", 1, 10)
    seen = read_only(account)
    assert (seen.total(), seen.names.status("anna")) == (3, "known")
    for change in (
        seen.spend,
        seen.reset,
        lambda: seen.names.remember("bert", "known", 2, 10),
        lambda: seen.names.known.clear(),
    ):
        with pytest.raises((AttributeError, TypeError)):
            change()
    assert (account.balance, list(account.names.known)) == ([1, 2], ["anna"])

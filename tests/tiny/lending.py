"""The library's facts, its two services, and what may be asked of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
from pydantic import BaseModel

from eventmesh.messages import Columns, MessageType, topic_schema
from eventmesh.service import Inputs, Outcome, Row, Service
from eventmesh.views import ViewShape

LOAN_ID, BOOK = pa.field("loan_id", pa.string()), pa.field("book", pa.string())
COPIES, DAYS = pa.field("copies", pa.int64()), pa.field("days", pa.int64())
ANSWER = [LOAN_ID, pa.field("outcome", pa.string()), pa.field("reason", pa.string())]
FACTS = {
    "loans": ("LoanRequested", "LoanGranted", "LoanDeclined", "LoanReturned"),
    "copies": ("CopiesBought", "CopyLent", "CopyRefused", "CopyReturned"),  # each with the copies left
}
SCHEMAS = {
    "loans": topic_schema([LOAN_ID, BOOK, DAYS]),
    "copies": topic_schema([BOOK, LOAN_ID, COPIES]),
}
MESSAGES = {
    message.name: message
    for message in [
        MessageType("Borrow", "command", "desk", pa.schema([LOAN_ID, BOOK, DAYS]), pa.schema(ANSWER), "loan_id"),
        MessageType("GiveBack", "command", "desk", pa.schema([LOAN_ID, BOOK]), pa.schema(ANSWER), "loan_id"),
        MessageType("Buy", "command", "shelf", pa.schema([BOOK, COPIES]), pa.schema(ANSWER), "book"),
        MessageType("Lend", "command", "shelf", pa.schema([LOAN_ID, BOOK, DAYS]), pa.schema(ANSWER), "book", "loan_id"),
        MessageType("CopiesOf", "query", "shelf", pa.schema([BOOK]), pa.schema(ANSWER), "book"),
        # A query whose handler does what no query may.
        MessageType("HelpYourself", "query", "shelf", pa.schema([BOOK]), pa.schema(ANSWER), "book"),
    ]
}
VIEWS = {"copies": ViewShape("book", ("copies",))}


class Options(BaseModel):
    """Neither service has any of its own."""


OPTIONS: dict[str, type[BaseModel]] = {"desk": Options, "shelf": Options}


@dataclass
class Loan:
    """Who waits for which book, and what became of it."""

    book: str
    days: int
    status: str = "requested"


@dataclass
class Book:
    """What the desk has written down."""

    loans: dict[str, Loan] = field(default_factory=dict)

    def status(self, loan_id: str) -> str | None:
        """What became of a loan, None if it was never asked for."""
        loan = self.loans.get(loan_id)
        return None if loan is None else loan.status


class Desk(Service):
    """Takes a loan id once, and tells what became of it."""

    name = "desk"

    def initial(self) -> Book:
        """Nobody came yet."""
        return Book()

    def evolve(self, state: Book, facts: Columns) -> None:
        """The last fact of a loan is its status."""
        for kind, loan_id, book, days in facts.rows("type", "loan_id", "book", "days"):
            if kind in ("LoanRequested", "LoanReturned"):
                state.loans[loan_id] = Loan(book, days or 0)
            state.loans[loan_id].status = kind.removeprefix("Loan").lower()

    def unfinished(self, state: Book) -> list[str]:
        """Loans not granted or declined yet."""
        return [loan_id for loan_id, loan in state.loans.items() if loan.status == "requested"]

    def borrow(self, state: Book, loans: Inputs, out: Outcome) -> None:
        """Write loans down; whether there is a copy, the shelf will say."""
        for row, loan_id, book, days in loans.rows("loan_id", "book", "days"):
            status = state.status(loan_id)
            if status in ("granted", "declined"):
                out.answer(row, {"loan_id": loan_id, "outcome": status, "reason": None})
                continue
            if status is None:
                out.fact(row, "LoanRequested", loan_id=loan_id, book=book, days=days)
            out.watch(row, loan_id)
            out.answer(row, {"loan_id": loan_id, "outcome": "accepted", "reason": None}, more=True)

    def settled(self, state: Book, copies: Inputs, out: Outcome) -> None:
        """The shelf has lent a copy, or has none."""
        fact = "LoanGranted" if copies.kind == "CopyLent" else "LoanDeclined"
        for row, loan_id, book in copies.rows("loan_id", "book"):
            if state.status(loan_id) == "requested":
                out.fact(row, fact, loan_id=loan_id, book=book)
            out.tell(loan_id, loan_id=loan_id, outcome=state.status(loan_id), reason=None)

    def give_back(self, state: Book, loans: Inputs, out: Outcome) -> None:
        """Write down that a book came back; whose it is, the shelf knows."""
        for row, loan_id, book in loans.rows("loan_id", "book"):
            if state.status(loan_id) != "returned":
                out.fact(row, "LoanReturned", loan_id=loan_id, book=book)
            out.answer(row, {"loan_id": loan_id, "outcome": "recorded", "reason": None})


@dataclass
class Copies:
    """Copies left by book, and the loans that were answered."""

    left: dict[str, int] = field(default_factory=dict)
    lent: dict[str, bool] = field(default_factory=dict)
    bought: set[str] = field(default_factory=set)


class Shelf(Service):
    """Lends what is there, a copy per loan id."""

    name = "shelf"

    def initial(self) -> Copies:
        """Empty."""
        return Copies()

    def evolve(self, state: Copies, facts: Columns) -> None:
        """Each fact says how many copies are left."""
        for kind, book, loan_id, copies, reason in facts.rows("type", "book", "loan_id", "copies", "reason"):
            assert copies >= 0, f"{copies} copies of {book}"
            state.left[book] = copies
            if kind == "CopiesBought":
                state.bought.add(reason)
            elif kind == "CopyReturned":
                del state.lent[loan_id]
            else:
                state.lent[loan_id] = kind == "CopyLent"

    def buy(self, state: Copies, books: Inputs, out: Outcome) -> None:
        """Take in new copies, once per command."""
        for row, book, copies in books.rows("book", "copies"):
            command = books.ids[row]
            if command not in state.bought:
                out.fact(row, "CopiesBought", book=book, copies=state.left.get(book, 0) + copies, reason=command)
            out.answer(row, {"loan_id": None, "outcome": "bought", "reason": None})

    def take_back(self, state: Copies, loans: Inputs, out: Outcome) -> None:
        """Put copies back; a book that was never lent is not ours, and no rule says what to do with it."""
        for row, loan_id, book in loans.rows("loan_id", "book"):
            if self.place.partition_of("copies", book) != self.place.partition:
                continue
            if not state.lent.get(loan_id):
                raise ValueError(f"{book} came back and was never lent")
            out.fact(row, "CopyReturned", book=book, loan_id=loan_id, copies=state.left[book] + 1)

    def lend(self, state: Copies, loans: Inputs, out: Outcome) -> None:
        """Lend a copy, or refuse; the same loan is always answered the same."""
        for row, loan_id, book, days in loans.rows("loan_id", "book", "days"):
            if self.place.partition_of("copies", book) != self.place.partition:
                continue
            if days < 1:
                raise ValueError(f"nobody borrows {book} for {days} days")
            if loan_id not in state.lent:
                left = state.left.get(book, 0)
                kind = "CopyLent" if left else "CopyRefused"
                out.fact(row, kind, book=book, loan_id=loan_id, copies=max(0, left - 1))
            outcome = "granted" if state.lent[loan_id] else "declined"
            out.answer(row, {"loan_id": loan_id, "outcome": outcome, "reason": None})


def _copies_of(state: Copies, question: Row) -> Row:
    return {"loan_id": None, "outcome": str(state.left.get(question["book"], 0)), "reason": None}


def _help_yourself(state: Copies, question: Row) -> Row:
    state.left[question["book"]] = 0
    return {"loan_id": None, "outcome": "taken", "reason": None}


Shelf.queries = {"CopiesOf": _copies_of, "HelpYourself": _help_yourself}

"""The library's facts, its two services, and what may be asked of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
from pydantic import BaseModel

from eventmesh.messages import MessageType, topic_schema
from eventmesh.service import Outcome, Row, Service
from eventmesh.views import ViewShape

LOAN_ID, BOOK = pa.field("loan_id", pa.string()), pa.field("book", pa.string())
COPIES, DAYS = pa.field("copies", pa.int64()), pa.field("days", pa.int64())
ANSWER = [LOAN_ID, pa.field("outcome", pa.string()), pa.field("reason", pa.string())]
SCHEMAS = {
    # LoanRequested, LoanGranted, LoanDeclined, LoanReturned
    "loans": topic_schema([LOAN_ID, BOOK, DAYS]),
    # CopiesBought, CopyLent, CopyRefused, CopyReturned: each with the copies left
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
    reads = fold = ("loan_id", "book", "days")

    def initial(self) -> Book:
        """Nobody came yet."""
        return Book()

    def evolve(self, state: Book, fact: Row) -> None:
        """The last fact of a loan is its status."""
        if fact["type"] in ("LoanRequested", "LoanReturned"):
            state.loans[fact["loan_id"]] = Loan(fact["book"], fact.get("days") or 0)
        state.loans[fact["loan_id"]].status = fact["type"].removeprefix("Loan").lower()

    def unfinished(self, state: Book) -> list[str]:
        """Loans not granted or declined yet."""
        return [loan_id for loan_id, loan in state.loans.items() if loan.status == "requested"]

    def borrow(self, state: Book, row: Row, out: Outcome) -> Row:
        """Write a loan down; whether there is a copy, the shelf will say."""
        loan_id = row["loan_id"]
        status = state.status(loan_id)
        if status in ("granted", "declined"):
            return {"loan_id": loan_id, "outcome": status, "reason": None}
        if status is None:
            out.fact("LoanRequested", loan_id=loan_id, book=row["book"], days=row["days"])
        out.watch(loan_id)
        return {"loan_id": loan_id, "outcome": "accepted", "reason": None, "more": True}

    def settled(self, state: Book, row: Row, out: Outcome) -> None:
        """The shelf has lent a copy, or has none."""
        loan_id, granted = row["loan_id"], row["type"] == "CopyLent"
        if state.status(loan_id) == "requested":
            out.fact("LoanGranted" if granted else "LoanDeclined", loan_id=loan_id, book=row["book"])
        out.tell(loan_id, loan_id=loan_id, outcome=state.status(loan_id), reason=None)

    def give_back(self, state: Book, row: Row, out: Outcome) -> Row:
        """Write down that a book came back; whose it is, the shelf knows."""
        if state.status(row["loan_id"]) != "returned":
            out.fact("LoanReturned", loan_id=row["loan_id"], book=row["book"])
        return {"loan_id": row["loan_id"], "outcome": "recorded", "reason": None}


@dataclass
class Copies:
    """Copies left by book, and the loans that were answered."""

    left: dict[str, int] = field(default_factory=dict)
    lent: dict[str, bool] = field(default_factory=dict)
    bought: set[str] = field(default_factory=set)


class Shelf(Service):
    """Lends what is there, a copy per loan id."""

    name = "shelf"
    reads = ("loan_id", "book", "days")
    fold = ("loan_id", "book", "copies", "reason")

    def initial(self) -> Copies:
        """Empty."""
        return Copies()

    def evolve(self, state: Copies, fact: Row) -> None:
        """Each fact says how many copies are left."""
        assert fact["copies"] >= 0, f"{fact['copies']} copies of {fact['book']}"
        state.left[fact["book"]] = fact["copies"]
        if fact["type"] == "CopiesBought":
            state.bought.add(fact["reason"])
        elif fact["type"] == "CopyReturned":
            del state.lent[fact["loan_id"]]
        else:
            state.lent[fact["loan_id"]] = fact["type"] == "CopyLent"

    def buy(self, state: Copies, row: Row, out: Outcome) -> Row:
        """Take in new copies, once per command."""
        if row["id"] not in state.bought:
            copies = state.left.get(row["book"], 0) + row["copies"]
            out.fact("CopiesBought", book=row["book"], copies=copies, reason=row["id"])
        return {"loan_id": None, "outcome": "bought", "reason": None}

    def take_back(self, state: Copies, row: Row, out: Outcome) -> None:
        """Put a copy back; a book that was never lent is not ours, and no rule says what to do with it."""
        loan_id, book = row["loan_id"], row["book"]
        if self.place.partition_of("copies", book) != self.place.partition:
            return
        if not state.lent.get(loan_id):
            raise ValueError(f"{book} came back and was never lent")
        out.fact("CopyReturned", book=book, loan_id=loan_id, copies=state.left[book] + 1)

    def lend(self, state: Copies, row: Row, out: Outcome) -> Row | None:
        """Lend a copy, or refuse; the same loan is always answered the same."""
        loan_id, book = row["loan_id"], row["book"]
        if self.place.partition_of("copies", book) != self.place.partition:
            return None
        if row["days"] < 1:
            raise ValueError(f"nobody borrows {book} for {row['days']} days")
        if loan_id not in state.lent:
            left = state.left.get(book, 0)
            out.fact("CopyLent" if left else "CopyRefused", book=book, loan_id=loan_id, copies=max(0, left - 1))
        return {"loan_id": loan_id, "outcome": "granted" if state.lent[loan_id] else "declined", "reason": None}


def _copies_of(state: Copies, question: Row) -> Row:
    return {"loan_id": None, "outcome": str(state.left.get(question["book"], 0)), "reason": None}


def _help_yourself(state: Copies, question: Row) -> Row:
    state.left[question["book"]] = 0
    return {"loan_id": None, "outcome": "taken", "reason": None}


Shelf.queries = {"CopiesOf": _copies_of, "HelpYourself": _help_yourself}

"""The library's facts, its two services, and what may be asked of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import BaseModel

from eventmesh.declared import Answer, Command, Fact, Facts, InputRefused, Query
from eventmesh.service import Inputs, Outcome, Service
from eventmesh.views import ViewShape


class LoanRequested(Fact, topic="loans"):
    """A reader wants a book."""

    loan_id: str
    book: str
    days: int


class LoanGranted(Fact, topic="loans"):
    """The reader has it."""

    loan_id: str
    book: str


class LoanDeclined(Fact, topic="loans"):
    """There was no copy left."""

    loan_id: str
    book: str


class LoanReturned(Fact, topic="loans"):
    """The reader brought it back."""

    loan_id: str
    book: str


class CopiesBought(Fact, topic="copies"):
    """The shelf has new copies; ``reason`` is the command that brought them. As in each fact, ``copies`` are left."""

    book: str
    copies: int
    reason: str


class CopyLent(Fact, topic="copies"):
    """One left the house."""

    book: str
    loan_id: str
    copies: int


class CopyRefused(Fact, topic="copies"):
    """There was none."""

    book: str
    loan_id: str
    copies: int


class CopyReturned(Fact, topic="copies"):
    """One came back."""

    book: str
    loan_id: str
    copies: int


class LoanAnswer(Answer):
    """What became of a loan."""

    loan_id: str | None
    outcome: str
    reason: str | None = None


class Borrow(Command[LoanAnswer], service="desk", key="loan_id", public=True):
    """A reader asks for a book."""

    loan_id: str
    book: str
    days: int


class GiveBack(Command[LoanAnswer], service="desk", key="loan_id", public=True):
    """A reader brings it back."""

    loan_id: str
    book: str


class Buy(Command[LoanAnswer], service="shelf", key="book", public=True):
    """New copies of a book come."""

    book: str
    copies: int


class Lend(Command[LoanAnswer], service="shelf", key="book", story="loan_id", public=True):
    """The desk asks for a copy."""

    loan_id: str
    book: str
    days: int


class CopiesOf(Query[LoanAnswer], service="shelf", key="book", public=True):
    """How many copies are left?"""

    book: str


class HelpYourself(Query[LoanAnswer], service="shelf", key="book", public=True):
    """A query whose handler does what no query may."""

    book: str


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

    def evolve(self, state: Book, facts: Facts) -> None:
        """The last fact of a loan is its status."""
        for fact in facts.each():
            match fact:
                case LoanRequested(loan_id, book, days):
                    state.loans[loan_id] = Loan(book, days)
                case LoanGranted(loan_id):
                    state.loans[loan_id].status = "granted"
                case LoanDeclined(loan_id):
                    state.loans[loan_id].status = "declined"
                case LoanReturned(loan_id, book):
                    state.loans[loan_id] = Loan(book, 0, "returned")

    def unfinished(self, state: Book) -> list[str]:
        """Loans not granted or declined yet."""
        return [loan_id for loan_id, loan in state.loans.items() if loan.status == "requested"]

    def borrow(self, state: Book, loans: Inputs[Borrow], out: Outcome) -> None:
        """Write loans down; whether there is a copy, the shelf will say."""
        for row, loan in loans.each():
            status = state.status(loan.loan_id)
            if status in ("granted", "declined"):
                out.answer(row, LoanAnswer(loan.loan_id, status))
                continue
            if status is None:
                out.fact(row, LoanRequested(loan.loan_id, loan.book, loan.days))
            out.watch(row, loan.loan_id)
            out.answer(row, LoanAnswer(loan.loan_id, "accepted"), more=True)

    def settled(self, state: Book, copies: Inputs[CopyLent | CopyRefused], out: Outcome) -> None:
        """The shelf has lent a copy, or has none."""
        for row, copy in copies.each():
            if copy.loan_id not in state.loans:
                continue  # another partition's
            if state.status(copy.loan_id) == "requested":
                settled = LoanGranted if isinstance(copy, CopyLent) else LoanDeclined
                out.fact(row, settled(copy.loan_id, copy.book))
            out.tell(copy.loan_id, LoanAnswer(copy.loan_id, state.loans[copy.loan_id].status))

    def give_up(self, state: Book, refused: Inputs[InputRefused], out: Outcome) -> None:
        """The shelf could not decide on a loan, whose id is the story's."""
        for row, broken in refused.each():
            loan_id = refused.stories[row]
            if state.status(loan_id) == "requested":
                out.fact(row, LoanDeclined(loan_id, state.loans[loan_id].book))
                out.tell(loan_id, LoanAnswer(loan_id, "declined", f"{broken.position}: {broken.reason}"))

    def give_back(self, state: Book, loans: Inputs[GiveBack], out: Outcome) -> None:
        """Write down that a book came back; whose it is, the shelf knows."""
        for row, loan in loans.each():
            if state.status(loan.loan_id) != "returned":
                out.fact(row, LoanReturned(loan.loan_id, loan.book))
            out.answer(row, LoanAnswer(loan.loan_id, "recorded"))


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

    def evolve(self, state: Copies, facts: Facts) -> None:
        """Each fact says how many copies are left."""
        for fact in facts.each():
            assert isinstance(fact, CopiesBought | CopyLent | CopyRefused | CopyReturned)
            assert fact.copies >= 0, f"{fact.copies} copies of {fact.book}"
            state.left[fact.book] = fact.copies
            match fact:
                case CopiesBought():
                    state.bought.add(fact.reason)
                case CopyReturned():
                    del state.lent[fact.loan_id]
                case _:
                    state.lent[fact.loan_id] = isinstance(fact, CopyLent)

    def buy(self, state: Copies, books: Inputs[Buy], out: Outcome) -> None:
        """Take in new copies, once per command."""
        for row, bought in books.each():
            command = books.ids[row]
            if command not in state.bought:
                copies = state.left.get(bought.book, 0) + bought.copies
                out.fact(row, CopiesBought(bought.book, copies, command))
            out.answer(row, LoanAnswer(None, "bought"))

    def take_back(self, state: Copies, loans: Inputs[LoanReturned], out: Outcome) -> None:
        """Put copies back; a book that was never lent is not ours, and no rule says what to do with it."""
        for row, loan in loans.each():
            if self.place.partition_of("copies", loan.book) != self.place.partition:
                continue
            if not state.lent.get(loan.loan_id):
                raise ValueError(f"{loan.book} came back and was never lent")
            out.fact(row, CopyReturned(loan.book, loan.loan_id, state.left[loan.book] + 1))

    def lend(self, state: Copies, loans: Inputs[Lend | LoanRequested], out: Outcome) -> None:
        """Lend a copy, or refuse; the same loan is always answered the same."""
        for row, loan in loans.each():
            if self.place.partition_of("copies", loan.book) != self.place.partition:
                continue
            if loan.days < 1:
                raise ValueError(f"nobody borrows {loan.book} for {loan.days} days")
            if loan.loan_id not in state.lent:
                left = state.left.get(loan.book, 0)
                fact = CopyLent if left else CopyRefused
                out.fact(row, fact(loan.book, loan.loan_id, max(0, left - 1)))
            out.answer(row, LoanAnswer(loan.loan_id, "granted" if state.lent[loan.loan_id] else "declined"))


def _copies_of(state: Copies, question: CopiesOf) -> LoanAnswer:
    return LoanAnswer(None, str(state.left.get(question.book, 0)))


def _help_yourself(state: Copies, question: HelpYourself) -> LoanAnswer:
    state.left[question.book] = 0
    return LoanAnswer(None, "taken")


Shelf.queries = {CopiesOf: _copies_of, HelpYourself: _help_yourself}

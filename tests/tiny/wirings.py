"""How the library's two services hear of each other."""

from __future__ import annotations

from collections.abc import Mapping

from eventmesh.declared import InputRefused
from eventmesh.service import Talk, Trigger
from tests.tiny.lending import (
    Borrow,
    Buy,
    CopyLent,
    CopyRefused,
    Desk,
    GiveBack,
    Lend,
    LoanAnswer,
    LoanDeclined,
    LoanGranted,
    LoanRequested,
    LoanReturned,
    Shelf,
)


async def borrow(desk: Desk, loan: Borrow, talk: Talk) -> LoanAnswer:
    """Write the loan down, and see it through; a repeat hears what became of it."""
    if talk.state.status(loan.loan_id) is None:
        await talk.record(LoanRequested(loan.loan_id, loan.book, loan.days))
    return await carry_on(desk, loan.loan_id, talk)


async def carry_on(desk: Desk, loan_id: str, talk: Talk) -> LoanAnswer:
    """Command the shelf until it answers, and write its answer down."""
    loan = talk.state.loans[loan_id]
    if loan.status == "requested":
        answer = await talk.command(Lend(loan_id, loan.book, loan.days), attempts=1_000)
        settled = LoanGranted if answer.outcome == "granted" else LoanDeclined
        await talk.record(settled(loan_id, loan.book))
    return LoanAnswer(loan_id, talk.state.status(loan_id))


WIRINGS: dict[str, Mapping[str, Trigger]] = {
    "events": {
        "desk": Trigger(
            {
                Borrow: Desk.borrow,
                GiveBack: Desk.give_back,
                CopyLent: Desk.settled,
                CopyRefused: Desk.settled,
            }
        ),
        "shelf": Trigger({Buy: Shelf.buy, LoanRequested: Shelf.lend, LoanReturned: Shelf.take_back}),
    },
    "hearing": {  # as events, and the desk hears what the shelf could not decide
        "desk": Trigger(
            {
                Borrow: Desk.borrow,
                CopyLent: Desk.settled,
                CopyRefused: Desk.settled,
                InputRefused: Desk.give_up,
            }
        ),
        "shelf": Trigger({Buy: Shelf.buy, LoanRequested: Shelf.lend}),
    },
    "asking": {
        "desk": Trigger({Borrow: borrow}, resume={Borrow: carry_on}, sends=[Lend]),
        "shelf": Trigger({Buy: Shelf.buy, Lend: Shelf.lend}),
    },
}

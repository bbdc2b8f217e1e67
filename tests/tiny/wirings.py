"""How the library's two services hear of each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventmesh.service import Talk, Trigger
from tests.tiny.lending import Desk, Shelf


async def borrow(desk: Desk, row: Mapping[str, Any], talk: Talk) -> dict[str, Any]:
    """Write the loan down, and see it through; a repeat hears what became of it."""
    loan_id = row["loan_id"]
    if talk.state.status(loan_id) is None:
        await talk.record("LoanRequested", loan_id=loan_id, book=row["book"], days=row["days"])
    return await carry_on(desk, {"key": loan_id}, talk)


async def carry_on(desk: Desk, row: Mapping[str, Any], talk: Talk) -> dict[str, Any]:
    """Command the shelf until it answers, and write its answer down."""
    loan_id = row["key"]
    loan = talk.state.loans[loan_id]
    if loan.status == "requested":
        question = {"loan_id": loan_id, "book": loan.book, "days": loan.days}
        answer: dict[str, Any] = await talk.command("Lend", question, attempts=1_000)
        await talk.record("LoanGranted" if answer["outcome"] == "granted" else "LoanDeclined", loan_id=loan_id)
    return {"loan_id": loan_id, "outcome": talk.state.status(loan_id), "reason": None}


WIRINGS: dict[str, Mapping[str, Trigger]] = {
    "events": {
        "desk": Trigger(
            {
                "Borrow": Desk.borrow,
                "GiveBack": Desk.give_back,
                "CopyLent": Desk.settled,
                "CopyRefused": Desk.settled,
            }
        ),
        "shelf": Trigger({"Buy": Shelf.buy, "LoanRequested": Shelf.lend, "LoanReturned": Shelf.take_back}),
    },
    "asking": {
        "desk": Trigger({"Borrow": borrow}, resume={"Borrow": carry_on}, sends=["Lend"]),
        "shelf": Trigger({"Buy": Shelf.buy, "Lend": Shelf.lend}),
    },
}

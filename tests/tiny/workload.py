"""What readers ask of the library: books are bought, then borrowed."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from eventmesh.service import Row
from eventmesh.workload import Requests, Workload, WorkloadOptions
from tests.tiny.lending import MESSAGES

BOOKS = [f"book-{number}" for number in range(7)]


def asking(command: str, key: str, rows: list[Row], gap: int = 0) -> Requests:
    """The same command for every row, ``gap`` microseconds apart."""
    at = np.arange(len(rows), dtype=np.int64) * gap
    return Requests.of_rows(MESSAGES, [command] * len(rows), [row[key] for row in rows], rows, at)


class LoanOptions(WorkloadOptions):
    """What a user may choose of the loans."""

    loans: int = Field(1_000, ge=1, le=100_000, description="Loans that readers ask for.")


WORKLOAD = LoanOptions


def workload(options: LoanOptions) -> Workload:
    """Loans over seven books, of each of which there are too few by half."""
    later = "" if options.number == 1 else f"{options.number}-"
    loans = [
        {"loan_id": f"loan-{later}{options.seed}-{number}", "book": BOOKS[(number * number) % 7], "days": 14}
        for number in range(options.loans)
    ]
    stock = [{"book": book, "copies": sum(loan["book"] == book for loan in loans) // 2} for book in BOOKS]
    gap = 0 if options.rate is None else int(1e6 / options.rate)
    return Workload([asking("Buy", "book", stock)], asking("Borrow", "loan_id", loans, gap))

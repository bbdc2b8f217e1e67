"""What readers ask of the library: books are bought, then borrowed."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from eventmesh.workload import Requests, Workload, WorkloadOptions
from tests.tiny.lending import Borrow, Buy

BOOKS = [f"book-{number}" for number in range(7)]


class LoanOptions(WorkloadOptions):
    """What a user may choose of the loans."""

    loans: int = Field(1_000, ge=1, le=100_000, description="Loans that readers ask for.")


WORKLOAD = LoanOptions


def workload(options: LoanOptions) -> Workload:
    """Loans over seven books, of each of which there are too few by half."""
    later = "" if options.number == 1 else f"{options.number}-"
    loans = [
        Borrow(f"loan-{later}{options.seed}-{number}", BOOKS[(number * number) % 7], 14)
        for number in range(options.loans)
    ]
    stock = [Buy(book, sum(loan.book == book for loan in loans) // 2) for book in BOOKS]
    gap = 0 if options.rate is None else int(1e6 / options.rate)
    at = np.arange(len(loans), dtype=np.int64) * gap
    return Workload([Requests.of(stock)], Requests.of(loans, at))

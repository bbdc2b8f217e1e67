"""What is sold on the market, drawn from a seed: few customers and products, so that their keys meet."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from eventmesh.workload import Requests, Workload
from tests.market.stalls import Look, Reprice, Sell, TakeBack, Void

CUSTOMERS, PRODUCTS = ("ann", "bob", "cy", None), ("leek", "kale", "plum", "fig")
PICKED = 1_600_000_000_000_000


def drawn(dice: random.Random, sale: int) -> dict[str, Any]:
    """What one sale is about; nothing is said of some of it now and then."""
    return {
        "sale": f"sale-{sale}",
        "customer": dice.choice(CUSTOMERS),
        "product": dice.choice(PRODUCTS),
        "amount": dice.choice((10, 20, 20, 30, 2**62, None)),
        "weight": dice.choice((0.0, -0.0, 1.5, 2.25, None)),
        "organic": dice.choice((True, False, None)),
        "picked": dice.choice((None, PICKED + dice.randrange(10))),
        "floor": dice.choice((None, 1, 2, 10)),
    }


def sales(seed: int, count: int = 60, *, gap_us: int = 2_000) -> Workload:
    """So many commands, ``gap_us`` microseconds apart. Most sell; others are about what was sold before, or will be."""
    dice = random.Random(f"sales of {seed}")
    asked: list[Sell | Reprice | Void | TakeBack | Look] = []
    for number in range(count):
        command = dice.choice((Sell, Sell, Sell, Reprice, Void, TakeBack, TakeBack, None))
        said = drawn(dice, number if command is Sell else dice.randrange(count))
        asked.append(Look("nobody who ever bought") if command is None else command(**said))
    return Workload([], Requests.of(asked, np.arange(count, dtype=np.int64) * gap_us))

"""How a report writes numbers and lists: what a person would say, never digits that were not measured."""

from __future__ import annotations

import math
from collections.abc import Sequence


def number(value: float) -> str:
    """Three significant digits, thousands separated: ``0.42``, ``12.5``, ``120``, ``1,600``, ``12,346``.

    From a hundred upwards whole numbers are shown whole, since loads and counts are known so; no number is ever
    written with an exponent.
    """
    if value == 0 or abs(value) >= 99.95:
        return f"{value:,.0f}"
    decimals = 2 - math.floor(math.log10(abs(value)))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def times(value: float) -> str:
    """A ratio, two significant digits: ``1.3``, ``12``, ``120``; below two the second decimal counts: ``1.08``."""
    if value < 2:
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return f"{value:.1f}".rstrip("0").rstrip(".") if value < 10 else f"{float(f'{value:.2g}'):,.0f}"


def duration(milliseconds: float) -> str:
    """``0.42 ms``, ``12 ms``, ``3.4 s``."""
    return f"{number(milliseconds)} ms" if milliseconds < 1_000 else f"{number(milliseconds / 1_000)} s"


def percent(share: float) -> str:
    """``48 %``."""
    return f"{share * 100:.0f} %"


def listed(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def capital(text: str) -> str:
    """The text with a capital at its beginning."""
    return text[:1].upper() + text[1:]

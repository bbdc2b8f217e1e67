"""How numbers are read: quantities, prices, and ids that came through a column of numbers.

Exact decimals throughout: 2.675 is a tie as it is written, but not as a binary fraction. Where a text may mean two
numbers, it is refused, and the reason names the key of the mapping that decides.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import NamedTuple

import pyarrow as pa

from eventmesh.shop.order_columns import Column
from eventmesh.shop.order_history import QUANTITY_MAX, VALUE_MAX
from eventmesh.shop.order_mapping import CsvFormat, OrderMapping, Role

#: Longer texts are no numbers of an order, and reading them takes a time that grows with their square.
DIGITS_MAX = 100
_ROUNDINGS = {"half_even": ROUND_HALF_EVEN, "half_up": ROUND_HALF_UP}
_NUMBER = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)(?:[eE]([+-]?\d{1,9}))?", re.ASCII)
#: The sign may be meant as a point, or between thousands.
_TWO_MEANINGS = re.compile(r"[+-]?[1-9]\d{0,2}([.,])\d{3}", re.ASCII)
_OTHER_SIGNS = re.compile(r"[+-]?\d+[.,' ][\d.,' ]*", re.ASCII)
_CODE_OF_CURRENCY = re.compile(r"[+-]?\s*[A-Z]{3}\s*[\d.,]|.*[\d.,]\s*[A-Z]{3}", re.ASCII)
_IN_GROUPS = re.compile(r"[+-]?\d{1,3}(?:[.,' ]\d{2,3})*[.,' ]\d{3}(?:[.,]\d*)?", re.ASCII)
_BROKEN = "?"
#: Text that a column of floats was written as, and what spreadsheets show of long numbers.
_WHOLE = re.compile(r"([+-]?\d+)\.0", re.ASCII)
_ROUNDED = re.compile(r"[+-]?\d(\.\d+)?[eE]\+\d+", re.ASCII)
#: Bits of a whole number that each kind of float tells apart from the next.
_EXACT_BITS = {"halffloat": 11, "float": 24, "double": 53}


class Reading(NamedTuple):
    """What a text says as an int64; or why it says none; and the rule by which it was read, where it took one."""

    value: int = 0
    fault: str = ""
    assumed: str = ""


Reader = Callable[[str], Reading]


class Signs:
    """The signs by which numbers of a text are written: ``decimal``, ``thousands``, and a ``currency`` around them."""

    def __init__(self, form: CsvFormat, currency: str | None = None) -> None:
        self.stated = form.decimal is not None or form.thousands is not None
        self.decimal = form.decimal or ("," if form.thousands == "." else ".")
        self.thousands, self.currency = _alike(form.thousands or ""), currency and _alike(currency)
        mark = re.escape(self.thousands)
        self._grouped = re.compile(rf"^[+-]?\d{{1,3}}({mark}\d{{2,3}})*{mark}\d{{3}}(?!\d)", re.ASCII) if mark else None

    def plain(self, text: str) -> str:
        """``text`` with a point for the decimals and nothing between thousands; no number where it breaks the rules."""
        text = self._bare(_alike(text.strip()))
        if self._grouped is not None:
            # Where a group is not whole, or stands behind the decimals, the sign stays, and no number is found.
            text = self._grouped.sub(lambda groups: groups[0].replace(self.thousands, ""), text, count=1)
        if self.decimal == ".":
            return text
        return _BROKEN if "." in text else text.replace(self.decimal, ".", 1)

    def _bare(self, text: str) -> str:
        if self.currency is None or self.currency not in text:
            return text
        sign, amount = (text[0], text[1:].strip()) if text[0] in "+-" else ("", text)
        bare = amount.removeprefix(self.currency)
        return sign + (bare if bare != amount else amount.removesuffix(self.currency)).strip()


def _alike(text: str) -> str:
    """Signs that look alike as one: blanks of every width, both apostrophes, both minus signs."""
    return re.sub(r"\s", " ", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").replace("\N{MINUS SIGN}", "-")


def number(text: str, signs: Signs | None, name: str, what: str, decimals: int) -> Decimal | str:
    """The number that ``text`` holds, or why it holds none; ``signs`` is None for the text of a native number.

    None has a larger exponent than a float, so that no arithmetic overflows.

    ``name`` is the role and ``what`` the kind of number that the reason names. A whole group of three behind a single
    sign is decimals only where so many are kept.
    """
    if signs is not None and not signs.stated and decimals < 3 and _TWO_MEANINGS.fullmatch(_alike(text.strip())):
        return f"{name} ambiguous (set csv.decimal)"
    found = _NUMBER.fullmatch(text.strip() if signs is None else signs.plain(text))
    if found is None or len(text) > DIGITS_MAX:
        return _no_number(text, signs, name, what)
    if signs is not None and int(found[3] or 0) > 0:
        return f"{name} in exponent form"
    return Decimal(found[0])


def _no_number(text: str, signs: Signs | None, name: str, what: str) -> str:
    if signs is not None and signs.currency is None and name != "quantity" and _has_currency(text):
        return f"{name} with a currency (set {name}.currency)"
    bare = _alike(text.strip())
    if signs is not None and not signs.stated and _OTHER_SIGNS.fullmatch(bare):
        return f"{name} with other signs (set csv.decimal or csv.thousands)"
    if signs is not None and not signs.thousands and _IN_GROUPS.fullmatch(bare):
        return f"{name} with other signs (set csv.thousands)"
    return f"{name} not a {what}"


def _has_currency(text: str) -> bool:
    return any(unicodedata.category(sign) == "Sc" for sign in text) or bool(_CODE_OF_CURRENCY.match(text.strip()))


def quantity_reader(mapping: OrderMapping, column: Column) -> Reader:
    """Whole units, negative ones too."""
    signs = Signs(mapping.csv) if column.is_text else None

    def read(text: str) -> Reading:
        value = number(text, signs, "quantity", "whole number", 0)
        if isinstance(value, str):
            return Reading(fault=value)
        if abs(value) > QUANTITY_MAX:
            return Reading(fault="quantity too large")
        whole = value == value.to_integral_value()
        return Reading(int(value)) if whole else Reading(fault="quantity not a whole number")

    return read


def price_reader(mapping: OrderMapping, column: Column, *, negative: bool = False) -> Reader:
    """Minor units of a price, which is tested before it is rounded; where ``negative``, those of its opposite."""
    role, price = mapping.priced
    signs = Signs(mapping.csv, price.currency) if column.is_text else None
    decimals = price.decimals if price.unit == "major" else 0
    step, rounding = Decimal(1).scaleb(-decimals), _ROUNDINGS[price.rounding]
    most = Decimal(VALUE_MAX).scaleb(-decimals)
    zero_is_refused = mapping.refuse.unit_price == "<= 0"
    # A price that is not positive is; a total that should be negative is not.
    wrong, beyond = ("not negative", "positive") if negative else ("not positive", "negative")

    def read(text: str) -> Reading:
        value = number(text, signs, role, "number", decimals)
        if isinstance(value, str):
            return Reading(fault=value)
        value = value.copy_negate() if negative else value
        if value <= 0 and zero_is_refused:
            return Reading(fault=f"{role} {wrong}")
        if value < 0:
            return Reading(fault=f"{role} {beyond}")
        if value > most:
            return Reading(fault="value too large")
        return Reading(int(value.quantize(step, rounding).scaleb(decimals)))

    return read


# --- ids -----------------------------------------------------------------------------------------


def ids(column: Column, role: Role) -> tuple[pa.Array, list[str]]:
    """The ids that the distinct values of a column name, and why some name none: one rule for each role.

    Ids with gaps pass through columns of floats in many tools: 17850.0 is 17850, as a number and as text. A float that
    is not whole, or so large that floats skip whole numbers there, names nobody; nor does 1.70E+04, which has lost its
    other digits in a spreadsheet.
    """
    kind = column.values.type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        most = 2 ** _EXACT_BITS[str(kind)] if pa.types.is_floating(kind) else None
        read = [_whole_id(value, most, role) for value in column.values.to_pylist()]
    else:
        read = [_text_id(text, role) for text in column.texts.to_pylist()]
    # A value that is no id is shown as the file has it.
    shown = [own if name is None else name for (name, _), own in zip(read, column.texts.to_pylist(), strict=True)]
    return pa.array(shown, pa.string()), [fault for _, fault in read]


def _whole_id(value: float | Decimal | None, most: int | None, role: Role) -> tuple[str | None, str]:
    if value is None or math.isnan(value):
        return None, ""
    if math.isinf(value) or value != int(value):
        return None, f"{role} not a whole number"
    if most is not None and not -most < value < most:
        return None, f"{role} beyond the exact floats"
    return str(int(value)), ""


def _text_id(text: str | None, role: Role) -> tuple[str | None, str]:
    if text is None:
        return None, ""
    if _ROUNDED.fullmatch(text.strip()):
        return None, f"{role} in exponent form"
    whole = _WHOLE.fullmatch(text)
    return (whole[1] if whole else text), ""

"""How times are read: text, counts since 1970, or a Parquet file's own times; each becomes microseconds since 1970 UTC.

One rule for local hours where clocks are changed: an hour that comes twice is its first time, and one that never comes
is as much later as the clock was put forward. Both are counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo

import pyarrow as pa

from eventmesh.shop.order_columns import Column
from eventmesh.shop.order_mapping import OrderMapping, zone
from eventmesh.shop.order_numbers import DIGITS_MAX, Reading, Signs, number

TWICE, NEVER = "first of a time that comes twice", "time that never comes moved on"
NOT_READABLE, OUT_OF_RANGE, DIGITS = "time not readable", "time out of range", "time of digits alone (set time_unit)"
#: Years that every tool can count in nanoseconds since 1970. What lies outside is a mark for "never" or "unknown".
YEARS = range(1678, 2262)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST, _NEAR, _FAR, _END = (
    (datetime(year, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND for year in (YEARS.start, 1990, 2100, YEARS.stop)
)
#: Python takes more for ISO 8601 than anybody writes: any sign may stand before the hour.
_ISO = re.compile(r"\d{4}-?(\d\d-?\d\d|[Ww]\d\d(-?\d)?)([Tt ].*)?", re.ASCII)
_DATE_DIGITS = 8
#: Microseconds of a unit as a fraction: one of the two is 1.
_UNITS = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}


def readings(mapping: OrderMapping, column: Column) -> list[Reading | None]:
    """What each distinct value of ``column`` says; None of one that is missing."""
    if pa.types.is_timestamp(column.values.type):
        times, per_unit = _UNITS[column.values.type.unit]
        local = UTC if column.values.type.tz else zone(mapping.timezone)
        counts = column.values.cast(pa.int64()).to_pylist()
        return [None if count is None else _native(count * times // per_unit, local) for count in counts]
    read = _count_reader(mapping, column) if mapping.time_unit else _text_reader(mapping)
    return [None if text is None else read(text) for text in column.texts.to_pylist()]


def unit_of(text: str) -> str | None:
    """The unit in which the digits of ``text`` count to a year of our time, if there is one."""
    try:
        count = float(text)
    except ValueError:
        return None
    fits = (name for name, (times, per_unit) in _UNITS.items() if _NEAR <= count * times / per_unit < _FAR)
    return next(fits, None)


def _native(microseconds: int, local: tzinfo) -> Reading:
    found = _in_range(microseconds)
    if found.fault or local is UTC:
        return found
    return _placed((_EPOCH + timedelta(microseconds=microseconds)).replace(tzinfo=None), local)


def _in_range(microseconds: int) -> Reading:
    return Reading(microseconds) if _FIRST <= microseconds < _END else _OUT_OF_RANGE


def _count_reader(mapping: OrderMapping, column: Column) -> Callable[[str], Reading]:
    assert mapping.time_unit is not None
    times, per_unit = _UNITS[mapping.time_unit]
    signs = Signs(mapping.csv) if column.is_text else None

    def read(text: str) -> Reading:
        # As many decimals as there are, so that no sign has two meanings.
        count = number(text, signs, "time", "number", DIGITS_MAX)
        if isinstance(count, str):
            return Reading(fault=count)
        return _in_range(math.floor(count * times / per_unit))

    return read


def _text_reader(mapping: OrderMapping) -> Callable[[str], Reading]:
    pattern, local = mapping.time_format, zone(mapping.timezone)

    def read(text: str) -> Reading:
        text = text.strip()
        try:
            if pattern is not None:
                return _placed(datetime.strptime(text, pattern), local)
            if text.lstrip("+-").replace(".", "", 1).isdigit() and len(text) != _DATE_DIGITS:
                return Reading(fault=DIGITS)
            return _placed(datetime.fromisoformat(text), local) if _ISO.fullmatch(text) else _UNREADABLE
        except (ValueError, OverflowError):
            return _UNREADABLE

    return read


_UNREADABLE, _OUT_OF_RANGE = Reading(fault=NOT_READABLE), Reading(fault=OUT_OF_RANGE)


def _placed(moment: datetime, local: tzinfo) -> Reading:
    """``moment`` in microseconds; one without a zone stands on the clocks of ``local``."""
    assumed = ""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=local)
        assumed = "" if local is UTC else _clock_change(moment)
    found = _in_range((moment - _EPOCH) // _MICROSECOND)
    return found._replace(assumed=assumed) if assumed and not found.fault else found


def _clock_change(moment: datetime) -> str:
    """The rule that ``moment`` takes where the clocks of its zone are changed; nothing at any other time."""
    first, second = moment.utcoffset(), moment.replace(fold=1).utcoffset()
    assert first is not None
    assert second is not None
    return "" if first == second else TWICE if first > second else NEVER

"""Judges the rows of a file of sales: each becomes a line of an order or of a return, or is refused with one reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from eventmesh.shop.order_columns import MappedColumns
from eventmesh.shop.order_history import VALUE_MAX, Flags, Integers
from eventmesh.shop.order_mapping import ROLES, OrderMapping, Role
from eventmesh.shop.order_numbers import Reader, Reading, ids, price_reader, quantity_reader
from eventmesh.shop.order_text import FEWER, MORE
from eventmesh.shop.order_times import readings

Codes = npt.NDArray[np.int16]
IDS: tuple[Role, ...] = ("order", "sku", "customer")
#: What an order's first line may hold for its others.
FILLED: tuple[Role, ...] = ("time", "customer", "country")


@dataclass
class Words:
    """Reasons and rules as small numbers; 0 is none."""

    known: list[str] = field(default_factory=lambda: [""])

    def code(self, word: str) -> np.int16:
        """The number of ``word``."""
        if word not in self.known:
            self.known.append(word)
        return np.int16(self.known.index(word))

    def where(self, flags: Flags, word: str) -> Codes:
        """The number of ``word`` where ``flags``."""
        return np.where(flags, self.code(word), np.int16(0))


@dataclass(frozen=True)
class Rows:
    """What each row of the file says; one whose ``reason`` is 0 is accepted."""

    texts: dict[Role, pa.Array]  # distinct, null where missing; roles that are not mapped have one, which is missing
    at: dict[Role, Integers]  # which of them each row has
    words: Words
    reason: Codes
    assumed: Codes  # the rule by which its time was read
    is_return: Flags
    quantity: Integers  # always counted positive, where accepted
    price: Integers  # minor units, of one unit or of the whole line
    time: Integers  # microseconds since 1970 UTC

    def of(self, role: Role, rows: Integers) -> pa.Array:
        """The text that each of ``rows`` has in the column of ``role``."""
        return self.texts[role].take(pa.array(self.at[role][rows]))

    def missing(self, role: Role) -> Flags:
        """Which rows have nothing there."""
        nothing: Flags = self.texts[role].is_null().to_numpy(zero_copy_only=False)[self.at[role]]
        return nothing


def judge(columns: MappedColumns, mapping: OrderMapping) -> Rows:
    """Read every row and give each that cannot become a line its first reason, column by column."""
    return _Judge(columns, mapping).rows()


@dataclass(frozen=True)
class _Read:
    """A column of numbers or times, by row."""

    value: Integers
    fault: Codes
    assumed: Codes


class _Judge:
    """Reads role by role; each distinct value once."""

    def __init__(self, columns: MappedColumns, mapping: OrderMapping) -> None:
        self.columns, self.mapping, self.words = columns, mapping, Words()
        self.texts: dict[Role, pa.Array] = {role: pa.nulls(1, pa.string()) for role in ROLES}
        self.at: dict[Role, Integers] = dict.fromkeys(ROLES, np.zeros(columns.rows, np.int64))
        for role, column in columns.by_role.items():
            self.texts[role], self.at[role] = column.texts, column.at

    def rows(self) -> Rows:
        no_id = {role: self._read_ids(role) for role in IDS}
        ragged = self._ragged()
        if self.mapping.fill is not None:
            self._fill(~np.logical_or.reduce([fault != 0 for fault in ragged]))
        is_return, negative = self._returns()
        quantity = self._read("quantity", quantity_reader(self.mapping, self.columns.by_role["quantity"]))
        counted = np.where(negative, -quantity.value, quantity.value)
        price = self._prices(negative)
        time = self._read_times()
        faults = [
            *ragged,
            *(no_id[role][self.at[role]] for role in ("order", "sku")),
            quantity.fault,
            self.words.where((counted <= 0) & negative, "returned quantity not negative"),
            self.words.where(counted <= 0, "quantity not positive"),
            price.fault,
            self._too_large(counted, price.value),
            time.fault,
            no_id["customer"][self.at["customer"]],
        ]
        reason = _first_fault(faults)
        return Rows(self.texts, self.at, self.words, reason, time.assumed, is_return, counted, price.value, time.value)

    def _read_ids(self, role: Role) -> Codes:
        """Why each distinct value names nobody. A guest has no id, and is welcome where the mapping says no other."""
        faults = [""] * len(self.texts[role])
        if role in self.columns.by_role:
            self.texts[role], faults = ids(self.columns.by_role[role], role)
        if role != "customer" or self.mapping.refuse.customer == "missing":
            nothing = self.texts[role].is_null().to_pylist()
            faults = [f"{role} missing" if null else fault for null, fault in zip(nothing, faults, strict=True)]
        return np.array([self.words.code(fault) for fault in faults], np.int16)

    def _ragged(self) -> list[Codes]:
        surplus = self.columns.surplus
        if surplus is None:
            surplus = np.zeros(self.columns.rows, np.int64)
        return [self.words.where(surplus < 0, FEWER), self.words.where(surplus > 0, MORE)]

    def _fill(self, sound: Flags) -> None:
        """Where a row lacks a value, its order's first row gives it; a row that is not ``sound`` gives nothing."""
        orders = self.texts["order"].dictionary_encode()  # several values may name the same order
        order = orders.indices.fill_null(-1).to_numpy()[self.at["order"]]
        lenders = np.flatnonzero(sound & (order >= 0))
        first = first_rows(order[lenders], len(orders.dictionary))
        filled = np.flatnonzero((order >= 0) & np.isin(order, order[lenders]))
        lender = lenders[first[order[filled]]]
        for role in FILLED:
            nothing = self.texts[role].is_null().to_numpy(zero_copy_only=False)[self.at[role][filled]]
            at = self.at[role].copy()
            at[filled[nothing]] = at[lender[nothing]]
            self.at[role] = at

    def _returns(self) -> tuple[Flags, Flags]:
        """Which rows are lines of returns, and which of them count below zero."""
        returns = self.mapping.cancellations
        if returns is None:
            none = np.zeros(self.columns.rows, np.bool_)
            return none, none
        begins = pc.fill_null(pc.starts_with(self.texts["order"], returns.prefix), False)
        is_return: Flags = begins.to_numpy(zero_copy_only=False)[self.at["order"]]
        return is_return, is_return & (returns.quantities == "negative")

    def _prices(self, negative: Flags) -> _Read:
        role, _ = self.mapping.priced
        column = self.columns.by_role[role]
        asked = self._read(role, price_reader(self.mapping, column))
        if role == "unit_price" or not negative.any():
            return asked
        returned = self._read(role, price_reader(self.mapping, column, negative=True))
        fault = np.where(negative, returned.fault, asked.fault)
        return _Read(np.where(negative, returned.value, asked.value), fault, asked.assumed)

    def _too_large(self, quantity: Integers, price: Integers) -> Codes:
        if self.mapping.unit_price is None:
            return np.zeros(self.columns.rows, np.int16)  # the total itself was tested
        # In floating point, since the exact product may not fit where it is too large.
        return self.words.where(quantity.astype(np.float64) * price > VALUE_MAX, "value too large")

    def _read(self, role: Role, reader: Reader) -> _Read:
        texts = self.columns.by_role[role].texts.to_pylist()
        return self._by_row(role, [None if text is None else reader(text) for text in texts])

    def _read_times(self) -> _Read:
        return self._by_row("time", readings(self.mapping, self.columns.by_role["time"]))

    def _by_row(self, role: Role, read: Sequence[Reading | None]) -> _Read:
        nothing = Reading(fault=f"{role} missing")
        each = [nothing if reading is None else reading for reading in read]
        value = np.array([reading.value for reading in each], np.int64)
        fault = np.array([self.words.code(reading.fault) for reading in each], np.int16)
        assumed = np.array([self.words.code(reading.assumed) for reading in each], np.int16)
        at = self.at[role]
        return _Read(value[at], fault[at], assumed[at])


def first_rows(group: Integers, groups: int) -> Integers:
    """The first row of each group 0..groups-1, -1 for a group without rows."""
    first = np.full(groups, -1, np.int64)
    present, at = np.unique(group, return_index=True)
    first[present] = at
    return first


def _first_fault(faults: list[Codes]) -> Codes:
    reason = np.zeros_like(faults[0])
    for fault in faults:
        reason = np.where(reason == 0, fault, reason)
    return reason

"""Tables that fit the terminal: no number and no name is ever cut, and no column is left out.

Where the rows do not fit as they are, the last column folds at its words, if it may, beside the others or else below
them. Where that is not enough, each row becomes a block of lines ``name: value``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from eventmesh.report.legible import legible

Row = Mapping[str, Any]
#: Characters between two columns.
GAP = 2
#: A column that folds has at least so many characters: in fewer, a sentence is a tower of words.
FOLDED_MIN = 16
#: What the lines of a block begin with from the second on, where there is room for it.
INDENT = "  "


def number(value: Any) -> str:
    """A value as people read it: thousands apart, and a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


class Fitted:
    """Rows that have the same names, for rich to print in whatever width there is.

    Where it ``last_folds``, the last column takes as many lines as it needs; without a ``head``, the names of the
    columns are left out. ``colours`` are those of values, by the value.
    """

    def __init__(
        self, rows: Sequence[Row], *, last_folds: bool = False, head: bool = True,
        colours: Mapping[str, str] | None = None, encoding: str = "utf-8",
    ) -> None:  # fmt: skip
        self._names = [legible(name, encoding) for name in rows[0]] if rows else []
        self._right = [any(isinstance(value, int | float) for value in column) for column in _columns(rows)]
        self._last_folds, self._head = last_folds, head
        colours = colours or {}
        self._cells = [
            [Text(legible(number(value), encoding), colours.get(str(value), "")) for value in row.values()]
            for row in rows
        ]

    @property
    def width(self) -> int:
        """How many characters it takes as it is."""
        return sum(self._widths) + GAP * (len(self._names) - 1)

    @property
    def _widths(self) -> list[int]:
        names = self._names if self._head else [""] * len(self._names)
        columns = zip(names, *self._cells, strict=True)
        return [max(cell_len(str(cell)) for cell in column) for column in columns]

    @property
    def _folded_width(self) -> int:
        """How many characters it takes where the last column folds, but breaks no word."""
        words = [word for row in self._cells for word in row[-1].plain.split()]
        last = max([FOLDED_MIN, *map(cell_len, words), cell_len(self._names[-1])])
        return self.width - self._widths[-1] + last

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self._cells:
            return
        width = options.max_width
        if self.width <= width:
            yield self._table(last_folds=False)
        elif self._last_folds and self._folded_width <= width:
            yield self._table(last_folds=True)
        elif self._last_folds and len(self._names) > 1 and self.width - self._widths[-1] <= width:
            yield from self._last_below(console, width)
        else:
            yield from self._blocks(console, width)

    def _table(self, *, last_folds: bool) -> Table:
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, show_header=self._head)
        for place, name in enumerate(self._names):
            folds = last_folds and place == len(self._names) - 1
            justify: Literal["left", "right"] = "right" if self._right[place] else "left"
            table.add_column(Text(name), justify=justify, no_wrap=not folds, overflow="fold")
        for row in self._cells:
            table.add_row(*row)
        return table

    def _last_below(self, console: Console, width: int) -> Iterator[Text]:
        names = [[Text(name, "bold") for name in self._names]] if self._head else []
        for *others, last in (*names, *self._cells):
            padded = zip(others, self._widths, self._right, strict=False)
            yield Text.assemble(*(part for cell in padded for part in (_padded(*cell), " " * GAP)))
            indent = _indent(last, width)
            for line in last.wrap(console, width - len(indent), overflow="fold"):
                yield Text.assemble(indent, line)

    def _blocks(self, console: Console, width: int) -> Iterator[Text]:
        for place, row in enumerate(self._cells):
            if place:
                yield Text()
            for name, value in zip(self._names, row, strict=True):
                yield from _folded(Text.assemble((f"{name}: ", "bold"), value), console, width)


def _padded(cell: Text, width: int, right: bool) -> Text:
    blanks = " " * (width - cell_len(cell.plain))
    return Text.assemble(blanks, cell) if right else Text.assemble(cell, blanks)


def _columns(rows: Sequence[Row]) -> list[list[Any]]:
    return [list(column) for column in zip(*(row.values() for row in rows), strict=True)]


def _folded(line: Text, console: Console, width: int) -> Iterator[Text]:
    """A line in as many as it takes, broken at blanks; a word only where it is wider than the terminal."""
    if cell_len(line.plain) <= width:
        yield line
        return
    indent = _indent(line, width)
    first, *more = line.wrap(console, width - len(indent), overflow="fold")
    yield first
    for each in more:
        yield Text.assemble(indent, each)


def _indent(line: Text, width: int) -> str:
    longest = max(map(cell_len, line.plain.split()), default=0)
    return INDENT if longest <= width - len(INDENT) else ""

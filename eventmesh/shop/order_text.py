"""Rows of a delimited text file, each with the line where it begins. No row is dropped in silence.

The reader is Python's, in its strict mode: pyarrow's takes a quotation mark that is never closed for a long value, and
so swallows rows, and it changes a line break within a value where one of its blocks ends.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import chain, islice
from operator import itemgetter
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventmesh.errors import InputError
from eventmesh.shop.order_mapping import NO_QUOTE, CsvFormat

#: Opens the file from its beginning.
Open = Callable[[], BinaryIO]
#: Finds the wanted columns in the header; raises InputError where one is not there.
Choose = Callable[[list[str]], "Wanted"]
Row = list[str]

BOM = "\ufeff"
FEWER, MORE = "fewer cells than the header", "more cells than the header"
#: Rows that are taken together: so few that their cells stay in the processor's cache, which halves the time.
_ROWS_MAX = 1 << 10
#: Encodings that are tried on a line that cannot be read; the last reads anything.
_OTHERS = ("utf8", "cp1252", "latin1")
_BREAK, _DIGIT = re.compile(r"\r\n|\r|\n"), re.compile(r"\d")
_SEPARATOR = re.compile(r'"?sep=([^\w\r\n"])"?[\r\n]*', re.IGNORECASE)


@dataclass(frozen=True)
class Wanted:
    """Positions in the header."""

    columns: list[int]
    figures: list[int]  # of the columns in which a row has a digit


@dataclass(frozen=True)
class TextRows:
    """The wanted columns, in their order, and of each row its first line and whether it has the header's cells."""

    columns: list[pa.ChunkedArray]  # text; a cell that a row lacks is empty
    line: npt.NDArray[np.int64]  # 1 is the first of the file
    surplus: npt.NDArray[np.int64]  # cells beyond the header's; negative where some are lacking


def read_rows(file: str, open_file: Open, form: CsvFormat, choose: Choose) -> TextRows:
    """Read ``file``, which is only named in errors. Raises InputError with the line where it cannot be read."""
    # The limit is there against quotation marks that are never closed; those are found by the strict mode as well.
    csv.field_size_limit(2**31 - 1)
    try:
        with _text(open_file, form) as text:
            return _Reader(file, text, form).read(choose)
    except csv.Error:
        raise InputError(_quotation(file, open_file, form)) from None
    except UnicodeError:
        raise InputError(_undecodable(file, open_file, form)) from None


def _text(open_file: Open, form: CsvFormat) -> TextIOWrapper:
    return TextIOWrapper(open_file(), form.encoding, newline="")


class _Reader:
    """Reads rows, and knows at which line of the file it is."""

    def __init__(self, file: str, text: Iterable[str], form: CsvFormat) -> None:
        lines = iter(text)
        first = next(lines, "").removeprefix(BOM)
        named = _SEPARATOR.fullmatch(first)
        self.file, self.skipped = file, int(named is not None)
        self.delimiter = _delimiter(file, named, form)
        quoting = {"quoting": csv.QUOTE_NONE} if form.quote == NO_QUOTE else {"quotechar": form.quote}
        options: dict[str, Any] = {"delimiter": self.delimiter, "strict": True, **quoting}
        self.rows = csv.reader(lines if named else chain([first], lines), **options)

    @property
    def line(self) -> int:
        """The last line that was read."""
        return self.skipped + int(self.rows.line_num)

    def read(self, choose: Choose) -> TextRows:
        header = next(filter(None, self.rows), [])
        wanted = choose(header)
        self._refuse_swallowed(header, self.line - self._line_breaks(header), wanted, len(header), header=True)
        chunks = list(self._chunks(len(header), wanted))
        width = len(wanted.columns)
        columns = [pa.chunked_array([cells[i] for cells, _, _ in chunks], pa.string()) for i in range(width)]
        none = np.zeros(0, np.int64)
        return TextRows(
            columns,
            np.concatenate([none, *(line for _, line, _ in chunks)]),
            np.concatenate([none, *(surplus for _, _, surplus in chunks)]),
        )

    def _chunks(
        self, width: int, wanted: Wanted
    ) -> Iterator[tuple[list[pa.Array], npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        before = self.line
        while rows := list(islice(self.rows, _ROWS_MAX)):
            line = self._first_lines(rows, before, wanted, width)
            before = self.line
            full = np.fromiter(map(bool, rows), np.bool_, len(rows))
            if not full.all():  # an empty line is no row
                rows, line = [row for row in rows if row], line[full]
            surplus = np.fromiter(map(len, rows), np.int64, len(rows)) - width
            if surplus.any():
                rows = [row + [""] * (width - len(row)) for row in rows]
            yield _cells(rows, wanted.columns), line, surplus

    def _first_lines(self, rows: Sequence[Row], before: int, wanted: Wanted, width: int) -> npt.NDArray[np.int64]:
        if self.line - before == len(rows):
            return before + 1 + np.arange(len(rows))
        inner = np.array([self._line_breaks(row) for row in rows], np.int64)
        line: npt.NDArray[np.int64] = before + 1 + np.concatenate([[0], np.cumsum(inner + 1)[:-1]])
        for at in map(int, np.flatnonzero(inner)):
            self._refuse_swallowed(rows[at], int(line[at]), wanted, width)
        return line

    def _line_breaks(self, row: Row) -> int:
        return sum(len(_BREAK.findall(cell)) for cell in row if "\n" in cell or "\r" in cell)

    def _refuse_swallowed(self, row: Row, line: int, wanted: Wanted, width: int, *, header: bool = False) -> None:
        """Refuse a value of several lines of which one reads as a row, or that begins in one and ends in another.

        Two stray marks, each where a value may begin or end, are no fault of form, but swallow what is between them.
        """
        end = line
        for at, cell in enumerate(row):
            parts = [part.split(self.delimiter) for part in _BREAK.split(cell)]
            end += len(parts) - 1
            if len(parts) > 1:
                parts[0], parts[-1] = row[:at] + parts[0], parts[-1] + row[at + 1 :]
                first, *within, last = (_reads_as_row(cells, wanted, width) for cells in parts)
                if any(within) or (last and (first or header)):
                    found = f"a value in quotation marks that holds rows up to line {end}"
                    raise InputError(f"{self.file}: line {line}: found {found}. {_QUOTE_HINT}")


def _reads_as_row(cells: Row, wanted: Wanted, width: int) -> bool:
    """Digits stand where a row has them; in one place they may be missing, where there are a row's cells."""
    missing = [at for at in wanted.figures if at >= len(cells) or not _DIGIT.search(cells[at])]
    return not missing or (len(missing) == 1 and len(cells) >= width - 1)


_QUOTE_HINT = (
    "Write csv: {quote: none} in the mapping where the file does not quote its values; else mend the quotation mark, "
    "which a value holds as two"
)


def _delimiter(file: str, named: re.Match[str] | None, form: CsvFormat) -> str:
    if named is None:
        return form.delimiter or ","
    if form.delimiter not in (None, named[1]):
        problem = f"line 1 says that the delimiter is {named[1]!r}, the mapping says {form.delimiter!r}"
        raise InputError(f"{file}: {problem}. Correct csv.delimiter, or leave it out")
    return named[1]


def _cells(rows: Sequence[Row], positions: list[int]) -> list[pa.Array]:
    if not rows:
        return [pa.array([], pa.string()) for _ in positions]
    if len(positions) == 1:
        return [pa.array([row[positions[0]] for row in rows], pa.string())]
    return [pa.array(cells, pa.string()) for cells in zip(*map(itemgetter(*positions), rows), strict=True)]


def _quotation(file: str, open_file: Open, form: CsvFormat) -> str:
    """Where the strict reader gave up: once more, row by row, to know the line where the row begins."""
    before, open_at_the_end = 0, False
    with _text(open_file, form) as text:
        reader = _Reader(file, text, form)
        try:
            for _ in reader.rows:
                before = reader.line
        except csv.Error as error:
            open_at_the_end = "unexpected end" in str(error)
    begun, found = max(before, reader.skipped) + 1, reader.line
    if open_at_the_end:
        problem = f"line {begun}: a value begins with a quotation mark, which is open at the end of the file"
    else:
        where = f"line {found}" if begun == found else f"line {found}, in the row that begins in line {begun}"
        problem = f"{where}: a quotation mark ends a value, but no delimiter {reader.delimiter!r} follows"
    return f"{file}: {problem}. {_QUOTE_HINT}"


def _undecodable(file: str, open_file: Open, form: CsvFormat) -> str:
    with open_file() as data:
        content = data.read()
    at, found = 0, ""
    try:
        content.decode(form.encoding)
    except UnicodeDecodeError as error:
        at, found = error.start, f"the bytes {content[error.start : error.end][:4].hex(' ')}, which are "
    except UnicodeError:  # a codec that does not say where
        at = 0
    line = 1 + len(_BREAK.findall(content[:at].decode(form.encoding, errors="replace")))
    other = next(name for name in _OTHERS if name != form.encoding and _decodes(content[at : at + 4096], name))
    where = f"{file}: line {line}" if found else file
    hint = f"If it is, for example, {other}, write csv: {{encoding: {other}}} in the mapping"
    return f"{where}: found {found}no text in {form.encoding}. {hint}"


def _decodes(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        return error.start > 0 and error.end == len(content)  # cut off within a character
    return True

"""The mapped columns of a file of sales, Parquet or delimited text, as callers of the mapping know them: by role.

Nothing is judged here: each column holds its distinct values as the file has them, and which of them each row has.
"""

from __future__ import annotations

import codecs
import os
import stat
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eventmesh.configuration import nearest
from eventmesh.errors import InputError
from eventmesh.shop.order_history import Integers
from eventmesh.shop.order_mapping import OrderMapping, Role
from eventmesh.shop.order_text import BOM, Open, Wanted, read_rows

ALLOWED = "allowed: Parquet, or CSV with a header line"
_HEAD_BYTES = 4096
_OTHER_FORMATS = (
    (b"PK\x03\x04", "a zip archive (Excel workbooks are such)"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"\x1f\x8b", "a gzip file"),
    (b"ARROW1", "an Arrow IPC file"),
)
#: Looked for only where the header lacks a mapped column: a header may begin with any sign.
_OTHER_TEXTS = (("{", "JSON"), ("[", "JSON"), ("<", "XML or HTML"))
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"), (codecs.BOM_UTF8, "utf-8"),
)  # fmt: skip
#: Blanks of any script, and what is not seen at all.
_BLANK = r"^[\s\p{Z}\p{C}]*$"


@dataclass(frozen=True)
class Column:
    """The distinct values of a column, and which of them each row has. The last one is missing."""

    values: pa.Array  # as the file has them
    texts: pa.Array  # the same as text; null where missing, blank or not a number
    at: Integers  # of each row

    @property
    def is_text(self) -> bool:
        """Its values are written, so that it takes the mapping to know what is meant."""
        return bool(pa.types.is_string(self.values.type))


@dataclass(frozen=True)
class MappedColumns:
    """The mapped columns of a file by role, and what is known of its rows."""

    file: str
    names: dict[Role, str]
    by_role: dict[Role, Column]
    rows: int
    line: Integers | None = None  # of a text file, where each row begins
    surplus: Integers | None = None  # cells beyond the header's; negative where some are lacking


def read_columns(path: Path | str, mapping: OrderMapping) -> MappedColumns:
    """Read the mapped columns. Raises InputError where the file is missing, empty, of another format or lacks one."""
    path = Path(path)
    open_file = _opener(path)
    columns = (_of_parquet if _is_parquet(path, open_file, mapping) else _of_text)(path, open_file, mapping)
    if columns.rows == 0:
        raise InputError(f"{path}: the file has columns ({', '.join(columns.names.values())}) but not one row")
    return columns


# --- opening -------------------------------------------------------------------------------------


def _opener(path: Path) -> Open:
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({_cause(error)}){_beside(path)}") from error
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{path}: the file cannot be read (Is a directory). Name one file of it")
    if stat.S_ISREG(found.st_mode):
        return lambda: path.open("rb")
    if stat.S_ISFIFO(found.st_mode):
        return partial(BytesIO, _drained(path, found.st_dev, found.st_ino))
    raise InputError(f"{path}: found a device, allowed: a file or a pipe")


@lru_cache(maxsize=1)
def _drained(path: Path, device: int, inode: int) -> bytes:
    """What a pipe holds. It gives that once, but a run on a mesh that is up may be prepared twice."""
    try:
        with path.open("rb") as pipe:
            return pipe.read()
    except OSError as error:
        raise InputError(f"{path}: the pipe cannot be read ({_cause(error)})") from error


def _beside(path: Path) -> str:
    if path.name == "-":
        return ". Name /dev/stdin to read what another command writes"
    if path.exists() or not os.path.isdir(path.parent):
        return ""
    hint = nearest(path.name, [entry.name for entry in path.parent.iterdir()])
    return f". {hint}" if hint else ""


def _cause(error: OSError) -> str:
    return error.strerror or str(error)


def _is_parquet(path: Path, open_file: Open, mapping: OrderMapping) -> bool:
    try:
        with open_file() as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({_cause(error)})") from error
    if not head.decode(mapping.csv.encoding, errors="replace").lstrip(BOM).strip():
        raise InputError(f"{path}: the file is empty")
    if head.startswith(b"PAR1"):
        return True
    found = next((name for magic, name in _OTHER_FORMATS if head.startswith(magic)), None)
    if found is None and path.suffix.lower() in (".parquet", ".pq"):
        found = f"something else under the name {path.suffix}"
    if found:
        raise InputError(f"{path}: found {found}, {ALLOWED}")
    _refuse_binary(path, head, mapping.csv.encoding)
    return False


def _refuse_binary(path: Path, head: bytes, encoding: str) -> None:
    utf = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if utf and not codecs.lookup(encoding).name.startswith(utf):
        hint = f"Write csv: {{encoding: {utf}}} in the mapping"
        raise InputError(f"{path}: found {utf.upper()} text, the mapping says {encoding}. {hint}")
    if "\0" in head.decode(encoding, errors="replace"):
        hint = "If it is text, write its encoding, such as utf-16-le, as csv: {encoding: ...} in the mapping"
        raise InputError(f"{path}: found binary data, {ALLOWED}. {hint}")


# --- reading -------------------------------------------------------------------------------------


def _of_parquet(path: Path, open_file: Open, mapping: OrderMapping) -> MappedColumns:
    try:
        # The older kind of time would be read as nanoseconds, in which the year 9999 silently is another.
        with open_file() as source, pq.ParquetFile(_for_arrow(source), coerce_int96_timestamp_unit="us") as file:
            wanted = _wanted(path, file.schema_arrow.names, mapping)
            table = file.read(columns=wanted)
    except (pa.ArrowException, OSError) as error:
        problem = "the file begins as Parquet but is damaged or cut off"
        raise InputError(f"{path}: {problem}. Copy it again, or write it again") from error
    names = mapping.columns()
    by_role = {role: _column(table[name], f"{path}: column {name!r}") for role, name in names.items()}
    return MappedColumns(str(path), names, by_role, table.num_rows)


def _for_arrow(source: BinaryIO) -> pa.NativeFile | BinaryIO:
    # By its name, Arrow reads a file with threads of its own.
    return source if isinstance(source, BytesIO) else pa.memory_map(source.name)


def _of_text(path: Path, open_file: Open, mapping: OrderMapping) -> MappedColumns:
    names = mapping.columns()

    def choose(header: list[str]) -> Wanted:
        columns = [header.index(name) for name in _wanted(path, header, mapping)]
        return Wanted(columns, [header.index(names[role]) for role in ("quantity", mapping.priced[0], "time")])

    try:
        found = read_rows(str(path), open_file, mapping.csv, choose)
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({_cause(error)})") from error
    columns = dict(zip(dict.fromkeys(names.values()), found.columns, strict=True))
    by_role = {role: _column(columns[name], f"{path}: column {name!r}") for role, name in names.items()}
    return MappedColumns(str(path), names, by_role, len(found.line), found.line, found.surplus)


def _wanted(path: Path, names: list[str], mapping: OrderMapping) -> list[str]:
    wanted = mapping.columns()
    lacking = {role: column for role, column in wanted.items() if column not in names}
    if lacking:
        head = names[0].lstrip() if names else ""
        other = next((format_ for sign, format_ in _OTHER_TEXTS if head.startswith(sign)), None)
        one_cell = ". Its header is one cell: check csv.delimiter, csv.encoding" if len(names) == 1 else ""
        said = f"found {other}, {ALLOWED}" if other else f"It has: {', '.join(names)}{one_cell}"
        told = [f"{column!r} (mapped as {role}{_near(column, names)})" for role, column in lacking.items()]
        raise InputError(f"{path}: the file lacks the column {', '.join(told)}. {said}")
    twice = [column for column in wanted.values() if names.count(column) > 1]
    if twice:
        raise InputError(f"{path}: the file has the column {twice[0]!r} more than once: rename one of them")
    return list(dict.fromkeys(wanted.values()))


def _near(column: str, names: list[str]) -> str:
    hint = nearest(column, names)
    return f"; {hint[0].lower()}{hint[1:]}" if hint else ""


def _column(column: pa.ChunkedArray, where: str) -> Column:
    """The distinct values: a column of half a million prices has some two thousand."""
    if pa.types.is_null(column.type):
        column = column.cast(pa.string())
    try:
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        encoded = column.combine_chunks() if column.num_chunks else pa.array([], column.type)
        values = pa.concat_arrays([_plain(encoded.dictionary), pa.nulls(1, _plain(encoded.dictionary).type)])
        texts = _texts(values)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{where}: found {column.type}, allowed: text, numbers or times") from error
    at = encoded.indices.cast(pa.int64()).fill_null(len(values) - 1).to_numpy()
    return Column(values, texts, at)


def _plain(values: pa.Array) -> pa.Array:
    """Text of any of Arrow's kinds as one kind; bytes are text as well, as older writers leave them."""
    kinds = (pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())
    return values.cast(pa.string()) if values.type in kinds else values


def _texts(values: pa.Array) -> pa.Array:
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    if pa.types.is_timestamp(values.type) and values.type.tz:
        texts = pc.binary_join_element_wise(values.cast(pa.timestamp(values.type.unit)).cast(pa.string()), "Z", "")
    else:
        texts = values.cast(pa.string())
    return pc.if_else(pc.match_substring_regex(texts, _BLANK), pa.scalar(None, pa.string()), texts)

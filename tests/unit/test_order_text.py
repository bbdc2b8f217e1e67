"""Given text that is delimited in whatever way, then each of its rows is read or refused, and none is lost."""

from __future__ import annotations

import csv as python_csv
import io
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmesh.errors import InputError
from eventmesh.shop.order_file import read_orders
from eventmesh.shop.order_history import OrderHistory
from tests.unit.order_story import NAMES, lines_of, mapping, parquet, sale, text_file

HEADER = ",".join(NAMES)
TIME = "2011-07-01 12:00"


def row(order: object = 1, sku: str = "A", country: str = "France", delimiter: str = ",") -> str:
    return delimiter.join([str(order), sku, "1", TIME, "1.00", "7", country])


def read(folder: Path, *lines: str, ends: str = "\n", **changes: Any) -> OrderHistory:
    return read_orders(text_file(folder, ends.join([HEADER, *lines]) + ends), mapping(**changes))


def refusal(folder: Path, *lines: str, ends: str = "\n", **changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, *lines, ends=ends, **changes)
    return str(caught.value)


# --- quotation marks -----------------------------------------------------------------------------


def test_a_mark_that_is_open_at_the_end_is_refused_with_its_line(tmp_path: Path) -> None:
    said = refusal(tmp_path, row(1), row(2, country='"Fra'), row(3), row(4))
    assert "sales.csv: line 3: a value begins with a quotation mark, which is open at the end of the file" in said
    assert "csv: {quote: none}" in said


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ([row(1), row(2, '"19"" wide'), row(3), row(4, '"21"" wide')], "line 5, in the row that begins in line 3"),
        ([row(1), row(2, '"A"B')], "line 3: a quotation mark ends a value, but no delimiter ',' follows"),
        ([row(1), row(2, '"A" ')], "line 3: a quotation mark ends"),
    ],
)
def test_a_mark_that_is_closed_before_no_delimiter_is_refused(tmp_path: Path, lines: list[str], where: str) -> None:
    assert where in refusal(tmp_path, *lines)


@pytest.mark.parametrize("between", [0, 1, 12])
def test_two_stray_marks_swallow_no_rows(tmp_path: Path, between: int) -> None:
    # Each where a mark may stand, so that nothing is wrong with the form: 12" closes what "Dune opened.
    lines = [row(1), row(2, '"Dune'), *(row(3 + i) for i in range(between)), row(20, '12"'), row(21)]
    said = refusal(tmp_path, *lines)
    assert f"line 3: found a value in quotation marks that holds rows up to line {4 + between}" in said
    assert read(tmp_path, *lines, csv={"quote": "none"}).requests.num_rows == between + 4


def test_a_stray_mark_in_the_header_swallows_no_rows(tmp_path: Path) -> None:
    lines = [HEADER + ',"Note', *(row(i) + ",x" for i in range(3)), row(3) + ',12"', row(4) + ",x"]
    with pytest.raises(InputError, match="line 1: found a value in quotation marks that holds rows up to line 5"):
        read_orders(text_file(tmp_path, "\n".join(lines)), mapping())
    with pytest.raises(InputError, match="line 1: found a value in quotation marks that holds rows up to line 2"):
        read_orders(text_file(tmp_path, "\n".join([lines[0], row(1) + ',12"', row(2) + ",x"])), mapping())
    wrapped = [HEADER + ',"A note\nof 2 lines"', row(1) + ",x"]
    assert read_orders(text_file(tmp_path, "\n".join(wrapped)), mapping()).requests.num_rows == 1


def test_a_stray_mark_behind_a_quoted_value_swallows_no_rows(tmp_path: Path) -> None:
    lines = [row(1, '"a, b, c"', country='"France'), row(2, country='12"')]
    assert "line 2: found a value in quotation marks that holds rows up to line 3" in refusal(tmp_path, *lines)


@pytest.mark.parametrize("lost", ["1,B,2,,3.00,,", "1,B,,2011-07-01,3.00,,", "1,B,2,,3.00,,,"])
def test_rows_that_lack_values_are_not_swallowed_either(tmp_path: Path, lost: str) -> None:
    said = refusal(tmp_path, row(1, '"Dune'), lost, row(2, '12"'), fill="first_line")
    assert "line 2: found a value in quotation marks that holds rows up to line 4" in said
    ends = refusal(tmp_path, row(1, '"Dune'), lost.replace("B", '12"'), fill="first_line")
    assert "line 2: found a value in quotation marks that holds rows up to line 3" in ends


def test_without_quoting_marks_are_signs_like_others(tmp_path: Path) -> None:
    found = read(tmp_path, row(1, '"Dune'), row(2, 'Frame 12" black'), row(3, '"A"'), csv={"quote": "none"})
    assert [lines_of(found, i)[0][0] for i in range(3)] == ['"Dune', 'Frame 12" black', '"A"']


def test_a_mark_within_a_value_is_a_sign_like_others(tmp_path: Path) -> None:
    assert lines_of(read(tmp_path, row(1, 'Frame 12" black')))[0][0] == 'Frame 12" black'


def test_another_mark_may_quote(tmp_path: Path) -> None:
    assert lines_of(read(tmp_path, row(1, "'a, 5\" b'"), csv={"quote": "'"}))[0][0] == 'a, 5" b'


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_a_line_break_within_a_value_stays(tmp_path: Path, ends: str) -> None:
    found = read(tmp_path, row(1, f'"Leave at door{ends}ring ""twice"""'), row(2), row(""), ends=ends)
    assert lines_of(found)[0][0] == f'Leave at door{ends}ring "twice"'
    assert found.refused.select(["row", "line", "reason"]).to_pylist() == [
        {"row": 3, "line": 5, "reason": "order missing"}
    ]


def test_a_line_break_within_a_value_is_unchanged_wherever_a_block_ends(tmp_path: Path) -> None:
    block = 1 << 20
    before = len(HEADER) + 1 + len('1,"')
    for shift in range(-2, 3):
        value = "x" * (block - before + shift) + "\r\n" + "y"
        found = read(tmp_path, row(1, f'"{value}"'), row(2))
        assert lines_of(found)[0][0] == value
        assert found.requests.num_rows == 2


LETTERS = st.text(st.sampled_from('a",\n\r; '), max_size=6)


def outcome(path: Path) -> OrderHistory | str:
    """The history, or what the file was refused with."""
    try:
        return read_orders(path, mapping())
    except InputError as error:
        return str(error)


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.lists(LETTERS, min_size=1, max_size=8), min_size=1, max_size=5))
def test_quoted_rows_all_come_back(rows: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Written as the standard says, each row is read or refused, however many cells and line breaks it has."""
    written = io.StringIO()
    writer = python_csv.writer(written, lineterminator="\n", quoting=python_csv.QUOTE_ALL)
    writer.writerows([NAMES, row("good").split(","), *rows])
    found = outcome(text_file(tmp_path_factory.mktemp("rows"), written.getvalue()))
    if isinstance(found, str):  # never taken for a value: lines within it read as rows
        assert "holds rows up to line" in found
        return
    assert found.summary()["rows"] == len(rows) + 1
    assert found.summary()["lines"] + found.refused.num_rows == len(rows) + 1


@settings(max_examples=200, deadline=None)
@given(
    marks=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=4),
    ragged=st.sets(st.integers(0, 5), max_size=2),
    broken=st.sets(st.integers(0, 5), max_size=2),
)
def test_stray_marks_lose_no_row(
    marks: list[tuple[int, int]], ragged: set[int], broken: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With marks anywhere, ragged rows and broken values: the lines that come in are those that come out."""
    rows = [row(f"o{i}", sku='"A\nB"' if i in broken else "A") for i in range(6)]
    rows = [_ragged(each, i) if i in ragged else each for i, each in enumerate(rows)]
    for at, place in marks:
        rows[at] = rows[at][:place] + '"' + rows[at][place:]
    content = "\n".join([HEADER, row("good"), *rows]) + "\n"
    found = outcome(text_file(tmp_path_factory.mktemp("marks"), content))
    if isinstance(found, str):
        assert "line " in found
        return
    told = [str(value) for value in found.requests.to_pylist()]
    assert not [each for each in told if "\\no" in each], "no value that was accepted holds the beginning of a row"
    if not marks:
        assert found.summary()["lines"] + found.refused.num_rows == len(rows) + 1
        assert found.refused.num_rows == len(ragged)


def _ragged(line: str, number: int) -> str:
    return line + ",more" if number % 2 else line.rpartition(",")[0]


@pytest.mark.parametrize("tail", ["b, c", "b, c, d, e, f, g, h", "at 10:00, 2 bags"])
def test_prose_of_several_lines_is_a_value(tmp_path: Path, tail: str) -> None:
    found = read(tmp_path, row(1, country=f'"a, a, a, a, a, a\n{tail}"'), row(2, sku=f'"a\n{tail}"'))
    assert found.summary()["lines"] == 2


# --- ragged rows ---------------------------------------------------------------------------------


def test_a_ragged_row_is_refused_alone_with_its_line(tmp_path: Path) -> None:
    found = read(tmp_path, row(1), "2,A,1", row(3), row(4) + ",more", "", row(5))
    assert found.refused.select(["row", "line", "reason", "order", "sku", "country"]).to_pylist() == [
        {"row": 2, "line": 3, "reason": "fewer cells than the header", "order": "2", "sku": "A", "country": None},
        {"row": 4, "line": 5, "reason": "more cells than the header", "order": "4", "sku": "A", "country": "France"},
    ]
    assert found.requests["order_id"].to_pylist() == ["1", "3", "5"]


def test_a_ragged_row_far_down_has_its_line(tmp_path: Path) -> None:
    lines = [row(i, sku='"A\nB"' if i % 700 == 0 else "A") for i in range(3_000)]
    lines[2_500] = "x"
    found = read(tmp_path, *lines)
    assert found.refused["line"].to_pylist() == [2_502 + len(range(0, 2_500, 700))]


# --- headers, line ends, encodings ---------------------------------------------------------------


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_every_line_end_is_read(tmp_path: Path, ends: str) -> None:
    assert read(tmp_path, row(1), row(2), ends=ends).requests.num_rows == 2


@pytest.mark.parametrize("sign", ["[", "{", "<"])
def test_a_header_may_begin_with_any_sign(tmp_path: Path, sign: str) -> None:
    content = f"{sign}{HEADER}\n{row(1)}\n"
    assert read_orders(text_file(tmp_path, content), mapping(order=f"{sign}InvoiceNo")).requests.num_rows == 1


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    content = f"\n{HEADER}\n\n{row(1)}\n\n{row('')}\n"
    found = read_orders(text_file(tmp_path, content), mapping())
    assert (found.summary()["rows"], found.refused["line"].to_pylist()) == (2, [6])


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"'])
def test_a_first_line_may_name_the_delimiter(tmp_path: Path, first: str) -> None:
    content = "\r\n".join([first, HEADER.replace(",", ";"), row(1, delimiter=";"), row("", delimiter=";")])
    found = read_orders(text_file(tmp_path, content), mapping())
    assert (found.requests.num_rows, found.refused["line"].to_pylist()) == (1, [4])
    assert read_orders(text_file(tmp_path, content), mapping(csv={"delimiter": ";"})).requests.num_rows == 1
    with pytest.raises(InputError, match=r"line 1 says that the delimiter is ';', the mapping says ','"):
        read_orders(text_file(tmp_path, content), mapping(csv={"delimiter": ","}))


def test_a_header_of_one_cell_asks_for_the_delimiter(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"It has: InvoiceNo;StockCode;.*one cell: check csv\.delimiter, csv\.encoding"
    ):
        read_orders(text_file(tmp_path, HEADER.replace(",", ";")), mapping())


@pytest.mark.parametrize("delimiter", [";", "\t", "|", "§", "\x01", "^"])
def test_any_sign_delimits(tmp_path: Path, delimiter: str) -> None:
    content = f"{HEADER.replace(',', delimiter)}\n{row(1, 'a,b', delimiter=delimiter)}\n"
    found = read_orders(text_file(tmp_path, content), mapping(csv={"delimiter": delimiter}))
    assert lines_of(found)[0][0] == "a,b"


@pytest.mark.parametrize(
    "encoding",
    ["utf8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin1", "cp037", "cp850"],
)
def test_any_text_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    path = text_file(tmp_path, f"{HEADER}\r\n{row(1, 'Ärmel')}\r\n".encode(encoding))
    assert lines_of(read_orders(path, mapping(csv={"encoding": encoding})))[0][0] == "Ärmel"


@pytest.mark.parametrize("encoding", ["utf8", "utf-8-sig", "utf-16-le"])
def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path, encoding: str) -> None:
    path = text_file(tmp_path, f"\ufeff{HEADER}\n{row(1)}\n".encode(encoding.removesuffix("-sig")))
    assert read_orders(path, mapping(csv={"encoding": encoding})).requests.num_rows == 1


@pytest.mark.parametrize(
    ("content", "encoding", "said"),
    [
        (f"{HEADER}\n{row(1)}\n{row(2, 'Ä')}\n".encode("latin1"), "utf8", "line 3: found the bytes c4.*g: cp1252"),
        (f"{HEADER}\n{row(1, 'Ä')}\n".encode(), "ascii", "line 2: found the bytes c3.*encoding: utf8"),
        (f"{HEADER}\n{row(1)}\n".encode("utf-16"), "utf8", "found UTF-16 text, the mapping says utf8.*g: utf-16"),
        (f"{HEADER}\n{row(1)}\n".encode("utf-32"), "utf8", "found UTF-32 text"),
        (f"{HEADER}\n{row(1)}\n".encode("utf-8-sig"), "cp1252", "found UTF-8 text, the mapping says cp1252"),
        (f"{HEADER}\n{row(1)}\n".encode("utf-16-le"), "utf8", "found binary data.*utf-16-le"),
        (f"{HEADER}\n{row(1)}\n".encode(), "utf-16", "no text in utf-16.*encoding: utf8"),
        (f"{HEADER}\n{row(1)}\n\n".encode(), "utf-16", "sales.csv: found no text in utf-16.*encoding: utf8"),
        (f"{HEADER}\n{row(1)}\n".encode("utf-16")[:-1], "utf-16", "line 2: found the bytes 0a"),
        (b"\xef\xbb\xbf", "utf8", "the file is empty"),
        ("\ufeff".encode("utf-16-le"), "utf-16", "the file is empty"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_text_name_the_line_and_an_encoding(
    tmp_path: Path, content: bytes, encoding: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        read_orders(text_file(tmp_path, content), mapping(csv={"encoding": encoding}))


# --- where it comes from -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "parquet"])
def test_a_pipe_is_read_and_may_be_asked_twice(tmp_path: Path, kind: str) -> None:
    content = parquet(tmp_path, sale()).read_bytes() if kind == "parquet" else f"{HEADER}\n{row(1)}\n".encode()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    assert read_orders(pipe, mapping()).requests.num_rows == 1
    writer.join()
    assert read_orders(pipe, mapping()).requests.num_rows == 1


def test_a_device_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="/dev/null: found a device, allowed: a file or a pipe"):
        read_orders("/dev/null", mapping())
    with pytest.raises(InputError, match="Is a directory"):
        read_orders(tmp_path, mapping())
    with pytest.raises(InputError, match="Name /dev/stdin"):
        read_orders("-", mapping())

"""Text for a terminal: what data holds is shown and never obeyed, and is shown in characters that the terminal has.

An id may hold an escape sequence that would colour, move or rename the terminal, a line break, or a mark that
turns the writing round: such characters are shown by their number, as Python writes them (``\\x1b``).
"""

from __future__ import annotations

import codecs
import io
import unicodedata
from typing import TextIO

#: The error handler of streams whose encoding lacks characters that we write.
PLAINLY = "eventmesh.plainly"
#: What stands for the marks of our own texts where the terminal has ASCII only. Some are wider than what they replace:
#: texts are made plain before they are laid out.
_PLAIN = str.maketrans(
    {
        "→": "->", "←": "<-", "⇒": "=>", "×": "x", "≥": ">=", "≤": "<=", "–": "-", "—": "-", "…": "...", "·": "-",
        "±": "+-", "µ": "u",
        "─": "-", "━": "-", "═": "=", "│": "|", "┃": "|", "╸": "-", "╺": "-", "┏": "+", "┓": "+", "┗": "+", "┛": "+",
        "┌": "+", "┐": "+", "└": "+", "┘": "+", "├": "+", "┤": "+", "┬": "+", "┴": "+", "┼": "+",
    }
)  # fmt: skip
#: Unicode's control characters, marks that change the direction, halves of characters, and breaks of lines.
_NEVER_RAW = {"Cc", "Cs", "Zl", "Zp"}
_DIRECTIONS = {*"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"}


def legible(text: str, encoding: str = "utf-8") -> str:
    """``text`` in one line, of characters that ``encoding`` has and that a terminal only shows."""
    if not text.isprintable():  # most texts are, and this is the fast way to know
        text = "".join([_escaped(each) if _acts(each) else each for each in text])
    return text if encoding.lower().replace("-", "").startswith("utf") else plainly(text, encoding)


def legible_lines(text: str, encoding: str = "utf-8") -> str:
    """The same for a text of several lines, which stay lines."""
    return "\n".join(legible(line, encoding) for line in text.split("\n"))


def plainly(text: str, encoding: str) -> str:
    """``text`` in characters that ``encoding`` has."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        register()
        return text.encode(encoding, PLAINLY).decode(encoding)
    return text


def encoding_of(stream: TextIO) -> str:
    """What ``stream`` is written in."""
    return getattr(stream, "encoding", None) or "utf-8"


def write_plainly(stream: TextIO | None) -> None:
    """From now on ``stream`` writes what its encoding lacks in other characters, and fails for none."""
    if isinstance(stream, io.TextIOWrapper):
        register()
        stream.reconfigure(errors=PLAINLY)


def register() -> None:
    """Make :data:`PLAINLY` known."""
    codecs.register_error(PLAINLY, _replaced)


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    plain = "".join(each.translate(_PLAIN) if ord(each) in _PLAIN else _escaped(each) for each in lacking)
    return plain, error.end


def _acts(character: str) -> bool:
    return unicodedata.category(character) in _NEVER_RAW or character in _DIRECTIONS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")

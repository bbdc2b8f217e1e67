"""Given what docs/application.md says of views, then its shapes fold its facts to what it says that a look-up gives."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from eventmesh.messages import Columns
from eventmesh.shape_checks import ShapeCheck
from eventmesh.views import View

PAGE = Path(__file__).parents[2] / "docs" / "application.md"
SECTION = PAGE.read_text().partition("\n## Views\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
SHAPES, LOOK_UPS = BLOCKS
LINE = re.compile(r"^(views\[.*?)  # (.*)$", re.MULTILINE)


def facts() -> list[dict[str, Any]]:
    """The table of the page; an empty cell is null."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in SECTION.splitlines() if line[:1] == "|"]
    (start,) = [at for at, row in enumerate(rows) if row[0] == "offset"]
    names, _, *lines = rows[start : start + 7]
    return [
        {name: int(cell) if cell.isdigit() else cell or None for name, cell in zip(names, line, strict=True)}
        for line in lines
    ]


def views() -> dict[str, View]:
    """Each view of the page, folded from its facts."""
    known: dict[str, Any] = {}
    exec(compile(SHAPES, str(PAGE), "exec"), known)
    made = {name: View(name, shape, ["loans"]) for name, shape in known["VIEWS"].items()}
    for view in made.values():
        view.apply("loans", 0, 0, Columns(rows=[{**fact, "sequence": fact["offset"]} for fact in facts()]))
    return made


@pytest.mark.parametrize(("asked", "said"), LINE.findall(LOOK_UPS))
def test_a_look_up_gives_what_the_page_says(asked: str, said: str) -> None:
    assert eval(asked, {"views": views()}) == ast.literal_eval(said)


def test_each_kind_is_looked_up_and_fits_the_facts() -> None:
    schema = pa.Table.from_pylist(facts()).schema
    assert set(re.findall(r'^views\["(.*?)"\]', LOOK_UPS, re.MULTILINE)) == views().keys()
    assert len(LINE.findall(LOOK_UPS)) == len(LOOK_UPS.splitlines()), "each says what it gives"
    types = {fact["type"] for fact in facts()}
    for name, view in views().items():
        ShapeCheck(name, view.shape, {"loans": schema}, {"loans": types}).all()

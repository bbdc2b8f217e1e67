"""Given a terminal of any width, then a progress bar shows all of its figures."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from eventmesh.report.progress_bar import progress_bar


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 100, 110, 120])
def test_no_figure_is_cut(width: int) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=width, height=20, force_terminal=True, color_system=None, _environ={})
    with progress_bar(console) as report:
        report("seeding RegisterCustomer", 123_456, 1_234_567)
    shown = re.sub(r"\x1b\[[0-9?;]*[A-Za-z]", "", stream.getvalue())
    assert "…" not in shown
    assert "123456/1234567" in shown.replace(" 123456/", "123456/")
    assert {"seeding", "RegisterCustomer", "0:00:00"} <= set(shown.split())
    assert ("━" in shown) is (width >= 110)


def test_without_a_terminal_each_stage_is_a_line() -> None:
    stream = io.StringIO()
    with progress_bar(Console(file=stream, width=80)) as report:
        report("orders", 1, 10)
        report("orders", 2, 10)
    assert stream.getvalue() == "orders ...\n"

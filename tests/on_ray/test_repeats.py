"""A file of orders that comes again to a mesh that stays, as a user types it; then one that gives an id to another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.on_ray.terminal import Terminal, opened

pytestmark = pytest.mark.timeout(300)
HEAD = "OrderNo,Sku,Qty,Price,Placed,Customer,Country"
FIRST = (HEAD, "1001,A-1,1,1.00,2023-03-01 10:00:00,C1,DE", "1002,A-1,1,1.00,2023-03-01 10:01:00,C1,DE")
OTHER = (HEAD, "1001,A-2,7,9.00,2024-03-01 10:00:00,C2,FR", "1003,A-1,1,1.00,2024-03-01 10:01:00,C1,DE")
MAPPING = """\
schema: eventmesh.mapping/1
order: OrderNo
sku: Sku
quantity: Qty
unit_price: {column: Price, unit: major, decimals: 2}
time: Placed
customer: Customer
country: Country
"""


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with opened() as here:
        (here.folder / "mapping.yaml").write_text(MAPPING)
        for name, lines in (("first", FIRST), ("other", OTHER)):
            (here.folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
        yield here


def run(terminal: Terminal, file: str, output: str) -> dict[str, Any]:
    words = ("--name", "shop", "--input", f"{file}.csv", "--mapping", "mapping.yaml", "-o", output, "--json")
    found: dict[str, Any] = json.loads(terminal.ok("run", *words))
    return found


def facts(terminal: Terminal, topic: str, kind: str) -> list[dict[str, Any]]:
    said = terminal.ok("log", "tail", topic, "--name", "shop", "-n", "1000", "--json")
    return [record for record in map(json.loads, said.splitlines()) if record["type"] == kind]


def test_a_file_again_is_repeats_and_another_order_under_its_id_is_refused(terminal: Terminal) -> None:
    terminal.ok("up", "views")  # the other wirings: tests/simulation/test_repeats.py
    first, again = run(terminal, "first", "one"), run(terminal, "first", "two")
    assert (first["verdict"], first["outcomes"]) == ("valid", {"confirmed": 2})
    assert (again["verdict"], again["outcomes"]) == ("valid", {"repeated": 2})
    assert [figure["value"] for figure in again["figures"] if figure["name"] == "requests with their outcome"] == [0]
    other = run(terminal, "other", "three")
    assert (other["verdict"], other["outcomes"]) == ("valid", {"refused": 1, "confirmed": 1})
    [refusal] = other["refusals"]
    assert "order 1001 was asked for before, with another customer and other lines" in refusal
    brought_in = [(fact["sku"], fact["quantity"]) for fact in facts(terminal, "stock", "StockRestocked")]
    assert sorted(brought_in) == [("A-1", 1), ("A-1", 2)], "for 1001 and 1002, then for 1003"
    told = terminal.ok("trace", "1001", "--name", "shop")
    assert "OrderConfirmed" in told
    assert "InputRefused" in told
    terminal.ok("down")

    terminal.ok("up", "--data", "data/shop")
    third = run(terminal, "other", "four")
    assert (third["verdict"], third["outcomes"]) == ("valid", {"refused": 1, "repeated": 1})

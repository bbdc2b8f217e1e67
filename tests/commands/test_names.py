"""Given a name that does not exist, then the nearest that does is suggested, and the exit code is 2."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.commands.conftest import Run
from tests.commands.small_run import CONFIGS, ORDERS

MESH = CONFIGS / "meshes" / "views.yaml"


def test_an_unknown_benchmark(eventmesh: Run) -> None:
    said = ["no benchmark 'join-scalin'", "Did you mean 'join-scaling'?"]
    eventmesh("bench", "run", "join-scalin").must_have_refused(*said)
    eventmesh("bench", "run", "nowhere.yaml").must_have_refused("no benchmark 'nowhere.yaml'", "Allowed: backbone, ")


def test_an_unknown_topic(eventmesh: Run, small_run: Path) -> None:
    ended = eventmesh("log", "read", "shipment", "--run", small_run)
    ended.must_have_refused("no topic 'shipment'", "Did you mean 'shipments'?", "Topics: customers, order-requests")


def test_a_position_that_is_not_there(eventmesh: Run, small_run: Path) -> None:
    words = ("log", "read", "orders", "--run", small_run)
    eventmesh(*words, "--partition", 2).must_have_refused("orders has partitions 0 to 1, not 2")
    eventmesh(*words, "--offset", 900).must_have_refused("orders/0: offset 900 is outside [0, ", "Start at 0")


@pytest.mark.parametrize("huge", [2**31, 2**63, 2**64, 10**30])
def test_a_position_beyond_any_log(eventmesh: Run, small_run: Path, huge: int) -> None:
    words = ("log", "read", "orders", "--run", small_run)
    eventmesh(*words, "--partition", huge).must_have_refused(f"orders has partitions 0 to 1, not {huge}")
    eventmesh(*words, "--offset", huge).must_have_refused(f"orders/0: offset {huge} is outside [0, ")
    all_of_it = eventmesh(*words)
    assert (all_of_it.code, eventmesh(*words, "--limit", huge).out.startswith(all_of_it.out)) == (0, True)
    tail = ("log", "tail", "orders", "--run", small_run)
    assert eventmesh(*tail, "--limit", huge).out == eventmesh(*tail, "--limit", 1_000).out


def test_an_end_is_no_mistake(eventmesh: Run, small_run: Path) -> None:
    ended = eventmesh("log", "read", "price-updates", "--run", small_run)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == "price-updates/0 ends at offset 0: nothing to show\n"


@pytest.mark.parametrize("order", ["G0000003", "g00000003", "customer-00047", "sku-0001", "xyz", ""])
def test_an_unknown_order_suggests_orders_alone(eventmesh: Run, small_run: Path, order: str) -> None:
    ended = eventmesh("trace", order, "--run", small_run)
    ended.must_have_refused(f"no fact of this run belongs to {order!r}")
    suggested = re.findall(r"[\w-]*\d{3,}", ended.err.partition("belongs to")[2].removeprefix(f" {order!r}"))
    assert suggested
    assert set(suggested) <= {f"G{number:08d}" for number in range(1, ORDERS + 1)}


def test_the_nearest_order_is_suggested(eventmesh: Run, small_run: Path) -> None:
    eventmesh("trace", "G0000003", "--run", small_run).must_have_refused("Did you mean G00000003")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trac", "G00000001"], "No such command 'trac'. Did you mean 'trace'?"),
        (["log", "raed", "orders"], "No such command 'raed'. Did you mean 'read'?"),
        (["bench", "lst"], "No such command 'lst'. Did you mean 'list'?"),
        (["run", str(MESH), "--ordrs", "3"], "No such option: --ordrs (Possible options: --orders)"),
        (["log", "read", "orders", "--limt", "3"], "No such option: --limt (Possible options: --limit)"),
        (["run", str(MESH), "--orders", "many"], "Invalid value for '--orders'"),
        (["run", str(MESH), "--orders", "0"], "Invalid value for '--orders'"),
        (["run", str(MESH), "--stock-fraction", "1.5"], "Invalid value for '--stock-fraction'"),
        *(
            (["run", str(MESH), "-n", option, number], f"Invalid value for '{option}'")
            for option, numbers in {
                "--rtt-ms": ["inf", "nan", "1e30", "-1"],
                "--rate": ["inf", "nan", "0", "1e9"],
                "--orders": ["1000000000000", "-1", "1e30", "9" * 5_000],
                "--seed": ["-1", "4294967296", "9" * 5_000, "1.5"],
                "--stock-fraction": ["nan", "inf"],
            }.items()
            for number in numbers
        ),
        (["demo", "--seed", "-1"], "must be greater than or equal to 0, found '-1'"),
        (["bench", "run", "join-scaling", "-n", "--seed", "9" * 20], "must be less than or equal to 4294967295"),
        (["log", "read", "orders", "--limit", "0"], "must be greater than or equal to 1"),
        (["describe"], "Missing argument 'MESH'"),
        (["describe", "a.yaml", "b.yaml"], "Got unexpected extra argument(s) (b.yaml)"),
    ],
)
def test_a_mistyped_command_line(eventmesh: Run, words: list[str], said: str) -> None:
    ended = eventmesh(*words)
    assert (ended.code, ended.out, ended.made) == (2, "", [])
    assert said in ended.err
    assert "--help' for help" in ended.err
    assert "Traceback" not in ended.err

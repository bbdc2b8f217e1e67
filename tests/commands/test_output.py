"""Given a command that is right, then its results are on stdout, as JSON where asked for, and nothing else is."""

from __future__ import annotations

import io
import json
import re
import unicodedata
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from eventmesh.lab import inspect
from eventmesh.lab.inspect import Step
from eventmesh.lab.terminal import Screen
from tests.commands.conftest import Run
from tests.commands.small_run import CONFIGS, ORDERS, write_run
from tests.unit.run_story import run

MESH = CONFIGS / "meshes" / "views.yaml"


def document(eventmesh: Run, *words: object) -> Any:
    ended = eventmesh(*words, "--json")
    assert (ended.code, ended.err, ended.made) == (0, "", [])
    return json.loads(ended.out)


def test_demo(eventmesh: Run) -> None:
    asked, told = document(eventmesh, "demo")
    assert (asked["wiring"], told["wiring"]) == ("request", "views")
    assert asked["outcome"] == told["outcome"] == "confirmed"
    assert asked["messages"] == len(asked["moments"]) > told["messages"] == len(told["moments"])


def test_the_seed_of_the_demo_is_another_order(eventmesh: Run) -> None:
    assert document(eventmesh, "demo", "--seed", 2) != document(eventmesh, "demo")


def test_bench_list(eventmesh: Run) -> None:
    assert document(eventmesh, "bench", "list")["join-scaling"].startswith("How much load")


def test_the_points_of_a_benchmark(eventmesh: Run) -> None:
    whole, quick = (document(eventmesh, "bench", "run", "join-scaling", "-n", *more) for more in ([], ["--quick"]))
    assert all(isinstance(line, str) for line in whole)
    assert len(whole) > len(quick) > 0


def test_a_dry_run(eventmesh: Run) -> None:
    plan = document(eventmesh, "run", MESH, "--dry-run", "--orders", 30)
    assert (plan["mesh"], plan["requests"], plan["import"]["orders"]) == ("views", 30, 30)


def test_describe(eventmesh: Run) -> None:
    described = document(eventmesh, "describe", MESH)
    assert described["topics"]["stock"]["owner"] == "inventory"
    assert described["topics"]["stock"]["cleanup.policy"] == "delete"


def test_log_topics(eventmesh: Run, small_run: Path) -> None:
    listed = document(eventmesh, "log", "topics", "--run", small_run)
    # Every order is requested once, and each of the two partitions begins with the grant of its epoch.
    ends = [each["end"] for each in listed if each["topic"] == "order-requests"]
    assert sum(ends) == ORDERS + len(ends)


def test_log_read(eventmesh: Run, small_run: Path) -> None:
    rows = document(eventmesh, "log", "read", "orders", "--run", small_run, "--offset", 1, "--limit", 3)
    assert [row["offset"] for row in rows] == [1, 2, 3]
    assert {row["partition"] for row in rows} == {"orders/0"}
    assert rows[0]["time"].endswith("+00:00")
    [granted] = document(eventmesh, "log", "read", "orders", "--run", small_run, "--limit", 1)
    assert (granted["type"], len(granted["code"])) == ("eventmesh.Granted", 32), "which application it was granted to"


def test_log_verify(eventmesh: Run, small_run: Path) -> None:
    findings = document(eventmesh, "log", "verify", "--run", small_run)
    assert {each["damage"] for each in findings} == {None}
    assert sum(each["batches"] for each in findings) > 20


def test_trace(eventmesh: Run, small_run: Path) -> None:
    steps = document(eventmesh, "trace", "G00000003", "--run", small_run)
    assert (steps[0]["type"], steps[0]["at_ms"]) == ("OrderRequested", 0.0)
    assert "OrderConfirmed" in [step["type"] for step in steps]
    assert [step["at_ms"] for step in steps] == sorted(step["at_ms"] for step in steps)
    assert steps[0]["details"]["ordered_at"].endswith("+00:00")


def test_the_latest_run_is_looked_at_without_being_named(eventmesh: Run, tmp_path: Path, own_run: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "latest").symlink_to(own_run)
    assert document(eventmesh, "trace", "G00000003")


@pytest.mark.parametrize("columns", [72, 80, 110])
@pytest.mark.parametrize(
    ("words", "whole"),
    [
        (["log", "topics"], ["order-requests  ", "customer_id"]),
        (["log", "verify"], ["order-requests  ", "watermark"]),
        (["trace", "G00000002"], ["order-requests/0 @ 1  ", "ShipmentDispatched"]),
        (["run", str(MESH), "-n"], ["value_minor_units"]),
        (["bench", "list"], ["join-scaling  "]),
    ],
    ids=lambda words: words[0],
)
def test_what_is_shown_fits_the_terminal_and_breaks_no_name(
    eventmesh: Run, own_run: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], whole: list[str], columns: int
) -> None:
    (own_run.parent / "runs").mkdir()
    (own_run.parent / "runs" / "latest").symlink_to(own_run)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("eventmesh.lab.terminal.piped", lambda stream: False)
    shown = eventmesh(*words).out
    assert max(map(len, shown.splitlines())) <= columns
    assert [name for name in whole if name not in shown] == []
    assert "…" not in shown


@pytest.fixture
def narrow(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A run that is the latest one, and a terminal of so many columns."""
    (own_run.parent / "runs").mkdir()
    (own_run.parent / "runs" / "latest").symlink_to(own_run)
    monkeypatch.setattr("eventmesh.lab.terminal.piped", lambda stream: False)
    return lambda columns: monkeypatch.setenv("COLUMNS", str(columns))


@pytest.mark.parametrize("columns", [20, 40, 60])
@pytest.mark.parametrize(
    "words", [["log", "topics"], ["log", "verify"], ["trace", "G00000002"], ["demo"], ["run", str(MESH), "-n"]],
    ids=lambda words: words[0] + words[-1][:6],
)  # fmt: skip
def test_on_a_narrow_terminal_everything_is_there_that_is_on_a_wide_one(
    eventmesh: Run, narrow: Callable[[int], None], words: list[str], columns: int
) -> None:
    narrow(200)
    wide = {word for word in re.split(r":?\s+", eventmesh(*words).out) if len(word) <= columns - 2}
    narrow(columns)
    shown = eventmesh(*words).out
    lines = [line for line in shown.splitlines() if not line.startswith("G00000002, first fact")]
    assert max(map(len, lines)) <= columns
    assert wide - set(re.split(r":?\s+", shown)) == set()


@pytest.mark.parametrize("columns", [20, 40, 60])
def test_on_a_narrow_terminal_the_status_is_whole(
    eventmesh: Run, narrow: Callable[[int], None], looks: list[dict[str, Any]], columns: int
) -> None:
    narrow(columns)
    shown = eventmesh("status").out
    assert max(map(len, shown.splitlines())) <= columns
    words = set(re.split(r":?\s+", shown))
    assert {"12345", "orders/0", "1,234", "restarts", "epoch", "live"} <= words


@pytest.mark.parametrize(("width", "said"), [(80, "lines: eventmesh status --name shop"), (40, "lines")])
def test_what_a_terminal_has_no_lines_for_is_counted(width: int, said: str) -> None:
    many = {**STATUS, "processes": [{"process": f"orders/{number}", "pid": number} for number in range(30)]}
    screen, stream = Screen(), io.StringIO()
    screen._console = Console(file=stream, width=width, height=10, force_terminal=True, _environ={})
    screen.watch([many])
    shown = stream.getvalue()
    assert re.search(rf"\d\d more {said}\x1b", shown)
    assert shown.count("orders/") == 10 - len(["head", "where", "", "names", "more"]) - 2 * (width == 40)


HOSTILE = "G1\x1b]0;mine\x07\x1b[2J\r\nfake"


def test_what_data_holds_does_nothing_to_the_terminal(monkeypatch: pytest.MonkeyPatch, eventmesh: Run) -> None:
    step = Step(0.0, "2026-01-01", "orders/0", 1, "OrderPlaced", HOSTILE, "", {"order_id": HOSTILE})
    record = {"partition": "orders/0", "offset": 1, "type": HOSTILE, "order_id": HOSTILE}
    monkeypatch.setattr("eventmesh.lab.inspect.find_run", lambda *_: Path(HOSTILE))
    monkeypatch.setattr("eventmesh.lab.inspect.trace", lambda *_: [step])
    monkeypatch.setattr("eventmesh.lab.inspect.read", lambda *_: [record])
    monkeypatch.setattr("benchmarks.catalog.questions", lambda folder: {HOSTILE: HOSTILE})
    for words in (["trace", HOSTILE], ["log", "read", "orders"], ["bench", "list"]):
        shown = eventmesh(*words).out
        assert not [each for each in shown if unicodedata.category(each) == "Cc" and each != "\n"], words
        assert r"G1\x1b]0;mine\x07\x1b[2J\r\nfake" in shown


@pytest.mark.parametrize("words", [["log", "topics", "--run", HOSTILE], ["describe", HOSTILE], ["trace", HOSTILE]])
def test_nor_does_an_error(eventmesh: Run, words: list[str]) -> None:
    ended = eventmesh(*words)
    assert ended.code == 2
    assert not [each for each in ended.err if unicodedata.category(each) == "Cc" and each != "\n"]


def test_brackets_are_no_markup(eventmesh: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.catalog.questions", lambda folder: {"mine": "how [bold]much[/]?"})
    assert eventmesh("bench", "list").out.split() == ["mine", "how", "[bold]much[/]?"]


@pytest.mark.parametrize(("verdict", "code"), [("valid", 0), ("invalid", 3), ("unknown", 5)])
def test_the_exit_code_of_a_run_is_its_verdict(
    eventmesh: Run, monkeypatch: pytest.MonkeyPatch, verdict: str, code: int
) -> None:
    outcomes = {"confirmed": 12_345}
    monkeypatch.setattr("eventmesh.lab.run.run", lambda *_, **__: run([], verdict=verdict, outcomes=outcomes))
    ended = eventmesh("run", MESH, "-o", "[red] out")
    assert (ended.code, ended.err) == (code, "")
    assert ended.out.startswith(f"join-scaling: audit {verdict}\n  outcomes: confirmed 12,345\n")
    assert "everything is in [red] out;" in ended.out
    assert json.loads(eventmesh("run", MESH, "--json").out)["verdict"] == verdict


@pytest.mark.parametrize(("verdict", "code"), [("valid", 0), ("invalid", 3), ("unknown", 5)])
def test_the_exit_code_of_a_benchmark_is_its_verdict(
    eventmesh: Run, monkeypatch: pytest.MonkeyPatch, verdict: str, code: int
) -> None:
    def measured(_: object, folder: Path, **__: object) -> Any:
        (folder / "summary.md").write_text("all of it\n")
        return run([], verdict=verdict)

    monkeypatch.setattr("benchmarks.join_scaling.JoinScaling.run", measured)
    ended = eventmesh("bench", "run", "join-scaling", "--output", "out")
    assert (ended.code, ended.err) == (code, "")
    assert ended.out == f"all of it\n\nReport: {Path('out') / 'report.html'}\n"


STATUS: dict[str, Any] = {
    "name": "shop", "mesh": "views", "wiring": "views", "durability": "os", "ray": "127.0.0.1:1", "data": "data/shop",
    "flight": "grpc://127.0.0.1:2",
    "processes": [{"process": "orders/0", "state": "live", "pid": 12_345, "restarts": 1}],
    "partitions": [{"partition": "orders/0", "owner": "orders/0", "epoch": 2, "end": 1_234, "snapshot": None}],
    "views": [],
    "asks": [
        {"asker": "gateway", "message": "TakeOrder", "attempts": 1_200, "repeats": 0, "cache_hits": 0},
        {"asker": "orders", "message": "StockBySku", "attempts": 30, "repeats": 4, "cache_hits": 7},
    ],
}  # fmt: skip


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a mesh that is up says of itself, look by look; then comes Ctrl-C."""
    left = [STATUS, {**STATUS, "wiring": "hybrid"}]

    def look() -> dict[str, Any]:
        if not left:
            raise KeyboardInterrupt
        return left.pop(0)

    monkeypatch.setattr("eventmesh.lab.standing_record.find", lambda name: name)
    monkeypatch.setattr("eventmesh.lab.standing_status.watching", lambda standing: nullcontext(look))
    monkeypatch.setattr("eventmesh.lab.terminal.LOOK_AGAIN_S", 0)
    return left


def test_status_is_one_look(eventmesh: Run, looks: list[dict[str, Any]]) -> None:
    ended = eventmesh("status")
    assert (ended.code, ended.err, len(looks)) == (0, "", 1)
    assert ended.out.startswith("shop: mesh views, wiring views, durability os")
    assert "Arrow Flight grpc://127.0.0.1:2\n" in ended.out
    assert [line.split() for line in ended.out.splitlines()[3:]] == [
        ["process", "state", "pid", "restarts"], ["orders/0", "live", "12345", "1"], [],
        ["partition", "owner", "epoch", "end", "snapshot"], ["orders/0", "orders/0", "2", "1,234", "-"], [],
        ["asker", "message", "attempts", "what", "came", "of", "them"], ["gateway", "TakeOrder", "1,200", "-"],
        ["orders", "StockBySku", "30", "repeats", "4,", "cache_hits", "7"],
    ]  # fmt: skip


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_watch_looks_until_ctrl_c(eventmesh: Run, looks: list[dict[str, Any]], more: list[str]) -> None:
    ended = eventmesh("status", "--watch", *more)
    assert (ended.code, ended.err, looks) == (0, "", [])
    if more:
        assert [json.loads(line)["wiring"] for line in ended.out.splitlines()] == ["views", "hybrid"]
    else:
        assert "wiring hybrid" in ended.out, "the last look stays"


# --- any time that a log can hold ------------------------------------------------------------------

FAR = 253_402_318_799_000_000  # 9999-12-31 23:59:59 in New York


@pytest.fixture(scope="module")
def far_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The orders of this run were made beyond the year 9999."""
    return write_run(tmp_path_factory.mktemp("far") / "run", start_us=FAR)


@pytest.mark.parametrize(
    "words",
    [("log", "read", "order-requests"), ("log", "tail", "order-requests"), ("trace", "G00000003")],
)
def test_a_time_beyond_the_calendar_of_python_is_shown(eventmesh: Run, far_run: Path, words: tuple[str, ...]) -> None:
    ended = eventmesh(*words, "--run", far_run)
    assert (ended.code, ended.err) == (0, "")
    assert "+010000-01-01T" in ended.out


@pytest.mark.parametrize(
    ("microseconds", "shown"),
    [
        (0, "1970-01-01T00:00:00.000000+00:00"),
        (-1, "1969-12-31T23:59:59.999999+00:00"),
        (951_782_400_000_000, "2000-02-29T00:00:00.000000+00:00"),
        (253_402_300_800_000_000, "+010000-01-01T00:00:00.000000+00:00"),
        (-62_167_219_200_000_000, "0000-01-01T00:00:00.000000+00:00"),
        (-62_167_219_200_000_001, "-000001-12-31T23:59:59.999999+00:00"),
        (2**63 - 1, "+294247-01-10T04:00:54.775807+00:00"),
        (-(2**63), "-290308-12-21T19:59:05.224192+00:00"),
    ],
)
def test_every_count_of_microseconds_has_its_day(microseconds: int, shown: str) -> None:
    assert inspect.iso(microseconds) == shown


def test_the_last_records_of_a_topic_are_those_of_the_latest_times(eventmesh: Run, small_run: Path) -> None:
    ended = eventmesh("log", "tail", "orders", "--json", "--run", small_run)
    times = [json.loads(line)["time"] for line in ended.out.splitlines()]
    assert len(times) == 10
    assert times == sorted(times)

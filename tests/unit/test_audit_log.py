"""Given a log, the checks of any mesh: each passes what is right and catches what it is there for."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eventmesh.audit.audit import FRAMEWORK_CHECKS, Audit, CheckResult, audit
from eventmesh.audit.evidence import Evidence
from eventmesh.history import CALLERS, History
from eventmesh.lab.run import audit_folder
from eventmesh.log.batch import LogBatch
from eventmesh.log.partition import truncated
from eventmesh.log.storage import FileStorage
from eventmesh.log.store import LogReader
from tests.unit.audit_story import LINES, Forged, Story, a_day, command, entries_of, with_header


@pytest.fixture(scope="module")
def day() -> Story:
    return a_day()


def test_given_a_day_where_all_went_well_then_every_check_is_valid_and_looked_at_something(day: Story) -> None:
    found = day.audit()
    assert found.verdict == "valid", found.describe()
    assert [name for name, check in found.checks.items() if not check.examined] == ["D11"], "nobody sets a timer"


def test_given_an_audit_then_its_json_is_plain_and_names_every_check(day: Story) -> None:
    document = json.loads(json.dumps(day.audit().to_json()))
    assert document["verdict"] == "valid"
    assert document["checks"].keys() >= FRAMEWORK_CHECKS.keys()


def test_given_only_some_checks_are_asked_for_then_only_those_are_made(day: Story) -> None:
    found = audit(day.mesh, day.log, day.history(), only={"A1", "E2"})
    assert list(found.checks) == ["A1", "E2"]


def test_given_an_application_without_checks_then_the_framework_still_judges(day: Story) -> None:
    found = audit(day.mesh, day.log, day.history(), checks={})
    assert list(found.checks) == sorted(FRAMEWORK_CHECKS, key=lambda name: (name[0], int(name[1:])))
    assert found.verdict == "valid"


def test_given_one_check_invalid_and_one_unknown_then_the_run_is_invalid_and_says_why() -> None:
    checks = {
        "X1": CheckResult("X1", "first", "unknown", 0, 0, ["missing: a read"]),
        "X2": CheckResult("X2", "second", "valid", 1, 0, []),
    }
    assert Audit(checks).verdict == "unknown"
    broken = Audit({**checks, "X3": CheckResult("X3", "third", "invalid", 2, 1, ["here"])})
    assert broken.verdict == "invalid"
    assert "third" in broken.describe()
    assert "here" in broken.describe()


# --- forged logs: what the log itself would refuse -----------------------------------------------------

Forge = Callable[[list[LogBatch]], list[LogBatch]]


def an_overlap(entries: list[LogBatch]) -> list[LogBatch]:
    return [*entries[:4], entries[3], *entries[4:]]


def a_grant_below_the_end(entries: list[LogBatch]) -> list[LogBatch]:
    return [*entries, with_header(entries[0], base=entries[-1].header.base, epoch=9)]


def rows_elsewhere(entries: list[LogBatch]) -> list[LogBatch]:
    return [*entries[:-1], with_header(entries[-1], base=entries[-1].header.base + 1)]


def a_hole(entries: list[LogBatch]) -> list[LogBatch]:
    return [*entries[:4], *entries[5:]]


def a_fall_of_epochs(entries: list[LogBatch]) -> list[LogBatch]:
    return [*entries[:-1], with_header(entries[-1], epoch=1)]


def an_append_repeated(entries: list[LogBatch]) -> list[LogBatch]:
    return [*entries[:-1], with_header(entries[-1], append=entries[-2].header.append)]


def an_append_left_out(entries: list[LogBatch]) -> list[LogBatch]:
    return [*entries[:-1], with_header(entries[-1], append=entries[-1].header.append + 1)]


def a_zombie(entries: list[LogBatch]) -> list[LogBatch]:
    return [*entries[:-1], with_header(entries[-1], incarnation="orders.zombie")]


def a_second_grant_of_one_epoch(entries: list[LogBatch]) -> list[LogBatch]:
    return [*entries[:-1], with_header(entries[0], base=entries[-1].header.base, epoch=2)]


def a_first_append_elsewhere(entries: list[LogBatch]) -> list[LogBatch]:
    return [entries[0], *entries[2:]]


def another_writer(entries: list[LogBatch]) -> list[LogBatch]:
    return [*entries[:-1], with_header(entries[-1], writer="payments")]


def two_incarnations(entries: list[LogBatch]) -> list[LogBatch]:
    return [*entries[:-1], with_header(entries[-1], incarnation="orders.other")]


FORGED: list[tuple[str, Forge]] = [
    ("A1", an_overlap),
    ("A1", a_grant_below_the_end),
    ("A1", rows_elsewhere),
    ("A2", a_hole),
    ("A4", a_fall_of_epochs),
    ("A5", an_append_repeated),
    ("A5", an_append_left_out),
    ("D4", a_zombie),
    ("D4", a_second_grant_of_one_epoch),
    ("D5", a_first_append_elsewhere),
    ("E5", another_writer),
    ("E5", two_incarnations),
]


@pytest.mark.parametrize(
    ("check", "forge"), FORGED, ids=lambda value: value if isinstance(value, str) else value.__name__
)
def test_given_a_forged_log_then_its_check_says_so(day: Story, check: str, forge: Forge) -> None:
    found = day.check(check, Forged(day, "orders", forge(entries_of(day, "orders"))))
    assert found.verdict == "invalid"
    assert found.violations >= 1
    assert "orders/0" in found.examples[0]


def test_given_a_log_whose_last_batches_are_gone_then_it_is_not_dense(day: Story) -> None:
    entries = entries_of(day, "orders")
    shown = Forged(day, "orders", entries[:-2], end=entries[-1].header.end)
    assert "to the end" in day.check("A2", shown).examples[0]


def test_given_a_gap_with_its_record_then_the_log_is_dense_and_without_it_is_not() -> None:
    story = Story()
    story.seed({"s1": 5})
    entries = entries_of(story, "prices")
    rules = story.log._partition("prices", 0).rules
    recorded = Forged(story, "prices", [*entries, truncated(rules, lost_to=rules.end + 100, time=0)])
    assert story.check("A2", recorded).verdict == "valid"
    elsewhere = with_header(recorded._entries[-1], base=rules.end + 200)
    assert story.check("A2", Forged(story, "prices", [*entries, elsewhere])).verdict == "invalid"


def test_given_a_log_that_starts_above_zero_though_nothing_may_be_removed_then_a7_says_so() -> None:
    for retention_ms, verdict in ((-1, "invalid"), (1_000, "valid")):
        story = Story(topics={"orders": {"retention.ms": retention_ms}})
        story.seed({"s1": 5})
        story.shipped("o1", [("s1", 1, 10)])
        assert story.check("A7").verdict == "valid"
        assert story.check("A7", Forged(story, "orders", entries_of(story, "orders"), start=3)).verdict == verdict


def retained() -> Story:
    """A day whose first facts of orders are gone since, by the rules; the owner was granted two epochs."""
    small = {"orders": {"segment.bytes": 20_000, "retention.ms": 1}}
    story = Story(topics=small)
    story.seed({"s1": 50})
    for number in range(30):
        story.shipped(f"o{number}", [("s1", 1, 10)])
        if number == 20:
            story.restart("orders")
    [deleted] = story.log.retain(story.now + 1_000_000, {"orders/0": story.log.end("orders", 0) // 2})
    assert deleted.start > 0
    return story


def test_given_a_log_that_was_retained_then_what_is_left_is_judged_and_the_rest_is_unknown() -> None:
    story = retained()
    checks = story.audit().checks
    assert {name: check.verdict for name, check in checks.items() if check.verdict == "invalid"} == {}
    assert {check.verdict for name, check in checks.items() if name.startswith("A")} == {"valid"}
    rest = {check.verdict for name, check in checks.items() if not name.startswith("A")}
    assert rest == {"unknown"}
    assert "which retention deleted" in checks["D3"].examples[0]


def test_given_a_retained_log_then_checks_of_the_whole_story_would_find_fault_with_it() -> None:
    """Why they are not asked."""
    story = retained()
    with closing(Evidence(story.mesh, story.log, story.history())) as evidence:
        assert FRAMEWORK_CHECKS["D4"](evidence).verdict == "invalid"


def the_first_of_an_epoch_left_out(entries: list[LogBatch]) -> list[LogBatch]:
    place = max(place for place, entry in enumerate(entries) if entry.header.kind == "granted")
    return [*entries[: place + 1], *entries[place + 2 :]]


@pytest.mark.parametrize("change", [an_append_repeated, an_append_left_out, the_first_of_an_epoch_left_out])
def test_given_a_retained_log_then_the_appends_that_are_left_are_counted_all_the_same(change: Forge) -> None:
    story = retained()
    entries, start = entries_of(story, "orders"), story.log.start("orders", 0)
    assert story.check("A5", Forged(story, "orders", entries, start=start)).verdict == "valid"
    assert story.check("A5", Forged(story, "orders", change(entries), start=start)).verdict == "invalid"


def test_given_one_flipped_byte_then_the_checksums_say_where_and_the_rest_is_unknown() -> None:
    story = Story()
    story.seed({"s1": 5})
    story.shipped("o1", [("s1", 1, 10)])
    assert story.check("A3", LogReader.of(story.storage)).verdict == "valid"
    path = next(path for path in story.storage.files if path.startswith("orders/0/") and path.endswith(".arrow"))
    story.storage.files[path][-40] ^= 1
    found = story.audit(LogReader.of(story.storage))
    assert found.checks["A3"].verdict == "invalid"
    assert "orders/0" in found.checks["A3"].examples[0]
    assert found.checks["E1"].verdict == "unknown"
    assert "cannot be read" in found.checks["E1"].examples[0]


def test_given_a_record_in_another_partition_than_its_keys_then_a6_says_which() -> None:
    story = Story(partitions=2)
    story.seed({"s1": 5, "s2": 5})
    assert story.check("A6").verdict == "valid"
    for wrong in (0, 1):
        story.say("prices", "PriceListed", command(f"wrong-{wrong}"), sku="s9", list_price=1, partition=wrong)
    found = story.check("A6")
    assert (found.verdict, found.violations) == ("invalid", 2)  # by its partition key, and by its payload's key


def test_given_a_record_without_a_key_then_any_partition_will_do() -> None:
    story = Story(partitions=2)
    story.tweak["PriceListed"] = {"partitionkey": None, "sku": None}
    story.say("prices", "PriceListed", command("a"), sku="s9", partition=0)
    story.say("prices", "PriceListed", command("b"), sku="s9", partition=1)
    assert story.check("A6").verdict == "valid"


# --- progress --------------------------------------------------------------------------------------------


def writes(*vectors: dict[str, object]) -> Story:
    """Given the vectors that orders appends, in order, with its inputs there."""
    story = Story()
    story.seed({"s1": 50})
    for number in range(20):
        story.request(f"o{number}", [("s1", 1, 1)])
    for vector in vectors:
        story.progressed("orders", vector)
    return story


REQUESTS = "order-requests/0"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"next": {REQUESTS: 5}}, {"next": {REQUESTS: 4}}),
        ({"next": {REQUESTS: 5}}, {"next": {}}),
        ({"next": {}, "views": {"stock/0": 2}}, {"next": {}, "views": {"stock/0": 1}}),
        ({"next": {REQUESTS: 1}, "ahead": {REQUESTS: [[4, 6]]}}, {"next": {REQUESTS: 2}}),
        ({"next": {}, "ahead": {REQUESTS: [[4, 6]]}}, {"next": {REQUESTS: 5}, "ahead": {REQUESTS: [[7, 9]]}}),
    ],
)
def test_given_a_vector_that_falls_then_d1_says_so(before: dict[str, object], after: dict[str, object]) -> None:
    assert writes(before, after).check("D1").violations == 1


def test_given_a_vector_that_falls_over_a_restart_then_d1_says_so() -> None:
    story = writes({"next": {REQUESTS: 5}})
    story.restart("orders")
    story.progressed("orders", {"next": {REQUESTS: 4}})
    assert story.check("D1").verdict == "invalid"


def test_given_ranges_ahead_that_the_vector_reaches_or_that_grow_then_d1_is_content() -> None:
    story = writes(
        {"next": {REQUESTS: 1}, "ahead": {REQUESTS: [[4, 6], [8, 9]]}},
        {"next": {REQUESTS: 5}, "ahead": {REQUESTS: [[5, 7], [8, 9]]}},
        {"next": {REQUESTS: 9}},
    )
    assert story.check("D1").verdict == "valid"


@pytest.mark.parametrize(
    "vector",
    [
        {"next": {REQUESTS: 22}},
        {"next": {}, "ahead": {REQUESTS: [[20, 22]]}},
        {"next": {}, "views": {"stock/0": 99}},
        {"next": {"stock/7": 1}},
    ],
)
def test_given_a_vector_beyond_its_partition_then_d2_says_so(vector: dict[str, object]) -> None:
    assert writes(vector).check("D2").violations == 1


def test_given_a_vector_at_the_very_end_then_d2_is_content() -> None:
    assert writes({"next": {REQUESTS: 21}, "views": {"stock/0": 2}}).check("D2").verdict == "valid"


def test_given_the_same_fact_twice_then_d3_says_so() -> None:
    story = a_day()
    story.ordinals.clear()
    story.restock("s1", 5, "seed:restock:s1")
    found = story.check("D3")
    assert found.violations == 1
    assert "seed:restock:s1#0" in found.examples[0]


@pytest.mark.parametrize("passed", [{"next": {REQUESTS: 9}}, {"next": {}, "ahead": {REQUESTS: [[8, 9]]}}])
def test_given_an_input_decided_that_the_vector_had_passed_then_d3_says_so(passed: dict[str, object]) -> None:
    story = writes(passed)
    request = story.request("late", LINES)
    assert request is not None
    story.tweak["OrderRejected"] = {"id": f"{REQUESTS}/8#0"}
    story.say("orders", "OrderRejected", request, order_id="o7")
    assert story.check("D3").violations == 1


def test_given_inputs_decided_in_one_append_or_below_an_open_one_then_d3_is_content() -> None:
    story = writes({"next": {REQUESTS: 4}, "ahead": {REQUESTS: [[5, 9]]}})
    story.tweak["OrderRejected"] = {"id": f"{REQUESTS}/4#0"}
    story.say("orders", "OrderRejected", command("any"), order_id="o3")
    assert story.check("D3").verdict == "valid"


# --- views -----------------------------------------------------------------------------------------------


def test_given_a_view_with_another_value_a_missing_or_an_extra_row_then_e8_says_so(day: Story) -> None:
    dumps = day.views()
    (stock,) = [dump for dump in dumps if dump.view == "stock"]
    first, second = stock.rows
    for rows in (
        [{**first, "values": [1, 0]}, second],
        [first],
        [first, second, {**first, "key": "s9"}],
        [first, {**second, "version": 0}],
    ):
        day.spoiled = [*(dump for dump in dumps if dump is not stock), replace(stock, rows=rows)]
        found = day.check("E8")
        day.spoiled = None
        assert (found.verdict, found.violations) == ("invalid", 1)


def test_given_a_view_that_stood_lower_then_it_equals_the_fold_up_to_there() -> None:
    story = a_day()
    earlier = story.views()
    story.shipped("o9", LINES)
    story.spoiled = earlier
    assert story.check("E8").verdict == "valid"


def test_given_no_view_was_read_at_the_end_then_e8_does_not_know() -> None:
    story = a_day()
    story.spoiled = []
    assert story.check("E8").verdict == "unknown"


# --- a run's folder ---------------------------------------------------------------------------------------


def a_folder(story: Story, folder: Path) -> Path:
    """The log of a story as a run leaves it on disk."""
    with closing(FileStorage(folder / "log")) as storage:
        for path, content in story.storage.files.items():
            storage.replace(path, content)
        for path, counter in story.storage.counters.items():
            storage.counter(path).set(counter.get())
    return folder


def test_given_a_runs_folder_then_verdict_and_totals_come_from_one_reading(
    day: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    batches = LogReader.batches

    def watched(reader: LogReader, topic: str, partition: int) -> Any:
        read.append(f"{topic}/{partition}")
        return batches(reader, topic, partition)

    history = day.history()  # folds the log for its views
    monkeypatch.setattr(LogReader, "batches", watched)
    audited, totals, _ = audit_folder(day.mesh, a_folder(day, tmp_path), history)
    assert audited.verdict == "valid"
    assert totals == {"confirmed": 2, "rejected": 2, "cancelled": 1, "confirmed_value_minor_units": 2 * 540}
    assert sorted(read) == sorted(f"{topic.name}/{n}" for topic in day.topics.values() for n in range(topic.partitions))
    assert json.loads((tmp_path / "audit.json").read_text()) == audited.to_json()


def test_given_a_runs_folder_with_a_damaged_file_then_the_verdict_is_written_and_totals_are_not_made_up(
    tmp_path: Path,
) -> None:
    story = a_day()
    path = next(path for path in story.storage.files if path.startswith("orders/0/") and path.endswith(".arrow"))
    story.storage.files[path][-40] ^= 1
    audited, totals, _ = audit_folder(story.mesh, a_folder(story, tmp_path), History(CALLERS.empty_table(), [], True))
    assert (audited.verdict, audited.checks["A3"].verdict, totals) == ("invalid", "invalid", {})
    assert json.loads((tmp_path / "audit.json").read_text())["verdict"] == "invalid"

"""Given runs made up by formula, then every report says what their figures say, and nothing else."""

from __future__ import annotations

import re
from dataclasses import asdict
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from eventmesh.report import conclusions, headline, measure, plots, prices, report, ways, wording
from eventmesh.report.headline import Headline
from eventmesh.report.record import AuditRecord, CheckRecord, Point, Repetition, Run, Spread
from eventmesh.report.ways import Scenario, Way
from tests.unit.run_story import INVALID, VALID, WAYS, axes, point, points, run, shop_way

VIEWS, HYBRID, REQUEST = shop_way("views", "view"), shop_way("hybrid", "batched"), shop_way("request", "per_order")
LOADS = (50, 200, 800, 3_200)
UNKNOWN = AuditRecord(
    verdict="unknown",
    checks={
        "E1": CheckRecord(
            verdict="unknown", examined=0, violations=0, title="every order ends", examples=["missing: a"]
        )
    },
)


@pytest.fixture(scope="module")
def swept() -> Run:
    """Three ways under rising load, with one and with three joined services."""
    return run(points(((1, 0), (3, 1)), LOADS))


@pytest.fixture(scope="module")
def finely() -> Run:
    """The same in finer steps."""
    return run(points(((1, 0), (3, 1))))


@pytest.fixture(scope="module")
def hard(swept: Run) -> Scenario:
    return ways.scenarios(swept)[-1]


def changed(points: list[Point], of: Way, load: float, **change: object) -> list[Point]:
    """The same points, with fields of one of them changed."""
    return [
        each.model_copy(update=change)
        if (ways.way_of(each), ways.load(each)) == (of, load) else each
        for each in points
    ]  # fmt: skip


class Page(HTMLParser):
    """What a page refers to, and whether its elements are closed in order."""

    VOID = frozenset({"meta", "br", "link", "img", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.misplaced: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [
            value or "" for name, value in attrs if name in ("href", "src", "srcset", "data", "xlink:href")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Closed where it was opened."""

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.misplaced.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


# What the figures say


def told(of: Run) -> Headline:
    return headline.of_run(of, conclusions.of_run(of))


def test_a_void_point_takes_part_in_no_table_of_costs(hard: Scenario) -> None:
    void = hard.ways[VIEWS][0].model_copy(update={"void": "late"})
    without = Scenario(hard.axis, {**hard.ways, VIEWS: [void, *hard.ways[VIEWS][1:]]})
    assert ways.load(without.lowest[REQUEST]) == 200, "the lowest load that all were believably measured at"


def test_the_first_sentence_is_short_and_the_second_says_where_its_winner_loses(finely: Run) -> None:
    found = told(finely)
    assert found.sentence == (
        "Listening held 2 to 8 times the load of asking (batched queries) "
        "with 3 joined services and 1 ms between services."
    )
    assert found.winner == VIEWS
    assert found.other_side.startswith(
        "Listening loses elsewhere, with 3 joined services and 1 ms between services: "
        "it used 1.21 to 1.27 times as much memory as asking"
    )
    assert "; it decided on values 4." in found.other_side


def test_the_first_sentence_follows_the_data_when_asking_is_better_throughout(finely: Run) -> None:
    swap = {"views": "request", "request": "views", "view": "per_order", "per_order": "view"}

    def turned(each: Repetition) -> Repetition:
        named = shop_way(swap.get(each.wiring, each.wiring), swap.get(each.join, each.join))
        return each.model_copy(update=asdict(named))

    points = [
        turned(each).model_copy(update={"samples": [turned(sample) for sample in each.samples]})  # type: ignore[arg-type]
        for each in finely.points
    ]
    found = told(run(points))
    assert found.sentence.startswith(
        "Asking (queries per order) held 8 to 32 times the load of listening with 3 joined"
    )
    assert "used" not in found.sentence
    assert found.winner == REQUEST


def test_a_load_held_above_one_that_was_invalid_is_no_capacity(hard: Scenario) -> None:
    broken = [point("views", "view", axes(load=50), audit=INVALID), *hard.ways[VIEWS][1:]]
    found = conclusions.of_run(run(broken))
    assert isinstance(found.capacities[hard.axis, VIEWS], conclusions.NotResolved)


def test_an_all_invalid_run_has_no_performance() -> None:
    bad = point("views", "view", axes(load=50), audit=INVALID)
    assert told(run([bad])).sentence.startswith("The audit found this run invalid at every one of its points")


def test_the_sum_of_a_mesh_leaves_the_generator_out() -> None:
    roles = {"orders": Spread.of([1.0, 2.0, 3.0]), "broker": Spread.of([10.0]), "generator": Spread.of([99.0])}
    assert prices.total(roles) == Spread(median=12, low=11, high=13)
    assert prices.largest(roles) == roles["broker"]
    assert prices.total({"generator": Spread.of([99.0])}) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00042, "0.00042"),
        (0.123456, "0.123"),
        (0.42, "0.42"),
        (9.999, "10"),
        (99.94, "99.9"),
        (99.97, "100"),
        (100, "100"),
        (123.4, "123"),
        (1600, "1,600"),
        (12345.6, "12,346"),
        (-0.5, "-0.5"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1.077, "1.08"), (1.5, "1.5"), (2.04, "2"), (9.96, "10"), (12.4, "12"), (123, "120")]
)
def test_ratios_are_shorter_still(value: float, text: str) -> None:
    assert wording.times(value) == text


FLOW = measure.figure("completed orders/s at p99 < 1 s", [2_900.0, 3_100.0, 3_000.0], "orders/s", target=">=8000")
REPLAYS = [
    measure.figure("first to last in views", [34.0, 36.0, 33.0], "s", target="<60"),
    measure.figure("first to last in hybrid", [68.0, 66.0, 71.0], "s", target="<60"),
    measure.figure("first to last in request", [], "s", target="<60"),
    measure.figure("views, CPU", [50.0], "s"),
]


def test_the_sentence_of_a_run_without_points_names_targets_as_far_as_there_is_room() -> None:
    assert told(run([], figures=REPLAYS[:1], audit=VALID)).sentence == (
        "Target met: first to last in views: 34 s (wanted < 60)."
    )
    assert told(run([], figures=REPLAYS, audit=VALID)).sentence == "Of 3 targets 1 met, 1 missed and 1 without data."
    assert told(run([], figures=REPLAYS[:1] * 9, audit=VALID)).sentence == "9 of 9 targets met."
    aborted = told(run([], figures=REPLAYS, status="aborted", verdict="unknown")).sentence
    assert aborted == "The run ended early, its audit says unknown; of 3 targets 1 met, 1 missed and 1 without data."


def test_every_target_is_named_with_what_was_measured_beneath_the_sentence() -> None:
    text = report.summary(run([], name="replay", figures=REPLAYS, audit=VALID))
    assert (
        "Target missed: first to last in hybrid: 68 s (wanted < 60); "
        "target without data: first to last in request (wanted < 60); "
        "target met: first to last in views: 34 s (wanted < 60)."
    ) in text


def test_of_many_targets_only_their_count_is_told(swept: Run) -> None:
    text = report.summary(run([], name="backbone", figures=REPLAYS * 3, audit=VALID))
    assert "Of 9 targets 3 met, 3 missed and 3 without data." in text
    assert "target missed: first" not in text


def test_a_sweep_tells_its_target_beneath_the_sentence(hard: Scenario) -> None:
    one = run(hard.ways[VIEWS], figures=[FLOW])
    assert told(one).sentence == (
        "Views (local view) held 800 but not 3,200 orders/s with 3 joined services and 1 ms between services, "
        "with a completed p99 below 1 s."
    )
    assert "Target missed: completed orders/s at p99 < 1 s: 3,000 (wanted ≥ 8,000)." in report.summary(one)


# The plot


def test_a_label_says_how_a_way_joins_only_where_another_shares_its_wiring() -> None:
    pipelined = shop_way("hybrid", "pipelined")
    assert [each.short((VIEWS, HYBRID, pipelined)) for each in (VIEWS, HYBRID, pipelined)] == [
        "views", "hybrid batched", "hybrid pipelined",
    ]  # fmt: skip


def test_figures_of_one_target_share_a_scale_with_it() -> None:
    found = plots.aims([*REPLAYS, FLOW])
    assert [[bar.figure.name for bar in aim.bars] for aim in found] == [
        ["first to last in views", "first to last in hybrid"], ["completed orders/s at p99 < 1 s"],
    ]  # fmt: skip
    seconds, orders = found
    assert [bar.width for bar in seconds.bars] == pytest.approx([plots.BARS_RIGHT * each / 71 for each in (34, 68)])
    assert seconds.target_x == pytest.approx(plots.BARS_RIGHT * 60 / 71)
    assert orders.target_x == plots.BARS_RIGHT, "the target is the most there is"
    assert orders.bars[0].width == pytest.approx(plots.BARS_RIGHT * 3 / 8)


def test_saturated_points_are_hollow_and_void_ones_are_crossed_out_of_the_line(hard: Scenario) -> None:
    points = changed(hard.ways[VIEWS], VIEWS, 200, void="the generator was late")
    drawn = plots.plot([Scenario(hard.axis, {VIEWS: points})])
    assert drawn is not None
    line = drawn.rows[0].lines[0]
    assert [mark.kind for mark in line.marks] == ["held", "void", "held", "saturated"]
    assert line.path.count("L") == 2
    assert "void" in line.marks[1].title


def test_higher_latency_is_drawn_higher_and_labels_do_not_touch(swept: Run, hard: Scenario) -> None:
    drawn = plots.plot([hard], conclusions.of_run(swept).capacities)
    assert drawn is not None
    marks = {line.way: line.marks for line in drawn.rows[0].lines}
    assert marks[REQUEST][0].y < marks[VIEWS][0].y
    heights = sorted(line.label_y for line in drawn.rows[0].lines)
    assert all(high - low >= plots.LABEL_APART - 1e-9 for low, high in pairwise(heights))
    bars = {bar.way: bar.width for bar in drawn.rows[0].bars}
    assert bars[VIEWS] == pytest.approx(4 * bars[HYBRID]) == pytest.approx(16 * bars[REQUEST])
    unsought = plots.plot([hard])
    assert unsought is not None
    assert unsought.rows[0].bars == [], "a first look does not search for capacities"


@pytest.mark.parametrize("y", [plots.TOP, 120.0, plots.BOTTOM])
def test_labels_of_lines_that_end_together_stay_apart_and_within_the_panel(y: float) -> None:
    mark = plots.Mark(plots.RIGHT, y, y, y, "held", "")
    lines = [plots.Line(way, "", 0, "circle", "", "", [mark], 0.0, "") for way in (VIEWS, HYBRID, REQUEST)]
    heights = sorted(line.label_y for line in plots.place_labels(lines))
    assert plots.TOP <= heights[0] <= heights[-1] <= plots.BOTTOM
    assert all(high - low == pytest.approx(plots.LABEL_APART) for low, high in pairwise(heights))


def test_an_invalid_point_is_not_drawn_but_told() -> None:
    some = [point("views", "view", axes(load=load), audit=INVALID if load == 200 else VALID) for load in (50, 200, 800)]
    drawn = plots.plot(ways.scenarios(run(some)))
    assert drawn is not None
    assert len(drawn.rows[0].lines[0].marks) == 2
    assert drawn.rows[0].not_drawn == 1
    assert "1 point is not drawn" in report.render(run(some))


def test_one_load_makes_no_plot() -> None:
    assert plots.plot(ways.scenarios(run([point("views", "view", axes())]))) is None


# The page


def test_the_page_is_whole_and_names_no_outside_resource(swept: Run) -> None:
    text = report.render(swept)
    page = Page(text)
    assert page.references == []
    assert page.open == []
    assert page.misplaced == []
    assert not re.search(r"https?://|@import|url\(|<script", text)


def test_the_page_begins_with_both_sentences_one_plot_the_table_what_was_not_measured_and_how_to_run_it_again(
    swept: Run,
) -> None:
    page = Page(report.render(swept))
    words = "".join(page.words)
    body = words[words.index(told(swept).sentence) :]
    order = [
        told(swept).other_side,
        "Orders per second that were held",
        "Asking at its best beside listening",
        "What was not measured",
        "How to run it again",
        "Everything that was measured",
        "Latency under load",
        "What each way costs",
        "Every point",
        "How to read this",
        "Audit",
        "Predicted",
        "What was run",
    ]
    places = [body.index(title) for title in order]
    assert places == sorted(places)
    for known in (
        "seed 7",
        "0123456789ab",
        "Made Up 1",
        "python 3.11.7",
        "warm-up cut 2 s",
        "faults: none",
        "durability os",
    ):
        assert known in body


def test_accepted_stands_beside_completed_and_every_role_has_its_memory(swept: Run, hard: Scenario) -> None:
    words = "".join(Page(report.render(swept)).words)
    assert "accepted, ms" in words
    assert "completed, ms" in words
    low = hard.lowest[REQUEST]
    assert low.accepted_latency_ms is not None
    assert wording.number(low.accepted_latency_ms.p99.median) in words
    for role, spread in low.memory_mb.items():
        assert role in words
        assert wording.number(spread.median) in words


def test_an_invalid_point_shows_counts_and_verdict_and_no_performance() -> None:
    text = report.render(
        run([point("views", "view", axes(load=load), audit=INVALID) for load in (50, 200)], verdict="invalid")
    )
    words = "".join(Page(text).words)
    assert "not shown: the audit found it invalid; 900 orders offered" in words
    assert "<svg" not in text
    assert "What each way costs" not in words
    assert "order <o-17>: captured 2,400 twice" in words, "what was found, escaped in the page"
    assert "<o-17>" not in text


def test_a_void_point_says_why() -> None:
    late = point("views", "view", axes(load=50), lag_ms=5)
    assert "the generator was 5 ms late" in report.render(run([late, point("views", "view", axes(load=200))]))


def test_predictions_stand_beside_what_was_measured(swept: Run) -> None:
    missed = measure.figure("crossover", [2.2, 2.0, 2.4], "reads/update", predicted=1.5, tolerance=0.1)
    words = "".join(Page(report.render(swept.model_copy(update={"figures": [missed]}))).words)
    assert re.search(r"crossover2\.2 reads/update2–2\.41\.5 ± 10 %missed2\.2 · 2 · 2\.4", words.replace("\n", ""))
    assert "Little's law" in words


def test_a_point_whose_records_do_not_add_up_deviates_from_little(swept: Run) -> None:
    samples = [
        sample.model_copy(update={"little": sample.little.model_copy(update={"measured": sample.little.predicted * 2})})
        for sample in swept.points[0].samples
    ]
    bent = [swept.points[0].model_copy(update={"samples": samples}), *swept.points[1:]]
    assert "1 deviate by more than 10" in "".join(Page(report.render(run(bent))).words)
    assert "all agree" in "".join(Page(report.render(swept)).words)


@pytest.mark.parametrize("status", ["complete", "aborted"])
def test_a_run_without_points_has_a_page_too(status: str) -> None:
    bare = run([], status=status, outcomes={"confirmed": 1_200, "rejected": 3}, verdict="valid")
    assert "1,200 confirmed, 3 rejected" in report.render(bare)
    assert ("aborted" in report.summary(bare)) is (status == "aborted")
    assert report.junit(bare)


def test_a_sweep_of_another_axis_reads_as_well() -> None:
    made = point("views", "view", axes())
    other = [made.model_copy(update={"axis": {"updates_per_s": float(value), "retries": 2.0}}) for value in (1, 10)]
    assert "10 updates/s and retries 2" in report.render(run(other))


def cells(text: str) -> list[list[str]]:
    """The words of every row of every table of a page."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", text, re.DOTALL)
    return [[unescape(re.sub(r"<[^>]*>", " ", cell)).strip() for cell in re.split(r"</t[dh]>", row)] for row in rows]


def test_the_numbers_of_the_summary_are_those_of_the_tables(swept: Run) -> None:
    aimed = swept.model_copy(update={"figures": [FLOW]})
    said, table = report.summary(aimed), cells(report.render(aimed))
    completed = [row for row in table if row[0] == "Completed, p50, ms"]
    assert [cell.split()[0] for cell in completed[-1][1:4]][:2] == ["6.21", "3.95"], "of the easiest scenario, the last"
    for held in ("800 to 3,200", "200 to 800", "50 to 200"):
        assert f"| {held} |" in said
    row = next(row for row in table if row[0] == FLOW.name)
    assert row[1].split() == ["3,000", "2,900–3,100"]
    assert row[2:4] == ["≥ 8,000", "missed"]
    assert "3,000 (wanted ≥ 8,000)" in said


def test_a_run_without_points_shows_figures_samples_and_its_audit() -> None:
    text = report.render(run([], name="replay", figures=REPLAYS, audit=INVALID, verdict="invalid"))
    page = Page(text)
    assert page.open == page.misplaced == page.references == []
    rows = cells(text)
    assert next(row for row in rows if row[0] == "first to last in views")[4] == "34 · 36 · 33"
    assert next(row for row in rows if row[0] == "first to last in request")[1] == "no data"
    assert next(row for row in rows if row[0] == "E2")[2] == "invalid"
    assert '<testsuite name="replay: audit"' in report.junit(run([], name="replay", audit=INVALID))


# Markdown and JUnit


def test_the_summary_fits_a_pull_request_and_its_tables_are_tables(swept: Run) -> None:
    figure = measure.figure("a|b", [1.0], "x", target="<2")
    aimed = swept.model_copy(update={"figures": [figure]})
    text = report.summary(aimed)
    assert told(aimed).sentence in text
    assert len(text) < 5_000
    widths = [
        {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines() if line.startswith("|")}
        for block in text.split("\n\n") if block.startswith("|")
    ]  # fmt: skip
    assert len(widths) == 3
    assert all(len(width) == 1 for width in widths)
    assert not re.search(r"\n{3,}", text)
    assert not re.search(r"\n{3,}", report.summary(run([], name="replay", figures=REPLAYS, audit=VALID)))
    assert "E2" not in text
    assert "- E2 invalid" in report.summary(run([point("views", "view", axes(), audit=INVALID)]))


def test_a_build_server_sees_each_check_and_a_missed_target_does_not_fail_the_build() -> None:
    figures = [measure.figure("speed", [1.0], "x", target=">2"), measure.figure("size", [1.0], "x", target="<2")]
    audits = {50: VALID, 100: INVALID, 200: UNKNOWN}
    built = run(
        [point("views", "view", axes(load=load), audit=audit) for load, audit in audits.items()], figures=figures
    )
    root = ElementTree.fromstring(report.junit(built))
    counts = {key: int(root.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": 6, "failures": 1, "errors": 1, "skipped": 1}
    assert "captured 2,400 twice" in root.find(".//failure").attrib["message"]  # type: ignore[union-attr]
    assert "missing: a" in root.find(".//error").attrib["message"]  # type: ignore[union-attr]
    assert "target >2" in root.find(".//skipped").attrib["message"]  # type: ignore[union-attr]


def test_the_reports_are_written_into_the_runs_folder(swept: Run, tmp_path: Path) -> None:
    report.write(tmp_path / "run", swept)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["junit.xml", "report.html", "summary.md"]
    assert (tmp_path / "run" / "report.html").read_text(encoding="utf-8") == report.render(swept)


def test_every_way_of_the_story_has_its_own_colour_and_shape(swept: Run) -> None:
    drawn = plots.plot(ways.scenarios(swept))
    assert drawn is not None
    assert drawn.styles[VIEWS] == 0
    assert sorted(drawn.styles.values()) == list(range(len(WAYS)))

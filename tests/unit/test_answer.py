"""Given what was concluded, then plot, table and limits at the top of a report say that, and mark what was lost."""

from __future__ import annotations

from html import unescape

import pytest

from eventmesh.report import answer_plot, comparison, conclusions, headline, report, unmeasured
from eventmesh.report.comparison import Comparison, Row
from eventmesh.report.conclusions import conclude
from eventmesh.report.record import FirstLook, MachineUse, Repetition, Run
from eventmesh.shop import WORDS
from tests.unit.known_truth import table
from tests.unit.run_story import axes, point, points, run, shop_way
from tests.unit.test_conclusions import AXIS, BATCHED, REQUEST, VIEWS, slower, tried

LOOK = FirstLook(decides="eventmesh bench run join-scaling", minutes=105)


def compared(repetitions: list[Repetition], *, first_look: bool = False) -> Comparison:
    found = conclude(repetitions, first_look=first_look, words=WORDS)
    told = comparison.compare(repetitions, found, headline.headline(found))
    assert told is not None
    return told


def rows(told: Comparison, criterion: str) -> list[Row]:
    return [row for row in told.rows if row.criterion.startswith(criterion)]


def test_listening_stands_beside_the_best_way_of_asking_at_each_load_and_where_it_loses_is_marked() -> None:
    noise = (10.0, 11.0, 12.0, 10.5, 11.5)
    told = compared([
        *tried(VIEWS, {20: "hhhhh", 300: "hhhhh"}, p50=noise),
        *tried(BATCHED, {20: "hhhhh", 300: "hhhhh"}, p50=tuple(2 * value for value in noise)),
        *tried(REQUEST, {20: "hhhhh", 300: "sssss"}, p50=tuple(value / 2 for value in noise)),
    ], first_look=True)  # fmt: skip
    low, high = rows(told, "Time to the outcome, p50")
    assert low.section == "at 20 orders/s, asking by queries per order"
    assert (low.rival, low.base) == ("5.51 (5–6.01)", "11 (10–12)")
    assert low.ratio.startswith("asking better, 1.9")
    assert low.lost
    assert high.section == "at 300 orders/s, asking by batched queries"
    assert high.ratio.startswith("listening better, 1.9")
    assert not high.lost
    assert [row.ratio for row in rows(told, "Kept up")] == ["both", "both"]


def test_who_did_not_keep_up_loses_the_load() -> None:
    told = compared([*tried(VIEWS, {20: "hhh", 300: "sss"}), *tried(BATCHED, {20: "hhh", 300: "hhh"})], first_look=True)
    row = rows(told, "Kept up")[-1]
    assert (row.rival, row.base, row.ratio) == ("in all 3 tries", "in none of 3", "asking better")
    assert not row.lost, "asking is the winner"


def test_capacities_are_ranges_and_so_is_their_ratio() -> None:
    told = compared([*tried(VIEWS, {50: "hh", 100: "hh", 200: "hh"}), *tried(BATCHED, {50: "hh", 100: "ss"})])
    assert told.rows[0] == Row(
        "", "Load held, orders/s, asking by batched queries", "50 to 100", "at least 200",
        "listening better, at least 2 times",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pairs", "said"), [(2, "too few undisturbed pairs"), (3, "no difference seen, ratio 0.98 to 1.02")]
)
def test_no_difference_is_told_from_nothing_to_tell_by(pairs: int, said: str) -> None:
    row = rows(compared(slower(1, pairs)), "Time to the outcome, p50")[0]
    assert (row.ratio, row.lost) == (said, False)


def test_an_interval_too_wide_for_figures_says_that_its_pairs_are_too_few() -> None:
    wild = [
        *tried(VIEWS, {50: "hhh"}, p50=(10, 10, 10)),
        *tried(BATCHED, {50: "hhh"}, p50=(10, 20, 15)),
    ]
    assert (
        rows(compared(wild), "Time to the outcome, p50")[0].ratio == "no difference seen: 3 pairs are too few to tell"
    )


def test_any_table_has_its_comparison_and_a_row_is_marked_where_its_words_are_against_the_winner() -> None:
    marked = 0
    for seed in range(300):
        made = table(seed).repetitions
        found = conclude(made)
        said = headline.headline(found)
        told = comparison.compare(made, found, said)
        for row in told.rows if told else ():
            other = "listening" if said.winner and said.winner.asks else "asking"
            against = row.ratio.startswith(f"{other} better")
            # Of several ways of asking the winner is one: what another wins is no loss of its own.
            assert row.lost <= against
            assert row.lost == against or (said.winner is None or said.winner.asks)
            marked += row.lost
        axis = told.axis if told else AXIS
        drawn = answer_plot.plot(made, found, axis, {})
        assert drawn is None or all(0 <= bar.width <= answer_plot.LENGTH + 1 for g in drawn.groups for bar in g.bars)
    assert marked > 10


def test_bars_reach_from_what_was_held_for_certain_to_what_was_not() -> None:
    made = [*tried(VIEWS, {50: "hh", 100: "hh", 200: "ss"}), *tried(BATCHED, {50: "hh"}), *tried(REQUEST, {50: "ss"})]
    drawn = answer_plot.plot(made, conclude(made), AXIS, {})
    assert drawn is not None
    bars = {bar.way: bar for bar in drawn.groups[0].bars}
    assert (bars[VIEWS].width, bars[VIEWS].high) == (answer_plot.LENGTH / 2, answer_plot.LENGTH)
    assert (bars[BATCHED].open, bars[BATCHED].text) == (True, "at least 50")
    assert (bars[REQUEST].width, bars[REQUEST].text) == (0, "not measured")


def test_without_capacities_the_bars_are_times_and_who_did_not_keep_up_has_none() -> None:
    made = [*tried(VIEWS, {20: "hhh", 300: "hhh"}), *tried(REQUEST, {20: "hhh", 300: "sss"}, p50=(5, 5, 5))]
    drawn = answer_plot.plot(made, conclude(made, first_look=True, words=WORDS), AXIS, {})
    assert drawn is not None
    assert [group.heading for group in drawn.groups] == ["at 20 orders per second", "at 300 orders per second"]
    assert [[bar.text for bar in group.bars] for group in drawn.groups] == [
        ["10 ms", "5 ms"], ["10 ms", "did not keep up"],
    ]  # fmt: skip


def not_measured(of: Run) -> list[str]:
    return unmeasured.unmeasured(of, conclusions.of_run(of))


def test_what_was_not_measured_is_told_from_what_was() -> None:
    told = not_measured(run(points(((3, 1),), (50, 200))))
    assert told == [
        "numbers of joined services other than 3", "delays between services other than 1 ms",
        "loads other than 50 and 200 orders/s", "the wirings events and clustered",
        "joins by a query per row, pipelined queries, cached queries and hedged queries", "failures of any kind",
        "several machines: everything shared this one", "what other programs did meanwhile: this system does not tell",
    ]  # fmt: skip
    assert "failures of any kind" not in not_measured(run(points(((3, 1),), (50,)), faults=[{"kind": "kill"}]))
    assert not_measured(run([])) == []


def test_a_capacity_that_was_looked_for_and_not_found_says_why() -> None:
    told = not_measured(run([point("request", "per_order", axes(load=3_200))]))
    assert told[-1] == (
        "how much request (queries per order) holds with 3 joined services and 1 ms between services: "
        "it did not hold 3,200 orders/s, the smallest load tried"
    )


@pytest.mark.parametrize(
    ("name", "given", "command"),
    [
        ("join-scaling-quick", {}, "eventmesh bench run join-scaling --quick --seed 7"),
        ("replay", {"input": None}, "eventmesh bench run replay --seed 7"),
        ("replay", {"input": "my orders.csv", "mapping": "m.yaml"},
         "eventmesh bench run replay --input 'my orders.csv' --mapping m.yaml --seed 7"),
    ],
)  # fmt: skip
def test_the_command_that_measures_the_same_again_is_told(name: str, given: dict[str, str], command: str) -> None:
    made = run(points(((3, 1),), (50,)), name=name, config={"schema": "eventmesh.benchmark/1", **given})
    assert command in unescape(report.render(made))
    assert f"Again: `{command}`, at commit 0123456789ab." in report.summary(made)
    assert "Again:" not in report.summary(run([], name="demo"))


def test_what_other_programs_took_is_told() -> None:
    made = point("views", "view", axes())
    shares = (0.01, 0.03, 0.42)
    samples = [
        each.model_copy(update={"machine": MachineUse(others=share, stolen=0.0)})
        for each, share in zip(made.samples, shares, strict=True)
    ]
    watched = run([made.model_copy(update={"samples": samples})])
    assert "taken by other programs: 3 % (1 % to 42 %)" in report.summary(watched)
    assert "taken by other programs: not watched" in report.summary(run([made]))
    assert "taken by other programs: 7 %" in report.summary(run([], machine_use=MachineUse(others=0.05, stolen=0.02)))


def test_a_first_look_says_so_and_searches_for_nothing() -> None:
    made = run(points(((3, 1),), (50, 200)), first_look=LOOK)
    for text in (report.render(made), report.summary(made)):
        assert "A first look: join-scaling" in text
        assert "would decide, in about 105 minutes" in text
        assert "greatest load held, orders" not in text
        assert "Load held" not in text
    assert shop_way("views", "view") in {each for _, each in conclusions.of_run(made).places}

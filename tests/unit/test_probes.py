"""Given callers' records that anyone can add up, then each probe, curve and prediction says what they say."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from eventmesh.application import PLAIN_WORDS
from eventmesh.history import CALLERS
from eventmesh.report import predictions
from eventmesh.report.experiment_measure import Law, Question, curves, deviated, predicted, sentence, stretches
from eventmesh.report.probes import PROBES, Seen, check_tolerance, served_again_us, tolerated

SECOND = 1_000_000
#: A request each second for a minute. The fault lasts from 20 to 30.
FIRST, OVER, END = 20, 30, 60
Told = tuple[float | None, float | None, str | None]  # when it is accepted and ended, and how


def seen(*told: Told, audit: str = "valid") -> Seen:
    """Of what became of each request, in seconds after the first was due."""

    def us(value: float | None) -> int | None:
        return None if value is None else round(value * SECOND)

    rows = [
        {
            "request": place, "command": "Ask", "key": f"k{place}", "intended_at": place * SECOND,
            "sent_at": place * SECOND, "accepted_at": us(accepted), "completed_at": us(ended), "outcome": outcome,
        }
        for place, (accepted, ended, outcome) in enumerate(told)
    ]  # fmt: skip
    callers = pa.Table.from_pylist(rows, CALLERS)
    return Seen.of(callers, ["done"], first_us=FIRST * SECOND, over_us=OVER * SECOND, audit=audit)  # type: ignore[arg-type]


def asks() -> Seen:
    """Whoever asks is refused at once while the fault lasts."""
    return seen(*[(t, t + 0.5, "refused" if FIRST <= t < OVER else "done") for t in range(END)])


def listens() -> Seen:
    """All are accepted at once; what came during the fault ends after it, two in a second, and so does what follows."""
    told: list[Told] = []
    for t in range(END):
        late = FIRST <= t < OVER + 10
        told.append((t + 0.1, OVER + 0.5 + (t - FIRST) / 2 if late else t + 0.5, "done"))
    return seen(*told)


def say(name: str, of: Seen, low: float, high: float, within_s: float = 0) -> float | str | None:
    return PROBES[name].measure(of.within(low * SECOND, high * SECOND), within_s)


@pytest.mark.parametrize(
    ("probe", "within_s", "asking", "listening"),
    [
        ("failed-share", 0, [0, 1, 0], [0, 0, 0]),
        ("accepted-share", 0.2, [1, 0, 1], [1, 1, 1]),
        ("completed-share", 1, [1, 0, 1], [1, 0, 2 / 3 + 1 / 30]),
        ("accepted-per-s", 0, [1, 0, 1], [1, 1, 1]),
        ("completed-per-s", 0, [1, 0, 1], [1, 0, 40 / 30]),
        ("backlog", 0, [1, 1, 0], [0, 10, 0]),
    ],
)
def test_each_probe_says_what_can_be_counted(
    probe: str, within_s: float, asking: list[float], listening: list[float]
) -> None:
    bounds = [(0, FIRST), (FIRST, OVER), (OVER, END)]
    for run, expected in ((asks(), asking), (listens(), listening)):
        said = [say(probe, run, low, high, within_s) for low, high in bounds]
        assert said == pytest.approx(expected, abs=0.06), probe


def test_latency_is_of_what_was_served_and_counts_from_the_time_due() -> None:
    assert say("latency-p99", asks(), 0, END) == pytest.approx(500)
    assert say("latency-p99", asks(), FIRST, OVER) is None, "all of them failed"
    assert say("latency-p99", listens(), FIRST, FIRST + 1) == pytest.approx(10_500)


def test_recovery_lasts_until_no_more_are_open_than_before_and_none_fails() -> None:
    assert say("recovery", listens(), OVER, END) == pytest.approx(10.0, abs=0.6)
    assert say("recovery", asks(), OVER, END) == pytest.approx(0.5)
    failing = [(t, t + 0.5, "refused" if FIRST <= t < OVER + 5 else "done") for t in range(END)]
    assert say("recovery", seen(*failing), OVER, END) == pytest.approx(5.5)
    unanswered: list[Told] = [*failing[:-1], (None, None, None)]
    assert say("recovery", seen(*unanswered), OVER, END) is None
    assert served_again_us(listens()) == (OVER + 0.5) * SECOND


def test_a_probe_without_a_request_has_no_data() -> None:
    assert [say(name, asks(), 100, 101, 1) for name in ("failed-share", "accepted-share", "latency-p99")] == [None] * 3


QUESTIONS = [
    Question("a", "failed-share", None, stretch, "<0.01") for stretch in ("before", "during", "after")
] + [Question("b", "audit", None, "after", "valid"), Question("c", "completed-per-s", None, "during")]  # type: ignore[arg-type]  # fmt: skip


def test_the_hypothesis_is_held_in_each_stretch() -> None:
    found = stretches(asks(), QUESTIONS, warmup_s=5, settle_s=10)
    assert [(each.stretch, each.from_s, each.to_s, each.met) for each in found] == [
        ("before", 5, 20, True), ("during", 20, 30, False), ("after", 40, 60, True),
    ]  # fmt: skip
    assert deviated(found) is True
    assert [each.output for each in found[1].looks] == [0.0]
    assert deviated(stretches(listens(), QUESTIONS, warmup_s=5, settle_s=10)) is False
    assert deviated(stretches(listens(), QUESTIONS, warmup_s=5, settle_s=40)) is None, "nothing is after that"


@pytest.mark.parametrize(
    ("output", "tolerance", "kept"),
    [
        (0.5, "<1", True), (1.0, "<1", False), (3.0, (1.0, 3.0), True), (3.1, (1.0, 3.0), False),
        ("valid", "valid", True), ("unknown", "valid", False),
    ],
)  # fmt: skip
def test_a_tolerance_is_a_threshold_a_range_or_a_word(output: float | str, tolerance: str, kept: bool) -> None:
    assert tolerated(output, tolerance) is kept


@pytest.mark.parametrize(("probe", "tolerance"), [("audit", "<1"), ("backlog", "few"), ("backlog", (2.0, 1.0))])
def test_a_tolerance_that_can_never_be_kept_is_refused(probe: str, tolerance: str) -> None:
    with pytest.raises(ValueError, match=r"must|no threshold"):
        check_tolerance(tolerance, PROBES[probe])


# --- predictions --------------------------------------------------------------------------------------


def test_the_known_answers_of_the_laws() -> None:
    assert predictions.outage_share(120, 300) == pytest.approx(0.4)
    assert predictions.fluid_backlog(50, 120) == 6_000
    assert predictions.fluid_drain_s(50, 120, 100) == 120
    assert predictions.fluid_drain_s(50, 120, 50) == math.inf


def test_measured_stands_beside_predicted_and_a_miss_is_seen() -> None:
    (share,) = predicted(asks(), [Law("outage-share", 0.1)], mesh="m", rate=1, capacity_per_s=None)
    assert (share.value, share.predicted, share.met) == (pytest.approx(10 / 60), pytest.approx(10 / 60), True)
    laws = [Law("backlog", 0.1), Law("drain", 0.2)]
    backlog, drain = predicted(listens(), laws, mesh="m", rate=1, capacity_per_s=2)
    assert (backlog.value, backlog.predicted, backlog.met) == (11, 10.5, True)
    assert (drain.predicted, drain.met) == (10.5, True)
    _, wrong = predicted(listens(), laws, mesh="m", rate=1, capacity_per_s=10)
    assert wrong.met is False
    _, endless = predicted(listens(), laws, mesh="m", rate=1, capacity_per_s=1)
    assert (endless.predicted, endless.met) == (None, None)


def test_curves_add_up_to_what_happened() -> None:
    drawn = curves(listens())
    assert sum(drawn.completed_per_s) * drawn.slice_s == END
    assert sum(drawn.accepted_per_s) * drawn.slice_s == END
    assert max(drawn.open) == 11
    assert sum(curves(asks()).failed_per_s) * curves(asks()).slice_s == OVER - FIRST


def test_a_wiring_in_a_sentence() -> None:
    assert sentence("m", asks(), PLAIN_WORDS, "valid") == (
        "m: 10 of 60 requests failed, 100 % of those that came meanwhile; 1 was waiting when it was over, and "
        "0.5 s later all was as before."
    )
    assert "none of 60 requests failed; 11 were waiting" in sentence("m", listens(), PLAIN_WORDS, "valid")
    assert "s later" not in sentence("m", listens(), PLAIN_WORDS, "invalid"), "a wrong run is not fast"

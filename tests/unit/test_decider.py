"""Given inputs that break a rule, then each is found and refused on record, and the others are decided (rule 16)."""

from __future__ import annotations

from typing import Any

import pytest

from eventmesh.declared import Answer, Command, Declared, Fact, Facts
from eventmesh.errors import DidNotHappen
from eventmesh.log.batch import Header, LogBatch
from eventmesh.log.topic import Topic
from eventmesh.messages import REFUSED, Columns, encode_rows
from eventmesh.runtime.decider import Decider, FoldAgain
from eventmesh.runtime.effects import AskMessage
from eventmesh.runtime.incoming import Incoming, commands
from eventmesh.runtime.limits import Counters
from eventmesh.runtime.outcome import RuleOutcome
from eventmesh.runtime.partition_state import PartitionState
from eventmesh.service import Inputs, Outcome, Place, Service, Trigger

POISON = -1


class Began(Fact, topic="sums"):
    """Something is to be added."""

    key: str
    value: int


class Added(Fact, topic="sums"):
    """It was added."""

    key: str
    value: int


class Wanted(Fact, topic="in"):
    """Another service wants this to be added."""

    key: str
    value: int


class Sum(Answer):
    """What it comes to."""

    key: str
    value: int


class Asked(Command[Sum], service="adder", key="key", public=True):
    """Add this."""

    key: str
    value: int


DECLARED = Declared(Began, Added, Wanted, Sum, Asked)
TOPIC = Topic("sums", "adder", "key", 1, DECLARED.schemas["sums"])


class Adder(Service):
    """Adds values up, and breaks on poison: before it decides anything, or in the middle of it."""

    name = "adder"

    def initial(self) -> dict[str, int]:
        return {}

    def evolve(self, state: dict[str, int], facts: Facts) -> None:
        for key, value in facts.rows("key", "value"):
            state[key] = state.get(key, 0) + value

    def together(self, state: dict[str, int], inputs: Inputs[Asked | Wanted], out: Outcome) -> None:
        """All of them at once."""
        if POISON in inputs["value"]:
            raise ValueError("poison")
        out.facts(range(len(inputs)), [Added(asked.key, asked.value) for _, asked in inputs.each()])

    def one_by_one(self, state: dict[str, int], inputs: Inputs[Asked | Wanted], out: Outcome) -> None:
        """A fact for each, and a second one that poison never gets to."""
        for row, key, value in inputs.rows("key", "value"):
            out.fact(row, Began(key, 0))
            if value == POISON:
                raise ValueError("poison")
            out.fact(row, Added(key, value))
            out.answer(row, Sum(key, state[key]))

    def odd_ones_last(self, state: dict[str, int], inputs: Inputs[Asked | Wanted], out: Outcome) -> None:
        """Hands each half of the inputs to another rule; of those two, the second half again."""
        odd = [row for row, value in enumerate(inputs["value"]) if value % 2]
        even = [row for row, value in enumerate(inputs["value"]) if not value % 2]
        self.one_by_one(state, *out.only(even))
        rest, its_out = out.only(odd)
        self.one_by_one(state, *its_out.only(range(len(rest))))

    def of_two_kinds(self, state: dict[str, int], inputs: Inputs[Asked | Wanted], out: Outcome) -> None:
        """Facts of two classes at once, in the order of the inputs."""
        kinds = [Began if value % 2 else Added for value in inputs["value"]]
        rows = range(len(inputs))
        out.facts(
            rows, [kind(key, value) for kind, key, value in zip(kinds, inputs["key"], inputs["value"], strict=True)]
        )

    def too_few_rows(self, state: dict[str, int], inputs: Inputs[Asked | Wanted], out: Outcome) -> None:
        """Does not say which input led to the second fact."""
        out.facts([0], [Added("one", 1), Added("two", 2)])


class Sums:
    """A partition of the adder, with one rule."""

    def __init__(self, rule: str) -> None:
        rules = dict.fromkeys((Asked, Wanted), getattr(Adder, rule))
        service = Adder(Place("adder", 0, {"sums": TOPIC}, None, 0, DECLARED), Trigger(rules), {})
        self.own = PartitionState(service, TOPIC, clock=lambda: 1, counters=Counters())
        self.outcome = RuleOutcome(self.own, DECLARED.messages)
        self.decider = Decider(self.own, self.outcome)

    def read(self, entry: LogBatch) -> None:
        """Decide on a batch of in/0."""
        self.own.decide_facts("in/0", entry, 0, entry.header.rows, self.decider.decide)

    def fold_again(self) -> None:
        """Nothing was appended: begin at the beginning."""
        self.own.clear()
        self.outcome.clear()

    @property
    def written(self) -> list[tuple[str, str, Any]]:
        """Type, id and value (or reason) of what waits to be appended."""
        rows = self.own.new_facts.to_batch(0).to_pylist() if self.own.new_facts else []
        return [(row["type"], row["id"], row["reason"] if row["type"] == REFUSED else row["value"]) for row in rows]


def facts_in(values: list[int]) -> LogBatch:
    rows: list[dict[str, Any]] = [
        {"id": f"in#{n}", "source": "x", "type": "Wanted", "time": 1, "dataschema": "in/1", "sequence": n,
         "correlationid": "story", "key": f"k{n}", "value": value}
        for n, value in enumerate(values)
    ]  # fmt: skip
    header = Header("facts", 0, len(rows), 1, 0, "x", "x.1", 1)
    return LogBatch.encode(header, encode_rows(TOPIC.schema, rows))


def command(values: list[int]) -> Incoming:
    rows = [{"key": f"k{n}", "value": value} for n, value in enumerate(values)]
    ids = [f"c{n}" for n in range(len(values))]
    return commands(
        "caller",
        AskMessage("ask", "Asked", ids, Columns(rows=rows), "caller"),
        range(len(values)),
        DECLARED.messages["Asked"],
    )


def test_poison_is_found_by_bisection_and_nothing_else_suffers() -> None:
    sums = Sums("together")
    sums.read(facts_in([1, 2, POISON, 4, POISON, 6, 7]))
    refused = [identity for kind, identity, _ in sums.written if kind == REFUSED]
    assert refused == ["in/0/2#0", "in/0/4#0"]
    assert sums.own.state == {"k0": 1, "k1": 2, "k3": 4, "k5": 6, "k6": 7}
    assert sums.own.progress.next == {"in/0": 7}
    positions = sums.own.new_facts.to_batch(0).column("position").to_pylist()
    assert [position for position in positions if position] == ["in/0/2", "in/0/4"]


def test_a_decision_made_half_is_thrown_away_and_the_second_time_only_poison_is_refused() -> None:
    sums, inputs = Sums("one_by_one"), facts_in([1, POISON, 3])
    with pytest.raises(FoldAgain):
        sums.read(inputs)  # in a batch: whose fault it was is not known
    sums.fold_again()
    with pytest.raises(FoldAgain):
        sums.read(inputs)  # one by one: now it is
    sums.fold_again()
    sums.read(inputs)
    assert sums.written == [
        ("Began", "in/0/0#0", 0),
        ("Added", "in/0/0#1", 1),
        (REFUSED, "in/0/1#0", "ValueError: poison"),
        ("Began", "in/0/2#0", 0),
        ("Added", "in/0/2#1", 3),
    ]
    assert sums.own.state == {"k0": 1, "k2": 3}


def test_each_of_many_inputs_decided_half_costs_one_fold_and_is_refused_until_that_is_acknowledged() -> None:
    sums, inputs, folds = Sums("one_by_one"), facts_in([POISON] * 6), 0
    while sums.own.progress.next.get("in/0") != 6:
        try:
            sums.read(inputs)
        except FoldAgain:
            sums.fold_again()
            folds += 1
    assert folds == 1 + 6, "once since it was a batch, and once for each"
    assert sums.own.release.refused == [f"in/0/{offset}" for offset in range(6)] == list(sums.decider.refused_inputs)


def test_a_command_decided_half_is_its_callers_definite_no_the_next_time() -> None:
    sums = Sums("one_by_one")
    for _ in range(2):
        with pytest.raises(FoldAgain):
            sums.decider.decide(command([1, POISON, 3]))
        sums.fold_again()
    sums.decider.decide(command([1, POISON, 3]))
    assert [kind for kind, _, _ in sums.written] == ["Began", "Added", REFUSED, "Began", "Added"]
    (error,) = [effect.reply for effect in sums.own.release.errors]
    assert (error.ask, list(error.indexes)) == ("ask", [1])
    assert isinstance(error.error, DidNotHappen)
    assert [rows for _, rows in sums.own.release.replies.values()] == [
        [{"key": "k0", "value": 1}, {"key": "k2", "value": 3}]
    ]


def test_a_part_of_the_inputs_keeps_cause_story_and_caller() -> None:
    sums = Sums("odd_ones_last")
    sums.decider.decide(command([1, 2, 3, 4]))
    assert [(kind, identity) for kind, identity, _ in sums.written] == [
        (kind, f"c{row}#{ordinal}") for row in (1, 3, 0, 2) for ordinal, kind in enumerate(("Began", "Added"))
    ]
    facts = Columns(sums.own.new_facts.to_batch(0))
    assert facts["correlationid"] == [f"k{row}" for row in (1, 1, 3, 3, 0, 0, 2, 2)]
    ((indexes, rows),) = sums.own.release.replies.values()
    assert dict(zip(indexes, rows, strict=True)) == {
        row: {"key": f"k{row}", "value": value} for row, value in enumerate([1, 2, 3, 4])
    }


def test_facts_of_several_kinds_keep_their_order_and_columns() -> None:
    sums = Sums("of_two_kinds")
    sums.decider.decide(command([1, 2, 3]))
    assert sums.written == [("Began", "c0#0", 1), ("Added", "c1#0", 2), ("Began", "c2#0", 3)]
    assert sums.own.state == {"k0": 1, "k1": 2, "k2": 3}


def test_a_fact_without_the_input_that_led_to_it_is_refused() -> None:
    sums = Sums("too_few_rows")
    sums.decider.decide(command([1]))
    said = "DoesNotFit: 2 facts for 1 rows: name the row of the input that led to each"
    assert sums.written == [(REFUSED, "c0#0", said)]


def test_what_was_refused_is_not_folded_when_it_is_read_back() -> None:
    sums = Sums("together")
    sums.read(facts_in([1, POISON]))
    header = Header("facts", 0, 2, 1, 0, "adder", "adder.1", 1, sums.own.progress.to_json())
    entry = LogBatch.encode(header, sums.own.new_facts.to_batch(0))
    again = Sums("together")
    again.own.fold(entry)
    assert (again.own.state, again.own.progress.next) == (sums.own.state, {"in/0": 2})


def test_a_refused_command_is_told_the_same_again_and_refused_on_record_once() -> None:
    sums = Sums("together")
    sums.decider.decide(command([1, POISON]))
    header = Header("facts", 0, 2, 1, 0, "adder", "adder.1", 1, {})
    entry = LogBatch.encode(header, sums.own.new_facts.to_batch(0))
    again = Sums("together")
    again.own.fold(entry)
    # The first of them is another command of the same id: the rule's business.
    again.decider.decide(command([5, POISON, 7]))
    assert [kind for kind, _, _ in again.written] == ["Added", "Added"]
    (error,) = [effect.reply for effect in again.own.release.errors]
    assert (list(error.indexes), str(error.error)) == ([1], "refused: ValueError: poison")

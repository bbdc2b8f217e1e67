"""E7: causes precede effects, each order is one story, and every story ends."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmesh.audit.evidence import ABSENT, Evidence, Facts, Integers
from eventmesh.audit.progress_checks import NOWHERE, Causes, causes
from eventmesh.audit.timer_checks import written_by_timers
from eventmesh.audit.verdict import CheckResult, Findings, Mask
from eventmesh.shop.stories import STATES, Stories, stories

#: (topic, kinds) that an order must have had before the next; the same in every wiring.
_Step = tuple[str, tuple[str, ...]]
_BEFORE: list[tuple[_Step, _Step]] = [
    (("orders", ("OrderValidated",)), ("stock", ("StockReserved", "StockShort"))),
    (("stock", ("StockReserved",)), ("orders", ("OrderReserved",))),
    (("orders", ("OrderReserved",)), ("payments", ("PaymentCaptured", "PaymentDeclined"))),
    (("payments", ("PaymentCaptured",)), ("orders", ("OrderConfirmed",))),
    (("orders", ("OrderConfirmed",)), ("shipments", ("ShipmentDispatched",))),
    (("shipments", ("ShipmentDispatched",)), ("stock", ("StockShipped",))),
    (("shipments", ("ShipmentDispatched",)), ("orders", ("OrderShipped",))),
]
_NEVER = np.iinfo(np.int64).max


def causes_first(evidence: Evidence) -> CheckResult:
    """E7: each fact names the message that caused it, which is there and not later; an order is one story."""
    findings = Findings("E7", "causes precede effects; one correlation id per order; every story ends")
    story = stories(evidence)
    for topic in evidence.topics:
        _causes_exist(evidence, topic, findings)
    for topic, order in story.order.items():
        _one_story(story, evidence.facts(topic), order, findings)
    _in_order(story, findings)
    if not evidence.history.drained:
        findings.lacks("the end of the run: it was not drained")
        return findings.result()
    endless = story.known & ~story.ended
    findings.flag_where(endless, lambda i: f"order {story.name(i)}: its story stops at {STATES[story.state[i]]}")
    return findings.result()


def _causes_exist(evidence: Evidence, topic: str, findings: Findings) -> None:
    facts, cause = evidence.facts(topic), causes(evidence, topic)
    findings.examined += len(facts)
    topic_of = cause.topic[cause.codes]
    rows = np.flatnonzero((topic_of == NOWHERE) & ~written_by_timers(facts))
    named = facts.column("causationid").take(pa.array(rows))
    unlike = _differs(named, cause.texts.take(pa.array(cause.codes[rows])))
    findings.flag_where(unlike, lambda i: f"{facts.say(rows[i])}: names {named[i]} as its cause")
    for number in np.unique(topic_of[topic_of != NOWHERE]):
        rows = np.flatnonzero(topic_of == number)
        _inputs_exist(facts, rows, evidence.facts(cause.names[number]), cause, findings)


def _differs(one: pa.Array, other: pa.Array) -> Mask:
    unlike: Mask = pc.fill_null(pc.not_equal(one, other), True).to_numpy(zero_copy_only=False)
    return unlike


def _inputs_exist(facts: Facts, rows: Integers, inputs: Facts, cause: Causes, findings: Findings) -> None:
    """The fact at the position that each of ``rows`` names must be there, have the id named, and not be later."""
    code = cause.codes[rows]
    place = inputs.at(cause.partition[code], cause.offset[code])
    found = place != ABSENT
    findings.flag_where(~found, lambda i: f"{facts.say(rows[i])}: there is no fact at {cause.texts[code[i]]}")
    rows, place = rows[found], place[found]
    named = facts.column("causationid").take(pa.array(rows))
    unlike = _differs(named, inputs.column("id").take(pa.array(place)))
    findings.flag_where(unlike, lambda i: f"{facts.say(rows[i])}: names {named[i]}, there is {inputs.say(place[i])}")
    early = facts.time[rows] < inputs.time[place]
    findings.flag_where(early, lambda i: f"{facts.say(rows[i])}: decided before its cause {inputs.say(place[i])}")


def _one_story(story: Stories, facts: Facts, order: Integers, findings: Findings) -> None:
    codes, names = facts.coded("correlationid")
    told = pc.fill_null(pc.index_in(names, value_set=story.ids), NOWHERE).to_numpy(zero_copy_only=False)
    apart = (order != ABSENT) & (np.append(told, NOWHERE)[codes] != order)
    column = facts.column("correlationid")
    findings.flag_where(
        apart, lambda i: f"{facts.say(i)}: order {story.name(order[i])}, told as story {column[i].as_py()!r}"
    )


def _in_order(story: Stories, findings: Findings) -> None:
    for (cause_topic, cause_kinds), (effect_topic, effect_kinds) in _BEFORE:
        cause = story.first_time(story.evidence.facts(cause_topic), *cause_kinds)
        effect = story.first_time(story.evidence.facts(effect_topic), *effect_kinds)
        early = (effect != _NEVER) & (cause > effect)
        missing = f"{' or '.join(effect_kinds)} before any {' or '.join(cause_kinds)}"
        findings.flag_where(early, lambda i, m=missing: f"order {story.name(i)}: {m}")  # type: ignore[misc]

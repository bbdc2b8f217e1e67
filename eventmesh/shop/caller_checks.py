"""The callers' part of E1: what was acknowledged is in the log, and what was told is what became of it.

What was told to a request is about that request: an id under which the log has something else was not its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmesh.audit.evidence import ABSENT, Facts, Integers
from eventmesh.audit.verdict import Findings, Mask
from eventmesh.errors import KEY_REUSED
from eventmesh.log.topic import partitions_for
from eventmesh.messages import REFUSED
from eventmesh.progress import position_name
from eventmesh.shop.gateway import FORGOTTEN
from eventmesh.shop.orders import ENDED
from eventmesh.shop.stories import OUTCOMES, STATES, Stories

_OUTCOMES = sorted(set(OUTCOMES.values()))
RECORDED = "recorded"  # what callers hear of a cancellation or a return that is a fact, and no more yet
NOT_DONE = "refused"  # what a caller writes down for a definite error
#: From these states nothing but the end of a cancellation follows.
_SETTLED = ("cancelling", "cancelled", "rejected", "shipped")
_APPENDS_MAX = 1 << 40  # of one partition


def callers_heard_right(story: Stories, findings: Findings) -> None:
    """What callers hold must be in the log, and be what the log says became of the order."""
    _placed(story, findings)
    _recorded(story, "RequestReturn", "ReturnRequested", findings)
    if story.stopped_by_command:
        _stopped(story, findings)
    else:
        _recorded(story, "CancelOrder", "CancellationRequested", findings)
        _cancellations_decided(story, findings)
    if story.evidence.history.drained:
        for command in ("PlaceOrder", "CancelOrder", "RequestReturn"):
            asked = story.asked(command)
            unanswered = _valid(asked, "sent_at") & ~_valid(asked, "outcome")
            findings.flag_where(unanswered, _sayer(asked, command, "its caller was left unanswered"))


def _placed(story: Stories, findings: Findings) -> None:
    """A shipped or cancelled order may have been confirmed before."""
    asked, order = story.asked("PlaceOrder"), story.orders_asked("PlaceOrder")
    known = story.moved if story.by_command else story.known
    lost = _valid(asked, "accepted_at") & ~_of(known, order)
    findings.flag_where(lost, _sayer(asked, "PlaceOrder", "acknowledged to its caller, not in the log"))
    for outcome in _OUTCOMES:
        happened = story.count_of(story.orders, f"Order{outcome.capitalize()}") > 0
        wrong = _told(asked, outcome) & ~_of(happened, order) & ~lost
        findings.flag_where(wrong, _sayer(asked, "PlaceOrder", f"its caller was told {outcome}, the log is not"))
    _no_such_answer(asked, "PlaceOrder", {*_OUTCOMES, NOT_DONE}, findings)
    taken: Mask = (story.count_of(story.requests, "OrderRequested") > 0) | story.validated
    other = _asks_otherwise(story, "PlaceOrder", "OrderRequested", findings)
    _not_done(asked, "PlaceOrder", _of(taken, order) & ~other, findings)


def _recorded(story: Stories, command: str, kind: str, findings: Findings) -> None:
    """Acknowledged means that the fact is there (E6 says that it is there once)."""
    asked, order = story.asked(command), story.orders_asked(command)
    there = _of(story.count_of(story.requests, kind) > 0, order)
    lost = _valid(asked, "accepted_at") & ~there
    findings.flag_where(lost, _sayer(asked, command, f"acknowledged to its caller, no {kind} in the log"))
    _no_such_answer(asked, command, {RECORDED, NOT_DONE}, findings)
    other = _asks_otherwise(story, command, kind, findings)
    _not_done(asked, command, there & ~other, findings)


def _stopped(story: Stories, findings: Findings) -> None:
    """Where cancellations are commands, the answer comes when the order has ended for good, and is its end."""
    asked, order = story.asked("CancelOrder"), story.orders_asked("CancelOrder")
    lost = _valid(asked, "accepted_at") & ~_of(story.moved, order)
    findings.flag_where(lost, _sayer(asked, "CancelOrder", "acknowledged to its caller, not in the log"))
    for outcome in _OUTCOMES:
        ends: Mask = np.array([state in ENDED and OUTCOMES[state] == outcome for state in STATES])
        wrong = _told(asked, outcome) & ~_of(ends[story.state], order) & ~lost
        say = _sayer(asked, "CancelOrder", f"its caller was told {outcome}, which is not its end: ")
        findings.flag_where(wrong, lambda i, s=say: s(i) + STATES[story.state[order[i]]])  # type: ignore[misc]
    _no_such_answer(asked, "CancelOrder", {*_OUTCOMES, NOT_DONE}, findings)
    _asks_otherwise(story, "CancelOrder", "CancellationRequested", findings)


def _no_such_answer(asked: pa.Table, command: str, answers: set[str], findings: Findings) -> None:
    strange = _valid(asked, "outcome") & ~pc.is_in(asked["outcome"], pa.array(sorted(answers))).to_numpy()
    say, outcomes = _sayer(asked, command, "its caller was told "), asked["outcome"]
    findings.flag_where(strange, lambda i: f"{say(i)}{outcomes[i]}, which is no answer to it")


def _not_done(asked: pa.Table, command: str, done: Mask, findings: Findings) -> None:
    """Told that nothing happened, each time that it was asked, and yet it is in the log (Jepsen's G1a)."""
    refused = _told(asked, NOT_DONE)
    otherwise = pc.is_in(asked["key"], asked["key"].filter(pa.array(~refused))).to_numpy()
    findings.flag_where(refused & ~otherwise & done, _sayer(asked, command, "its caller was told no, the log has it"))


# --- the same, or something else ----------------------------------------------------------------------


def _asks_otherwise(story: Stories, command: str, kind: str, findings: Findings) -> Mask:
    """Which requests ask for something else than the log has under their ids. They are told no, and nobody else is."""
    asked, order = story.asked(command), story.orders_asked(command)
    logged = story.contents(kind).take(pa.array(order, mask=order == ABSENT))
    other, told = _filled(pc.not_equal(asked["content"], logged)), _heard(asked)
    say, outcomes = _sayer(asked, command, "its caller was told "), asked["outcome"]
    findings.flag_where(told & other, lambda i: f"{say(i)}{outcomes[i]}, but the log has something else under this id")
    reasons = pc.fill_null(asked["reason"], "")
    reused = _filled(pc.match_substring(reasons, KEY_REUSED)) & ~_filled(pc.match_substring(reasons, FORGOTTEN))
    same = _filled(pc.equal(asked["content"], logged))
    wrong = "refused as something else under its id, but it asks for what the log has"
    findings.flag_where(_told(asked, NOT_DONE) & reused & same, _sayer(asked, command, wrong))
    _repeats_marked(asked, command, np.where(logged.is_valid(), order, ABSENT), findings)
    return other


def _repeats_marked(asked: pa.Table, command: str, order: Integers, findings: Findings) -> None:
    """Of those that ask for what the log has, one was the first: the others hear that they repeat it."""
    firsts = np.flatnonzero(_heard(asked) & ~_filled(asked["repeated"], True) & (order != ABSENT))
    again = np.zeros(len(order), bool)
    again[firsts] = ~_first_of(order[firsts])
    say, outcomes = _sayer(asked, command, "its caller was told "), asked["outcome"]
    findings.flag_where(again, lambda i: f"{say(i)}{outcomes[i]} as if nobody had asked before; it is a repeat")


def _heard(asked: pa.Table) -> Mask:
    return _valid(asked, "outcome") & ~_told(asked, NOT_DONE)


def _first_of(values: Integers) -> Mask:
    first = np.zeros(len(values), bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first


# --- what became of a cancellation -------------------------------------------------------------------


def _cancellations_decided(story: Stories, findings: Findings) -> None:
    """Once orders has read a cancellation, its order has ended or is about to: it takes no step forward."""
    facts, orders = story.requests, story.orders
    order = story.order[facts.topic.name]
    rows = np.flatnonzero(facts.of("CancellationRequested") & (order != ABSENT))
    rows = rows[~_refused(orders, facts, rows)]
    if not rows.size:
        return
    home = partitions_for(story.ids.take(pa.array(order[rows])), orders.topic.partitions)
    read = _read_at(story, rows, home)
    if not story.evidence.history.drained:
        rows, read = rows[read < _APPENDS_MAX], read[read < _APPENDS_MAX]
    step_rows, step_order, kinds, _ = story.steps
    steps = step_order * (_APPENDS_MAX + 1) + orders.append[step_rows]
    last = np.searchsorted(steps, order[rows] * (_APPENDS_MAX + 1) + read, side="right") - 1
    known = np.append(step_order, ABSENT)[last] == order[rows]
    state = np.where(known, np.append(kinds, ABSENT)[last] + 1, 0)
    open_still = ~np.isin(state, [STATES.index(name) for name in _SETTLED])
    findings.flag_where(
        open_still, lambda i: f"{facts.say(rows[i])}: orders has read it, and left the order {STATES[state[i]]}"
    )


def _refused(orders: Facts, facts: Facts, rows: Integers) -> Mask:
    """Which of ``rows`` orders has refused on record (rule 16)."""
    positions = orders.column("position").filter(pa.array(orders.of(REFUSED)))
    names = [f"{position_name(facts.topic.name, int(facts.partition[row]))}/{facts.offset[row]}" for row in rows]
    refused: Mask = pc.is_in(pa.array(names, pa.string()), positions).to_numpy(zero_copy_only=False)
    return refused


def _read_at(story: Stories, rows: Integers, home: Integers) -> Integers:
    """The append of orders, in the partition ``home``, whose vector is the first above each fact of ``rows``."""
    facts = story.requests
    read = np.full(len(rows), _APPENDS_MAX)
    for log in story.evidence.partitions("orders"):
        places = [place for place, header in enumerate(log.headers) if header.kind in ("facts", "progressed")]
        for number in np.unique(facts.partition[rows]):
            name = position_name(facts.topic.name, int(number))
            vector = np.array([log.headers[place].progress.get("next", {}).get(name, 0) for place in places], np.int64)
            here = (home == log.number) & (facts.partition[rows] == number)
            # Vectors never fall (D1); where one does, the greatest so far is what had been read.
            first = np.searchsorted(np.maximum.accumulate(vector), facts.offset[rows[here]], side="right")
            read[here] = np.append(places, _APPENDS_MAX)[first]
    return read


# --- columns -----------------------------------------------------------------------------------------


def _of(orders: Mask, order: Integers) -> Mask:
    """``orders`` has an item per order, ``order`` the order of each request; False where the log has none."""
    found: Mask = np.append(orders, False)[order]
    return found


def _valid(asked: pa.Table, column: str) -> Mask:
    valid: Mask = asked[column].is_valid().to_numpy()
    return valid


def _told(asked: pa.Table, outcome: str) -> Mask:
    return _filled(pc.equal(asked["outcome"], outcome))


def _filled(values: pa.ChunkedArray, unknown: bool = False) -> Mask:
    filled: Mask = pc.fill_null(values, unknown).to_numpy()
    return filled


def _sayer(asked: pa.Table, command: str, what: str) -> Callable[[int], str]:
    return lambda i: f"{command} {asked['key'][i]}: {what}"

"""Group D: every input was decided once, by the one incarnation that held the partition then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmesh.audit.evidence import Check, Evidence, Facts, Integers, PartitionLog
from eventmesh.audit.verdict import CheckResult, Findings, Mask
from eventmesh.log.batch import Header
from eventmesh.progress import position_name

NOWHERE = -1
_WRITERS = ("facts", "progressed")
_POSITION = r"^(?P<topic>[^/]+)/(?P<partition>\d{1,9})/(?P<offset>\d{1,18})$"


def _appends(log: PartitionLog) -> list[Header]:
    return [header for header in log.headers if header.kind in _WRITERS]


def vectors_rise(evidence: Evidence) -> CheckResult:
    """D1: neither progress nor the views' positions fall along a partition, over all its epochs."""
    findings = Findings("D1", "vectors never fall, within an epoch or across epochs")
    for log in evidence.all_partitions():
        headers = _appends(log)
        for before, header in pairwise(headers):
            for name, was, now in _falls(before.progress, header.progress):
                findings.flag(f"{log.name}@{header.base}: {name} falls from {was} to {now}")
        findings.examined += len(headers)
    return findings.result()


def _falls(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, object, object]]:
    for part in ("next", "views"):
        following = after.get(part, {})
        for name, offset in before.get(part, {}).items():
            if following.get(name, 0) < offset:
                yield f"{part} of {name}", offset, following.get(name, 0)
    if before.get("ahead", {}) != after.get("ahead", {}):
        yield from _forgotten(before, after)


def _forgotten(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, object, object]]:
    """Ranges that were done ahead and are not done any more."""
    for name, ranges in before.get("ahead", {}).items():
        following = after.get("next", {}).get(name, 0)
        kept = after.get("ahead", {}).get(name, [])
        same = {tuple(one) for one in kept}
        for low, high in ranges:
            start = max(low, following)
            if (low, high) not in same and start < high and not any(a <= start and high <= b for a, b in kept):
                yield f"what was done ahead of {name}", [low, high], kept


def vectors_stay_inside(evidence: Evidence) -> CheckResult:
    """D2: no vector names a partition that is not there, or an offset above its end."""
    findings = Findings("D2", "a vector never passes the end of the partition it names")
    ends = {log.name: log.end for log in evidence.all_partitions()}
    for log in evidence.all_partitions():
        for header in _appends(log):
            findings.examined += 1
            for name, offset in _farthest(header.progress):
                if not 0 <= offset <= ends.get(name, NOWHERE):
                    end = ends.get(name, "no such partition")
                    findings.flag(f"{log.name}@{header.base}: read {name} up to {offset}, its end is {end}")
    return findings.result()


def _farthest(progress: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    yield from progress.get("next", {}).items()
    yield from progress.get("views", {}).items()
    for name, ranges in progress.get("ahead", {}).items():
        yield name, max((high for _, high in ranges), default=0)


class Causes:
    """The input positions that facts name as their cause: one item per distinct cause of a topic's facts.

    ``topic`` is the place of the input's topic in ``names``, :data:`NOWHERE` for a cause that is no
    position of this mesh (a command, or a conversation that went on after a restart).
    """

    def __init__(self, evidence: Evidence, facts: Facts) -> None:
        self.names = list(evidence.topics)
        self.codes, self.texts = facts.causes
        parts = pc.extract_regex(self.texts, _POSITION)
        places = pc.index_in(pc.struct_field(parts, "topic"), value_set=pa.array(self.names, pa.string()))
        self.topic: Integers = pc.fill_null(places, NOWHERE).to_numpy(zero_copy_only=False).astype(np.int64)
        self.partition = self._numbers(pc.struct_field(parts, "partition"))
        self.offset = self._numbers(pc.struct_field(parts, "offset"))
        inputs, place = np.unique(np.stack([self.topic, self.partition]), axis=1, return_inverse=True)
        self.place: Integers = place.reshape(-1)
        #: The partitions named, as in vectors; ``place`` is where each cause's stands in them.
        self.places = [position_name(self.names[topic], int(number)) for topic, number in inputs.T]

    def _numbers(self, texts: pa.Array) -> Integers:
        found = pc.if_else(pa.array(self.topic != NOWHERE), texts, "0")
        numbers: Integers = found.cast(pa.int64()).to_numpy(zero_copy_only=False)
        return numbers

    def position(self, code: int) -> tuple[str, int]:
        """``topic/partition`` and offset of a cause that is a position."""
        return position_name(self.names[self.topic[code]], int(self.partition[code])), int(self.offset[code])


def causes(evidence: Evidence, topic: str) -> Causes:
    """What caused the facts of ``topic``."""
    return evidence.made(("causes", topic), lambda made_of: Causes(made_of, made_of.facts(topic)))


def decided_once(evidence: Evidence) -> CheckResult:
    """D3: no fact twice, and none about an input that its writer's vector had already passed.

    An input at or below the vector that should have become a fact and did not is the business of the
    application's own checks.
    """
    findings = Findings("D3", "every input at or below the vector was decided once")
    for topic in evidence.topics:
        facts = evidence.facts(topic)
        findings.examined += len(facts)
        _twice(facts, findings)
        for decided in _decided(evidence, topic):
            passed = decided.passed(_vectors_before(decided.log))
            decided.flag(passed, findings, "the vector before it had passed")
    return findings.result()


def _twice(facts: Facts, findings: Findings) -> None:
    ids = facts.column("id")
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    codes = ids.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    order = np.argsort(codes, kind="stable")
    again = np.zeros(len(codes), bool)
    again[order[1:]] = codes[order[1:]] == codes[order[:-1]]
    findings.flag_where(again, lambda i: f"{facts.say(i)}: a second fact of this id")


@dataclass(frozen=True)
class Decided:
    """The facts of one partition that a position caused; arrays have one item per fact."""

    log: PartitionLog
    facts: Facts
    cause: Causes
    rows: Integers  # the place of each fact among the topic's
    code: Integers  # of its cause
    append: Integers  # the place of its batch among the partition's

    def passed(self, vectors: list[Mapping[str, Any]]) -> Mask:
        """Whether the vector at the place of each fact's append has passed the input that caused it."""
        cause, code, append = self.cause, self.code, self.append
        passed: Mask = cause.offset[code] < _next_offsets(vectors, cause)[append, cause.place[code]]
        with_ahead = np.array([bool(vector.get("ahead")) for vector in vectors])
        for i in np.flatnonzero(~passed & with_ahead[append]):
            name, offset = cause.position(code[i])
            passed[i] = any(low <= offset < high for low, high in vectors[append[i]]["ahead"].get(name, ()))
        return passed

    def flag(self, mask: Mask, findings: Findings, what: str) -> None:
        """Say ``what`` of facts and their causes. One decision is one append: of its facts, only the first is told."""
        first = np.ones(self.rows.size, bool)
        first[1:] = (self.code[1:] != self.code[:-1]) | (self.append[1:] != self.append[:-1])
        texts = self.cause.texts
        findings.flag_where(mask & first, lambda i: f"{self.facts.say(self.rows[i])}: {what} {texts[self.code[i]]}")


def _decided(evidence: Evidence, topic: str) -> Iterator[Decided]:
    facts, cause = evidence.facts(topic), causes(evidence, topic)
    for log in evidence.partitions(topic):
        rows = np.flatnonzero((facts.partition == log.number) & (cause.topic[cause.codes] != NOWHERE))
        if rows.size:
            yield Decided(log, facts, cause, rows, cause.codes[rows], facts.append[rows])


def progress_rides_along(evidence: Evidence) -> CheckResult:
    """D6: the vector in an append has passed every input that its facts name as their cause (rule 1)."""
    findings = Findings("D6", "progress rides with the commit")
    for topic in evidence.topics:
        for decided in _decided(evidence, topic):
            findings.examined += decided.rows.size
            passed = decided.passed([header.progress for header in decided.log.headers])
            decided.flag(~passed, findings, "the vector in its append has not passed")
    return findings.result()


def _vectors_before(log: PartitionLog) -> list[Mapping[str, Any]]:
    """For each batch, the vector of the last append before it."""
    vectors: list[Mapping[str, Any]] = []
    current: Mapping[str, Any] = {}
    for header in log.headers:
        vectors.append(current)
        if header.kind in _WRITERS:
            current = header.progress
    return vectors


def _next_offsets(vectors: list[Mapping[str, Any]], cause: Causes) -> Integers:
    """The next offset of every input that ``cause`` names, by vector and place: shape ``(vectors, places)``."""
    places = cause.places
    following: list[Mapping[str, int]] = [vector.get("next", {}) for vector in vectors]
    offsets = [[next_offset.get(name, 0) for name in places] for next_offset in following]
    return np.array(offsets, np.int64).reshape(len(vectors), len(places))


def one_incarnation(evidence: Evidence) -> CheckResult:
    """D4: each epoch is granted once, to one incarnation, and only the newest one's holder appends."""
    findings = Findings("D4", "one incarnation per epoch, and none appends after a later grant")
    for log in evidence.all_partitions():
        holder: tuple[int, str] | None = None
        for header in log.headers:
            this = (header.epoch, header.incarnation)
            if header.kind == "granted":
                if holder is not None and header.epoch <= holder[0]:
                    findings.flag(f"{log.name}@{header.base}: epoch {header.epoch} is granted after epoch {holder[0]}")
                holder = this
            elif header.kind in _WRITERS and this != holder:
                held = "nobody" if holder is None else f"{holder[1]} at epoch {holder[0]}"
                findings.flag(f"{log.name}@{header.base}: {this[1]} appends at epoch {this[0]}, held by {held}")
            findings.examined += 1
    return findings.result()


def grants_are_followed(evidence: Evidence) -> CheckResult:
    """D5: what a holder appends first lies at the end that its grant named."""
    findings = Findings("D5", "a grant's end is where its holder's first append begins")
    for log in evidence.all_partitions():
        grants = {header.epoch: header for header in log.headers if header.kind == "granted"}
        begun: set[int] = set()
        for header in _appends(log):
            if header.epoch in begun:
                continue
            begun.add(header.epoch)
            findings.examined += 1
            grant = grants.get(header.epoch)
            if grant is None or grant.end != header.base:
                named = "has no grant" if grant is None else f"was granted with the end {grant.end}"
                findings.flag(f"{log.name}@{header.base}: the first append of epoch {header.epoch}, which {named}")
    return findings.result()


CHECKS: dict[str, Check] = {
    "D1": vectors_rise,
    "D2": vectors_stay_inside,
    "D3": decided_once,
    "D4": one_incarnation,
    "D5": grants_are_followed,
    "D6": progress_rides_along,
}

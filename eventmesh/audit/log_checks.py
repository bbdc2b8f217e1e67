"""Group A: what every partition of any mesh must look like, whoever wrote it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from eventmesh.audit.evidence import Check, Evidence, PartitionLog
from eventmesh.audit.verdict import CheckResult, Findings
from eventmesh.log.partition import BEFORE_FIRST
from eventmesh.log.topic import partitions_for


def offsets_rise(evidence: Evidence) -> CheckResult:
    """A1: each batch begins at or above the end of the one before, and its rows carry its offsets."""
    findings = Findings("A1", "offsets strictly increase, in batches and in rows")
    for log in evidence.all_partitions():
        for before, header in pairwise(log.headers):
            if header.base < before.end:
                findings.flag(f"{log.name}: a batch at {header.base} follows one that ends at {before.end}")
        findings.examined += len(log.headers)
    for topic in evidence.topics:
        facts = evidence.facts(topic)
        expected = facts.base + _place_in_batch(facts.base, facts.partition)
        findings.flag_where(facts.offset != expected, lambda i, f=facts, e=expected: f"{f.say(i)}: stored at {e[i]}")  # type: ignore[misc]
    return findings.result()


def _place_in_batch(base: np.ndarray, partition: np.ndarray) -> np.ndarray:
    rows = np.arange(len(base))
    first = np.ones(len(base), bool)
    first[1:] = (base[1:] != base[:-1]) | (partition[1:] != partition[:-1])
    return rows - np.maximum.accumulate(np.where(first, rows, 0))


def dense(evidence: Evidence) -> CheckResult:
    """A2: no offset is missing between the start and the end, unless a truncated record names the gap."""
    findings = Findings("A2", "dense: every gap is explained by a record of it")
    for log in evidence.all_partitions():
        end = log.start
        for place, header in enumerate(log.headers):
            gap = log.gaps.get(place, (header.base, header.base))
            if gap[1] != header.base or gap[0] != end:
                findings.flag(f"{log.name}: offsets from {end} to {header.base} are missing ({header.kind} record)")
            end = max(end, header.end)
        if end != log.end:
            findings.flag(f"{log.name}: offsets from {end} to the end {log.end} are missing")
        findings.examined += len(log.headers)
    return findings.result()


def checksums(evidence: Evidence) -> CheckResult:
    """A3: every stored batch below the watermark matches its checksum."""
    findings = Findings("A3", "checksums hold")
    for found in evidence.reader.verify():
        findings.examined += found.batches
        if found.damage is not None:
            findings.flag(f"{found.topic}/{found.partition}: {found.damage}")
    return findings.result()


def epochs_rise(evidence: Evidence) -> CheckResult:
    """A4: epochs never fall along the offsets."""
    findings = Findings("A4", "epochs never fall along offsets")
    for log in evidence.all_partitions():
        for before, header in pairwise(log.headers):
            if header.epoch < before.epoch:
                findings.flag(f"{log.name}@{header.base}: epoch {header.epoch} follows epoch {before.epoch}")
        findings.examined += len(log.headers)
    return findings.result()


def appends_counted(evidence: Evidence) -> CheckResult:
    """A5: within an epoch the writer's appends count from 0, without a gap or a repeat.

    Of the epoch in whose middle retention left the log's start, the first append that is left may have any number.
    """
    findings = Findings("A5", "per epoch, appends are numbered without gap or repeat")
    for log in evidence.all_partitions():
        _count_appends(log, findings)
    return findings.result()


def _count_appends(log: PartitionLog, findings: Findings) -> None:
    next_number: dict[int, int] = {}
    for header in log.headers:
        if header.kind == "granted":
            next_number.setdefault(header.epoch, BEFORE_FIRST + 1)
        if header.kind not in ("facts", "progressed"):
            continue
        expected = next_number.get(header.epoch, header.append if log.start else BEFORE_FIRST + 1)
        if header.append != expected:
            findings.flag(f"{log.name}@{header.base}: append {header.append} of epoch {header.epoch}, not {expected}")
        next_number[header.epoch] = header.append + 1
        findings.examined += 1


def keys_in_place(evidence: Evidence) -> CheckResult:
    """A6: a record with a key lies in the partition that Kafka's hash gives the key."""
    findings = Findings("A6", "keyed records lie in the partition their key says")
    for name, topic in evidence.topics.items():
        facts = evidence.facts(name)
        for column in ("partitionkey", topic.key):
            codes, keys = facts.coded(column)
            home = np.append(partitions_for(keys, topic.partitions), -1)[codes]
            wrong = (codes >= 0) & (home != facts.partition)
            findings.flag_where(wrong, lambda i, f=facts, h=home: f"{f.say(i)}: belongs to partition {h[i]}")  # type: ignore[misc]
        findings.examined += len(facts)
    return findings.result()


def start_moved_with_reason(evidence: Evidence) -> CheckResult:
    """A7: without retention a partition starts at 0; one look at a log cannot show how its start moved."""
    findings = Findings("A7", "the log start is 0 unless retention moved it")
    for log in evidence.all_partitions():
        settings = log.topic.settings
        limited = settings.retention_ms >= 0 or settings.retention_bytes >= 0
        if log.start < 0 or (log.start and not limited):
            findings.flag(f"{log.name}: starts at {log.start}, and nothing may be removed from it")
        findings.examined += 1
    return findings.result()


def versions_rise(evidence: Evidence) -> CheckResult:
    """A8: the version of a topic's columns never falls along offsets, and each fact names the one it is written in."""
    findings = Findings("A8", "versions of columns never fall along offsets, and each fact names its own")
    for log in evidence.all_partitions():
        for before, header in pairwise(log.headers):
            if header.version < before.version:
                findings.flag(f"{log.name}@{header.base}: version {header.version} follows version {before.version}")
        findings.examined += len(log.headers)
    for topic in evidence.topics:
        facts = evidence.facts(topic)
        codes, names = facts.coded("dataschema")
        places = {name: place for place, name in enumerate(names.to_pylist())}
        versions, batch = np.unique(facts.version, return_inverse=True)
        expected = np.array([places.get(f"{topic}/{version}", len(places)) for version in versions], np.int64)[batch]
        findings.flag_where(
            codes != expected, lambda i, f=facts: f"{f.say(i)}: it is in version {f.version[i]}, and says otherwise"  # type: ignore[misc]
        )  # fmt: skip
    return findings.result()


CHECKS: dict[str, Check] = {
    "A1": offsets_rise,
    "A2": dense,
    "A3": checksums,
    "A4": epochs_rise,
    "A5": appends_counted,
    "A6": keys_in_place,
    "A7": start_moved_with_reason,
    "A8": versions_rise,
}

"""What holds in any mesh whatever its business: one writer per topic (E5), views equal to their folds (E8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from eventmesh.audit.evidence import Check, Evidence, table_name
from eventmesh.audit.verdict import CheckResult, Findings
from eventmesh.history import ViewDump
from eventmesh.progress import split_position

Shape = Any  # what an application says of a view: key, columns, types. Of the views' own code nothing is used here
Rows = dict[tuple[str, str], tuple[Any, ...]]  # (topic, key) -> (version, *values)


def single_writer(evidence: Evidence) -> CheckResult:
    """E5: every fact is by its topic's owner, at one incarnation per epoch."""
    findings = Findings("E5", "every fact by its topic's owner, at one epoch at a time")
    for log in evidence.all_partitions():
        owner, incarnations = log.topic.owner, dict[int, str]()
        for header in log.headers:
            if header.writer != owner:
                findings.flag(f"{log.name}@{header.base}: {header.writer} wrote what belongs to {owner}")
            known = incarnations.setdefault(header.epoch, header.incarnation)
            if known != header.incarnation:
                findings.flag(f"{log.name}@{header.base}: {known} and {header.incarnation} in one epoch {header.epoch}")
    for name, topic in evidence.topics.items():
        facts = evidence.facts(name)
        findings.examined += len(facts)
        codes, sources = facts.coded("source")
        foreign = np.array([source != topic.owner for source in sources.to_pylist()], bool)
        findings.flag_where(foreign[codes], lambda i, f=facts, o=topic.owner: f"{f.say(i)}: the source is not {o}")  # type: ignore[misc]
    return findings.result()


def views_equal_folds(evidence: Evidence) -> CheckResult:
    """E8: each view equals an independent fold of its topics at the positions it names."""
    findings = Findings("E8", "each view equals an independent fold (SQL) at the positions it names")
    shapes = evidence.mesh.application.VIEWS
    for lacking in _not_dumped(evidence):
        findings.lacks(lacking)
    for dump in evidence.history.views:
        topics = evidence.mesh.services[dump.service].views.get(dump.view, [])
        shape = shapes[dump.view]
        expected: Rows = {}
        for topic in topics:
            expected |= _fold(evidence, topic, shape, dump.next)
        _compare(dump, shape, expected, findings)
    return findings.result()


def _not_dumped(evidence: Evidence) -> Iterator[str]:
    dumped = {(dump.service, dump.view) for dump in evidence.history.views}
    for name, service in evidence.mesh.services.items():
        for view in service.views:
            if (name, view) not in dumped:
                yield f"the view {view} of {name} as it stood at the end"


def _fold(evidence: Evidence, topic: str, shape: Shape, next_offsets: Mapping[str, int]) -> Rows:
    """The last fact of each key below the view's positions, by SQL."""
    limits = {split_position(name): offset for name, offset in next_offsets.items()}
    below = [(number, offset) for (name, number), offset in limits.items() if name == topic and offset > 0]
    if not below:
        return {}
    where = " OR ".join(f'(partition = {number} AND "offset" < {offset})' for number, offset in below)
    columns = ", ".join(f'"{name}"' for name in shape.columns)
    types = f"AND type IN ({', '.join(repr(kind) for kind in shape.types)})" if shape.types else ""
    query = f"""
        SELECT "{shape.key}", "offset", {columns} FROM {table_name(topic)}
        WHERE "{shape.key}" IS NOT NULL AND ({where}) {types}
        QUALIFY row_number() OVER (PARTITION BY "{shape.key}" ORDER BY "offset" DESC) = 1"""
    return {(topic, key): tuple(value) for key, *value in evidence.sql.execute(query).fetchall()}


def _compare(dump: ViewDump, shape: Shape, expected: Rows, findings: Findings) -> None:
    held: Rows = {
        (row["topic"], row["key"]): (row["version"], *(row[name] for name in shape.columns)) for row in dump.rows
    }
    findings.examined += max(len(expected), len(held))
    if held == expected:
        return
    for topic, key in sorted(expected.keys() | held.keys()):
        found, wanted = held.get((topic, key)), expected.get((topic, key))
        if found != wanted:
            where = f"{dump.service}/{dump.instance} {dump.view}, {key} of {topic}"
            findings.flag(f"{where}: the view has {found}, the log says {wanted}")


CHECKS: dict[str, Check] = {"E5": single_writer, "E8": views_equal_folds}

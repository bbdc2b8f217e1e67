"""D10: a state is the fold of its own facts and nothing else, however they are cut into batches."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from eventmesh.audit.evidence import Check, Evidence, PartitionLog
from eventmesh.audit.verdict import CheckResult, Findings
from eventmesh.declared import Facts
from eventmesh.history import StateDump
from eventmesh.messages import OWN_FACTS, Columns
from eventmesh.states import digest

#: So many facts of each partition are folded one by one as well: it takes some 30 us each.
ONE_BY_ONE_MAX = 200


def states_equal_folds(evidence: Evidence) -> CheckResult:
    """D10: the state of each partition at rest equals the fold of its facts, all at once and one by one."""
    findings = Findings("D10", "a live state equals the fold of its facts, whole and row by row")
    for dump in evidence.history.states:
        topic = evidence.mesh.topic_of(dump.service)
        log = evidence.partitions(topic)[dump.partition]
        name = f"the state of {dump.service} in {log.name}"
        facts = list(_facts(log, dump.end))
        findings.examined += sum(each.num_rows for each in facts)
        try:
            whole = _folded(evidence, dump, facts)
            together = pa.Table.from_batches(facts, log.topic.schema).slice(0, ONE_BY_ONE_MAX).combine_chunks()
            alone = together.to_batches(max_chunksize=1)
            some, same = (_folded(evidence, dump, each) for each in (together.to_batches(), alone))
        except Exception as defect:  # whatever evolve makes of its own facts
            findings.flag(f"{name}: its facts cannot be folded: {type(defect).__name__}: {defect}")
            continue
        if some != same:
            findings.flag(f"{name}: its first {len(alone)} facts fold to one state all at once, to another one by one")
        elif whole != dump.digest:
            findings.flag(f"{name}: it is not what its facts below offset {dump.end} fold to")
    return findings.result()


def _facts(log: PartitionLog, end: int) -> Iterable[pa.RecordBatch]:
    """What ``evolve`` is given, below an offset."""
    for piece in log.facts:
        own = pc.is_in(piece.column("type"), pa.array(sorted(OWN_FACTS)))
        folded = pc.and_(pc.less(piece.column("sequence"), end), pc.invert(own))
        facts = piece.filter(folded)
        if facts.num_rows:
            yield facts


def _folded(evidence: Evidence, dump: StateDump, batches: Iterable[pa.RecordBatch]) -> str:
    service = evidence.mesh.folding(dump.service, dump.partition)
    state = service.initial()
    for batch in batches:
        service.evolve(state, Facts.of(Columns(batch), service.place.declared))
    return digest(state)


CHECKS: dict[str, Check] = {"D10": states_equal_folds}

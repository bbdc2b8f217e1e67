"""D10: a state is the fold of its own facts and nothing else, however they are cut into batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

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

Fold = Callable[[pa.Table], str]


def states_equal_folds(evidence: Evidence) -> CheckResult:
    """D10: the state of each partition at rest equals the fold of its facts, all at once and one by one."""
    findings = Findings("D10", "a live state equals the fold of its facts, whole and row by row")
    for dump in evidence.history.states:
        log = evidence.partitions(evidence.mesh.topic_of(dump.service))[dump.partition]
        facts = list(_facts(log, dump.end))
        findings.examined += sum(each.num_rows for each in facts)
        try:
            wrong = _Folding(evidence, dump, log).wrong(facts)
        except Exception as defect:  # whatever evolve makes of its own facts
            wrong = f"its facts cannot be folded: {type(defect).__name__}: {defect}"
        if wrong:
            findings.flag(f"the state of {dump.service} in {log.name}: {wrong}")
    return findings.result()


def _facts(log: PartitionLog, end: int) -> Iterable[pa.RecordBatch]:
    """What ``evolve`` is given, below an offset."""
    for piece in log.facts:
        own = pc.is_in(piece.column("type"), pa.array(sorted(OWN_FACTS)))
        folded = pc.and_(pc.less(piece.column("sequence"), end), pc.invert(own))
        facts = piece.filter(folded)
        if facts.num_rows:
            yield facts


@dataclass(frozen=True)
class _Folding:
    """Folds the facts of one partition again."""

    evidence: Evidence
    dump: StateDump
    log: PartitionLog

    def wrong(self, facts: list[pa.RecordBatch]) -> str:
        """What is wrong with the state, or with how it is folded; empty if nothing is."""
        some = pa.Table.from_batches(facts, self.log.topic.schema).slice(0, ONE_BY_ONE_MAX).combine_chunks()
        if self._at_once(some) != self._one_by_one(some):
            if self._at_once(some) != self._at_once(some):
                return self._by_chance(some)
            apart = f"its first {some.num_rows} facts fold to one state all at once, to another one by one"
            return f"{apart}{self._from(some, self._at_once, self._one_by_one)}"
        whole = self._folded(facts)
        if whole == self.dump.digest:
            return ""
        if whole != self._folded(facts):
            return self._by_chance(some)
        return f"it is not what its facts below offset {self.dump.end} fold to"

    def _by_chance(self, some: pa.Table) -> str:
        said = "its facts fold to another state each time: evolve throws dice, looks at a clock, or keeps something"
        return f"{said}{self._from(some, self._at_once, self._at_once)}"

    def _from(self, facts: pa.Table, one: Fold, other: Fold) -> str:
        """Which fact is the first that two ways of folding differ by; empty where it is none of these."""
        for count in range(1, facts.num_rows + 1):
            first = facts.slice(0, count)
            if one(first) != other(first):
                kind, offset = (facts[name][count - 1].as_py() for name in ("type", "sequence"))
                return f", from the {kind} at offset {offset} on"
        return ""

    def _at_once(self, facts: pa.Table) -> str:
        return self._folded(facts.to_batches())

    def _one_by_one(self, facts: pa.Table) -> str:
        return self._folded(facts.to_batches(max_chunksize=1))

    def _folded(self, batches: Iterable[pa.RecordBatch]) -> str:
        service = self.evidence.mesh.folding(self.dump.service, self.dump.partition)
        state = service.initial()
        for batch in batches:
            service.evolve(state, Facts.of(Columns(batch), service.place.declared))
        return digest(state)


CHECKS: dict[str, Check] = {"D10": states_equal_folds}

"""Calls the rules of one partition. An input that breaks its rule is found, and refused on record (rule 16). No I/O.

A rule that broke before it did anything is called again with each half of its inputs, and so on, until the one input
that breaks it stands alone. Where it broke in the middle of a decision, nothing decided ahead of the log can be kept:
all is folded again, and then decided one input at a time.
"""

from __future__ import annotations

from eventmesh.errors import KeyReused
from eventmesh.runtime.incoming import Incoming
from eventmesh.runtime.outcome import RuleOutcome
from eventmesh.runtime.partition_state import PartitionState

#: Inputs decided one by one after a rule broke in the middle of several.
CAREFUL_ROWS = 4_000
#: So many characters of a broken rule's error are kept on record.
REASON_MAX = 2_000


class FoldAgain(Exception):
    """Half a decision was folded when a rule broke: nothing ahead of the log can be kept."""


class Decider:
    """Decides on what comes in, by the rules of the service that ``own`` is the state of.

    ``refused_inputs``: by cause, why an input must not be decided again. It was decided half, or makes a batch that
    the log does not take. Each stays, whatever is folded again, until its refusal is acknowledged: another input that
    is decided half before that takes the refusal with it.
    """

    def __init__(self, own: PartitionState, outcome: RuleOutcome) -> None:
        self.own, self.outcome = own, outcome
        self.refused_inputs: dict[str, str] = {}
        self._careful_rows = 0

    def decide(self, incoming: Incoming) -> None:
        """Call the rule; inputs that break it become facts, and the others are decided."""
        incoming = self.own.not_refused(incoming)
        if not len(incoming):
            return
        if self.own.first_cause is None:
            self.own.first_cause = incoming.cause(0)
        if self._careful_rows > 0 or self.refused_inputs:
            for row in range(len(incoming)):
                self._decide_carefully(incoming.part(row, row + 1))
        else:
            self._decide(incoming)

    def _decide_carefully(self, one: Incoming) -> None:
        self._careful_rows -= 1
        if not self.refused_again(one, 0):
            self._decide(one)

    def _decide(self, incoming: Incoming) -> None:
        service, outcome = self.own.service, self.outcome
        outcome.begin(incoming)
        before = outcome.done
        try:
            service.rules[incoming.inputs.kind](service, self.own.state, incoming.inputs, outcome)
        except Exception as defect:
            self._isolate(incoming, defect, half_done=outcome.done != before)

    def _isolate(self, incoming: Incoming, defect: Exception, *, half_done: bool) -> None:
        """Find the inputs that break the rule by bisection; nothing of a decision made half may stay."""
        if len(incoming) > 1 and half_done:
            self._careful_rows = CAREFUL_ROWS
            raise FoldAgain from defect
        if len(incoming) > 1:
            middle = len(incoming) // 2
            self._decide(incoming.part(0, middle))
            self._decide(incoming.part(middle, len(incoming)))
            return
        if half_done:
            self.discard(incoming.cause(0), defect)
        self.own.refuse_input(incoming, 0, describe(defect))

    def discard(self, cause: str, defect: Exception) -> None:
        """An input decided half: when it comes again it is refused. Raises :class:`FoldAgain`."""
        self.refused_inputs[cause] = describe(defect)
        raise FoldAgain from defect

    def refused_again(self, incoming: Incoming, row: int) -> bool:
        """Whether this input was decided half before: it is refused, then."""
        cause = incoming.cause(row)
        reason = self.refused_inputs.get(cause)
        if reason is None:
            return False
        self.own.refuse_input(incoming, row, reason)
        self.own.release.refused.append(cause)
        return True


def describe(defect: Exception) -> str:
    """A broken rule's error, for the record: a text that the log takes, whatever the rule has put into it."""
    said = str(defect) if isinstance(defect, KeyReused) else f"{type(defect).__name__}: {defect}"
    said = said.encode(errors="backslashreplace").decode()
    return said if len(said) <= REASON_MAX else f"{said[:REASON_MAX]}..."

"""What must be true of meals, whatever died."""

from __future__ import annotations

from collections import Counter

from eventmesh.audit.evidence import Evidence
from eventmesh.audit.verdict import CheckResult, Findings


def _of(evidence: Evidence, topic: str, kind: str) -> Counter[str]:
    facts = evidence.facts(topic)
    return Counter(facts.column("order_id").filter(facts.of(kind)).to_pylist())


def meals_end_once(evidence: Evidence) -> CheckResult:
    """M1: a meal that was ordered is delivered or has failed, once."""
    findings = Findings("M1", "each meal has one end")
    ends = _of(evidence, "meals", "MealDelivered") + _of(evidence, "meals", "MealFailed")
    for order_id in _of(evidence, "meals", "MealOrdered"):
        findings.examined += 1
        if ends[order_id] != 1:
            findings.flag(f"{order_id} has {ends[order_id]} ends")
    return findings.result()


def what_is_delivered_is_paid(evidence: Evidence) -> CheckResult:
    """M2: a delivered meal has one courier, one dish and two charges; a failed one none, and the money back."""
    findings = Findings("M2", "what is delivered was paid, cooked and brought once; what failed was refunded")
    couriers, dishes = _of(evidence, "rides", "CourierAssigned"), _of(evidence, "dishes", "DishCooked")
    charged, refunded = _of(evidence, "charges", "Charged"), _of(evidence, "charges", "Refunded")
    for kind, expected in (("MealDelivered", (1, 1, 2, 0)), ("MealFailed", (0, 0, None, 1))):
        for order_id in _of(evidence, "meals", kind):
            findings.examined += 1
            found = (couriers[order_id], dishes[order_id], charged[order_id], refunded[order_id])
            if any(want is not None and want != have for want, have in zip(expected, found, strict=True)):
                findings.flag(f"{order_id} {kind}: couriers, dishes, charges and refunds are {found}")
    return findings.result()


CHECKS = {"M1": meals_end_once, "M2": what_is_delivered_is_paid}

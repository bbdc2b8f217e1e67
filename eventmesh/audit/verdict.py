"""What a check says: valid, invalid, or unknown because something needed was missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Verdict = Literal["valid", "invalid", "unknown"]
Mask = npt.NDArray[np.bool_]
EXAMPLES_MAX = 5


@dataclass(frozen=True)
class CheckResult:
    """One check's verdict. ``examined`` counts what was looked at; ``examples`` say what was found, and where.

    Where the verdict is unknown, the examples say what was missing; where nothing had to be examined, why.
    """

    id: str
    title: str
    verdict: Verdict
    examined: int
    violations: int
    examples: list[str]


@dataclass(frozen=True)
class Audit:
    """The verdicts of all checks, by id, and what follows for the run."""

    checks: Mapping[str, CheckResult]

    @property
    def verdict(self) -> Verdict:
        """Invalid if any check is, else unknown if any is."""
        verdicts = {check.verdict for check in self.checks.values()}
        return "invalid" if "invalid" in verdicts else "unknown" if "unknown" in verdicts else "valid"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types: the ``audit`` part of ``run.json``, with title and examples besides."""
        return {"verdict": self.verdict, "checks": {name: asdict(check) for name, check in self.checks.items()}}

    def describe(self) -> str:
        """Every check that is not valid, in words; one line if all are."""
        lines = [f"audit: {self.verdict}"]
        for check in self.checks.values():
            if check.verdict != "valid":
                lines.append(f"{check.id} {check.verdict}: {check.title}: {check.violations} of {check.examined}")
                lines += [f"    {example}" for example in check.examples]
        return "\n".join(lines)


@dataclass
class Findings:
    """What one check has found so far."""

    id: str
    title: str
    examined: int = 0
    violations: int = 0
    examples: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    nothing: str = ""

    def flag(self, example: str) -> None:
        """One violation."""
        self.violations += 1
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(example)

    def flag_where(self, violated: Mask, say: Callable[[int], str]) -> None:
        """One violation for every true item; ``say`` puts the i-th into words."""
        count = int(np.count_nonzero(violated))
        if not count:
            return
        self.violations += count
        wanted = EXAMPLES_MAX - len(self.examples)
        self.examples += [say(int(i)) for i in np.flatnonzero(violated)[: max(0, wanted)]]

    def lacks(self, what: str) -> None:
        """Something needed is missing: unless a violation is found, nothing can be said."""
        self.missing.append(what)

    def has_none(self, why: str) -> None:
        """There is rightly nothing to examine, since ``why``: the check is valid for want of it."""
        self.nothing = f"nothing to examine: {why}"

    def result(self) -> CheckResult:
        """The verdict."""
        verdict: Verdict = "invalid" if self.violations else "unknown" if self.missing else "valid"
        examples = self.examples if self.violations else [f"missing: {what}" for what in self.missing[:EXAMPLES_MAX]]
        if verdict == "valid" and self.nothing:
            examples = [self.nothing]
        return CheckResult(self.id, self.title, verdict, self.examined, self.violations, examples)


def unknown(id: str, title: str, missing: Iterable[str]) -> CheckResult:
    """A check that could not be carried out."""
    findings = Findings(id, title, missing=list(missing))
    return findings.result()

"""What must hold of the business, looked up in the log after every run, however it went.

A check takes the evidence of a run and returns what it found. One that has examined nothing says nothing: the run is
*unknown* then.
"""

from __future__ import annotations

from eventmesh.audit.evidence import Evidence
from eventmesh.audit.verdict import CheckResult, Findings

#: ``evidence.sql`` has a table for each topic; beside its columns each fact has its type, id, time and so on.
OVERBOOKED = """
SELECT day,
       coalesce(sum(hours) FILTER (type = 'DayOpened'), 0) AS opened,
       coalesce(sum(hours) FILTER (type = 'HoursBooked'), 0) AS booked
FROM hours GROUP BY day HAVING booked > opened ORDER BY day
"""


def no_day_is_overbooked(evidence: Evidence) -> CheckResult:
    """R1: no day has more hours booked than it was opened with."""
    findings = Findings("R1", "no day has more hours booked than it was opened with")
    findings.examined = len(evidence.facts("hours"))
    for day, opened, booked in evidence.sql.execute(OVERBOOKED).fetchall():
        findings.flag(f"{day}: {booked} hours are booked, and it was opened with {opened}")
    return findings.result()


CHECKS = {"R1": no_day_is_overbooked}

"""What a run did not measure, told from what it did: nobody should take its conclusions further than they go."""

from __future__ import annotations

from collections.abc import Iterable

from eventmesh.report import sentences
from eventmesh.report.conclusions import Conclusions, Holds
from eventmesh.report.record import Run
from eventmesh.report.ways import LOAD, axes_label, load, way_of
from eventmesh.report.wording import listed, number

_AXES = {
    "rtt_ms": ("delays between services", " ms"), "joined_services": ("numbers of joined services", ""),
    "instances": ("instances per service", ""), "table_rows": ("rows per table", ""),
    "updates_per_s": ("updates/s", ""),
}  # fmt: skip


def unmeasured(run: Run, found: Conclusions) -> list[str]:
    """Each in a few words; empty of a run without points."""
    if not run.points:
        return []
    told = [
        f"{what} other than {listed([number(value) for value in values])}{unit}" for what, values, unit in _axes(run)
    ]
    told += [f"loads other than {_numbers(load(point) for point in run.points)} {run.words.requests}/s"]
    told += _absent(run)
    told += [] if run.faults else ["failures of any kind"]
    machines = "speed, CPU and memory of any machine" if run.virtual else "several machines: everything shared this one"
    told.append(machines)
    if not run.virtual and all(each.machine is None for point in run.points for each in point.samples):
        told.append("what other programs did meanwhile: this system does not tell")
    return [*told, *_unknown(found)]


def _axes(run: Run) -> list[tuple[str, list[float], str]]:
    found: dict[str, set[float]] = {}
    for point in run.points:
        for name in point.axis.keys() - {LOAD}:
            found.setdefault(name, set()).add(point.axis[name])
    words = {name: _AXES.get(name, (name.replace("_", " "), "")) for name in sorted(found)}
    return [(what, sorted(found[name]), unit) for name, (what, unit) in words.items()]


def _absent(run: Run) -> list[str]:
    ways, words = {way_of(point) for point in run.points}, run.words
    if any(way.mesh for way in ways):
        return [f"any other {words.requests} than those that seed {run.seed} gives"]
    wirings = [name for name in words.wirings if name not in {way.wiring for way in ways}]
    joins = [text for name, text in words.joins.items() if name not in {way.join for way in ways} and name != "none"]
    told = [f"the wiring{'s' if len(wirings) > 1 else ''} {listed(wirings)}"] if wirings else []
    return told + ([f"joins by {listed(joins)}"] if joins else [])


def _unknown(found: Conclusions) -> list[str]:
    """Capacities that the run looked for and did not find."""
    return [
        f"how much {way.label} holds{f' with {axes_label(axis)}' if axis else ''}: {sentences.why(each, found.words)}"
        for (axis, way), each in found.capacities.items()
        if not isinstance(each, Holds)
    ]


def _numbers(values: Iterable[float]) -> str:
    return listed([number(value) for value in sorted(set(values))])

"""Reports of a failure experiment, rendered from ``run.json``: a page that opens off-line, a summary, JUnit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite

from eventmesh.report import chaos_journal, experiment_plot, targets
from eventmesh.report.probes import PROBES
from eventmesh.report.record import ExperimentRecord, FaultRecord, ProbeRecord, Run, WiringRecord
from eventmesh.report.report import audit_suite, templates
from eventmesh.report.wording import capital, number, percent

_STYLES = {True: "yes", False: "no", None: "unknown"}


@dataclass(frozen=True)
class Cell:
    """What a probe said in one stretch, and whether that is good."""

    text: str
    style: str


@dataclass(frozen=True)
class Row:
    """A probe in all stretches; a cell is empty where it was not asked."""

    name: str
    tolerance: str
    cells: list[Cell]


def write(folder: Path, run: Run, *, end: datetime) -> None:
    """Write ``journal.json``, ``report.html``, ``summary.md`` and ``junit.xml`` of what ended at ``end``."""
    chaos_journal.write(folder, run, end=end)
    for name, text in {"report.html": render(run), "summary.md": summary(run), "junit.xml": junit(run)}.items():
        (folder / name).write_text(text, encoding="utf-8")


def render(run: Run) -> str:
    """The whole report as one self-contained page of HTML."""
    return templates().get_template("experiment.html.jinja").render(_content(run))


def summary(run: Run) -> str:
    """The same answer, in the same order, as Markdown that fits a pull request."""
    return templates().get_template("experiment.md.jinja").render(_content(run))


def junit(run: Run) -> str:
    """JUnit XML: a suite per mesh with a case per probe and stretch, and one per audit.

    A tolerance that was not kept is a failure; where nobody can say it is an error.
    """
    document = JUnitXml(run.name)
    for each in _experiment(run).wirings:
        suite = TestSuite(f"{run.name}: {each.mesh}")
        for part in each.stretches:
            for probe in part.probes:
                case = TestCase(f"{part.stretch}: {probe.name}", suite.name)
                said = f"{output_text(probe)}, tolerance {_tolerance(probe)}"
                if each.deviated is None or probe.met is None:
                    case.result = [Error("; ".join(each.unknown) or f"no data: {said}")]
                elif not probe.met:
                    case.result = [Failure(said)]
                suite.add_testcase(case)
        document.add_testsuite(suite)
        if each.audit is not None:
            document.add_testsuite(audit_suite(f"{run.name}: audit of {each.mesh}", each.audit))
    document.update_statistics()  # type: ignore[no-untyped-call]
    return str(document.tostring().decode())  # type: ignore[no-untyped-call]


def outcome(run: Run) -> str:
    """What became of the hypothesis, in words."""
    wirings = _experiment(run).wirings
    if run.verdict == "invalid":
        return "the audit is not as expected"
    if run.verdict == "unknown" or any(each.deviated is None for each in wirings):
        return "the hypothesis cannot be judged"
    missed = [each.mesh for each in wirings if each.deviated]
    if not missed:
        return "the hypothesis held"
    return "the hypothesis did not hold" + (f" of {', '.join(missed)}" if len(wirings) > 1 else "")


def output_text(probe: ProbeRecord) -> str:
    """``24.9 %``, ``0.4 s``, ``valid``."""
    if probe.output is None:
        return "no data"
    if isinstance(probe.output, str):
        return probe.output
    if probe.probe.endswith("-share"):
        share = probe.output
        return f"{number(share * 100)} %" if 0 < share < 1 else percent(share)
    unit = PROBES[probe.probe].unit if probe.probe in PROBES else ""
    return f"{number(probe.output)}{'' if unit in ('', '1/s') else ' ' + unit}"


def _tolerance(probe: ProbeRecord) -> str:
    if isinstance(probe.tolerance, tuple):
        return " to ".join(number(each) for each in probe.tolerance)
    return probe.tolerance or ""


def _rows(wiring: WiringRecord) -> list[Row]:
    """A line for each probe of the hypothesis, in the order of the file."""
    names = dict.fromkeys((probe.name, _tolerance(probe)) for part in wiring.stretches for probe in part.probes)
    return [
        Row(
            name, tolerance,
            [
                next((_cell(probe) for probe in part.probes if probe.name == name), Cell("", ""))
                for part in wiring.stretches
            ],
        )
        for name, tolerance in names
    ]  # fmt: skip


def _cell(probe: ProbeRecord) -> Cell:
    return Cell(output_text(probe), _STYLES[probe.met])


def _told(fault: FaultRecord) -> str:
    """A fault as it stands in the file: ``end, process inventory/0, lasts_s 30``."""
    planned = dict(fault.planned.get("fault", {}))
    kind = planned.pop("kind", "")
    return ", ".join([kind, *(f"{key} {_plain(value)}" for key, value in planned.items() if value not in (None, []))])


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    return ", ".join(_plain(each) for each in value) if isinstance(value, list | tuple) else str(value)


def _experiment(run: Run) -> ExperimentRecord:
    assert run.experiment is not None
    return run.experiment


def _where(run: Run) -> str:
    mesh_up = _experiment(run).mesh_up
    return f"--runtime {run.runtime}" if mesh_up is None else f"--name {mesh_up}"


def _content(run: Run) -> dict[str, Any]:
    experiment = _experiment(run)
    return {
        "run": run,
        "experiment": experiment,
        "wirings": experiment.wirings,
        "outcome": outcome(run),
        "clock_told": f"simulated from seed {run.seed}, all times are virtual" if run.virtual else "on Ray",
        "clock_axis": f"Across: seconds{' of virtual time' if run.virtual else ''} since the load began.",
        "plot": experiment_plot.plot(experiment.wirings, experiment.rate, run.words),
        "plots": experiment_plot,
        "rows": _rows,
        "told": _told,
        "targets": targets,
        "words": run.words,
        "capital": capital,
        "again": f"eventmesh chaos run {run.name} {_where(run)} --seed {run.seed}",
        "config": yaml.safe_dump(run.model_dump(mode="json")["config"], sort_keys=False, allow_unicode=True),
    }

"""Reports of a run, all rendered from ``run.json``: a page that opens off-line, a summary, JUnit for build servers.

The page names no outside resource: styles and drawings stand in it. Nothing here measures; what the figures say
is worked out in :mod:`eventmesh.report.conclusions`.
"""

from __future__ import annotations

import re
import shlex
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite
from markupsafe import Markup, escape

from eventmesh.application import Words
from eventmesh.report import (
    agreement,
    answer_plot,
    comparison,
    conclusions,
    differences,
    headline,
    machine,
    measure,
    plots,
    prices,
    sentences,
    targets,
    unmeasured,
    ways,
)
from eventmesh.report.comparison import NO_DATA
from eventmesh.report.record import AskRecord, AuditRecord, CheckRecord, Figure, Point, Run, Spread
from eventmesh.report.repetitions import OBJECTIVE_MS
from eventmesh.report.ways import Scenario, axis_label, load, way_of
from eventmesh.report.wording import capital, duration, number, percent

TEMPLATES = Path(__file__).parent / "templates"
#: V9 holds over a window within this share, fixed before any run: the edges of the window leave some room.
LITTLE_TOLERANCE = 0.1
#: What the name of a run of a quick grid ends in.
QUICK = "-quick"
#: The settings that a user gives beside a benchmark's file, by the name of their options.
FILES = ("input", "mapping")
#: More samples than this are only counted; all of them stand in run.json.
SAMPLES_SHOWN = 10


def render(run: Run) -> str:
    """The whole report as one self-contained page of HTML."""
    return templates().get_template("report.html.jinja").render(_content(run))


def summary(run: Run) -> str:
    """The same answer, in the same order, as Markdown that fits a pull request."""
    return templates().get_template("summary.md.jinja").render(_content(run))


def junit(run: Run) -> str:
    """JUnit XML: a suite per point with a case per check, and one suite of the figures.

    An invalid check is a failure, an unknown one an error. A missed target is reported as skipped: it is no
    threshold, and a build does not fail for it.
    """
    document = JUnitXml(run.name)
    for point in run.points:
        document.add_testsuite(audit_suite(f"{run.name}: {point_label(point, run.words)}", point.audit))
    if run.audit is not None:
        document.add_testsuite(audit_suite(f"{run.name}: audit", run.audit))
    if run.figures:
        suite = TestSuite(f"{run.name}: figures")
        for figure in run.figures:
            suite.add_testcase(_figure_case(run.name, figure))
        document.add_testsuite(suite)
    document.update_statistics()  # type: ignore[no-untyped-call]
    return str(document.tostring().decode())  # type: ignore[no-untyped-call]


def write(folder: Path, run: Run) -> None:
    """Write ``report.html``, ``summary.md`` and ``junit.xml`` into the run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"report.html": render(run), "summary.md": summary(run), "junit.xml": junit(run)}.items():
        (folder / name).write_text(text, encoding="utf-8")


def point_label(point: Point, words: Words) -> str:
    """``views (local view), 3 joined services, 1 ms between services, 400 requests/s``."""
    axes = [axis_label(name, value) for name, value in point.axis.items() if name != ways.LOAD]
    return ", ".join([way_of(point).label, *axes, f"{number(load(point))} {words.requests}/s"])


def audit_suite(name: str, audit: AuditRecord) -> TestSuite:
    """A case per check."""
    suite = TestSuite(name)
    for check, found in audit.checks.items():
        case = TestCase(f"{check} {found.title}".strip(), name)
        if found.verdict != "valid":
            case.result = [_result(found)]
        suite.add_testcase(case)
    return suite


def _result(found: CheckRecord) -> Failure | Error:
    said = "; ".join(found.examples)
    if found.verdict == "invalid":
        return Failure(f"{found.violations} of {found.examined} violate it: {said}")
    return Error(f"unknown: {said}")


def _figure_case(run: str, figure: Figure) -> TestCase:
    case = TestCase(figure.name, f"{run}: figures")
    said = _figure_text(figure)
    if figure.met is False:
        case.result = [Skipped(f"missed: {said}")]
    case.system_out = said
    return case


def _figure_text(figure: Figure) -> str:
    wanted = [f"target {figure.target}"] if figure.target else []
    wanted += [f"predicted {number(figure.predicted)}"] if figure.predicted is not None else []
    return ", ".join([targets.measured_text(figure), *wanted])


@cache
def templates() -> Environment:
    """The templates of reports, with their filters."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=lambda name: name is not None and name.endswith(".html.jinja"),
    )  # fmt: skip
    environment.filters |= {"number": _number, "duration": duration, "spread": _spread, "cell": _cell, "code": _code}
    return environment


def _number(value: float | None) -> str:
    return NO_DATA if value is None else number(value)


def _spread(spread: Spread | None) -> str:
    return NO_DATA if spread is None else comparison.spread_text(spread)


def _code(text: str) -> Markup:
    """What stands between backquotes, as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _cell(text: object) -> str:
    """A value that may stand in a cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def _content(run: Run) -> dict[str, Any]:
    scenarios = ways.scenarios(run)
    costed = [scenario for scenario in scenarios if scenario.lowest]
    found = conclusions.of_run(run)
    drawn = plots.plot(scenarios, found.capacities, run.words)
    said = headline.of_run(run, found)
    samples = [each for point in run.points for each in point.samples]
    compared = comparison.compare(samples, found, said)
    axis = compared.axis if compared else max((axis for axis, _ in found.places), default=())
    return {
        "run": run,
        "headline": said,
        "compared": compared,
        "agreed": agreement.sentences(run),
        "told": agreement.table(run),
        "winner": sentences.name(said.winner) if said.winner else "",
        "answer": answer_plot.plot(samples, found, axis, drawn.styles if drawn else {}),
        "answer_plot": answer_plot,
        "unmeasured": unmeasured.unmeasured(run, found),
        "again": _again(run),
        "busy": machine.disturbed(run.machine_use) if not run.points else None,
        "others": _others(run),
        "limit": percent(machine.DISTURBED_FROM),
        "found": found,
        "scenarios": scenarios,
        "main": costed[-1] if costed else None,
        "plot": drawn,
        "plots": plots,
        "aims": plots.aims(run.figures),
        "prices": prices,
        "sentences": sentences,
        "targets": targets,
        "ways": ways,
        "generator": differences.GENERATOR,
        "objective": duration(OBJECTIVE_MS),
        "checks": _checks(run),
        "ask_counts": _ask_counts(run),
        "point_label": partial(point_label, words=run.words),
        "words": run.words,
        "capital": capital,
        "roles": _roles,
        "plain_figures": [figure for figure in run.figures if figure.predicted is None],
        "predicted_figures": [figure for figure in run.figures if figure.predicted is not None],
        "samples_shown": SAMPLES_SHOWN,
        "little": _little(run),
        "little_tolerance": LITTLE_TOLERANCE,
        "measure": measure,
        "config": yaml.safe_dump(run.model_dump(mode="json")["config"], sort_keys=False, allow_unicode=True),
        "styles": drawn.styles if drawn else {},
    }


def _others(run: Run) -> str:
    """What share of the machine others took: over the repetitions, else over the run."""
    uses = [each.machine for point in run.points for each in point.samples] or [run.machine_use]
    shares = [use.others + use.stolen for use in uses if use is not None]
    if not shares:
        return "not watched"
    spread = Spread.of(shares)
    texts = [percent(share) for share in (spread.median, spread.low, spread.high)]
    return texts[0] if texts[1] == texts[2] else f"{texts[0]} ({texts[1]} to {texts[2]})"


def _again(run: Run) -> str | None:
    """The command that measures the same again; None of what was no benchmark."""
    if not str(run.config.get("schema", "")).startswith("eventmesh.benchmark/"):
        return None
    quick = " --quick" if run.name.endswith(QUICK) else ""
    given = "".join(f" --{name} {shlex.quote(str(run.config[name]))}" for name in FILES if run.config.get(name))
    given += "".join(f" --mesh {shlex.quote(str(mesh))}" for mesh in run.config.get("meshes", ()))
    options: dict[str, Any] = run.config.get("options", {})
    given += "".join(f" --{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in options.items())
    given += " --runtime simulated" if run.virtual else ""
    return f"eventmesh bench run {run.name.removesuffix(QUICK)}{quick}{given} --seed {run.seed}"


def _checks(run: Run) -> dict[str, CheckRecord]:
    """Every check over the whole run."""
    audits = [point.audit for point in run.points] + ([run.audit] if run.audit is not None else [])
    return AuditRecord.together(audits).checks


def _ask_counts(run: Run) -> list[str]:
    """The counts of asks that are anything but 0 for some message."""
    names = [name for name in AskRecord.model_fields if name not in ("asker", "message")]
    return [name for name in names if any(getattr(each, name) for each in run.asks)]


def _roles(scenario: Scenario) -> list[str]:
    points = scenario.lowest.values()
    return sorted({role for point in points for role in (*point.memory_mb, *point.cpu_s_per_1000_requests)})


def _little(run: Run) -> list[tuple[Point, float, float, bool]]:
    """V9 at every point that is not saturated: measured, predicted, and whether they agree within the tolerance.

    A backlog that grows is no steady state, so a saturated point has nothing to predict.
    """
    rows = []
    for point in run.points:
        if not ways.believable(point) or point.saturated or not point.samples:
            continue
        measured = Spread.of(sample.little.measured for sample in point.samples).median
        predicted = Spread.of(sample.little.predicted for sample in point.samples).median
        rows.append((point, measured, predicted, abs(measured - predicted) <= LITTLE_TOLERANCE * predicted))
    return rows

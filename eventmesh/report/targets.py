"""Figures in words, and which targets of a run were met, missed, or have no data."""

from __future__ import annotations

from eventmesh.report import measure
from eventmesh.report.record import Figure, Run
from eventmesh.report.wording import capital, listed, number

_RELATIONS = {"<": "<", "<=": "≤", ">": ">", ">=": "≥", "==": "="}
#: More targets are only counted: the table has each.
NAMED_MAX = 6
_WORDS = {True: "met", False: "missed", None: "without data"}


def measured_text(figure: Figure) -> str:
    """``34 s``; without the unit where the figure's name says it."""
    if figure.value is None:
        return "no data"
    return number(figure.value) if figure.unit in figure.name.split() else f"{number(figure.value)} {figure.unit}"


def target_text(figure: Figure) -> str:
    """``≥ 8,000``, in the figure's unit."""
    relation, bound = measure.threshold(figure.target or "")
    return f"{_RELATIONS[relation]} {number(bound)}"


def counted(run: Run) -> str:
    """``2 of 3 targets met, 1 missed``; empty of a run without a target."""
    aims = [figure for figure in run.figures if figure.target is not None]
    found = [(sum(figure.met is met for figure in aims), word) for met, word in _WORDS.items()]
    told = [f"{count} {word}" for count, word in found if count]
    if len(told) == 1:
        return f"{len(aims)} of {len(aims)} target{'s' if len(aims) > 1 else ''} {told[0].partition(' ')[2]}"
    return f"of {len(aims)} targets {listed(told)}" if told else ""


def named(run: Run) -> str:
    """Each by its name, those that were missed first; empty of a run without a target. Of many only their count."""
    told = []
    if sum(figure.target is not None for figure in run.figures) > NAMED_MAX:
        return f"{capital(counted(run))}."
    for met in (False, None, True):
        figures = [figure for figure in run.figures if figure.target is not None and figure.met is met]
        if figures:
            told.append(
                f"target{'s' if len(figures) > 1 else ''} {_WORDS[met]}: {listed([_aim(each) for each in figures])}"
            )
    return f"{capital('; '.join(told))}." if told else ""


def _aim(figure: Figure) -> str:
    measured = "" if figure.value is None else f": {measured_text(figure)}"
    return f"{figure.name}{measured} (wanted {target_text(figure)})"

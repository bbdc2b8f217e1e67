"""The whole order flow in wiring ``views``: how many orders per second does it complete within a second?

Capacity in Theodolite's sense (Henning and Hasselbring, 2022): the greatest load of a list at which every
objective is met, and at every smaller one too. Each repetition of a step has a mesh of its own, so that a
step that was too much does not spoil what comes after it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks import load_steps
from benchmarks.benchmark import Say, Settings, begin, label, recorded
from benchmarks.load_steps import LoadSettings, Runtime, Subject
from eventmesh import mesh as meshes
from eventmesh.report import conclusions, measure, record
from eventmesh.report.progress_bar import Report
from eventmesh.report.repetitions import OBJECTIVE_MS, counts, held_the_load
from eventmesh.report.ways import load_of
from eventmesh.report.wording import duration

FIGURE = f"completed orders/s at p99 < {duration(OBJECTIVE_MS)}"


class OrderFlowSettings(LoadSettings):
    """A benchmark file of this question. ``target`` is a threshold on the completed orders per second."""

    target: str


class OrderFlow:
    """The steps, upwards until one is not held."""

    settings_type: ClassVar[type[Settings]] = OrderFlowSettings

    def __init__(
        self, settings: OrderFlowSettings, *, quick: bool, meshes: Path, runtime: Runtime = load_steps.on_ray
    ) -> None:
        self.settings, self.meshes, self.runtime = settings, meshes, runtime
        self.name = label(settings, quick=quick)

    def describe(self) -> list[str]:
        """One line per step."""
        settings = self.settings
        lasts = f"{settings.warmup_s:g} s of warm-up and {settings.window_s:g} s"
        return [
            f"views/view: {load:g} orders/s for {lasts} x {settings.repetitions}, if the step before was held"
            for load in settings.offered_per_s
        ]

    def run(self, folder: Path, *, seed: int, report: Report, say: Say) -> record.Run:
        """Measure step by step, each as often as the repetitions say, before the next one is decided on."""
        subject = Subject(meshes.load(self.meshes / "views.yaml"), "view")
        durability = subject.mesh.log.durability
        begun = begin(self.name, self.settings, seed=seed, durability=durability, warmup_s=self.settings.warmup_s)
        measuring = self._measured(subject, folder, seed, report)
        return recorded(folder, begun, measuring, say=say, line=load_steps.line, conclude=self._conclusion)

    def _measured(
        self, subject: Subject, folder: Path, seed: int, report: Report
    ) -> Generator[record.Repetition, None, None]:
        settings = self.settings
        total = len(settings.offered_per_s) * settings.repetitions
        with self.runtime() as put_under_load:
            for place, offered in enumerate(settings.offered_per_s):
                step: list[record.Repetition] = []
                for number in range(2 * settings.repetitions):  # as often again for what was disturbed
                    if sum(each.disturbed is None for each in step) >= settings.repetitions:
                        break
                    report("meshes", min(place * settings.repetitions + number, total - 1), total)
                    step += load_steps.climb(
                        put_under_load, subject, [offered], settings, folder, seed=seed + number, repetition=number
                    )
                    yield step[-1]
                if not any(held_the_load(each) for each in step if counts(each)):
                    return

    def _conclusion(self, repetitions: list[record.Repetition]) -> dict[str, Any]:
        points = load_steps.points(repetitions)
        return {
            "points": points,
            "verdict": record.worst(point.audit.verdict for point in points),
            "figures": [
                measure.figure(FIGURE, completed_at_capacity(repetitions), "orders/s", target=self.settings.target),
                load_steps.little(repetitions),
            ],
        }


def completed_at_capacity(repetitions: Sequence[record.Repetition]) -> list[float]:
    """Completed orders per second at the greatest load held, one sample per undisturbed repetition.

    Nothing where not even the smallest load was held for certain: the capacity was not measured then.
    """
    return [
        each.completed_per_s
        for found in conclusions.conclude(repetitions).capacities.values()
        if isinstance(found, conclusions.Holds)
        for each in repetitions
        if load_of(each) == found.held and counts(each)
    ]

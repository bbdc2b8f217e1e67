"""What does the log carry by itself, beside other people's in the same run, and the same work on each?

Every comparison says what is compared: one message for each row, or one for each batch. Peers that are not installed
are named as missing. The processes are the broker's, the producer's and the consumers', and for queries one service's
and its asker's, without Ray around them: Ray is not on the path of the data. What Ray costs is the start, which is
measured beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.backbone_log import Append, Deliveries, Events, Memory
from benchmarks.backbone_part import BackbonePart, Sample, Samples, missing
from benchmarks.backbone_query import Query
from benchmarks.backbone_start import Start
from benchmarks.backbone_view import ViewPart
from benchmarks.benchmark import Say, Settings, begin, label, recorded
from eventmesh.report import measure, record
from eventmesh.report.progress_bar import Report


class BackboneSettings(Settings):
    """A benchmark file of this question; each part may be left out (null)."""

    append: Append | None
    events: Events | None
    deliveries: Deliveries | None
    query: Query | None
    view: ViewPart | None
    start: Start | None
    memory: Memory | None

    @property
    def parts(self) -> dict[str, BackbonePart]:
        """Those that are not left out, by name, in the order in which they are measured."""
        found = {
            "append": self.append, "events": self.events, "deliveries": self.deliveries, "query": self.query,
            "view": self.view, "start": self.start, "memory": self.memory,
        }  # fmt: skip
        return {name: part for name, part in found.items() if part is not None}


class Backbone:
    """The parts, interleaved: each repetition measures every system before the next begins."""

    settings_type: ClassVar[type[Settings]] = BackboneSettings

    def __init__(self, settings: BackboneSettings, *, quick: bool, meshes: Path) -> None:
        self.settings = settings
        self.name = label(settings, quick=quick)

    def describe(self) -> list[str]:
        """The lines of each part, and one per peer that is missing."""
        lines = []
        for part in self.settings.parts.values():
            times = ", once" if part.once else f" x {self.settings.repetitions}"
            lines += [f"{line}{times}" for line in part.describe()]
        return lines + self._missing()

    def _missing(self) -> list[str]:
        peers = {name: peer for part in self.settings.parts.values() for name, peer in part.peers.items()}
        return missing(peers)

    def run(self, folder: Path, *, seed: int, report: Report, say: Say) -> record.Run:
        """Every part that the file has."""
        for line in self._missing():
            say(line)
        begun = begin(self.name, self.settings, seed=seed, durability="os")
        # Nothing of a mesh is run here: sums, counts and answers are checked as it goes, and a wrong one ends the run.
        return recorded(
            folder,
            begun,
            self._measured(folder, report),
            say=say,
            line=lambda each: each.told,
            conclude=self._conclusion,
        )

    def _measured(self, folder: Path, report: Report) -> Samples:
        parts, repetitions = self.settings.parts, self.settings.repetitions
        for number in range(repetitions):
            report("repetitions", number, repetitions)
            for part in parts.values():
                if not part.once:
                    yield from part.measured(folder, number)
        for name, part in parts.items():
            if part.once:
                report(name, 0, 0)
                yield from part.measured(folder, 0)

    def _conclusion(self, samples: list[Sample]) -> Mapping[str, Any]:
        found: dict[tuple[str, str, str | None], list[float]] = {}
        for each in samples:
            found.setdefault((each.figure, each.unit, each.target), []).append(each.value)
        figures = [measure.figure(name, values, unit, target=target) for (name, unit, target), values in found.items()]
        return {"figures": figures, "verdict": "valid"}

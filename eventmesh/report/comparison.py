"""The table that a report begins with: asking beside listening, criterion by criterion, and what may be said of each.

It compares in one scenario: that of the headline, else the hardest. Asking is there at its best: the way that held
most, and at each load the fastest of those that held it. Of meshes the first stands beside the others at their best.
Figures are medians with their range, of the repetitions that count; whether they differ is what was concluded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eventmesh.report import sentences
from eventmesh.report.conclusions import (
    Conclusions,
    HoldsMore,
    KeptUp,
    Less,
    NoDifference,
    NotCompared,
    Range,
)
from eventmesh.report.differences import CRITERIA, Criterion
from eventmesh.report.headline import Headline
from eventmesh.report.record import Repetition, Spread
from eventmesh.report.repetitions import counts
from eventmesh.report.ways import Axis, Way, axes_label, axis_of, load_of, way_of
from eventmesh.report.wording import capital, number, times

NO_DATA = "–"
#: A wider interval says nothing, and its ends would look like figures.
SPAN_TOLD = 10.0


@dataclass(frozen=True)
class Row:
    """A criterion: both figures, and in words which is better by how much; ``lost``: the headline's winner loses it.

    ``section`` says at which load, and which way asked; empty of what is not of one load.
    """

    section: str
    criterion: str
    rival: str
    base: str
    ratio: str
    lost: bool = False


@dataclass(frozen=True)
class Comparison:
    """One scenario; ``rival`` is the way that held most, each section names the fastest at its load."""

    axis: Axis
    rival: Way
    base: Way
    rows: Sequence[Row]

    @property
    def title(self) -> str:
        """``Asking at its best beside listening, with 3 joined services``."""
        if self.base.mesh:
            return capital(f"{self.base.label} beside {self.rival.label}")
        return f"Asking at its best beside listening{f', with {axes_label(self.axis)}' if self.axis else ''}"

    @property
    def columns(self) -> list[tuple[str, str]]:
        """The heading of each column of figures, and the field of a row that stands in it."""
        columns = [(sentences.name(self.rival), "rival"), (sentences.name(self.base), "base")]
        return columns[::-1] if self.base.mesh else columns


def compare(repetitions: Sequence[Repetition], found: Conclusions, said: Headline) -> Comparison | None:
    """None where nobody asks, nobody listens, or all was disturbed."""
    axes = [each.axis for each in said.rests_on if isinstance(each, HoldsMore | KeptUp | Less | NoDifference)]
    axis = axes[0] if axes else max((axis for axis, _ in found.places), default=())
    bases = [way for at, way in found.places if at == axis and not way.is_rival]
    rival = found.best_rival.get(axis)
    if rival is None or not bases:
        return None
    table = _Table(repetitions, found, axis, rival, bases[0], said.winner)
    return Comparison(axis, rival, bases[0], list(table.rows()))


@dataclass(frozen=True)
class _Table:
    repetitions: Sequence[Repetition]
    found: Conclusions
    axis: Axis
    rival: Way
    base: Way
    winner: Way | None

    def rows(self) -> Iterator[Row]:
        if self.found.capacities:
            yield self._capacities()
        for load in self._loads():
            if not self.found.capacities:
                yield self._kept(load)
            yield from self._criteria(load)

    def _loads(self) -> list[float]:
        """The lowest and the highest that anything was compared at; of a first look all of them."""
        if not self.found.capacities:
            return sorted({each.load for each in self.found.kept_up if each.axis == self.axis})
        met = sorted({each.load for each in self.found.differences if each.axis == self.axis and each.load})
        return list(dict.fromkeys([met[0], met[-1]])) if met else []

    def _rival(self, load: float) -> Way:
        """The fastest at that load; where none held it, the one that held most."""
        return self.found.fastest_rival.get((self.axis, load), self.rival)

    def _section(self, load: float) -> str:
        return f"at {number(load)} {self.found.words.requests}/s{self._named(self._rival(load))}"

    def _named(self, rival: Way) -> str:
        """Which of several rivals it is; of two meshes the title has named both."""
        if not rival.mesh:
            return f", asking by {rival.joining}"
        return f", {rival.mesh}" if len({way for _, way in self.found.places}) > 2 else ""

    def _differences(self, load: float) -> list[Less | NoDifference | NotCompared]:
        pair = {self._rival(load), self.base}
        place = (self.axis, load)
        found = [each for each in self.found.differences if (each.axis, each.load) == place]
        return [each for each in found if {each.way, each.other} == pair]

    def _capacities(self) -> Row:
        pair = {self.rival, self.base}
        ratios = [each for each in self.found.ratios if each.axis == self.axis and {each.way, each.other} == pair]
        texts = self._capacity(self.rival), self._capacity(self.base)
        name = f"Load held, {self.found.words.requests}/s{self._named(self.rival)}"
        if ratios and isinstance(each := ratios[0], HoldsMore):
            return Row("", name, *texts, _better(each.way, each.times), each.other == self.winner)
        return Row("", name, *texts, "no difference seen" if ratios else NO_DATA)

    def _capacity(self, way: Way) -> str:
        found = self.found.capacities.get((self.axis, way))
        return sentences.capacity(found) if found else NO_DATA

    def _kept(self, load: float) -> Row:
        kept = {each.way: each for each in self.found.kept_up if (each.axis, each.load) == (self.axis, load)}
        one, two = kept.get(self._rival(load)), kept.get(self.base)
        texts = _tries(one), _tries(two)
        if one is None or two is None or one.kept == two.kept:
            said = NO_DATA if one is None or two is None else "both" if one.kept else "neither"
            return Row(self._section(load), "Kept up", *texts, said)
        better, worse = (one.way, two.way) if one.kept else (two.way, one.way)
        return Row(self._section(load), "Kept up", *texts, f"{sentences.name(better)} better", worse == self.winner)

    def _criteria(self, load: float) -> Iterator[Row]:
        differences = self._differences(load)
        said = {
            each.criterion.name: each
            for each in differences
            if isinstance(each, Less | NoDifference) and each.criterion is not None
        }
        for criterion in CRITERIA if differences else ():
            ways = self._rival(load), self.base
            texts = self._figure(criterion, ways[0], load), self._figure(criterion, ways[1], load)
            if texts != (NO_DATA, NO_DATA):
                yield self._row(
                    load,
                    f"{capital(criterion.named(self.found.words))}, {criterion.unit}",
                    texts,
                    said.get(criterion.name),
                )
        yield from self._ages(load)

    def _row(self, load: float, name: str, texts: tuple[str, str], known: Less | NoDifference | None) -> Row:
        section = self._section(load)
        if isinstance(known, Less):
            return Row(section, name, *texts, _better(known.way, known.times), known.other == self.winner)
        if known is None:
            return Row(section, name, *texts, "too few undisturbed pairs")
        low, high = known.ratio.low, known.ratio.high or known.ratio.low
        if high < SPAN_TOLD * low:
            return Row(section, name, *texts, f"no difference seen, ratio {times(low)} to {times(high)}")
        return Row(section, name, *texts, f"no difference seen: {known.pairs} pairs are too few to tell")

    def _ages(self, load: float) -> Iterator[Row]:
        """How old was what each side read; who asks gets the owner's own, and a mesh need not read any view."""
        ages = {each.way: each for each in self.found.stale if (each.axis, each.load) == (self.axis, load)}
        rival, base = ages.get(self._rival(load)), ages.get(self.base)
        name, none = "Age of what was read, p99, ms", "the owner's own"
        if self.base.mesh:
            name, none = "Age of what reached a view, p99, ms", "no view"
        texts = (number(rival.ms) if rival else none, number(base.ms) if base else none)
        if rival or base:
            alone = None if rival and base else rival or base
            better = self.base if alone is rival else self._rival(load)
            said = f"{sentences.name(better)} better" if alone else NO_DATA
            lost = alone is not None and alone.way == self.winner
            yield Row(self._section(load), name, *texts, said, lost)

    def _figure(self, criterion: Criterion, way: Way, load: float) -> str:
        values = [
            value
            for each in self.repetitions
            if counts(each) and (axis_of(each.axis), way_of(each), load_of(each)) == (self.axis, way, load)
            if (value := criterion.value(each)) is not None
        ]
        return spread_text(Spread.of(values)) if values else NO_DATA


def _better(way: Way, found: Range) -> str:
    return f"{sentences.name(way)} better, {sentences.ratio(found)} times"


def spread_text(spread: Spread) -> str:
    """The median, with its range where there is one."""
    if number(spread.low) == number(spread.high):
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.low)}–{number(spread.high)})"


def _tries(kept: KeptUp | None) -> str:
    if kept is None:
        return "not resolved"
    return f"in all {kept.tries} tries" if kept.kept else f"in none of {kept.tries}"

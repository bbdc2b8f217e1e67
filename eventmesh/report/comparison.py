"""The table that a report begins with: asking beside listening, criterion by criterion, and what may be said of each.

It compares in one scenario: that of the headline, else the hardest. Asking is there at its best: the way that held
most, and at each load the fastest of those that held it.
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
    Stale,
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
    asking: str
    listening: str
    ratio: str
    lost: bool = False


@dataclass(frozen=True)
class Comparison:
    """One scenario; ``asking`` is the way that held most, each section names the fastest at its load."""

    axis: Axis
    asking: Way
    listening: Way
    rows: Sequence[Row]

    @property
    def title(self) -> str:
        """``Asking at its best beside listening, with 3 joined services``."""
        return f"Asking at its best beside listening{f', with {axes_label(self.axis)}' if self.axis else ''}"


def compare(repetitions: Sequence[Repetition], found: Conclusions, said: Headline) -> Comparison | None:
    """None where nobody asks, nobody listens, or all was disturbed."""
    axes = [each.axis for each in said.rests_on if isinstance(each, HoldsMore | KeptUp | Less | NoDifference)]
    axis = axes[0] if axes else max((axis for axis, _ in found.places), default=())
    listening = [way for at, way in found.places if at == axis and not way.asks]
    asking = found.best_asking.get(axis)
    if asking is None or not listening:
        return None
    table = _Table(repetitions, found, axis, asking, listening[0], said.winner)
    return Comparison(axis, asking, listening[0], list(table.rows()))


@dataclass(frozen=True)
class _Table:
    repetitions: Sequence[Repetition]
    found: Conclusions
    axis: Axis
    asking: Way
    listening: Way
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

    def _asking(self, load: float) -> Way:
        """The fastest at that load; where none held it, the one that held most."""
        return self.found.fastest_asking.get((self.axis, load), self.asking)

    def _section(self, load: float) -> str:
        return f"at {number(load)} {self.found.words.requests}/s, asking by {self._asking(load).joining}"

    def _differences(self, load: float) -> list[Less | NoDifference | NotCompared]:
        pair = {self._asking(load), self.listening}
        place = (self.axis, load)
        found = [each for each in self.found.differences if (each.axis, each.load) == place]
        return [each for each in found if {each.way, each.other} == pair]

    def _capacities(self) -> Row:
        pair = {self.asking, self.listening}
        ratios = [each for each in self.found.ratios if each.axis == self.axis and {each.way, each.other} == pair]
        texts = self._capacity(self.asking), self._capacity(self.listening)
        name = f"Load held, {self.found.words.requests}/s, asking by {self.asking.joining}"
        if ratios and isinstance(each := ratios[0], HoldsMore):
            return Row("", name, *texts, _better(each.way, each.times), each.other == self.winner)
        return Row("", name, *texts, "no difference seen" if ratios else NO_DATA)

    def _capacity(self, way: Way) -> str:
        found = self.found.capacities.get((self.axis, way))
        return sentences.capacity(found) if found else NO_DATA

    def _kept(self, load: float) -> Row:
        kept = {each.way: each for each in self.found.kept_up if (each.axis, each.load) == (self.axis, load)}
        one, two = kept.get(self._asking(load)), kept.get(self.listening)
        texts = _tries(one), _tries(two)
        if one is None or two is None or one.kept == two.kept:
            said = NO_DATA if one is None or two is None else "both" if one.kept else "neither"
            return Row(self._section(load), "Kept up", *texts, said)
        better, worse = (one.way, two.way) if one.kept else (two.way, one.way)
        return Row(self._section(load), "Kept up", *texts, f"{_side(better)} better", worse == self.winner)

    def _criteria(self, load: float) -> Iterator[Row]:
        differences = self._differences(load)
        said = {
            each.criterion.name: each
            for each in differences
            if isinstance(each, Less | NoDifference) and each.criterion is not None
        }
        for criterion in CRITERIA if differences else ():
            ways = self._asking(load), self.listening
            texts = self._figure(criterion, ways[0], load), self._figure(criterion, ways[1], load)
            if texts != (NO_DATA, NO_DATA):
                yield self._row(
                    load,
                    f"{capital(criterion.named(self.found.words))}, {criterion.unit}",
                    texts,
                    said.get(criterion.name),
                )
        for stale in self.found.stale:
            if (stale.axis, stale.way, stale.load) == (self.axis, self.listening, load):
                yield self._stale(stale)

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

    def _stale(self, stale: Stale) -> Row:
        texts, lost = ("the owner's own", number(stale.ms)), self.winner == self.listening
        return Row(self._section(stale.load), "Age of what was read, p99, ms", *texts, "asking better", lost)

    def _figure(self, criterion: Criterion, way: Way, load: float) -> str:
        values = [
            value
            for each in self.repetitions
            if counts(each) and (axis_of(each.axis), way_of(each), load_of(each)) == (self.axis, way, load)
            if (value := criterion.value(each)) is not None
        ]
        return spread_text(Spread.of(values)) if values else NO_DATA


def _better(way: Way, found: Range) -> str:
    return f"{_side(way)} better, {sentences.ratio(found)} times"


def spread_text(spread: Spread) -> str:
    """The median, with its range where there is one."""
    if number(spread.low) == number(spread.high):
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.low)}–{number(spread.high)})"


def _side(way: Way) -> str:
    return "asking" if way.asks else "listening"


def _tries(kept: KeptUp | None) -> str:
    if kept is None:
        return "not resolved"
    return f"in all {kept.tries} tries" if kept.kept else f"in none of {kept.tries}"

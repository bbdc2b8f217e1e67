"""Whether meshes that were asked the same told their callers the same: request by request, and in number.

An outcome is the application's own word for what a caller was told. Two meshes need not tell each caller the same to be
both right: where requests compete for what is scarce, who comes first decides, and that differs from one repetition of
the same mesh to the next. So what differs between meshes is held against what differs within one. Nothing here is a
verdict: whether a mesh kept the rules of its application is for the audit to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from eventmesh.application import Words
from eventmesh.report.record import Agreement, Point, Run, Spread
from eventmesh.report.ways import LOAD, load, way_of
from eventmesh.report.wording import capital, number

#: What is counted of a request that nobody answered.
UNANSWERED = "unanswered"
EXAMPLES = 3


@dataclass(frozen=True)
class Told:
    """What callers were told in one repetition: the outcome of each request, in the order of the workload."""

    outcomes: pa.Array
    names: pa.Table  # command and key of each

    @classmethod
    def of(cls, callers: pa.Table) -> Told:
        """From a callers' table (:data:`eventmesh.history.CALLERS`)."""
        rows = callers.sort_by("request").combine_chunks()
        outcomes = pc.fill_null(rows["outcome"], UNANSWERED).combine_chunks()
        return cls(outcomes, rows.select(["command", "key"]))

    def differs_from(self, other: Told) -> pa.Array:
        """Whether each request was told another outcome. Both were asked the same."""
        return pc.not_equal(self.outcomes, other.outcomes)

    @property
    def totals(self) -> Counter[str]:
        """How often each outcome was told."""
        return Counter(self.outcomes.to_pylist())


def agreement(
    mesh: str, other: str, axis: Mapping[str, float], ones: Mapping[int, Told], twos: Mapping[int, Told]
) -> Agreement | None:
    """Of two meshes at one load, whose repetitions are known by turn; None where no turn measured both."""
    turns = sorted(ones.keys() & twos.keys())
    if not turns:
        return None
    pairs = [(ones[turn], twos[turn]) for turn in turns]
    return Agreement(
        mesh=mesh, other=other, axis=dict(axis), requests=len(pairs[0][0].outcomes),
        differed=[_count(one, two) for one, two in pairs],
        totals_differed=sum(one.totals != two.totals for one, two in pairs),
        within=[*_within(ones), *_within(twos)],
        examples=[text for one, two in pairs for text in _examples(one, two)][:EXAMPLES],
    )  # fmt: skip


def _within(repetitions: Mapping[int, Told]) -> list[int]:
    first, *others = (repetitions[turn] for turn in sorted(repetitions))
    return [_count(first, other) for other in others]


def _count(one: Told, two: Told) -> int:
    return int(pc.sum(one.differs_from(two)).as_py() or 0)


def _examples(one: Told, two: Told) -> Iterator[str]:
    places = pc.indices_nonzero(one.differs_from(two)).slice(0, EXAMPLES)
    for place, row in zip(places.to_pylist(), one.names.take(places).to_pylist(), strict=True):
        yield f"{row['command']} {row['key']}: {one.outcomes[place]} and {two.outcomes[place]}"


# --- in words ----------------------------------------------------------------------------------------


def sentences(run: Run) -> list[str]:
    """Of each pair of meshes, over the loads that were too much for neither; empty of a run that compared none."""
    too_much = {(point.mesh, load(point)) for point in run.points if point.saturated}
    pairs: dict[tuple[str, str], tuple[list[Agreement], list[Agreement]]] = {}
    for each in run.agreements:
        at, (kept, beyond) = each.axis[LOAD], pairs.setdefault((each.mesh, each.other), ([], []))
        (beyond if {(each.mesh, at), (each.other, at)} & too_much else kept).append(each)
    return [
        _sentence(pair, kept, run.words) + _beyond(beyond, run.words) if kept else _sentence(pair, beyond, run.words)
        for pair, (kept, beyond) in pairs.items()
    ]


def _beyond(found: Sequence[Agreement], words: Words) -> str:
    """Who is late is told other things: that there was no answer in time, for one."""
    most = max((max(each.differed) for each in found), default=0)
    if not most:
        return ""
    return f" Where a load was too much for one of them, up to {most:,} of its {words.requests} ended otherwise."


def _sentence(pair: tuple[str, str], found: Sequence[Agreement], words: Words) -> str:
    one, other = pair
    worst = max(found, key=lambda each: max(each.differed))
    if not any(worst.differed):
        total = sum(each.requests * len(each.differed) for each in found)
        return (
            f"Outcomes agree: each of {total:,} {words.requests}, over all turns, ended in {one} as it did in {other}."
        )
    said = "Outcomes differ" if any(each.totals_differed for each in found) else "Outcomes agree in number only"
    most = f"{max(worst.differed):,} of {worst.requests:,} {words.requests}"
    where = f"at {number(worst.axis[LOAD])} {words.requests}/s"
    said = f"{said}: {where} up to {most} ended otherwise in {other} than in {one}"
    return f"{said}, such as {worst.examples[0]}. {_yardstick(found)}"


def _yardstick(found: Sequence[Agreement]) -> str:
    """What differs within one mesh is not the other's doing."""
    within = [count for each in found for count in each.within]
    if not within:
        return "Each mesh was measured once, so nobody knows how much one differs from itself."
    if not any(within):
        return "Repetitions of one mesh all ended alike, so that comes from the meshes."
    between = max(max(each.differed) for each in found)
    much = "as many" if max(within) >= between else f"up to {max(within):,}"
    return f"Between repetitions of one and the same mesh {much} did."


@dataclass(frozen=True)
class Row:
    """How often an outcome was told at a load, by mesh; None where the mesh was not measured there."""

    section: str
    outcome: str
    counts: Sequence[Spread | None]


def table(run: Run) -> tuple[list[str], list[Row]]:
    """The meshes, and what their callers were told at each load; empty of a run that compared none."""
    points: dict[float, dict[str, Point]] = {}
    meshes = {way.mesh: way.rank for way in map(way_of, run.points) if way.mesh}
    for point in run.points if meshes else ():
        points.setdefault(load(point), {})[point.mesh] = point
    names = sorted(meshes, key=lambda name: meshes[name])
    return names, [row for at in sorted(points) for row in _rows(at, points[at], names, run.words)]


def _rows(at: float, points: Mapping[str, Point], meshes: Sequence[str], words: Words) -> Iterator[Row]:
    for outcome in sorted({outcome for point in points.values() for outcome in point.outcomes}):
        counts = [points[mesh].outcomes.get(outcome, Spread.of([0])) if mesh in points else None for mesh in meshes]
        yield Row(f"at {number(at)} {words.requests}/s", capital(outcome.replace("_", " ")), counts)

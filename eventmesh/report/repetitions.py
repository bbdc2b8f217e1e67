"""The repetitions of one point: which may be believed, whether they held their load, and what they are together.

Statistics are taken over repetitions, never over the requests of several runs thrown together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eventmesh.report.record import AuditRecord, Counts, Latency, Percentiles, Point, Repetition, Spread

#: The generator may be late by this share of the completed p99; beyond it the point is void.
LAG_SHARE_MAX = 0.1
#: The objective that a load must meet to count as held: completed p99, milliseconds.
OBJECTIVE_MS = 1_000.0


def summarise(repetitions: Sequence[Repetition]) -> Point:
    """The repetitions of one point as median, low and high. Raises ``ValueError`` if they are of different points.

    Those that were disturbed take part in no figure, unless all were. Saturated if at least half of the others are.
    Where any of them is invalid the point shows counts and verdict only.
    """
    first = repetitions[0]
    if len({(each.wiring, each.join, each.mesh, *each.axis.items()) for each in repetitions}) > 1:
        raise ValueError("repetitions of different points cannot be summarised together")
    audit = AuditRecord.together([each.audit for each in repetitions])
    performance = _no_performance() if audit.verdict == "invalid" else _performance(repetitions)
    return Point(
        wiring=first.wiring,
        join=first.join,
        joining=first.joining,
        asks=first.asks,
        mesh=first.mesh,
        place=first.place,
        axis=first.axis,
        repetitions=len(repetitions),
        offered_per_s=Spread.of(each.offered_per_s for each in repetitions),
        generator_lag_ms_p99=Spread.of(each.generator_lag_ms_p99 for each in repetitions),
        counts=_sum([each.counts for each in repetitions]),
        outcomes=_counted([each.outcomes for each in repetitions]),
        audit=audit,
        **performance,
    )


def _no_performance() -> dict[str, Any]:
    nothing = ("accepted_per_s", "completed_per_s", "accepted_latency_ms", "completed_latency_ms", "staleness_ms")
    return dict.fromkeys((*nothing, "bytes_moved", "saturated")) | {"cpu_s_per_1000_requests": {}, "memory_mb": {}}


def _performance(repetitions: Sequence[Repetition]) -> dict[str, Any]:
    samples, quiet = repetitions, [each for each in repetitions if each.disturbed is None]
    repetitions = quiet or samples
    moved = [each.bytes_moved for each in repetitions if each.bytes_moved is not None]
    return {
        "accepted_per_s": Spread.of(each.accepted_per_s for each in repetitions),
        "completed_per_s": Spread.of(each.completed_per_s for each in repetitions),
        "accepted_latency_ms": _over([each.accepted_latency_ms for each in repetitions]),
        "completed_latency_ms": _over([each.completed_latency_ms for each in repetitions]),
        "staleness_ms": _over([each.staleness_ms for each in repetitions]),
        "cpu_s_per_1000_requests": _by_role([each.cpu_s_per_1000_requests for each in repetitions]),
        "memory_mb": _by_role([each.memory_mb for each in repetitions]),
        "bytes_moved": Spread.of(moved) if moved else None,
        "saturated": sum(each.saturated for each in repetitions) * 2 >= len(repetitions),
        "void": void(repetitions),
        "disturbed": None if quiet else samples[0].disturbed,
        "disturbed_repetitions": len(samples) - len(quiet),
        "samples": list(samples),
    }


def late(each: Repetition) -> bool:
    """Whether the generator was late by more than a tenth of the latency it measured: p99 beside completed p99."""
    latency = each.completed_latency_ms
    return latency is not None and each.generator_lag_ms_p99 > LAG_SHARE_MAX * latency.p99


def held_the_load(each: Repetition) -> bool:
    """Whether the mesh held the load: not saturated, and the completed p99 within the objective."""
    latency = each.completed_latency_ms
    return not each.saturated and latency is not None and latency.p99 < OBJECTIVE_MS


def counts(each: Repetition) -> bool:
    """Whether a repetition may be the base of a conclusion."""
    return each.disturbed is None and each.audit.verdict == "valid" and not late(each)


def void(repetitions: Sequence[Repetition]) -> str | None:
    """Why the repetitions measure the generator instead of the mesh, or None.

    Void where at least half of them have a generator lag (p99) above a tenth of their completed latency (p99).
    """
    lags = [each.generator_lag_ms_p99 for each in repetitions if late(each)]
    if not lags or len(lags) * 2 < len(repetitions):
        return None
    return f"the generator was {max(lags):.3g} ms late (p99), more than a tenth of the latency it measured"


def _over(samples: Sequence[Percentiles | None]) -> Latency | None:
    known = [sample for sample in samples if sample is not None]
    return Latency.of(known) if known else None


def _by_role(samples: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    roles = sorted({role for sample in samples for role in sample})
    return {role: Spread.of(sample[role] for sample in samples if role in sample) for role in roles}


def _counted(samples: Sequence[Mapping[str, int]]) -> dict[str, Spread]:
    """How often each outcome was told: none of it in a repetition is a count as well."""
    names = sorted({name for sample in samples for name in sample})
    return {name: Spread.of(sample.get(name, 0) for sample in samples) for name in names}


def _sum(parts: Sequence[Counts]) -> Counts:
    return Counts(**{name: sum(getattr(part, name) for part in parts) for name in Counts.model_fields})

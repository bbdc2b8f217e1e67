"""What a seed stands for: a mesh, its surroundings, a load, and faults of every kind at places of that mesh.

Each part has dice of its own, so that a change to one leaves the others as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from eventmesh.lab.fuzz_case import Case, Setup, variation_of
from eventmesh.mesh import Mesh
from eventmesh.runtime.faults import (
    BROKER,
    FAULTS,
    GENERATOR,
    MACHINE,
    OTHERS,
    AtOffset,
    AtTime,
    Bandwidth,
    ClockJump,
    Cut,
    Duplication,
    End,
    FailingSyncs,
    Fault,
    FixedMoment,
    FlippedBit,
    Freeze,
    FullDisk,
    Kill,
    Latency,
    Loss,
    LostUnsynced,
    Planned,
    Reordering,
    Reset,
    SlowDisk,
    Split,
    Stall,
    TornWrite,
    process_names,
)
from eventmesh.runtime.limits import Limits
from eventmesh.runtime.simulated.network import Speeds
from eventmesh.workload import Variation

#: A network in which a message may overtake another connection's by far, and processes that are back sooner than that.
SLOW_NETWORK = Speeds(network=(100, 15_000), restart=(1_000, 40_000))
#: Askers that give up while the other side is still starting.
IMPATIENT = Limits(attempt_timeout=15_000, backoff=1_000, backoff_max=8_000, refold_delay=5_000)
#: Seconds after the last request in which faults still come: restarts take up to 0.3 s.
AFTERWARDS_S = 0.25
#: Seconds, more than any load has.
TO_THE_END_S = 600.0


@dataclass(frozen=True)
class Places:
    """Where a fault may strike in a mesh, and within how many seconds. ``callers`` are at work by then."""

    mesh: Mesh
    seconds: float

    @property
    def processes(self) -> list[str]:
        """Those of services."""
        return [name for name in process_names(self.mesh) if name != BROKER]

    @property
    def partitions(self) -> list[str]:
        """All of all topics whose owners run."""
        topics = self.mesh.topics()
        return [
            f"{name}/{number}"
            for name, topic in sorted(topics.items())
            if topic.owner in self.mesh.services
            for number in range(topic.partitions)
        ]


# --- faults -------------------------------------------------------------------------------------------


def _milliseconds(dice: Random, low: int, high: int) -> float:
    return dice.randint(low, high) / 1_000


def _somebody(places: Places, dice: Random) -> str:
    """A process: a third of the times the broker or a caller, on whom all depend."""
    return dice.choice((BROKER, GENERATOR)) if dice.random() < 0.35 else dice.choice(places.processes)


def _link(places: Places, dice: Random) -> dict[str, Any]:
    """Between the broker and some, or between services; sometimes one way only."""
    source = BROKER if dice.random() < 0.5 else dice.choice(places.processes)
    others = [name for name in (*places.processes, GENERATOR, OTHERS) if name != source]
    return {"source": source, "target": dice.choice(others), "direction": dice.choice(("both", "both", "to", "from"))}


def _asks(places: Places, dice: Random) -> dict[str, Any]:
    share = dice.choice((0.1, 0.3, 0.5))
    source = dice.choice((OTHERS, GENERATOR, *places.processes))
    others = [name for name in (*places.processes, OTHERS) if name != source]
    return {
        "source": source, "target": dice.choice(others), "share": share, "lasts_s": _milliseconds(dice, 20, 1_000),
    }  # fmt: skip


def _kill(places: Places, dice: Random) -> Fault:
    return Kill(process=_somebody(places, dice))


def _freeze(places: Places, dice: Random) -> Fault:
    return Freeze(process=_somebody(places, dice), lasts_s=_milliseconds(dice, 1, 150))


def _end(places: Places, dice: Random) -> Fault:
    return End(process=_somebody(places, dice), lasts_s=_milliseconds(dice, 1, 150))


def _clock_jump(places: Places, dice: Random) -> Fault:
    by_ms = dice.choice((-1, 1)) * dice.choice((1, 20, 500))
    return ClockJump(process=_somebody(places, dice), by_ms=by_ms, lasts_s=_milliseconds(dice, 10, 300))


def _latency(places: Places, dice: Random) -> Fault:
    if dice.random() < 0.5:
        # What somebody reads of another topic comes long after its own facts.
        reader = dice.choice(places.processes)
        own = {topic.name for topic in places.mesh.topics().values() if topic.owner == reader.rpartition("/")[0]}
        topics = sorted(set(places.mesh.topics()) - own)
        return Latency(
            source=BROKER, target=reader, direction="to", latency_ms=dice.randint(1, 80), topics=(dice.choice(topics),),
            lasts_s=_milliseconds(dice, 50, 1_000),
        )  # fmt: skip
    low = dice.randint(1, 40)
    return Latency(
        **_link(places, dice), latency_ms=low, jitter_ms=dice.randint(0, low), lasts_s=_milliseconds(dice, 5, 150)
    )


def _bandwidth(places: Places, dice: Random) -> Fault:
    return Bandwidth(
        **_link(places, dice), rate_kb_per_s=dice.choice((50, 200, 1_000)), lasts_s=_milliseconds(dice, 5, 150)
    )


def _stall(places: Places, dice: Random) -> Fault:
    return Stall(**_link(places, dice), lasts_s=_milliseconds(dice, 1, 100))


def _cut(places: Places, dice: Random) -> Fault:
    return Cut(**_link(places, dice), lasts_s=_milliseconds(dice, 1, 100))


def _reset(places: Places, dice: Random) -> Fault:
    return Reset(**_link(places, dice))


def _split(places: Places, dice: Random) -> Fault:
    some = dice.sample(places.processes, dice.randint(1, max(1, len(places.processes) // 2)))
    return Split(groups=(tuple(sorted(some)), (OTHERS,)), lasts_s=_milliseconds(dice, 1, 100))


def _loss(places: Places, dice: Random) -> Fault:
    return Loss(**_asks(places, dice))


def _duplication(places: Places, dice: Random) -> Fault:
    return Duplication(**_asks(places, dice), delay_ms=(0, dice.choice((10, 200))))


def _reordering(places: Places, dice: Random) -> Fault:
    return Reordering(**_asks(places, dice), delay_ms=(20, dice.choice((200, 2_000))))


def _slow_disk(places: Places, dice: Random) -> Fault:
    return SlowDisk(extra_ms=dice.choice((1, 10, 50)), lasts_s=_milliseconds(dice, 5, 150))


def _full_disk(places: Places, dice: Random) -> Fault:
    return FullDisk(lasts_s=_milliseconds(dice, 1, 30))


def _failing_syncs(places: Places, dice: Random) -> Fault:
    return FailingSyncs(lasts_s=_milliseconds(dice, 1, 30))


def _torn_write(places: Places, dice: Random) -> Fault:
    return TornWrite(after_bytes=dice.randint(1, 20_000))


def _flipped_bit(places: Places, dice: Random) -> Fault:
    return FlippedBit(partition=dice.choice(places.partitions), segment=dice.choice(("active", "closed")))


def _lost_unsynced(places: Places, dice: Random) -> Fault:
    return LostUnsynced() if dice.random() < 0.7 else Kill(process=MACHINE)


@dataclass(frozen=True)
class Kind:
    """How a fault of a kind is drawn, and how often beside the others."""

    draw: Callable[[Places, Random], Fault]
    weight: int


#: Every kind of fault that the simulated runtime has.
KINDS: dict[str, Kind] = {
    "kill": Kind(_kill, 20),
    "freeze": Kind(_freeze, 2),
    "end": Kind(_end, 1),
    "clock-jump": Kind(_clock_jump, 1),
    "latency": Kind(_latency, 2),
    "bandwidth": Kind(_bandwidth, 1),
    "stall": Kind(_stall, 1),
    "cut": Kind(_cut, 2),
    "reset": Kind(_reset, 2),
    "split": Kind(_split, 1),
    "loss": Kind(_loss, 1),
    "duplication": Kind(_duplication, 1),
    "reordering": Kind(_reordering, 2),
    "slow-disk": Kind(_slow_disk, 1),
    "full-disk": Kind(_full_disk, 2),
    "failing-syncs": Kind(_failing_syncs, 2),
    "torn-write": Kind(_torn_write, 2),
    "flipped-bit": Kind(_flipped_bit, 9),
    "lost-unsynced": Kind(_lost_unsynced, 9),
}
OF_DISKS = {"slow-disk", "full-disk", "failing-syncs", "torn-write", "flipped-bit", "lost-unsynced"}
#: The share of the seeds in which bits rot, which ends most of the runs that it happens in.
ROT = 0.04
#: The share of the seeds at a level that does not survive it in which the machine dies all the same.
MACHINES = 0.06


def possible(setup: Setup, dice: Random) -> list[str]:
    """The kinds of a seed's faults: what the level of durability has, and what would end most runs only seldom."""
    chosen = set(KINDS)
    rots, dies = dice.random() < ROT, dice.random() < (0.5 if setup.durability == "fsync" else MACHINES)
    if setup.durability == "memory":
        chosen -= OF_DISKS
    if setup.durability != "fsync":
        chosen.discard("slow-disk")
    if not rots:
        chosen.discard("flipped-bit")
    if not dies:
        chosen.discard("lost-unsynced")
    return [kind for kind in KINDS if kind in chosen and "simulated" in FAULTS[kind].runtimes]


def _moment(places: Places, dice: Random) -> FixedMoment:
    if dice.random() < 0.4:
        return AtOffset(partition=dice.choice(places.partitions), offset=dice.randint(1, 60))
    return AtTime(seconds=round(dice.uniform(0.001, places.seconds), 6))


def plan(places: Places, kinds: Sequence[str], count: int, dice: Random) -> tuple[Planned, ...]:
    """So many faults of these kinds."""
    weights = [KINDS[kind].weight for kind in kinds]
    chosen = dice.choices(kinds, weights, k=count)
    return tuple(Planned(moment=_moment(places, dice), fault=KINDS[kind].draw(places, dice)) for kind in chosen)


def slow_streams(places: Places, dice: Random) -> Iterator[Fault]:
    """What each process reads of others comes late all the time, each topic by its own time; its own facts do not."""
    for reader in places.processes:
        for topic in places.mesh.topics().values():
            if topic.owner != reader.rpartition("/")[0]:
                yield Latency(
                    source=BROKER, target=reader, direction="to", topics=(topic.name,), latency_ms=dice.randint(0, 80),
                    lasts_s=TO_THE_END_S,
                )  # fmt: skip


def overtaking(places: Places, dice: Random) -> Iterator[Fault]:
    """Some of the messages between services take a detour, all the time."""
    services = tuple(places.mesh.services)
    share, delay_ms = dice.choice(((0.1, (20, 200)), (0.5, (20, 2_000))))
    yield Reordering(
        source=services, target=services, direction="to", share=share, delay_ms=delay_ms, lasts_s=TO_THE_END_S
    )


def links(places: Places, dice: Random) -> tuple[Planned, ...]:
    """What is wrong with the network from the beginning of the load to its end: nothing, in half of the seeds."""
    chosen = dice.choice((None, None, slow_streams, overtaking))
    return tuple(Planned(moment=AtTime(seconds=0), fault=each) for each in chosen(places, dice)) if chosen else ()


# --- everything else ----------------------------------------------------------------------------------


def setup(dice: Random) -> Setup:
    """How the mesh is set up."""
    retention = dice.choice(((None, None), (None, None), (2_000, -1), (2_000, 20)))
    return Setup(
        durability=dice.choice(("os", "os", "os", "fsync", "fsync", "fsync", "memory")),
        instances=dice.choice((1, 1, 2)),
        snapshot_rows=dice.choice((None, 3, 12, 40)),
        segment_bytes=retention[0],
        retention_ms=retention[1],
    )


def speeds(dice: Random) -> Speeds:
    """Of network and processes."""
    chosen = dice.choice((Speeds(), Speeds(), SLOW_NETWORK, Speeds(network=(100, 3_000))))
    return replace(chosen, notice=(3_000, 20_000)) if dice.random() < 0.2 else chosen


def limits(dice: Random) -> Limits:
    """Patience, and how much is on its way at a time."""
    chosen = dice.choice((Limits(), IMPATIENT))
    return replace(chosen, appends_in_flight_max=8, batch_rows_max=4) if dice.random() < 0.2 else chosen


def drawn(document: Mapping[str, Any], seed: int) -> Case:
    """The case of this seed, on the mesh that ``document`` describes."""

    def dice(part: str) -> Random:
        return Random(f"{part} of {seed}")

    variation: Variation = variation_of(document).drawn(dice("variation"))
    case = Case(
        seed=seed, mesh=dict(document), setup=setup(dice("setup")), variation=variation.model_dump(mode="json"),
        speeds=speeds(dice("speeds")), limits=limits(dice("limits")),
    )  # fmt: skip
    places = Places(case.described(), variation.requests / variation.rate + AFTERWARDS_S)
    struck = dice("faults")
    kinds = possible(case.setup, struck)
    seeding = plan(replace(places, seconds=0.1), ["kill"], struck.choice((0, 2)), dice("seeding faults"))
    faults = plan(places, kinds, struck.randint(3, 14), struck)
    all_the_time = links(places, dice("links"))
    return case.model_copy(update={"seeding_faults": seeding, "faults": (*all_the_time, *faults)})

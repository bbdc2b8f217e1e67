"""Given the shop under one fault of each kind, then it strikes while orders come in, and the audit is valid."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pytest

from eventmesh import mesh as meshes
from eventmesh.errors import ConfigurationError, CorruptSegment
from eventmesh.lab.simulated_run import SimulatedRun, run_simulated
from eventmesh.mesh import Mesh
from eventmesh.runtime.faults import FAULTS, PLAN, Kill, Planned
from eventmesh.runtime.simulated import simulation as simulation_module
from eventmesh.runtime.simulated.simulation import Simulation
from eventmesh.runtime.simulated.world import Deadlock, World
from eventmesh.shop.checks import TIMED_CHECKS
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from eventmesh.workload import Workload
from tests.simulation.scenario import shop

#: The load goes on for 400 ms; each fault strikes in its midst and is over before its end.
AT = {"kind": "at-time", "seconds": 0.1}
TO_BROKER = {"source": "*", "target": "broker", "lasts_s": 0.1}
ASKS = {"source": ["generator", "orders"], "target": "*", "share": 0.3, "lasts_s": 0.2}
#: By the name of the test: the fault, and what must show that it happened.
CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "kill a service": ({"kind": "kill", "process": "inventory/0"}, {"lives ended", "lives begun"}),
    "kill the broker": ({"kind": "kill", "process": "broker"}, {"lives ended", "lives begun"}),
    "kill the generator": ({"kind": "kill", "process": "generator"}, {"lives ended", "lives begun"}),
    "kill the machine": ({"kind": "kill", "process": "machine"}, {"lives ended", "lives begun"}),
    "freeze a service": (
        {"kind": "freeze", "process": "orders/0", "lasts_s": 0.1}, {"processes frozen", "messages that waited"},
    ),
    "freeze the broker": (
        {"kind": "freeze", "process": "broker", "lasts_s": 0.1}, {"processes frozen", "messages that waited"},
    ),
    "end a service": ({"kind": "end", "process": "orders/0", "lasts_s": 0.1}, {"lives ended", "lives begun"}),
    "end the broker": ({"kind": "end", "process": "broker", "lasts_s": 0.1}, {"lives ended", "lives begun"}),
    "clock forth": ({"kind": "clock-jump", "process": "generator", "by_ms": 100, "lasts_s": 0.1}, {"clocks off"}),
    "clock back": ({"kind": "clock-jump", "process": "gateway/0", "by_ms": -60_000, "lasts_s": 0.1}, {"clocks off"}),
    "latency": ({"kind": "latency", **TO_BROKER, "latency_ms": 10, "jitter_ms": 10}, {"messages delayed"}),
    "latency of a topic": (
        {"kind": "latency", **TO_BROKER, "latency_ms": 30, "topics": ["stock"]}, {"messages delayed"},
    ),
    "bandwidth": ({"kind": "bandwidth", **TO_BROKER, "rate_kb_per_s": 50}, {"messages delayed"}),
    "stall": ({"kind": "stall", **TO_BROKER, "toxicity": 0.5}, {"messages held"}),
    "cut": (
        {"kind": "cut", **TO_BROKER, "toxicity": 0.7}, {"messages lost", "connections broken", "connections refused"},
    ),
    "cut between services": (
        {"kind": "cut", "source": "generator", "target": "*", "lasts_s": 0.3, "direction": "from"},
        {"messages lost", "connections broken", "connections refused"},
    ),
    "reset": ({"kind": "reset", "source": "*", "target": "broker"}, {"messages lost", "connections broken"}),
    "split": (
        {"kind": "split", "groups": [["orders", "payments"], "*"], "lasts_s": 0.1},
        {"messages lost", "connections broken", "connections refused"},
    ),
    "loss": ({"kind": "loss", **ASKS}, {"messages lost"}),
    "duplication": ({"kind": "duplication", **ASKS, "delay_ms": [0, 50]}, {"messages doubled"}),
    "reordering": ({"kind": "reordering", **ASKS, "delay_ms": [1, 50]}, {"messages overtaken"}),
    "slow disk": ({"kind": "slow-disk", "extra_ms": 20, "lasts_s": 0.2}, {"syncs slowed"}),
    "full disk": ({"kind": "full-disk", "lasts_s": 0.1}, {"writes refused"}),
    "failing syncs": ({"kind": "failing-syncs", "lasts_s": 0.1}, {"syncs failed"}),
    "torn write": ({"kind": "torn-write", "after_bytes": 5_000}, {"writes torn", "lives ended", "lives begun"}),
    "lost unsynced": ({"kind": "lost-unsynced"}, {"lives ended", "lives begun"}),
}  # fmt: skip
WIRINGS = ("views", "request")
#: Where services ask, they listen to no topic but their own.
WIRINGS_OF = {"latency of a topic": ("views",)}


def planned(fault: Mapping[str, Any], moment: Mapping[str, Any] = AT) -> Planned:
    return Planned.model_validate({"moment": moment, "fault": fault})


def load() -> Workload:
    return of_history(generate(50, seed=5, products=20, customers=20, cancel_permille=100), rate=125.0)


def mesh(wiring: str) -> Mesh:
    return shop(wiring, "fsync", 50, False)


def run(wiring: str, *faults: Planned, seed: int = 3) -> SimulatedRun:
    return run_simulated(mesh(wiring), load(), seed=seed, faults=faults, seconds=120)


@lru_cache
def calm(wiring: str) -> SimulatedRun:
    return run(wiring)


def span(done: SimulatedRun) -> tuple[int, int]:
    """From the first request that was sent to the last one."""
    sent = done.history.callers["sent_at"].to_numpy()
    return int(sent.min()), int(sent.max())


def seen(done: SimulatedRun) -> list[Any]:
    """What callers saw, and all facts with their times."""
    tables = [
        done.reader.table(topic.name, number)
        for topic in done.simulation.topics.values()
        for number in range(topic.partitions)
    ]
    return [done.history.callers, *tables]


def test_every_kind_is_struck() -> None:
    assert {fault["kind"] for fault, _ in CASES.values()} | {"flipped-bit"} == FAULTS.keys()


@pytest.mark.parametrize(
    ("case", "wiring"), [(case, wiring) for case in CASES for wiring in WIRINGS_OF.get(case, WIRINGS)]
)
def test_under_each_fault_every_order_ends_right(case: str, wiring: str) -> None:
    fault, signs = CASES[case]
    done = run(wiring, planned(fault))
    (struck,) = done.struck
    shown = {what for what, count in struck.shows.items() if count}
    assert shown >= signs, struck.shows
    wrong = {name for name, check in done.audit().checks.items() if check.verdict != "valid"}
    assert wrong <= set(TIMED_CHECKS if "clocks off" in shown else ()), "what compares times takes all clocks for one"
    assert struck.overlapped(*span(done))
    assert struck.ended_us is not None, "it is over by itself"
    assert seen(done) != seen(calm(wiring)), "and somebody noticed"


def small_segments() -> Mesh:
    document = mesh("views").resolved()
    document["topics"]["orders"]["segment.bytes"] = 4_000
    return meshes.parse(document)


@pytest.mark.parametrize("segment", ["active", "closed"])
def test_a_flipped_bit_is_found_where_it_is(segment: str) -> None:
    flip = planned({"kind": "flipped-bit", "partition": "orders/0", "segment": segment}, {**AT, "seconds": 0.3})
    done = run_simulated(small_segments(), load(), seed=3, faults=[flip], seconds=120)
    (struck,) = done.struck
    assert struck.shows["bits flipped"] == 1
    assert struck.overlapped(*span(done))
    with pytest.raises(CorruptSegment) as caught:
        done.reader.table("orders", 0)
    assert caught.value.file == struck.details["file"]
    assert caught.value.position <= int(struck.details["byte"])
    assert (caught.value.offset == 0) == (segment == "closed")
    found = done.audit().checks["A3"]
    assert found.verdict == "invalid"
    assert f"{caught.value.file}: the batch at offset {caught.value.offset} " in found.examples[0]


def test_clocks_that_disagree_show_in_the_audit_as_effects_before_their_causes() -> None:
    """E7 takes the clocks of all processes for one; nothing but the times is wrong where they are not."""
    jump = planned({"kind": "clock-jump", "process": "orders/0", "by_ms": 60_000, "lasts_s": 0.1})
    checks = run("views", jump).audit().checks
    assert {name for name, check in checks.items() if check.verdict != "valid"} == {"E7"}
    assert all("before its cause" in example for example in checks["E7"].examples)


# --- moments ------------------------------------------------------------------------------------------


def test_a_fault_at_an_offset_strikes_when_the_partition_shows_it() -> None:
    moment = {"kind": "at-offset", "partition": "orders/0", "offset": 60}
    simulation = Simulation(mesh("views"), seed=3)
    for number, stage in enumerate(load().seeding):
        simulation.call(f"seeding-{number}", stage)
    simulation.drain()
    struck = simulation.arrange([planned({"kind": "freeze", "process": "payments/0", "lasts_s": 0.01}, moment)])
    simulation.call("load", load().load)
    simulation.run_until(lambda: bool(struck))
    log = simulation.broker.log
    assert log is not None
    assert 60 <= log.watermark("orders", 0) < 75, "a batch may end above it"
    simulation.drain()


def test_a_drawn_moment_is_the_seeds() -> None:
    freeze = {"kind": "freeze", "process": "payments/0", "lasts_s": 0.01}
    drawn = planned(freeze, {"kind": "within-time", "seconds": [0.05, 0.3]})
    moments = [run("views", drawn, seed=seed).struck[0].at_us for seed in (3, 3, 4)]
    assert moments[0] == moments[1] != moments[2]


# --- dice ---------------------------------------------------------------------------------------------


class Noted(random.Random):
    """Dice that write down what they draw."""

    def __init__(self, seed: str) -> None:
        super().__init__(seed)
        self.drawn: list[float] = []

    def random(self) -> float:
        found = super().random()
        self.drawn.append(found)
        return found

    def getrandbits(self, bits: int) -> int:
        found = super().getrandbits(bits)
        self.drawn.append(found)
        return found


MANY = {
    "lags": {"kind": "latency", **TO_BROKER, "latency_ms": 5, "jitter_ms": 5, "toxicity": 0.5},
    "losses": {"kind": "loss", **ASKS},
    "doubles": {"kind": "duplication", **ASKS, "delay_ms": [1, 20]},
    "resets": {"kind": "reset", "source": "*", "target": "broker", "toxicity": 0.5},
    "cuts": {"kind": "cut", **TO_BROKER, "toxicity": 0.5},
    "deaths": {"kind": "kill", "process": "payments/0"},
    "tears": {"kind": "torn-write", "after_bytes": 3_000},
}
WITHIN = {"kind": "within-time", "seconds": [0.05, 0.3]}


def drawn_without(left_out: str) -> tuple[dict[str, list[float]], dict[Planned, int]]:
    """What each dice drew, and when each fault struck after the load began."""
    plan = {name: planned(fault, WITHIN) for name, fault in MANY.items() if name != left_out}
    done = run_simulated(mesh("request"), load(), seed=3, faults=plan.values(), seconds=120)
    assert done.audit().verdict == "valid"
    began = int(done.history.callers["intended_at"].to_numpy().min())
    world = done.simulation.world
    assert all(isinstance(dice, Noted) for dice in world._dice.values())
    drew = {name: dice.drawn for name, dice in world._dice.items() if isinstance(dice, Noted)}
    return drew, {planned(struck.fault.model_dump(), WITHIN): struck.at_us - began for struck in done.struck}


class NotingWorld(World):
    """A world whose dice write down what they draw."""

    def dice(self, name: str) -> random.Random:
        return self._dice.setdefault(name, Noted(f"{self.seed} {name}"))


@pytest.mark.parametrize("left_out", MANY)
def test_leaving_one_fault_out_leaves_what_the_others_draw(left_out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation_module, "World", NotingWorld)
    (all_drew, all_struck), (drew, struck) = drawn_without("nothing"), drawn_without(left_out)
    # A process has one dice for all that it is told of, whatever it is.
    for name in sorted(name for name in all_drew.keys() & drew.keys() if not name.startswith("notice ")):
        shared = min(len(all_drew[name]), len(drew[name]))
        assert all_drew[name][:shared] == drew[name][:shared], name
    gone = {planned(MANY[left_out], WITHIN)}
    assert struck == {fault: at for fault, at in all_struck.items() if fault not in gone}
    assert all_struck.keys() - struck.keys() == gone


# --- connections --------------------------------------------------------------------------------------


def test_a_connection_that_has_carried_nothing_yet_is_cut_too() -> None:
    """Nobody would tell a service that asks for its grant on it; it would wait for ever."""
    simulation = Simulation(mesh("request"), seed=3)
    simulation.drain()
    host, broker = simulation.host("orders", 0), simulation.broker
    simulation.strike(planned({"kind": "reset", "source": "orders/0", "target": "broker"}).fault)
    simulation.run_until(lambda: host.connected == (broker.life, 1))
    simulation.network._last_arrival.clear()
    split = simulation.strike(planned({"kind": "split", "groups": ["orders/0", "broker"], "lasts_s": 0.2}).fault)
    simulation.run_until(lambda: split.ended_us is not None)
    simulation.drain()
    assert split.shows["connections broken"] == 1


# --- an end to it -------------------------------------------------------------------------------------


def test_healing_ends_all_that_lasts_and_may_be_done_again() -> None:
    simulation = Simulation(mesh("views"), seed=3)
    for number, stage in enumerate(load().seeding):
        simulation.call(f"seeding-{number}", stage)
    simulation.drain()
    lasting = [
        {**fault, **({"lasts_s": 3_600} if "lasts_s" in fault else {})}
        for fault, _ in CASES.values()
        if ("lasts_s" in fault or fault["kind"] == "torn-write") and fault != CASES["end the broker"][0]
    ]
    simulation.call("load", load().load)
    struck = [simulation.strike(planned(fault).fault) for fault in lasting]
    assert all(each.ended_us is None for each in struck)
    with pytest.raises(Deadlock):
        simulation.drain(seconds=5)
    simulation.heal()
    assert all(each.ended_us is not None for each in struck)
    ended = [each.ended_us for each in struck]
    simulation.heal()
    simulation.drain()
    assert [each.ended_us for each in struck] == ended
    assert not simulation.network.links.active


@pytest.mark.parametrize("disk", ["full disk", "failing syncs", "torn write"])
def test_a_broker_whose_disk_fails_it_ends_all_the_same(disk: str) -> None:
    broken, _ = CASES[disk]
    end = planned({"kind": "end", "process": "broker", "lasts_s": 0.05}, {**AT, "seconds": 0.11})
    done = run("views", planned(broken), end)
    assert done.audit().describe() == "audit: valid"
    assert done.simulation.broker.life == 2


def test_what_does_not_fit_is_refused_before_anything_is_done() -> None:
    simulation = Simulation(shop("views", "memory", 50, False), seed=3)
    plan = [planned({"kind": "kill", "process": "broker"}), planned({"kind": "full-disk", "lasts_s": 1})]
    with pytest.raises(ConfigurationError, match="at level memory there is no disk, only memory"):
        simulation.arrange(plan)
    with pytest.raises(ConfigurationError, match="there is no process 'oders/0'"):
        simulation.strike(Kill(process="oders/0"))
    with pytest.raises(ConfigurationError, match="nobody brings a load yet"):
        simulation.strike(Kill(process="generator"))
    slow = planned({"kind": "slow-disk", "extra_ms": 5, "lasts_s": 1}).fault
    with pytest.raises(ConfigurationError, match="at level os nothing waits for a sync"):
        Simulation(shop("views", "os", 50, False), seed=3).strike(slow)
    simulation.drain()
    assert simulation.deaths == 0


def test_a_plan_is_the_same_from_a_file() -> None:
    plan = tuple(planned(fault) for fault, _ in CASES.values())
    read = PLAN.validate_json(PLAN.dump_json(plan))
    runs = [run("views", *each) for each in (plan, read)]
    assert seen(runs[0]) == seen(runs[1])
    assert runs[0].audit().verdict == runs[1].audit().verdict == "valid"

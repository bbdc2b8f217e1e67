"""Carries out planned faults on a simulation: deaths, standing still, and what goes wrong with a disk."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from eventmesh.errors import ConfigurationError
from eventmesh.log.simulated_storage import SimulatedStorage
from eventmesh.runtime import faults
from eventmesh.runtime.faults import (
    BROKER,
    GENERATOR,
    MACHINE,
    AtTime,
    FailingSyncs,
    Fault,
    Freeze,
    FullDisk,
    Kill,
    LostUnsynced,
    Planned,
    Struck,
    TornWrite,
)
from eventmesh.runtime.simulated.network import Process
from eventmesh.runtime.simulated.simulation import Simulation

SECOND = 1_000_000
#: The kinds that are carried out.
KINDS = ("kill", "freeze", "full-disk", "failing-syncs", "torn-write", "lost-unsynced")
#: Whether a moment may be an offset.
AT_OFFSETS = False


def arrange(simulation: Simulation, plan: Iterable[Planned], callers: Iterable[str] = ()) -> list[Struck]:
    """Do each at its moment, times counted from now; the list that comes back grows as they strike."""
    plan, done = list(plan), list[Struck]()
    faults.check(plan, simulation.mesh, "simulated", callers)
    for number, each in enumerate(plan):
        moment = faults.fixed(each.moment, simulation.world.dice(f"moment {number}"))
        if each.fault.kind not in KINDS or not isinstance(moment, AtTime):
            raise ConfigurationError(f"{each.fault.kind} {moment.kind}: the simulation does not carry that out")
        simulation.world.after(round(moment.seconds * SECOND), partial(_strike, simulation, each.fault, done))
    return done


def _strike(simulation: Simulation, fault: Fault, done: list[Struck]) -> None:
    struck = Struck(fault, simulation.world.now)
    done.append(struck)
    match fault:
        case Kill(process=name) if name == MACHINE:
            for host in simulation.hosts.values():
                _kill(simulation, host, struck)
            _kill_broker(simulation, struck, machine=True)
        case Kill(process=name) if name == BROKER:
            _kill_broker(simulation, struck, machine=False)
        case Kill(process=name):
            _kill(simulation, _named(simulation, name), struck)
        case LostUnsynced():
            _kill_broker(simulation, struck, machine=True)
        case Freeze(process=name, lasts_s=lasts_s):
            process = simulation.broker if name == BROKER else _named(simulation, name)
            process.freeze()
            struck.shows["processes frozen"] += 1
            simulation.world.after(round(lasts_s * SECOND), process.thaw)
        case FullDisk() | FailingSyncs() | TornWrite():
            _of_disk(simulation, fault, struck)
        case _:
            raise AssertionError(f"{fault.kind} was checked before")


def _named(simulation: Simulation, name: str) -> Process:
    return list(simulation.clients.values())[-1] if name == GENERATOR else simulation.process(name)


def _kill(simulation: Simulation, process: Process, struck: Struck) -> None:
    struck.shows["lives ended"] += process.alive
    simulation.kill(process)


def _kill_broker(simulation: Simulation, struck: Struck, *, machine: bool) -> None:
    struck.shows["lives ended"] += simulation.broker.alive
    simulation.kill_broker(machine=machine)


def _of_disk(simulation: Simulation, fault: FullDisk | FailingSyncs | TornWrite, struck: Struck) -> None:
    disk = simulation.storage
    assert isinstance(disk, SimulatedStorage)
    struck.shows["disks hit"] += 1
    if isinstance(fault, TornWrite):
        disk.die_after = fault.after_bytes if simulation.broker.alive else None
        return
    switch = "full" if isinstance(fault, FullDisk) else "fail_sync"
    setattr(disk, switch, True)
    simulation.world.after(round(fault.lasts_s * SECOND), lambda: setattr(disk, switch, False))

"""A whole mesh in one process, without Ray: every member with its threads and wires, and faults that all are told."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pyarrow as pa

from eventmesh.audit.verdict import Audit
from eventmesh.history import Dumps, History
from eventmesh.lab.run import audit_folder
from eventmesh.log.store import read_stored
from eventmesh.mesh import Mesh
from eventmesh.runtime.faults import ClockJump, Fault, Struck
from eventmesh.runtime.limits import Limits
from eventmesh.runtime.process.broker_member import BrokerMember
from eventmesh.runtime.process.caller_member import CallerMember
from eventmesh.runtime.process.directory import BROKER, FixedDirectory, Peer
from eventmesh.runtime.process.disk import DiskFault
from eventmesh.runtime.process.service_member import ServiceMember
from eventmesh.runtime.process.vitals import Process
from eventmesh.workload import Requests

SOON_S = 30.0
#: Who waits in vain for an answer asks again after 0.2 s, so that tests do not take long.
LIMITS = Limits(attempt_timeout=200_000)


def until(done: Callable[[], bool], timeout_s: float = SOON_S) -> None:
    """Wait for it."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class WholeMesh:
    """Every process of ``mesh``, as members in this one. The log lies in ``folder``."""

    def __init__(self, mesh: Mesh, folder: Path, *, local: bool = True) -> None:
        stored = read_stored(folder / "log")
        mesh = mesh if stored is None else mesh.on_log(stored.topics)
        self.mesh, self.folder = mesh, folder
        addresses: dict[Peer, str] = {}
        directory = FixedDirectory("whole", addresses)
        self.broker = BrokerMember(mesh.topics(), folder / "log", mesh.log.durability, "test")
        addresses[BROKER] = self.broker.address()
        self.services: dict[Peer, ServiceMember] = {}
        for service, section in mesh.services.items():
            for number in range(section.instances):
                member = self.services[service, number] = ServiceMember(
                    mesh, service, number, directory, rtt_ms=0.0, seed=1, limits=LIMITS, local=local
                )
                addresses[service, number] = member.address()
        self.generator = CallerMember(mesh, directory, folder / "generator", rtt_ms=0.0, seed=1)
        self.generator.local = local
        self._numbers = count()
        until(lambda: all(each.status()["live"] for each in self.services.values()))

    @property
    def processes(self) -> list[Process]:
        """All of them, in the order in which they are to close."""
        return [self.generator, *self.services.values(), self.broker]

    def strike(self, fault: Fault) -> list[Struck]:
        """Tell every process that has to do with it; what came of it in each."""
        name = f"fault {next(self._numbers)}"
        processes = [self.broker] if isinstance(fault, DiskFault) else self.processes
        if isinstance(fault, ClockJump):
            processes = processes[:1]  # they all have one clock here
        return [process.strike(fault, name) for process in processes]

    def heal(self) -> None:
        """End every fault."""
        for process in self.processes:
            process.heal()

    def call(self, name: str, requests: Requests) -> pa.Table:
        """Run a load to its end; its history."""
        self.generator.start(name, requests, 1_000)
        until(lambda: bool(self.generator.progress(0.1)["done"]))
        return self.generator.table()

    def audit(self, callers: pa.Table) -> Audit:
        """Wait until all is decided, and judge it."""
        until(lambda: all(each.caught_up(self.broker.ends()) for each in self.services.values()))
        seen = Dumps.all(each.dump() for each in self.services.values())
        history = History(callers, seen.views, drained=True, states=seen.states)
        audit, *_ = audit_folder(self.mesh, self.folder, history)
        return audit

    def close(self) -> None:
        """End every process."""
        for process in self.processes:
            process.close()


def shown(struck: list[Struck]) -> Counter[str]:
    """What came of a fault in all processes."""
    return sum((each.shows for each in struck), Counter())

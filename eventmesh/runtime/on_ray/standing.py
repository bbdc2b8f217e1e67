"""A mesh that stays when the command that started it has ended: its actors are detached, in a namespace of its name."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from eventmesh.errors import PeerLost
from eventmesh.log.batch import LogBatch
from eventmesh.log.store import read_topics
from eventmesh.mesh import Mesh
from eventmesh.progress import position_name
from eventmesh.runtime.on_ray.actors import Actors, Settings, declare, find, home, place
from eventmesh.runtime.on_ray.calls import answered, eventually, get, wait_until
from eventmesh.runtime.on_ray.directory import RayDirectory
from eventmesh.runtime.on_ray.driver import connected
from eventmesh.runtime.on_ray.running import RayMesh
from eventmesh.runtime.on_ray.supervisor import LEASE_S, SupervisorProcess
from eventmesh.runtime.process.backbone import Backbone, BrokerBackbone, Callbacks, follow
from eventmesh.runtime.process.directory import BROKER, GENERATOR, Peer, peer_name
from eventmesh.runtime.process.undos import Undo
from eventmesh.runtime.process.vitals import numbered_by
from eventmesh.runtime.wire.channel import Access
from eventmesh.runtime.wire.connection import flight_location

SUPERVISOR: Peer = ("supervisor", 0)
#: Seconds that a process has to say how it is: one that does not is shown as silent.
LOOK_S = 2.0
#: Seconds that an interrupted run may still take.
FINISHING_S = 3_600.0
#: What is to be undone after faults, beside the log.
UNDOS = "undos.json"
#: Seconds that Ray has to end what it was told to kill.
ENDING_S = 5.0
#: Stands among the peers that are asked for where the broker is served.
_LOCATION: Peer = ("flight", 0)


@contextmanager
def joined(address: str) -> Iterator[None]:
    """A driver in the Ray cluster at ``address``; :class:`~eventmesh.errors.EnvironmentUnavailable` without one."""
    problem = (
        f"no Ray can be joined at {address}. Is it up, reachable from here, and given the token that it asks for, if "
        f"it does (RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH)?"
    )
    with connected(address, problem):
        yield


class SupervisedUndos:
    """The list of undos that the supervisor keeps. See :class:`~eventmesh.runtime.on_ray.strikes.KeepsUndos`."""

    def __init__(self, directory: RayDirectory) -> None:
        self._directory = directory
        self._runner = f"{numbered_by()} {os.getpid()} {uuid.uuid4().hex}"
        self._supervisor: Any = None

    def note(self, fault: str, undo: Undo) -> None:
        """See :class:`~eventmesh.runtime.on_ray.strikes.KeepsUndos`."""
        supervisor = self._supervisor = self._directory.actor(SUPERVISOR)
        eventually(lambda: supervisor.note.remote(fault, self._runner, undo), "the supervisor")

    def renew(self) -> None:
        """See :class:`~eventmesh.runtime.on_ray.strikes.KeepsUndos`. Nobody waits for an answer."""
        if self._supervisor is not None:
            self._supervisor.renew.remote(self._runner)

    def forget(self, fault: str) -> None:
        """See :class:`~eventmesh.runtime.on_ray.strikes.KeepsUndos`. Nobody waits for an answer."""
        if self._supervisor is not None:
            self._supervisor.forget.remote(fault)


class StandingMesh(RayMesh):
    """The processes of a mesh that stays. Made within :func:`joined`."""

    def __init__(self, mesh: Mesh, directory: RayDirectory, log_directory: Path, actors: Actors) -> None:
        super().__init__(mesh, actors, log_directory, SupervisedUndos(directory))
        self.directory = directory

    @classmethod
    def start(
        cls, mesh: Mesh, name: str, log_directory: Path, access: Access, *, cluster_id: str, lease_s: float = LEASE_S
    ) -> StandingMesh:
        """Place every process, with a supervisor that stays, too, and wait until all services decide."""
        directory = RayDirectory.of(name, access)
        settings = Settings(cluster_id, detached=True)
        standing = cls(mesh, directory, log_directory, place(mesh, directory, log_directory, settings))
        peers = list(standing.actors.all)
        declare(
            SupervisorProcess, SUPERVISOR, directory.namespace, restarts=True, detached=True, scheduling_strategy=home()
        ).remote(directory, peers, lease_s, undos=log_directory.with_name(UNDOS))  # fmt: skip
        standing.wait_until_live()
        wait_until(standing._all_watched, "the supervisor to know every process")
        return standing

    def _all_watched(self) -> bool:
        watched = get(self.directory.actor(SUPERVISOR).watched.remote())
        return all(each["pid"] for each in watched.values())

    @classmethod
    def found(cls, mesh: Mesh, name: str, log_directory: Path, access: Access, *, whole: bool = True) -> StandingMesh:
        """The mesh called ``name``, which stands; :class:`~eventmesh.errors.PeerLost` if it does not, or not ``whole``.

        Of one that may have lost processes for good, look at it, heal it or end it.
        """
        directory = RayDirectory.of(name, access)
        return cls(mesh, directory, log_directory, find(mesh, directory, whole=whole))

    def heal(self) -> None:
        """End every fault that lasts, also those that another command made."""
        super().heal()
        eventually(self.directory.actor(SUPERVISOR).undo.remote, "the supervisor")

    def look(self) -> dict[str, Any]:
        """How it is, within a few seconds whatever the processes do.

        ``processes`` has a row for each: ``name, pid, restarts, state`` (live, starting, silent, down); ``services``
        what each instance says of itself, ``log`` what the broker says of it; both only of those that answered.
        ``flight`` is where any Flight client reads the log, None where the broker did not answer.
        """
        there, peers = self.actors.all, [*self.actors.services, BROKER, GENERATOR]
        asked = {
            peer: actor.pid.remote() if peer == GENERATOR else actor.status.remote() for peer, actor in there.items()
        }
        if BROKER in there:
            asked[_LOCATION] = there[BROKER].address.remote()
        watched = self._watched()
        answers = answered(asked, LOOK_S)
        location = answers.pop(_LOCATION, None)
        return {
            "processes": [_process(peer, watched.get(peer, {}), answers.get(peer)) for peer in (*peers, SUPERVISOR)],
            "services": {peer_name(peer): answers[peer] for peer in self.actors.services if peer in answers},
            "log": answers.get(BROKER),
            "flight": flight_location(location) if location is not None else None,
        }

    def _watched(self) -> Mapping[Peer, Mapping[str, Any]]:
        try:
            supervisor = self.directory.actor(SUPERVISOR)
            watched, pid = ray.get([supervisor.watched.remote(), supervisor.pid.remote()], timeout=LOOK_S)
        except (PeerLost, ray.exceptions.RayError):
            return {SUPERVISOR: {"down": True}}
        return {**watched, SUPERVISOR: {"pid": pid}}

    def end(self) -> None:
        """End the supervisor's watch first, lest it take the closing for a death, then the others, and who is left."""
        self.strikes.close()
        supervisor: Any = None
        with suppress(PeerLost, ray.exceptions.RayError):
            supervisor = self.directory.actor(SUPERVISOR)
            ray.get(supervisor.close.remote(), timeout=ENDING_S)
        self.actors.end()
        with suppress(ray.exceptions.RayError):
            if supervisor is not None:
                ray.get(supervisor.end.remote(ENDING_S), timeout=2 * ENDING_S)
                ray.kill(supervisor)

    def batches(self, topic: str, offsets: Mapping[int, int]) -> Iterator[tuple[str, LogBatch]]:
        """Batches of ``topic`` by partition name, from ``offsets`` on and as they come, for ever.

        Goes on with the broker that follows one that died; :class:`~eventmesh.errors.PeerLost` where none does, or
        where this process and the broker do not understand each other.
        """
        topics = {topic: read_topics(self.log_directory)[topic]}  # as the log has them, whatever is found here

        def connect(callbacks: Callbacks) -> Backbone:
            return BrokerBackbone(
                self._broker_address, callbacks, topics=topics, access=self.directory.access, once=True
            )  # fmt: skip

        cursors = {(topic, partition): offset for partition, offset in offsets.items()}
        for _, partition, entry in follow(connect, cursors):
            yield position_name(topic, partition), entry

    def _broker_address(self) -> str:
        address: str = eventually(self.directory.actor(BROKER).address.remote, "the broker")
        return address

    def finished(self, progress: Callable[[Mapping[str, Any]], None]) -> tuple[str, pa.Table] | None:
        """The generator's last workload and its history, once it is at its end; None where it never had one."""
        generator = self.actors.generator
        name = eventually(generator.begun.remote, "the generator")
        if name is None:
            return None

        look = self.looking()

        def done() -> bool:
            state = look()
            if not state["done"]:
                progress(state)
            return bool(state["done"])

        wait_until(done, f"{name} to have every outcome", FINISHING_S)
        return name, eventually(generator.table.remote, f"the history of {name}")


def _process(peer: Peer, watched: Mapping[str, Any], answer: Any) -> dict[str, Any]:
    if peer == SUPERVISOR:
        state = "down" if watched.get("down") else "live"
    elif answer is None:
        state = "silent" if watched.get("pid") else "down"
    else:
        state = "live" if not isinstance(answer, dict) or answer.get("live", True) else "starting"
    return {
        "name": peer_name(peer), "state": state, "pid": watched.get("pid"), "restarts": watched.get("restarts", 0),
    }  # fmt: skip

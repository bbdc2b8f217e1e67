"""The actors of a mesh: where they are placed, how they are found again, and how they end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from eventmesh.errors import PeerLost
from eventmesh.log.partition import Durability
from eventmesh.mesh import Mesh
from eventmesh.runtime import journal
from eventmesh.runtime.limits import Limits
from eventmesh.runtime.on_ray.directory import RayDirectory
from eventmesh.runtime.on_ray.ray_metrics import RayRegistry
from eventmesh.runtime.process.broker_member import BrokerMember
from eventmesh.runtime.process.caller_member import CallerMember
from eventmesh.runtime.process.directory import BROKER, GENERATOR, Peer, peer_name
from eventmesh.runtime.process.handed import Handed
from eventmesh.runtime.process.housekeeping import Housekeeping
from eventmesh.runtime.process.service_member import ServiceMember

#: Seconds that processes have to close in an orderly way.
CLOSING_S = 10.0


@dataclass(frozen=True)
class Settings:
    """How a mesh runs, beside what its file says. ``detached``: it stays when the process that placed it has ended.

    ``cluster_id`` is the log's. With ``local`` False services go over Flight wherever they run.
    """

    cluster_id: str
    rtt_ms: float = 0.0
    seed: int = 0
    limits: Limits | None = None
    local: bool = True
    detached: bool = False


@dataclass(frozen=True)
class Actors:
    """Handles to every process of a mesh but its supervisor; None for one that is not there any more."""

    broker: Any
    services: Mapping[Peer, Any]
    generator: Any

    @property
    def all(self) -> dict[Peer, Any]:
        """Those that are there, by name, in the order in which they are to close: who writes before who keeps."""
        listed = {GENERATOR: self.generator, **self.services, BROKER: self.broker}
        return {peer: actor for peer, actor in listed.items() if actor is not None}

    def end(self) -> None:
        """Ask every process to close, then kill it. One that is stopped outlives this: see the supervisor."""
        closing = [actor.close.remote() for actor in self.all.values()]
        ray.wait(closing, num_returns=len(closing), timeout=CLOSING_S)
        for actor in self.all.values():
            ray.kill(actor)


def service_peers(mesh: Mesh) -> list[Peer]:
    """Every service instance of the mesh."""
    return [(service, number) for service, section in mesh.services.items() for number in range(section.instances)]


def place(mesh: Mesh, directory: RayDirectory, log_directory: Path, settings: Settings) -> Actors:
    """Start every process. Broker and generator are bound to this node, where their files are (rule 7)."""
    # A log in memory dies with its process: another one in its place would have lost what was acknowledged.
    kept = mesh.log.durability != Durability.memory

    # As the mesh that it is once it is unpacked: by a process that imports the application that was checked.
    handed: Any = Handed(mesh, mesh.sources)

    def actor(kind: type, peer: Peer, where: NodeAffinitySchedulingStrategy, *, restarts: bool = True) -> Any:
        return declare(
            kind, peer, directory.namespace, restarts=restarts, detached=settings.detached, scheduling_strategy=where
        )

    broker = actor(BrokerMember, BROKER, home(), restarts=kept).remote(
        mesh.topics(), log_directory, mesh.log.durability, settings.cluster_id, int(settings.rtt_ms * 500),
        directory.access,
        partial(Housekeeping, handed, log_directory, settings.cluster_id) if mesh.keeps_snapshots else None,
        directory.mesh, RayRegistry,
    )  # fmt: skip
    services = {
        peer: actor(ServiceMember, peer, where).remote(
            handed, *peer, directory, rtt_ms=settings.rtt_ms, seed=settings.seed, limits=settings.limits,
            local=settings.local, registries=RayRegistry,
        )
        for peer, where in zip(service_peers(mesh), nodes_in_turn(), strict=False)
    }  # fmt: skip
    generator = actor(CallerMember, GENERATOR, home()).remote(
        handed, directory, log_directory.with_name(journal.GENERATOR), rtt_ms=settings.rtt_ms, seed=settings.seed
    )
    return Actors(broker, services, generator)


def home() -> NodeAffinitySchedulingStrategy:
    """This node and no other, not even when it is gone: where the files are."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def nodes_in_turn() -> Iterator[NodeAffinitySchedulingStrategy]:
    """Each node of the cluster, again and again. This one is the last of them, since broker and generator are here.

    A service whose node is gone may start again on any other.
    """
    here = ray.get_runtime_context().get_node_id()
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    nodes.sort(key=lambda node: (node == here, node))
    return cycle([NodeAffinitySchedulingStrategy(node, soft=True) for node in nodes])


def find(mesh: Mesh, directory: RayDirectory, *, whole: bool = True) -> Actors:
    """The processes of a mesh that stands; :class:`~eventmesh.errors.PeerLost` where one of a ``whole`` one is gone.

    One that found other files of its application than were checked is not started again, and has no name any more.
    """

    def found(peer: Peer) -> Any:
        try:
            return directory.actor(peer)
        except PeerLost:
            if whole:
                raise
            return None

    return Actors(found(BROKER), {peer: found(peer) for peer in service_peers(mesh)}, found(GENERATOR))


def declare(kind: type, peer: Peer, namespace: str, *, restarts: bool, detached: bool, **options: Any) -> Any:
    """Ray's actor class of a plain class. No CPU is reserved: the machine's cores are shared by choice.

    A process that has died is started again by Ray, from its constructor; calls are never repeated.
    """
    declared: Any = ray.remote  # its declaration does not know of concurrency groups
    return declared(num_cpus=0, concurrency_groups={"lease": 1, "faults": 1})(kind).options(
        name=peer_name(peer), namespace=namespace, max_restarts=-1 if restarts else 0,
        lifetime="detached" if detached else None, **options,
    )  # fmt: skip

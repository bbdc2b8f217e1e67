"""Where the processes of a mesh are: actors named ``service/instance``, in a namespace of the mesh's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray

from eventmesh.errors import PeerLost
from eventmesh.runtime.process.directory import BROKER, Peer, peer_name
from eventmesh.runtime.wire.channel import OPEN, Access

#: Seconds that a process may take to say where it is served; one that is just starting is asked again.
ANSWER_S = 5.0
PREFIX = "eventmesh-"


def node_address() -> str:
    """What Ray has for this node, by which other nodes reach it."""
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class RayDirectory:
    """Finds the processes of the mesh in ``namespace``, wherever Ray has started them again.

    See :class:`~eventmesh.runtime.process.directory.Directory`.
    """

    namespace: str
    access: Access = OPEN

    @classmethod
    def of(cls, mesh: str, access: Access = OPEN) -> RayDirectory:
        """That of the mesh called ``mesh``: its actors are in a namespace of that name."""
        return cls(f"{PREFIX}{mesh}", access)

    @property
    def mesh(self) -> str:
        """What the mesh is called."""
        return self.namespace.removeprefix(PREFIX)

    def actor(self, peer: Peer) -> Any:
        """The actor; :class:`~eventmesh.errors.PeerLost` if there is none of that name."""
        try:
            return ray.get_actor(peer_name(peer), self.namespace)
        except ValueError as error:
            raise PeerLost(f"there is no {peer_name(peer)} in {self.namespace}") from error

    def ends(self) -> dict[str, int]:
        """The log's ends by ``topic/partition``; none while the broker is not up, or its log has stopped."""
        try:
            ends: dict[str, int] = ray.get(self.actor(BROKER).ends.remote(), timeout=ANSWER_S)
        except (PeerLost, ray.exceptions.RayError):
            return {}
        return ends

    def address(self, peer: Peer) -> str:
        """Where it is served now; :class:`~eventmesh.errors.PeerLost` while it is not up."""
        actor = self.actor(peer)
        try:
            address: str = ray.get(actor.address.remote(), timeout=ANSWER_S)
        except (ray.exceptions.RayError, TimeoutError) as error:
            raise PeerLost(f"{peer_name(peer)} is not up") from error
        return address

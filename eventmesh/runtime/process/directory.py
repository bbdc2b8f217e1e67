"""Where the processes of a mesh are: whoever needs another one asks again and again, since it may have moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from eventmesh.errors import PeerLost
from eventmesh.runtime.wire.channel import OPEN, Access

#: (service, instance).
Peer = tuple[str, int]
BROKER: Peer = ("broker", 0)
GENERATOR: Peer = ("generator", 0)


def peer_name(peer: Peer) -> str:
    """``service/instance``."""
    return f"{peer[0]}/{peer[1]}"


def peer_called(name: str) -> Peer:
    """The process that faults call so: ``service/instance``, or the broker or the generator without a number."""
    service, slash, number = name.rpartition("/")
    return (service, int(number)) if slash else (name, 0)


class Directory(Protocol):
    """Finds the processes of the mesh called ``mesh``; ``access`` is theirs."""

    @property
    def mesh(self) -> str:
        """What the mesh is called."""

    @property
    def access(self) -> Access:
        """Who is let in."""

    def address(self, peer: Peer) -> str:
        """Where it is served now; :class:`~eventmesh.errors.PeerLost` while it is not up."""

    def ends(self) -> dict[str, int]:
        """The log's ends by ``topic/partition``; none while the broker is not up, or its log has stopped."""


@dataclass(frozen=True)
class FixedDirectory:
    """Processes that stay where they are, at these ``addresses``. It asks nobody, so it knows no ends."""

    mesh: str
    addresses: Mapping[Peer, str] = field(default_factory=dict)
    access: Access = OPEN

    def address(self, peer: Peer) -> str:
        """See :class:`Directory`."""
        try:
            return self.addresses[peer]
        except KeyError:
            raise PeerLost(f"{peer_name(peer)} has no address in {self.mesh}") from None

    def ends(self) -> dict[str, int]:
        """See :class:`Directory`."""
        return {}

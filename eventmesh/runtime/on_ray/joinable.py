"""Whether a driver of this machine can join a Ray: tried first, since Ray ends one that finds its sockets gone."""

from __future__ import annotations

import socket
from contextlib import suppress

import psutil

from eventmesh.errors import EnvironmentUnavailable

#: Seconds in which a socket of this machine takes a connection, if anybody still listens.
_LISTENS_S = 1.0


class SocketLost(EnvironmentUnavailable):
    """Ray's processes run on this machine, and nobody can connect to ``socket`` of theirs."""

    def __init__(self, lost: str) -> None:
        self.socket = lost
        super().__init__(
            f"the processes of Ray run, and nothing can reach them: {lost} is gone. Programs that clean up temporary "
            f"files do that. End that Ray and start it again"
        )


def must_be_joinable(address: str) -> None:
    """:class:`SocketLost` where a driver of this machine cannot join the Ray at ``address``.

    Where no node of that Ray is seen here, Ray itself says what is wrong.
    """
    for path in _sockets(address):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tried:
            tried.settimeout(_LISTENS_S)
            try:
                tried.connect(path)
            except OSError as error:
                raise SocketLost(path) from error


def _sockets(address: str) -> list[str]:
    """Those of the raylet that belongs to this Ray: its command line names them."""
    host, _, port = address.rpartition(":")
    if not host:  # local, auto
        return []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            words = dict(word.split("=", 1) for word in process.cmdline() if "=" in word)
            where, _, gcs_port = words.get("--gcs-address", "").rpartition(":")
            if "--raylet_socket_name" in words and gcs_port == port and _same_host(where, host):
                return [words["--raylet_socket_name"], words["--store_socket_name"]]
    return []


def _same_host(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return socket.gethostbyname(one) == socket.gethostbyname(other)
    except OSError:
        return False

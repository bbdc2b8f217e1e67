"""Whether a driver of this machine can join a Ray: tried first, since Ray ends one that finds its sockets gone."""

from __future__ import annotations

import socket
from contextlib import suppress

import psutil

#: Seconds in which a socket of this machine takes a connection, if anybody still listens.
_LISTENS_S = 1.0


def lost_socket(address: str) -> str | None:
    """The socket of the Ray at ``address`` that nobody can connect to on this machine; None where all is well.

    None also where no node of that Ray is seen here: then Ray itself says what is wrong.
    """
    for path in _sockets(address):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tried:
            tried.settimeout(_LISTENS_S)
            try:
                tried.connect(path)
            except OSError:
                return path
    return None


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

"""A doorbell: a Unix datagram socket that wakes a reader on the same machine, and never holds up who rings.

A ring carries nothing: a full doorbell is not rung again, since what its owner looks at when it wakes says all.
Its name is in Linux's abstract namespace, so that no file is left behind whoever dies.
"""

from __future__ import annotations

import select
import socket
import sys
import uuid
from contextlib import suppress

#: Rings that are taken in one go; a queue of datagrams holds about a dozen.
RINGS_MAX = 1_024


def available() -> bool:
    """Whether this machine has them."""
    return sys.platform == "linux"


class Doorbell:
    """The reader's side. ``name`` is what a ringer needs to know."""

    def __init__(self) -> None:
        self.name = f"eventmesh-{uuid.uuid4().hex}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{self.name}")
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def wait(self, timeout_s: float) -> bool:
        """Until it rings, for at most ``timeout_s``; all rings so far count as one."""
        if not self._poll.poll(timeout_s * 1_000):
            return False
        try:
            for _ in range(RINGS_MAX):
                self._socket.recv(1)
        except BlockingIOError:
            return True
        return True

    def ring(self) -> None:
        """Wake the reader from within its own process; it may have gone already."""
        with suppress(ConnectionRefusedError):
            ringer = Ringer(self.name)
            ringer.ring()
            ringer.close()

    def close(self) -> None:
        """Its name is free again."""
        self._socket.close()


class Ringer:
    """The other side. ``OSError`` when made: nobody has a doorbell of this name here."""

    def __init__(self, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.connect(f"\0{name}")
        except OSError:
            self._socket.close()
            raise

    def ring(self) -> bool:
        """Wake the reader; False where it is gone."""
        try:
            self._socket.send(b"\0")
        except BlockingIOError:
            return True  # it has been rung often enough
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Ring no more."""
        self._socket.close()

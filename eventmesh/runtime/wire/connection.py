"""Streams of frames between processes: the transport seam of the runtime on Ray.

A :class:`Connection` sends frames and hands received ones to a callback on a thread of its own; a
:class:`Listener` serves such connections. Between processes of one node frames go through a Unix socket
(``unix.py``), elsewhere through Arrow Flight (``flight.py``); neither side can tell which. What a frame means is none
of this module's business.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from eventmesh.errors import PeerLost, ProtocolError
from eventmesh.runtime.wire import unix
from eventmesh.runtime.wire.channel import ENDING_S, OPEN, Access, Channel, Received, Serving, Stream, take_all
from eventmesh.runtime.wire.flight import FlightServer, FlightStream
from eventmesh.runtime.wire.unix import UnixServer, UnixStream

#: Called once, with why a stream is over.
Lost = Callable[[PeerLost], None]
#: How an address names the Unix socket: ``grpc://host:port?socket=NAME``. Any Flight client takes it as it is.
_SOCKET = "?socket="


class Listener:
    """Serves streams on a free port, and on a Unix socket where there is one. ``address`` is where others find it.

    A client that sends what cannot be taken is told so on its own stream, which ends; nobody else is touched.
    """

    def __init__(self, serving: Serving, access: Access = OPEN) -> None:
        self._flight = FlightServer(serving, access)
        self._unix = UnixServer(serving, access) if unix.available() else None
        self.address = self._flight.address + (f"{_SOCKET}{self._unix.name}" if self._unix else "")

    def end(self) -> None:
        """Stop serving: every client is told, and who does not go is not waited for for long."""
        if self._unix is not None:
            self._unix.end()
        self._flight.end()


class Connection:
    """A stream to the listener at ``address``. ``lost`` is called once, on the reading thread, when it is over: with
    :class:`~eventmesh.errors.ProtocolError` where one side could not take what the other sent, with another
    :class:`~eventmesh.errors.PeerLost` where it broke, or the listener ended.

    With ``local`` False it goes over Flight, wherever the listener is. Raises ``PeerLost`` where nobody is there,
    ``ProtocolError`` where the listener is of another version, and :class:`~eventmesh.errors.Unauthenticated` where
    ``access`` does not have the right token.
    """

    def __init__(
        self,
        address: str,
        purpose: str,
        received: Received,
        lost: Lost,
        access: Access = OPEN,
        *,
        local: bool = True,
    ) -> None:
        self.address = address
        self._received, self._lost = received, lost
        self._closing = False
        self._stream = _open(address, purpose, access, local)
        self.channel = Channel(self._stream.wire)
        self._thread = threading.Thread(target=self._read, name=f"read {purpose} {address}", daemon=True)
        self._thread.start()

    @property
    def is_local(self) -> bool:
        """Whether it goes through a Unix socket."""
        return isinstance(self._stream, UnixStream)

    def _read(self) -> None:
        over = take_all(self._received, self._stream.frames(), self.channel, self.address)
        if self._closing:
            return
        self.channel.end()
        if isinstance(over, ProtocolError):
            self._stream.read_out()
        self._stream.close()
        self._lost(over)

    def close(self) -> None:
        """End the stream; ``lost`` is not called any more."""
        self._closing = True
        self.channel.stop()
        self._stream.wire.end()
        if self._thread is not threading.current_thread():
            self._thread.join(ENDING_S)
        self._stream.close()


def flight_location(address: str) -> str:
    """Where a Flight client connects to the listener at ``address``."""
    return address.partition(_SOCKET)[0]


def _open(address: str, purpose: str, access: Access, local: bool) -> Stream:
    """Through the Unix socket, if it is one of this machine's."""
    location, _, name = address.partition(_SOCKET)
    socket: Any = unix.connect(name) if local and name and unix.available() else None
    if socket is None:
        return FlightStream(location, purpose, access)
    return UnixStream(socket, address, purpose, access)

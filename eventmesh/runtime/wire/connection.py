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
from eventmesh.runtime.wire import protocol, unix
from eventmesh.runtime.wire.channel import ENDING_S, OPEN, Access, Channel, Received, Serving, Stream, take_all
from eventmesh.runtime.wire.faulty import FaultyWire, LinkFaults
from eventmesh.runtime.wire.flight import FlightServer, FlightStream
from eventmesh.runtime.wire.unix import UnixServer, UnixStream

#: Called once, with why a stream is over.
Lost = Callable[[PeerLost], None]
#: How an address names the Unix socket: ``grpc://host:port?socket=NAME``. Any Flight client takes it as it is.
_SOCKET = "?socket="


class Listener:
    """Serves streams on a free port, and on a Unix socket where there is one. ``address`` is where others find it.

    A client that sends what cannot be taken is told so on its own stream, which ends; nobody else is touched.
    ``link_faults`` are those of its process, on which faults may act.
    """

    def __init__(self, serving: Serving, access: Access = OPEN, link_faults: LinkFaults | None = None) -> None:
        faults = link_faults or LinkFaults()
        self._flight = FlightServer(serving, access, faults)
        self._unix = UnixServer(serving, access, faults) if unix.available() else None
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

    With ``local`` False it goes over Flight, wherever the listener is. Where faults may act on it, ``link_faults`` are
    those of its process, and ``peer`` is what the other one is called. Raises ``PeerLost`` where nobody is there,
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
        link_faults: LinkFaults | None = None,
        peer: str = "",
    ) -> None:
        self.address, self.peer = address, peer
        self._link_faults = link_faults or LinkFaults()
        self._link_faults.check_reach(peer)
        hello = self._link_faults.hello(purpose, peer)
        self.name = hello.connection
        self._received, self._lost = received, lost
        self._closing = False
        self._stream = _open(address, hello, access, local)
        self._wire = FaultyWire(self._stream.wire, self._link_faults, peer, self.name)
        self.channel = Channel(self._wire)
        self._thread = threading.Thread(target=self._read, name=f"read {purpose} {address}", daemon=True)
        self._link_faults.opened(self)
        self._thread.start()

    @property
    def is_local(self) -> bool:
        """Whether it goes through a Unix socket."""
        return isinstance(self._stream, UnixStream)

    def _read(self) -> None:
        over = take_all(self._received, self._stream.frames(), self.channel, self.address)
        self._link_faults.closed(self)
        if self._closing:
            return
        self.channel.end()
        if isinstance(over, ProtocolError):
            self._stream.read_out()
        self._stream.close()
        self._lost(over)

    def break_off(self) -> None:
        """End the stream as if its wire had broken: both sides are told."""
        self._stream.break_off()

    def close(self) -> None:
        """End the stream; ``lost`` is not called any more."""
        self._closing = True
        self._link_faults.closed(self)
        self.channel.stop()
        self._wire.end()
        if self._thread is not threading.current_thread():
            self._thread.join(ENDING_S)
        self._stream.close()


def flight_location(address: str) -> str:
    """Where a Flight client connects to the listener at ``address``."""
    return address.partition(_SOCKET)[0]


def _open(address: str, hello: protocol.Hello, access: Access, local: bool) -> Stream:
    """Through the Unix socket, if it is one of this machine's."""
    location, _, name = address.partition(_SOCKET)
    socket: Any = unix.connect(name) if local and name and unix.available() else None
    if socket is None:
        return FlightStream(location, hello, access)
    return UnixStream(socket, address, hello, access)

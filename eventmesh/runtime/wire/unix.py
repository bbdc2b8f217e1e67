"""Streams through a Unix socket, between processes of one node: a fifth of the time that Flight takes.

A message is the length of a frame (uint32), four zeros, and the frame, padded to 8 bytes. The client says who it is and
what it wants, the server lets it in or says why not, and from then on both send frames. The socket's name is in Linux's
abstract namespace: it goes with its process.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import pyarrow as pa

from eventmesh.errors import InputError, PeerLost, Unauthenticated
from eventmesh.runtime.wire import protocol
from eventmesh.runtime.wire.channel import (
    ENDING_S,
    FRAME_BYTES_MAX,
    GONE,
    GOODBYE,
    Access,
    Channel,
    Rest,
    Serving,
    greeted,
    refusal,
    serve,
    too_large,
    welcomed,
)
from eventmesh.runtime.wire.faulty import LinkFaults
from eventmesh.runtime.wire.protocol import Frame

_PREFIX = struct.Struct("<I4x")
#: Bytes that are read at a time; many small frames come in one go.
CHUNK_BYTES = 64 << 10
#: Bytes that are copied together rather than sent as parts; and parts that the kernel takes at a time, two left for us.
JOINED_BYTES, PARTS_MAX = 16 << 10, 1_022
#: Bytes that the kernel takes of a client while nobody reads, or as many as net.core.wmem_max allows: who appends whole
#: batches goes on instead of waiting for the broker's next turn on a core.
SENT_AHEAD_BYTES = 1 << 20
#: Bytes of a client's first words at most, and the seconds that it has for them.
HELLO_BYTES_MAX = 16 << 10
HELLO_S = 5.0


def available() -> bool:
    """Whether this machine has abstract names."""
    return sys.platform == "linux"


def connect(name: str) -> socket.socket | None:
    """A socket to the server of that name; None where there is none on this node."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_AHEAD_BYTES)
    try:
        found.connect(f"\0{name}")
    except OSError:
        found.close()
        return None
    return found


class UnixServer:
    """Serves streams to processes of this node, each on a thread of its own. ``name`` is what they need to know."""

    def __init__(self, serving: Serving, access: Access, link_faults: LinkFaults) -> None:
        self.name = f"eventmesh-{uuid.uuid4().hex}"
        self._serving, self._access, self._link_faults = serving, access, link_faults
        self._clients: set[socket.socket] = set()
        self._channels: set[Channel] = set()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(f"\0{self.name}")
        self._socket.listen()
        threading.Thread(target=self._accept, name="accept", daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # it was shut down
            while True:
                client, _ = self._socket.accept()
                self._clients.add(client)
                threading.Thread(target=self._serve, args=(client,), name="serve", daemon=True).start()
        self._socket.close()

    def _serve(self, client: socket.socket) -> None:
        try:
            with suppress(*GONE):
                self._exchange(client)
        finally:
            self._clients.discard(client)
            client.close()

    def _exchange(self, client: socket.socket) -> None:
        messages = Messages(client, HELLO_BYTES_MAX)
        try:
            hello = self._let_in(client, messages)
        except (Unauthenticated, InputError) as error:
            return write(client, refusal(error))
        channel = Channel(self._link_faults.served(UnixWire(client), hello))
        self._channels.add(channel)
        try:
            serve(self._serving, hello.purpose, channel, messages)
        finally:
            self._channels.discard(channel)

    def _let_in(self, client: socket.socket, messages: Messages) -> protocol.Hello:
        """What the client wants, if it may; it has :data:`HELLO_S` to say so."""
        client.settimeout(HELLO_S)
        hello = greeted(next(messages))
        self._access.check(hello.credentials)
        client.settimeout(None)
        messages.bytes_max = FRAME_BYTES_MAX
        return hello

    def end(self) -> None:
        """Accept nobody any more, and end every stream."""
        told, deadline = list(self._channels), time.monotonic() + ENDING_S
        for channel in told:
            channel.leave(GOODBYE)
        for channel in told:  # one may be busy with a frame before it, such as the first
            channel.await_sent(max(0.0, deadline - time.monotonic()))
        for each in [self._socket, *self._clients]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class UnixWire:
    """The sending side of a stream (:class:`~eventmesh.runtime.wire.channel.Wire`), of either end."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def write(self, frame: Frame) -> None:
        """Send; waits while the other side does not read."""
        write(self._socket, frame)

    def begin(self, frame: Frame) -> Rest | None:
        """Send what the socket has room for, and return the rest."""
        parts = _parts(frame)
        try:
            sent = self._socket.sendmsg(parts, (), socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        rest = _behind(parts, sent)
        return partial(self._socket.sendall, rest) if rest else None

    def end(self) -> None:
        """Send and receive nothing more."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def settle(self) -> None:
        """Nothing: it has no thread."""


class UnixStream:
    """The client's end (:class:`~eventmesh.runtime.wire.channel.Stream`) on a socket of :func:`connect`."""

    def __init__(self, connected: socket.socket, address: str, hello: protocol.Hello, access: Access) -> None:
        self._socket = connected
        self._messages = Messages(connected, FRAME_BYTES_MAX)
        self.wire = UnixWire(connected)
        try:
            self._introduce(address, msgspec.structs.replace(hello, credentials=access.credentials))
        except BaseException:
            connected.close()
            raise

    def _introduce(self, address: str, hello: protocol.Hello) -> None:
        try:
            write(self._socket, protocol.pack(hello))
            answer = next(self._messages)
        except GONE as error:
            raise PeerLost(f"{address} cannot be reached: {error or type(error).__name__}") from error
        welcomed(answer, address)

    def frames(self) -> Iterator[pa.Buffer]:
        """What comes in, until either side ends the stream."""
        return self._messages

    def read_out(self) -> None:
        """Nothing: what was sent stays for the other side to read."""

    def break_off(self) -> None:
        """End it as if the wire had broken, at both ends."""
        self.wire.end()

    def close(self) -> None:
        """Let go of it, at once."""
        self._socket.close()


def write(to: socket.socket, frame: Frame) -> None:
    """Send a message; waits while the other side does not read."""
    parts = _parts(frame)
    rest = _behind(parts, to.sendmsg(parts))
    if rest:
        to.sendall(rest)


def _parts(frame: Frame) -> list[Any]:
    length = sum(map(len, frame))
    if length <= JOINED_BYTES or len(frame) > PARTS_MAX:
        frame = [b"".join(frame)]
    return [_PREFIX.pack(length), *frame, bytes(_padding(length))]


def _behind(parts: list[Any], sent: int) -> bytes:
    """What of them follows the first ``sent`` bytes."""
    return b"".join(parts)[sent:] if sent < sum(map(len, parts)) else b""


def _padding(length: int) -> int:
    return -length % 8


class Messages:
    """The frames that come in on ``source``, until it ends. Each shares the memory that it was read into.

    A message longer than ``bytes_max`` raises :class:`~eventmesh.errors.InputError` before it is read.
    """

    def __init__(self, source: socket.socket, bytes_max: int) -> None:
        self._source, self.bytes_max = source, bytes_max
        self._data: bytes | pa.Buffer = b""  # begins with a message, as far as it has come
        self._at = 0

    def __iter__(self) -> Messages:
        return self

    def __next__(self) -> pa.Buffer:
        while True:
            whole = self._whole()
            if whole <= len(self._data) - self._at:
                return self._next(whole)
            self._read(whole)

    def _whole(self) -> int:
        """Bytes of the next message with its prefix, as far as that is known."""
        if len(self._data) - self._at < _PREFIX.size:
            return _PREFIX.size
        (length,) = _PREFIX.unpack_from(self._data, self._at)
        if length > self.bytes_max:
            raise too_large(length)
        return _PREFIX.size + int(length) + _padding(length)

    def _next(self, whole: int) -> pa.Buffer:
        (length,) = _PREFIX.unpack_from(self._data, self._at)
        frame = pa.py_buffer(self._data).slice(self._at + _PREFIX.size, length)
        self._at += whole
        return frame

    def _read(self, whole: int) -> None:
        """Take in more: what there is, or exactly the rest of a message that is larger than that."""
        rest = self._data[self._at :]
        if whole <= CHUNK_BYTES:
            chunk = self._source.recv(CHUNK_BYTES)
            if not chunk:
                raise StopIteration
            self._data = rest + chunk if rest else chunk
        else:
            self._data = self._rest_of(whole, rest)
        self._at = 0

    def _rest_of(self, whole: int, begun: bytes | pa.Buffer) -> pa.Buffer:
        data = pa.allocate_buffer(whole)  # unlike a bytearray it is not filled with zeros first
        view, at = memoryview(data).cast("B"), len(begun)
        view[:at] = memoryview(begun).cast("B")
        while at < whole:
            count = self._source.recv_into(view[at:])
            if not count:
                raise StopIteration
            at += count
        return data

"""What a stream of frames is, whichever way it goes: who may open one, what each side does, and when it is over.

A stream begins with the client's hello and the server's welcome. It is over when a side ends it, dies, or cannot take
what it was sent: then that side says so in its last frame, and both know why.
"""

from __future__ import annotations

import hmac
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from eventmesh.errors import ConfigurationError, EventmeshError, InputError, PeerLost, ProtocolError, Unauthenticated
from eventmesh.runtime.wire import protocol
from eventmesh.runtime.wire.protocol import Frame, FrameHeader

if TYPE_CHECKING:
    from eventmesh.runtime.wire.discovery import Offer

LOOPBACK = "127.0.0.1"
ANYWHERE = "0.0.0.0"
#: Seconds that clients have to end their streams after they were told that it is over.
ENDING_S = 2.0
#: Bytes of a frame at most: a delivery is one or two million, an append no more than max.message.bytes.
FRAME_BYTES_MAX = 64 << 20
#: Bytes of frames that wait for a peer which does not read them, at most, and one frame more. What is asked, answered
#: and appended at a time is bounded far below, so that only a peer that never reads comes this far.
LEFT_BYTES_MAX = 64 << 20
#: What reading from and writing to a stream raises when it has ended, or the other side is gone.
GONE = (StopIteration, pa.ArrowException, OSError)
#: A server's first frame, and its last one when it ends.
WELCOME = protocol.pack(protocol.Welcome())
GOODBYE = protocol.pack(protocol.Goodbye("its process is ending"))
#: Takes a frame that came in: its header and its bodies. What it raises ends the stream.
Received = Callable[[FrameHeader, Sequence[pa.Buffer]], None]


@dataclass(frozen=True)
class Access:
    """Who is let in, and from where: the ``token`` that every stream carries, and the ``host`` that is listened on.

    Without a token everybody on this machine is; beyond loopback one is needed. Who listens anywhere is reached at
    what ``node_address`` says on that node: a host's own name often stands for 127.0.1.1 in its file of hosts.
    """

    token: str | None = field(default=None, repr=False)
    host: str = LOOPBACK
    node_address: Callable[[], str] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.host != LOOPBACK and not self.token:
            raise ConfigurationError(
                f"listening on {self.host} without a token would let everybody in", hint="Give a token, or listen on "
                f"{LOOPBACK} alone",
            )  # fmt: skip
        assert self.host != ANYWHERE or self.node_address is not None, "others must be told where to come"

    @property
    def reached_at(self) -> str:
        """The host by which other nodes reach this one."""
        return self.host if self.host != ANYWHERE or self.node_address is None else self.node_address()

    @property
    def credentials(self) -> str:
        """What a client says when it comes; nothing where there is no token."""
        return "" if self.token is None else f"Bearer {self.token}"

    def check(self, credentials: str) -> None:
        """Raise :class:`~eventmesh.errors.Unauthenticated` for a client that has another token, or none."""
        if self.token is not None and not hmac.compare_digest(credentials.encode(), self.credentials.encode()):
            problem = "the token is not this mesh's" if credentials else "no token came with the call"
            raise Unauthenticated(f"{problem}; name the file that holds it with --token-file")


OPEN = Access()


#: What is left to be done of a frame that could not be sent at once; waits while the other side does not read.
Rest = Callable[[], None]


class Wire(Protocol):
    """What a channel sends on. What it raises when it is over is in :data:`GONE`."""

    def write(self, frame: Frame) -> None:
        """Send; waits while the other side does not read."""

    def begin(self, frame: Frame) -> Rest | None:
        """Send what can be sent without waiting, and return the rest; None where nothing is left."""

    def end(self) -> None:
        """Send nothing more, and let the other side see that."""

    def settle(self) -> None:
        """Wait until nothing is being sent by a thread of the wire's own."""


class Channel:
    """The sending side of one stream; frames from several threads go out one after the other.

    Who may wait sends. Who others wait for leaves frames instead: what the other side does not read at once goes out on
    a thread of the channel's own, and a peer for which more than :data:`LEFT_BYTES_MAX` is left is given up.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._lock = threading.Lock()  # of who is sending
        self._left: deque[tuple[int, Rest]] = deque()
        self._left_bytes = 0
        self._changed = threading.Condition()
        self._sender: threading.Thread | None = None
        self.open = True

    def send(self, frame: Frame) -> bool:
        """Send a frame, and wait while the other side does not read; False where the stream has ended."""
        with self._lock:
            self._send_left()
            self._try(partial(self._wire.write, frame))
            return self.open

    def leave(self, frame: Frame) -> bool:
        """Send a frame, or leave what of it would have to wait; False where the stream has ended."""
        if not self._lock.acquire(blocking=False):
            self._leave(frame, partial(self._wire.write, frame))
            return self.open
        try:
            if self._left:
                self._leave(frame, partial(self._wire.write, frame))
            elif (rest := self._try(partial(self._wire.begin, frame))) is not None:
                self._leave(frame, rest, first=True)
        finally:
            self._lock.release()
        return self.open

    def _try(self, step: Callable[[], Rest | None]) -> Rest | None:
        if self.open:
            try:
                return step()
            except GONE:
                self.stop()
        return None

    def _leave(self, frame: Frame, rest: Rest, *, first: bool = False) -> None:
        size = sum(map(len, frame))
        with self._changed:
            (self._left.appendleft if first else self._left.append)((size, rest))
            self._left_bytes += size
            if self._sender is None:
                self._sender = threading.Thread(target=self._send_on, name="send", daemon=True)
                self._sender.start()
            self._changed.notify_all()
        if self._left_bytes > LEFT_BYTES_MAX:
            self.stop()
            self._wire.end()

    def _send_on(self) -> None:
        while self.open:
            with self._changed:
                self._changed.wait_for(lambda: self._left or not self.open)
            with self._lock:
                self._send_left()

    def _send_left(self) -> None:
        while self.open and self._left:
            size, rest = self._left.popleft()
            self._try(rest)
            with self._changed:
                self._left_bytes -= size
                self._changed.notify_all()

    def stop(self) -> None:
        """Nothing more begins to be sent."""
        self.open = False
        with self._changed:
            self._changed.notify_all()

    def finish(self, frame: Frame) -> None:
        """Send ``frame`` as the last one; the stream ends without it where the other side does not read."""
        self.leave(frame)
        self.await_sent(ENDING_S)
        self.stop()

    def await_sent(self, timeout_s: float) -> None:
        """Wait until what was left is sent, or the stream is over; no longer than this."""
        with self._changed:
            self._changed.wait_for(lambda: not self._left_bytes or not self.open, timeout_s)

    def end(self) -> None:
        """Nothing is sent any more, nor being sent: afterwards the stream itself may go."""
        self._wire.end()  # who is sending is not held up any longer
        with self._lock:
            self.stop()
            self._left.clear()
        self._wire.settle()


class Stream(Protocol):
    """The client's end. What it raises when it is over is in :data:`GONE`."""

    @property
    def wire(self) -> Wire:
        """Where frames go out."""

    def frames(self) -> Iterator[pa.Buffer | None]:
        """What comes in, until either side ends the stream."""

    def read_out(self) -> None:
        """Wait for the other side to end the stream, too, lest what was sent last is lost; not for long."""

    def break_off(self) -> None:
        """End it as if the wire had broken, at both ends; who reads it finds out."""

    def close(self) -> None:
        """Let go of it, at once."""


class Serving(Protocol):
    """What a listener's owner does with a stream."""

    def opened(self, purpose: str, channel: Channel) -> Received:
        """A client opened a stream for ``purpose``; the returned function takes its frames, in order."""

    def closed(self, purpose: str, channel: Channel, problem: ProtocolError | None) -> None:
        """The client is gone; ``problem`` where the stream was ended because one side could not take a frame."""

    def fetch(self, ticket: bytes) -> pa.RecordBatchReader:
        """A partition for any Flight client: ``do_get`` with ticket ``topic/partition/offset``."""

    def offers(self) -> Sequence[Offer]:
        """The partitions that :meth:`fetch` has."""


# --- the server's side ----------------------------------------------------------------------------


def greeted(frame: pa.Buffer) -> protocol.Hello:
    """A client's first frame; :class:`~eventmesh.errors.InputError` where it is another one, or none."""
    header, _ = protocol.unpack(frame)
    if not isinstance(header, protocol.Hello):
        raise protocol.unexpected(header, protocol.Hello)
    return header


def serve(serving: Serving, purpose: str, channel: Channel, frames: Iterable[pa.Buffer | None]) -> None:
    """Let a client in, and hand on what it sends until its stream is over."""
    over: PeerLost | None = None
    received = serving.opened(purpose, channel)
    try:
        channel.send(WELCOME)
        over = take_all(received, frames, channel, f"a client of the stream {purpose!r}")
    finally:
        channel.end()
        serving.closed(purpose, channel, over if isinstance(over, ProtocolError) else None)


# --- the client's side ----------------------------------------------------------------------------


def welcomed(frame: pa.Buffer | None, address: str) -> None:
    """Read a server's first frame; :class:`~eventmesh.errors.Unauthenticated` or ``ProtocolError`` for a refusal."""
    try:
        header, _ = protocol.unpack(_whole(frame))
    except InputError as error:
        raise ProtocolError(f"{address} answers in a way that is not ours: {error}") from error
    if isinstance(header, protocol.Refused):
        refusal = header.failure.error()
        if isinstance(refusal, Unauthenticated):
            raise Unauthenticated(f"{address} does not let us in: {refusal}")
        raise ProtocolError(f"{address} does not take our hello: {refusal}")
    if not isinstance(header, protocol.Welcome):
        raise ProtocolError(f"{address} does not let us in: {protocol.unexpected(header, protocol.Welcome)}")


# --- both sides -----------------------------------------------------------------------------------


def refusal(error: EventmeshError) -> Frame:
    """The last frame of a stream on which ``error`` came of what the other side had sent."""
    return protocol.pack(protocol.Refused(protocol.Failure.of(error)))


def take_all(received: Received, frames: Iterable[pa.Buffer | None], channel: Channel, peer: str) -> PeerLost:
    """Hand on what comes, in order, until the stream is over, and say why it is.

    :class:`~eventmesh.errors.ProtocolError` says that one of the two sides could not take a frame. Where it was this
    side, it has told the other one.
    """
    try:
        for frame in frames:
            _take(received, frame, peer)
    except PeerLost as over:
        return over
    except InputError as error:
        channel.finish(refusal(error))
        return ProtocolError(f"{peer} sent what cannot be taken, so the stream was ended: {error}")
    except Exception as error:  # the wire broke; whatever else it may be, nobody would read on
        return PeerLost(f"the stream to {peer} broke: {type(error).__name__}: {error}")
    return PeerLost(f"{peer} ended the stream")


def _take(received: Received, frame: pa.Buffer | None, peer: str) -> None:
    """Hand a frame on; ``InputError`` for what cannot be taken, ``PeerLost`` where it says that the stream is over."""
    header, bodies = protocol.unpack(_whole(frame))
    if isinstance(header, protocol.Refused):
        raise ProtocolError(f"{peer} could not take what it was sent: {header.failure.error()}")
    if isinstance(header, protocol.Goodbye):
        raise PeerLost(f"{peer} ended the stream: {header.reason}")
    try:
        received(header, bodies)
    except Exception as error:  # a defect of this process, too: unsaid, the stream would stay open and do nothing
        raise InputError(
            f"a frame of the kind {protocol.kind(header)} and {sum(map(len, bodies))} bytes of bodies cannot be taken: "
            f"{type(error).__name__}: {error}"
        ) from error


def _whole(frame: pa.Buffer | None) -> pa.Buffer:
    if frame is None or frame.size > FRAME_BYTES_MAX:
        raise too_large(0 if frame is None else frame.size)
    return frame


def too_large(size: int) -> InputError:
    """What is said to a frame of ``size`` bytes, which is none or larger than any."""
    return InputError(f"a frame of {size or 'no'} bytes: expected metadata of at most {FRAME_BYTES_MAX}")

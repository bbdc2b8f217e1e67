"""Streams of frames over Arrow Flight's ``do_exchange``: the transport seam of the runtime on Ray.

A :class:`Connection` sends frames and hands received ones to a callback on a thread of its own; a
:class:`Listener` serves such connections. What a frame means is none of this module's business.
"""

from __future__ import annotations

import hmac
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.flight as flight

from eventmesh.errors import ConfigurationError, EventmeshError, PeerLost, Unauthenticated

LOOPBACK = "127.0.0.1"
ANYWHERE = "0.0.0.0"
#: What a listener says first on every stream: who connects knows by it that somebody is there and lets them in.
HELLO = pa.py_buffer(b"\1")
#: What a listener that ends sends on every stream: Flight itself has no way to end one from the serving side.
GOODBYE = pa.py_buffer(b"\0")
#: Seconds that clients have to end their streams after that.
ENDING_S = 2.0
#: Bytes of a frame at most: a delivery is one or two million, an append no more than max.message.bytes.
FRAME_BYTES_MAX = 64 << 20
Received = Callable[[pa.Buffer], None]


@dataclass(frozen=True)
class Access:
    """Who is let in, and from where: the ``token`` that every call carries, and the ``host`` that is listened on.

    Without a token everybody on this machine is; beyond loopback one is needed.
    """

    token: str | None = field(default=None, repr=False)
    host: str = LOOPBACK

    def __post_init__(self) -> None:
        if self.host != LOOPBACK and not self.token:
            raise ConfigurationError(
                f"listening on {self.host} without a token would let everybody in", hint="Give a token, or listen on "
                f"{LOOPBACK} alone",
            )  # fmt: skip

    @property
    def reached_at(self) -> str:
        """The host by which other nodes reach this one."""
        return socket.gethostbyname(socket.gethostname()) if self.host == ANYWHERE else self.host

    def options(self) -> Any:
        """What a client's call carries."""
        headers = [] if self.token is None else [(_AUTHORIZATION.encode(), self._bearer.encode())]
        return flight.FlightCallOptions(headers=headers)

    @property
    def _bearer(self) -> str:
        return f"Bearer {self.token}"

    def check(self, found: str) -> None:
        """Raise Flight's own error for a call that carries another token, or none."""
        if self.token is not None and not hmac.compare_digest(found.encode(), self._bearer.encode()):
            problem = "no token came with the call" if not found else "the token is not this mesh's"
            raise flight.FlightUnauthenticatedError(f"{problem}; name the file that holds it with --token-file")


OPEN = Access()
_AUTHORIZATION = "authorization"


class _Gate(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Looks at the token before anything of a call is read."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def start_call(self, info: Any, headers: Any) -> None:
        """Let the call in, or raise."""
        self._access.check("".join(headers.get(_AUTHORIZATION, [])[:1]))


class Channel:
    """The sending side of one stream; frames from several threads go out one after the other."""

    def __init__(self, writer: Any) -> None:
        self._writer, self._lock = writer, threading.Lock()
        self.open = True

    def send(self, frame: pa.Buffer) -> bool:
        """Send a frame; False where the stream has ended."""
        with self._lock:
            if not self.open:
                return False
            try:
                self._writer.write_metadata(frame)
            except (pa.ArrowException, OSError):
                self.open = False
            return self.open

    def end(self) -> None:
        """Nothing is sent any more, nor being sent: afterwards the stream itself may go."""
        with self._lock:
            self.open = False


class Serving(Protocol):
    """What a listener's owner does with a stream."""

    def opened(self, purpose: str, channel: Channel) -> Received:
        """A client opened a stream for ``purpose``; the returned function takes its frames, in order."""

    def closed(self, purpose: str, channel: Channel) -> None:
        """The client is gone."""

    def fetch(self, ticket: bytes) -> pa.RecordBatchReader:
        """A partition for any Flight client: ``do_get`` with ticket ``topic/partition/offset``."""


class Listener(flight.FlightServerBase):  # type: ignore[misc]
    """A Flight server on a free port. ``address`` is where others find it.

    A client that sends what is no frame gets an error that says so, on its own stream; nobody else is touched.
    """

    def __init__(self, serving: Serving, access: Access = OPEN) -> None:
        super().__init__(f"grpc://{access.host}:0", middleware={"gate": _Gate(access)})
        self._serving = serving
        self._channels: set[Channel] = set()
        self.address = f"grpc://{access.reached_at}:{self.port}"

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """One stream, until the client ends it or dies."""
        purpose, channel = (descriptor.command or b"").decode(errors="replace"), Channel(writer)
        received = self._serving.opened(purpose, channel)
        self._channels.add(channel)
        channel.send(HELLO)
        try:
            while True:
                _take(received, reader.read_chunk().app_metadata)
        except flight.FlightServerError:
            raise
        except (StopIteration, pa.ArrowException, OSError):
            return
        finally:
            channel.end()
            self._channels.discard(channel)
            self._serving.closed(purpose, channel)

    def do_get(self, context: Any, ticket: Any) -> Any:
        """A partition's rows in the topic's own schema, readable by any Flight client."""
        try:
            return flight.RecordBatchStream(self._serving.fetch(ticket.ticket))
        except EventmeshError as error:
            raise flight.FlightServerError(str(error)) from error

    def end(self) -> None:
        """Stop serving: every client is told, and who does not go is not waited for for long."""
        for channel in list(self._channels):
            channel.send(GOODBYE)
        ending = threading.Thread(target=self.shutdown, name="end listener", daemon=True)
        ending.start()
        ending.join(ENDING_S)


def _take(received: Received, frame: pa.Buffer | None) -> None:
    """Hand a frame on; Flight's own error where it is none, or too large."""
    if frame is None or frame.size > FRAME_BYTES_MAX:
        size = "no" if frame is None else f"{frame.size}"
        raise flight.FlightServerError(f"a frame of {size} bytes: expected metadata of at most {FRAME_BYTES_MAX}")
    try:
        received(frame)
    except (EventmeshError, ValueError, KeyError, TypeError, IndexError, pa.ArrowException) as error:
        problem = f"the frame of {frame.size} bytes cannot be taken: {type(error).__name__}: {error}"
        raise flight.FlightServerError(problem) from error


class Connection:
    """A stream to a listener. ``lost`` is called once, on the reading thread, when it breaks.

    Raises :class:`~eventmesh.errors.PeerLost` where nobody is at ``address``, and
    :class:`~eventmesh.errors.Unauthenticated` where ``access`` does not have the right token.
    """

    def __init__(
        self, address: str, purpose: str, received: Received, lost: Callable[[], None], access: Access = OPEN
    ) -> None:
        self.address = address
        self._received, self._lost = received, lost
        self._closing = False
        try:
            self._client = flight.connect(address)
            descriptor = flight.FlightDescriptor.for_command(purpose.encode())
            writer, self._reader = self._client.do_exchange(descriptor, access.options())
            assert self._reader.read_chunk().app_metadata.equals(HELLO)
        except flight.FlightUnauthenticatedError as error:
            raise Unauthenticated(f"{address} does not let us in: {first_line(error)}") from error
        except (StopIteration, pa.ArrowException, OSError) as error:
            raise PeerLost(f"{address} cannot be reached: {first_line(error)}") from error
        self.channel = Channel(writer)
        self._writer = writer
        self._thread = threading.Thread(target=self._read, name=f"read {purpose} {address}", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(StopIteration, pa.ArrowException, OSError):  # the stream has ended or broken: lost says so
            while not (frame := self._reader.read_chunk().app_metadata).equals(GOODBYE):
                self._received(frame)
            self._writer.done_writing()  # the other side is waiting for the end of the stream
        self.channel.open = False
        if not self._closing:
            self._lost()

    def close(self) -> None:
        """End the stream; ``lost`` is not called."""
        self._closing = True
        self.channel.open = False
        gone_first = suppress(pa.ArrowException, OSError)  # the other side
        with gone_first:
            self._writer.done_writing()
        if self._thread is not threading.current_thread():
            self._thread.join(ENDING_S)
        if self._thread.is_alive():  # it did not end the stream in answer: it is stopped, or busy
            with gone_first:
                self._reader.cancel()
        with gone_first:
            self._client.close()


def first_line(error: Exception) -> str:
    """What happened, without the context that Arrow appends."""
    return str(error).partition(". Detail")[0].partition("gRPC client debug")[0].strip() or type(error).__name__

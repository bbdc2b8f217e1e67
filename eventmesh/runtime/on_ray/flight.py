"""Streams of frames over Arrow Flight's ``do_exchange``: the transport seam of the runtime on Ray.

A :class:`Connection` sends frames and hands received ones to a callback on a thread of its own; a
:class:`Listener` serves such connections. What a frame means is none of this module's business.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.flight as flight

from eventmesh.errors import PeerLost

LOOPBACK = "127.0.0.1"
#: What a listener that ends sends on every stream: Flight itself has no way to end one from the serving side.
GOODBYE = pa.py_buffer(b"\0")
#: Seconds that clients have to end their streams after that.
ENDING_S = 2.0
Received = Callable[[pa.Buffer], None]


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
    """A Flight server on a free port of the loopback interface."""

    def __init__(self, serving: Serving, host: str = LOOPBACK) -> None:
        super().__init__(f"grpc://{host}:0")
        self._serving = serving
        self._channels: set[Channel] = set()
        self.address = f"grpc://{host}:{self.port}"

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """One stream, until the client ends it or dies."""
        purpose, channel = descriptor.command.decode(), Channel(writer)
        received = self._serving.opened(purpose, channel)
        self._channels.add(channel)
        try:
            while True:
                received(reader.read_chunk().app_metadata)
        except (StopIteration, pa.ArrowException, OSError):
            return
        finally:
            channel.end()
            self._channels.discard(channel)
            self._serving.closed(purpose, channel)

    def do_get(self, context: Any, ticket: Any) -> Any:
        """A partition's rows in the topic's own schema, readable by any Flight client."""
        return flight.RecordBatchStream(self._serving.fetch(ticket.ticket))

    def end(self) -> None:
        """Stop serving: every client is told, and who does not go is not waited for for long."""
        for channel in list(self._channels):
            channel.send(GOODBYE)
        ending = threading.Thread(target=self.shutdown, name="end listener", daemon=True)
        ending.start()
        ending.join(ENDING_S)


class Connection:
    """A stream to a listener. ``lost`` is called once, on the reading thread, when it breaks."""

    def __init__(self, address: str, purpose: str, received: Received, lost: Callable[[], None]) -> None:
        self.address = address
        self._received, self._lost = received, lost
        self._closing = False
        try:
            self._client = flight.connect(address)
            writer, self._reader = self._client.do_exchange(flight.FlightDescriptor.for_command(purpose.encode()))
        except (pa.ArrowException, OSError) as error:
            raise PeerLost(f"{address} cannot be reached: {error}") from error
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
        own = self._thread is threading.current_thread()
        endings: list[Callable[[], None]] = [self._writer.done_writing]
        if not own:
            endings += [lambda: self._thread.join(ENDING_S)]
        for ending in [*endings, self._cancel, self._client.close]:
            with suppress(pa.ArrowException, OSError):  # the other side was gone first
                ending()

    def _cancel(self) -> None:
        """The other side did not end the stream in answer: it is stopped, or busy."""
        if self._thread.is_alive():
            self._reader.cancel()

"""Streams over Arrow Flight's ``do_exchange``, for processes on any node, and what any Flight client finds and gets.

A client that knows nothing of this project lists the flights, takes their descriptors and tickets as they are
(:mod:`~eventmesh.runtime.wire.discovery`), and reads the log.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight

from eventmesh.errors import InputError, PeerLost, Unauthenticated
from eventmesh.runtime.wire import discovery, protocol
from eventmesh.runtime.wire.channel import (
    ENDING_S,
    GONE,
    GOODBYE,
    Access,
    Channel,
    Rest,
    Serving,
    greeted,
    refusal,
    serve,
    welcomed,
)
from eventmesh.runtime.wire.faulty import LinkFaults
from eventmesh.runtime.wire.protocol import Frame

_GOODBYE = pa.py_buffer(b"".join(GOODBYE))
_AUTHORIZATION = "authorization"


class _Gate(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Looks at the token before anything of a call is read."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def start_call(self, info: Any, headers: Any) -> None:
        """Let the call in, or raise."""
        try:
            self._access.check("".join(headers.get(_AUTHORIZATION, [])[:1]))
        except Unauthenticated as error:
            raise flight.FlightUnauthenticatedError(str(error)) from error


def call_options(access: Access, timeout_s: float | None = None) -> Any:
    """What every call of a client carries; no call of a stream ends by itself."""
    headers = [(_AUTHORIZATION.encode(), access.credentials.encode())] if access.token is not None else []
    return flight.FlightCallOptions(timeout=timeout_s, headers=headers)


def connect(location: str) -> Any:
    """A client of the process at ``location``.

    The environment's proxies (``http_proxy`` and the like) are for what lies beyond: no proxy knows the processes of a
    mesh, and gRPC would ask one even for an address of this machine.
    """
    return flight.connect(location, generic_options=[("grpc.enable_http_proxy", 0)])


class ServerWire:
    """The sending side of who serves (:class:`~eventmesh.runtime.wire.channel.Wire`)."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, frame: Frame) -> None:
        """Send; waits while the other side does not read."""
        self._writer.write_metadata(pa.py_buffer(b"".join(frame)))

    def begin(self, frame: Frame) -> Rest:
        """Nothing: Flight does not say whether it would have to wait."""
        return partial(self.write, frame)

    def end(self) -> None:
        """Nothing: Flight has no way to end a stream from the serving side."""

    def settle(self) -> None:
        """Nothing: it has no thread."""


class ClientWire(ServerWire):
    """The sending side of a client."""

    def end(self) -> None:
        """Send nothing more, and let the server see that."""
        with suppress(*GONE):
            self._writer.done_writing()


class FlightServer(flight.FlightServerBase):  # type: ignore[misc]
    """A Flight server on a free port."""

    def __init__(self, serving: Serving, access: Access, link_faults: LinkFaults) -> None:
        super().__init__(f"grpc://{access.host}:0", middleware={"gate": _Gate(access)})
        self._serving, self._link_faults = serving, link_faults
        self._channels: set[Channel] = set()
        self.address = f"grpc://{access.reached_at}:{self.port}"

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """One stream, until the client ends it or dies. The descriptor's command is the client's hello."""
        wire = ServerWire(writer)
        try:
            hello = greeted(pa.py_buffer(descriptor.command or b""))
        except InputError as error:
            with suppress(*GONE):
                wire.write(refusal(error))
            return
        channel = Channel(self._link_faults.served(wire, hello))
        self._channels.add(channel)
        try:
            serve(self._serving, hello.purpose, channel, _frames(reader))
        finally:
            self._channels.discard(channel)

    def do_get(self, context: Any, ticket: Any) -> Any:
        """A partition's rows in the topic's own schema, readable by any Flight client."""
        with discovery.told():
            return discovery.rows(self._serving.fetch(ticket.ticket))

    def list_flights(self, context: Any, criteria: bytes) -> Any:
        """A flight for each partition: of all topics, or of those that ``topic`` or ``topic/partition`` names."""
        with discovery.told():
            found = discovery.listed(self._serving.offers(), criteria)
            return iter([discovery.info([offer], self.address) for offer in found])

    def get_flight_info(self, context: Any, descriptor: Any) -> Any:
        """Of a partition, or of a topic with an endpoint for each of its partitions."""
        with discovery.told():
            return discovery.info(discovery.described(self._serving.offers(), descriptor), self.address, descriptor)

    def get_schema(self, context: Any, descriptor: Any) -> Any:
        """A topic's columns, also without reading any of its rows."""
        with discovery.told_of_schema():
            return flight.SchemaResult(discovery.described(self._serving.offers(), descriptor)[0].schema)

    def list_actions(self, context: Any) -> Any:
        """None: what is done in a mesh is done by its services."""
        return []

    def do_action(self, context: Any, action: Any) -> Any:
        """Refused: there is none."""
        raise flight.FlightServerError(
            f"there is no action {discovery.shown(action.type)}, nor any other: the log is for reading here"
        )

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """A topic belongs to its owner, and no client is one."""
        raise flight.FlightServerError("nothing can be put here: a topic is written by the service that owns it alone")

    def end(self) -> None:
        """Tell every client, and wait for them, though not for long."""
        for channel in list(self._channels):
            channel.leave(GOODBYE)  # Flight itself has no way to end a stream from the serving side
        ending = threading.Thread(target=self.shutdown, name="end listener", daemon=True)
        ending.start()
        ending.join(ENDING_S)


def _frames(reader: Any) -> Iterator[pa.Buffer | None]:
    """What comes in, until the other side ends the stream."""
    with suppress(StopIteration):
        while True:
            yield reader.read_chunk().app_metadata


class FlightStream:
    """The client's end (:class:`~eventmesh.runtime.wire.channel.Stream`)."""

    def __init__(self, location: str, hello: protocol.Hello, access: Access) -> None:
        try:
            self._client = connect(location)
            descriptor = flight.FlightDescriptor.for_command(b"".join(protocol.pack(hello)))
            writer, self._reader = self._client.do_exchange(descriptor, call_options(access))
            answer = self._reader.read_chunk().app_metadata
        except flight.FlightUnauthenticatedError as error:
            raise Unauthenticated(f"{location} does not let us in: {first_line(error)}") from error
        except GONE as error:
            raise PeerLost(f"{location} cannot be reached") from error
        self.wire = ClientWire(writer)
        self._ended = False
        try:
            welcomed(answer, location)
        except BaseException:
            self.wire.end()
            self.close()
            raise

    def frames(self) -> Iterator[pa.Buffer | None]:
        """What comes in, until either side ends the stream."""
        try:
            for frame in _frames(self._reader):
                self._ended = frame is not None and frame.equals(_GOODBYE)
                yield frame
        except GONE:
            self._ended = True
            raise
        self._ended = True

    def read_out(self) -> None:
        """Until the server has ended the stream, too, for :data:`ENDING_S` at most: what is cancelled is not sent."""
        patience = threading.Timer(ENDING_S, self._reader.cancel)
        patience.start()
        with suppress(*GONE):
            for _ in self.frames():
                continue
        patience.cancel()

    def break_off(self) -> None:
        """End it as if the wire had broken, at both ends."""
        self._reader.cancel()

    def close(self) -> None:
        """Let go of it, at once."""
        with suppress(*GONE):
            if not self._ended:  # the other side did not end the stream in answer: it is stopped, or busy
                self._reader.cancel()
            self._client.close()


def first_line(error: BaseException) -> str:
    """What happened, without the context that Arrow appends."""
    return str(error).partition(". Detail")[0].partition("gRPC client debug")[0].strip() or type(error).__name__

"""A link to a process that may die and come back elsewhere: made again by itself until it is closed.

Frames sent before the first attempt has ended wait for it; afterwards a link that is down says so at once, and who
sends decides what to do. Nothing is ever sent twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from eventmesh.errors import EventmeshError
from eventmesh.runtime.wire.channel import Channel, Frame

#: Seconds between two attempts. What is waited for takes a second or more: a process that starts.
RETRY_S = 0.1
#: Frames that wait for the first attempt at most.
EARLY_FRAMES_MAX = 64


class Linked(Protocol):
    """What a link keeps up, a connection for instance."""

    @property
    def channel(self) -> Channel:
        """Where frames go out."""

    def close(self) -> None:
        """End it."""


Made = TypeVar("Made", bound=Linked)
#: Makes a stream that calls its argument once when it breaks; :class:`~eventmesh.errors.PeerLost` if it cannot.
Connect = Callable[[Callable[[], None]], Made]


class Link(Generic[Made]):
    """A stream to one peer. ``up`` is called with each new stream, ``down`` when it broke or could not be made while
    frames waited; both on the link's own thread.
    """

    def __init__(
        self, name: str, connect: Connect[Made], *, up: Callable[[Made], None], down: Callable[[], None]
    ) -> None:
        self._connect, self._up, self._down = connect, up, down
        self._stream: Made | None = None
        self.unreached: str | None = None  # why the last attempt failed
        self._early: list[Frame] | None = []  # None once the first attempt has ended
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._broken = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"link to {name}", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def send(self, frame: Frame) -> bool:
        """Send a frame without waiting for the peer; False where the link is down: it was not sent, or may be lost."""
        with self._lock:
            stream = self._stream
            if stream is None:
                if self._early is None or len(self._early) >= EARLY_FRAMES_MAX:
                    return False
                self._early.append(frame)
                return True
        return stream.channel.leave(frame)

    @property
    def stream(self) -> Made | None:
        """The stream, while it is up."""
        return self._stream

    def _run(self) -> None:
        while not self._closing.is_set():
            self._broken = broken = threading.Event()
            try:
                stream = self._connect(broken.set)
            except EventmeshError as error:
                self.unreached = str(error)
                if self._fail():
                    self._down()
                self._closing.wait(RETRY_S)
                continue
            self._open(stream)
            self._up(stream)
            broken.wait()
            self._fail()
            stream.close()
            if not self._closing.is_set():
                self._down()

    def _open(self, stream: Made) -> None:
        with self._lock:
            for frame in self._early or ():
                stream.channel.leave(frame)
            self._stream, self._early, self.unreached = stream, None, None

    def _fail(self) -> bool:
        with self._lock:
            waited, self._early = bool(self._early), None
            self._stream = None
            return waited

    def close(self) -> None:
        """End the stream; ``down`` is not called any more."""
        self._closing.set()
        self._broken.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

"""A link to a process that may die and come back elsewhere: made again by itself until it is closed.

Frames sent before the first attempt has ended wait for it; afterwards a link that is down says so at once, and who
sends decides what to do. Nothing is ever sent twice.

A peer that cannot take what it is sent, or whose frames cannot be taken here, is tried again as well: by then it may
have been started anew, in this version. Each such end is reported to the link's owner. After several in a row the link
waits twice as long each time, up to :data:`REFUSED_RETRY_S`, so that two sides which will never understand each other
cost next to nothing, and say so every few seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from eventmesh.errors import EventmeshError, PeerLost, ProtocolError
from eventmesh.runtime.wire.channel import Channel
from eventmesh.runtime.wire.protocol import Frame

#: Seconds between two attempts. What is waited for takes a second or more: a process that starts.
RETRY_S = 0.1
#: Seconds at most until the next attempt after streams that ended since one side could not take the other's frames.
#: A stream that lasted for longer is the first in a row again.
REFUSED_RETRY_S = 5.0
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
#: Makes a stream that calls its argument once when it is over; :class:`~eventmesh.errors.PeerLost` if it cannot.
Connect = Callable[[Callable[[PeerLost], None]], Made]


class _Over:
    """When a stream is over, and why; the first one to tell counts."""

    def __init__(self) -> None:
        self.why: EventmeshError | None = None
        self._told = threading.Event()

    def tell(self, why: EventmeshError | None) -> None:
        """It is over; ``None``: the link itself was closed."""
        self.why = self.why or why
        self._told.set()

    def wait(self) -> None:
        """Until it is over."""
        self._told.wait()


class Link(Generic[Made]):
    """A stream to one peer. ``up`` is called with each new stream, ``down`` with why it is over, or could not be made
    while frames waited, ``refused`` with why the two sides did not understand each other; all on the link's own thread.
    """

    def __init__(
        self,
        name: str,
        connect: Connect[Made],
        *,
        up: Callable[[Made], None],
        down: Callable[[EventmeshError], None],
        refused: Callable[[ProtocolError], None],
    ) -> None:
        self._connect, self._up, self._down, self._refused = connect, up, down, refused
        self._stream: Made | None = None
        self.unreached: str | None = None  # why the last attempt failed
        self._early: list[Frame] | None = []  # None once the first attempt has ended
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._over = _Over()  # of the stream of the moment
        self._refusals = 0  # in a row
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
            begun = time.monotonic()
            self._over = over = _Over()
            wait_s = 0.0
            try:
                stream = self._connect(over.tell)
            except EventmeshError as error:
                over.tell(error)
                self.unreached = str(error)
                wait_s = RETRY_S
                if self._fail():
                    self._down(error)
            else:
                self._keep(stream, over)
            if self._closing.is_set():
                return
            self._closing.wait(max(wait_s, self._refused_wait_s(over.why, time.monotonic() - begun)))

    def _keep(self, stream: Made, over: _Over) -> None:
        self._open(stream)
        self._up(stream)
        over.wait()
        self._fail()
        stream.close()
        if not self._closing.is_set():
            self._down(over.why or PeerLost("the stream is over"))

    def _refused_wait_s(self, why: EventmeshError | None, lasted_s: float) -> float:
        """Report a stream that ended since the two sides do not understand each other, and how long to wait then."""
        if not isinstance(why, ProtocolError):
            self._refusals = 0
            return 0.0
        self._refusals = 1 if lasted_s > REFUSED_RETRY_S else self._refusals + 1
        self._refused(why)
        return min(RETRY_S * (1 << self._refusals), REFUSED_RETRY_S)

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
        self._over.tell(None)
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5)


class Once(Generic[Made]):
    """A stream to one peer that is made once and not again; the callbacks are those of :class:`Link`.

    Who starts it is told why it cannot be made. Sending waits while the peer does not read.
    """

    unreached: str | None = None  # whoever was told knows

    def __init__(
        self,
        name: str,
        connect: Connect[Made],
        *,
        up: Callable[[Made], None],
        down: Callable[[EventmeshError], None],
        refused: Callable[[ProtocolError], None],
    ) -> None:
        self._name, self._connect, self._up, self._down, self._refused = name, connect, up, down, refused
        self._stream: Made | None = None
        self._over = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Connect; raises why it cannot."""
        stream = self._connect(self._lost)
        with self._lock:
            self._stream = stream
        self._up(stream)

    def _lost(self, why: PeerLost) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
        if isinstance(why, ProtocolError):
            self._refused(why)
        self._down(why)

    def send(self, frame: Frame) -> bool:
        """Send a frame; False where the stream is over: it was not sent, or may be lost."""
        stream = self.stream
        return stream is not None and stream.channel.send(frame)

    @property
    def stream(self) -> Made | None:
        """The stream, until it is over."""
        return None if self._over else self._stream

    def close(self) -> None:
        """End the stream; ``down`` is not called any more."""
        with self._lock:
            self._over = True
        if self._stream is not None:
            self._stream.close()

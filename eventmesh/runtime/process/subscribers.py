"""The broker's side of subscriptions: who is to be told that a partition has grown, and how.

A subscriber on the broker's node has its doorbell rung; one elsewhere has batches pushed to it by a thread of its own.
Neither can hold up the broker, nor the other subscribers.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from eventmesh.errors import InputError
from eventmesh.log.batch import LogBatch
from eventmesh.runtime.broker import DELIVERY_BYTES
from eventmesh.runtime.process.actor_log import log
from eventmesh.runtime.process.reactor import now
from eventmesh.runtime.wire import frames, protocol
from eventmesh.runtime.wire.channel import Channel, refusal
from eventmesh.runtime.wire.doorbell import Ringer
from eventmesh.runtime.wire.protocol import FrameHeader

#: What a subscriber that reads the files is told when the log was opened again.
MAP_ANEW = "the log was opened again, and its files are to be mapped anew"


class Cursors(Protocol):
    """What the broker knows of one subscriber: where it stands in each partition that it reads."""

    def subscribe(self, name: str, offset: int) -> None:
        """``topic/partition`` from ``offset`` on."""

    def unsubscribe(self, name: str) -> None:
        """No more of it."""

    def take(self) -> tuple[str, list[LogBatch]] | None:
        """The next batches of one partition, and its cursor moves; None where there are none."""


class Subscriber:
    """One subscription stream. ``home`` is what the subscriber needs to read the files itself, None if it cannot."""

    def __init__(self, channel: Channel, cursors: Cursors, home: protocol.Home | None) -> None:
        self.channel, self._cursors, self._home = channel, cursors, home
        self._way: Rung | Pushed | None = None

    def received(self, header: FrameHeader, bodies: Sequence[pa.Buffer]) -> None:
        """Attach first, then subscribe and unsubscribe."""
        match header:
            case protocol.Attach():
                self._attach(header.bell)
            case _ if self._way is None:
                raise protocol.unexpected(header, protocol.Attach)
            case protocol.Subscribe():
                self._cursors.subscribe(header.name, header.offset)
            case protocol.Unsubscribe():
                self._cursors.unsubscribe(header.name)
            case _:
                raise protocol.unexpected(header, protocol.Attach, protocol.Subscribe, protocol.Unsubscribe)

    def _attach(self, bell: str | None) -> None:
        self.close()
        ringer = _ringer(bell) if self._home is not None else None
        self._way = Pushed(self.channel, self._cursors) if ringer is None else Rung(ringer)
        self.channel.send(protocol.pack(protocol.Attached(None if ringer is None else self._home)))

    def wake(self) -> None:
        """There is something to read; never waits."""
        if self._way is not None:
            self._way.wake()

    def map_anew(self) -> None:
        """The files have changed their places: who reads them must come again. Others stay."""
        if isinstance(self._way, Rung):
            self.channel.leave(protocol.pack(protocol.Goodbye(MAP_ANEW)))

    def close(self) -> None:
        """The subscriber is gone."""
        if self._way is not None:
            self._way.close()


def _ringer(bell: str | None) -> Ringer | None:
    try:
        return None if bell is None else Ringer(bell)
    except OSError:
        return None  # a subscriber on another node: its doorbell is not here


class Rung:
    """A subscriber that reads for itself."""

    def __init__(self, ringer: Ringer) -> None:
        self._ringer = ringer

    def wake(self) -> None:
        """Ring its doorbell."""
        self._ringer.ring()

    def close(self) -> None:
        """Ring no more."""
        self._ringer.close()


class Pushed:
    """A subscriber elsewhere: a thread pushes to it, and waits while it does not read."""

    def __init__(self, channel: Channel, cursors: Cursors) -> None:
        self._channel, self._cursors = channel, cursors
        self._wake = threading.Event()
        self._closing = False
        threading.Thread(target=self._push_all, name="push", daemon=True).start()

    def wake(self) -> None:
        """Let the thread look again."""
        self._wake.set()

    def _push_all(self) -> None:
        try:
            while self._channel.open and not self._closing:
                self._wake.wait(timeout=1.0)
                self._wake.clear()
                while self._channel.open and not self._closing and (entries := self._taken()):
                    self._channel.send(frames.pack_entries(entries, now()))
        except Exception as error:  # a partition that nobody has, or a defect: unsaid, it would wait for ever
            log.exception("nothing is pushed any more", process="broker")
            self._channel.finish(refusal(InputError(f"nothing can be delivered: {type(error).__name__}: {error}")))
            self._channel.end()

    def _taken(self) -> list[tuple[str, LogBatch]]:
        """What one delivery carries: batches of one partition or of several, about :data:`DELIVERY_BYTES`."""
        entries: list[tuple[str, LogBatch]] = []
        size = 0
        while size < DELIVERY_BYTES and (found := self._cursors.take()) is not None:
            entries += [(found[0], entry) for entry in found[1]]
            size += sum(entry.message.size for entry in found[1])
        return entries

    def close(self) -> None:
        """End the thread."""
        self._closing = True
        self._wake.set()

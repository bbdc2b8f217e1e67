"""The broker's side of subscriptions: who is to be told that a partition has grown, and how.

A subscriber on the broker's node has its doorbell rung; one elsewhere has batches pushed to it by a thread of its own.
Neither can hold up the broker, nor the other subscribers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

import pyarrow as pa

from eventmesh.errors import EventmeshError, InputError
from eventmesh.log.batch import LogBatch
from eventmesh.runtime.process.actor_log import log
from eventmesh.runtime.process.reactor import now
from eventmesh.runtime.process.subscription import DELIVERY_BYTES
from eventmesh.runtime.wire import frames, protocol
from eventmesh.runtime.wire.channel import Channel, refusal
from eventmesh.runtime.wire.doorbell import Ringer
from eventmesh.runtime.wire.protocol import FrameHeader

#: ``read(topic/partition, offset, max_bytes)``.
Read = Callable[[str, int, int], list[LogBatch]]


class Subscriber:
    """One subscription stream. ``home`` is what the subscriber needs to read the files itself, None if it cannot."""

    def __init__(self, channel: Channel, read: Read, home: protocol.Home | None) -> None:
        self.channel, self._read, self._home = channel, read, home
        self._way: Rung | Pushed | None = None

    def received(self, header: FrameHeader, bodies: Sequence[pa.Buffer]) -> None:
        """Attach first, then subscribe and unsubscribe."""
        if isinstance(header, protocol.Attach):
            self._attach(header.bell)
        elif self._way is None:
            raise protocol.unexpected(header, protocol.Attach)
        elif isinstance(header, protocol.Subscribe):
            self._way.set(header.name, header.offset)
        elif isinstance(header, protocol.Unsubscribe):
            self._way.set(header.name, None)
        else:
            raise protocol.unexpected(header, protocol.Attach, protocol.Subscribe, protocol.Unsubscribe)

    def _attach(self, bell: str | None) -> None:
        self.close()
        ringer = _ringer(bell) if self._home is not None else None
        self._way = Pushed(self.channel, self._read) if ringer is None else Rung(ringer)
        self.channel.send(protocol.pack(protocol.Attached(None if ringer is None else self._home)))

    def notify(self, names: Collection[str]) -> None:
        """These partitions have grown."""
        if self._way is not None:
            self._way.notify(names)

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
        self._ringer, self._names = ringer, set[str]()

    def set(self, name: str, offset: int | None) -> None:
        """It reads this partition from now on; with ``offset`` None no more."""
        if offset is None:
            self._names.discard(name)
        else:
            self._names.add(name)
            self._ringer.ring()

    def notify(self, names: Collection[str]) -> None:
        """Ring, if it reads any of these."""
        if not self._names.isdisjoint(names):
            self._ringer.ring()

    def close(self) -> None:
        """Ring no more."""
        self._ringer.close()


class Pushed:
    """A subscriber elsewhere: its cursors, and the thread that pushes to it."""

    def __init__(self, channel: Channel, read: Read) -> None:
        self._channel, self._read = channel, read
        self._cursors: dict[str, int] = {}
        self._grown: set[str] = set()  # partitions that may have more than their cursor has seen
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        threading.Thread(target=self._push_all, name="push", daemon=True).start()

    def set(self, name: str, offset: int | None) -> None:
        """Push this partition from ``offset`` on; with None no more."""
        with self._lock:
            if offset is None:
                self._cursors.pop(name, None)
            else:
                self._cursors[name] = offset
                self._grown.add(name)
        self._wake.set()

    def notify(self, names: Collection[str]) -> None:
        """These partitions have grown."""
        with self._lock:
            mine = self._cursors.keys() & names
            self._grown |= mine
        if mine:
            self._wake.set()

    def _push_all(self) -> None:
        try:
            while self._channel.open and not self._closing:
                self._wake.wait(timeout=1.0)
                self._wake.clear()
                while self._channel.open and not self._closing and self._push_some():
                    pass
        except Exception as error:  # a partition that nobody has, or a defect: unsaid, it would wait for ever
            log.exception("nothing is pushed any more", process="broker")
            self._channel.finish(refusal(InputError(f"nothing can be delivered: {type(error).__name__}: {error}")))
            self._channel.end()

    def _push_some(self) -> bool:
        with self._lock:
            cursors = {name: self._cursors[name] for name in self._grown if name in self._cursors}
            self._grown.clear()
        entries: list[tuple[str, LogBatch]] = []
        for name, offset in cursors.items():
            found = self._batches(name, offset)
            if found and self._advance(name, offset, found[-1].header.end):
                entries += [(name, entry) for entry in found]
        if entries:
            self._channel.send(frames.pack_entries(entries, now()))
        return bool(entries)

    def _batches(self, name: str, offset: int) -> list[LogBatch]:
        try:
            return self._read(name, offset, DELIVERY_BYTES)
        except EventmeshError as error:
            self.set(name, None)
            self._channel.send(protocol.pack(protocol.ReadFailed(name, protocol.Failure.of(error))))
            return []

    def _advance(self, name: str, offset: int, end: int) -> bool:
        with self._lock:
            if self._cursors.get(name) != offset:
                return False  # subscribed anew meanwhile
            self._cursors[name] = end
            self._grown.add(name)  # there may be more
            return True

    def close(self) -> None:
        """End the thread."""
        self._closing = True
        self._wake.set()

"""Every frame that two processes send each other, as a typed header with bodies, and how it becomes bytes. No I/O.

A frame is a header and any number of bodies, which are Arrow IPC messages or heads of batches, never pickled::

    "EM" | version (uint16) | number of bodies (uint32) | bytes of the header (uint32) | bytes of each body (uint32)
    header: JSON, with its kind | each body

All numbers are little-endian; header and bodies begin at multiples of 8 bytes. Each frame says its version, so that
whoever reads one can tell a process of another version from damage, on any stream and at any place in it.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, NoReturn

import msgspec
import pyarrow as pa

from eventmesh.errors import KINDS, EventmeshError, InputError, MayHaveHappened

#: Changes with every change of a frame that a process of the version before would not read rightly.
VERSION = 1
MARK = b"EM"
#: Bytes of a header that cannot be read which its error repeats.
SHOWN_BYTES = 100
#: Sizes of bodies that an error repeats.
SHOWN_SIZES = 8
_PREFIX = struct.Struct("<2sHII")
_SIZE_BYTES = 4
_PADDING = [bytes(-length % 8) for length in range(8)]

#: The bytes of one frame, as parts that follow each other; large bodies are shared, not copied.
Frame = Sequence[pa.Buffer | bytes | memoryview]
#: A partition, an offset, an epoch, a number of rows, or microseconds since the Unix epoch.
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


def _kind(name: str) -> str:
    """``GrantFailed`` is ``grant_failed``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class FrameHeader(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag=_kind):
    """Base of all headers. ``sent_at``, where a header has it, is when the sender sent it, by the sender's clock."""


class Failure(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An error on its way: the name of its class, its message, and those of its attributes that JSON has types for."""

    name: str
    message: str
    facts: dict[str, Any] = {}

    @classmethod
    def of(cls, error: EventmeshError) -> Failure:
        """The error, to be sent. What cannot be written in UTF-8, as in the name of a file, is escaped."""
        facts = {name: value for name, value in vars(error).items() if _travels(value)}
        return cls(type(error).__name__, str(error).encode(errors="backslashreplace").decode(), facts)

    def error(self) -> EventmeshError:
        """The error again. One of a name that is unknown here may have happened.

        What a class says of all its errors, :attr:`~eventmesh.errors.EventmeshError.definite` for one, no sender can
        say otherwise of one.
        """
        kind = KINDS.get(self.name)
        if kind is None:
            return MayHaveHappened(self.message)
        return kind.remade(
            (self.message,), {name: fact for name, fact in self.facts.items() if not hasattr(kind, name)}
        )


def _travels(value: object) -> bool:
    """Whether JSON gives back what it was given."""
    if isinstance(value, dict):
        return all(isinstance(name, str) and _travels(name) and _travels(each) for name, each in value.items())
    if isinstance(value, list):
        return all(map(_travels, value))
    if isinstance(value, str):
        return value.isascii() or value == value.encode(errors="replace").decode()
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, int) and -(2**63) <= value < 2**63)


# --- any stream -----------------------------------------------------------------------------------


class Hello(FrameHeader, frozen=True, gc=False):
    """The client's first frame: what it wants the stream for. Over Flight its credentials are in a header of gRPC.

    ``sender`` is the process of the mesh that it comes from, empty for others, and ``connection`` what both ends call
    the stream: faults on links go by them, and nothing else.
    """

    purpose: str
    credentials: str = ""
    sender: str = ""
    connection: str = ""


class Welcome(FrameHeader, frozen=True, gc=False):
    """The server's first frame: the client is let in."""


class Refused(FrameHeader, frozen=True, gc=False):
    """The last frame of either side, which will not or cannot take what the other side sent, and says why."""

    failure: Failure


class Goodbye(FrameHeader, frozen=True, gc=False):
    """The last frame of a server that ends, for no fault of the client's."""

    reason: str


# --- streams for writing --------------------------------------------------------------------------


class Grant(FrameHeader, frozen=True, gc=False):
    """``incarnation`` of ``service``, which runs ``code``, asks for an epoch of a partition."""

    topic: str
    partition: Natural
    service: str
    incarnation: str
    sent_at: Natural
    code: str = ""


class Granted(FrameHeader, frozen=True, gc=False):
    """The epoch, and the end offset to which the new holder folds before it decides."""

    partition: Natural
    epoch: Natural
    end: Natural
    sent_at: Natural


class GrantFailed(FrameHeader, frozen=True, gc=False):
    """No epoch."""

    partition: Natural
    failure: Failure
    sent_at: Natural


class Append(FrameHeader, frozen=True, gc=False):
    """A batch for the log. Its bodies are the batch's head and message."""

    topic: str
    partition: Natural
    sent_at: Natural


class Appended(FrameHeader, frozen=True, gc=False):
    """The batch is acknowledged: the partition went to ``end``."""

    partition: Natural
    epoch: Natural
    end: Natural
    sent_at: Natural


class AppendFailed(FrameHeader, frozen=True, gc=False):
    """The batch was refused, or nobody knows what became of it."""

    partition: Natural
    epoch: Natural
    failure: Failure
    sent_at: Natural


#: What a broker says to who writes, of one partition in the order of what was asked.
BrokerAnswer = Granted | GrantFailed | Appended | AppendFailed


# --- streams for reading --------------------------------------------------------------------------


class Attach(FrameHeader, frozen=True, gc=False):
    """A subscriber's first frame: the doorbell that the broker rings, None where it wants to be sent batches."""

    bell: str | None


class Home(msgspec.Struct, frozen=True, gc=False):
    """The broker's files: who sees a manifest with this (device, inode) there sees the same files."""

    directory: str
    manifest: tuple[int, int]


class Attached(FrameHeader, frozen=True, gc=False):
    """Where a subscriber on the broker's node reads for itself; None where it will be sent batches."""

    home: Home | None


class Subscribe(FrameHeader, frozen=True, gc=False):
    """Deliver ``topic/partition`` from ``offset`` on."""

    name: str
    offset: Natural


class Unsubscribe(FrameHeader, frozen=True, gc=False):
    """Deliver no more of ``topic/partition``."""

    name: str


class Entries(FrameHeader, frozen=True, gc=False):
    """Batches, each with the name of its ``topic/partition``. Its bodies are a head and a message for each."""

    names: list[str]
    sent_at: Natural


class ReadFailed(FrameHeader, frozen=True, gc=False):
    """``topic/partition`` cannot be read on."""

    name: str
    failure: Failure


# --- streams between services and callers ---------------------------------------------------------


class Ask(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A command or query without its rows; they are the next so many of the body of its message."""

    id: str
    message: str
    ids: list[str]
    sender: str
    partition: Natural
    rows: Natural


class Asks(FrameHeader, frozen=True, gc=False):
    """Commands and queries. ``messages`` has the name of the message whose rows are in each body."""

    asks: list[Ask]
    messages: list[str]
    sent_at: Natural


class Reply(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An answer without its rows; they are the next so many of the body of its message."""

    ask: str
    message: str
    indexes: list[Natural]
    final: bool
    failure: Failure | None
    rows: Natural


class Replies(FrameHeader, frozen=True, gc=False):
    """Answers; ``messages`` as in :class:`Asks`."""

    replies: list[Reply]
    messages: list[str]
    sent_at: Natural


_AnyHeader = (
    Hello | Welcome | Refused | Goodbye
    | Grant | Granted | GrantFailed | Append | Appended | AppendFailed
    | Attach | Attached | Subscribe | Unsubscribe | Entries | ReadFailed
    | Asks | Replies
)  # fmt: skip
_ENCODE = msgspec.json.Encoder().encode
_DECODE: Any = msgspec.json.Decoder(_AnyHeader).decode


# --- bytes ----------------------------------------------------------------------------------------


def pack(header: FrameHeader, bodies: Sequence[pa.Buffer | bytes] = ()) -> Frame:
    """A frame of a header and any number of bodies, which it shares."""
    head, count = _ENCODE(header), len(bodies)
    if not count:
        return [_PREFIX.pack(MARK, VERSION, 0, len(head)) + head + _PADDING[(_PREFIX.size + len(head)) % 8]]
    sizes = [len(body) for body in bodies]
    before = _prefix(count).pack(MARK, VERSION, count, len(head), *sizes)
    parts: list[Any] = [before + head + _PADDING[(len(before) + len(head)) % 8]]
    for body, size in zip(bodies, sizes, strict=True):
        parts.append(body)
        if size % 8:
            parts.append(_PADDING[size % 8])
    return parts


@lru_cache(maxsize=64)
def _prefix(count: int) -> struct.Struct:
    """With the sizes of so many bodies."""
    return struct.Struct(f"{_PREFIX.format}{count}I")


def unpack(frame: pa.Buffer) -> tuple[FrameHeader, list[pa.Buffer]]:
    """The header and the bodies, which share the frame's memory.

    :class:`~eventmesh.errors.InputError` says what was found instead of a whole frame of this version.
    """
    whole = frame.size
    if whole < _PREFIX.size:
        _not_a_frame(frame, f"it ends after {whole} bytes")
    mark, version, count, length = _PREFIX.unpack_from(frame)
    if mark != MARK:
        _not_a_frame(frame, f"it begins with {mark!r}")
    if version != VERSION:
        raise InputError(
            f"a frame of version {version}: expected version {VERSION}. Run one version of eventmesh in all processes"
        )
    begin = _PREFIX.size + count * _SIZE_BYTES
    end = begin + length
    if end > whole:
        _not_a_frame(frame, f"it names {count} bodies and a header of {length} bytes")
    header = _header(memoryview(frame)[begin:end])
    sizes = _prefix(count).unpack_from(frame)[4:] if count else ()
    at, bodies = end + -end % 8, []
    for size in sizes:
        if at + size > whole:
            break
        bodies.append(frame.slice(at, size))
        at += size + -size % 8
    if at != whole or len(bodies) != count:
        _not_a_frame(frame, f"a header of {length} bytes and bodies of {sizes[:SHOWN_SIZES]} do not make it up")
    return header, bodies


def _header(head: memoryview) -> FrameHeader:
    try:
        header: FrameHeader = _DECODE(head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        shown, problem = bytes(head[:SHOWN_BYTES]), str(error)[:SHOWN_BYTES]
        raise InputError(
            f"a frame with the header {shown!r}: expected a kind and fields of version {VERSION}: {problem}"
        ) from error
    return header


def _not_a_frame(frame: pa.Buffer, found: str) -> NoReturn:
    raise InputError(f"no frame of {frame.size} bytes: expected {MARK!r} and the sizes of its parts, but {found}")


def kind(header: FrameHeader) -> str:
    """What a header is called on its way."""
    return _kind(type(header).__name__)


def unexpected(header: FrameHeader, *expected: type[FrameHeader]) -> InputError:
    """What is said to a frame that has no business on its stream."""
    kinds = " or ".join(_kind(each.__name__) for each in expected)
    return InputError(f"a frame of the kind {kind(header)}: expected {kinds} on this stream")

"""How messages look on a Flight stream: one frame each, a JSON header and Arrow IPC bodies. No I/O.

A frame is ``length of header (uint32) | header | bodies``, each part padded to 8 bytes, carried as the
``app_metadata`` of a Flight message, so that one stream carries messages of any schema. Payload rows
are Arrow record batches and never pickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from eventmesh import errors
from eventmesh.errors import EventmeshError
from eventmesh.log.batch import Header, LogBatch
from eventmesh.messages import Columns, MessageType, encode_rows
from eventmesh.progress import split_position
from eventmesh.runtime.effects import AskMessage, ReplyMessage, Row
from eventmesh.runtime.wire.channel import Frame

_PREFIX = 4


def _pad(length: int) -> int:
    return -length % 8


def pack(header: Mapping[str, Any], bodies: Sequence[pa.Buffer | bytes] = ()) -> Frame:
    """A frame of a header and any number of bodies, which it shares."""
    sizes = list(map(len, bodies))
    head = msgspec.json.encode({**header, "sizes": sizes})
    parts: list[Any] = [len(head).to_bytes(_PREFIX, "little") + head + bytes(_pad(_PREFIX + len(head)))]
    for body, size in zip(bodies, sizes, strict=True):
        parts += [body, bytes(_pad(size))] if size % 8 else [body]
    return parts


def unpack(frame: pa.Buffer) -> tuple[dict[str, Any], list[pa.Buffer]]:
    """The header and the bodies, which share the frame's memory."""
    view = memoryview(frame)
    length = int.from_bytes(view[:_PREFIX], "little")
    if length > frame.size:
        raise errors.InputError(
            f"a frame of {frame.size} bytes names a header of {length}: not a frame of this protocol"
        )
    try:
        header: dict[str, Any] = msgspec.json.decode(view[_PREFIX : _PREFIX + length])
    except msgspec.MsgspecError as error:
        raise errors.InputError(f"a frame of {frame.size} bytes has a header that is no JSON: {error}") from error
    at = _PREFIX + length + _pad(_PREFIX + length)
    bodies = []
    for size in header.pop("sizes"):
        bodies.append(frame.slice(at, size))
        at += size + _pad(size)
    return header, bodies


def pack_error(error: EventmeshError) -> dict[str, str]:
    """An error by its name, so that the other side knows whether the thing may have happened."""
    return {"name": type(error).__name__, "message": str(error)}


def unpack_error(packed: Mapping[str, str]) -> EventmeshError:
    """The error again; one of a name unknown here may have happened."""
    kind = getattr(errors, packed["name"], errors.MayHaveHappened)
    error: EventmeshError = kind.__new__(kind)
    Exception.__init__(error, packed["message"])
    return error


def pack_asks(asks: Sequence[tuple[int, AskMessage]], kinds: Mapping[str, MessageType], sent_at: int) -> Frame:
    """Commands and queries to one process, each with the partition that is asked."""
    rows: dict[str, list[Columns]] = {}
    heads = []
    for partition, message in asks:
        rows.setdefault(message.name, []).append(message.rows)
        heads.append([message.id, message.name, list(message.ids), message.sender, partition, len(message.rows)])
    bodies = [_together(parts, kinds[name].question).serialize() for name, parts in rows.items()]
    return pack({"kind": "asks", "asks": heads, "bodies": list(rows), "sent_at": sent_at}, bodies)


def unpack_asks(
    header: Mapping[str, Any], bodies: Sequence[pa.Buffer], kinds: Mapping[str, MessageType]
) -> list[tuple[int, AskMessage]]:
    """The reverse of :func:`pack_asks`; :class:`~eventmesh.errors.InputError` for a message of an unknown name."""
    unknown = sorted(set(header["bodies"]) - kinds.keys())
    if unknown:
        raise errors.InputError(f"nobody knows a message {unknown[0]!r}; there are {', '.join(sorted(kinds))}")
    schemas = {name: kinds[name].question for name in header["bodies"]}
    columns = _Parts(header["bodies"], bodies, schemas)
    return [
        (partition, AskMessage(identity, name, ids, columns.next(name, count), sender))
        for identity, name, ids, sender, partition, count in header["asks"]
    ]


def pack_replies(replies: Sequence[tuple[str, ReplyMessage]], kinds: Mapping[str, MessageType], sent_at: int) -> Frame:
    """Answers for one process, each with the name of the message that it answers."""
    rows: dict[str, list[Row]] = {}
    heads = []
    for name, reply in replies:
        error = None if reply.error is None else pack_error(reply.error)
        rows.setdefault(name, []).extend(reply.rows)
        heads.append([reply.ask, name, list(reply.indexes), reply.final, error, len(reply.rows)])
    bodies = [encode_rows(kinds[name].answer, parts).serialize() for name, parts in rows.items()]
    return pack({"kind": "replies", "replies": heads, "bodies": list(rows), "sent_at": sent_at}, bodies)


def unpack_replies(
    header: Mapping[str, Any], bodies: Sequence[pa.Buffer], kinds: Mapping[str, MessageType]
) -> list[ReplyMessage]:
    """The reverse of :func:`pack_replies`."""
    schemas = {name: kinds[name].answer for name in header["bodies"]}
    columns = _Parts(header["bodies"], bodies, schemas)
    replies = []
    for ask, name, indexes, final, packed, count in header["replies"]:
        error = None if packed is None else unpack_error(packed)
        replies.append(ReplyMessage(ask, indexes, columns.next(name, count).dicts(schemas[name]), final, error))
    return replies


def _together(parts: Sequence[Columns], schema: pa.Schema) -> pa.RecordBatch:
    encoded = [part.encode(schema) for part in parts]
    return encoded[0] if len(encoded) == 1 else pa.concat_batches(encoded)


class _Parts:
    """The rows of a frame by name of message, handed out in the order in which they were packed."""

    def __init__(self, names: Sequence[str], bodies: Sequence[pa.Buffer], schemas: Mapping[str, pa.Schema]) -> None:
        self._columns = {
            name: Columns(_valid(pa.ipc.read_record_batch(body, schemas[name])))
            for name, body in zip(names, bodies, strict=True)
        }
        self._schemas = schemas
        self._taken = dict.fromkeys(names, 0)

    def next(self, name: str, count: int) -> Columns:
        """The next ``count`` rows of messages of this name."""
        columns, start = self._columns[name], self._taken[name]
        self._taken[name] = start + count
        if start == 0 and count == len(columns):
            return columns
        return Columns(lists={each: columns[each][start : start + count] for each in self._schemas[name].names})


def _valid(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, whose offsets lie within its data: it came from outside. Raises ``ArrowInvalid``."""
    batch.validate(full=True)
    return batch


def pack_append(topic: str, partition: int, entry: LogBatch, sent_at: int) -> Frame:
    """A batch for the log."""
    header = {"kind": "append", "topic": topic, "partition": partition, "sent_at": sent_at}
    return pack(header, [entry.head, entry.message])


def unpack_append(bodies: Sequence[pa.Buffer], schema: pa.Schema) -> LogBatch:
    """The batch of :func:`pack_append`."""
    head, message = bodies
    return _entry(head, message, schema)


def _entry(head: pa.Buffer, message: pa.Buffer, schema: pa.Schema) -> LogBatch:
    packed = head.to_pybytes()
    return LogBatch(Header.from_bytes(packed), message, schema, packed)


def pack_entries(entries: Sequence[tuple[str, LogBatch]], sent_at: int) -> Frame:
    """Log batches, each with the name of its partition, as they stand in the segment."""
    header = {"kind": "entries", "names": [name for name, _ in entries], "sent_at": sent_at}
    return pack(header, [part for _, entry in entries for part in (entry.head, entry.message)])


def unpack_entries(
    header: Mapping[str, Any], bodies: Sequence[pa.Buffer], schemas: Mapping[str, pa.Schema]
) -> list[tuple[str, int, LogBatch]]:
    """(topic, partition, batch) of each."""
    entries = []
    for name, head, message in zip(header["names"], bodies[::2], bodies[1::2], strict=True):
        topic, partition = split_position(name)
        entries.append((topic, partition, _entry(head, message, schemas[topic])))
    return entries

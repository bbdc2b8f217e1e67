"""How messages look on a Flight stream: one frame each, a JSON header and Arrow IPC bodies. No I/O.

A frame is ``length of header (uint32) | header | bodies``, each part padded to 8 bytes, carried as the
``app_metadata`` of a Flight message, so that one stream carries messages of any schema. Payload rows
are Arrow record batches and never pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from eventmesh import errors
from eventmesh.errors import EventmeshError
from eventmesh.log.batch import Header, LogBatch
from eventmesh.messages import Columns, MessageType, encode_rows
from eventmesh.runtime.contract import AskMessage, ReplyMessage, Row

_PREFIX = 4


def _pad(length: int) -> int:
    return -length % 8


def pack(header: Mapping[str, Any], bodies: Sequence[pa.Buffer | bytes] = ()) -> pa.Buffer:
    """A frame of a header and any number of bodies."""
    sizes = [body.size if isinstance(body, pa.Buffer) else len(body) for body in bodies]
    head = json.dumps({**header, "sizes": sizes}, separators=(",", ":")).encode()
    parts: list[Any] = [len(head).to_bytes(_PREFIX, "little"), head, bytes(_pad(_PREFIX + len(head)))]
    for body, size in zip(bodies, sizes, strict=True):
        parts += [memoryview(body), bytes(_pad(size))]
    return pa.py_buffer(b"".join(parts))


def unpack(frame: pa.Buffer) -> tuple[dict[str, Any], list[pa.Buffer]]:
    """The header and the bodies, which share the frame's memory."""
    length = int.from_bytes(memoryview(frame)[:_PREFIX], "little")
    if length > frame.size:
        raise errors.InputError(
            f"a frame of {frame.size} bytes names a header of {length}: not a frame of this protocol"
        )
    header: dict[str, Any] = json.loads(bytes(memoryview(frame)[_PREFIX : _PREFIX + length]))
    at = _PREFIX + length + _pad(_PREFIX + length)
    bodies = []
    for size in header.pop("sizes"):
        bodies.append(frame.slice(at, size))
        at += size + _pad(size)
    return header, bodies


def pack_rows(schema: pa.Schema, rows: Sequence[Row]) -> pa.Buffer:
    """Rows as one IPC record batch message."""
    return encode_rows(schema, rows).serialize()


def unpack_rows(body: pa.Buffer, schema: pa.Schema) -> list[Row]:
    """The reverse of :func:`pack_rows`."""
    columns, names = Columns(pa.ipc.read_record_batch(body, schema)), schema.names
    return [dict(zip(names, values, strict=True)) for values in columns.rows(*names)]


def pack_error(error: EventmeshError) -> dict[str, str]:
    """An error by its name, so that the other side knows whether the thing may have happened."""
    return {"name": type(error).__name__, "message": str(error)}


def unpack_error(packed: Mapping[str, str]) -> EventmeshError:
    """The error again; one of a name unknown here may have happened."""
    kind = getattr(errors, packed["name"], errors.MayHaveHappened)
    error: EventmeshError = kind.__new__(kind)
    Exception.__init__(error, packed["message"])
    return error


def pack_ask(message: AskMessage, partition: int, kind: MessageType, sent_at: int) -> pa.Buffer:
    """A command or query to one partition."""
    header = {
        "kind": "ask",
        "id": message.id,
        "name": message.name,
        "ids": list(message.ids),
        "sender": message.sender,
        "partition": partition,
        "sent_at": sent_at,
    }
    return pack(header, [pack_rows(kind.question, message.rows)])


def unpack_ask(header: Mapping[str, Any], bodies: Sequence[pa.Buffer], kind: MessageType) -> AskMessage:
    """The reverse of :func:`pack_ask`."""
    rows = unpack_rows(bodies[0], kind.question)
    return AskMessage(header["id"], header["name"], header["ids"], rows, header["sender"])


def pack_reply(reply: ReplyMessage, name: str, kind: MessageType, sent_at: int) -> pa.Buffer:
    """An answer to a message called ``name``."""
    header: dict[str, Any] = {
        "kind": "reply",
        "ask": reply.ask,
        "name": name,
        "indexes": list(reply.indexes),
        "final": reply.final,
        "sent_at": sent_at,
    }
    if reply.error is not None:
        return pack({**header, "error": pack_error(reply.error)})
    return pack(header, [pack_rows(kind.answer, reply.rows)])


def unpack_reply(header: Mapping[str, Any], bodies: Sequence[pa.Buffer], kind: MessageType) -> ReplyMessage:
    """The reverse of :func:`pack_reply`."""
    error = unpack_error(header["error"]) if "error" in header else None
    rows = unpack_rows(bodies[0], kind.answer) if bodies else []
    return ReplyMessage(header["ask"], header["indexes"], rows, header["final"], error)


def pack_entries(entries: Sequence[tuple[str, LogBatch]], sent_at: int) -> pa.Buffer:
    """Log batches, each with the name of its partition, as they stand in the segment."""
    heads = [[name, entry.header.to_bytes().decode()] for name, entry in entries]
    return pack({"kind": "entries", "heads": heads, "sent_at": sent_at}, [entry.message for _, entry in entries])


def unpack_entries(
    header: Mapping[str, Any], bodies: Sequence[pa.Buffer], schemas: Mapping[str, pa.Schema]
) -> list[tuple[str, int, LogBatch]]:
    """(topic, partition, batch) of each."""
    entries = []
    for (name, head), body in zip(header["heads"], bodies, strict=True):
        topic, _, partition = name.rpartition("/")
        entries.append((topic, int(partition), LogBatch(Header.from_bytes(head.encode()), body, schemas[topic])))
    return entries

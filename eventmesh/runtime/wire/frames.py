"""What stands in the bodies of frames: questions, answers, and batches of the log. No I/O.

The frames themselves, and how they become bytes, are in :mod:`~eventmesh.runtime.wire.protocol`. Payload rows are Arrow
record batches and never pickled; those of asks and replies are checked before anybody reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from eventmesh.declared import MessageType
from eventmesh.errors import InputError
from eventmesh.log.batch import Header, LogBatch
from eventmesh.log.topic import Topic
from eventmesh.messages import Columns, encode_rows
from eventmesh.progress import split_position
from eventmesh.runtime.effects import (
    Appended,
    AppendFailed,
    AskMessage,
    BrokerAnswer,
    Granted,
    GrantFailed,
    ReplyMessage,
    Row,
)
from eventmesh.runtime.wire import protocol
from eventmesh.runtime.wire.protocol import Frame, pack


def pack_asks(asks: Sequence[tuple[int, AskMessage]], kinds: Mapping[str, MessageType], sent_at: int) -> Frame:
    """Commands and queries to one process, each with the partition that is asked."""
    rows: dict[str, list[Columns]] = {}
    heads = []
    for partition, message in asks:
        rows.setdefault(message.name, []).append(message.rows)
        heads.append(
            protocol.Ask(message.id, message.name, list(message.ids), message.sender, partition, len(message.rows))
        )
    bodies = [_together(parts, kinds[name].question).serialize() for name, parts in rows.items()]
    return pack(protocol.Asks(heads, list(rows), sent_at), bodies)


def unpack_asks(
    header: protocol.Asks, bodies: Sequence[pa.Buffer], kinds: Mapping[str, MessageType]
) -> list[tuple[int, AskMessage]]:
    """The reverse of :func:`pack_asks`; :class:`~eventmesh.errors.InputError` for a message of an unknown name."""
    columns = _Parts(header.messages, bodies, {name: _known(name, kinds).question for name in header.messages})
    return [
        (ask.partition, AskMessage(ask.id, ask.message, ask.ids, columns.next(ask.message, ask.rows), ask.sender))
        for ask in header.asks
    ]


def pack_replies(replies: Sequence[tuple[str, ReplyMessage]], kinds: Mapping[str, MessageType], sent_at: int) -> Frame:
    """Answers for one process, each with the name of the message that it answers."""
    rows: dict[str, list[Row]] = {}
    heads = []
    for name, reply in replies:
        failure = None if reply.error is None else protocol.Failure.of(reply.error)
        rows.setdefault(name, []).extend(reply.rows)
        heads.append(protocol.Reply(reply.ask, name, list(reply.indexes), reply.final, failure, len(reply.rows)))
    bodies = [encode_rows(kinds[name].answer, parts).serialize() for name, parts in rows.items()]
    return pack(protocol.Replies(heads, list(rows), sent_at), bodies)


def unpack_replies(
    header: protocol.Replies, bodies: Sequence[pa.Buffer], kinds: Mapping[str, MessageType]
) -> list[ReplyMessage]:
    """The reverse of :func:`pack_replies`."""
    schemas = {name: _known(name, kinds).answer for name in header.messages}
    columns = _Parts(header.messages, bodies, schemas)
    return [
        ReplyMessage(
            reply.ask,
            reply.indexes,
            columns.next(reply.message, reply.rows).dicts(schemas[reply.message]),
            reply.final,
            None if reply.failure is None else reply.failure.error(),
        )
        for reply in header.replies
    ]


def _known(name: str, kinds: Mapping[str, MessageType]) -> MessageType:
    if name not in kinds:
        raise InputError(f"nobody knows a message {name!r}; there are {', '.join(sorted(kinds))}")
    return kinds[name]


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
        if name not in self._columns:
            raise InputError(f"rows of {name!r} are named: expected one of {sorted(self._columns)}, which have a body")
        columns, start = self._columns[name], self._taken[name]
        self._taken[name] = start + count
        if start + count > len(columns):
            raise InputError(f"{start + count} rows of {name!r} are named: the body has {len(columns)}")
        if start == 0 and count == len(columns):
            return columns
        return Columns(lists={each: columns[each][start : start + count] for each in self._schemas[name].names})


def _valid(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, whose offsets lie within its data: it came from outside. Raises ``ArrowInvalid``."""
    batch.validate(full=True)
    return batch


def pack_append(topic: str, partition: int, entry: LogBatch, sent_at: int) -> Frame:
    """A batch for the log."""
    return pack(protocol.Append(topic, partition, sent_at), [entry.head, entry.message])


def unpack_append(bodies: Sequence[pa.Buffer], schema: pa.Schema) -> LogBatch:
    """The batch of :func:`pack_append`."""
    if len(bodies) != 2:
        raise InputError(f"an append with {len(bodies)} bodies: expected the batch's head and its message")
    head, message = bodies
    return _entry(head, message, schema)


def _entry(head: pa.Buffer, message: pa.Buffer, schema: pa.Schema) -> LogBatch:
    packed = head.to_pybytes()
    return LogBatch(Header.from_bytes(packed), message, schema, packed)


def pack_entries(entries: Sequence[tuple[str, LogBatch]], sent_at: int) -> Frame:
    """Log batches, each with the name of its partition, as they stand in the segment."""
    names = [name for name, _ in entries]
    return pack(
        protocol.Entries(names, sent_at), [part for _, entry in entries for part in (entry.head, entry.message)]
    )


def unpack_entries(
    header: protocol.Entries, bodies: Sequence[pa.Buffer], topics: Mapping[str, Topic]
) -> list[tuple[str, int, LogBatch]]:
    """(topic, partition, batch) of each, read with the newest columns.

    ``InputError`` for a topic that nobody asked for, and for a version of its columns that is not known here.
    """
    if len(bodies) != 2 * len(header.names):
        raise InputError(
            f"{len(header.names)} batches with {len(bodies)} bodies: expected a head and a message of each"
        )
    entries = []
    for name, head, message in zip(header.names, bodies[::2], bodies[1::2], strict=True):
        topic, partition = split_position(name)
        if topic not in topics:
            raise InputError(f"a batch of {name}: expected one of the topics {sorted(topics)}")
        entries.append((topic, partition, _of_topic(topics[topic], _entry(head, message, topics[topic].schema))))
    return entries


def _of_topic(topic: Topic, entry: LogBatch) -> LogBatch:
    version = entry.header.version
    if version == topic.version:
        return entry
    stored = topic.columns_of(version)
    if stored is None:
        raise InputError(
            f"a batch of {topic.name} with version {version} of its columns: known here are 1 to {topic.version}"
        )
    return LogBatch(entry.header, entry.message, stored, entry.head, topic.schema)


def pack_answer(answer: BrokerAnswer, sent_at: int) -> Frame:
    """What a broker says to who writes."""
    match answer:
        case Granted(partition, epoch, end):
            return pack(protocol.Granted(partition, epoch, end, sent_at))
        case GrantFailed(partition, error):
            return pack(protocol.GrantFailed(partition, protocol.Failure.of(error), sent_at))
        case Appended(partition, epoch, end):
            return pack(protocol.Appended(partition, epoch, end, sent_at))
        case AppendFailed(partition, epoch, error):
            return pack(protocol.AppendFailed(partition, epoch, protocol.Failure.of(error), sent_at))


def unpack_answer(header: protocol.BrokerAnswer) -> BrokerAnswer:
    """The reverse of :func:`pack_answer`."""
    match header:
        case protocol.Granted():
            return Granted(header.partition, header.epoch, header.end)
        case protocol.GrantFailed():
            return GrantFailed(header.partition, header.failure.error())
        case protocol.Appended():
            return Appended(header.partition, header.epoch, header.end)
        case protocol.AppendFailed():
            return AppendFailed(header.partition, header.epoch, header.failure.error())

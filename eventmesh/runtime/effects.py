"""What services say to each other, and the effects that a runtime carries out and reports back on.

The parts that decide (:mod:`~eventmesh.runtime.task`, :mod:`~eventmesh.runtime.instance`,
:mod:`~eventmesh.runtime.caller`) do no I/O. They are called with what happened and leave effects to
carry out; each effect names the method that its result comes back through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from eventmesh.errors import EventmeshError
from eventmesh.log.batch import LogBatch
from eventmesh.messages import Columns

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Address:
    """One partition of one service: who a command or query is sent to."""

    service: str
    partition: int


@dataclass(frozen=True, slots=True)
class AskMessage:
    """A command or a query on its way. ``rows`` are its questions as columns; ``ids`` names each command row.

    ``id`` is unique per sender and repeats when the same question is sent again.
    """

    id: str
    name: str
    ids: Sequence[str]
    rows: Columns
    sender: str


@dataclass(frozen=True, slots=True)
class ReplyMessage:
    """Answers to some rows of one :class:`AskMessage`: ``rows[i]`` answers row ``indexes[i]``.

    ``final`` is false for a first reply after which another will come (accepted, then completed).
    An ``error`` answers all the named rows.
    """

    ask: str
    indexes: Sequence[int]
    rows: Sequence[Row]
    final: bool = True
    error: EventmeshError | None = None


class Granted(msgspec.Struct, frozen=True):
    """The partition is the asker's at ``epoch``: fold it exactly to ``end``, then decide."""

    partition: int
    epoch: int
    end: int


class GrantFailed(msgspec.Struct, frozen=True):
    """No epoch was granted, or nobody knows."""

    partition: int
    error: EventmeshError


class Appended(msgspec.Struct, frozen=True):
    """An append is acknowledged; the partition went to ``end``."""

    partition: int
    epoch: int
    end: int


class AppendFailed(msgspec.Struct, frozen=True):
    """The oldest append in flight was refused, or nobody knows."""

    partition: int
    epoch: int
    error: EventmeshError


#: What a broker says to who writes, of one partition in the order of what was asked. They are structs, since there is
#: one for each append, and a frozen dataclass takes ten times as long to make.
BrokerAnswer = Granted | GrantFailed | Appended | AppendFailed


@dataclass(frozen=True, slots=True)
class RequestGrant:
    """Ask the broker for an epoch. Result: :class:`Granted` or :class:`GrantFailed`."""

    partition: int


@dataclass(frozen=True, slots=True)
class Append:
    """Append to the owned topic. Result, in order: :class:`Appended` or :class:`AppendFailed`."""

    partition: int
    entry: LogBatch


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Deliver a partition from ``offset`` on; replaces an earlier one. Result: ``deliver(topic, partition, entry)``."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Stop delivering a partition."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class SendAsk:
    """Send a command or query. Result: ``replied(reply)``, or nothing: the sender keeps its own deadline."""

    to: Address
    message: AskMessage


@dataclass(frozen=True, slots=True)
class SendReply:
    """Answer a message received from ``origin`` (a runtime's own handle of the connection it came by)."""

    origin: Any
    reply: ReplyMessage


@dataclass(frozen=True, slots=True)
class Exit:
    """This incarnation is fenced: end the process for good (rule 6)."""

    partition: int
    reason: str


Effect = RequestGrant | Append | Subscribe | Unsubscribe | SendAsk | SendReply | Exit

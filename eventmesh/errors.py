"""Every error of the mesh, and whether the thing may have happened all the same.

    EventmeshError
    ├── DidNotHappen                 definite: nothing was changed
    │   ├── ConfigurationError       a mesh, mapping or benchmark file is wrong
    │   ├── InputError               a data file is missing, empty, of another format
    │   ├── NotFound                 a story, topic, run or benchmark that does not exist
    │   ├── AppendRefused            the log decided not to append
    │   │   ├── NotOwner             the topic belongs to another service
    │   │   ├── Fenced               a later incarnation of the owner holds the partition
    │   │   ├── OffsetMismatch       the compare-and-swap named another end offset
    │   │   ├── SchemaMismatch       columns or types differ from the topic's
    │   │   ├── RecordTooLarge       the batch exceeds max.message.bytes
    │   │   ├── StorageFull          no room on the disk; goes on when there is room
    │   │   └── LogStopped           the disk failed a sync; the log must be opened again
    │   ├── KeyReused                an id came again with another payload; refused on record
    │   ├── BoundaryCrossed          a service asks one that the mesh file does not let it ask; refused on record
    │   ├── CircuitOpen              an ask was not sent: too many of those before it failed
    │   ├── Throttled                a queue is full; come back later
    │   │   └── BulkheadFull         an ask was not sent: as many as may be are on their way and wait
    │   ├── OffsetOutOfRange         below the log start, or beyond the end
    │   ├── LogTruncated             the reader's position lies in a gap the machine's death left
    │   ├── CorruptSegment           a checksum fails below the watermark
    │   ├── DataDirectoryError       in use, of another version, cluster or node
    │   └── EnvironmentUnavailable   Ray, a port or a library is not available
    │       └── Unauthenticated      the token is missing or wrong
    └── MayHaveHappened              unknown: the request may have taken effect
        ├── AskTimeout               no answer within the deadline
        └── PeerLost                 the connection broke while an answer was owed
            └── ProtocolError        one side could not take what the other sent

The distinction is Maelstrom's ``definite?``. A handler may retry what did not happen under a new
name; what may have happened is only ever retried under the same id. :class:`StoredSetting` is no error but a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

#: What a command's exit code says.
EXIT_CODES: Mapping[int, str] = {
    0: "fine",
    1: "internal error",
    2: "usage, configuration or input is wrong",
    3: "the audit found the run invalid, or a log is damaged",
    4: "the hypothesis of an experiment did not hold: a tolerance was not kept",
    5: "no verdict: the audit could not decide, a fault did not happen, or a request may have taken effect",
    6: "the environment or a data directory is not available",
    129: "stopped by SIGHUP, as where its terminal was closed",
    130: "stopped by Ctrl-C",
    143: "stopped by SIGTERM",
}


class EventmeshError(Exception):
    """Base of all. ``exit_code`` is what a command that ends with this error exits with."""

    definite: ClassVar[bool] = True
    exit_code: ClassVar[int] = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled by its facts: the arguments that it was made from are not kept."""
        return self.remade, (self.args, self.__dict__)

    @classmethod
    def remade(cls, words: tuple[object, ...], facts: Mapping[str, Any]) -> Self:
        """An error as it was, of its message and its attributes."""
        error = cls.__new__(cls, *words)
        error.__dict__.update(facts)
        return error


class DidNotHappen(EventmeshError):
    """Definite: the operation had no effect."""


class ConfigurationError(DidNotHappen):
    """A configuration file is wrong: says file, path inside it, what was found, what is allowed."""

    exit_code = 2

    def __init__(self, problem: str, *, file: str = "", path: str = "", hint: str = "") -> None:
        self.problem, self.file, self.path, self.hint = problem, file, path, hint
        where = ": ".join(part for part in (file, path) if part)
        super().__init__(". ".join(part for part in (f"{where}: {problem}" if where else problem, hint) if part))


class InputError(DidNotHappen):
    """A data file cannot be read as what callers ask."""

    exit_code = 2


class NotFound(DidNotHappen):
    """Something was named that does not exist; the message suggests the nearest name."""

    exit_code = 2


class AppendRefused(DidNotHappen):
    """The log decided not to append."""


class NotOwner(AppendRefused):
    """The topic has another owner (promise P3)."""


class Fenced(AppendRefused):
    """A newer epoch was granted: this incarnation must exit and not ask again (rule 6)."""


class OffsetMismatch(AppendRefused):
    """The append named another end offset than the partition's (rule 5)."""

    def __init__(self, partition: str, expected: int, end: int) -> None:
        self.partition, self.expected, self.end = partition, expected, end
        super().__init__(
            f"{partition}: the append expects end offset {expected}, the end is {end}. Fold the log again from {end}"
        )


class SchemaMismatch(AppendRefused):
    """The batch does not have the topic's columns."""


class RecordTooLarge(AppendRefused):
    """The batch is larger than the topic's ``max.message.bytes``."""


class StorageFull(AppendRefused):
    """The disk has no room; what was acknowledged stays."""


class LogStopped(AppendRefused):
    """A sync failed: nothing more is accepted until the log is opened again (rule 9)."""


#: How the recorded reason of a :class:`KeyReused` begins.
KEY_REUSED = "idempotency key reused: "


class KeyReused(DidNotHappen):
    """A request came under the name of an earlier one that asked for something else; it is refused on record.

    HTTP's 422 in the IETF's draft "The Idempotency-Key HTTP Header Field": a key is not to be reused with another
    request payload.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"{KEY_REUSED}{problem}")


class BoundaryCrossed(DidNotHappen):
    """A service sends a command or a query to one that it does not ask by the mesh file: nothing was sent."""


class CircuitOpen(DidNotHappen):
    """An ask was not sent, and nothing before may have gone out under its id: its circuit breaker is open."""


class Throttled(DidNotHappen):
    """A bounded queue is full (promise P8)."""


class BulkheadFull(Throttled):
    """An ask was not sent, and nothing before may have gone out under its id: its bulkhead has no place for it."""


#: What an asker's own policies say no with.
NOT_SENT = (CircuitOpen, BulkheadFull)


class OffsetOutOfRange(DidNotHappen):
    """The offset is not (or no longer) in the partition."""

    exit_code = 2

    def __init__(self, partition: str, offset: int, start: int, end: int) -> None:
        self.partition, self.offset, self.start, self.end = partition, offset, start, end
        super().__init__(
            f"{partition}: offset {offset} is outside [{start}, {end}]. Start at {start}, or take a snapshot"
        )


class LogTruncated(DidNotHappen):
    """The position lies in a gap that the death of the machine left (rule 8)."""

    exit_code = 2

    def __init__(self, partition: str, offset: int, lost_from: int, lost_to: int) -> None:
        self.partition, self.offset, self.lost_from, self.lost_to = partition, offset, lost_from, lost_to
        super().__init__(
            f"{partition}: offset {offset} lies in the gap [{lost_from}, {lost_to}) left when the machine died. "
            f"Facts in the gap are gone: rebuild this reader from the log start"
        )


class CorruptSegment(DidNotHappen):
    """Stored bytes do not match their checksum below the watermark: rot, not a torn tail."""

    exit_code = 3

    def __init__(self, file: str, offset: int, position: int, detail: str) -> None:
        self.file, self.offset, self.position, self.detail = file, offset, position, detail
        super().__init__(
            f"{file}: the batch at offset {offset} (byte {position}) is damaged: {detail}. "
            f"Restore the file from a copy; nothing above offset {offset} is shown until then"
        )


class DataDirectoryError(DidNotHappen):
    """The data directory is in use, of another format version, of another cluster or of another node."""

    exit_code = 6


class EnvironmentUnavailable(DidNotHappen):
    """Something outside the program is missing: Ray, a port, a library."""

    exit_code = 6


class Unauthenticated(EnvironmentUnavailable):
    """A mesh or a cluster that asks for a token was given none, or another one."""


class MayHaveHappened(EventmeshError):
    """Unknown: the operation may have taken effect. Only ever retry it under the same id."""

    definite = False
    exit_code = 5


class AskTimeout(MayHaveHappened):
    """No answer within the deadline."""


class PeerLost(MayHaveHappened):
    """The peer or the connection to it is gone while an answer was owed."""


class ProtocolError(PeerLost):
    """One side of a stream sent what the other could not take, so the stream was ended: a defect, or two versions.

    The mesh goes on with a new stream. What was on its way on the old one may have happened, as with any lost peer.
    """


def _tree(kind: type[EventmeshError]) -> Iterator[type[EventmeshError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _tree(each)


#: The classes above by name. An error travels between processes under its name.
KINDS: Mapping[str, type[EventmeshError]] = {kind.__name__: kind for kind in _tree(EventmeshError)}


class StoredSetting(UserWarning):
    """A setting that has no effect stands in a file that was stored with data: the data is opened all the same."""

"""The journal of a caller: what it asks, and all that it was told, so that its death loses nothing of either.

In memory, or as three files in a folder that outlive the process (level ``os``: ``kill -9``, not the death of
the machine). ``requests.arrow`` is written once and last, so that where it lies the journal is whole;
``progress`` is mapped: a store into its columns is all that recording costs; ``words`` grows by the texts of
outcomes and reasons. A folder is held by one process at a time.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa

from eventmesh.errors import DataDirectoryError, StorageFull
from eventmesh.log.storage import NO_ROOM, FileStorage
from eventmesh.workload import Requests

NEVER = -1
#: The folder beside a log that holds the journals of whoever loads the mesh.
GENERATOR = "generator"
FORMAT = "eventmesh.journal/2"
REQUESTS, PROGRESS, WORDS = "requests.arrow", "progress", "words"
_METADATA = b"eventmesh.journal"
_RECORD = struct.Struct("<II")  # bytes of the word, CRC32C of the word
HEADER = 8  # int64 cells before the columns, so that these begin at a cache line
_STARTED_AT, _LIVES = 0, 1
#: The columns of ``progress``, one cell per request; the widest first, so that each store is aligned.
COLUMNS: dict[str, tuple[type, int]] = {
    "sent": (np.int64, NEVER),
    "accepted": (np.int64, NEVER),
    "completed": (np.int64, NEVER),
    "outcomes": (np.int32, NEVER),
    "reasons": (np.int32, NEVER),
    "attempts": (np.int32, 0),
    "throttled": (np.int32, 0),
    "repeated": (np.int8, 0),
}


class Words:
    """Texts by number, counted from 0 as they first came; None is :data:`NEVER`.

    In the file before its number is used anywhere: length, CRC32C and UTF-8 of one after the other.
    """

    def __init__(self, storage: FileStorage | None = None) -> None:
        self.words: list[str] = []
        self._storage, self._end = storage, 0
        self._codes: dict[str | None, int] = {None: NEVER}
        if storage is not None:
            self._load(storage)

    def _load(self, storage: FileStorage) -> None:
        """What its writer had time to write; a torn tail is cut, no number can have been made of it."""
        data = storage.read(WORDS, 0, storage.size(WORDS)).to_pybytes()
        while (word := _word_at(data, self._end)) is not None:
            self._remember(word.decode())
            self._end += _RECORD.size + len(word)
        if self._end < len(data):
            storage.truncate(WORDS, self._end)

    def _remember(self, word: str) -> int:
        self.words.append(word)
        return self._codes.setdefault(word, len(self.words) - 1)

    def code(self, word: str | None) -> int:
        """The number of ``word``. ``StorageFull`` where a new one finds no room: then nothing refers to it."""
        found = self._codes.get(word)
        return self._add(str(word)) if found is None else found

    def known(self, word: str) -> int:
        """The number of ``word``, one that no word has where it never came."""
        return self._codes.get(word, len(self.words))

    def _add(self, word: str) -> int:
        if self._storage is not None:
            text = word.encode()
            record = _RECORD.pack(len(text), google_crc32c.value(text)) + text
            self._storage.append(WORDS, self._end, record)
            self._end += len(record)
        return self._remember(word)

    def texts(self, codes: np.ndarray) -> pa.Array:
        """The words of these numbers; null for :data:`NEVER`."""
        places = pa.array(codes, mask=codes == NEVER)
        return pa.array(self.words, pa.string()).take(places)


def _word_at(data: bytes, at: int) -> bytes | None:
    if at + _RECORD.size > len(data):
        return None
    length, checksum = _RECORD.unpack_from(data, at)
    word = data[at + _RECORD.size : at + _RECORD.size + length]
    return word if len(word) == length and google_crc32c.value(word) == checksum else None


class Journal:
    """One caller's requests and what became of each. Its writer stores in an order that is right at every instruction.

    ``sent, accepted, completed`` are int64, shape (n,), microseconds on the caller's clock or :data:`NEVER`;
    ``outcomes, reasons`` are numbers of :attr:`words`, int32; ``attempts, throttled`` are counts, int32; ``repeated``
    is 1 where the outcome is that of an earlier request of the same content, int8.
    """

    sent: np.ndarray  # stored before the request leaves; the requests that were sent are always the first so many
    accepted: np.ndarray  # set once
    completed: np.ndarray  # set once, after outcome, reason and repeated
    outcomes: np.ndarray
    reasons: np.ndarray
    attempts: np.ndarray  # raised before the message leaves
    throttled: np.ndarray
    repeated: np.ndarray

    def __init__(
        self,
        name: str,
        requests: Requests,
        window: int,
        cells: np.memmap | bytearray,
        storage: FileStorage | None = None,
    ) -> None:
        self.name, self.requests, self.window = name, requests, window
        self.words = Words(storage)
        self._storage = storage
        self._header = np.frombuffer(cells, np.int64, HEADER)
        at = self._header.nbytes
        for column, (kind, _) in COLUMNS.items():
            values: np.ndarray = np.frombuffer(cells, kind, len(requests), at)
            setattr(self, column, values)
            at += values.nbytes

    # --- where it is kept -----------------------------------------------------------------------

    @classmethod
    def in_memory(cls, name: str, requests: Requests, window: int) -> Journal:
        """A journal that ends with its process."""
        return cls(name, requests, window, bytearray(_blank(len(requests))))

    @classmethod
    def create(cls, folder: Path, name: str, requests: Requests, window: int) -> Journal:
        """A journal in ``folder``, complete before anything is sent; what an interrupted creation left is replaced.

        Raises:
            StorageFull: there is no room for all of it; none is taken then.
            DataDirectoryError: the folder is in use, or holds a whole journal already.
        """
        try:
            storage = FileStorage(folder)
            try:
                return cls._created(storage, name, requests, window)
            except BaseException:
                storage.close()
                raise
        except (StorageFull, OSError) as error:
            if isinstance(error, OSError) and error.errno not in NO_ROOM:
                raise
            raise StorageFull(
                f"{folder}: no room for the journal of {name!r} with its {len(requests)} requests ({error}). Nothing "
                "was sent; make room, or name another folder"
            ) from error

    @classmethod
    def _created(cls, storage: FileStorage, name: str, requests: Requests, window: int) -> Journal:
        if storage.size(REQUESTS):
            raise DataDirectoryError(
                f"{storage.directory} holds the journal of a caller already. Open it, or name another folder"
            )
        for path in (PROGRESS, WORDS):
            storage.remove(path)
        try:
            # Written out in full before it is mapped: a full disk under a sparse page is a SIGBUS.
            storage.append(PROGRESS, 0, _blank(len(requests)))
            storage.append(WORDS, 0, b"")
            storage.replace(REQUESTS, _encode(requests, {"name": name, "window": window, "boot": storage.boot_id}))
        except BaseException:
            storage.remove(PROGRESS)
            raise
        return cls(name, requests, window, _map(storage), storage)

    @classmethod
    def open(cls, folder: Path) -> Journal | None:
        """The journal that an earlier life left, brought to a state that a life can go on from; None if none is whole.

        Raises:
            DataDirectoryError: it is in use, or damaged, or the machine was started again meanwhile (what reached
                the disk before that is anyone's guess).
        """
        if not (folder / REQUESTS).is_file():
            return None
        storage = FileStorage(folder)
        try:
            return cls._opened(storage)
        except BaseException:
            storage.close()
            raise

    @classmethod
    def told(cls, folder: Path) -> tuple[int, int] | None:
        """How many requests of the journal in ``folder`` have their outcome, and of how many; None if none is whole.

        Looks without holding it: where a process goes on with it, what was true a moment ago. Raises
        ``DataDirectoryError`` where :meth:`open` would for a journal that nobody has open.
        """
        if not (folder / REQUESTS).is_file():
            return None
        storage = FileStorage(folder, read_only=True)
        requests, facts = _checked(storage)
        cells = bytearray(storage.read(PROGRESS, 0, _size(len(requests))).to_pybytes())
        journal = cls(facts["name"], requests, facts["window"], cells)
        return int(np.count_nonzero(journal.completed != NEVER)), len(requests)

    @classmethod
    def _opened(cls, storage: FileStorage) -> Journal:
        requests, facts = _checked(storage)
        journal = cls(facts["name"], requests, facts["window"], _map(storage), storage)
        highest = max((int(codes.max(initial=NEVER)) for codes in (journal.outcomes, journal.reasons)), default=NEVER)
        if highest >= len(journal.words.words):
            raise _damaged(storage, WORDS, f"{len(journal.words.words)} words, but word {highest} is in use")
        journal.settle()
        return journal

    def close(self) -> None:
        """Let another process have the folder. What was recorded stays readable here, nothing more is recorded."""
        if self._storage is not None:
            self._storage.close()

    # --- what it says ---------------------------------------------------------------------------

    @property
    def started_at(self) -> int:
        """Time zero of the schedule, microseconds on the caller's clock; :data:`NEVER` before the first life."""
        return int(self._header[_STARTED_AT])

    @property
    def lives(self) -> int:
        """How many lives have begun."""
        return int(self._header[_LIVES])

    @property
    def next(self) -> int:
        """The first request that was not sent: where the schedule goes on."""
        unsent = self.sent == NEVER
        return int(unsent.argmax()) if unsent.any() else len(unsent)

    def begin_life(self, now: int) -> int:
        """A life begins: its number, counted from 1, that no other life gets. The first begins the schedule."""
        if self.started_at == NEVER:
            self._header[_STARTED_AT] = now
        self._header[_LIVES] += 1
        return self.lives

    def settle(self) -> None:
        """Take back what the death of the writer left half done: sends that had not left, outcomes half written."""
        self.sent[self.next :] = NEVER
        unfinished = self.completed == NEVER
        self.outcomes[unfinished] = NEVER
        self.reasons[unfinished] = NEVER
        self.repeated[unfinished] = 0

    def check(self, name: str, requests: Requests) -> None:
        """``DataDirectoryError`` if this is the journal of another caller or of other requests."""
        mine = self.requests
        differences = {
            f"name {self.name!r}, not {name!r}": self.name != name,
            f"{len(mine)} requests, not {len(requests)}": len(mine) != len(requests),
            "other requests": mine is not requests and not _same(mine, requests),
        }
        found = next((difference for difference, there in differences.items() if there), None)
        if found is not None:
            where = self._storage.directory if self._storage is not None else "a journal in memory"
            raise DataDirectoryError(
                f"{where} is the journal of another run: {found}. Resume that run, or name another folder"
            )


def written_again(storage: FileStorage) -> pa.Buffer:
    """The requests of the journal in ``storage``, as this start of the machine would write them."""
    requests, facts = _decode(storage)
    return _encode(requests, {"name": facts["name"], "window": facts["window"], "boot": storage.boot_id})


def _same(one: Requests, other: Requests) -> bool:
    return (
        list(one.commands) == list(other.commands)
        and list(one.keys) == list(other.keys)
        and np.array_equal(one.at, other.at)
        and bool(one.payload.equals(other.payload))
    )


# --- the files ------------------------------------------------------------------------------------


def _size(count: int) -> int:
    return 8 * HEADER + count * sum(np.dtype(kind).itemsize for kind, _ in COLUMNS.values())


def _blank(count: int) -> bytes:
    header = np.zeros(HEADER, np.int64)
    header[_STARTED_AT] = NEVER
    return b"".join([header.tobytes(), *(np.full(count, empty, kind).tobytes() for kind, empty in COLUMNS.values())])


def _map(storage: FileStorage) -> np.memmap:
    return np.memmap(storage.directory / PROGRESS, np.uint8, "r+")


def _encode(requests: Requests, facts: dict[str, Any]) -> pa.Buffer:
    """An Arrow IPC file of one batch; the payload is one column, so that its names cannot meet ours."""
    payload = requests.payload
    columns = {
        "command": pa.array(requests.commands, pa.string()).dictionary_encode(),
        "key": pa.array(requests.keys, pa.string()),
        "at": pa.array(requests.at, pa.int64()),
        "payload": pa.StructArray.from_arrays(payload.columns, fields=list(payload.schema)),
    }
    batch = pa.RecordBatch.from_pydict(columns)
    schema = batch.schema.with_metadata({_METADATA: json.dumps({"schema": FORMAT, **facts})})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch.replace_schema_metadata(schema.metadata))
    return sink.getvalue()


def _decode(storage: FileStorage) -> tuple[Requests, dict[str, Any]]:
    try:
        file = pa.ipc.open_file(storage.read(REQUESTS, 0, storage.size(REQUESTS)))
        facts = check_version(file.schema, storage.directory)
        batch = file.get_batch(0)
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        raise _damaged(storage, REQUESTS, str(error)) from error
    commands = batch.column("command")
    names = commands.dictionary.to_pylist()
    return Requests(
        [names[code] for code in commands.indices.to_pylist()],
        batch.column("key").to_pylist(),
        pa.RecordBatch.from_struct_array(batch.column("payload")),
        batch.column("at").to_numpy(),
    ), facts


def check_version(schema: pa.Schema, folder: Path) -> dict[str, Any]:
    """What the requests' schema says of the journal in ``folder``; ``DataDirectoryError`` for one of another format."""
    facts: dict[str, Any] = json.loads((schema.metadata or {}).get(_METADATA, b"{}"))
    if facts.get("schema") != FORMAT:
        raise DataDirectoryError(
            f"{folder}: this journal has the format {facts.get('schema')!r}, and this version reads {FORMAT!r}. Start "
            f"the mesh with the version that wrote it, and let the run end; or start it with this one: eventmesh up "
            f"keeps the journal aside, and what its caller was told is then known to the services alone"
        )
    return facts


def _checked(storage: FileStorage) -> tuple[Requests, dict[str, Any]]:
    """The requests and facts of a journal that can be gone on with; ``DataDirectoryError`` otherwise."""
    requests, facts = _decode(storage)
    if facts["boot"] != storage.boot_id:
        raise DataDirectoryError(
            f"{storage.directory}: the machine was started again since this journal was written, and it is kept "
            f"at level 'os' only. Begin again in another folder"
        )
    found, expected = storage.size(PROGRESS), _size(len(requests))
    if found != expected:
        raise _damaged(storage, PROGRESS, f"{found} bytes, expected {expected} for {len(requests)} requests")
    return requests, facts


def _damaged(storage: FileStorage, path: str, found: str) -> DataDirectoryError:
    return DataDirectoryError(
        f"{storage.directory / path} is damaged: {found}. Delete the folder and begin again; what its caller was told "
        "is then known to the services alone"
    )

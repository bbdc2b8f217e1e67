"""Copies of callers' journals, taken while their writers go on: together with a log as it stood at one moment.

What a caller was told must be in the copied log, and what is in the copied log must have been asked. So a journal is
looked at twice, before that moment and after it: what was told is taken from the first look, what was sent from the
second. The copy is the journal of a caller that was killed at that moment, and goes on like one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa

from eventmesh.errors import DataDirectoryError
from eventmesh.log.storage import FileStorage
from eventmesh.runtime.journal import COLUMNS, HEADER, PROGRESS, REQUESTS, WORDS, Journal, check_version, written_again

#: In this order: a request that is found completed has its outcome, and was accepted, by the time those are read.
_TOLD = ("completed", "accepted", "outcomes", "reasons", "repeated")
_ASKED = ("sent", "attempts", "throttled")
_BYTES = {name: np.dtype(kind).itemsize for name, (kind, _) in COLUMNS.items()}
HEADER_BYTES = 8 * HEADER


@dataclass(frozen=True)
class Look:
    """A journal at some time: its header and its columns, each as it was when it was read."""

    requests: bytes
    header: bytes
    columns: Mapping[str, np.ndarray]
    words: bytes


class ChangedMeanwhile(Exception):
    """What was looked at first is not there any more: the copy is to be begun again."""


def look(folder: Path) -> dict[str, Look]:
    """Every whole journal below ``folder``, by the name of its own folder.

    ``DataDirectoryError`` for one of another format, whose columns lie elsewhere.
    """
    found = {}
    for path in sorted(folder.glob("*/" + REQUESTS)):
        try:
            found[path.parent.name] = _look(path.parent)
        except FileNotFoundError as error:
            raise ChangedMeanwhile(f"the load {path.parent.name} ended meanwhile") from error
    return found


def _look(folder: Path) -> Look:
    requests = (folder / REQUESTS).read_bytes()
    check_version(pa.ipc.open_file(requests).schema, folder)
    with (folder / PROGRESS).open("rb", buffering=0) as progress:
        count = (os.fstat(progress.fileno()).st_size - HEADER_BYTES) // sum(_BYTES.values())
        places = dict(zip(COLUMNS, accumulate(_BYTES.values(), initial=0), strict=False))

        def column(name: str) -> np.ndarray:
            at, size = HEADER_BYTES + places[name] * count, _BYTES[name] * count
            return np.frombuffer(os.pread(progress.fileno(), size, at), COLUMNS[name][0])

        columns = {name: column(name) for name in (*_TOLD, *_ASKED)}
        header = os.pread(progress.fileno(), HEADER_BYTES, 0)
    # After the columns: a word is written before its number is used anywhere.
    return Look(requests, header, columns, (folder / WORDS).read_bytes())


def joined(before: Mapping[str, Look], after: Mapping[str, Look]) -> dict[str, bytes]:
    """The files of every copied journal, by ``name/file``. ``ChangedMeanwhile`` where one has gone since."""
    files: dict[str, bytes] = {}
    for name, seen in after.items():
        told = before[name].columns if name in before else _nothing(seen)
        if name in before and before[name].requests != seen.requests:
            raise ChangedMeanwhile(f"another load {name} began meanwhile")
        columns = {**{each: told[each] for each in _TOLD}, **{each: seen.columns[each] for each in _ASKED}}
        progress = seen.header + b"".join(columns[each].tobytes() for each in COLUMNS)
        files |= {f"{name}/{REQUESTS}": seen.requests, f"{name}/{PROGRESS}": progress, f"{name}/{WORDS}": seen.words}
    if gone := before.keys() - after.keys():
        raise ChangedMeanwhile(f"the load {min(gone)} ended meanwhile")
    return files


def _nothing(seen: Look) -> dict[str, np.ndarray]:
    return {name: np.full(len(seen.columns[name]), COLUMNS[name][1], COLUMNS[name][0]) for name in _TOLD}


def settle(folder: Path) -> None:
    """Make a copied journal one that this start of the machine has written, since it was written and synced as a whole.

    ``DataDirectoryError`` where it cannot be gone on with.
    """
    storage = FileStorage(folder)
    try:
        storage.replace(REQUESTS, written_again(storage))
        for path in (PROGRESS, WORDS):
            storage.sync(path)
    except (pa.ArrowInvalid, ValueError) as error:
        raise DataDirectoryError(f"the journal in {folder.name} cannot be read: {error}") from error
    finally:
        storage.close()
    journal = Journal.open(folder)
    if journal is None:
        raise DataDirectoryError(f"the journal in {folder.name} is not whole")
    journal.close()

"""The runs of a mesh that stays: their numbers, their journals, and what their callers were told.

``callers`` in the data directory has, for each run, ``run-N.claimed`` from its beginning on, so that its number is
never given to another run, and ``run-N.arrow`` with what its callers were told, once they were told all. Until then
that stands in the journal of the generator, which ``eventmesh down`` keeps.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from eventmesh import history
from eventmesh.application import Words
from eventmesh.errors import DataDirectoryError, EnvironmentUnavailable
from eventmesh.lab.run import CALLERS
from eventmesh.report import record
from eventmesh.runtime.journal import GENERATOR, Journal

_LOAD = re.compile(r"run-(\d+)-load")
_NUMBERED = re.compile(r"(?:lost-)?run-(\d+)[.-].*")


@dataclass(frozen=True)
class Unfinished:
    """A run that was cut off: ``told`` of its ``total`` requests have their outcome. ``total`` 0: none were sent yet.

    ``lost`` is the folder of its journal where that cannot be gone on with.
    """

    number: int
    told: int = 0
    total: int = 0
    lost: Path | None = None

    def text(self, words: Words) -> str:
        """What became of its requests, as a clause."""
        if self.lost is not None:
            return (
                f"run {self.number} was cut off: its {words.requests} that are in the log stay there, and its journal, "
                f"which cannot be gone on with, is {self.lost}"
            )
        if not self.total:
            return f"run {self.number} was cut off before it placed any {words.request}"
        state = f"{self.told:,} of the {self.total:,} {words.requests} of run {self.number} have their outcome"
        if self.told == self.total:
            return f"{state}; the next run audits them"
        return f"{state}; the rest go on when the mesh is up again, and the next run waits for them"


def prefix(number: int) -> str:
    """What the names of this run's workloads begin with."""
    return f"run-{number}-"


def number_of_load(workload: str) -> int | None:
    """The run whose load it is; None of a workload that seeds."""
    found = _LOAD.fullmatch(workload)
    return int(found[1]) if found else None


def next_run(data: Path) -> int:
    """The number of the next run, from 1: above every one that was ever given out."""
    given = [*(data / CALLERS).glob("*"), *(data / GENERATOR).glob("*"), *data.glob("lost-*")]
    return 1 + max((int(found[1]) for path in given if (found := _NUMBERED.fullmatch(path.name))), default=0)


def claim_run(data: Path) -> int:
    """The next number, given out for good."""
    folder, number = data / CALLERS, next_run(data)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"run-{number}.claimed").touch(exist_ok=False)
        # Durable before anything is asked under this number: after a power cut it must not be given out again.
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        problem = f"{folder}: the number of this run cannot be written down ({error.strerror})"
        raise EnvironmentUnavailable(f"{problem}. Nothing was asked; make room there, and run again") from error
    return number


def keep(data: Path, number: int, callers: pa.Table) -> None:
    """What the callers of a run were told, for every audit from now on."""
    path = data / CALLERS / f"run-{number}.arrow"
    fresh = path.with_suffix(".fresh")
    record.write_table(fresh, callers)
    fresh.replace(path)


def earlier(data: Path) -> tuple[Path, ...]:
    """The files of what the callers of each run on this mesh asked and were told."""
    return tuple(sorted((data / CALLERS).glob("*.arrow")))


def all_callers(files: Iterable[Path]) -> pa.Table:
    """What they hold, as one table (:data:`eventmesh.history.CALLERS`)."""
    tables = [history.CALLERS.empty_table()]
    for path in files:
        with pa.memory_map(str(path)) as mapped:
            tables.append(history.as_callers(pa.ipc.open_file(mapped).read_all()))
    return pa.concat_tables(tables)


def unfinished(data: Path) -> Unfinished | None:
    """The run that the generator's journal is in the middle of; None where it is in none. Only looks."""
    for path, number in _journals(data):
        try:
            told = Journal.told(path)
        except DataDirectoryError:
            return Unfinished(number, lost=path)
        if told is not None:
            return Unfinished(number, *told) if number_of_load(path.name) is not None else Unfinished(number)
    return None


def set_lost_journals_aside(data: Path) -> Unfinished | None:
    """Before a mesh is started: what it cannot go on with, since the machine was started again for instance.

    Returns the run that was lost so; None where none was. A journal is removed where the run is over and the history of
    its callers is kept.
    """
    pending = dict(_journals(data))
    for path in set((data / GENERATOR).glob("*")) - set(pending):
        shutil.rmtree(path)
    for path, number in pending.items():
        try:
            journal = Journal.open(path)
        except DataDirectoryError:
            aside = data / f"lost-{path.name}-{uuid.uuid4().hex[:6]}"
            path.rename(aside)
            return Unfinished(number, lost=aside)
        if journal is not None:
            journal.close()
    return None


def _journals(data: Path) -> Iterator[tuple[Path, int]]:
    """Each with the number of its run, but not those whose run is over and whose callers' history is kept.

    Seeding is of the run that was given its number last.
    """
    last = next_run(data) - 1
    for path in sorted((data / GENERATOR).glob("*")):
        number = number_of_load(path.name) or last
        if not (data / CALLERS / f"run-{number}.arrow").exists():
            yield path, number

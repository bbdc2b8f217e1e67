"""What was asked, done and seen in a run: runtimes write it, the audit reads it.

A run's folder holds ``mesh.yaml`` (the resolved configuration), ``log/`` (the data directory of the
broker), ``history/callers.arrow`` and ``history/views.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from eventmesh.errors import InputError

#: One row per request of a caller. Times are microseconds since the Unix epoch on the caller's own
#: clock, null where the thing did not happen. ``intended_at`` is when the schedule meant it to be sent.
CALLERS = pa.schema(
    [
        pa.field("request", pa.int64()),  # counted from 0, in order of intended time
        pa.field("command", pa.string()),
        pa.field("key", pa.string()),  # the id that the caller gave it
        pa.field("intended_at", pa.int64()),
        pa.field("sent_at", pa.int64()),
        pa.field("accepted_at", pa.int64()),  # a durable acknowledgement
        pa.field("completed_at", pa.int64()),  # the outcome
        pa.field("outcome", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("attempts", pa.int32()),
        pa.field("throttled", pa.int32()),
        # Whether the outcome is an earlier request's, of the same name and content; null where nobody said.
        pa.field("repeated", pa.bool_()),
        pa.field("content", pa.string()),  # its fingerprint; null where the name alone says what is asked
    ]
)


def as_callers(table: pa.Table) -> pa.Table:
    """A callers' table with all columns of :data:`CALLERS`: those that it was written without are null."""
    lacking = [field for field in CALLERS if field.name not in table.schema.names]
    for field in lacking:
        table = table.append_column(field, pa.nulls(len(table), field.type))
    return table


@dataclass(frozen=True)
class ViewDump:
    """A view as it stood at the positions it names. ``rows`` as :meth:`eventmesh.views.View.rows` gives them."""

    service: str
    instance: int
    view: str
    next: Mapping[str, int]
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class StateDump:
    """The state of a partition, folded up to offset ``end``, as its :func:`~eventmesh.states.digest`.

    ``at`` is when it was looked at, in microseconds by the owner's clock, and ``timers`` what was open then: class of
    fact, or what the conversation that waits began with, name, and when it is due.
    """

    service: str
    partition: int
    end: int
    digest: str
    at: int = 0
    timers: Sequence[tuple[str, str, int]] = ()


@dataclass(frozen=True)
class Dumps:
    """The views and states of one process, or of many."""

    views: Sequence[ViewDump] = ()
    states: Sequence[StateDump] = ()

    @classmethod
    def all(cls, dumps: Iterable[Dumps]) -> Dumps:
        """Those of several processes."""
        many = list(dumps)
        return cls([view for each in many for view in each.views], [state for each in many for state in each.states])


@dataclass(frozen=True)
class History:
    """What the callers and the services' views saw. ``drained`` is false where a final read did not finish.

    ``states`` are those of partitions that were at rest. ``poison`` says whether inputs were sent, or rules made, on
    purpose so that a rule cannot answer; None where whoever recorded the run cannot know.
    """

    callers: pa.Table
    views: Sequence[ViewDump]
    drained: bool
    poison: bool | None = False
    states: Sequence[StateDump] = ()

    def write(self, folder: Path) -> None:
        """Write under ``folder/history``."""
        target = folder / "history"
        target.mkdir(parents=True, exist_ok=True)
        with pa.ipc.new_file(target / "callers.arrow", self.callers.schema) as writer:
            writer.write_table(self.callers)
        views = [asdict(dump) for dump in self.views]
        states = [asdict(dump) for dump in self.states]
        document = {"drained": self.drained, "poison": self.poison, "views": views, "states": states}
        (target / "views.json").write_text(json.dumps(document))

    @classmethod
    def read(cls, folder: Path) -> History:
        """Read what :meth:`write` wrote; :class:`InputError` where the folder holds no run."""
        source = folder / "history"
        if not (source / "callers.arrow").is_file():
            raise InputError(f"{folder}: no run is recorded here (history/callers.arrow is missing)")
        with pa.memory_map(str(source / "callers.arrow")) as mapped:
            callers = as_callers(pa.ipc.open_file(mapped).read_all())
        document = json.loads((source / "views.json").read_text())
        views = [ViewDump(**dump) for dump in document["views"]]
        states = [StateDump(**dump) for dump in document.get("states", ())]  # runs of earlier versions have none
        states = [replace(each, timers=[(kind, name, at) for kind, name, at in each.timers]) for each in states]
        return cls(callers, views, document["drained"], document.get("poison", False), states)

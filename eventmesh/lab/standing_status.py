"""What is seen of a mesh that stays: how its processes, partitions and views are, and what is appended to a topic.

Nothing here changes anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from eventmesh.lab import inspect
from eventmesh.lab.run import LOG
from eventmesh.lab.standing_record import Standing, reached
from eventmesh.log.storage import FileStorage
from eventmesh.progress import split_position
from eventmesh.runtime.running import AskMarks
from eventmesh.runtime.snapshots import FOLDER, SnapshotStore, state_name
from eventmesh.runtime.waiting import NO_LOG
from eventmesh.views import age_ms


@contextmanager
def watching(standing: Standing) -> Iterator[Callable[[], dict[str, Any]]]:
    """A function that tells how the mesh is: ``processes``, ``partitions`` with owner, epoch, end and lag, ``views``,
    ``asks`` with what came of them since each process began. ``refused`` are the inputs that a service's process has
    refused on record since it began.

    Lag is in rows: of a partition that of its slowest reader. ``snapshot`` is how far its owner's newest snapshot has
    got, if there is one. A view's age, in milliseconds, is 0 where it has seen all that there is, else the time since
    the newest fact that it has was appended.
    """
    with reached(standing) as running:
        mesh = running.mesh
        general = {
            "name": standing.name, "mesh": mesh.name, "wiring": mesh.wiring, "durability": str(mesh.log.durability),
            "ray": standing.ray, "data": str(standing.data), "since": standing.since.isoformat(timespec="seconds"),
        }  # fmt: skip
        snapshots = SnapshotStore(FileStorage(standing.data / LOG / FOLDER, read_only=True))
        yield lambda: {**general, **_described(running.look(), snapshots)}


def _described(looked: Mapping[str, Any], snapshots: SnapshotStore) -> dict[str, Any]:
    services, log = looked["services"], looked["log"] or NO_LOG
    ends = log["ends"]
    return {
        "flight": looked["flight"],
        "log_stopped": log["stopped"],
        "processes": [{**process, "refused": _refused(process, services)} for process in looked["processes"]],
        "partitions": [
            {**_partition(name, end, services), "snapshot": _snapshot(name, snapshots)}
            for name, end in sorted(ends.items())
        ],
        "views": [
            _view(instance, name, view, ends)
            for instance, said in sorted(services.items())
            for name, view in sorted(said["views"].items())
        ],
        "asks": [
            {"asker": asker, "message": message, **counts}
            for (asker, message), counts in AskMarks().since(services.values()).items()
        ],
    }


def _refused(process: Mapping[str, Any], services: Mapping[str, Any]) -> int | None:
    """Inputs that a service's process has refused on record since it began; None for what is no service."""
    said = services.get(process["name"])
    return None if said is None else int(said["counters"]["inputs_refused"])


def _partition(name: str, end: int, services: Mapping[str, Any]) -> dict[str, Any]:
    owner, epoch, lag = "", None, 0
    for instance, said in services.items():
        if name in said["epochs"]:
            owner, epoch = instance, said["epochs"][name]
        for partition, progress in said["progress"].items():
            if name in said["inputs"][partition]:
                lag = max(lag, end - progress.get(name, 0))
    return {"partition": name, "owner": owner, "epoch": epoch, "end": end, "lag_rows": lag}


def _snapshot(name: str, snapshots: SnapshotStore) -> int | None:
    header = snapshots.header(state_name(*split_position(name)))
    return header.next[name] if header is not None else None


def _view(instance: str, name: str, view: Mapping[str, Any], ends: Mapping[str, int]) -> dict[str, Any]:
    lag = sum(max(0, ends.get(partition, at) - at) for partition, at in view["next"].items())
    age = age_ms(view["next"], view["applied_time"], ends, time.time_ns() // 1_000)
    return {"view": f"{instance} {name}", "rows": view["rows"], "lag_rows": lag, "age_ms": round(age, 1)}


def follow(standing: Standing, topic: str, ends: Mapping[int, int], show: Callable[[dict[str, Any]], object]) -> None:
    """Show the records of ``topic`` from the offsets in ``ends`` on as they come, until Ctrl-C.

    Goes on when the broker is started again. :class:`EnvironmentUnavailable` where the mesh has gone.
    """
    with reached(standing) as running, suppress(KeyboardInterrupt):
        for name, entry in running.batches(topic, ends):
            for row in inspect.records(entry, name):
                show(row)

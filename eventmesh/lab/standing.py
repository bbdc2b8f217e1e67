"""Meshes that stay: ``up`` starts one under a name, ``down`` ends it, ``run`` loads it, ``status`` looks at it.

What stands under a name is recorded in a file of the user's own. The mesh's data directory holds ``mesh.yaml``, the
``log``, the ``generator``'s journal, and under ``callers`` what each run's callers were told: the audit of a run judges
all runs so far, since the log holds them all.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eventmesh import mesh as meshes
from eventmesh import shipped
from eventmesh.configuration import suggestion
from eventmesh.errors import (
    ConfigurationError,
    DataDirectoryError,
    EnvironmentUnavailable,
    InputError,
    NotFound,
    PeerLost,
)
from eventmesh.lab import inspect, record
from eventmesh.lab.known import STATE_VARIABLE, meshes_up, state_folder
from eventmesh.lab.progress_bar import Report, silent
from eventmesh.lab.run import (
    CALLERS,
    GENERATOR,
    LOG,
    MESH_FILE,
    Prepared,
    begin,
    conclude,
    load_mesh,
    write_mesh,
    writing,
)
from eventmesh.log.storage import FileStorage, machine_id
from eventmesh.log.store import Durability, check_directory
from eventmesh.mesh import Mesh
from eventmesh.progress import split_position
from eventmesh.runtime.journal import Journal
from eventmesh.runtime.snapshots import FOLDER, SnapshotStore, state_name
from eventmesh.views import age_ms

if TYPE_CHECKING:
    from eventmesh.runtime.on_ray.head import Head
    from eventmesh.runtime.on_ray.standing import StandingMesh
    from eventmesh.runtime.on_ray.stream import Access

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
#: Where data directories are, each by the name of its mesh, where nothing else is said.
DATA = Path("data")
#: The name of a run's load, beside those of its seeding.
LOAD = re.compile(r"run-(\d+)-load")
LOOPBACK = "127.0.0.1"


class Standing(BaseModel):
    """What stands under a name. ``head_pid`` and ``head_folder`` are of a Ray that was started for it, if one was."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    version: Literal["eventmesh.standing/1"] = Field(default="eventmesh.standing/1", alias="schema")
    name: str
    data: Path
    ray: str
    head_pid: int | None = None
    head_folder: Path | None = None
    listen: str = LOOPBACK
    token_file: Path | None = None
    since: datetime

    @property
    def mesh(self) -> Mesh:
        """Its description, as it was when it was started."""
        return meshes.load(self.data / MESH_FILE)

    @property
    def access(self) -> Access:
        """Who is let in."""
        return _access(self.listen, self.token_file)

    @property
    def head(self) -> Head | None:
        """The Ray that ends with it."""
        from eventmesh.runtime.on_ray.head import Head

        if self.head_pid is None or self.head_folder is None:
            return None
        return Head(self.head_pid, self.ray, self.head_folder)


# --- the records ---------------------------------------------------------------------------------


def find(name: str) -> Standing:
    """What stands under ``name``; :class:`NotFound` with what there is."""
    path = _record(name)
    try:
        return Standing.model_validate_json(path.read_text())
    except FileNotFoundError:
        known = meshes_up()
        hint = suggestion(name, known) if known else "Nothing is up. Start a mesh with: eventmesh up MESH --name NAME"
        raise NotFound(f"no mesh called {name!r} is up. {hint}") from None
    except (ValidationError, OSError) as error:
        problem = f"{path}: this record of a mesh cannot be read ({type(error).__name__})"
        raise EnvironmentUnavailable(f"{problem}. Remove it, and end what is left of the mesh by hand") from error


def data_of(name: str, given: Path | None) -> Path:
    """The data directory that is meant: the one given, else that of the mesh that is up, else the one it would have."""
    record_file = _record(name)
    if given is not None:
        return given
    return find(name).data if record_file.exists() else DATA / name


def new_data(name: str, given: Path | None) -> Path:
    """Where a mesh that is to be called ``name`` would have its data."""
    _record(name)
    return given if given is not None else DATA / name


def _record(name: str) -> Path:
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name for a mesh: expected up to 40 of a-z, 0-9 and -, such as shop")
    return state_folder() / f"{name}.json"


def _write(standing: Standing) -> None:
    path = _record(standing.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_text(standing.model_dump_json(by_alias=True, indent=2))
        fresh.chmod(0o600)
        fresh.replace(path)
    except OSError as error:
        problem = f"{path}: what stands cannot be recorded ({error.strerror})"
        raise EnvironmentUnavailable(f"{problem}. Name another folder with {STATE_VARIABLE}") from error


def _access(listen: str, token_file: Path | None) -> Access:
    from eventmesh.runtime.on_ray.stream import Access

    return Access(_token(token_file), listen)


def _token(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: the token cannot be read ({error}). Name a file that holds one line") from error
    if len(token) < 16 or len(token.split()) != 1:
        found = f"{len(token)} characters" if len(token.split()) < 2 else "several words"
        raise InputError(
            f"{file}: expected one line of at least 16 characters, found {found}. "
            f"Make one: python -c 'import secrets; print(secrets.token_hex())'"
        )
    return token


# --- up ------------------------------------------------------------------------------------------


def up(
    mesh_file: Path | None,
    name: str,
    *,
    data: Path,
    address: str | None = None,
    listen: str = LOOPBACK,
    token_file: Path | None = None,
    dry_run: bool = False,
    report: Report = silent,
) -> Standing:
    """Start a mesh that stays, on a Ray of its own or in the cluster at ``address``.

    It goes on with what ``data`` holds. All that can be checked is checked before anything starts; what was started is
    ended where the rest fails.
    """
    _not_up(name)
    data, token_file = data.resolve(), token_file and token_file.resolve()
    mesh = meshes.load(_mesh_file(mesh_file, data))
    _check_same_mesh(mesh, data)
    access, cluster_id = _checked(mesh, data, listen, token_file)
    standing = Standing(name=name, data=data, ray="", listen=listen, token_file=token_file, since=datetime.now(UTC))
    if dry_run:
        return standing
    _make(data)
    report("starting Ray" if address is None else f"joining Ray at {address}", 0, 0)
    standing = _on_ray(standing, address)
    try:
        _write(standing)
        write_mesh(data, mesh)
        report("starting the mesh", 0, 0)
        _start(standing, mesh, access, cluster_id)
    except BaseException:
        down(standing)
        raise
    return standing


def _not_up(name: str) -> None:
    """A record whose Ray is gone, with the machine for instance, is cleared away."""
    with suppress(NotFound):
        standing = find(name)
        if _reachable(standing):
            since = f"{standing.since:%Y-%m-%d %H:%M} UTC"
            raise InputError(
                f"a mesh called {name!r} is up since {since}. Look at it with: eventmesh status --name {name}; "
                f"end it with: eventmesh down --name {name}"
            )
        down(standing)


def _reachable(standing: Standing) -> bool:
    head = standing.head
    return head.alive if head is not None else _answers(standing.ray)


def _mesh_file(given: Path | None, data: Path) -> Path:
    if given is not None:
        return shipped.find("meshes", given)
    if not (data / MESH_FILE).is_file():
        raise InputError(f"{data} holds no mesh yet: name the mesh, such as views")
    return data / MESH_FILE


def _check_same_mesh(mesh: Mesh, data: Path) -> None:
    """Settings may change from one start to the next; what triggers what may not, while orders are under way."""
    if not (data / MESH_FILE).is_file():
        return
    before = meshes.load(data / MESH_FILE)
    for what in ("application", "wiring"):
        found, asked = getattr(before.description, what), getattr(mesh.description, what)
        if found != asked:
            raise InputError(
                f"{data} belongs to a mesh of {what} {found!r}, not {asked!r}: its orders would never be finished. "
                f"Name another directory with --data"
            )


def _checked(mesh: Mesh, data: Path, listen: str, token_file: Path | None) -> tuple[Access, str]:
    if mesh.log.durability == Durability.memory:
        raise ConfigurationError(
            "durability memory keeps nothing, and this mesh is to stay", path="log.durability", hint="Use os or fsync"
        )
    access = _access(listen, token_file)
    try:
        found = check_directory(data / LOG, mesh.topics(), machine_id()) if (data / LOG).exists() else None
    except DataDirectoryError as error:
        raise DataDirectoryError(f"{data}: {error}") from error
    return access, found or uuid.uuid4().hex


def _make(data: Path) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"{data}: the data directory cannot be made ({error.strerror})"
        raise EnvironmentUnavailable(f"{problem}. Name another with --data") from error
    _set_lost_journals_aside(data / GENERATOR)


def _set_lost_journals_aside(folder: Path) -> None:
    """After the machine was started again, a generator cannot go on with the run that it was in."""
    for path in sorted(folder.glob("*")):
        try:
            journal = Journal.open(path)
        except DataDirectoryError:
            path.rename(folder.parent / f"lost-{path.name}-{uuid.uuid4().hex[:6]}")
        else:
            if journal is not None:
                journal.close()


def _prepare_environment(address: str | None, token_file: Path | None) -> None:
    """Ray reads these when it is imported, so they are set before. In somebody else's cluster theirs hold."""
    from eventmesh.runtime.on_ray.head import ray_environment

    os.environ.update(ray_environment(address, token_file))


def _on_ray(standing: Standing, address: str | None) -> Standing:
    from eventmesh.runtime.on_ray.head import start_head

    _prepare_environment(address, standing.token_file)
    if address is not None:
        if not _answers(address):
            raise EnvironmentUnavailable(
                f"no Ray answers at {address}: expected host:port of a head, as ray start prints it. Is it up, and "
                f"reachable from here?"
            )
        return standing.model_copy(update={"ray": address})
    head = start_head(standing.token_file)
    return standing.model_copy(update={"ray": head.address, "head_pid": head.pid, "head_folder": head.folder})


def _answers(address: str) -> bool:
    """Whether anything listens there. ``auto`` is for Ray to find."""
    import socket

    if address == "auto":
        return True
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=3.0):
            return True
    except (OSError, ValueError, OverflowError):
        return False


def _start(standing: Standing, mesh: Mesh, access: Access, cluster_id: str) -> None:
    from eventmesh.runtime.on_ray.standing import StandingMesh, joined

    with joined(standing.ray):
        StandingMesh.start(mesh, standing.name, standing.data / LOG, access, cluster_id=cluster_id)


# --- down ----------------------------------------------------------------------------------------


def down(standing: Standing) -> None:
    """End every process of the mesh, and Ray where it was started for it; the data stays. Harmless to repeat."""
    with suppress(EnvironmentUnavailable, PeerLost), _found(standing) as running:
        running.end()
    head = standing.head
    if head is not None:
        head.end()
    _record(standing.name).unlink(missing_ok=True)


@contextmanager
def _found(standing: Standing) -> Iterator[StandingMesh]:
    """The mesh, for as long as it is entered; :class:`EnvironmentUnavailable` where its Ray is gone."""
    _prepare_environment(None if standing.head_pid is not None else standing.ray, standing.token_file)
    from eventmesh.runtime.on_ray.standing import StandingMesh, joined

    if not _reachable(standing):
        again = f"eventmesh up --name {standing.name} --data {standing.data}"
        raise EnvironmentUnavailable(
            f"the Ray of {standing.name!r} at {standing.ray} is gone, with every process of the mesh. Its data is in "
            f"{standing.data}; start it again with: {again}"
        )
    with joined(standing.ray):
        yield StandingMesh.found(standing.mesh, standing.name, standing.data / LOG, standing.access)


# --- status --------------------------------------------------------------------------------------


@contextmanager
def watching(standing: Standing) -> Iterator[Callable[[], dict[str, Any]]]:
    """A function that tells how the mesh is: ``processes``, ``partitions`` with owner, epoch, end and lag, ``views``.

    Lag is in rows: of a partition that of its slowest reader. ``snapshot`` is how far its owner's newest snapshot has
    got, if there is one. A view's age, in milliseconds, is 0 where it has seen all that there is, else the time since
    the newest fact that it has was appended.
    """
    with _found(standing) as running:
        mesh = running.mesh
        general = {
            "name": standing.name, "mesh": mesh.name, "wiring": mesh.wiring, "durability": str(mesh.log.durability),
            "ray": standing.ray, "data": str(standing.data), "since": standing.since.isoformat(timespec="seconds"),
        }  # fmt: skip
        snapshots = SnapshotStore(FileStorage(standing.data / LOG / FOLDER, read_only=True))
        yield lambda: {**general, **_described(running.look(), snapshots)}


def _described(looked: Mapping[str, Any], snapshots: SnapshotStore) -> dict[str, Any]:
    services, ends = looked["services"], looked["ends"] or {}
    return {
        "flight": looked["flight"],
        "processes": looked["processes"],
        "partitions": [
            {**_partition(name, end, services), "snapshot": _snapshot(name, snapshots)}
            for name, end in sorted(ends.items())
        ],
        "views": [
            _view(instance, name, view, ends)
            for instance, said in sorted(services.items())
            for name, view in sorted(said["views"].items())
        ],
    }


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
    head = snapshots.head(state_name(*split_position(name)))
    return head.next[name] if head is not None else None


def _view(instance: str, name: str, view: Mapping[str, Any], ends: Mapping[str, int]) -> dict[str, Any]:
    lag = sum(max(0, ends.get(partition, at) - at) for partition, at in view["next"].items())
    age = age_ms(view["next"], view["applied_time"], ends, time.time_ns() // 1_000)
    return {"view": f"{instance} {name}", "rows": view["rows"], "lag_rows": lag, "age_ms": round(age, 1)}


# --- follow --------------------------------------------------------------------------------------


def follow(standing: Standing, topic: str, ends: Mapping[int, int], show: Callable[[dict[str, Any]], object]) -> None:
    """Show the records of ``topic`` from the offsets in ``ends`` on as they come, until Ctrl-C.

    Goes on when the broker is started again. :class:`EnvironmentUnavailable` where the mesh has gone.
    """
    with _found(standing) as running, suppress(KeyboardInterrupt):
        for name, entry in running.batches(topic, ends):
            for row in inspect.records(entry, name):
                show(row)


# --- run -----------------------------------------------------------------------------------------


def next_run(standing: Standing) -> int:
    """The number of the next run on this mesh, from 1."""
    return 1 + len(list((standing.data / CALLERS).glob("*.arrow")))


def run(
    standing: Standing, prepare: Callable[[int], Prepared], folder: Path, *, seed: int, report: Report
) -> record.Run:
    """Load the mesh, then audit everything that it has done since it was first up.

    ``prepare`` makes the workload of a run by its number.

    Leaves ``folder`` as any run does; its log is the mesh's. One run at a time: :class:`InputError` otherwise. A run
    that was interrupted goes on in the mesh, and the next one waits for its end.
    """
    with _alone(standing), writing(folder), _found(standing) as running:
        _await_earlier(standing, running, report)
        number = next_run(standing)
        workload = prepare(number).workload
        begun = begin(standing.name, running.mesh, workload, folder, seed=seed)
        (folder / LOG).symlink_to(standing.data / LOG)
        measured = load_mesh(running, workload, report, prefix=f"run-{number}-")
        _keep(standing, number, measured.callers)
        history = running.history(_all_callers(standing))
        return conclude(
            begun, running.mesh, workload, measured, history, folder, report=report, shared_log=True
        )  # fmt: skip


@contextmanager
def _alone(standing: Standing) -> Iterator[None]:
    lock = os.open(standing.data / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(f"another run loads {standing.name!r} now. Wait for its end; one runs at a time") from None
    finally:
        os.close(lock)


def _await_earlier(standing: Standing, running: StandingMesh, report: Report) -> None:
    """What an interrupted run began is brought to its end, since the audit must know what its callers were told."""
    callers = running.finished(lambda state: report("the run before", state["sent"] - state["open"], state["total"]))
    if callers is not None:
        name, table = callers
        if load := LOAD.fullmatch(name):
            _keep(standing, int(load[1]), table)


def _keep(standing: Standing, number: int, callers: pa.Table) -> None:
    path = standing.data / CALLERS / f"run-{number}.arrow"
    fresh = path.with_suffix(".fresh")
    record.write_table(fresh, callers)
    fresh.replace(path)


def _all_callers(standing: Standing) -> pa.Table:
    tables = []
    for path in sorted((standing.data / CALLERS).glob("*.arrow")):
        with pa.memory_map(str(path)) as mapped:
            tables.append(pa.ipc.open_file(mapped).read_all())
    return pa.concat_tables(tables)

"""What stands under a name: the record of a mesh that is up, in a file of the user's own, and how it is reached."""

from __future__ import annotations

import fcntl
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eventmesh import mesh as meshes
from eventmesh.application import PLAIN_WORDS, Words
from eventmesh.configuration import suggestion
from eventmesh.errors import EnvironmentUnavailable, EventmeshError, InputError, NotFound
from eventmesh.lab.known import STATE_VARIABLE, meshes_up, state_folder
from eventmesh.lab.run import LOG, MESH_FILE
from eventmesh.mesh import Mesh

if TYPE_CHECKING:
    from eventmesh.runtime.on_ray.head import Head
    from eventmesh.runtime.on_ray.standing import StandingMesh
    from eventmesh.runtime.wire.channel import Access

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
#: Where data directories are, each by the name of its mesh, where nothing else is said.
DATA = Path("data")
LOOPBACK = "127.0.0.1"


class Standing(BaseModel):
    """What stands under a name. ``head_pid`` and ``head_folder`` are of a Ray that was started for it, if one was.

    ``code`` says by its files which application it runs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    #: Which start of a mesh of this name it is: a record is removed by who wrote it, or on behalf of it.
    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    version: Literal["eventmesh.standing/1"] = Field(default="eventmesh.standing/1", alias="schema")
    name: str
    data: Path
    ray: str
    head_pid: int | None = None
    head_folder: Path | None = None
    listen: str = LOOPBACK
    token_file: Path | None = None
    since: datetime
    code: str = ""

    @property
    def mesh(self) -> Mesh:
        """Its description, as it was when it was started."""
        return meshes.load_stored(self.data / MESH_FILE)

    @property
    def words(self) -> Words:
        """Its application's words; plain ones where its description, or the application, cannot be read any more."""
        try:
            return self.mesh.words
        except EventmeshError:
            return PLAIN_WORDS

    @property
    def access(self) -> Access:
        """Who is let in."""
        return access_of(self.listen, self.token_file)

    @property
    def head(self) -> Head | None:
        """The Ray that ends with it."""
        from eventmesh.runtime.on_ray.head import Head

        if self.head_pid is None or self.head_folder is None:
            return None
        return Head(self.head_pid, self.ray, self.head_folder)


def find(name: str) -> Standing:
    """What stands under ``name``; :class:`NotFound` with what there is."""
    path = path_of(name)
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
    record_file = path_of(name)
    if given is not None:
        return given
    return find(name).data if record_file.exists() else DATA / name


def new_data(name: str, given: Path | None) -> Path:
    """Where a mesh that is to be called ``name`` would have its data."""
    path_of(name)
    return given if given is not None else DATA / name


def path_of(name: str) -> Path:
    """Where the record of that name is; :class:`InputError` where it is no name."""
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name for a mesh: expected up to 40 of a-z, 0-9 and -, such as shop")
    return state_folder() / f"{name}.json"


def write(standing: Standing) -> None:
    """Record what stands, in place of what stood under this name."""
    path = path_of(standing.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_text(standing.model_dump_json(by_alias=True, indent=2))
        fresh.chmod(0o600)
        fresh.replace(path)
    except OSError as error:
        problem = f"{path}: what stands cannot be recorded ({error.strerror})"
        raise EnvironmentUnavailable(f"{problem}. Name another folder with {STATE_VARIABLE}") from error


def remove(standing: Standing) -> None:
    """Nothing stands under its name any more; another start's record is left alone."""
    with suppress(NotFound, EnvironmentUnavailable):
        if find(standing.name).id == standing.id:
            path_of(standing.name).unlink(missing_ok=True)


@contextmanager
def claimed(name: str, doing: str) -> Iterator[None]:
    """No other command starts or ends a mesh of this name meanwhile; :class:`InputError` where one does now."""
    path = path_of(name).with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"{path.parent}: what stands cannot be recorded ({error.strerror})"
        raise EnvironmentUnavailable(f"{problem}. Name another folder with {STATE_VARIABLE}") from error
    busy = (
        f"a mesh called {name!r} is being {{}} now. Wait until that is done, then look: eventmesh status --name {name}"
    )
    with held(path, doing, busy):
        yield


@contextmanager
def held(path: Path, doing: str, busy: str) -> Iterator[None]:
    """Hold the file at ``path``, alone; it is let go with the process, however that ends.

    :class:`InputError` where another process has it: ``busy`` with what that one is doing, and who it is.
    """
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise EnvironmentUnavailable(f"{path}: this file cannot be written ({error.strerror})") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 100, 0).decode(errors="replace") or "used by another process"
            raise InputError(busy.format(holder)) from None
        os.truncate(lock, 0)
        os.write(lock, f"{doing} by process {os.getpid()}".encode())
        yield
    finally:
        os.close(lock)


def access_of(listen: str, token_file: Path | None) -> Access:
    """Who is let in: with the token of that file, or on loopback without one."""
    from eventmesh.runtime.wire.channel import ANYWHERE, Access

    token = _token(token_file)
    if listen != ANYWHERE or token is None:  # without a token it is refused, and Ray is not asked for anything
        return Access(token, listen)
    from eventmesh.runtime.on_ray.directory import node_address

    return Access(token, listen, node_address)


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


# --- reaching it ---------------------------------------------------------------------------------


@contextmanager
def reached(standing: Standing, *, to_load: bool = False) -> Iterator[StandingMesh]:
    """The mesh, for as long as it is entered; :class:`EnvironmentUnavailable` where it cannot be reached.

    Who is going ``to_load`` it and to judge what it did needs all of it, and the application that it was started with.
    """
    _must_be_reachable(standing)
    mesh = _as_it_runs(standing) if to_load else standing.mesh
    prepare_environment(None if standing.head_pid is not None else standing.ray, standing.token_file)
    from eventmesh.runtime.on_ray.joinable import SocketLost
    from eventmesh.runtime.on_ray.standing import StandingMesh, joined

    try:
        with joined(standing.ray):
            yield StandingMesh.found(mesh, standing.name, standing.data / LOG, standing.access, whole=to_load)
    except SocketLost as error:
        raise EnvironmentUnavailable(
            f"the processes of {standing.name!r} run, and nothing can reach them: {error.socket} is gone. Programs "
            f"that clean up temporary files do that. End it with: eventmesh down --name {standing.name}; its data "
            f"stays in {standing.data}. Start it again with: {_again(standing)}"
        ) from error


def _as_it_runs(standing: Standing) -> Mesh:
    mesh = standing.mesh
    if standing.code and mesh.sources is not None and mesh.code != standing.code:
        raise EnvironmentUnavailable(
            f"{standing.name!r} does not run the application that is found here, in {mesh.sources.place}: that has "
            f"changed since, or it is another one of the same name. To go on with this one: eventmesh down --name "
            f"{standing.name}, then: {_again(standing)}"
        )
    return mesh


def _again(standing: Standing) -> str:
    return f"eventmesh up --name {standing.name} --data {standing.data}"


def _must_be_reachable(standing: Standing) -> None:
    name = standing.name
    if not standing.ray:
        raise EnvironmentUnavailable(
            f"{name!r} is not up: it is being started now, or its start was cut off. If nobody is starting it, end "
            f"what is left with: eventmesh down --name {name}"
        )
    if not reachable(standing):
        raise EnvironmentUnavailable(
            f"the Ray of {name!r} at {standing.ray} is gone, with every process of the mesh. Its data is in "
            f"{standing.data}; start it again with: {_again(standing)}"
        )


def reachable(standing: Standing) -> bool:
    """Whether its Ray is there."""
    head = standing.head
    return head.alive if head is not None else answers(standing.ray)


def answers(address: str) -> bool:
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


def prepare_environment(address: str | None, token_file: Path | None) -> None:
    """Ray reads these when it is imported, so they are set before. In somebody else's cluster theirs hold."""
    from eventmesh.runtime.on_ray.head import ray_environment

    os.environ.update(ray_environment(address, token_file))

"""The life of a mesh that stays: ``up`` starts it under a name, ``run`` loads it, ``down`` ends it.

What stands under a name is recorded in a file of the user's own. The mesh's data directory holds ``mesh.yaml``, the
``log``, the ``generator``'s journal, and under ``callers`` what each run's callers were told: the audit of a run judges
all runs so far, since the log holds them all.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eventmesh import configuration, shipped
from eventmesh import mesh as meshes
from eventmesh.errors import (
    ConfigurationError,
    DataDirectoryError,
    EnvironmentUnavailable,
    InputError,
    NotFound,
    PeerLost,
)
from eventmesh.lab import run as runs
from eventmesh.lab.run import LOG, MESH_FILE, Prepared, begin, conclude, load_mesh, write_mesh, writing
from eventmesh.lab.standing_record import (
    LOOPBACK,
    Standing,
    answers,
    claimed,
    find,
    held,
    path_of,
    prepare_environment,
    reachable,
    reached,
    remove,
    write,
)
from eventmesh.lab.standing_runs import (
    Unfinished,
    all_callers,
    claim_run,
    earlier,
    keep,
    next_run,
    number_of_load,
    prefix,
    set_lost_journals_aside,
    unfinished,
)
from eventmesh.log.manifest import growth
from eventmesh.log.storage import machine_id
from eventmesh.log.store import Durability, check_directory
from eventmesh.mesh import Mesh
from eventmesh.report import record
from eventmesh.report.progress_bar import Report, silent
from eventmesh.runtime.journal import GENERATOR
from eventmesh.runtime.running import Measured
from eventmesh.workload import Workload

if TYPE_CHECKING:
    from eventmesh.runtime.on_ray.head import Head
    from eventmesh.runtime.on_ray.standing import StandingMesh
    from eventmesh.runtime.wire.channel import Access

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
    say: Callable[[str], object],
) -> Standing:
    """Start a mesh that stays, on a Ray of its own or in the cluster at ``address``.

    It goes on with what ``data`` holds. All that can be checked is checked before anything starts; what was started is
    ended where the rest fails. Where a run was cut off, it ``say``s what becomes of its requests.
    """
    data, token_file = data.resolve(), token_file and token_file.resolve()
    path_of(name)
    standing = Standing(name=name, data=data, ray="", listen=listen, token_file=token_file, since=datetime.now(UTC))
    if dry_run:
        _not_up(name)
        _say_all(_checked(standing, mesh_file).growth, say)
        return standing
    with claimed(name, "started"):
        _not_up(name)
        checked = _checked(standing, mesh_file)
        _make(data)
        busy = f"a mesh on {data} is being {{}} now: a data directory belongs to one mesh. Name another with --data"
        with held(data / "up.lock", "started", busy):
            if left := set_lost_journals_aside(data) or unfinished(data):
                say(left.text(checked.mesh.words))
            _say_all(checked.growth, say)
            return _up(standing, mesh_file, address, report)


def _up(standing: Standing, mesh_file: Path | None, address: str | None, report: Report) -> Standing:
    checked = _checked(standing, mesh_file)  # again: nobody else starts anything on this data now
    standing = standing.model_copy(update={"code": checked.mesh.code})
    report("starting Ray" if address is None else f"joining Ray at {address}", 0, 0)
    try:
        standing = _on_ray(standing, address, checked.mesh.processes)
        write(standing)
        write_mesh(standing.data, checked.mesh)
        report("starting the mesh", 0, 0)
        _start(standing, checked)
    except BaseException:
        _end(standing)
        raise
    return standing


def _not_up(name: str) -> None:
    """A record whose Ray is gone, with the machine for instance, is cleared away."""
    with suppress(NotFound):
        standing = find(name)
        if standing.ray and reachable(standing):
            since = f"{standing.since:%Y-%m-%d %H:%M} UTC"
            raise InputError(
                f"a mesh called {name!r} is up since {since}. Look at it with: eventmesh status --name {name}; "
                f"end it with: eventmesh down --name {name}"
            )
        _end(standing)


def _mesh_file(given: Path | None, data: Path) -> Path:
    if given is not None:
        return shipped.find("meshes", given)
    if not (data / MESH_FILE).is_file():
        raise InputError(f"{data} holds no mesh yet: name the mesh, such as views")
    return data / MESH_FILE


def _check_same_mesh(mesh: Mesh, data: Path) -> None:
    """Settings may change from one start to the next; what triggers what may not, while requests are under way."""
    if not (data / MESH_FILE).is_file():
        return
    before = configuration.read(data / MESH_FILE)
    for what in ("application", "wiring"):
        found, asked = before.get(what), getattr(mesh.description, what)
        if found != asked:
            raise InputError(
                f"{data} belongs to a mesh of {what} {found!r}, not {asked!r}: its {mesh.words.requests} would never "
                f"be finished. Name another directory with --data"
            )


@dataclass(frozen=True)
class Checked:
    """What can be known before anything starts: the mesh as it goes on with its log, and who is let in.

    ``cluster_id`` is the log's, a new one where there is none yet. ``growth`` says which topics get other columns.
    """

    mesh: Mesh
    access: Access
    cluster_id: str
    growth: Sequence[str]


def _say_all(sentences: Iterable[str], say: Callable[[str], object]) -> None:
    for each in sentences:
        say(each)


def _checked(standing: Standing, mesh_file: Path | None) -> Checked:
    data = standing.data
    load = meshes.load_stored if mesh_file is None else meshes.load
    mesh = load(_mesh_file(mesh_file, data))
    _check_same_mesh(mesh, data)
    if mesh.log.durability == Durability.memory:
        raise ConfigurationError(
            "durability memory keeps nothing, and this mesh is to stay", path="log.durability", hint="Use os or fsync"
        )
    access = standing.access
    try:
        found = check_directory(data / LOG, mesh.topics(), machine_id()) if (data / LOG).exists() else None
    except DataDirectoryError as error:
        raise DataDirectoryError(f"{data}: {error}") from error
    if found is None:
        return Checked(mesh, access, uuid.uuid4().hex, ())
    goes_on = mesh.on_log(found.topics)
    return Checked(goes_on, access, found.cluster_id, growth(found.topics, goes_on.topics()))


def _make(data: Path) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"{data}: the data directory cannot be made ({error.strerror})"
        raise EnvironmentUnavailable(f"{problem}. Name another with --data") from error


def _on_ray(standing: Standing, address: str | None, processes: int) -> Standing:
    from eventmesh.runtime.on_ray.head import start_head

    prepare_environment(address, standing.token_file)
    if address is not None:
        if not answers(address):
            raise EnvironmentUnavailable(
                f"no Ray answers at {address}: expected host:port of a head, as ray start prints it. Is it up, and "
                f"reachable from here?"
            )
        return standing.model_copy(update={"ray": address})
    # On record from its first moment: whatever ends this command, `eventmesh down` finds what it has started.
    head = start_head(standing.token_file, processes, lambda head: write(_headed(standing, head)))
    return _headed(standing, head)


def _headed(standing: Standing, head: Head) -> Standing:
    return standing.model_copy(update={"ray": head.address, "head_pid": head.pid, "head_folder": head.folder})


def _start(standing: Standing, checked: Checked) -> None:
    from eventmesh.runtime.on_ray import ray_folder
    from eventmesh.runtime.on_ray.standing import StandingMesh, joined

    folder = standing.head_folder
    with ray_folder.logs_kept_of(folder) if folder else nullcontext(), joined(standing.ray):
        StandingMesh.start(
            checked.mesh, standing.name, standing.data / LOG, checked.access, cluster_id=checked.cluster_id
        )  # fmt: skip


# --- down ----------------------------------------------------------------------------------------


def down(name: str) -> tuple[Standing, Unfinished | None]:
    """End every process of the mesh called ``name``, and Ray where it was started for it; the data stays.

    The run that it was in the middle of, if it was, goes on when it is up again.
    """
    find(name)
    with claimed(name, "ended"):
        standing = find(name)
        _end(standing)
        return standing, unfinished(standing.data)


def _end(standing: Standing) -> None:
    """Harmless to repeat. Ray is asked for nothing where it was started for this mesh: its processes are killed."""
    head = standing.head
    if head is not None:
        head.end()
    elif standing.ray and answers(standing.ray):
        with suppress(PeerLost), reached(standing) as running:
            running.end()
    remove(standing)


# --- run -----------------------------------------------------------------------------------------


#: Makes the workload of a run by its number and the files of what callers asked before it.
Prepare = Callable[[int, tuple[Path, ...]], Prepared]


def preparing(standing: Standing, chosen: Mapping[str, Any], *, seed: int, rate: float | None) -> Prepare:
    """What the runs of this mesh are, by number; ``chosen`` are options of its application.

    Who asks again once the run before has ended gets what was made already, where nothing has come in between.
    """

    @cache
    def prepare(number: int, asked: tuple[Path, ...]) -> Prepared:
        file, told = standing.data / MESH_FILE, all_callers(asked)
        return runs.prepare(file, chosen, seed=seed, rate=rate, number=number, asked=told, stored=True)

    return prepare


def planned(standing: Standing, prepare: Prepare) -> Prepared:
    """The next run, as far as can be told now."""
    return prepare(next_run(standing.data), earlier(standing.data))


def run(
    standing: Standing,
    prepare: Prepare,
    folder: Path,
    *,
    seed: int,
    report: Report,
    say: Callable[[str], object],
) -> record.Run:
    """Load the mesh, then audit everything that it has done since it was first up.

    Leaves ``folder`` as any run does; its log is the mesh's. One run at a time: :class:`InputError` otherwise. A run
    that was interrupted goes on in the mesh, and the next one waits for its end. Where this one is interrupted, it
    ``say``s what becomes of its requests.
    """
    with loading(standing, folder, report=report, say=say) as one:
        workload = prepare(one.number, earlier(standing.data)).workload
        _, finished = one.carry_out(
            workload, folder, lambda: load_mesh(one.running, workload, report, prefix=one.prefix), seed=seed
        )
        return finished


@contextmanager
def loading(
    standing: Standing, folder: Path, *, report: Report, say: Callable[[str], object]
) -> Iterator[OneRun]:  # fmt: skip
    """One run of the mesh, whose results go to ``folder``. See :func:`run`."""
    busy = f"{standing.name!r} is being {{}} now. Wait for the end of that run; one runs at a time"
    with (
        held(standing.data / "run.lock", "loaded", busy), writing(folder),
        reached(standing, to_load=True) as running,
    ):  # fmt: skip
        _await_earlier(standing, running, report)
        yield OneRun(standing, running, claim_run(standing.data), report, say)


@dataclass(frozen=True)
class OneRun:
    """A run of a mesh that stays: the only one at the time, with a ``number`` of its own."""

    standing: Standing
    running: StandingMesh
    number: int
    report: Report
    say: Callable[[str], object]

    @property
    def prefix(self) -> str:
        """What the names of its workloads begin with."""
        return prefix(self.number)

    def carry_out(
        self, workload: Workload, folder: Path, load: Callable[[], Measured], *, seed: int
    ) -> tuple[Measured, record.Run]:
        """Have the mesh loaded by ``load``, and audit all that it has done; what the load did, and the record."""
        data, mesh = self.standing.data, self.running.mesh
        begun = begin(self.standing.name, mesh, workload, folder, seed=seed)
        (folder / LOG).symlink_to(data / LOG)
        try:
            measured = load()
        except BaseException:
            self.say(_what_becomes_of(self.standing, self.number))
            raise
        keep(data, self.number, measured.callers)
        seen = self.running.history(all_callers(earlier(data)))
        finished = conclude(begun, mesh, workload, measured, seen, folder, report=self.report, shared_log=True)
        return measured, finished


def _what_becomes_of(standing: Standing, number: int) -> str:
    """A sentence on the requests of a run that is cut off."""
    words = standing.words
    if not reachable(standing):
        left = unfinished(standing.data)
        cut_off = f"run {number} was cut off, since {standing.name!r} is no longer up"
        return f"{cut_off}: {left.text(words)}" if left else cut_off
    if (standing.data / GENERATOR / f"{prefix(number)}load").exists():
        return (
            f"run {number} was cut off; {standing.name!r} goes on with its {words.requests}, and the next run waits "
            f"for them and audits them"
        )
    return f"run {number} was cut off before it placed any {words.request}"


def _await_earlier(standing: Standing, running: StandingMesh, report: Report) -> None:
    """What an interrupted run began is brought to its end, since the audit must know what its callers were told."""
    callers = running.finished(lambda state: report("the run before", state["sent"] - state["open"], state["total"]))
    if callers is not None:
        name, table = callers
        if (number := number_of_load(name)) is not None:
            keep(standing.data, number, table)

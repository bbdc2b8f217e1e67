"""A Ray head of our own that stays when the command that started it has ended: on loopback, in a folder of its own."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from eventmesh.errors import EnvironmentUnavailable
from eventmesh.runtime.on_ray import ray_folder, remains
from eventmesh.runtime.process.vitals import SAFE_PATH

#: Seconds that Ray may take to start.
STARTING_S = 60.0
POLL_S = 0.05
OBJECT_STORE_BYTES = 100 << 20


#: Files that a process may open: what is asked for, and what it takes at least. With 200 a mesh of 13 partitions goes
#: live, with 100 it does not.
FILES, FILES_MIN = 65_536, 256


def allow_files() -> None:
    """Let this process, and those that it starts, open as many files as the system lets them.

    :class:`~eventmesh.errors.EnvironmentUnavailable` where that is too few for a mesh.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if most < FILES_MIN:
        raise EnvironmentUnavailable(
            f"a process may open {most} files here, and those of a mesh need {FILES_MIN}. Allow more, for instance "
            f"with: ulimit -n 1024"
        )
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@dataclass(frozen=True)
class Head:
    """``pid`` is the process that keeps Ray's other processes; ``folder`` has its sockets and logs."""

    pid: int
    address: str
    folder: Path

    @property
    def alive(self) -> bool:
        """Whether it is there, and is the same one: its command line names its folder."""
        try:
            process = psutil.Process(self.pid)
            return process.status() != psutil.STATUS_ZOMBIE and str(self.folder) in " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            return False

    def end(self) -> None:
        """End every process of it and of the mesh on it, also where only some are left; harmless to repeat.

        They are killed: what a mesh has acknowledged outlives that (promise P1). Ray may be out of reach: its files are
        in a folder that whoever cleans up temporary files may have emptied.
        """
        remains.end(self.folder, self.pid)


def start_head(token_file: Path | None, processes: int, begun: Callable[[Head], object]) -> Head:
    """Start one; :class:`~eventmesh.errors.EnvironmentUnavailable` with what Ray said if it does not come up.

    Ray starts so many worker ``processes`` at once, ahead of the actors that will live in them. It has no autoscaler,
    since there is one node, and nobody who reads its logs aloud, since its drivers do not listen.

    ``begun`` is told of it as soon as there is a process, so that it can be ended whatever becomes of who started it.
    """
    allow_files()
    folder = ray_folder.make()
    command = [
        _executable(folder), "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port=0",
        f"--temp-dir={folder}",
        "--include-dashboard=false", "--no-monitor", "--include-log-monitor=false", "--disable-usage-stats",
        f"--num-cpus={processes}", f"--object-store-memory={OBJECT_STORE_BYTES}",
    ]  # fmt: skip
    said = folder / "start.log"
    with said.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            env=os.environ | ray_environment(None, token_file) | SAFE_PATH,
        )  # fmt: skip
    head = Head(process.pid, "", folder)
    try:
        begun(head)
        with ray_folder.logs_kept_of(folder):
            return Head(process.pid, _address(process, folder), folder)
    except BaseException:
        head.end()
        raise


def _executable(folder: Path) -> str:
    """This interpreter, by a name that Ray can hand to a shell as it is: it quotes no blank in it."""
    if shlex.quote(sys.executable) == sys.executable:
        return sys.executable
    (folder / "python").symlink_to(sys.prefix)
    return str(folder / "python" / Path(sys.executable).relative_to(sys.prefix))


def _address(process: subprocess.Popen[bytes], folder: Path) -> str:
    written, deadline = folder / "ray_current_cluster", time.monotonic() + STARTING_S
    while time.monotonic() < deadline and process.poll() is None:
        if written.exists() and (address := written.read_text().strip()):
            return address
        time.sleep(POLL_S)
    raise EnvironmentUnavailable("Ray did not start on this machine")


def ray_environment(address: str | None, token_file: Path | None) -> dict[str, str]:
    """What Ray reads when it is imported. A Ray of our own: loopback alone, and the token if there is one.

    In somebody else's cluster, at ``address``, it is they who say how Ray lets in.
    """
    if address is not None:
        return {} if address.startswith("127.") else {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
    auth = {"RAY_AUTH_MODE": "disabled"} if token_file is None else {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file),
    }  # fmt: skip
    return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **auth}

"""How a command connects to Ray: quietly, since the terminal is for what the command says."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import ray
from ray.job_config import JobConfig

from eventmesh.errors import EnvironmentUnavailable
from eventmesh.runtime.on_ray.joinable import must_be_joinable
from eventmesh.runtime.process.handed import search_path
from eventmesh.runtime.process.vitals import SAFE_PATH

_STDERR = 2


@contextmanager
def connected(address: str, problem: str, **options: Any) -> Iterator[None]:
    """A driver in the Ray at ``address``, which may be ``local`` for one that begins and ends with it.

    :class:`~eventmesh.errors.EnvironmentUnavailable` with ``problem`` where there is none, and
    :class:`~eventmesh.runtime.on_ray.joinable.SocketLost` where it cannot be reached any more. Ray's own words
    never come to the terminal: where the mesh or Ray fails, the error names the file that has them.
    """
    with _words_aside() as said:
        try:
            _connect(address, **options)
        except (RuntimeError, OSError, ConnectionError, ValueError, ray.exceptions.RayError) as error:
            said.write(f"{type(error).__name__}: {error}\n")
            said.flush()
            raise EnvironmentUnavailable(problem) from error
        try:
            yield
        finally:
            with _own_signals():
                ray.shutdown()


def _connect(address: str, **options: Any) -> None:
    """Errors of the cluster, such as a node's end, are printed to standard output by Ray's driver even where it is to
    print no logs, and ``--json`` would be no JSON any more. There is no switch for that: hence the patch.
    """
    vars(ray._private.worker)["print_to_stdstream"] = _dropped
    must_be_joinable(address)
    with _own_signals(), _safe_path():
        ray.init(
            address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False,
            job_config=_with_code_of_ours(), **options,
        )  # fmt: skip


@contextmanager
def _safe_path() -> Iterator[None]:
    """In the environment of what is started meanwhile: Ray's processes, and theirs."""
    before = {name: os.environ.get(name) for name in SAFE_PATH}
    os.environ.update(SAFE_PATH)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _own_signals() -> Iterator[None]:
    """What a signal does to the command stays what it was.

    Ray puts in handlers of its own for SIGTERM, which is kept from it here. Its C++ part puts in another one, past
    Python, that prints a stack of C++: ours are put in again over it.
    """
    vars(ray._private.utils)["set_sigterm_handler"] = _not_set
    if threading.current_thread() is not threading.main_thread():  # only there can they be set
        yield
        return
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            if handler is not None:  # None: not set from Python, hence not ours
                signal.signal(each, handler)


def _not_set(handler: Any) -> None:
    """The command stops in its own way, and Ray with it (:mod:`eventmesh.lab.shell`)."""


def _dropped(data: Any, ignore_prefix: bool = False) -> None:
    """Whoever wants to know what has ended looks at the mesh's status, or into Ray's logs."""


# --- where workers find their modules -------------------------------------------------------------


class _CodePaths(list[str]):
    """Folders that workers look for modules in first; Ray adds the driver's own, the working directory among them."""

    def extend(self, paths: Iterable[str]) -> None:
        """Leave them out: where this process looks is in the list already, and in its order.

        A ``yaml.py`` that lies in the working directory by chance would take a library's place, and a package of the
        application's name its own.
        """


def _with_code_of_ours() -> JobConfig:
    """Workers look for modules where this process does, in the same order: Ray puts each folder before the others."""
    config = JobConfig()
    config._py_driver_sys_path = _CodePaths(reversed(search_path().before))
    return config


# --- what Ray says --------------------------------------------------------------------------------


@contextmanager
def _words_aside() -> Iterator[IO[str]]:
    """What Ray's own code writes to standard error meanwhile goes to a file without a name, gone with this process.

    Where Ray, or the mesh, fails, it is kept in a file that the error names. Ray's C++ code writes to descriptor 2.
    That is turned aside only where ``sys.stderr`` is another one, as the command sees to: anybody else has reasons to
    see what is written there.
    """
    logger = logging.getLogger("ray")
    with tempfile.TemporaryFile("a+") as said:
        handler = logging.StreamHandler(said)
        logger.addHandler(handler)
        try:
            with _stderr_into(said.fileno()):
                yield said
        except EnvironmentUnavailable as error:
            said.seek(0)
            if words := said.read():
                error.args = (f"{error}. What Ray said is in {_kept(words)}",)
            raise
        finally:
            logger.removeHandler(handler)


def _kept(words: str) -> str:
    with tempfile.NamedTemporaryFile("w", prefix="eventmesh-ray-", suffix=".log", delete=False) as file:
        file.write(words)
        return file.name


@contextmanager
def _stderr_into(descriptor: int) -> Iterator[None]:
    if not _has_stderr_of_its_own():
        yield
        return
    before = os.dup(_STDERR)
    os.dup2(descriptor, _STDERR)
    try:
        yield
    finally:
        os.dup2(before, _STDERR)
        os.close(before)


def _has_stderr_of_its_own() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.fileno() != _STDERR
    except (OSError, ValueError):  # it is no file, or is closed
        return False

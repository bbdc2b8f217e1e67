"""Calls to the actors of a mesh: each has an end, and says whether the process is only being started again."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import ray

from eventmesh.errors import EnvironmentUnavailable, EventmeshError, PeerLost
from eventmesh.sources import OtherSources

#: Seconds that a call of the control plane may take; starting a process on a busy machine is the slowest.
CALL_TIMEOUT_S = 60.0
POLL_S = 0.02
#: What to do where a process of the mesh is gone, or silent, and Ray does not mend it.
TRY = "`eventmesh status` shows which one. Where it stays so, end the mesh and start it again: its data stays"
#: The last line of a traceback that says why a process did not start.
_REFUSED = re.compile(rf"^(?:\w+\.)*{OtherSources.__name__}: (.+)$", re.MULTILINE)
#: Seconds that a connection to Ray may take.
CONNECT_S = 3.0


class ProcessDown(EnvironmentUnavailable):
    """A process of the mesh has died; Ray is starting it again."""


def get(what: Any) -> Any:
    """What a call returned, or the list of calls; what it raised, without Ray's wrapping."""
    try:
        return ray.get(what, timeout=CALL_TIMEOUT_S)
    except ray.exceptions.RayTaskError as error:
        cause: Exception = error.as_instanceof_cause()  # type: ignore[no-untyped-call]
        if isinstance(error.cause, PeerLost):  # it has ended, and its process is there for a while
            raise ProcessDown(str(error.cause)) from error
        if isinstance(error.cause, EventmeshError):
            raise error.cause from None
        raise cause from None
    except ray.exceptions.ActorUnavailableError as error:
        raise ProcessDown("a process of the mesh is being started again") from error
    except ray.exceptions.RayActorError as error:
        if (refusal := refused_to_start(str(error))) is not None:
            raise OtherSources(refusal) from error
        raise EnvironmentUnavailable(f"a process of the mesh died, and Ray does not start it again. {TRY}") from error
    except ray.exceptions.GetTimeoutError as error:
        raise EnvironmentUnavailable(
            f"a process of the mesh did not answer within {CALL_TIMEOUT_S:g} s: it is stopped, or the machine is too "
            f"busy. {TRY}"
        ) from error


def refused_to_start(said: str) -> str | None:
    """Why a process did not start, where it did not find the application: Ray keeps of that no more than a text."""
    found = _REFUSED.search(said)
    return found[1] if found is not None else None


def wait_until(
    done: Callable[[], bool], what: str, timeout_s: float = CALL_TIMEOUT_S, *, explain: Callable[[], str] = str
) -> None:
    """Until ``done``; a process that is being started again only makes it take longer.

    :class:`~eventmesh.errors.EnvironmentUnavailable` after ``timeout_s``, with what ``explain`` says then.
    """
    deadline, reason = time.monotonic() + timeout_s, ""
    while True:
        try:
            if done():
                return
        except ProcessDown as error:
            if not _ray_answers():
                raise EnvironmentUnavailable(
                    "Ray has ended, and every process of the mesh with it. Its data stays: start the mesh again"
                ) from error
            reason = str(error)
        if time.monotonic() > deadline:
            raise EnvironmentUnavailable(
                ". ".join(filter(None, [f"waited {timeout_s:g} s for {what}", reason, explain()]))
            )
        time.sleep(POLL_S)


def answered(asked: Mapping[Any, Any], timeout_s: float) -> dict[Any, Any]:
    """What came of the calls that were answered within ``timeout_s`` of all of them; what failed is left out."""
    deadline, answers = time.monotonic() + timeout_s, {}
    for name, question in asked.items():
        with suppress(ray.exceptions.RayError):
            answers[name] = ray.get(question, timeout=max(0.0, deadline - time.monotonic()))
    return answers


def _ray_answers() -> bool:
    """A driver of a Ray that has gone waits for it for a minute, and then ends its whole process."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_S):
            return True
    except OSError:
        return False


def eventually(call: Callable[[], Any], what: str) -> Any:
    """What a call that is harmless to repeat returns; made again while the process is being started again."""
    answer: list[Any] = []

    def ask() -> bool:
        answer[:] = [get(call())]
        return True

    wait_until(ask, what)
    return answer[0]

"""How a command connects to Ray: quietly, since its standard output is for results."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray


def connect(address: str, **options: Any) -> None:
    """``ray.init`` at ``address``; what the cluster's processes say stays in their files.

    Errors of the cluster, such as a node's end, are printed to standard output by Ray's driver even where it is to
    print no logs, and ``--json`` would be no JSON any more. There is no switch for that: hence the patch.
    """
    vars(ray._private.worker)["print_to_stdstream"] = _dropped
    with _own_signals():
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **options)


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

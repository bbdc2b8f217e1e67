"""How a command connects to Ray: quietly, since its standard output is for results."""

from __future__ import annotations

import logging
from typing import Any

import ray


def connect(address: str, **options: Any) -> None:
    """``ray.init`` at ``address``; what the cluster's processes say stays in their files.

    Errors of the cluster, such as a node's end, are printed to standard output by Ray's driver even where it is to
    print no logs, and ``--json`` would be no JSON any more. There is no switch for that: hence the patch.
    """
    vars(ray._private.worker)["print_to_stdstream"] = _dropped
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **options)


def _dropped(data: Any, ignore_prefix: bool = False) -> None:
    """Whoever wants to know what has ended looks at the mesh's status, or into Ray's logs."""

"""A Ray cluster of two nodes on this machine, until its standard input ends. A program, not a module: what Ray reads
from the environment when it is imported concerns nobody else.

It prints one line of JSON: ``address`` of the cluster, ``raylets`` with the process number of each node's raylet, the
head's first.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from ray.cluster_utils import Cluster

#: As small as Ray allows: nothing of a mesh travels through it.
NODE = {"num_cpus": 4, "object_store_memory": 80 << 20, "node_ip_address": "127.0.0.1", "include_dashboard": False}


def raylet(node: Any) -> int:
    """The process number of a node's raylet."""
    (found,) = node.all_processes["raylet"]
    return int(found.process.pid)


def main() -> None:
    logging.disable(logging.WARNING)
    cluster = Cluster(initialize_head=True, shutdown_at_exit=True, head_node_args=NODE)
    try:
        second = cluster.add_node(**NODE)
        told = {"address": cluster.address, "raylets": [raylet(cluster.head_node), raylet(second)]}
        print(json.dumps(told), flush=True)  # noqa: T201
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()

"""A subscriber in a process of its own that can be held up: ``slow_reader.py ADDRESS local|remote``.

It says ``reading`` at its first batch, takes no more until a line comes in, then reads to the end that the line names
and says how many facts it has had.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

from eventmesh.progress import position_name
from eventmesh.runtime.process.subscription import Entry, Subscription
from tests.unit.log_story import ORDERS


def say(line: str) -> None:
    """Tell who started this process."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(address: str, way: str) -> None:
    """Read, be held up, read on."""
    go_on, ended, wanted, counted = threading.Event(), threading.Event(), [0], [0]

    def deliver(entries: Sequence[Entry], sent_at: int) -> None:
        say("reading")
        go_on.wait()
        counted[0] += sum(entry.header.rows for _, _, entry in entries if entry.header.kind == "facts")
        if entries[-1][2].header.end >= wanted[0]:
            ended.set()

    topics = {"orders": ORDERS}
    reading = Subscription(
        address, topics, deliver, lambda why: ended.set(), failed=lambda error: say(str(error)), local=way == "local"
    )  # fmt: skip
    reading.subscribe(position_name("orders", 0), 0)
    wanted[0] = int(sys.stdin.readline())
    go_on.set()
    ended.wait()
    say(f"had {counted[0]} {'local' if reading.is_local else 'remote'}")
    reading.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

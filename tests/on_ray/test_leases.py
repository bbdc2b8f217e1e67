"""Given who answers to the supervisor, then it takes a number for a process of its own only where that number holds."""

from __future__ import annotations

import os

from eventmesh.runtime.on_ray.supervisor import Watched
from eventmesh.runtime.process.vitals import Process, numbered_by


def test_a_process_of_this_machine_is_known_by_its_number() -> None:
    watched = Watched(actor=None)
    watched.answered(Process().identity())
    assert watched.process is not None
    assert watched.process.pid == os.getpid()


def test_the_same_number_in_another_container_is_another_process() -> None:
    watched = Watched(actor=None)
    watched.answered((numbered_by() + " of another container", os.getpid()))
    assert watched.process is None, "it would be killed for the other one's silence"
    assert (watched.lives, watched.owes) == (1, True)

"""Carries out faults on a mesh that runs on Ray: sends signals, and tells processes of what they do to themselves.

What a process was told of it forgets by itself when it is over, whatever becomes of who told it. One that is started
again meanwhile is told again. A signal goes to a process that has just said its number and when it was started, so that
a stranger who was given the number since is never hit.

A process that is frozen for longer than the supervisor's lease is killed by the supervisor: the fault is then a kill.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any, Protocol

import psutil
import ray

from eventmesh.errors import ConfigurationError
from eventmesh.mesh import Mesh
from eventmesh.runtime import faults
from eventmesh.runtime.faults import (
    MACHINE,
    ClockJump,
    DiskFault,
    End,
    Fault,
    Freeze,
    Kill,
    Struck,
    TornWrite,
)
from eventmesh.runtime.on_ray.actors import Actors
from eventmesh.runtime.on_ray.calls import CALL_TIMEOUT_S, ProcessDown, answered, get
from eventmesh.runtime.process.actor_log import log
from eventmesh.runtime.process.directory import BROKER, Peer, peer_called, peer_name
from eventmesh.runtime.process.strikes import unshifted
from eventmesh.runtime.process.undos import Heal, Thaw, Undo, process_of, send
from eventmesh.runtime.process.vitals import Life, numbered_by

#: The thread of a process that is told of faults, whatever else it is doing.
FAULTS = "faults"
#: Seconds between two looks at what came of faults.
LOOK_S = 0.2
#: Seconds that a process has to say who it is, or what came of a fault.
ANSWER_S = 2.0
#: Seconds that a killed process has to be gone.
DYING_S = 10.0


class Watched(Protocol):
    """A fault that is not over, as far as is known."""

    struck: Struck
    name: str

    def look(self) -> bool:
        """Write down what came of it since; whether it is over."""

    def heal(self) -> None:
        """End it."""


class KeepsUndos(Protocol):
    """Keeps the list of undos (:class:`~eventmesh.runtime.process.undos.Undos`) for who makes faults."""

    def note(self, fault: str, undo: Undo) -> None:
        """Returns when it is on the list; raises why it is not."""

    def renew(self) -> None:
        """Who makes faults is there."""

    def forget(self, fault: str) -> None:
        """The fault is over."""


class NoUndos:
    """Where the mesh ends with who makes faults, nothing is left to be undone."""

    def note(self, fault: str, undo: Undo) -> None:
        """See :class:`KeepsUndos`."""

    def renew(self) -> None:
        """See :class:`KeepsUndos`."""

    def forget(self, fault: str) -> None:
        """See :class:`KeepsUndos`."""


class Strikes:
    """The faults of one mesh. ``actors`` are its processes, and ``undos`` keeps the list of what puts them right."""

    def __init__(self, mesh: Mesh, actors: Actors, undos: KeepsUndos | None = None) -> None:
        self._mesh, self._actors = mesh, actors
        self._undos = undos or NoUndos()
        self._numbers, self._begun = count(), f"{os.getpid()}.{time.time_ns():x}"
        self._watched: list[Watched] = []
        self._known: dict[Peer, psutil.Process] = {}  # as they last answered: one that is frozen does not
        self._changed = threading.Condition()
        self._looking = threading.Lock()  # of who looks at faults, or ends them
        self._thread: threading.Thread | None = None

    def strike(self, fault: Fault) -> Struck:
        """See :meth:`RayMesh.strike <eventmesh.runtime.on_ray.running.RayMesh.strike>`."""
        self._check(fault)
        name = f"{self._begun}.{next(self._numbers)}"
        try:
            watched = self._begin(fault, name)
        except BaseException:
            self._undos.forget(name)
            raise
        self._watch(watched)
        return watched.struck

    def _begin(self, fault: Fault, name: str) -> Watched:
        match fault:
            case Kill():
                return self._kill(fault, name)
            case Freeze():
                return self._freeze(fault, name)
            case _:
                return self._tell(fault, name)

    def _check(self, fault: Fault) -> None:
        found = faults.refusals([fault], self._mesh, "on_ray")
        found += faults.level_refusals([fault], self._mesh.log.durability, "on_ray")
        if found:
            raise ConfigurationError("\n".join(found))

    # --- what is done -----------------------------------------------------------------------------

    def _kill(self, fault: Kill, name: str) -> Watched:
        peers = [BROKER, *self._actors.services] if fault.process == MACHINE else [peer_called(fault.process)]
        victims = {peer: found for peer, found in self._processes(peers).items() if found is not None}
        ours = {peer: process for peer, process in victims.items() if isinstance(process, psutil.Process)}
        struck = Struck(fault, unshifted())
        for peer in victims:
            if peer in ours:
                send(ours[peer], signal.SIGKILL)
            else:
                ray.kill(self._actors.all[peer], no_restart=False)  # on another machine: Ray's own way
        psutil.wait_procs(list(ours.values()), timeout=DYING_S)
        for peer in victims:
            struck.shows["lives ended"] += 1
            if peer in ours:
                struck.details[f"{peer_name(peer)} before"] = str(ours[peer].pid)
        return _Dead(struck, name, {peer: victims[peer].pid for peer in victims}, self._lives)

    def _freeze(self, fault: Freeze, name: str) -> Watched:
        peer = peer_called(fault.process)
        process = self._processes([peer])[peer]
        if process is not None and not isinstance(process, psutil.Process):
            raise ConfigurationError(
                f"freeze: {fault.process} runs on another machine. Freeze it from a command that runs there"
            )
        if process is not None:
            self._undos.note(name, Thaw(numbered_by(), process.pid, process.create_time()))
        struck = Struck(fault, unshifted())
        if process is not None and send(process, signal.SIGSTOP):
            struck.shows["processes frozen"] += 1
        return _Frozen(struck, name, process, fault.lasts_s)

    def _tell(self, fault: Fault, name: str) -> Watched:
        if isinstance(fault, End | ClockJump):
            peers = [peer_called(fault.process)]
        elif isinstance(fault, DiskFault):
            peers = [BROKER]
        else:
            peers = list(self._actors.all)
        told = _Told(fault, name, {peer: self._actors.all[peer] for peer in peers})
        self._undos.note(name, Heal())
        told.begin()
        return told

    # --- who is struck ----------------------------------------------------------------------------

    def _lives(self, peers: list[Peer]) -> dict[Peer, Life]:
        """Of those that answer."""
        asked = {peer: self._actors.all[peer].life.options(concurrency_group=FAULTS).remote() for peer in peers}
        return answered(asked, ANSWER_S)

    def _processes(self, peers: list[Peer]) -> dict[Peer, Any]:
        """Each as a process of this machine, None where it is not up; its life where it is elsewhere."""
        found: dict[Peer, Any] = {peer: self._known.get(peer) for peer in peers}
        for peer, life in self._lives(peers).items():
            found[peer] = life
            if life.numbered_by == numbered_by():
                found[peer] = self._known[peer] = process_of(life.pid, life.started)
        return found

    # --- until it is over -------------------------------------------------------------------------

    def _watch(self, watched: Watched) -> None:
        with self._changed:
            self._watched.append(watched)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="faults", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait(LOOK_S)
                if not self._watched:
                    self._thread = None
                    return
            self.look()

    def look(self) -> None:
        """Write down what came of the faults that are not over."""
        with self._looking:
            for each in list(self._watched):
                self._undos.renew()  # a look takes seconds where processes do not answer
                try:
                    over = each.look()
                except ray.exceptions.RayError as error:  # the mesh is ending, or Ray is
                    log.info("nobody says what came of a fault", kind=each.struck.fault.kind, error=str(error))
                    continue
                if over:
                    each.struck.ended_us = each.struck.ended_us or unshifted()
                    self._watched.remove(each)
                    self._undos.forget(each.name)

    @property
    def lasting(self) -> bool:
        """Whether a fault is not over, as far as is known."""
        return bool(self._watched)

    def heal(self) -> None:
        """See :meth:`RayMesh.heal <eventmesh.runtime.on_ray.running.RayMesh.heal>`."""
        with self._looking:
            for each in self._watched:
                each.heal()
            if any(isinstance(each, _Told) for each in self._watched):
                heal(self._actors.all)
        self.look()

    def close(self) -> None:
        """The mesh is being ended: thaw who is frozen, so that it can end, and look no more."""
        with self._looking:
            for each in self._watched:
                if isinstance(each, _Frozen):
                    each.heal()
            self._watched.clear()
        with self._changed:
            self._changed.notify()


def heal(actors: Mapping[Peer, Any]) -> None:
    """Have these processes end the faults that they do to themselves; one that does not answer has it before it."""
    asked = {peer: actor.heal.options(concurrency_group=FAULTS).remote() for peer, actor in actors.items()}
    answered(asked, ANSWER_S)


class _Dead:
    """Processes that were killed, until each has a next life."""

    def __init__(
        self, struck: Struck, name: str, pids: Mapping[Peer, int],
        lives: Callable[[list[Peer]], dict[Peer, Life]],
    ) -> None:  # fmt: skip
        self.struck, self.name = struck, name
        self._pids, self._lives = dict(pids), lives
        self._began_us = struck.at_us

    def look(self) -> bool:
        """Who answers with another number lives again; it is over when the last of them began to."""
        for peer, life in self._lives(list(self._pids)).items():
            if life.pid != self._pids[peer]:
                del self._pids[peer]
                self._began_us = max(self._began_us, life.began_us)
                self.struck.shows["lives begun"] += 1
                self.struck.details[f"{peer_name(peer)} after"] = str(life.pid)
        if not self._pids:
            self.struck.ended_us = self._began_us
        return not self._pids

    def heal(self) -> None:
        """Nothing: Ray starts them again."""


class _Frozen:
    """A process that stands still until its time is over, or its supervisor has killed it."""

    def __init__(self, struck: Struck, name: str, process: psutil.Process | None, lasts_s: float) -> None:
        self.struck, self.name, self._process = struck, name, process
        self._timer = threading.Timer(lasts_s, self.heal)
        self._timer.daemon = True
        self._over = process is None
        self._timer.start()

    def look(self) -> bool:
        """Whether it goes on, or is gone."""
        process = self._process
        if not self._over and process is not None and not _lives(process):
            self.struck.shows["lives ended"] += 1
            self.heal()
        return self._over

    def heal(self) -> None:
        """It goes on."""
        self._timer.cancel()
        if not self._over and self._process is not None:
            self._over = True
            send(self._process, signal.SIGCONT)
            self.struck.ended_us = unshifted()


class _Told:
    """A fault that processes do to themselves. ``name`` is what they know it by."""

    def __init__(self, fault: Fault, name: str, actors: Mapping[Peer, Any]) -> None:
        self.struck = Struck(fault, unshifted())
        self.name, self._actors = name, actors
        self._until = time.monotonic() + (fault.duration_s or 0.0)
        self._healed = False
        self._pids: dict[Peer, int] = {}
        self._began_us: int | None = None  # the life after, where it ends one
        self._came: dict[tuple[Peer, int], Counter[str]] = {}  # of each life

    def begin(self) -> None:
        """Tell every process; raises what one of them says against it. One that does not answer has it before it."""
        fault = self.struck.fault
        if self._ends_a_life:
            for peer, (life, _) in answered(self._asked(), ANSWER_S).items():
                self._note_life(peer, life)
        # To end takes a while, and goes before what is asked then: who is asked for a lease answers beside it.
        group, timeout_s = (None, CALL_TIMEOUT_S) if isinstance(fault, End) else (FAULTS, ANSWER_S)
        asked = {
            peer: actor.strike.options(concurrency_group=group).remote(fault, self.name)
            for peer, actor in self._actors.items()
        }  # fmt: skip
        ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=timeout_s)
        for peer, each in asked.items():
            if each not in ready:
                continue
            with suppress(ProcessDown):  # it is being started
                shows = get(each).shows
                if (pid := self._pids.get(peer)) is not None:  # it may be gone before anybody looks
                    self._came[peer, pid] = shows

    def look(self) -> bool:
        """Gather what each life of each process says, and tell those again that know nothing of it."""
        answers = answered(self._asked(), ANSWER_S)
        lasting = self._ends_a_life and len(answers) < len(self._actors)  # until the next life answers
        for peer, (life, found) in answers.items():
            self._note_life(peer, life)
            if found is None:
                lasting = self._tell_again(peer) or lasting
            else:
                lasting = lasting or found.ended_us is None
                self._came[peer, life.pid] = found.shows
                self.struck.details |= found.details
        self.struck.shows = sum(self._came.values(), Counter())
        over = not lasting and (self._healed or time.monotonic() >= self._until)
        if over:
            self.struck.ended_us = self._began_us
        return over

    @property
    def _ends_a_life(self) -> bool:
        return isinstance(self.struck.fault, End | TornWrite)

    def _asked(self) -> dict[Peer, Any]:
        return {
            peer: actor.came_of.options(concurrency_group=FAULTS).remote(self.name)
            for peer, actor in self._actors.items()
        }  # fmt: skip

    def _note_life(self, peer: Peer, life: Life) -> None:
        if self._pids.setdefault(peer, life.pid) != life.pid:
            self._pids[peer] = life.pid
            if self._ends_a_life:
                torn = {"writes torn": 1, "lives ended": 1} if isinstance(self.struck.fault, TornWrite) else {}
                self._came[peer, life.pid] = Counter({"lives begun": 1, **torn})
                self._began_us = life.began_us

    def _tell_again(self, peer: Peer) -> bool:
        """Whether there is something left of it for a process that was started meanwhile."""
        fault, rest_s = self.struck.fault, self._until - time.monotonic()
        if self._healed or rest_s <= 0 or isinstance(fault, End):
            return False
        rest = fault.model_copy(update={"lasts_s": rest_s})
        self._actors[peer].strike.options(concurrency_group=FAULTS).remote(rest, self.name)
        return True

    def heal(self) -> None:
        """Whoever is started from now on is not told of it."""
        self._healed = True


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False

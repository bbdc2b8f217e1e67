"""What owns one instance or caller: everything that happens to it happens in its steps, in order, one at a time.

Threads post what came to them. An emulated round trip delays each message by half of ``rtt_ms`` from the
moment it was sent, appends, events, queries and answers alike.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from eventmesh.errors import PeerLost
from eventmesh.runtime.effects import Effect
from eventmesh.runtime.process.actor_log import log


class Clock:
    """The clock of this process: ``ahead_us`` microseconds ahead of the machine's, while a fault has it jump."""

    ahead_us = 0


CLOCK = Clock()


def now() -> int:
    """Microseconds since the Unix epoch; one host's processes share it, as long as none of their clocks has jumped."""
    return time.time_ns() // 1_000 + CLOCK.ahead_us


#: Microseconds that a reactor sleeps at most.
NAP_US = 1_000_000


class Machine(Protocol):
    """What a reactor drives: an instance or a caller."""

    def tick(self, now: int) -> None:
        """Time has passed."""

    def next_deadline(self) -> int | None:
        """When to tick next, in microseconds."""


class Reactor:
    """Drives ``machine``. ``carry_out`` is called with the effects of a step and ``after_step`` at the end of each
    step.

    Steps are taken on the reactor's own thread, which gathers what came in meanwhile. What cannot wait, a question or
    its answer, is done by the thread that it came to, where no step is being taken: a wake costs more than most steps.
    It takes one step and no more, so that a busy machine is the reactor's own again.
    """

    def __init__(
        self, name: str, delay_us: int, carry_out: Callable[[list[Effect]], None], after_step: Callable[[], None]
    ) -> None:
        self._after_step = after_step
        self.name, self.delay_us = name, delay_us
        self.effects: list[Effect] = []
        self.failure: BaseException | None = None
        self._carry_out = carry_out
        self._machine: Machine | None = None
        self._inbox: deque[tuple[int, Callable[[], None]]] = deque()
        self._stepping = threading.Lock()  # of who takes a step
        self._ready = threading.Condition()  # of the inbox and the two times
        self._deadline: int | None = None  # of the machine, as of its last step
        self._sleeps_until = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"reactor {name}", daemon=True)

    def start(self, machine: Machine) -> None:
        """Begin to drive."""
        with self._stepping:
            self._machine = machine
            self._deadline = machine.next_deadline()
        self._thread.start()

    def post(self, action: Callable[[], None], sent_at: int | None = None, at_once: bool = False) -> None:
        """Run ``action`` in a step; a message waits until ``sent_at`` plus half the round trip.

        With ``at_once`` it need not wait for another thread to wake up: the step is taken here, if none is being taken.
        """
        # What was sent in the future was sent by another clock: it has waited for half the round trip soon enough.
        due = 0 if sent_at is None or not self.delay_us else min(sent_at, now()) + self.delay_us
        with self._ready:
            self._inbox.append((due, action))
        if due or not at_once:
            self._wake()
        elif self._stepping.acquire(blocking=False):  # else who takes a step looks into the inbox after it
            try:
                self._step()
            finally:
                self._stepping.release()
            self._wake()

    def _wake(self) -> None:
        """Let the reactor's thread see to what is left, if it would sleep too long."""
        with self._ready:
            due = self._due()
            if due is not None and due < self._sleeps_until:
                self._sleeps_until = 0
                self._ready.notify()

    def call(self, function: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        """Run ``function`` in a step and return what it returns; ``PeerLost`` where there are no more steps."""
        done, answer = threading.Event(), []

        def run() -> None:
            answer.append(function())
            done.set()

        self.post(run)
        if self._stopping and self.failure is None:
            raise PeerLost(f"{self.name} has ended")
        if not done.wait(0 if self.failure is not None else timeout_s):
            raise TimeoutError(f"{self.name} did not answer within {timeout_s} s: {self.failure!r}")
        return answer[0]

    def stop(self) -> None:
        """Take no more steps; what is in the inbox is dropped."""
        with self._ready:
            self._stopping = True
            self._ready.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        if self._stepping.acquire(timeout=5):  # who takes a step for it has ended that
            self._stepping.release()

    def _run(self) -> None:
        while not self._stopping:
            with self._stepping:
                self._step()
            self._sleep()

    def _sleep(self) -> None:
        """Until something is due, or is posted while nobody takes a step."""
        with self._ready:
            due, moment = self._due(), now()
            self._sleeps_until = moment + NAP_US if due is None else min(moment + NAP_US, due)
            while not self._stopping and (wait_us := self._sleeps_until - now()) > 0:
                self._ready.wait(wait_us / 1e6)

    def _due(self) -> int | None:
        """When there is something to do; None where nothing is known."""
        due = [at for at in (self._deadline, self._inbox[0][0] if self._inbox else None) if at is not None]
        return min(due, default=None)

    def _step(self) -> None:
        """Do what is due; with the lock of who takes a step."""
        machine = self._machine
        if machine is None or self._stopping:
            return
        try:
            self._do(machine)
        except BaseException as failure:  # the process must not seem alive when nothing is done any more
            self.failure = failure
            self._stopping = True
            log.exception("reactor failed", reactor=self.name)

    def _do(self, machine: Machine) -> None:
        for action in self._take():
            action()
        deadline = machine.next_deadline()
        if deadline is not None and deadline <= now():
            machine.tick(now())
        while self.effects:
            effects, self.effects[:] = list(self.effects), []
            self._carry_out(effects)
        self._after_step()
        self._deadline = machine.next_deadline()

    def _take(self) -> list[Callable[[], None]]:
        with self._ready:
            moment, actions = now(), []
            while self._inbox and self._inbox[0][0] <= moment:
                actions.append(self._inbox.popleft()[1])
            return actions

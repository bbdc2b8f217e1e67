"""One thread that owns one instance or caller: everything that happens to it happens there, in order.

Other threads only post. An emulated round trip delays each message by half of ``rtt_ms`` from the
moment it was sent, appends, events, queries and answers alike.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from eventmesh.runtime.contract import Effect
from eventmesh.runtime.on_ray.actor_log import log


def now() -> int:
    """Microseconds since the Unix epoch; one host's processes share it."""
    return time.time_ns() // 1_000


class Machine(Protocol):
    """What a reactor drives: an instance or a caller."""

    def tick(self, now: int) -> None:
        """Time has passed."""

    def next_deadline(self) -> int | None:
        """When to tick next, in microseconds."""


class Reactor:
    """The thread of ``machine``. ``carry_out`` is called with the effects of a step and ``after_step`` at the end of
    each step, both on this thread.
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
        self._ready = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"reactor {name}", daemon=True)

    def start(self, machine: Machine) -> None:
        """Begin to drive."""
        self._machine = machine
        self._thread.start()

    def post(self, action: Callable[[], None], sent_at: int | None = None) -> None:
        """Run ``action`` on the reactor's thread; a message waits until ``sent_at`` plus half the round trip."""
        due = 0 if sent_at is None or not self.delay_us else sent_at + self.delay_us
        with self._ready:
            self._inbox.append((due, action))
            self._ready.notify()

    def call(self, function: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        """Run ``function`` on the reactor's thread and return what it returns."""
        done, answer = threading.Event(), []

        def run() -> None:
            answer.append(function())
            done.set()

        self.post(run)
        if not done.wait(timeout_s):
            raise TimeoutError(f"{self.name} did not answer within {timeout_s} s: {self.failure!r}")
        return answer[0]

    def stop(self) -> None:
        """End the thread; what is in the inbox is dropped."""
        with self._ready:
            self._stopping = True
            self._ready.notify()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        assert self._machine is not None
        try:
            while self._step(self._machine):
                pass
        except BaseException as failure:  # the process must not seem alive with a dead thread
            self.failure = failure
            log.exception("reactor failed", reactor=self.name)
            raise

    def _step(self, machine: Machine) -> bool:
        actions = self._take(machine)
        if actions is None:
            return False
        for action in actions:
            action()
        deadline = machine.next_deadline()
        if deadline is not None and deadline <= now():
            machine.tick(now())
        while self.effects:
            effects, self.effects[:] = list(self.effects), []
            self._carry_out(effects)
        self._after_step()
        return True

    def _take(self, machine: Machine) -> list[Callable[[], None]] | None:
        with self._ready:
            wait_us = self._wait(machine)
            while wait_us > 0 and not self._stopping:
                self._ready.wait(min(wait_us / 1e6, 1.0))
                wait_us = self._wait(machine)
            if self._stopping:
                return None
            moment, actions = now(), []
            while self._inbox and self._inbox[0][0] <= moment:
                actions.append(self._inbox.popleft()[1])
            return actions

    def _wait(self, machine: Machine) -> int:
        """Microseconds until there is something to do; 0 or less: now."""
        deadline = machine.next_deadline()
        due = [at for at in (deadline, self._inbox[0][0] if self._inbox else None) if at is not None]
        return min(due) - now() if due else 1_000_000

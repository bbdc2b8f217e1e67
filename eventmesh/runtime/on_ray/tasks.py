"""Work that the tasks of a Ray cluster share: each takes the next piece, and what comes of it is handed over."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import ray

from eventmesh.errors import EnvironmentUnavailable
from eventmesh.runtime.on_ray.driver import connected


class Tasks:
    """``work`` done to each piece in one of ``count`` tasks at a time, as many as the cluster has cores if None.

    Leaving gives up those that are under way. Every node needs the same code: ``work`` and pieces come pickled.
    """

    def __init__(self, work: Callable[[Any], Any], address: str, count: int | None = None) -> None:
        self._work, self._address, self._count = work, address, count
        self._waiting: deque[Any] = deque()
        self._running: dict[Any, Any] = {}  # by reference, the piece
        self._ends = ExitStack()

    def __enter__(self) -> Tasks:
        problem = f"no Ray answers at {self._address}. Is it up, and is this machine allowed to join it?"
        self._ends.enter_context(connected(self._address, problem, namespace="eventmesh"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for running in self._running:
                ray.cancel(running, force=True)
        finally:
            self._ends.close()

    def put(self, piece: Any) -> None:
        """Have it done, after those before it."""
        self._waiting.append(piece)

    def put_first(self, piece: Any) -> None:
        """Have it done next."""
        self._waiting.appendleft(piece)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Each piece with what came of it, as it comes, until nothing is left; more may be put in meanwhile."""
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        count = self._count or max(1, int(resources.get("CPU", 1)))
        task = ray.remote(num_cpus=1, max_retries=3)(self._work_of_task())
        while self._waiting or self._running:
            while self._waiting and len(self._running) < count:
                piece = self._waiting.popleft()
                self._running[task.remote(piece)] = piece
            (ready,), _ = ray.wait(list(self._running), num_returns=1)
            yield self._running.pop(ready), self._result(ready)

    def _work_of_task(self) -> Callable[[Any], Any]:
        work = self._work

        def one_piece(piece: Any) -> Any:
            return work(piece)

        return one_piece

    @staticmethod
    def _result(ready: Any) -> Any:
        try:
            return ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise EnvironmentUnavailable(f"a task was lost, and Ray could not run it again: {error}") from error

"""Work that several processes share: each takes the next piece, and what comes of it is handed over as it comes.

A process ends when whoever started it does, however that ends: it reads its work from a pipe whose other end is gone.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, TypeVar

from eventmesh.errors import EnvironmentUnavailable

Piece = TypeVar("Piece")
Result = TypeVar("Result")
#: Seconds in which a process that was told to ends has ended.
ENDING_S = 5.0


class Jobs(Generic[Piece, Result]):
    """``work`` done to each piece in one of ``count`` processes; ``work`` and pieces must be picklable.

    Where ``count`` is 1, everything happens in this process. Leaving ends all at once, whatever they are at.
    """

    def __init__(self, work: Callable[[Piece], Result], count: int) -> None:
        self._work, self._count = work, count
        self._waiting: deque[Piece] = deque()
        self._idle: list[Connection] = []
        self._busy: dict[Connection, Piece] = {}
        self._processes: dict[Connection, BaseProcess] = {}
        self._ends = ExitStack()

    def __enter__(self) -> Jobs[Piece, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.kill()
        for ours, process in self._processes.items():
            process.join(ENDING_S)
            ours.close()

    def put(self, piece: Piece) -> None:
        """Have it done, after those before it."""
        self._waiting.append(piece)

    def put_first(self, piece: Piece) -> None:
        """Have it done next."""
        self._waiting.appendleft(piece)

    def __iter__(self) -> Iterator[tuple[Piece, Result]]:
        """Each piece with what came of it, as it comes, until nothing is left; more may be put in meanwhile."""
        while self._waiting or self._busy:
            if self._count == 1:
                piece = self._waiting.popleft()
                yield piece, self._work(piece)
            else:
                self._hand_out()
                yield self._next()

    def _hand_out(self) -> None:
        while self._waiting and (self._idle or len(self._processes) < self._count):
            ours = self._idle.pop() if self._idle else self._start()
            piece = self._waiting.popleft()
            ours.send(piece)
            self._busy[ours] = piece

    def _start(self) -> Connection:
        # Spawned, not forked: the libraries' own threads do not survive a fork.
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._work), daemon=True)
        process.start()
        theirs.close()
        self._processes[ours] = process
        return ours

    def _next(self) -> tuple[Piece, Result]:
        ready = connection.wait(list(self._busy))[0]
        assert isinstance(ready, Connection)
        piece = self._busy.pop(ready)
        try:
            result = ready.recv()
        except EOFError as error:
            process = self._processes.pop(ready)
            process.join(ENDING_S)
            raise EnvironmentUnavailable(
                f"a process ended with exit code {process.exitcode} while it worked on {piece}. Is there enough memory?"
            ) from error
        self._idle.append(ready)
        if isinstance(result, _Raised):
            raise result.error
        return piece, result


class _Raised:
    """What the work raised, on its way."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _serve(theirs: Connection, work: Callable[[Any], Any]) -> None:
    """Do what comes, one after the other, until there is nobody any more who sends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this process ends it
    while True:
        try:
            piece = theirs.recv()
        except EOFError:
            return
        try:
            result = work(piece)
        except Exception as error:
            theirs.send(_Raised(error))
        else:
            theirs.send(result)

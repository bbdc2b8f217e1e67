"""What every command shares with the shell that started it: three streams, signals, an exit code; and its own faults.

However a command ends, its user sees its results, or one message on standard error: never a traceback.
"""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import stat
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO

import typer

from eventmesh.errors import EnvironmentUnavailable, EventmeshError, StoredSetting
from eventmesh.report.legible import legible_lines, write_plainly

FAULT = 1
#: A process that a signal ended has this exit code and the signal's number, as shells say it.
BY_SIGNAL = 128
STOPPED = BY_SIGNAL + signal.SIGINT
#: Whoever closes the terminal, shuts the machine down or presses Ctrl-C wants the command to end, and nothing left.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STDOUT = 1


def carry_out(command: Callable[[], int]) -> int:
    """Carry out a command; its exit code, or that of how it ended."""
    with _Signals() as signals, _warnings_said():
        streams = _Streams()
        try:
            code = streams.closed() or streams.written(_judged(command, streams))
        except KeyboardInterrupt:
            code = STOPPED
        return signals.code(code)


@contextmanager
def _warnings_said() -> Iterator[None]:
    """Settings of stored files that have no effect are said, once each; Python's own form names a line of code."""
    said = set[str]()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, StoredSetting):
            python_shows(message, category, *where, **more)
        elif str(message) not in said:
            said.add(str(message))
            say(str(message))

    with warnings.catch_warnings():
        python_shows = warnings.showwarning
        warnings.showwarning = show
        warnings.filterwarnings("always", category=StoredSetting)
        yield


def say(message: str) -> None:
    """One message on standard error; where that is closed or full, nobody is there to be told."""
    with suppress(OSError, ValueError):
        typer.echo(f"eventmesh: {legible_lines(message)}", err=True)


def _judged(command: Callable[[], int], streams: _Streams) -> int:
    try:
        return command()
    except SystemExit as ended:  # typer's own way to end: of a reader who has seen enough it makes an error
        cause = ended.__context__
        return streams.failed(cause) if isinstance(cause, BrokenPipeError) else _number(ended.code)
    except _USAGE as error:
        return _misused(error)
    except EventmeshError as error:
        say(str(error))
        return error.exit_code
    except OSError as error:
        return streams.failed(error)
    except MemoryError:
        say("there is not enough memory for this. Try a smaller load, or a machine that has more")
        return EnvironmentUnavailable.exit_code
    except Exception as error:
        return _fault(error)


def _number(code: object) -> int:
    return code if isinstance(code, int) else int(code is not None)


# --- usage ---------------------------------------------------------------------------------------

#: What typer raises for a command line that is wrong. It names none of its bases publicly.
_USAGE: type[Exception] = typer.BadParameter.__mro__[1]


def _misused(error: Any) -> int:
    """What is wrong with the command line, in one line; of a group without a command, its help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.message, err=True)
    else:
        command = error.ctx.command_path if error.ctx else "eventmesh"
        wrong = _what_is_wrong(error)
        say(f"{wrong}{'' if wrong.endswith(('.', '?')) else '.'} Try '{command} --help' for help")
    return int(error.exit_code)


def _what_is_wrong(error: Any) -> str:
    from pydantic import ValidationError

    from eventmesh.configuration import explain

    if isinstance(error.__cause__, ValidationError):
        problem, _ = explain(error.__cause__.errors(include_url=False)[0], [])
        said = problem.replace("found text ", "found ")  # all that is typed is text
        return f"{error.format_message().partition(': ')[0]}: {said}"
    return str(error.format_message())


# --- signals -------------------------------------------------------------------------------------


class _Signals:
    """While entered, the first of :data:`STOPS` ends the command as Ctrl-C does, and the second at once.

    A signal that is ignored stays so: ``nohup`` and shells' background jobs ask for that.
    """

    def __init__(self) -> None:
        self._came: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for each in STOPS:
                before = signal.getsignal(each)
                if before not in (signal.SIG_IGN, None):
                    self._before[each] = before
                    signal.signal(each, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for each, before in self._before.items():
            signal.signal(each, before)  # type: ignore[arg-type]

    def _stop(self, number: int, _: FrameType | None) -> None:
        if self._came is not None:
            with suppress(OSError):
                os.write(sys.stderr.fileno(), b"eventmesh: stopped at once; what it had started is not cleaned up\n")
            os._exit(BY_SIGNAL + number)
        self._came = signal.Signals(number)
        raise KeyboardInterrupt

    def code(self, code: int) -> int:
        """A command's exit code, as the signal that ended it changes it; and a word about that."""
        if self._came is not None and self._came != signal.SIGINT:
            say(f"stopped by {self._came.name}")
            return BY_SIGNAL + self._came
        if code == STOPPED:
            say("stopped")
        return code


# --- streams -------------------------------------------------------------------------------------


class _Streams:
    """Standard output and standard error as they were given: closed, full, a pipe, of any encoding."""

    def __init__(self) -> None:
        self._out_was_closed = sys.stdout is None or not _is_open(STDOUT)
        _hold_the_first_three()
        self._out = sys.stdout = _rebuilt(sys.stdout, sys.__stdout__, _Remembering)
        sys.stderr = _rebuilt(sys.stderr, sys.__stderr__, _Forgiving)
        for stream in (sys.stdout, sys.stderr):
            write_plainly(stream)

    def closed(self) -> int:
        """Whether there is no standard output; before anything begins, since its results would be lost."""
        if not self._out_was_closed:
            return 0
        say("standard output is closed, so the results could not be shown. Direct it to a file, or to /dev/null")
        return EnvironmentUnavailable.exit_code

    def written(self, code: int) -> int:
        """The command's exit code, unless its results cannot be written."""
        try:
            sys.stdout.flush()
        except (OSError, ValueError) as error:
            return code or self._unwritten(error)
        return code

    def failed(self, error: OSError) -> int:
        """The system refused something to the command: perhaps to write its results."""
        refused = self._out.refused if isinstance(self._out, _Remembering) else None
        if refused is not None:
            return self._unwritten(refused)
        if isinstance(error, BrokenPipeError) and _is_unread(STDOUT):
            return self._unwritten(error)
        if error.errno in _OF_THE_ENVIRONMENT:
            say(f"{error.filename or 'the system'}: {error.strerror}. What had begun was stopped")
            return EnvironmentUnavailable.exit_code
        return _fault(error)

    def _unwritten(self, error: OSError | ValueError) -> int:
        """What cannot be written is given up; of a reader who has seen enough nothing is said."""
        _give_up_output()
        if isinstance(error, BrokenPipeError):
            return 0
        reason = getattr(error, "strerror", None) or str(error)
        say(f"the results cannot be written to standard output ({reason}). Direct it to where there is room")
        return EnvironmentUnavailable.exit_code


#: A disk that is full, fails or may not be written, too many open files, no memory.
_OF_THE_ENVIRONMENT = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE,
    errno.ENFILE, errno.ENOMEM,
}  # fmt: skip


# Both as texts, not below their buffers: a signal that came after a write there, and before its return, would have the
# buffer written again.
class _Remembering(io.TextIOWrapper):
    """Standard output, which remembers that a write was refused: the error alone does not say whose it is."""

    refused: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self.refused = error
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self.refused = error
            raise


class _Forgiving(io.TextIOWrapper):
    """Standard error. What cannot be written to it is lost: nobody is there to be told, and the command goes on."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def _rebuilt(stream: TextIO | None, original: TextIO | None, kind: type[io.TextIOWrapper]) -> TextIO:
    """The stream that Python has made of its descriptor, of our own kind; one that a test has put in stays."""
    if stream is None or original is None:
        return _nowhere()
    if stream is not original:
        return stream
    # Our words have a descriptor of their own: what Ray's C++ code writes to the common one is turned aside while a
    # mesh runs (:mod:`eventmesh.runtime.on_ray.driver`).
    descriptor = os.dup(stream.fileno()) if kind is _Forgiving else stream.fileno()
    raw = io.FileIO(descriptor, "w", closefd=False)
    through = getattr(stream, "write_through", False)
    by_line = raw.isatty() or kind is _Forgiving
    return kind(io.BufferedWriter(raw), encoding=stream.encoding, line_buffering=by_line, write_through=through)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _hold_the_first_three() -> None:
    """A file that is opened later takes the lowest free number, which must not be that of a stream to print to."""
    for descriptor in range(3):
        if not _is_open(descriptor):
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def _give_up_output() -> None:
    """What still waits to be written goes nowhere: Python would try it again when it ends, and complain."""
    with suppress(OSError, ValueError, io.UnsupportedOperation):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def while_read() -> Iterator[None]:
    """Ends what is done within, as a broken pipe does, when nobody reads standard output any more.

    A command that waits for what comes writes nothing meanwhile, and would not notice. A thread waits until the
    system reports the other end of the pipe as closed, and wakes the main thread with the signal for that, SIGPIPE,
    which Python ignores otherwise. The same signal may mean a socket: then the pipe is still read, and it is passed by.
    """
    descriptor = _pipe_of(sys.stdout)
    if descriptor is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    main = threading.get_ident()
    over, ended = os.pipe()

    def watch() -> None:
        poll = select.poll()
        poll.register(descriptor, 0)  # the end of the reader is reported without being asked for
        poll.register(over, select.POLLIN)
        if any(found == descriptor for found, _ in poll.poll()):
            signal.pthread_kill(main, signal.SIGPIPE)

    before = signal.signal(signal.SIGPIPE, lambda *_: _end_if_unread(descriptor))
    watcher = threading.Thread(target=watch, name="reader of standard output", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.signal(signal.SIGPIPE, before)
        os.close(ended)
        watcher.join()
        os.close(over)


def _end_if_unread(descriptor: int) -> None:
    if _is_unread(descriptor):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _is_unread(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))


def _pipe_of(stream: TextIO) -> int | None:
    try:
        descriptor = stream.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError):  # a stream of a test's own
        return None
    return descriptor if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None


# --- faults --------------------------------------------------------------------------------------


def _fault(error: BaseException) -> int:
    """An error that nobody foresaw: its traceback goes to a file, and its user hears whose fault it is."""
    told = "".join(traceback.format_exception(error))
    what = f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(": ")
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="eventmesh-fault-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(f"{' '.join(['eventmesh', *sys.argv[1:]])}\nPython {sys.version}\n\n{told}")
        kept = f"Please report it with the command that you typed and with {file.name}, which says where it happened"
    except OSError as unkept:
        kept = f"Where it happened could not be written to a file ({unkept.strerror})"
    say(f"this is a fault of eventmesh, not of yours ({what}). {kept}")
    return FAULT
